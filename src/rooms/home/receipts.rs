//! How far clients had read in rooms that nobody is in: receipts go only forward, also after everybody has left.
use super::RoomKey;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Clients of all rooms of a shard that are remembered.
const CLIENTS_MAX: usize = 65_536;

/// Receipts of rooms that were shut, those that were shut first going first where there are too many.
#[derive(Default)]
pub struct Receipts {
    rooms: HashMap<RoomKey, Shut>,
    order: VecDeque<(RoomKey, u64)>,
    clients: usize,
    next: u64,
}

struct Shut {
    number: u64,
    /// What the offsets count in.
    epoch: Arc<str>,
    receipts: HashMap<Arc<str>, u64>,
}

impl Receipts {
    /// A room is shut.
    pub fn put(&mut self, room: RoomKey, epoch: Arc<str>, receipts: HashMap<Arc<str>, u64>) {
        if receipts.is_empty() {
            return;
        }
        self.next += 1;
        self.clients += receipts.len();
        self.order.push_back((room.clone(), self.next));
        self.rooms.insert(room, Shut { number: self.next, epoch, receipts });
        // Rooms that were taken back have left their places in the order behind.
        if self.order.len() > 2 * self.rooms.len() + 64 {
            self.order.retain(|(room, number)| self.rooms.get(room).is_some_and(|shut| shut.number == *number));
        }
        while self.clients > CLIENTS_MAX
            && let Some((room, number)) = self.order.pop_front()
        {
            if self.rooms.get(&room).is_some_and(|shut| shut.number == number) {
                self.remove(&room);
            }
        }
    }

    /// The room is used again, in this epoch.
    pub fn take(&mut self, room: &RoomKey, epoch: &str) -> HashMap<Arc<str>, u64> {
        self.remove(room).filter(|shut| *shut.epoch == *epoch).map(|shut| shut.receipts).unwrap_or_default()
    }

    fn remove(&mut self, room: &RoomKey) -> Option<Shut> {
        let shut = self.rooms.remove(room)?;
        self.clients -= shut.receipts.len();
        if self.rooms.capacity() > 4 * self.rooms.len().max(64) {
            self.rooms.shrink_to(2 * self.rooms.len());
        }
        Some(shut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Namespace;

    fn key(i: usize) -> RoomKey {
        RoomKey { namespace: Namespace { index: 0 }, name: format!("r{i}").into() }
    }

    #[test]
    fn remembered_in_their_epoch_and_bounded() {
        let mut receipts = Receipts::default();
        let some = || HashMap::from([(Arc::from("alice"), 7)]);
        receipts.put(key(0), "e".into(), some());
        assert_eq!(receipts.take(&key(0), "e").get("alice"), Some(&7));
        assert!(receipts.take(&key(0), "e").is_empty());
        receipts.put(key(0), "e".into(), some());
        assert!(receipts.take(&key(0), "f").is_empty());
        for i in 0..70_000 {
            receipts.put(key(i), "e".into(), some());
        }
        assert_eq!((receipts.clients, receipts.rooms.len()), (CLIENTS_MAX, CLIENTS_MAX));
        assert!(receipts.take(&key(0), "e").is_empty() && !receipts.take(&key(69_999), "e").is_empty());
        for _ in 0..1000 {
            receipts.put(key(5), "e".into(), some());
            receipts.take(&key(5), "e");
        }
        assert!(receipts.order.len() < 200_000);
    }
}
