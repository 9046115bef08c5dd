//! What an application is asked about before it is done.
use super::Member;
use crate::close::{Close, Code};
use crate::config::HookEvent;
use crate::hook::{Asker, Question, Verdict};
use crate::identity::Identity;
use crate::rooms::Rooms;
use crate::rooms::local::{self, Entry};
use crate::rooms::mail::{Ask, Join, Position, RoomKey, Ticket};
use crate::rooms::protocol::{NESTED_MAX, is_nested_deeper};
use crate::shard::Handle;
use serde_json::value::RawValue;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::spawn_local;
use tokio::time::Instant;

/// What a member wants to do, as far as it may.
pub(super) enum Wish {
    /// To join a room.
    Join(RoomKey, Ticket, Option<Position>),
    /// To publish to a room; `bool`: it gave the message its name.
    Publish(RoomKey, Ticket, Box<RawValue>, bool),
}

impl Wish {
    fn event(&self) -> HookEvent {
        match self {
            Wish::Join(..) => HookEvent::Join,
            Wish::Publish(..) => HookEvent::Publish,
        }
    }

    fn ticket(&self) -> &str {
        match self {
            Wish::Join(_, ticket, _) | Wish::Publish(_, ticket, ..) => ticket,
        }
    }

    async fn ask(&self, asker: &Asker, rooms: &Rooms, entry: &Entry) -> Verdict {
        let client = client(entry);
        let (room, message_id, message) = match self {
            Wish::Join(room, ..) => (room, None, None),
            Wish::Publish(room, ticket, message, _) => (room, Some(&**ticket), Some(&**message)),
        };
        let question = Question {
            event: self.event(),
            namespace: rooms.shared.namespace(entry.namespace),
            client: &client,
            session_id: entry.handle.about().map(|about| about.session_id),
            room: (!room.is_everyone()).then_some(&*room.name),
            message_id,
            message,
            ip: entry.handle.ip.get(),
        };
        asker.ask(question).await
    }

    /// Nothing stands against it any more.
    fn come_true(self, rooms: &Rooms, entry: &Entry) {
        match self {
            Wish::Publish(room, ticket, message, named) => {
                local::ask(rooms, entry, room, ticket, Ask::Publish { message, named });
            }
            Wish::Join(room, ticket, since) => {
                let mut memberships = entry.rooms.borrow_mut();
                let max = rooms.shared.rules.max_rooms_per_client;
                if !memberships.contains_key(&room) && memberships.len() >= max {
                    let words = "you are in too many rooms";
                    drop(memberships);
                    return entry.error(Code::RoomFull, words, None, Some(&ticket), Instant::now());
                }
                memberships.entry(room.clone()).or_default().joins += 1;
                drop(memberships);
                // Where it has said something, there may be more that is not told yet.
                let known = entry.said.borrow().clone();
                let newest = known.as_ref().and_then(|_| rooms.shared.statuses.of(entry.namespace, &client(entry)));
                let (said, counted) = (newest.or(known), entry.counted.clone());
                let join = Join { deflate: entry.deflate, since, said, rooms: counted };
                local::ask(rooms, entry, room, ticket, Ask::Join(Box::new(join)));
            }
        }
    }
}

/// A session about which the application is asked: it is not read until this is dropped, however that comes.
struct Asking(Rc<Entry>);

impl Asking {
    fn about(entry: Rc<Entry>) -> Asking {
        entry.asking.set(true);
        Asking(entry)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.asking.set(false);
        self.0.handle.wake();
        if std::thread::panicking() {
            self.0.shard.metrics().panicked();
        }
    }
}

impl Member {
    /// Does what the member wants, where the application is not asked, or when it has allowed it. The session is not
    /// read meanwhile.
    pub(super) fn if_allowed(&self, wish: Wish) {
        let asker = self.rooms.asker.as_ref().filter(|asker| asker.asks(wish.event()));
        let Some(asker) = asker.cloned() else { return wish.come_true(&self.rooms, &self.entry) };
        let (rooms, entry) = (self.rooms.clone(), self.entry.clone());
        let asking = Asking::about(entry.clone());
        spawn_local(async move {
            let verdict = wish.ask(&asker, &rooms, &entry).await;
            // The session may have ended meanwhile.
            let lives = rooms.local.borrow().has(entry.reference);
            if lives {
                judged(&rooms, &entry, wish, verdict);
            }
            drop(asking);
        });
    }
}

fn client(entry: &Entry) -> std::sync::Arc<str> {
    entry.identity.borrow().client.clone()
}

fn judged(rooms: &Rooms, entry: &Entry, mut wish: Wish, verdict: Verdict) {
    let refused = match verdict {
        Verdict::Allowed => None,
        Verdict::Changed(changed) => match &mut wish {
            Wish::Publish(_, _, message, _) if fits(rooms, &changed) => {
                *message = changed;
                None
            }
            Wish::Publish(..) => Some((Code::Unknown, "the application's message cannot be sent".to_owned())),
            Wish::Join(..) => None,
        },
        Verdict::Refused { reason } => {
            Some((Code::RoomNotFound, reason.unwrap_or_else(|| "the application does not allow it".into())))
        }
        Verdict::Failed => Some((Code::Unknown, "the application could not be asked; try again".to_owned())),
    };
    match refused {
        None => wish.come_true(rooms, entry),
        Some((code, message)) => entry.error(code, &message, None, Some(wish.ticket()), Instant::now()),
    }
}

fn fits(rooms: &Rooms, message: &RawValue) -> bool {
    message.get().len() <= rooms.shared.rules.max_message_size && !is_nested_deeper(message.get(), NESTED_MAX)
}

/// How long a client whose connection could not be asked about is told to wait.
const WAIT: Duration = Duration::from_secs(1);

impl Rooms {
    /// Asks the application whether a client's session may begin, where it is asked about that: the future of the
    /// answer. `Some`: it may not.
    pub fn ask_to_connect(
        self: &Rc<Self>,
        handle: &Rc<Handle>,
        identity: &Identity,
    ) -> Option<impl Future<Output = Option<Close>> + use<>> {
        let asker = self.asker.as_ref().filter(|asker| asker.asks(HookEvent::Connect)).cloned()?;
        let (client, about, ip) = (identity.client.clone(), handle.about()?, handle.ip.get());
        let namespace = self.shared.namespace(about.namespace).clone();
        Some(async move {
            let question = Question {
                event: HookEvent::Connect,
                namespace: &namespace,
                client: &client,
                session_id: Some(about.session_id),
                room: None,
                message_id: None,
                message: None,
                ip,
            };
            match asker.ask(question).await {
                Verdict::Allowed | Verdict::Changed(_) => None,
                Verdict::Refused { reason } => {
                    let words = reason.unwrap_or_else(|| "the application does not allow it".into());
                    Some(Close::because(Code::Administrator, words))
                }
                Verdict::Failed => Some(Close::gateway(Code::UpstreamUnavailable).retry_after(WAIT)),
            }
        })
    }
}
