//! The members on this shard: answers and deliveries reach them here.
mod answers;
mod entry;
mod feeding;
mod listed;

pub(super) use answers::{answer, tell_presences};
pub(super) use entry::{Entry, Membership, Query};
pub(super) use feeding::{feed, fell_behind, overtaken};
pub(super) use listed::Listed;

use super::Rooms;
use super::desk::SessionView;
use super::mail::{Ask, Cursor, Frame, Kind, Mail, Request, RoomKey, SessionRef, Ticket};
use super::protocol::push;
use super::statuses::Said;
use crate::close::Code;
use crate::config::Namespace;
use crate::metrics::{Direction, ServiceLabel};
use crate::shard::{About, Shard};
use crate::ws::frame::{Opcode, frame};
use entry::Place;
use slab::Slab;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::time::Instant;

pub(super) struct Local {
    members: Slab<Rc<Entry>>,
    next_generation: u32,
    rooms: HashMap<RoomKey, Listed>,
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
        let keys = entry.room_keys();
        let rooms = std::mem::take(&mut *entry.rooms.borrow_mut());
        for (room, membership) in &rooms {
            if let Some(place) = membership.place {
                self.unlist(room, place);
            }
        }
        keys
    }

    /// Whether the session is still there.
    pub(super) fn has(&self, session: SessionRef) -> bool {
        self.found(session).is_some()
    }

    fn found(&self, to: SessionRef) -> Option<Rc<Entry>> {
        self.members.get(to.slot as usize).filter(|e| e.reference == to).cloned()
    }

    /// Every member of a namespace, or those of these clients.
    pub(super) fn members(&self, shard: &Shard, namespace: Namespace, clients: Option<&[Box<str>]>) -> Vec<Rc<Entry>> {
        let Some(clients) = clients else {
            return self.members.iter().map(|(_, e)| e).filter(|e| e.namespace == namespace).cloned().collect();
        };
        let handles = clients.iter().flat_map(|c| shard.sessions_of(namespace, &Arc::from(&**c)));
        let places = handles.filter_map(|handle| handle.member());
        places.filter_map(|place| self.members.get(place as usize).cloned()).collect()
    }

    /// Puts a member into the room's list. `missed`: where it must be sent messages before those to come. `offset`: that
    /// of the room's last message.
    fn list(&mut self, room: &RoomKey, entry: &Rc<Entry>, offset: u64, missed: Option<Cursor>) {
        let mut rooms = entry.rooms.borrow_mut();
        let membership = rooms.entry(room.clone()).or_default();
        membership.joins = membership.joins.saturating_sub(1);
        let before = membership.place.take();
        membership.cursor = missed.unwrap_or_default();
        drop(rooms);
        if let Some(place) = before {
            self.unlist(room, place);
        }
        let listed = self.rooms.entry(room.clone()).or_insert_with(|| Listed::new(offset));
        let place = listed.push(entry, missed.is_some());
        if let Some(membership) = entry.rooms.borrow_mut().get_mut(room) {
            membership.place = Some(place);
        }
    }

    fn unlist(&mut self, room: &RoomKey, place: Place) {
        let Some(listed) = self.rooms.get_mut(room) else { return };
        if let Some(moved) = listed.remove(place)
            && let Some(membership) = moved.rooms.borrow_mut().get_mut(room)
        {
            membership.place = Some(place);
        }
        if listed.is_empty() {
            self.rooms.remove(room);
            if self.rooms.capacity() > 4 * self.rooms.len().max(256) {
                self.rooms.shrink_to(2 * self.rooms.len());
            }
        }
    }

    /// Queues a frame for the members here, and has the fan-out write it.
    pub(super) fn deliver(&mut self, shard: &Shard, to: &RoomKey, frame: &Frame, kind: &Kind) {
        let now = Instant::now();
        let mut delivered = 0;
        if to.is_everyone() {
            for (_, entry) in self.members.iter().filter(|(_, e)| e.namespace == to.namespace) {
                entry.deliver(frame, now);
                delivered += 1;
            }
        } else if let Some(listed) = self.rooms.get_mut(to) {
            match kind {
                Kind::Chat(offset) => {
                    listed.offset = *offset;
                    // Those who recover get it in its turn.
                    for entry in listed.live() {
                        entry.deliver(frame, now);
                    }
                    delivered = listed.live().len();
                }
                Kind::Push(except) => {
                    for entry in listed.all().filter(|e| !e.is_one_of(except)) {
                        entry.deliver(frame, now);
                        delivered += 1;
                    }
                }
            }
        }
        shard.metrics().delivered(delivered as u64);
        count_out(shard, delivered, frame);
    }
}

