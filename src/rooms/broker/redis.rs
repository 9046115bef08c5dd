//! The broker of several nodes: order, history and presence are Redis'.
//!
//! For each room that is used here the node subscribes to the room's channel and asks how the room stands, in this order
//! and over one connection: what comes over the channel after the answer is news. What comes in between is not. Messages
//! are told in the order of their offsets; where some are missing they are read from the stream, and where they stand
//! there no more, or the count is another one, the members lose their place. The same question is asked again whenever the
//! connection was lost, and whenever something does not fit together.
mod answers;
mod large;
mod lives;
mod presence;
mod room;
mod scripts;
mod turns;
mod wire;

pub use scripts::SCRIPTS;

use super::{Batch, Broker, Event, Held, Message, Publication, Telling};
use crate::cluster::nodes::Standing;
use crate::cluster::slots::slot_of;
use crate::cluster::{Call, Link, LiveNodes, Report, Trouble};
use crate::config::{Duplicates, Rules};
use crate::metrics::PlacesLost;
use crate::rooms::mail::RoomKey;
use crate::shard::Shard;
use bytes::Bytes;
use large::Large;
use lives::Lives;
use room::{Arrival, Count, Room};
use scripts::Keeping;
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::watch;
use turns::{CHECKS_PER_TICK, Turns};
use wire::{Entry, Pushed};

/// What is read at once of messages that are missing.
const FILL: Batch = Batch { messages: 256, bytes: 256 * 1024 };

/// What a broker over Redis is made of.
pub struct Parts {
    /// The way there, with [`SCRIPTS`] loaded.
    pub link: Link,
    /// The nodes that live.
    pub live: Arc<LiveNodes>,
    /// Whether the list of those is kept up.
    pub standing: watch::Receiver<Standing>,
    /// What all keys begin with.
    pub prefix: Arc<str>,
    /// The names of the namespaces, by their indexes.
    pub namespaces: Arc<[Arc<str>]>,
    /// What is remembered of each client's messages.
    pub duplicates: Duplicates,
    /// Bytes of the largest message.
    pub message_bytes: usize,
    /// Whose rooms these are.
    pub shard: Rc<Shard>,
}

/// The rooms that are used here, and what was asked about them.
pub struct Redis {
    link: Link,
    prefix: Arc<str>,
    namespaces: Arc<[Arc<str>]>,
    duplicates: Duplicates,
    shard: Rc<Shard>,
    rooms: Slab<Room>,
    by_key: HashMap<RoomKey, usize>,
    by_channel: HashMap<Bytes, usize>,
    /// Calls that Redis has to answer, by their tickets, and how much the answer may be, where that is much. The link
    /// bounds their bytes.
    asked: Slab<(Asked, usize)>,
    /// Taken before anything else is looked at, so that they stay few.
    events: VecDeque<Event>,
    /// What waits until less is on its way to here.
    large: Large,
    /// Rooms with changes of what this node holds.
    dirty: Vec<At>,
    /// Rooms that were left while Redis may still have something of this node there.
    leftovers: VecDeque<RoomKey>,
    lives: Lives,
    standing: watch::Receiver<Standing>,
    /// Where the list of nodes lies.
    nodes_slot: u16,
    turns: Turns,
    next_number: u64,
}

/// A room that may be gone when somebody comes back to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    place: usize,
    generation: u64,
}

/// What a call was for.
enum Asked {
    Publish { ticket: u64, at: At },
    Read { ticket: u64, at: At, wanted: Wanted },
    Sync { at: At },
    Page { at: At },
    Fill { at: At, number: u64 },
    Check { at: At },
    Hold { at: At, key: RoomKey },
    Clear { key: RoomKey },
    Told,
}

/// What was to be read.
struct Wanted {
    /// The count that it was asked of.
    epoch: Arc<str>,
    after: u64,
    /// Messages, and not only whether there are any.
    some: bool,
}

impl Redis {
    /// A broker without rooms.
    pub fn new(parts: Parts) -> Redis {
        let Parts { link, live, standing, prefix, namespaces, duplicates, message_bytes, shard } = parts;
        Redis {
            link,
            nodes_slot: slot_of(format!("{prefix}:{{nodes}}").as_bytes()),
            prefix,
            namespaces,
            duplicates,
            shard,
            rooms: Slab::new(),
            by_key: HashMap::new(),
            by_channel: HashMap::new(),
            asked: Slab::new(),
            events: VecDeque::new(),
            large: Large::new(message_bytes),
            dirty: Vec::new(),
            leftovers: VecDeque::new(),
            lives: Lives::new(live),
            standing,
            turns: Turns::start(),
            next_number: 0,
        }
    }

