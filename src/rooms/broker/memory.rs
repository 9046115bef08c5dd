//! The broker of a single node: the order is this process' own count.
//!
//! What is kept of a room outlives its last member: epoch and offset for the age of the history, the history itself
//! within its bounds, and the names of messages for the age of duplicates. Rooms that nobody is in lie on a shelf that is
//! bounded in bytes; those that would go first go before their time where it is full.
mod epochs;
mod history;
mod seen;
mod shelf;

use super::{Batch, Broker, Event, Message, Publication};
use crate::config::{Duplicates, Rules};
use crate::rooms::mail::{Position, RoomKey};
use crate::rooms::schedule::Schedule;
use epochs::Epochs;
use history::History;
use jiff::Timestamp;
use seen::{Namer, Seen};
use shelf::Shelf;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// Rooms that are looked at by time in one turn, before others have theirs.
const AGED_AT_ONCE: usize = 256;

/// Rooms with their counts, and events that were not taken yet. Events are taken in the same turn that made them, so
/// the queue stays short.
pub struct Memory {
    duplicates: Duplicates,
    rooms: HashMap<RoomKey, Kept>,
    shelf: Shelf,
    /// Rooms whose oldest message or name may be too old then.
    aging: Schedule<RoomKey>,
    epochs: Epochs,
    namer: Namer,
    events: VecDeque<Event>,
}

/// What is kept of a room.
struct Kept {
    position: Position,
    rules: Arc<Rules>,
    history: History,
    seen: Seen,
    /// Its place on the shelf; `None`: it is open.
    shelved: Option<shelf::Place>,
    /// It is in the schedule.
    aging: bool,
}

impl Memory {
    /// A broker without rooms. `duplicates`: what is remembered of each client.
    pub fn new(duplicates: Duplicates) -> Memory {
        Memory {
            duplicates,
            rooms: HashMap::new(),
            shelf: Shelf::default(),
            aging: Schedule::default(),
            epochs: Epochs::default(),
            namer: Namer::default(),
            events: VecDeque::new(),
        }
    }

    /// Rooms of which something is kept, and bytes on the shelf.
    #[cfg(test)]
    pub fn kept(&self) -> (usize, usize) {
        (self.rooms.len(), self.shelf.bytes())
    }

    fn forget(&mut self, room: &RoomKey) {
        if self.rooms.remove(room).is_some_and(|kept| kept.position.offset > 0) {
            self.epochs.forgotten(room);
        }
        if self.rooms.capacity() > 4 * self.rooms.len().max(256) {
            self.rooms.shrink_to(2 * self.rooms.len());
        }
    }

    /// Lets go what is too old in a room, and comes back when there is more.
    fn age(&mut self, room: &RoomKey, now: Instant) {
        let Some(kept) = self.rooms.get_mut(room) else { return };
        kept.trim(now, &self.duplicates);
        kept.aging = false;
        if let Some(next) = kept.next_age(now, &self.duplicates) {
            kept.aging = true;
            self.aging.enter(next, room.clone());
        }
    }
}

impl Kept {
    fn trim(&mut self, now: Instant, duplicates: &Duplicates) {
        self.history.trim(now, &self.rules.history);
        self.seen.sweep(now, duplicates);
    }

    /// When something may be too old. Names are looked through once in their age.
    fn next_age(&self, now: Instant, duplicates: &Duplicates) -> Option<Instant> {
        let message = self.history.oldest().map(|at| at + self.rules.history.age);
        let names = (!self.seen.is_empty()).then(|| now + duplicates.age);
        [message, names].into_iter().flatten().min()
    }
}

