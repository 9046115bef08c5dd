//! The `message_id`s that were seen in a room, with the places that their messages got.
use crate::config::Duplicates;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Names that are remembered of servers which publish as nobody, at least: several times the longest list that they
/// may publish at once.
const SERVERS_NAMES_MAX: usize = 8192;

/// What each client has sent lately. A name is kept as two hashes of 64 bits with secret keys: 32 bytes whatever its
/// length, and a client cannot find two names that are taken for one.
#[derive(Default)]
pub struct Seen {
    clients: HashMap<Arc<str>, VecDeque<Sent>>,
}

struct Sent {
    name: Name,
    offset: u64,
    at: Instant,
}

/// A `message_id`, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name(u64, u64);

/// Makes names.
#[derive(Default)]
pub struct Namer(RandomState, RandomState);

impl Namer {
    /// The name of a `message_id`.
    pub fn name(&self, message_id: &str) -> Name {
        Name(self.0.hash_one(message_id), self.1.hash_one(message_id))
    }
}

impl Seen {
    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// About the memory that it takes.
    pub fn bytes(&self) -> usize {
        self.clients.len() * 128 + self.clients.values().map(|sent| sent.len() * size_of::<Sent>()).sum::<usize>()
    }

    /// The offset that the client's message of this name got.
    pub fn find(&self, client: &str, name: Name, now: Instant, bounds: &Duplicates) -> Option<u64> {
        let sent = self.clients.get(client)?;
        let found = sent.iter().rev().find(|s| s.name == name)?;
        (now.saturating_duration_since(found.at) < bounds.age).then_some(found.offset)
    }

    /// Remembers a message.
    pub fn remember(&mut self, client: &Arc<str>, name: Name, offset: u64, at: Instant, bounds: &Duplicates) {
        if bounds.age == Duration::ZERO || bounds.per_client == 0 {
            return;
        }
        // Nobody's messages are those of all servers that name no sender.
        let most = if client.is_empty() { bounds.per_client.max(SERVERS_NAMES_MAX) } else { bounds.per_client };
        let sent = self.clients.entry(client.clone()).or_default();
        while let Some(first) = sent.front()
            && (sent.len() >= most || at.saturating_duration_since(first.at) >= bounds.age)
        {
            sent.pop_front();
        }
        sent.push_back(Sent { name, offset, at });
    }

    /// Forgets a message that found no place after all.
    pub fn forget(&mut self, client: &str, name: Name) {
        if let Some(sent) = self.clients.get_mut(client) {
            sent.retain(|s| s.name != name);
            if sent.is_empty() {
                self.clients.remove(client);
            }
        }
    }

    /// Forgets what is too old.
    pub fn sweep(&mut self, now: Instant, bounds: &Duplicates) {
        self.clients.retain(|_, sent| {
            sent.retain(|s| now.saturating_duration_since(s.at) < bounds.age);
            if sent.capacity() > 4 * sent.len().max(4) {
                sent.shrink_to(2 * sent.len());
            }
            !sent.is_empty()
        });
        if self.clients.capacity() > 4 * self.clients.len().max(16) {
            self.clients.shrink_to(2 * self.clients.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Duplicates = Duplicates { age: Duration::from_secs(10), per_client: 3 };

    #[test]
    fn a_name_is_of_one_client_and_ages() {
        let (mut seen, namer, start) = (Seen::default(), Namer::default(), Instant::now());
        let (alice, name) = (Arc::from("alice"), namer.name("m1"));
        seen.remember(&alice, name, 7, start, &BOUNDS);
        assert_eq!(seen.find("alice", name, start, &BOUNDS), Some(7));
        assert_eq!(seen.find("bob", name, start, &BOUNDS), None);
        assert_eq!(seen.find("alice", namer.name("m2"), start, &BOUNDS), None);
        let later = start + BOUNDS.age;
        assert_eq!(seen.find("alice", name, later, &BOUNDS), None);
        seen.sweep(later, &BOUNDS);
        assert!(seen.is_empty());
    }

    #[test]
    fn servers_that_name_no_sender_have_names_for_several_lists() {
        let (mut seen, namer, start) = (Seen::default(), Namer::default(), Instant::now());
        let nobody = Arc::from("");
        for i in 0..8192 {
            seen.remember(&nobody, namer.name(&i.to_string()), i, start, &BOUNDS);
        }
        assert_eq!(seen.find("", namer.name("0"), start, &BOUNDS), Some(0));
        seen.remember(&nobody, namer.name("x"), 9000, start, &BOUNDS);
        assert_eq!(seen.find("", namer.name("0"), start, &BOUNDS), None);
    }

    #[test]
    fn the_last_ones_of_a_client_are_remembered() {
        let (mut seen, namer, start) = (Seen::default(), Namer::default(), Instant::now());
        let alice = Arc::from("alice");
        for i in 0..5 {
            seen.remember(&alice, namer.name(&i.to_string()), i, start, &BOUNDS);
        }
        let found = |i: u64| seen.find("alice", namer.name(&i.to_string()), start, &BOUNDS);
        assert_eq!([found(0), found(1), found(2), found(4)], [None, None, Some(2), Some(4)]);
    }
}
