//! Members that recover what they have missed, and shards that catch up.
//!
//! A member that recovers is a cursor in the room's history: it is sent a batch when its socket has taken the one
//! before, so that what it has missed is never queued as a whole. Meanwhile the room's deliveries pass it by. The home
//! says with which batch it has come up to them; what the home posts after that batch it gets as it comes.
use super::entry::DEFLATE_AT_LEAST;
use super::{Entry, Membership, Place, ask, removed};
use crate::close::{Close, Code};
use crate::metrics::{Direction, ServiceLabel};
use crate::rooms::Rooms;
use crate::rooms::mail::{Ask, Feed, Mail, RoomKey, SessionRef};
use crate::rooms::protocol::push;
use crate::ws::frame::{Opcode, payload};
use bytes::Bytes;
use std::rc::Rc;
use tokio::time::Instant;

/// A member is sent the next batch when no more than this is queued for it.
const FED_BELOW: usize = 16 * 1024;

impl Entry {
    /// Asks for the next batch, where the session recovers and its socket has taken the last one.
    pub(in crate::rooms) fn feed(&self, rooms: &Rooms) {
        let mut recovery = self.recovery.borrow_mut();
        if recovery.rooms.is_empty() && recovery.queued == 0 {
            return;
        }
        let mut peer = self.handle.peer.borrow_mut();
        if peer.backlog() > FED_BELOW {
            // Where the socket takes no more, the session's task is woken when it does, and comes back here; what the
            // fan-out writes without waiting would wake nobody.
            peer.flush();
        }
        let backlog = peer.backlog();
        drop(peer);
        recovery.queued = recovery.queued.min(backlog);
        if recovery.asked || backlog > FED_BELOW {
            return;
        }
        while let Some(room) = recovery.rooms.front() {
            let memberships = self.rooms.borrow();
            let recovering = |m: &&Membership| matches!(m.place, Some(Place::Recovering(_)));
            if let Some(membership) = memberships.get(room).filter(recovering) {
                let (room, cursor) = (room.clone(), membership.cursor);
                recovery.asked = true;
                drop((recovery, memberships));
                return ask(rooms, self, room, "".into(), Ask::More(cursor));
            }
            drop(memberships);
            recovery.rooms.pop_front();
        }
        recovery.rooms.shrink_to_fit();
    }

    fn send_recovered(&self, frames: Vec<Bytes>) {
        if self.cut_off.get() {
            return;
        }
        let (now, metrics) = (Instant::now(), self.shard.metrics());
        metrics.delivered(frames.len() as u64);
        for plain in frames {
            let text = payload(&plain);
            let deflated = self.shard.deflated(self.deflate && text.len() >= DEFLATE_AT_LEAST, Opcode::Text, &text);
            metrics.message(ServiceLabel::Rooms, Direction::Out, text.len() as u64);
            let bytes = deflated.unwrap_or(plain);
            self.recovery.borrow_mut().queued += bytes.len();
            self.handle.send(bytes, text.len(), now);
        }
        // At once, and not with the fan-out: whether more can follow is seen by what is left.
        self.handle.peer.borrow_mut().flush();
        self.shard.count_backlog(&self.handle);
    }
}

/// A home has said what comes next for a session that recovers.
pub(in crate::rooms) fn feed(rooms: &Rooms, to: SessionRef, room: &RoomKey, feed: Feed) {
    let Some(entry) = rooms.local.borrow().found(to) else { return };
    entry.recovery.borrow_mut().asked = false;
    match feed {
        // What it is now is another membership, which asks for itself.
        Feed::Stale => (),
        Feed::Overtaken => removed(rooms, &entry, room, Code::SlowConsumer),
        Feed::Messages { frames, last, live } => {
            entry.send_recovered(frames);
            if live {
                becomes_live(rooms, &entry, room);
            } else if let Some(membership) = entry.rooms.borrow_mut().get_mut(room) {
                membership.cursor.after = last;
            }
        }
    }
    entry.feed(rooms);
}

fn becomes_live(rooms: &Rooms, entry: &Rc<Entry>, room: &RoomKey) {
    let mut local = rooms.local.borrow_mut();
    let place = entry.rooms.borrow_mut().get_mut(room).and_then(|m| m.place.take());
    let (Some(place), Some(listed)) = (place, local.rooms.get_mut(room)) else { return };
    let place_now = listed.push(entry, false);
    if let Some(membership) = entry.rooms.borrow_mut().get_mut(room) {
        membership.place = Some(place_now);
    }
    local.unlist(room, place);
}

/// Deliveries of the room were left out: they are asked for, from the last one that came.
pub(in crate::rooms) fn fell_behind(rooms: &Rooms, room: RoomKey, loss: u64) {
    let after = rooms.local.borrow().rooms.get(&room).map(|listed| listed.offset);
    let shard = rooms.shard.index as u16;
    let home = rooms.shared.home_of(&room);
    let mail = match after {
        Some(after) => Mail::CatchUp { room, shard, loss, after },
        // Nobody here is a member any more.
        None => Mail::Lost { room, shard, loss },
    };
    rooms.shared.post.send(home, mail);
}

/// What was left out cannot be had any more: the room's members here lose their place and are told so.
pub(in crate::rooms) fn overtaken(rooms: &Rooms, room: &RoomKey, loss: u64) {
    if room.is_everyone() {
        for entry in rooms.local.borrow().members(&rooms.shard, room.namespace, None) {
            entry.handle.order(Close::gateway(Code::SlowConsumer));
        }
        return;
    }
    let listed = rooms.local.borrow_mut().rooms.remove(room);
    let text = push::removed(&room.name, Code::SlowConsumer);
    for entry in listed.iter().flat_map(super::Listed::all) {
        entry.change(room, |membership| membership.place = None);
        entry.send_text(&text, Instant::now());
    }
    let home = rooms.shared.home_of(room);
    rooms.shared.post.send(home, Mail::Lost { room: room.clone(), shard: rooms.shard.index as u16, loss });
}
