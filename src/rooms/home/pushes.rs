//! What a room tells its members: messages at their places, and what has none.
use super::{Due, Home};
use crate::close::Code;
use crate::rooms::broker::{Message, Telling};
use crate::rooms::mail::{Answer, Except, Frame, Kind, Mail, RoomKey, SessionRef, Ticket};
use crate::rooms::protocol::push;
use crate::rooms::typing::Outcome;
use crate::ws::frame::{Opcode, frame};
use std::sync::Arc;
use tokio::time::Instant;

/// Messages shorter than this are not worth compressing.
const DEFLATE_AT_LEAST: usize = 256;

impl Home {
    /// A message has its place: it goes to the members, or waits where the room is conflated.
    pub(super) fn deliver_message(&mut self, key: &RoomKey, message: Message) {
        let Some(room) = self.rooms.get_mut(key) else { return };
        // What comes before the room is open was sent to one that had its name before.
        if room.position.is_none() {
            return;
        }
        room.position = Some(message.position.clone());
        let Some(interval) = room.rules.latest_only else { return self.send(key, &message) };
        let now = Instant::now();
        match room.conflated {
            (Some((sent_at, _)), ref mut waiting) if now < sent_at + interval => {
                let first = waiting.is_none();
                *waiting = Some(message);
                if first {
                    self.schedule.enter(sent_at + interval, Due::Conflated(key.clone()));
                }
            }
            _ => {
                room.conflated = (Some((now, message.position.offset)), None);
                self.send(key, &message);
            }
        }
    }

    pub(super) fn conflated_due(&mut self, key: &RoomKey) {
        let Some(room) = self.rooms.get_mut(key) else { return };
        let Some(message) = room.conflated.1.take() else { return };
        room.conflated.0 = Some((Instant::now(), message.position.offset));
        self.send(key, &message);
    }

    fn send(&mut self, key: &RoomKey, message: &Message) {
        let text = message.text();
        let frame = Frame { plain: message.frame.clone(), deflated: self.deflated(key, &text), payload: text.len() };
        self.deliver(key, &frame, &Kind::Chat(message.position.offset));
    }

    /// Tells all members something but some.
    pub(super) fn push(&mut self, key: &RoomKey, text: &str, except: Except) {
        let deflated = self.deflated(key, text.as_bytes());
        let frame = Frame { plain: frame(Opcode::Text, text.as_bytes()), deflated, payload: text.len() };
        self.deliver(key, &frame, &Kind::Push(except));
    }

    fn deflated(&self, key: &RoomKey, text: &[u8]) -> Option<bytes::Bytes> {
        let wanted = key.is_everyone() || self.rooms.get(key).is_some_and(|room| room.wants_deflate());
        let deflate = text.len() >= DEFLATE_AT_LEAST && wanted;
        self.shard.deflated(deflate, Opcode::Text, text)
    }

    fn deliver(&mut self, key: &RoomKey, frame: &Frame, kind: &Kind) {
        let Some(room) = self.rooms.get_mut(key) else { return };
        let is_message = matches!(kind, Kind::Chat(_));
        let shards: smallvec::SmallVec<[usize; 8]> = if key.is_everyone() {
            (0..self.shared.post.shards()).collect()
        } else if is_message {
            room.shards().collect()
        } else {
            room.shards_to_tell().collect()
        };
        for shard in shards {
            let copy = frame.on_its_own(shard != self.shard.index);
            if self.shared.post.deliver(shard, key.clone(), copy, kind.clone()) {
                continue;
            }
            self.next_number += 1;
            let (room_key, loss) = (key.clone(), self.next_number);
            // A message can be had a second time, but for one to everyone; what is none cannot.
            let again = is_message && !key.is_everyone();
            room.fell_behind(shard, loss, !again);
            let behind = Mail::Behind { room: room_key.clone(), loss };
            self.shared.post.send(shard, if again { behind } else { Mail::Overtaken { room: room_key, loss } });
        }
    }

    pub(super) fn typing(&mut self, key: &RoomKey, client: &Arc<str>, start: bool) {
        let expiry = self.shared.rules.typing_expiry;
        let Some(room) = self.rooms.get_mut(key) else { return };
        // It would show that it is there.
        if room.is_hidden(client) {
            return;
        }
        let now = Instant::now();
        let outcome = if start { room.typing.start(client, now, expiry, true) } else { room.typing.stop(client) };
        self.tell_typing_to_all(key, client, outcome);
    }

    pub(super) fn typing_due(&mut self, key: &RoomKey, client: &Arc<str>) {
        let Some(room) = self.rooms.get_mut(key) else { return };
        // What another node has told of, it tells all.
        let from_here = room.typing.is_from_here(client);
        let outcome = room.typing.due(client, Instant::now());
        if from_here {
            self.tell_typing_to_all(key, client, outcome);
        } else {
            self.tell_typing(key, client, outcome, true);
        }
    }

    fn tell_typing_to_all(&mut self, key: &RoomKey, client: &Arc<str>, outcome: Outcome) {
        let start = outcome.tell;
        self.tell_typing(key, client, outcome, true);
        if let Some(start) = start {
            self.tell_nodes(key, Telling::Typing { client: client.clone(), start });
        }
    }

    /// It has left, or has become invisible.
    pub(super) fn stops_typing(&mut self, key: &RoomKey, client: &Arc<str>, visible: bool) {
        let Some(room) = self.rooms.get_mut(key) else { return };
        let outcome = room.typing.stop(client);
        self.tell_typing(key, client, outcome, visible);
    }

    /// Tells the members here.
    pub(super) fn tell_typing(&mut self, key: &RoomKey, client: &Arc<str>, outcome: Outcome, visible: bool) {
        if let Some(at) = outcome.look_at {
            self.schedule.enter(at, Due::Typing(key.clone(), client.clone()));
        }
        if let Some(start) = outcome.tell.filter(|_| visible) {
            self.push(key, &push::typing(&key.name, client, start), Except::Client(client.clone()));
        }
    }

    pub(super) fn receipt(&mut self, key: RoomKey, from: SessionRef, client: Arc<str>, ticket: Ticket, offset: u64) {
        let Some(room) = self.rooms.get_mut(&key) else { return };
        if room.position.as_ref().is_some_and(|position| offset > position.offset) {
            let (code, message) = (Code::InvalidFormat, "\"payload.offset\" is beyond the room's last message");
            return self.answer(from, ticket, Answer::Refused { unjoined: None, code, message });
        }
        if room.read_up_to(&client, offset) && !room.is_hidden(&client) {
            self.push(&key, &push::read_receipt(&key.name, &client, offset), Except::Session(from));
            self.tell_nodes(&key, Telling::Receipt { client, offset });
        }
        self.answer(from, ticket, Answer::Done);
    }
}
