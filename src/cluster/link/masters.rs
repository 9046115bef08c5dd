//! The masters, and which slot lies where.
use super::connection::Connection;
use super::redis::{Fault, Talk};
use super::seek::Found;
use crate::cluster::slots::{SLOTS, Slots};
use crate::config::RedisServer;
use slab::Slab;
use std::collections::BTreeSet;
use std::pin::Pin;

/// Connecting to a master.
pub type Entering = Pin<Box<dyn Future<Output = Result<Talk, Fault>> + Send>>;

/// No master.
const NOWHERE: u16 = u16::MAX;

/// A master.
pub struct Master {
    pub server: RedisServer,
    /// What lies there, by the last map; nothing any more where only answers are awaited.
    pub slots: Slots,
    pub state: State,
}

/// How it is reached.
pub enum State {
    Entering(Entering),
    Ready(Box<Connection>),
    /// Not at all, until masters are sought again.
    Lost,
}

/// All of them.
pub struct Masters {
    all: Slab<Master>,
    /// By slot, the place of its master: by the map, but that one which is reached stays until the next is, too.
    owners: Box<[u16]>,
}

/// What another map of slots has changed.
#[derive(Default)]
pub struct Moved {
    /// Slots whose master is another one than before, and is reached.
    pub reached: Slots,
    /// Slots that were reached, and are not any more.
    pub unreached: Slots,
}

impl Masters {
    pub fn new() -> Masters {
        Masters { all: Slab::new(), owners: vec![NOWHERE; usize::from(SLOTS)].into() }
    }

    /// The place of a slot's master.
    pub fn owner(&self, slot: u16) -> Option<usize> {
        self.owners.get(usize::from(slot)).filter(|place| **place != NOWHERE).map(|place| usize::from(*place))
    }

    /// The connection to a slot's master.
    pub fn connection(&mut self, slot: u16) -> Option<&mut Connection> {
        let place = self.owner(slot)?;
        match &mut self.all.get_mut(place)?.state {
            State::Ready(connection) => Some(connection),
            State::Entering(_) | State::Lost => None,
        }
    }

    /// Whether a slot's master is reached.
    pub fn reaches(&self, slot: u16) -> bool {
        self.owner(slot).is_some_and(|place| self.is_ready(place as u16))
    }

    /// Whether every slot has a master by the map.
    pub fn cover_all(&self) -> bool {
        !self.owners.contains(&NOWHERE)
    }

    /// Whether masters are known, and all are reached.
    pub fn are_reached(&self) -> bool {
        !self.all.is_empty() && self.all.iter().all(|(_, master)| matches!(master.state, State::Ready(_)))
    }

    /// Whether the master that a slot has by the map is being connected to.
    pub fn is_entering(&self, slot: u16) -> bool {
        let mut entering = self.all.iter().filter(|(_, master)| matches!(master.state, State::Entering(_)));
        entering.any(|(_, master)| master.slots.contains(slot))
    }

    /// How many calls of a slot are on their way, to whichever master.
    pub fn on_their_way(&self, slot: u16) -> usize {
        self.connections()
            .map(|(_, connection)| connection.slots_called().filter(|called| *called == slot).count())
            .sum()
    }

    /// Slots of calls that are on their way to another master than the one of now.
    pub fn astray(&self) -> BTreeSet<u16> {
        let called = self.connections().flat_map(|(place, connection)| {
            connection.slots_called().filter(move |slot| self.owner(*slot) != Some(place))
        });
        called.collect()
    }

    fn connections(&self) -> impl Iterator<Item = (usize, &Connection)> {
        self.all.iter().filter_map(|(place, master)| match &master.state {
            State::Ready(connection) => Some((place, &**connection)),
            State::Entering(_) | State::Lost => None,
        })
    }

    pub fn get_mut(&mut self, place: usize) -> Option<&mut Master> {
        self.all.get_mut(place)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Master)> {
        self.all.iter_mut()
    }

