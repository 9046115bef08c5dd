//! A bounded table of peers that forgets those who hold nothing.
use std::collections::HashMap;
use std::hash::Hash;

/// Whether an entry must be kept.
pub trait Live {
    /// Whether it holds something at this time (as by [`super::gcra::nanos`]).
    fn live(&self, now: u64) -> bool;
}

/// At most `entries_max` entries; those that are not live go when room is needed.
pub struct Table<K, V> {
    entries: HashMap<K, V>,
    sweep_at: usize,
    entries_max: usize,
    /// A full table is looked through no more often than [`SWEEP_EVERY_NANOS`].
    full_until: u64,
}

const SWEEP_AT_LEAST: usize = 1024;
const SWEEP_EVERY_NANOS: u64 = 100_000_000;

impl<K: Eq + Hash, V: Live> Table<K, V> {
    /// An empty table.
    pub fn new(entries_max: usize) -> Self {
        Table { entries: HashMap::new(), sweep_at: SWEEP_AT_LEAST, entries_max, full_until: 0 }
    }

    /// The entry of `key`, made where missing; `None` where the table is full of live entries.
    pub fn entry(&mut self, key: K, now: u64, make: impl FnOnce() -> V) -> Option<&mut V> {
        if self.entries.len() >= self.sweep_at && !self.entries.contains_key(&key) {
            if now < self.full_until {
                return None;
            }
            self.sweep(now);
            if self.entries.len() >= self.entries_max {
                self.full_until = now + SWEEP_EVERY_NANOS;
                return None;
            }
        }
        Some(self.entries.entry(key).or_insert_with(make))
    }

    /// The entry of `key`, if there is one.
    pub fn existing(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    /// Forgets what is not live, and gives memory back.
    pub fn sweep(&mut self, now: u64) {
        self.entries.retain(|_, v| v.live(now));
        let len = self.entries.len();
        if self.entries.capacity() > 4 * len.max(SWEEP_AT_LEAST / 4) {
            self.entries.shrink_to(2 * len);
        }
        self.full_until = 0;
        self.sweep_at = (2 * len).clamp(SWEEP_AT_LEAST, self.entries_max.max(SWEEP_AT_LEAST));
    }

    /// Entries now.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries that fit without growing.
    pub fn capacity(&self) -> usize {
        self.entries.capacity()
    }
}
