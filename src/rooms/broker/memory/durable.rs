//! Rooms whose history survives a restart: the way to the store.
use super::History;
use super::seen::{Namer, Seen};
use crate::config::{Duplicates, Rules};
use crate::rooms::broker::{Message, Publication};
use crate::rooms::mail::{Position, RoomKey};
use crate::store::{Append, Loaded, Record, Replies, Reply, RoomName, Store, StoreLink};
use jiff::Timestamp;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// One shard's way to the store.
pub struct Durable {
    link: StoreLink,
    replies: Replies,
    namespaces: Arc<[Arc<str>]>,
    /// Calls that are not answered yet.
    asked: HashMap<u64, RoomKey>,
    next: u64,
}

/// Messages of a room on their way to the disk.
#[derive(Default)]
pub struct InFlight {
    messages: VecDeque<Pending>,
    /// One of them has failed: those behind it will too, and no other follows until all are answered.
    failed: bool,
}

/// A message on its way to the disk.
pub struct Pending {
    /// The message.
    pub message: Message,
    /// Whose it is, and what it is called, where it was given a name.
    pub publication: Publication,
    /// The publishes that wait for it: its own, and repetitions.
    pub tickets: Vec<u64>,
    call: u64,
}

/// What the store has answered.
pub enum Outcome {
    /// What is stored of a room, if anything is.
    Loaded(RoomKey, Option<Loaded>),
    /// The store could not say.
    NotLoaded(RoomKey),
    /// The room's first message on its way has arrived.
    Appended(RoomKey),
    /// A message on its way has failed.
    Failed(RoomKey, u64),
}

impl Durable {
    /// A way to this store. `namespaces`: their names, by their indexes.
    pub fn new(store: &Store, namespaces: Arc<[Arc<str>]>) -> Durable {
        let (link, replies) = store.connect();
        Durable { link, replies, namespaces, asked: HashMap::new(), next: 0 }
    }

    fn name(&self, room: &RoomKey) -> RoomName {
        let namespace = self.namespaces[usize::from(room.namespace.index)].clone();
        RoomName { namespace, room: room.name.clone() }
    }

    fn call(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Asks what is stored of a room. False: the store has too much to do.
    pub fn load(&mut self, room: &RoomKey) -> bool {
        let call = self.call();
        let asked = self.link.load(call, self.name(room)).is_ok();
        if asked {
            self.asked.insert(call, room.clone());
        }
        asked
    }

    /// Sends a message on its way, which follows those of `before`. It comes back where the store has too much to do.
    pub fn append(
        &mut self,
        room: &RoomKey,
        (message, publication, ticket): (Message, Publication, u64),
        before: &mut InFlight,
        kept: &Kept<'_>,
    ) -> Result<(), Publication> {
        let call = self.call();
        let offset = message.position.offset;
        let oldest = kept.history.first().unwrap_or(kept.stored + 1);
        let record = Record {
            offset,
            at_ms: message.at.as_millisecond(),
            sender: publication.sender.clone(),
            message_id: publication.message_id.clone(),
            text: message.text(),
        };
        let append = Append {
            room: self.name(room),
            epoch: message.position.epoch.clone(),
            record,
            keep_from: oldest.max((offset + 1).saturating_sub(kept.rules.history.messages as u64)),
            acknowledged: kept.stored,
            age: kept.rules.history.age,
        };
        if self.link.append(call, append).is_err() {
            return Err(publication);
        }
        self.asked.insert(call, room.clone());
        before.messages.push_back(Pending { message, publication, tickets: vec![ticket], call });
        Ok(())
    }

    /// The next answer.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            let Poll::Ready(reply) = self.replies.poll_next(cx) else { return Poll::Pending };
            let (Reply::Loaded { ticket, .. }
            | Reply::Appended { ticket }
            | Reply::Forgotten { ticket }
            | Reply::Failed { ticket }) = reply;
            let Some(room) = self.asked.remove(&ticket) else { continue };
            return Poll::Ready(match reply {
                Reply::Loaded { found: Ok(found), .. } => Outcome::Loaded(room, found),
                Reply::Loaded { found: Err(_), .. } => Outcome::NotLoaded(room),
                Reply::Appended { .. } => Outcome::Appended(room),
                Reply::Forgotten { .. } => continue,
                Reply::Failed { ticket } => Outcome::Failed(room, ticket),
            });
        }
    }
}

/// What is known of a room that a message is added to.
pub struct Kept<'a> {
    /// Its rules.
    pub rules: &'a Rules,
    /// Its history.
    pub history: &'a History,
    /// The offset of the last message on the disk.
    pub stored: u64,
}

impl InFlight {
    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether nothing can be added now.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Messages on their way.
    pub fn len(&self) -> u64 {
        self.messages.len() as u64
    }

    /// Has a repetition wait for the message at this offset. False: it is not on its way.
    pub fn wait_for(&mut self, offset: u64, ticket: u64) -> bool {
        let Some(pending) = self.messages.iter_mut().find(|p| p.message.position.offset == offset) else {
            return false;
        };
        pending.tickets.push(ticket);
        true
    }

    /// The first one has arrived.
    pub fn arrived(&mut self) -> Option<Pending> {
        let first = self.messages.pop_front();
        self.failed &= !self.messages.is_empty();
        first
    }

    /// One has failed.
    pub fn fail(&mut self, call: u64) -> Option<Pending> {
        let place = self.messages.iter().position(|p| p.call == call)?;
        let pending = self.messages.remove(place);
        self.failed = !self.messages.is_empty();
        pending
    }
}

/// The state of a room as it was stored, within the bounds of its rules.
pub fn restore(loaded: Loaded, rules: &Rules, duplicates: &Duplicates, namer: &Namer) -> (Position, History, Seen) {
    let (now, wall) = (Instant::now(), Timestamp::now());
    let (mut history, mut seen) = (History::default(), Seen::default());
    let position = Position { epoch: loaded.epoch, offset: loaded.offset };
    for record in loaded.records {
        let at = Timestamp::from_millisecond(record.at_ms).unwrap_or(wall);
        let age = Duration::try_from(wall.duration_since(at)).unwrap_or_default();
        let since = now.checked_sub(age).unwrap_or(now);
        let place = Position { epoch: position.epoch.clone(), offset: record.offset };
        history.push(Message::from_text(place, at, &record.text), since, &rules.history);
        let name = namer.name(&record.message_id);
        if age < duplicates.age {
            seen.remember(&record.sender.unwrap_or_default(), name, record.offset, since, duplicates);
        }
    }
    history.trim(now, &rules.history);
    (position, history, seen)
}
