//! Where the order of rooms comes from, and what was said in them.
//!
//! A publish is a request that is answered later by an accepted position, and delivered by an event
//! of its own; it never is a return value, because in a cluster the order is made elsewhere. The same
//! holds for reading what was said.
pub mod memory;
pub mod redis;

pub use super::mail::{Position, RoomKey};

use super::protocol::push;
use super::statuses::Said;
use crate::cluster::NodeId;
use crate::config::Rules;
use crate::ws::frame::{Opcode, frame, payload};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A message on its way to its place in a room.
#[derive(Debug)]
pub struct Publication {
    /// Who sent it; `None`: a server, as nobody.
    pub sender: Option<Arc<str>>,
    /// The sender's own name for it, or one that the gateway made.
    pub message_id: Box<str>,
    /// Whether the sender gave the name, and so may send it again.
    pub named: bool,
    /// The message, as it came.
    pub message: Box<RawValue>,
}

/// A message that has its place: a `chat_message`, encoded once. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Message {
    /// The place.
    pub position: Position,
    /// When it got it.
    pub at: Timestamp,
    /// The whole frame, header included.
    pub frame: Bytes,
}

impl Message {
    /// A publication at its place.
    pub fn new(room: &str, position: Position, at: Timestamp, publication: &Publication) -> Message {
        let text = push::chat_message(room, &position, at, publication);
        Message { position, at, frame: frame(Opcode::Text, text.as_bytes()) }
    }

    /// A message from its text, as [`text`](Self::text) gave it.
    pub fn from_text(position: Position, at: Timestamp, text: &[u8]) -> Message {
        Message { position, at, frame: frame(Opcode::Text, text) }
    }

    /// Its JSON text.
    pub fn text(&self) -> Bytes {
        payload(&self.frame)
    }
}

/// How much is read at once: at least one message, where there is one.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// Most messages; 0: none are wanted, only whether they could be had.
    pub messages: usize,
    /// Bytes from which on no further message is taken.
    pub bytes: usize,
}

/// What a node holds of a client in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its sessions there, at least one.
    pub sessions: u32,
    /// When the first of them came.
    pub since: Timestamp,
    /// What it has said of itself; `None`: nothing.
    pub said: Option<Arc<Said>>,
}

/// What passes between the members of a room and has no place in its order. It may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Telling {
    /// A client has begun to type, or has stopped.
    Typing {
        /// The client.
        client: Arc<str>,
        /// It has begun.
        start: bool,
    },
    /// A client has read everything up to a message.
    Receipt {
        /// The client.
        client: Arc<str>,
        /// The message's offset.
        offset: u64,
    },
}

/// A client in a room, as another node holds it.
pub type Elsewhere = (NodeId, Arc<str>, Option<Held>);

/// What a broker tells a home. The events of one room come in one order: `Opened`, then every
/// `Delivered` from the offset that follows its position on, each once and without a gap, unless `Lost` comes: then
/// from the offset that follows that position on. What is `Delivered` before `Opened`, or after [`Broker::shut`], is
/// thrown away. `Others` and `Told` come also before `Opened`, and then count.
#[derive(Debug)]
pub enum Event {
    /// The room is open: this is the place of its last message.
    Opened {
        /// The room.
        room: RoomKey,
        /// The place.
        position: Position,
    },
    /// The room cannot be opened now: it is as if it had been shut.
    Unavailable {
        /// The room.
        room: RoomKey,
    },
    /// A publish has its place.
    Accepted {
        /// What [`Broker::publish`] was given.
        ticket: u64,
        /// The place.
        position: Position,
        /// Whether it is the place of an earlier message with this `message_id`.
        duplicate: bool,
    },
    /// A publish found no place, and may be tried again.
    Refused {
        /// What [`Broker::publish`] was given.
        ticket: u64,
    },
    /// A message to be delivered to the room's members.
    Delivered {
        /// The room.
        room: RoomKey,
        /// The message.
        message: Message,
    },
    /// What was read.
    Read {
        /// What [`Broker::read`] was given.
        ticket: u64,
        /// The messages, in order and without a gap from the offset asked for on; `None` where the first of them is
        /// not kept any more.
        messages: Option<Vec<Message>>,
        /// The offset of the oldest message that is kept.
        oldest: Option<u64>,
    },
    /// What was to be read cannot be had now: nothing is said about whether it is kept.
    Unread {
        /// What [`Broker::read`] was given.
        ticket: u64,
    },
    /// Messages of an open room have been lost, or its count is another one now: the members have lost their place. What
    /// was read, or accepted, before and is still to come belongs to the new position or has none.
    Lost {
        /// The room.
        room: RoomKey,
        /// The place of its last message now.
        position: Position,
    },
    /// What other nodes hold in the room has changed.
    Others {
        /// The room.
        room: RoomKey,
        /// What they hold now; `None`: nothing of this client any more.
        clients: Vec<Elsewhere>,
        /// Whether this is all that other nodes hold.
        whole: bool,
    },
    /// A node lives no more: what it holds, in whatever room, it holds no more.
    Gone {
        /// The node.
        node: NodeId,
    },
    /// Another node tells something.
    Told {
        /// The room.
        room: RoomKey,
        /// What.
        telling: Telling,
    },
}

/// Gives messages their place, and keeps them for a while. A call never waits: what comes of it is an [`Event`].
pub trait Broker {
    /// The room is used from now on. Answered by `Opened`; only then is it used. Or by `Unavailable`.
    fn open(&mut self, room: &RoomKey, rules: &Arc<Rules>);

    /// The room is not used any more. What is kept of it stays for the age of its history.
    fn shut(&mut self, room: &RoomKey);

    /// Asks for a place in a room that is open. Answered by `Accepted` or `Refused` with this ticket; `Delivered`
    /// comes besides, unless it is a duplicate.
    fn publish(&mut self, ticket: u64, room: &RoomKey, publication: Publication);

    /// Asks for the messages after this offset of a room that is open. Answered by `Read` with this ticket; answers
    /// come in the order of the questions. It may hold messages that were not `Delivered` yet.
    fn read(&mut self, ticket: u64, room: &RoomKey, after: u64, batch: Batch);

    /// What this node holds of a client in a room has changed; `None`: nothing any more. The others are told before
    /// anything that is published or told afterwards.
    fn holds(&mut self, _room: &RoomKey, _client: &Arc<str>, _held: Option<Held>) {}

    /// Tells the other nodes that have members in the room.
    fn tell(&mut self, _room: &RoomKey, _telling: Telling) {}

    /// The next event.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event>;

    /// Does what is due by time; ready never.
    fn poll_timers(&mut self, cx: &mut Context<'_>);
}