    fn channel_of(&self, key: &RoomKey) -> Bytes {
        let namespace = &self.namespaces[usize::from(key.namespace.index)];
        format!("{}:{{{namespace}/{}}}", self.prefix, key.name).into()
    }

    fn keeping(&self) -> Keeping {
        Keeping::new(self.duplicates, self.rooms.len(), 2 * CHECKS_PER_TICK)
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn call(&mut self, asked: Asked, call: Call) {
        self.call_for(asked, 0, call);
    }

    /// Calls for an answer of about so many bytes.
    fn call_for(&mut self, asked: Asked, bytes: usize, call: Call) {
        self.large.comes(bytes);
        let ticket = self.asked.insert((asked, bytes)) as u64;
        self.link.call(ticket, call);
    }

    fn at(&self, key: &RoomKey) -> Option<At> {
        let place = *self.by_key.get(key)?;
        Some(At { place, generation: self.rooms.get(place)?.generation })
    }

    fn room(&mut self, at: At) -> Option<&mut Room> {
        self.rooms.get_mut(at.place).filter(|room| room.generation == at.generation)
    }

    /// A room that is open and whose Redis is reached.
    fn usable(&self, key: &RoomKey) -> Option<At> {
        let at = self.at(key)?;
        let room = &self.rooms[at.place];
        (room.count.is_some() && self.link.reaches(room.slot)).then_some(at)
    }

    /// The members of a room have lost their place; this is the one that is told last now.
    fn lost(&mut self, at: At, cause: PlacesLost, epoch: &str, offset: u64, told_at: u64) {
        let Some(room) = self.room(at) else { return };
        let count = Count::from(epoch, offset, told_at);
        let event = Event::Lost { room: room.key.clone(), position: count.position() };
        room.count = Some(count);
        room.filling = None;
        self.events.push_back(event);
        self.shard.metrics().places_lost(cause);
    }

    /// A room shows another epoch than was known, with this offset told last.
    fn broken(&mut self, at: At, epoch: &str, offset: u64) {
        self.lost(at, PlacesLost::Epoch, epoch, offset, 0);
        // What stood there of who is in the room may be gone as well.
        self.queue_sync(at);
    }

    /// A message has come. Whether it was one, and is told now or was before.
    fn arrived(&mut self, at: At, epoch: &str, entry: &Entry<'_>) -> bool {
        let Some(room) = self.room(at) else { return false };
        let Some(count) = &mut room.count else { return false };
        let arrival = count.arrival(epoch, entry.offset);
        match arrival {
            Arrival::Old => return true,
            Arrival::Early => {
                count.early = count.early.max(entry.offset);
                self.fill(at);
                return false;
            }
            Arrival::Next | Arrival::Foreign => (),
        }
        let Some((time, publication)) = entry.time().zip(wire::read_publication(entry.body)) else {
            self.turns.complain("a message");
            return false;
        };
        if arrival == Arrival::Foreign {
            self.broken(at, epoch, entry.offset - 1);
        }
        let Some(room) = self.room(at) else { return false };
        let Some(count) = &mut room.count else { return false };
        let position = count.tells(entry.at);
        let message = Message::new(&room.key.name, position, time, &publication);
        let room = room.key.clone();
        self.events.push_back(Event::Delivered { room, message });
        true
    }

    fn pushed(&mut self, channel: &[u8], payload: &[u8]) {
        let Some(&place) = self.by_channel.get(channel) else { return };
        let at = At { place, generation: self.rooms[place].generation };
        let Some(pushed) = wire::read_pushed(payload) else { return self.turns.complain("a push") };
        match pushed {
            Pushed::Message(epoch, entry) => {
                self.arrived(at, epoch, &entry);
            }
            Pushed::Presence(version, changes) => self.others_changed(at, version, changes),
            Pushed::Told(node, telling) => {
                if node != self.lives.own() {
                    let room = self.rooms[place].key.clone();
                    self.events.push_back(Event::Told { room, telling });
                }
            }
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Answered { ticket, answer } => {
                let asked = usize::try_from(ticket).ok().and_then(|ticket| self.asked.try_remove(ticket));
                if let Some((asked, bytes)) = asked {
                    self.large.has_come(bytes);
                    self.answered(asked, answer);
                }
                if self.asked.capacity() > 4096 && self.asked.is_empty() {
                    self.asked.shrink_to_fit();
                }
            }
            Report::Pushed { channel, payload } => self.pushed(&channel, &payload),
            Report::Up(slots) => {
                let lost: Vec<At> = self.places(|room| slots.contains(room.slot));
                for at in lost {
                    if let Some(room) = self.room(at) {
                        room.subscribed = false;
                    }
                    self.queue_sync(at);
                }
            }
            // Whatever was on its way is answered.
            Report::Down(_) => (),
        }
        // Whatever came of it is asked for, as far as it may be.
        self.ask_some();
    }

    fn places(&self, wanted: impl Fn(&Room) -> bool) -> Vec<At> {
        let wanted = self.rooms.iter().filter(|(_, room)| wanted(room));
        wanted.map(|(place, room)| At { place, generation: room.generation }).collect()
    }

    /// A room is used no more.
    fn remove(&mut self, at: At) {
        let Some(room) = self.room(at) else { return };
        let (key, channel, subscribed) = (room.key.clone(), room.channel.clone(), room.subscribed);
        self.rooms.remove(at.place);
        self.by_key.remove(&key);
        self.by_channel.remove(&channel);
        if subscribed {
            self.link.unsubscribe(&channel);
        }
        if self.by_key.capacity() > 4 * self.by_key.len().max(256) {
            self.by_key.shrink_to(2 * self.by_key.len());
            self.by_channel.shrink_to(2 * self.by_channel.len());
            self.rooms.shrink_to_fit();
        }
    }
}

impl Broker for Redis {
    fn open(&mut self, key: &RoomKey, rules: &Arc<Rules>) {
        if let Some(at) = self.at(key) {
            return self.opened(at);
        }
        let channel = self.channel_of(key);
        let slot = slot_of(&channel);
        let reached = self.link.reaches(slot);
        if !reached && !self.turns.is_starting() {
            return self.events.push_back(Event::Unavailable { room: key.clone() });
        }
        let generation = self.number();
        let place = self.rooms.insert(Room::new(key, rules, &channel, slot, generation));
        self.by_key.insert(key.clone(), place);
        self.by_channel.insert(channel, place);
        if reached {
            self.queue_sync(At { place, generation });
            self.ask_some();
        }
    }

