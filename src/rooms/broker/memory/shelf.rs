//! Rooms that nobody is in, until their time is over.
use crate::rooms::mail::RoomKey;
use crate::rooms::schedule::poll_until;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep};

/// Bytes of all rooms on one shard's shelf.
pub const BYTES_MAX: usize = 32 << 20;
/// What a room takes besides its messages.
const ROOM_BYTES: usize = 1024;

/// Rooms by the time at which they go.
#[derive(Default)]
pub struct Shelf {
    rooms: BTreeMap<Place, (RoomKey, usize)>,
    bytes: usize,
    next: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

/// A room's place: when it goes, and a number that tells it from others of that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(Instant, u64);

impl Place {
    /// Whether its time has come.
    pub fn is_over(self, now: Instant) -> bool {
        self.0 <= now
    }
}

impl Shelf {
    /// Puts a room there until a time.
    pub fn put(&mut self, room: &RoomKey, until: Instant, bytes: usize) -> Place {
        self.next += 1;
        let place = Place(until, self.next);
        let bytes = bytes + ROOM_BYTES;
        self.bytes += bytes;
        self.rooms.insert(place, (room.clone(), bytes));
        place
    }

    /// Takes a room back.
    pub fn take(&mut self, place: &Place) {
        if let Some((_, bytes)) = self.rooms.remove(place) {
            self.bytes -= bytes;
        }
    }

    /// The room that must go because there are too many bytes.
    pub fn overflow(&mut self) -> Option<RoomKey> {
        if self.bytes <= BYTES_MAX { None } else { self.pop() }
    }

    /// The next room whose time is over.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<RoomKey> {
        let Some((Place(at, _), _)) = self.rooms.first_key_value() else {
            self.timer = None;
            return Poll::Pending;
        };
        if poll_until(&mut self.timer, *at, cx).is_pending() {
            return Poll::Pending;
        }
        self.pop().map_or(Poll::Pending, Poll::Ready)
    }

    /// Bytes of all rooms.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn pop(&mut self) -> Option<RoomKey> {
        let (_, (room, bytes)) = self.rooms.pop_first()?;
        self.bytes -= bytes;
        Some(room)
    }
}
