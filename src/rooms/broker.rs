//! Where the order of rooms comes from.
//!
//! A publish is a request that is answered later by an accepted position, and delivered by an event
//! of its own; it never is a return value, because in a cluster the order is made elsewhere.
pub mod memory;

pub use super::mail::{Position, RoomKey};

use serde_json::value::RawValue;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A message on its way to its place in a room.
#[derive(Debug)]
pub struct Publication {
    /// Who sent it.
    pub sender: Arc<str>,
    /// The sender's own name for it.
    pub message_id: Box<str>,
    /// The message, as it came.
    pub message: Box<RawValue>,
}

/// What a broker tells a home. The events of one room come in one order: `Opened`, then every
/// `Delivered` from the offset that follows its position on, each once and without a gap. What is
/// `Delivered` before `Opened`, or after [`Broker::shut`], is thrown away.
#[derive(Debug)]
pub enum Event {
    /// The room is open: this is the place of its last message.
    Opened {
        /// The room.
        room: RoomKey,
        /// The place.
        position: Position,
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
        /// Its place.
        position: Position,
        /// The message.
        publication: Publication,
    },
}

/// Gives messages their place. A call never waits: what comes of it is an [`Event`].
pub trait Broker {
    /// The room has its first local member. Answered by `Opened`; only then is the room used.
    fn open(&mut self, room: &RoomKey);

    /// The room has no local member any more.
    fn shut(&mut self, room: &RoomKey);

    /// Asks for a place. Answered by `Accepted` or `Refused` with this ticket; `Delivered` comes
    /// besides, unless it is a duplicate.
    fn publish(&mut self, ticket: u64, room: &RoomKey, publication: Publication);

    /// The next event.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event>;
}