    fn shut(&mut self, key: &RoomKey) {
        let Some(at) = self.at(key) else { return };
        self.lets_go(at);
        self.remove(at);
    }

    fn publish(&mut self, ticket: u64, key: &RoomKey, publication: Publication) {
        let Some(at) = self.usable(key) else { return self.events.push_back(Event::Refused { ticket }) };
        self.flush_room(at);
        let keeping = self.keeping();
        let Some(room) = self.room(at) else { return };
        let Some(seen) = room.seen() else { return };
        let call = scripts::publish(&room.channel, &seen, &room.rules.history, &keeping, &publication);
        self.call(Asked::Publish { ticket, at }, call);
    }

    fn read(&mut self, ticket: u64, key: &RoomKey, after: u64, batch: Batch) {
        let Some(at) = self.usable(key) else { return self.events.push_back(Event::Unread { ticket }) };
        let Some(room) = self.room(at) else { return };
        let Some(count) = &room.count else { return };
        let wanted = Wanted { epoch: count.epoch.clone(), after, some: batch.messages > 0 };
        self.queue_history(ticket, at, wanted, batch);
    }

    fn holds(&mut self, key: &RoomKey, client: &Arc<str>, held: Option<Held>) {
        let Some(at) = self.at(key).filter(|_| !key.is_everyone()) else { return };
        self.holds_now(at, client, held);
    }

    fn tell(&mut self, key: &RoomKey, telling: Telling) {
        let Some(at) = self.usable(key) else { return };
        self.flush_room(at);
        let told = wire::telling(self.lives.own(), &telling);
        let Some(room) = self.room(at) else { return };
        let call = scripts::tell(&room.channel, told.as_bytes());
        self.call(Asked::Told, call);
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(event);
            }
            match self.link.poll_report(cx) {
                Poll::Ready(report) => self.report(report),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) {
        self.turn(cx);
        self.flush_presence();
        self.link.flush();
    }
}

/// Whether a call may come to another end later.
fn is_passing(trouble: &Trouble) -> bool {
    match trouble {
        // `Report::Up` comes.
        Trouble::Away => false,
        Trouble::Full | Trouble::Refused(_) => true,
    }
}

#[cfg(test)]
pub(crate) mod tests;