impl Broker for Memory {
    fn open(&mut self, room: &RoomKey, rules: &Arc<Rules>) {
        let expired = |place: &shelf::Place| place.is_over(Instant::now());
        if let Some(place) = self.rooms.get(room).and_then(|kept| kept.shelved).filter(expired) {
            self.shelf.take(&place);
            self.forget(room);
        }
        let kept = self.rooms.entry(room.clone()).or_insert_with(|| Kept {
            position: Position { epoch: self.epochs.epoch(room), offset: 0 },
            rules: rules.clone(),
            history: History::default(),
            seen: Seen::default(),
            shelved: None,
            aging: false,
        });
        if let Some(place) = kept.shelved.take() {
            self.shelf.take(&place);
        }
        self.events.push_back(Event::Opened { room: room.clone(), position: kept.position.clone() });
    }

    fn shut(&mut self, room: &RoomKey) {
        let Some(kept) = self.rooms.get_mut(room) else { return };
        let now = Instant::now();
        kept.trim(now, &self.duplicates);
        let names = if kept.seen.is_empty() { std::time::Duration::ZERO } else { self.duplicates.age };
        let stays = kept.rules.history.age.max(names);
        // One that was never written to leaves no trace: see `Epochs`.
        if kept.position.offset == 0 || stays.is_zero() {
            return self.forget(room);
        }
        let bytes = kept.history.bytes() + kept.seen.clients() * 256;
        kept.shelved = Some(self.shelf.put(room, now + stays, bytes));
        while let Some(first) = self.shelf.overflow() {
            self.forget(&first);
        }
    }

    fn publish(&mut self, ticket: u64, room: &RoomKey, publication: Publication) {
        let Some(kept) = self.rooms.get_mut(room).filter(|kept| kept.shelved.is_none()) else {
            return self.events.push_back(Event::Refused { ticket });
        };
        let now = Instant::now();
        let sender = publication.sender.clone().unwrap_or_default();
        let name = publication.named.then(|| self.namer.name(&publication.message_id));
        let found = name.and_then(|name| kept.seen.find(&sender, name, now, &self.duplicates));
        if let Some(offset) = found {
            let position = Position { epoch: kept.position.epoch.clone(), offset };
            return self.events.push_back(Event::Accepted { ticket, position, duplicate: true });
        }
        kept.position.offset += 1;
        let position = kept.position.clone();
        let message = Message::new(&room.name, position.clone(), Timestamp::now(), &publication);
        if kept.rules.history.messages > 0 && !room.is_everyone() {
            kept.history.push(message.clone(), now, &kept.rules.history);
        }
        if let Some(name) = name {
            kept.seen.remember(&sender, name, position.offset, now, &self.duplicates);
        }
        if !kept.aging
            && let Some(next) = kept.next_age(now, &self.duplicates)
        {
            kept.aging = true;
            self.aging.enter(next, room.clone());
        }
        self.events.push_back(Event::Accepted { ticket, position, duplicate: false });
        self.events.push_back(Event::Delivered { room: room.clone(), message });
    }

    fn read(&mut self, ticket: u64, room: &RoomKey, after: u64, batch: Batch) {
        let kept = self.rooms.get_mut(room);
        let (messages, oldest) = kept.map_or((None, None), |kept| {
            kept.history.trim(Instant::now(), &kept.rules.history);
            (kept.history.after(after, kept.position.offset, batch), kept.history.first())
        });
        self.events.push_back(Event::Read { ticket, messages, oldest });
    }

    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<Event> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) {
        for _ in 0..AGED_AT_ONCE {
            let (aged, expired) = (self.aging.poll_due(cx), self.shelf.poll_expired(cx));
            if aged.is_pending() && expired.is_pending() {
                return;
            }
            if let Poll::Ready(room) = aged {
                self.age(&room, Instant::now());
            }
            if let Poll::Ready(room) = expired {
                self.forget(&room);
            }
        }
        cx.waker().wake_by_ref();
    }
}

#[cfg(test)]
impl Default for Memory {
    fn default() -> Memory {
        Memory::new(crate::config::Rooms::default().duplicates)
    }
}

#[cfg(test)]
mod tests;
