//! Names of unbroken counts.
use crate::rooms::mail::RoomKey;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Rooms share the eras by a hash of their names: one that is forgotten renews the epochs of those few that are to
/// come under the same.
const ERAS: usize = 4096;

/// Gives a room its epoch when it comes to be. A room that was never written to can so be forgotten without a trace:
/// it gets the same epoch again, and its count, which stood at 0, is unbroken. After a room with messages is
/// forgotten, the next one of that name gets another epoch.
pub struct Epochs {
    keys: RandomState,
    eras: Vec<u32>,
}

impl Default for Epochs {
    fn default() -> Self {
        Epochs { keys: RandomState::new(), eras: vec![0; ERAS] }
    }
}

impl Epochs {
    /// The epoch of a room that comes to be now.
    pub fn epoch(&self, room: &RoomKey) -> Arc<str> {
        let era = self.eras[self.place(room)];
        format!("{:012x}", self.keys.hash_one((room, era)) >> 16).into()
    }

    /// A room with messages was forgotten.
    pub fn forgotten(&mut self, room: &RoomKey) {
        let place = self.place(room);
        self.eras[place] = self.eras[place].wrapping_add(1);
    }

    fn place(&self, room: &RoomKey) -> usize {
        (self.keys.hash_one(room) % ERAS as u64) as usize
    }
}
