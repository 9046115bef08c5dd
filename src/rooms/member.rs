//! A session's side of the rooms: a visitor becomes a member when it has said who it is.
mod asking;
mod hooked;

use super::local::{self, Entry};
use super::mail::{Ask, RoomKey, Ticket};
use super::protocol::{Fault, Request, push, read};
use super::{Rooms, protocol};
use crate::close::{Close, Code};
use crate::config::{Limits, Namespace};
use crate::identity::Identity;
use crate::limits::ClientRooms;
use crate::shard::Handle;
use crate::ws::frame::{Opcode, frame};
use jiff::Timestamp;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// Messages in a row that are not understood; the last one closes.
const NOT_UNDERSTOOD_MAX: u32 = 10;

/// A session that has yet to say who it is: its first message must be `auth`.
pub struct Visitor;

/// A session of a client that is known.
pub struct Member {
    rooms: Rc<Rooms>,
    entry: Rc<Entry>,
}

/// A request to be let in, or to stay longer, by a token.
#[derive(Debug)]
pub struct Auth {
    /// The token. It must not be shown.
    pub token: crate::config::secret::Secret,
    /// What the answer goes with.
    pub message_id: String,
}

/// What a session must know to become a member.
pub struct Enter<'a> {
    /// Who it is.
    pub identity: Identity,
    /// Where.
    pub namespace: Namespace,
    /// The route's limits.
    pub limits: &'a Limits,
    /// Whether permessage-deflate was agreed on.
    pub deflate: bool,
    /// The count of the client's rooms.
    pub rooms: ClientRooms,
}

impl Visitor {
    /// Reads the first message.
    pub fn read(text: &str) -> Result<Auth, Close> {
        let request = read(text).map_err(|_| Close::gateway(Code::AuthRequired))?;
        if request.kind != "auth" {
            return Err(Close::gateway(Code::AuthRequired));
        }
        auth(&request).map_err(|_| Close::gateway(Code::AuthRequired))
    }

    /// Tells it that it will be closed, and what to do then.
    pub fn say_goodbye(handle: &Handle, close: &Close) {
        let text = protocol::push::disconnect(close);
        handle.send(frame(Opcode::Text, text.as_bytes()), text.len(), Instant::now());
    }
}

