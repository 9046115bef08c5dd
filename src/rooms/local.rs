//! The members on this shard: answers and deliveries reach them here.
use super::Rooms;
use super::mail::{Answer, Ask, Frame, Mail, Request, RoomKey, SessionRef, Ticket};
use super::protocol::push;
use crate::close::{Close, Code};
use crate::config::Namespace;
use crate::identity::Identity;
use crate::metrics::{Direction, ServiceLabel};
use crate::shard::{Handle, Shard};
use crate::ws::frame::{Opcode, frame};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Display;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// Requests of one session that may be unanswered; then it is not read.
const UNANSWERED_MAX: usize = 64;
/// Answers shorter than this are not worth compressing.
const DEFLATE_AT_LEAST: usize = 512;

pub(super) struct Local {
    members: Slab<Rc<Entry>>,
    next_generation: u32,
    rooms: HashMap<RoomKey, Vec<Rc<Entry>>>,
}

/// A member, as its shard knows it.
pub(super) struct Entry {
    pub(super) reference: SessionRef,
    pub(super) handle: Rc<Handle>,
    pub(super) shard: Rc<Shard>,
    pub(super) namespace: Namespace,
    pub(super) identity: RefCell<Identity>,
    pub(super) deflate: bool,
    pub(super) max_backlog: usize,
    /// Requests that homes have yet to answer.
    pub(super) unanswered: Cell<usize>,
    /// It is not read: so many requests wait for their answers.
    pub(super) resting: Cell<bool>,
    /// Messages in a row that were not understood.
    pub(super) not_understood: Cell<u32>,
    /// Rooms it is in or asked to join.
    pub(super) rooms: RefCell<HashMap<RoomKey, Membership>>,
}

/// What a session has to do with a room. While any of it is left, the home may hold the session.
#[derive(Default)]
pub(super) struct Membership {
    /// Its place in the room's list of this shard, where it is a member.
    place: Option<u32>,
    /// Joins that are not answered yet.
    pub(super) joins: u32,
}

impl Local {
    pub(super) fn new() -> Local {
        Local { members: Slab::new(), next_generation: 0, rooms: HashMap::new() }
    }

    /// Whether no room has a member here.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    pub(super) fn add(&mut self, shard: usize, make: impl FnOnce(SessionRef) -> Entry) -> Rc<Entry> {
        let place = self.members.vacant_entry();
        self.next_generation = self.next_generation.wrapping_add(1);
        let reference = SessionRef { shard: shard as u16, slot: place.key() as u32, generation: self.next_generation };
        Rc::clone(place.insert(Rc::new(make(reference))))
    }

    /// Forgets a session; the rooms it was in or asked to join.
    pub(super) fn remove(&mut self, entry: &Entry) -> Vec<RoomKey> {
        self.members.try_remove(entry.reference.slot as usize);
        let rooms = std::mem::take(&mut *entry.rooms.borrow_mut());
        for (room, membership) in &rooms {
            if let Some(place) = membership.place {
                self.unlist(room, place);
            }
        }
        rooms.into_keys().collect()
    }

    fn found(&self, to: SessionRef) -> Option<Rc<Entry>> {
        self.members.get(to.slot as usize).filter(|e| e.reference == to).cloned()
    }

    fn list(&mut self, room: RoomKey, entry: &Rc<Entry>) {
        let mut rooms = entry.rooms.borrow_mut();
        let membership = rooms.entry(room.clone()).or_default();
        membership.joins = membership.joins.saturating_sub(1);
        if membership.place.is_none() {
            let members = self.rooms.entry(room).or_default();
            membership.place = Some(members.len() as u32);
            members.push(entry.clone());
        }
    }

    fn unlist(&mut self, room: &RoomKey, place: u32) {
        let Some(members) = self.rooms.get_mut(room) else { return };
        members.swap_remove(place as usize);
        if let Some(moved) = members.get(place as usize)
            && let Some(membership) = moved.rooms.borrow_mut().get_mut(room)
        {
            membership.place = Some(place);
        }
        if members.is_empty() {
            self.rooms.remove(room);
            if self.rooms.capacity() > 4 * self.rooms.len().max(256) {
                self.rooms.shrink_to(2 * self.rooms.len());
            }
        }
    }

    /// Queues a frame for every member here, and has the fan-out write it. Says how many they are.
    pub(super) fn deliver(&self, shard: &Shard, to: &RoomKey, frame: &Frame) -> usize {
        let now = Instant::now();
        let mut delivered = 0;
        if to.is_everyone() {
            for (_, entry) in self.members.iter().filter(|(_, e)| e.namespace == to.namespace) {
                entry.deliver(frame, now);
                delivered += 1;
            }
        } else if let Some(members) = self.rooms.get(to) {
            for entry in members {
                entry.deliver(frame, now);
            }
            delivered = members.len();
        }
        let (sessions, metrics) = (delivered as u64, shard.metrics());
        metrics.delivered(sessions);
        metrics.messages(ServiceLabel::Rooms, Direction::Out, sessions);
        metrics.bytes(ServiceLabel::Rooms, Direction::Out, sessions * frame.payload as u64);
        delivered
    }
}

impl Entry {
    /// Whether another request may be read. Who has asked too much rests until half of it is answered:
    /// what was read and waits is not taken up again for each answer.
    pub(super) fn may_ask(&self) -> bool {
        let unanswered = self.unanswered.get();
        let resting = if self.resting.get() { unanswered > UNANSWERED_MAX / 2 } else { unanswered >= UNANSWERED_MAX };
        self.resting.set(resting);
        !resting
    }

