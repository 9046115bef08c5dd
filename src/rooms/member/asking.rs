//! What a member asks, by the type of its message.
use super::hooked::Wish;
use super::{Auth, Fault, Member, auth, ticket};
use crate::close::Code;
use crate::config::Permission;
use crate::rooms::local::{self, Query};
use crate::rooms::mail::{Ask, Mail, Position, RoomKey, Ticket};
use crate::rooms::protocol::{Names, Request, Status, push};
use crate::rooms::statuses::Change;
use jiff::Timestamp;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;

impl Member {
    pub(super) fn serve(&self, request: Request<'_>) -> Result<Option<Auth>, Fault> {
        let fault = |message| Fault { message_id: request.message_id.as_deref().map(str::to_owned), message };
        let ticket = ticket(request.message_id.as_deref());
        let payload = &request.payload;
        match &*request.kind {
            "auth" => return auth(&request).map(Some).map_err(fault),
            "join_room" => {
                let (room, since) = (payload.room_id().map_err(fault)?, payload.since().map_err(fault)?);
                self.join(self.key(&room), ticket, since);
            }
            "leave_room" => self.ask(&payload.room_id().map_err(fault)?, ticket, Ask::Leave),
            "room_members" => {
                let (room, limit) = (payload.room_id().map_err(fault)?, payload.limit().map_err(fault)?);
                self.ask(&room, ticket, Ask::Members { limit, after: payload.after().map_err(fault)? });
            }
            "message" => {
                let room = payload.room_id_if_any().map_err(fault)?;
                let message = payload.message().map_err(fault)?.to_owned();
                self.publish(room, ticket, message, request.message_id.is_some());
            }
            kind @ ("typing_start" | "typing_stop") => {
                let start = kind == "typing_start";
                self.ask(&payload.room_id().map_err(fault)?, ticket, Ask::Typing { start });
            }
            "read_receipt" => {
                let (room, offset) = (payload.room_id().map_err(fault)?, payload.offset().map_err(fault)?);
                self.ask(&room, ticket, Ask::Receipt { offset });
            }
            "presence_update" => self.say(payload.status().map_err(fault)?, &ticket),
            "presence_query" => {
                let (clients, room) = (payload.client_ids().map_err(fault)?, payload.room_id_if_any().map_err(fault)?);
                match (clients, room) {
                    (Some(clients), None) => self.look_for(clients, ticket),
                    (None, Some(room)) => self.look_into(&room, ticket),
                    _ => {
                        let words = "\"payload\" must have either \"payload.client_ids\" or \"payload.room_id\"";
                        return Err(fault(words.into()));
                    }
                }
            }
            "ping" => {
                let payload = format!(r#"{{"server_time":"{}"}}"#, push::Time(Timestamp::now()));
                self.entry.say("pong", &payload, Some(&ticket), Instant::now());
            }
            _ => return Err(fault("\"type\" is not known".into())),
        }
        Ok(None)
    }

    fn key(&self, room: &str) -> RoomKey {
        RoomKey { namespace: self.entry.namespace, name: room.into() }
    }

    fn join(&self, room: RoomKey, ticket: Ticket, since: Option<Position>) {
        let rules = self.rooms.shared.rules.rules_of(&room.name);
        if !self.entry.identity.borrow().may_join(rules.join, &room.name) {
            return self.refuse(Code::RoomNotFound, "you may not join this room", None, Some(&ticket));
        }
        self.if_allowed(Wish::Join(room, ticket, since));
    }

    /// Asks something that only a member of the room may ask.
    fn ask(&self, room: &str, ticket: Ticket, ask: Ask) {
        let room = self.key(room);
        if !self.entry.rooms.borrow().contains_key(&room) {
            return self.refuse(Code::RoomNotFound, "you are not in this room", None, Some(&ticket));
        }
        local::ask(&self.rooms, &self.entry, room, ticket, ask);
    }

    fn publish(&self, room: Option<Cow<'_, str>>, ticket: Ticket, message: Box<RawValue>, named: bool) {
        let Some(room) = room else { return self.broadcast(ticket, message, named) };
        let rules = self.rooms.shared.rules.rules_of(&room);
        // Most rooms are open to all: then there is nothing to look up.
        if rules.publish != Permission::Any && !self.entry.identity.borrow().may_publish(rules.publish, &room) {
            return self.refuse(Code::RoomNotFound, "you may not publish to this room", None, Some(&ticket));
        }
        let room = self.key(&room);
        if !self.entry.rooms.borrow().contains_key(&room) {
            return self.refuse(Code::RoomNotFound, "you are not in this room", None, Some(&ticket));
        }
        self.if_allowed(Wish::Publish(room, ticket, message, named));
    }

    fn broadcast(&self, ticket: Ticket, message: Box<RawValue>, named: bool) {
        if !self.rooms.shared.rules.broadcast_to_all && !self.entry.identity.borrow().claims.broadcast {
            return self.refuse(Code::RoomNotFound, "messages to everyone are not allowed", None, Some(&ticket));
        }
        self.if_allowed(Wish::Publish(RoomKey::everyone(self.entry.namespace), ticket, message, named));
    }

    /// The client says something of itself.
    fn say(&self, status: Status, ticket: &str) {
        let client = self.entry.identity.borrow().client.clone();
        let (namespace, statuses) = (self.entry.namespace, &self.rooms.shared.statuses);
        match statuses.change(namespace, &client, status, Instant::now()) {
            Change::Nothing => (),
            Change::Now(said) => {
                // At once: what this session asks next must not come before it.
                local::learns(&self.rooms, &self.entry, &said);
                self.rooms.shared.tell_status(namespace, &client, &said);
            }
            Change::Later(at) => {
                self.rooms.shared.hide_elsewhere(namespace, &client);
                self.rooms.shared.post.send(self.rooms.shard.index, Mail::StatusLater { at, namespace, client });
            }
            Change::Full => self.refuse(Code::Unknown, "too many clients have a status", None, Some(ticket)),
        }
    }

    /// Which of these clients are in a room with this one?
    fn look_for(&self, clients: Arc<[Box<str>]>, ticket: Ticket) {
        let rooms = self.entry.room_keys();
        if rooms.is_empty() {
            return local::tell_presences(&self.entry, &ticket, Some(&clients), &BTreeMap::new());
        }
        let number = self.query(&ticket, Some(clients.clone()), rooms.len());
        for room in rooms {
            let ask = Ask::Presences { clients: Some(clients.clone()) };
            local::ask(&self.rooms, &self.entry, room, number.clone(), ask);
        }
    }

    /// Who is in this room?
    fn look_into(&self, room: &str, ticket: Ticket) {
        let room = self.key(room);
        if !self.entry.rooms.borrow().contains_key(&room) {
            return self.refuse(Code::RoomNotFound, "you are not in this room", None, Some(&ticket));
        }
        let number = self.query(&ticket, None, 1);
        local::ask(&self.rooms, &self.entry, room, number, Ask::Presences { clients: None });
    }

    /// Remembers a question that several homes may have to answer: what they answer it by. A session has as many as it
    /// has requests unanswered.
    fn query(&self, id: &str, clients: Option<Names>, unanswered: usize) -> Ticket {
        let mut queries = self.entry.queries.borrow_mut();
        let number = queries.iter().map(|query| query.number).max().unwrap_or(0) + 1;
        queries.push(Query { number, id: id.into(), clients, found: BTreeMap::new(), unanswered });
        number.to_string().into()
    }
}
