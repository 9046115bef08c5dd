//! Rooms that nobody is in, until their time is over.
use crate::rooms::mail::RoomKey;
use crate::rooms::schedule::{Place, Schedule};
use std::task::{Context, Poll};
use tokio::time::Instant;

/// Bytes of all rooms on one shard's shelf, but for the one that came last.
pub const BYTES_MAX: usize = 64 << 20;
/// What a room takes besides its messages and names.
const ROOM_BYTES: usize = 1536;

/// Rooms by the time at which they go.
#[derive(Default)]
pub struct Shelf {
    rooms: Schedule<(RoomKey, usize)>,
    bytes: usize,
}

impl Shelf {
    /// Puts a room there until a time.
    pub fn put(&mut self, room: &RoomKey, until: Instant, bytes: usize) -> Place {
        let bytes = bytes + ROOM_BYTES;
        self.bytes += bytes;
        self.rooms.enter(until, (room.clone(), bytes))
    }

    /// Takes a room back.
    pub fn take(&mut self, place: Place) {
        if let Some((_, bytes)) = self.rooms.take(place) {
            self.bytes -= bytes;
        }
    }

    /// A room that must go because there are too many bytes; `last` stays, whatever it takes.
    pub fn overflow(&mut self, last: Place) -> Option<RoomKey> {
        if self.bytes <= BYTES_MAX {
            return None;
        }
        let first = self.rooms.places().find(|place| *place != last)?;
        let (room, bytes) = self.rooms.take(first)?;
        self.bytes -= bytes;
        Some(room)
    }

    /// The next room whose time is over.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<RoomKey> {
        self.rooms.poll_due(cx).map(|(room, bytes)| {
            self.bytes -= bytes;
            room
        })
    }

    /// Bytes of all rooms.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
