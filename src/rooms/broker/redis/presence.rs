//! What this node holds in rooms, and what the others do.
use super::{Asked, At, Redis, is_passing, scripts, wire};
use crate::cluster::slots::slot_of;
use crate::cluster::{NodeId, Reply, Trouble};
use crate::rooms::broker::{Elsewhere, Event, Held};
use crate::rooms::mail::RoomKey;
use std::collections::HashMap;
use std::sync::Arc;
use wire::Page;

/// Changes of one call.
const CHANGES_MAX: usize = 1000;
/// What is looked at of who is in one room.
const FIELDS_MAX: usize = 1 << 20;
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
        let keeping = self.keeping();
        for changes in changes.chunks(CHANGES_MAX) {
            let Some(room) = self.room(at) else { return };
            let call = scripts::hold(&room.channel, changes, &room.rules.history, &keeping);
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
        let own = self.lives.own();
        let Some(room) = self.room(at).filter(|room| room.count.is_some()) else { return };
        if let Some(scan) = &mut room.scan {
            return scan.change(version, changes);
        }
        if version != room.version + 1 {
            // What came before an answer is in it.
            if !room.syncing.is_asked() {
                self.queue_sync(at);
            }
            return;
        }
        room.version = version;
        let key = room.key.clone();
        let mut clients = changes;
        // A command of a connection that was given up may be carried out after what was sent over the next.
        let stands = |held: Option<&Held>| held.map(wire::held);
        let wrong = clients
            .iter()
            .filter(|(node, client, held)| *node == own && stands(held.as_ref()) != stands(room.held.get(client)));
        let wrong: Vec<Arc<str>> = wrong.map(|(_, client, _)| client.clone()).collect();
        wrong.iter().for_each(|client| self.is_dirty(at, client));
        clients.retain(|(node, ..)| *node != own && self.lives.counts(*node));
        if !clients.is_empty() {
            self.events.push_back(Event::Others { room: key, clients, whole: false });
        }
    }

    /// Some of what stands in a room was read.
    pub(super) fn scanned(&mut self, at: At, page: &Page<'_>) {
        let Some(room) = self.room(at) else { return };
        let Some(scan) = &mut room.scan else { return };
        if scan.version != page.version {
            // A change was missed. The room does not stay as it is: it is asked for again.
            self.turns.try_again(at);
            return self.sync_ended(at);
        }
        scan.take(page.records);
        if page.next == 0 || scan.found.len() >= FIELDS_MAX {
            if let Some(scan) = room.scan.take() {
                self.others_are(at, *scan);
            }
            self.is_synced(at);
        } else {
            self.large.page(at, page.next);
        }
    }

    /// This is all that stands in a room.
    fn others_are(&mut self, at: At, scan: Scan) {
        let Some(room) = self.room(at).filter(|room| !room.key.is_everyone()) else { return };
        let key = room.key.clone();
        room.version = scan.version;
        room.is_uncertain = false;
        let this = self.lives.own();
        let (mut own, mut clients, mut stale) = (HashMap::new(), Vec::new(), Vec::new());
        for ((node, client), held) in scan.whole() {
            if node == this {
                own.extend(held.map(|held| (client, wire::held(&held))));
            } else if self.lives.counts(node) {
                clients.extend(held.map(|held| (node, client, Some(held))));
            } else if self.lives.is_long_dead(node) && stale.len() < CHANGES_MAX {
                stale.push((wire::field(node, &client), None));
            }
        }
        self.events.push_back(Event::Others { room: key, clients, whole: true });
        let Some(room) = self.room(at) else { return };
        let lacks = room.held.iter().filter(|(client, held)| own.get(*client) != Some(&wire::held(held)));
        let left = own.keys().filter(|client| !room.held.contains_key(*client));
        let wrong: Vec<Arc<str>> = lacks.map(|(client, _)| client).chain(left).cloned().collect();
        wrong.iter().for_each(|client| self.is_dirty(at, client));
        if stale.len() == CHANGES_MAX {
            // There may be more.
            self.turns.try_again(at);
        }
        self.change(at, &stale);
    }
}

/// Who is in a room, as far as it was read. That takes several answers where many are; what changes meanwhile comes over
/// the channel, in order with them.
pub struct Scan {
    /// The presence's version: all changes up to it are known.
    version: u64,
    found: HashMap<(NodeId, Arc<str>), Option<Held>>,
    /// What has changed since the first answer: newer than whatever is found.
    changed: HashMap<(NodeId, Arc<str>), Option<Held>>,
}

impl Scan {
    /// Nothing was read, and this is the version.
    pub fn new(version: u64) -> Scan {
        Scan { version, found: HashMap::new(), changed: HashMap::new() }
    }

    /// This stood there: fields and values in turn.
    fn take(&mut self, records: &[Reply]) {
        for [field, value] in records.as_chunks::<2>().0 {
            if let Some(holder) = field.bytes().and_then(|field| wire::read_field(field)) {
                self.found.insert(holder, value.bytes().and_then(|value| wire::read_held(value)));
            }
        }
    }

    /// Where a change is missing, the next answer has another version.
    fn change(&mut self, version: u64, changes: Vec<Elsewhere>) {
        if version == self.version + 1 {
            self.version = version;
            self.changed.extend(changes.into_iter().map(|(node, client, held)| ((node, client), held)));
        }
    }

    fn whole(mut self) -> HashMap<(NodeId, Arc<str>), Option<Held>> {
        self.found.extend(self.changed);
        self.found
    }
}
