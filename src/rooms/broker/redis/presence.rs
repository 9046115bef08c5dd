//! What this node holds in rooms, and what the others do.
use super::{Asked, At, Redis, is_passing, scripts, wire};
use crate::cluster::slots::slot_of;
use crate::cluster::{Reply, Trouble};
use crate::rooms::broker::{Elsewhere, Event, Held};
use crate::rooms::mail::RoomKey;
use std::collections::HashMap;
use std::sync::Arc;

/// Changes of one call.
const CHANGES_MAX: usize = 1000;
/// Rooms that were left and in which something of this node may stand. Beyond that it stands there until the node is
/// gone.
const LEFTOVERS_MAX: usize = 262_144;
/// As many of them are cleared in one tick.
const CLEARED_AT_ONCE: usize = 256;

impl Redis {
    pub(super) fn holds_now(&mut self, at: At, client: &Arc<str>, held: Option<Held>) {
        let Some(room) = self.room(at) else { return };
        match held {
            Some(held) => drop(room.held.insert(client.clone(), held)),
            None => drop(room.held.remove(client)),
        }
        self.is_dirty(at, client);
    }

    fn is_dirty(&mut self, at: At, client: &Arc<str>) {
        let Some(room) = self.room(at) else { return };
        let first = room.dirty.is_empty();
        room.dirty.insert(client.clone());
        if first {
            self.dirty.push(at);
        }
    }

    /// Writes what has changed of what this node holds.
    pub(super) fn flush_presence(&mut self) {
        while let Some(at) = self.dirty.pop() {
            self.flush_room(at);
        }
    }

    /// Likewise, in one room.
    pub(super) fn flush_room(&mut self, at: At) {
        let own = self.lives.own();
        let Some(room) = self.room(at).filter(|room| !room.dirty.is_empty()) else { return };
        let clients = std::mem::take(&mut room.dirty);
        let change = |client: Arc<str>| (wire::field(own, &client), room.held.get(&client).map(wire::held));
        let changes: Vec<_> = clients.into_iter().map(change).collect();
        self.change(at, &changes);
    }

    /// Changes what stands in a room of whatever node.
    fn change(&mut self, at: At, changes: &[(String, Option<String>)]) {
        let duplicates = self.duplicates;
        for changes in changes.chunks(CHANGES_MAX) {
            let Some(room) = self.room(at) else { return };
            let call = scripts::hold(&room.channel, changes, &room.rules.history, &duplicates);
            let key = room.key.clone();
            self.call(Asked::Hold { at, key }, call);
            self.shard.metrics().presence_flushed();
        }
    }

    /// A room is left: nothing of this node is to stay there.
    pub(super) fn lets_go(&mut self, at: At) {
        let Some(room) = self.room(at) else { return };
        let held: Vec<_> = room.held.drain().map(|(client, _)| client).collect();
        held.iter().for_each(|client| self.is_dirty(at, client));
        self.flush_room(at);
        if let Some(room) = self.room(at).filter(|room| room.is_uncertain) {
            let key = room.key.clone();
            self.leaves_over(key);
        }
    }

    /// What this node holds could not be told.
    pub(super) fn not_held(&mut self, at: At, key: RoomKey, trouble: &Trouble) {
        let Some(now) = self.at(&key) else { return self.leaves_over(key) };
        // Else it is looked at when Redis is reached again.
        if now != at || is_passing(trouble) {
            self.turns.try_again(now);
        }
        if let Some(room) = self.room(now) {
            room.is_uncertain = true;
        }
    }

    /// Something of this node may stand in a room that it has left.
    pub(super) fn leaves_over(&mut self, key: RoomKey) {
        if self.leftovers.len() < LEFTOVERS_MAX {
            self.leftovers.push_back(key);
        }
    }

    /// Takes out what this node has left in rooms, where Redis is reached. Some at a time.
    pub(super) fn clear_leftovers(&mut self) {
        for _ in 0..self.leftovers.len().min(CLEARED_AT_ONCE) {
            let Some(key) = self.leftovers.pop_front() else { return };
            // One that is used again is cleared by what is asked about it.
            if self.by_key.contains_key(&key) {
                continue;
            }
            let channel = self.channel_of(&key);
            if self.link.reaches(slot_of(&channel)) {
                let call = scripts::clear(&channel, self.lives.own());
                self.call(Asked::Clear { key }, call);
            } else {
                self.leftovers.push_back(key);
            }
        }
    }

    /// Nodes have changed what they hold.
    pub(super) fn others_changed(&mut self, at: At, version: u64, changes: Vec<Elsewhere>) {
        let Some(room) = self.room(at).filter(|room| room.count.is_some()) else { return };
        if version != room.version + 1 {
            // What came before an answer is in it.
            if !room.syncing.is_asked() {
                self.queue_sync(at);
                self.sync_some();
            }
            return;
        }
        room.version = version;
        let room = room.key.clone();
        let mut clients = changes;
        clients.retain(|(node, ..)| !self.lives.is_own(*node) && self.lives.counts(*node));
        if !clients.is_empty() {
            self.events.push_back(Event::Others { room, clients, whole: false });
        }
    }

    /// This is all that stands in a room, fields and values in turn.
    pub(super) fn others_are(&mut self, at: At, records: &[Reply]) {
        let Some(room) = self.room(at).filter(|room| !room.key.is_everyone()) else { return };
        let room = room.key.clone();
        let (mut version, mut own, mut clients, mut stale) = (0, HashMap::new(), Vec::new(), Vec::new());
        for [field, value] in records.as_chunks::<2>().0 {
            if field.bytes().is_some_and(|field| **field == *b"v") {
                version = wire::read_number(value).unwrap_or(0);
                continue;
            }
            let node = field.bytes().and_then(|field| wire::read_field(field));
            let Some(((node, client), value)) = node.zip(value.bytes()) else { continue };
            if self.lives.is_own(node) {
                own.insert(client, value);
            } else if self.lives.counts(node) {
                clients.extend(wire::read_held(value).map(|held| (node, client, Some(held))));
            } else if self.lives.is_long_dead(node) && stale.len() < CHANGES_MAX {
                stale.push((wire::field(node, &client), None));
            }
        }
        self.events.push_back(Event::Others { room, clients, whole: true });
        let Some(room) = self.room(at) else { return };
        room.version = version;
        room.is_uncertain = false;
        let stands = |client: &str| own.get(client).copied();
        let lacks = room
            .held
            .iter()
            .filter(|(client, held)| stands(client).is_none_or(|value| **value != *wire::held(held).as_bytes()));
        let left = own.keys().filter(|client| !room.held.contains_key(*client));
        let wrong: Vec<Arc<str>> = lacks.map(|(client, _)| client).chain(left).cloned().collect();
        wrong.iter().for_each(|client| self.is_dirty(at, client));
        self.change(at, &stale);
    }
}
