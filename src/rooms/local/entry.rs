//! A member, as its shard knows it.
pub use super::listed::Place;
use crate::close::{Close, Code};
use crate::config::Namespace;
use crate::identity::Identity;
use crate::limits::ClientRooms;
use crate::metrics::{Direction, ServiceLabel};
use crate::rooms::mail::{Cursor, Except, Frame, RoomKey, SessionRef};
use crate::rooms::protocol::push;
use crate::rooms::room::Member;
use crate::rooms::statuses::Said;
use crate::shard::{Handle, Shard};
use crate::ws::frame::{Opcode, frame};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Display;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Requests of one session that may be unanswered; then it is not read.
const UNANSWERED_MAX: usize = 64;
/// Answers shorter than this are not worth compressing.
pub(crate) const DEFLATE_AT_LEAST: usize = 512;

pub(crate) struct Entry {
    pub(crate) reference: SessionRef,
    pub(crate) handle: Rc<Handle>,
    pub(crate) shard: Rc<Shard>,
    pub(crate) namespace: Namespace,
    pub(crate) identity: RefCell<Identity>,
    pub(crate) deflate: bool,
    pub(crate) max_backlog: usize,
    /// The count of the client's rooms.
    pub(crate) counted: ClientRooms,
    /// What the client has said of itself.
    pub(crate) said: RefCell<Option<Arc<Said>>>,
    /// Requests that homes have yet to answer.
    pub(crate) unanswered: Cell<usize>,
    /// The application is asked about what it sent last; it is not read meanwhile, so that what it sends keeps its order.
    pub(crate) asking: Cell<bool>,
    /// It is not read: so many requests wait for their answers.
    pub(crate) resting: Cell<bool>,
    /// What was queued has been thrown away, and the session is to close: a message after that would hide the gap from
    /// a client that goes on from the last one it has.
    pub(crate) cut_off: Cell<bool>,
    /// Messages in a row that were not understood.
    pub(crate) not_understood: Cell<u32>,
    /// Rooms it is in or asked to join.
    pub(crate) rooms: RefCell<HashMap<RoomKey, Membership>>,
    /// What it recovers, and what it has asked; none for most.
    pub(crate) recovery: RefCell<Recovery>,
    pub(crate) queries: RefCell<Vec<Query>>,
}

/// What a session has to do with a room. While any of it is left, the home may hold the session.
#[derive(Default)]
pub(crate) struct Membership {
    /// Its place in the room's list of this shard, where it is a member.
    pub(crate) place: Option<Place>,
    /// Where it stands, where it recovers.
    pub(crate) cursor: Cursor,
    /// Joins that are not answered yet.
    pub(crate) joins: u32,
}

/// The rooms that a session recovers, one after the other.
#[derive(Default)]
pub(crate) struct Recovery {
    pub(crate) rooms: VecDeque<RoomKey>,
    /// The home of the first has yet to say what comes next.
    pub(crate) asked: bool,
    /// Bytes of recovered messages that may still be queued: they are no backlog.
    pub(crate) queued: usize,
}

/// A `presence_query` that homes have yet to answer.
pub(crate) struct Query {
    /// What homes answer it by; the client's own name for it may come twice.
    pub(crate) number: u64,
    pub(crate) id: Box<str>,
    /// Who is asked after; `None`: a whole room.
    pub(crate) clients: Option<Arc<[Box<str>]>>,
    pub(crate) found: BTreeMap<Arc<str>, Member>,
    pub(crate) unanswered: usize,
}

impl Entry {
    /// Whether another request may be read. Who has asked too much rests until half of it is answered:
    /// what was read and waits is not taken up again for each answer.
    pub(crate) fn may_ask(&self) -> bool {
        let unanswered = self.unanswered.get();
        let resting = if self.resting.get() { unanswered > UNANSWERED_MAX / 2 } else { unanswered >= UNANSWERED_MAX };
        self.resting.set(resting);
        !resting && !self.asking.get()
    }

    /// The rooms it is in or asked to join, in the order of their names: what is sent to all of them goes out in an
    /// order that does not depend on a hash.
    pub(crate) fn room_keys(&self) -> Vec<RoomKey> {
        let mut keys: Vec<RoomKey> = self.rooms.borrow().keys().cloned().collect();
        keys.sort_unstable();
        keys
    }

    /// Changes what the session has to do with a room, and forgets the room where nothing is left.
    /// Gives its place in the list as it was.
    pub(crate) fn change(&self, room: &RoomKey, change: impl FnOnce(&mut Membership)) -> Option<Place> {
        let mut rooms = self.rooms.borrow_mut();
        let membership = rooms.get_mut(room)?;
        let place = membership.place;
        change(membership);
        if membership.place.is_none() && membership.joins == 0 {
            rooms.remove(room);
        }
        place
    }

    pub(crate) fn is_one_of(&self, except: &Except) -> bool {
        match except {
            Except::None => false,
            Except::Client(client) => self.identity.borrow().client == *client,
            Except::Session(session) => self.reference == *session,
        }
    }

    pub(crate) fn deliver(&self, frame: &Frame, now: Instant) {
        if self.cut_off.get() {
            return;
        }
        let bytes = match &frame.deflated {
            Some(deflated) if self.deflate => deflated,
            _ => &frame.plain,
        };
        self.handle.send(bytes.clone(), frame.payload, now);
        self.after_send();
    }

    /// Queues a text of its own.
    pub(crate) fn send_text(&self, text: &str, now: Instant) {
        if !self.cut_off.get() {
            self.send_last_text(text, now);
        }
    }

    /// As [`send_text`](Self::send_text), also to one that is cut off.
    pub(crate) fn send_last_text(&self, text: &str, now: Instant) {
        let deflate = self.deflate && text.len() >= DEFLATE_AT_LEAST;
        let deflated = self.shard.deflated(deflate, Opcode::Text, text.as_bytes());
        let bytes = deflated.unwrap_or_else(|| frame(Opcode::Text, text.as_bytes()));
        self.handle.send(bytes, text.len(), now);
        self.shard.metrics().message(ServiceLabel::Rooms, Direction::Out, text.len() as u64);
        self.after_send();
    }

    /// An answer, or a push where there is no `correlation_id`.
    pub(crate) fn say(&self, kind: &str, payload: &dyn Display, correlation_id: Option<&str>, now: Instant) {
        self.send_text(&push::envelope(kind, payload, correlation_id), now);
    }

    pub(crate) fn error(&self, code: Code, message: &str, wait: Option<Duration>, id: Option<&str>, now: Instant) {
        self.send_text(&push::error(code, message, wait, id), now);
    }

    /// Bytes that may be queued: recovered messages are no backlog.
    pub(crate) fn backlog_allowed(&self) -> usize {
        self.max_backlog.saturating_add(self.recovery.borrow().queued)
    }

    /// A peer that takes what is queued is not slow: it is judged by what is left after a write.
    fn after_send(&self) {
        let slow = {
            let mut peer = self.handle.peer.borrow_mut();
            if peer.backlog() > self.max_backlog {
                peer.flush();
            }
            peer.backlog() > self.max_backlog && peer.backlog() > self.backlog_allowed()
        };
        if slow {
            self.cut_off.set(true);
            self.handle.peer.borrow_mut().drop_unsent();
            self.handle.order(Close::gateway(Code::SlowConsumer));
        } else {
            self.shard.mark(&self.handle);
        }
    }
}