/// Takes a member out of the room's list. False: it was not there.
fn unlist(rooms: &Rooms, entry: &Entry, room: &RoomKey) -> bool {
    let place = entry.change(room, |membership| membership.place = None);
    if let Some(place) = place {
        rooms.local.borrow_mut().unlist(room, place);
    }
    place.is_some()
}

/// A membership has ended by the gateway's will: the client is told, once.
fn removed(rooms: &Rooms, entry: &Entry, room: &RoomKey, code: Code) {
    if unlist(rooms, entry, room) {
        entry.send_text(&push::removed(&room.name, code), Instant::now());
    }
}

/// The home has ended a membership. It is told once, also where the shard has lost its place meanwhile.
pub(super) fn expelled(rooms: &Rooms, to: SessionRef, room: &RoomKey, code: Code) {
    let Some(entry) = rooms.local.borrow().found(to) else { return };
    removed(rooms, &entry, room, code);
}

/// Has every session here of these clients, or of all, pushed a text that is encoded once. How many they are.
pub(super) fn notify(rooms: &Rooms, namespace: Namespace, clients: Option<&[Box<str>]>, text: &str) -> usize {
    let members = rooms.local.borrow().members(&rooms.shard, namespace, clients);
    let deflate = text.len() >= entry::DEFLATE_AT_LEAST && members.iter().any(|entry| entry.deflate);
    let deflated = rooms.shard.deflated(deflate, Opcode::Text, text.as_bytes());
    let frame = Frame { plain: frame(Opcode::Text, text.as_bytes()), deflated, payload: text.len() };
    let now = Instant::now();
    members.iter().for_each(|entry| entry.deliver(&frame, now));
    count_out(&rooms.shard, members.len(), &frame);
    members.len()
}

fn count_out(shard: &Shard, sessions: usize, frame: &Frame) {
    let (sessions, metrics) = (sessions as u64, shard.metrics());
    metrics.messages(ServiceLabel::Rooms, Direction::Out, sessions);
    metrics.bytes(ServiceLabel::Rooms, Direction::Out, sessions * frame.payload as u64);
}

/// The sessions of a client here, on whatever service.
pub(super) fn sessions(rooms: &Rooms, namespace: Namespace, client: &Arc<str>) -> Vec<SessionView> {
    let local = rooms.local.borrow();
    let view = |about: About| {
        let entry = about.member.and_then(|place| local.members.get(place as usize));
        let names = |e: &Rc<Entry>| e.rooms.borrow().keys().map(|room| room.name.clone()).collect::<Vec<_>>();
        let mut rooms = entry.map(names).unwrap_or_default();
        rooms.sort();
        let said = |e: &Rc<Entry>| e.said.borrow().as_ref().map(|said| said.status.clone()).unwrap_or_default();
        SessionView {
            node: None,
            session_id: about.session_id,
            since: about.since,
            route: about.route.name().into(),
            rooms,
            status: entry.map(said),
        }
    };
    rooms.shard.sessions_of(namespace, client).iter().filter_map(|handle| handle.about()).map(view).collect()
}

/// A client has changed its status: its sessions here know it from now on, and tell the rooms they are in.
pub(super) fn status(rooms: &Rooms, namespace: Namespace, client: &Arc<str>, said: &Arc<Said>) {
    let clients = [Box::from(&**client)];
    let entries = rooms.local.borrow().members(&rooms.shard, namespace, Some(&clients));
    for entry in entries {
        learns(rooms, &entry, said);
    }
}

/// A session knows of its client's new status from now on, and tells the rooms it is in.
pub(super) fn learns(rooms: &Rooms, entry: &Entry, said: &Arc<Said>) {
    if entry.said.borrow().as_ref().is_some_and(|known| known >= said) {
        return;
    }
    *entry.said.borrow_mut() = Some(said.clone());
    for room in entry.room_keys() {
        ask(rooms, entry, room, "".into(), Ask::Status(said.clone()));
    }
}

/// Posts a request of this member to the home of a room.
pub(super) fn ask(rooms: &Rooms, entry: &Entry, room: RoomKey, ticket: Ticket, ask: Ask) {
    if !matches!(ask, Ask::Gone | Ask::Forbidden | Ask::Status(_) | Ask::More(_)) {
        entry.unanswered.set(entry.unanswered.get() + 1);
    }
    let client = entry.identity.borrow().client.clone();
    let home = rooms.shared.home_of(&room);
    let request = Request { room, from: entry.reference, client, ticket, ask };
    rooms.shared.post.send(home, Mail::Request(request));
}
