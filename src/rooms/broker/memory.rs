//! The broker of a single node: the order is this process' own count.
//!
//! What is kept of a room outlives its last member: epoch and offset for the age of the history, the history itself
//! within its bounds, and the names of messages for the age of duplicates. Rooms that nobody is in lie on a shelf that is
//! bounded in bytes; those that would go first go before their time where it is full.
//!
//! A message of a durable room has its place when it is on the disk: until then it is counted and not told.
mod durable;
mod epochs;
mod history;
mod seen;
mod shelf;

use super::{Batch, Broker, Event, Message, Publication};
use crate::config::{Duplicates, Rules};
use crate::rooms::mail::{Position, RoomKey};
use crate::rooms::schedule::{Place, Schedule};
pub use durable::Durable;
use durable::{InFlight, Outcome};
use epochs::Epochs;
use history::History;
use jiff::Timestamp;
use seen::{Namer, Seen};
use shelf::Shelf;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Rooms that are looked at by time in one turn, before others have theirs.
const AGED_AT_ONCE: usize = 64;
/// A room is looked at by time at most so often.
const AGED_EVERY: Duration = Duration::from_secs(1);

/// Rooms with their counts, and events that were not taken yet. Events are taken in the same turn that made them, so
/// the queue stays short.
pub struct Memory {
    duplicates: Duplicates,
    rooms: HashMap<RoomKey, Kept>,
    shelf: Shelf,
    /// Rooms whose oldest message or name may be too old then. Each is there once.
    aging: Schedule<RoomKey>,
    epochs: Epochs,
    namer: Namer,
    durable: Option<Durable>,
    events: VecDeque<Event>,
}

/// What is kept of a room.
struct Kept {
    /// The place of the last message that was told.
    position: Position,
    rules: Arc<Rules>,
    history: History,
    seen: Seen,
    /// Its place on the shelf; `None`: it is open.
    shelved: Option<Place>,
    /// Its place among those that age.
    aging: Option<Place>,
    /// When its names are looked through next: once in their age.
    names_at: Option<Instant>,
    stored: Stored,
}

/// How a room stands to the store.
enum Stored {
    /// It is not kept there.
    Not,
    /// The store was asked what it has.
    Asked,
    /// Messages go there first.
    Yes(InFlight),
    /// Likewise, and the room is put on the shelf when they have arrived.
    Shutting(InFlight),
}