fn auth(request: &Request<'_>) -> Result<Auth, Cow<'static, str>> {
    let token = request.payload.token()?;
    Ok(Auth {
        token: crate::config::secret::Secret::new(token.as_bytes()),
        message_id: ticket(request.message_id.as_deref()).into(),
    })
}

fn ticket(message_id: Option<&str>) -> Ticket {
    message_id.map_or_else(|| uuid::Uuid::now_v7().to_string().into(), Into::into)
}

impl Member {
    /// Takes the session in, and greets it. `auth`: the message that let it in.
    pub fn enter(rooms: &Rc<Rooms>, handle: &Rc<Handle>, enter: Enter<'_>, auth: Option<&Auth>) -> Member {
        let Enter { identity, namespace, limits, deflate, rooms: counted } = enter;
        let said = rooms.shared.statuses.of(namespace, &identity.client);
        let entry = rooms.local.borrow_mut().add(rooms.shard.index, |reference| Entry {
            reference,
            handle: handle.clone(),
            shard: rooms.shard.clone(),
            namespace,
            identity: RefCell::new(identity),
            deflate,
            max_backlog: limits.max_backlog,
            counted,
            said: RefCell::new(said),
            unanswered: Cell::new(0),
            asking: Cell::new(false),
            resting: Cell::new(false),
            cut_off: Cell::new(false),
            not_understood: Cell::new(0),
            rooms: RefCell::new(HashMap::new()),
            recovery: RefCell::default(),
            queries: RefCell::default(),
        });
        handle.set_member(Some(entry.reference.slot));
        let member = Member { rooms: rooms.clone(), entry };
        if let Some(auth) = auth {
            member.auth_response(&auth.message_id);
        }
        member.greet(limits);
        member
    }

    fn greet(&self, limits: &Limits) {
        let identity = self.entry.identity.borrow();
        let expires_at = identity.expires_at.map(|at| format!(r#""expires_at":{at},"#)).unwrap_or_default();
        let max_message_size = if limits.max_message_size == u64::MAX { 0 } else { limits.max_message_size };
        let payload = format!(
            concat!(
                r#"{{"client_id":{},"session_id":"{}","server_time":"{}","protocol":"rooms.v1","heartbeat_ms":{},"#,
                r#"{}"limits":{{"max_message_size":{},"messages_per_second":{}}}}}"#
            ),
            push::Json(&identity.client),
            self.entry.handle.about().map(|about| about.session_id).unwrap_or_default(),
            push::Time(Timestamp::now()),
            limits.ping_interval.map_or(0, |d| d.as_millis()),
            expires_at,
            max_message_size,
            limits.messages_per_second.unwrap_or(0),
        );
        self.entry.say("connection_established", &payload, None, Instant::now());
    }

    fn auth_response(&self, id: &str) {
        let identity = self.entry.identity.borrow();
        let expires_at = identity.expires_at.map(|at| format!(r#","expires_at":{at}"#)).unwrap_or_default();
        let payload = format!(r#"{{"client_id":{}{expires_at}}}"#, push::Json(&identity.client));
        self.entry.say("auth_response", &payload, Some(id), Instant::now());
    }

    /// Who it is.
    pub fn identity(&self) -> Identity {
        self.entry.identity.borrow().clone()
    }

    /// Bytes that may be queued for it.
    pub fn backlog_allowed(&self) -> usize {
        self.entry.backlog_allowed()
    }

    /// Whether another request may be read now.
    pub fn may_ask(&self) -> bool {
        self.entry.may_ask()
    }

    /// A fresh token came, and was found to name this client, or why it is refused. Whether it counts from now on.
    pub fn refreshed(&self, auth: &Auth, identity: Result<Identity, (Code, &'static str)>) -> bool {
        let refused = {
            let mut known = self.entry.identity.borrow_mut();
            match identity {
                Err(refused) => Some(refused),
                Ok(_) if known.is_anonymous() => {
                    Some((Code::AuthFailed, "this socket was let in without a token, and stays so"))
                }
                Ok(new) if new.client != known.client => Some((Code::AuthFailed, "the token names another client")),
                Ok(new) => {
                    *known = new;
                    None
                }
            }
        };
        match refused {
            Some((code, message)) => self.refuse(code, message, None, Some(&auth.message_id)),
            None => {
                self.auth_response(&auth.message_id);
                self.leave_forbidden();
            }
        }
        refused.is_none()
    }

    /// Leaves the rooms that the client's new token does not list any more.
    fn leave_forbidden(&self) {
        let identity = self.identity();
        let forbidden =
            |room: &&RoomKey| !identity.may_join(self.rooms.shared.rules.rules_of(&room.name).join, &room.name);
        for room in self.entry.room_keys().into_iter().filter(|room| forbidden(&room)) {
            local::ask(&self.rooms, &self.entry, room, "".into(), Ask::Forbidden);
        }
    }

    /// Answers a message that came too fast and was thrown away. `text`: empty for a binary one.
    pub fn too_fast(&self, text: &str, wait: Duration) {
        let id = read(text).ok().and_then(|r| r.message_id.map(Cow::into_owned));
        self.refuse(Code::RateLimit, Code::RateLimit.message(), Some(wait), id.as_deref());
    }

    fn refuse(&self, code: Code, message: &str, wait: Option<Duration>, id: Option<&str>) {
        self.entry.error(code, message, wait, id, Instant::now());
    }

    /// A binary message came.
    pub fn on_binary(&self) -> Result<(), Close> {
        self.not_understood(Fault { message_id: None, message: "a message must be text".into() })
    }

    /// A text came. What it asks is done or answered; a token in it is for the caller to judge.
    pub fn on_text(&self, text: &str) -> Result<Option<Auth>, Close> {
        match read(text).and_then(|request| self.serve(request)) {
            Ok(auth) => {
                self.entry.not_understood.set(0);
                Ok(auth)
            }
            Err(fault) => self.not_understood(fault).map(|()| None),
        }
    }

    fn not_understood(&self, fault: Fault) -> Result<(), Close> {
        let count = self.entry.not_understood.get() + 1;
        self.entry.not_understood.set(count);
        self.refuse(Code::InvalidFormat, &fault.message, None, fault.message_id.as_deref());
        if count < NOT_UNDERSTOOD_MAX { Ok(()) } else { Err(Close::gateway(Code::InvalidFormat)) }
    }

    /// What it has asked or recovers and is still to come: answers, queries, rooms.
    #[cfg(test)]
    pub(super) fn waits_for(&self) -> Option<(usize, usize, usize)> {
        let Entry { unanswered, queries, recovery, .. } = &*self.entry;
        let waits = (unanswered.get(), queries.borrow().len(), recovery.borrow().rooms.len());
        (waits != (0, 0, 0) || recovery.borrow().asked).then_some(waits)
    }

    /// The socket may have taken what was queued: where the session recovers, it goes on.
    pub fn feed(&self) {
        self.entry.feed(&self.rooms);
    }

    /// Tells the client that it will be closed, and what to do then.
    pub fn say_goodbye(&self, close: &Close) {
        self.entry.send_last_text(&protocol::push::disconnect(close), Instant::now());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.entry.handle.set_member(None);
        let rooms = self.rooms.local.borrow_mut().remove(&self.entry);
        for room in rooms {
            local::ask(&self.rooms, &self.entry, room, "".into(), Ask::Gone);
        }
    }
}