    pub fn servers(&self) -> impl Iterator<Item = &RedisServer> {
        self.all.iter().map(|(_, master)| &master.server)
    }

    /// One more than the last place that is taken.
    pub fn places(&self) -> usize {
        self.all.iter().next_back().map_or(0, |(place, _)| place + 1)
    }

    /// Forgets those where nothing lies and nothing is awaited. Returns how many connections ended so.
    pub fn forget_idle(&mut self) -> usize {
        let mut ended = 0;
        let owners = &self.owners;
        self.all.retain(|place, master| {
            let kept = !master.slots.0.is_empty()
                || owners.iter().any(|owner| usize::from(*owner) == place)
                || matches!(&master.state, State::Ready(connection) if !connection.is_idle());
            ended += usize::from(!kept && matches!(master.state, State::Ready(_)));
            kept
        });
        ended
    }

    /// From now on these are the masters. Those that are not reached, or not connected to yet, are entered.
    pub fn set(&mut self, found: Found, enter: impl Fn(&RedisServer) -> Entering) -> Moved {
        let mut owners: Box<[u16]> = vec![NOWHERE; usize::from(SLOTS)].into();
        self.all.iter_mut().for_each(|(_, master)| master.slots = Slots::default());
        for (server, slots) in found.masters {
            let known = self.all.iter().find(|(_, master)| master.server == server).map(|(place, _)| place);
            let place = known.unwrap_or_else(|| {
                let state = State::Lost;
                self.all.insert(Master { server, slots: Slots::default(), state })
            });
            let Some(master) = self.all.get_mut(place) else { continue };
            if let State::Lost = master.state {
                master.state = State::Entering(enter(&master.server));
            }
            for (first, last) in &slots.0 {
                owners[usize::from(*first)..=usize::from(*last)].fill(place as u16);
            }
            master.slots = slots;
        }
        let mut moved = Moved::default();
        for slot in 0..SLOTS {
            let (before, now) = (self.owners[usize::from(slot)], owners[usize::from(slot)]);
            match (self.is_ready(before), self.is_ready(now)) {
                _ if before == now => continue,
                (_, true) => add(&mut moved.reached, slot),
                // It says itself that the slot lies elsewhere, and what it refuses waits.
                (true, false) if now != NOWHERE => continue,
                (true, false) => add(&mut moved.unreached, slot),
                (false, false) => {}
            }
            self.owners[usize::from(slot)] = now;
        }
        moved
    }

    /// A master is reached, or cannot be: its slots are its own now. Returns those that are not reached any more.
    pub fn assign(&mut self, place: usize) -> Slots {
        let mut unreached = Slots::default();
        let slots = self.all.get(place).map(|master| master.slots.clone()).unwrap_or_default();
        for slot in slots.0.iter().flat_map(|(first, last)| *first..=*last) {
            if self.is_ready(self.owners[usize::from(slot)]) && !self.is_ready(place as u16) {
                add(&mut unreached, slot);
            }
            self.owners[usize::from(slot)] = place as u16;
        }
        unreached
    }

    /// The slots whose calls go to this master.
    pub fn reached_by(&self, place: usize) -> Slots {
        let mut slots = Slots::default();
        let owned = (0..SLOTS).filter(|slot| usize::from(self.owners[usize::from(*slot)]) == place);
        owned.for_each(|slot| add(&mut slots, slot));
        slots
    }

    fn is_ready(&self, place: u16) -> bool {
        let master = self.all.get(usize::from(place));
        master.is_some_and(|master| matches!(master.state, State::Ready(_)))
    }
}

/// Adds a slot that is above all that are there.
pub fn add(slots: &mut Slots, slot: u16) {
    match slots.0.last_mut() {
        Some((_, last)) if last.checked_add(1) == Some(slot) => *last = slot,
        Some(_) | None => slots.0.push((slot, slot)),
    }
}