impl Memory {
    /// A broker without rooms. `duplicates`: what is remembered of each client; `durable`: where durable rooms are
    /// kept.
    pub fn new(duplicates: Duplicates, durable: Option<Durable>) -> Memory {
        Memory {
            duplicates,
            durable,
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

    /// As if nothing had been kept of a room: where it has messages it is another count from now on.
    #[cfg(test)]
    pub fn lose(&mut self, room: &RoomKey) {
        self.forget(room);
    }

    fn forget(&mut self, room: &RoomKey) {
        let Some(kept) = self.rooms.remove(room) else { return };
        if let Some(place) = kept.aging {
            self.aging.take(place);
        }
        if kept.position.offset > 0 {
            self.epochs.forgotten(room);
        }
        if self.rooms.capacity() > 4 * self.rooms.len().max(256) {
            self.rooms.shrink_to(2 * self.rooms.len());
        }
    }

    /// Puts a room that nobody uses on the shelf, where something is to be kept of it.
    fn shelve(&mut self, room: &RoomKey) {
        let Some(kept) = self.rooms.get_mut(room) else { return };
        let now = Instant::now();
        kept.trim(now, &self.duplicates);
        let names = if kept.seen.is_empty() { Duration::ZERO } else { self.duplicates.age };
        let stays = kept.rules.history.age.max(names);
        // One that was never written to leaves no trace: see `Epochs`.
        if kept.position.offset == 0 || stays.is_zero() {
            return self.forget(room);
        }
        let place = self.shelf.put(room, now + stays, kept.history.bytes() + kept.seen.bytes());
        kept.shelved = Some(place);
        while let Some(first) = self.shelf.overflow(place) {
            self.forget(&first);
        }
    }

    /// A message has its place.
    fn placed(&mut self, room: &RoomKey, message: Message, tickets: &[u64]) {
        let Some(kept) = self.rooms.get_mut(room) else { return };
        let now = Instant::now();
        kept.position = message.position.clone();
        if kept.rules.history.messages > 0 && !room.is_everyone() {
            kept.history.push(message.clone(), now, &kept.rules.history);
        }
        self.ages(room, now);
        for (i, ticket) in tickets.iter().enumerate() {
            let position = message.position.clone();
            self.events.push_back(Event::Accepted { ticket: *ticket, position, duplicate: i > 0 });
        }
        self.events.push_back(Event::Delivered { room: room.clone(), message });
    }

    /// The store has answered.
    fn stored(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::NotLoaded(room) => {
                self.rooms.remove(&room);
                self.events.push_back(Event::Unavailable { room });
            }
            Outcome::Loaded(room, found) => {
                let Some(kept) = self.rooms.get_mut(&room) else { return };
                kept.stored = Stored::Yes(InFlight::default());
                if let Some(loaded) = found {
                    (kept.position, kept.history, kept.seen) =
                        durable::restore(loaded, &kept.rules, &self.duplicates, &self.namer);
                }
                self.events.push_back(Event::Opened { room: room.clone(), position: kept.position.clone() });
                self.ages(&room, Instant::now());
            }
            Outcome::Appended(room) => {
                let in_flight = self.rooms.get_mut(&room).and_then(Kept::in_flight);
                if let Some(pending) = in_flight.and_then(InFlight::arrived) {
                    self.placed(&room, pending.message, &pending.tickets);
                }
                self.shelve_if_shut(&room);
            }
            Outcome::Failed(room, call) => {
                let Some(kept) = self.rooms.get_mut(&room) else { return };
                let failed = kept.in_flight().and_then(|in_flight| in_flight.fail(call));
                if let Some(durable::Pending { publication, tickets, .. }) = failed {
                    let name = self.namer.name(&publication.message_id);
                    kept.seen.forget(&publication.sender.unwrap_or_default(), name);
                    self.events.extend(tickets.into_iter().map(|ticket| Event::Refused { ticket }));
                }
                self.shelve_if_shut(&room);
            }
        }
    }

    /// What was on its way when the room was shut has arrived.
    fn shelve_if_shut(&mut self, room: &RoomKey) {
        let Some(kept) = self.rooms.get_mut(room) else { return };
        if matches!(&kept.stored, Stored::Shutting(in_flight) if in_flight.is_empty()) {
            kept.stored = Stored::Yes(InFlight::default());
            self.shelve(room);
        }
    }

    /// Lets go what is too old in a room, and comes back when there is more.
    fn age(&mut self, room: &RoomKey, now: Instant) {
        let Some(kept) = self.rooms.get_mut(room) else { return };
        kept.aging = None;
        kept.history.trim(now, &kept.rules.history);
        if kept.names_at.is_some_and(|at| at <= now) {
            kept.seen.sweep(now, &self.duplicates);
            kept.names_at = None;
        }
        self.ages(room, now);
    }

    /// Has the room looked at when something in it may be too old, where it has something.
    fn ages(&mut self, room: &RoomKey, now: Instant) {
        let Some(kept) = self.rooms.get_mut(room).filter(|kept| kept.aging.is_none()) else { return };
        if !kept.seen.is_empty() {
            kept.names_at.get_or_insert(now + self.duplicates.age);
        }
        let message = kept.history.oldest().map(|at| at + kept.rules.history.age);
        if let Some(next) = [message, kept.names_at].into_iter().flatten().min() {
            // Whoever reads sees no message that is too old; here it is about memory.
            let next = next.max(now + AGED_EVERY);
            kept.aging = Some(self.aging.enter(next, room.clone()));
        }
    }
}

impl Kept {
    fn in_flight(&mut self) -> Option<&mut InFlight> {
        match &mut self.stored {
            Stored::Yes(in_flight) | Stored::Shutting(in_flight) => Some(in_flight),
            Stored::Not | Stored::Asked => None,
        }
    }