    /// Changes what the session has to do with a room, and forgets the room where nothing is left.
    /// Gives its place in the list as it was.
    fn change(&self, room: &RoomKey, change: impl FnOnce(&mut Membership)) -> Option<u32> {
        let mut rooms = self.rooms.borrow_mut();
        let membership = rooms.get_mut(room)?;
        let place = membership.place;
        change(membership);
        if membership.place.is_none() && membership.joins == 0 {
            rooms.remove(room);
        }
        place
    }

    fn deliver(&self, frame: &Frame, now: Instant) {
        let bytes = match &frame.deflated {
            Some(deflated) if self.deflate => deflated,
            _ => &frame.plain,
        };
        self.handle.send(bytes.clone(), frame.payload, now);
        self.after_send();
    }

    /// Queues a text of its own.
    pub(super) fn send_text(&self, text: &str, now: Instant) {
        let deflate = self.deflate && text.len() >= DEFLATE_AT_LEAST;
        let deflated = deflate.then(|| self.shard.deflater.borrow_mut().frame(Opcode::Text, text.as_bytes())).flatten();
        let bytes = deflated.unwrap_or_else(|| frame(Opcode::Text, text.as_bytes()));
        self.handle.send(bytes, text.len(), now);
        self.shard.metrics().message(ServiceLabel::Rooms, Direction::Out, text.len() as u64);
        self.after_send();
    }

    /// An answer, or a push where there is no `correlation_id`.
    pub(super) fn say(&self, kind: &str, payload: &dyn Display, correlation_id: Option<&str>, now: Instant) {
        self.send_text(&push::envelope(kind, payload, correlation_id), now);
    }

    pub(super) fn error(&self, code: Code, message: &str, wait: Option<Duration>, id: Option<&str>, now: Instant) {
        self.send_text(&push::error(code, message, wait, id), now);
    }

    /// A peer that takes what is queued is not slow: it is judged by what is left after a write.
    fn after_send(&self) {
        let slow = {
            let mut peer = self.handle.peer.borrow_mut();
            if peer.backlog() > self.max_backlog {
                peer.flush();
            }
            peer.backlog() > self.max_backlog
        };
        if slow {
            self.handle.peer.borrow_mut().drop_unsent();
            self.handle.order(Close::gateway(Code::SlowConsumer));
        } else {
            self.shard.mark(&self.handle);
        }
    }
}

/// Hands a home's answer to the session that asked.
pub(super) fn answer(rooms: &Rooms, to: SessionRef, ticket: Ticket, answer: Answer) {
    let Some(entry) = rooms.local.borrow().found(to) else { return };
    entry.unanswered.set(entry.unanswered.get().saturating_sub(1));
    let (now, id) = (Instant::now(), Some(&*ticket));
    match answer {
        Answer::Joined { room, count, position, recovered } => {
            let recovered = recovered.map(|yes| format!(r#","recovered":{yes}"#)).unwrap_or_default();
            let payload = format!(r#"{{"room_id":"{}","count":{count},"position":{position}{recovered}}}"#, room.name);
            rooms.local.borrow_mut().list(room, &entry);
            entry.say("room_joined", &payload, id, now);
        }
        Answer::Left { room } => {
            unlist(rooms, &entry, &room);
            entry.say("room_left", &format_args!(r#"{{"room_id":"{}"}}"#, room.name), id, now);
        }
        Answer::Sent { room, position, duplicate, recipients } => {
            let room_id = if room.is_everyone() { "null".into() } else { format!("\"{}\"", room.name) };
            let recipients = recipients.map(|n| format!(r#","recipients":{n}"#)).unwrap_or_default();
            let payload = format!(
                r#"{{"message_id":{},"room_id":{room_id},"position":{position},"duplicate":{duplicate}{recipients}}}"#,
                push::Json(&ticket)
            );
            entry.say("message_sent", &payload, id, now);
        }
        Answer::Members(payload) => entry.say("room_members", &payload, id, now),
        Answer::Refused { unjoined, code, message } => {
            if let Some(room) = unjoined {
                entry.change(&room, |membership| membership.joins = membership.joins.saturating_sub(1));
            }
            entry.error(code, message, None, id, now);
        }
    }
    if entry.resting.get() && entry.may_ask() {
        entry.handle.wake();
    }
}

fn unlist(rooms: &Rooms, entry: &Entry, room: &RoomKey) {
    if let Some(place) = entry.change(room, |membership| membership.place = None) {
        rooms.local.borrow_mut().unlist(room, place);
    }
}

/// Deliveries of the room were left out: its members here lose their place and are told so.
pub(super) fn fell_behind(rooms: &Rooms, room: &RoomKey, loss: u64) {
    if room.is_everyone() {
        for (_, entry) in rooms.local.borrow().members.iter().filter(|(_, e)| e.namespace == room.namespace) {
            entry.handle.order(Close::gateway(Code::SlowConsumer));
        }
        return;
    }
    let members = rooms.local.borrow_mut().rooms.remove(room).unwrap_or_default();
    let text = push::removed(&room.name, Code::SlowConsumer);
    for entry in members {
        entry.change(room, |membership| membership.place = None);
        entry.send_text(&text, Instant::now());
    }
    let home = rooms.shared.home_of(room);
    rooms.shared.post.send(home, Mail::Lost { room: room.clone(), shard: rooms.shard.index as u16, loss });
}

/// Posts a request of this member to the home of a room.
pub(super) fn ask(rooms: &Rooms, entry: &Entry, room: RoomKey, ticket: Ticket, ask: Ask) {
    if !matches!(ask, Ask::Gone) {
        entry.unanswered.set(entry.unanswered.get() + 1);
    }
    let client = entry.identity.borrow().client.clone();
    let home = rooms.shared.home_of(&room);
    let request = Request { room, from: entry.reference, client, ticket, ask };
    rooms.shared.post.send(home, Mail::Request(request));
}