    fn trim(&mut self, now: Instant, duplicates: &Duplicates) {
        self.history.trim(now, &self.rules.history);
        self.seen.sweep(now, duplicates);
    }
}

impl Broker for Memory {
    fn open(&mut self, room: &RoomKey, rules: &Arc<Rules>) {
        let expired = |place: &Place| place.is_over(Instant::now());
        if let Some(place) = self.rooms.get(room).and_then(|kept| kept.shelved).filter(expired) {
            self.shelf.take(place);
            self.forget(room);
        }
        let keeps = rules.durable && !room.is_everyone() && self.durable.is_some();
        let kept = self.rooms.entry(room.clone()).or_insert_with(|| Kept {
            position: Position { epoch: self.epochs.epoch(room), offset: 0 },
            rules: rules.clone(),
            history: History::default(),
            seen: Seen::default(),
            shelved: None,
            aging: None,
            names_at: None,
            stored: if keeps { Stored::Asked } else { Stored::Not },
        });
        if let Some(place) = kept.shelved.take() {
            self.shelf.take(place);
        }
        match std::mem::replace(&mut kept.stored, Stored::Not) {
            Stored::Asked => {
                kept.stored = Stored::Asked;
                let asked = self.durable.as_mut().is_some_and(|durable| durable.load(room));
                if !asked {
                    self.stored(Outcome::NotLoaded(room.clone()));
                }
                return;
            }
            Stored::Shutting(in_flight) | Stored::Yes(in_flight) => kept.stored = Stored::Yes(in_flight),
            Stored::Not => (),
        }
        self.events.push_back(Event::Opened { room: room.clone(), position: kept.position.clone() });
    }

    fn shut(&mut self, room: &RoomKey) {
        match self.rooms.get_mut(room).map(|kept| &mut kept.stored) {
            Some(stored @ Stored::Yes(_)) => {
                let Stored::Yes(in_flight) = std::mem::replace(stored, Stored::Not) else { return };
                *stored = Stored::Shutting(in_flight);
                self.shelve_if_shut(room);
            }
            Some(Stored::Not) => self.shelve(room),
            Some(Stored::Asked | Stored::Shutting(_)) | None => (),
        }
    }

    fn publish(&mut self, ticket: u64, room: &RoomKey, publication: Publication) {
        let open = |kept: &&mut Kept| kept.shelved.is_none() && matches!(kept.stored, Stored::Not | Stored::Yes(_));
        let Some(kept) = self.rooms.get_mut(room).filter(open) else {
            return self.events.push_back(Event::Refused { ticket });
        };
        let now = Instant::now();
        let sender = publication.sender.clone().unwrap_or_default();
        let name = publication.named.then(|| self.namer.name(&publication.message_id));
        let found = name.and_then(|name| kept.seen.find(&sender, name, now, &self.duplicates));
        if let Some(offset) = found {
            let position = Position { epoch: kept.position.epoch.clone(), offset };
            let told = offset <= kept.position.offset;
            match kept.in_flight().filter(|_| !told) {
                Some(in_flight) => {
                    if !in_flight.wait_for(offset, ticket) {
                        self.events.push_back(Event::Refused { ticket });
                    }
                }
                None => self.events.push_back(Event::Accepted { ticket, position, duplicate: true }),
            }
            return;
        }
        let ahead = kept.in_flight().map_or(0, |in_flight| in_flight.len());
        let position = Position { epoch: kept.position.epoch.clone(), offset: kept.position.offset + ahead + 1 };
        let message = Message::new(&room.name, position.clone(), Timestamp::now(), &publication);
        let remember = |kept: &mut Kept, duplicates: &Duplicates| {
            if let Some(name) = name {
                kept.seen.remember(&sender, name, position.offset, now, duplicates);
            }
        };
        let Kept { stored: Stored::Yes(in_flight), rules, history, .. } = kept else {
            remember(kept, &self.duplicates);
            return self.placed(room, message, &[ticket]);
        };
        let known = durable::Kept { rules, history, stored: kept.position.offset };
        let durable = self.durable.as_mut().filter(|_| !in_flight.has_failed());
        let sent = durable.map(|durable| durable.append(room, (message, publication, ticket), in_flight, &known));
        match sent {
            Some(Ok(())) => remember(kept, &self.duplicates),
            Some(Err(_)) | None => self.events.push_back(Event::Refused { ticket }),
        }
    }

    fn read(&mut self, ticket: u64, room: &RoomKey, after: u64, batch: Batch) {
        let kept = self.rooms.get_mut(room);
        let (messages, oldest) = kept.map_or((None, None), |kept| {
            kept.history.trim(Instant::now(), &kept.rules.history);
            (kept.history.after(after, kept.position.offset, batch), kept.history.first())
        });
        self.events.push_back(Event::Read { ticket, messages, oldest });
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(event);
            }
            let outcome = self.durable.as_mut().map(|durable| durable.poll_next(cx));
            let Some(Poll::Ready(outcome)) = outcome else { return Poll::Pending };
            self.stored(outcome);
        }
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
        Memory::new(crate::config::Rooms::default().duplicates, None)
    }
}

#[cfg(test)]
mod tests;
