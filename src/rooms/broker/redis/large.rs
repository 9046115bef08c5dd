//! What is asked of Redis whose answer may be large: only so much of that is on its way to here at once. Redis ends a
//! connection with subscriptions whose answers pile up (`client-output-buffer-limit pubsub`, 32 MiB), and everything on
//! its way would be asked for again, for ever.
use super::room::{Count, Room, Syncing};
use super::{Asked, At, FILL, Redis, Wanted, scripts};
use crate::config::Rules;
use crate::rooms::broker::{Batch, Event};
use std::collections::VecDeque;

/// Bytes of answers that are on their way at once, about; one answer may be more.
const ANSWERS_BYTES_MAX: usize = 8 << 20;
/// Bytes of a page of a presence, where all its names are long.
const PAGE_BYTES: usize = scripts::PAGE_FIELDS * 288;
/// Bytes of an answer without messages.
const BARE_BYTES: usize = 256;
/// Readings of histories that wait.
const READINGS_MAX: usize = 65_536;

/// What waits, and how much is on its way.
pub struct Large {
    expected: usize,
    /// Rooms that are to be asked for how they stand.
    syncs: VecDeque<At>,
    /// Everything else, in the order in which it is to be answered.
    reads: VecDeque<(Reading, usize)>,
    /// How many of those are of histories.
    readings: usize,
    /// Neither waits for all of the other.
    sync_was_last: bool,
    message_bytes: usize,
}

/// What is to be read.
pub enum Reading {
    /// How a room stands.
    Sync(At),
    /// The rest of who is there, from this place on.
    Page(At, u64),
    /// Messages that are missing, by the number of the fill.
    Fill(At, u64),
    /// A history.
    History { ticket: u64, at: At, wanted: Wanted, batch: Batch },
}

impl Large {
    /// Nothing waits. Messages are at most of so many bytes.
    pub fn new(message_bytes: usize) -> Large {
        Large {
            expected: 0,
            syncs: VecDeque::new(),
            reads: VecDeque::new(),
            readings: 0,
            sync_was_last: false,
            message_bytes,
        }
    }

    pub fn sync(&mut self, at: At) {
        self.syncs.push_back(at);
    }

    pub fn page(&mut self, at: At, place: u64) {
        self.reads.push_back((Reading::Page(at, place), PAGE_BYTES));
    }

    pub fn fill(&mut self, at: At, number: u64) {
        self.reads.push_back((Reading::Fill(at, number), FILL.bytes.saturating_add(self.message_bytes)));
    }

    /// Whether there was room for it.
    pub fn history(&mut self, ticket: u64, at: At, wanted: Wanted, batch: Batch, rules: &Rules) -> bool {
        let fits = self.readings < READINGS_MAX;
        if fits {
            let most = batch.bytes.min(scripts::READ_BYTES_MAX).min(rules.history.bytes);
            let bytes = if wanted.some { most.saturating_add(self.message_bytes) } else { BARE_BYTES };
            self.readings += 1;
            self.reads.push_back((Reading::History { ticket, at, wanted, batch }, bytes));
        }
        fits
    }

    /// An answer of so many bytes is on its way.
    pub fn comes(&mut self, bytes: usize) {
        self.expected = self.expected.saturating_add(bytes);
    }

    /// It is here, or does not come.
    pub fn has_come(&mut self, bytes: usize) {
        self.expected = self.expected.saturating_sub(bytes);
    }

    /// What may be asked for now.
    fn next(&mut self) -> Option<(Reading, usize)> {
        let syncs = !self.syncs.is_empty() && (self.reads.is_empty() || !self.sync_was_last);
        let bytes = if syncs { PAGE_BYTES } else { self.reads.front()?.1 };
        if self.expected > 0 && self.expected.saturating_add(bytes) > ANSWERS_BYTES_MAX {
            return None;
        }
        self.sync_was_last = syncs;
        if syncs {
            return self.syncs.pop_front().map(|at| (Reading::Sync(at), bytes));
        }
        let next = self.reads.pop_front();
        if let Some((Reading::History { .. }, _)) = next {
            self.readings -= 1;
        }
        if self.reads.is_empty() && self.reads.capacity() > 4096 {
            self.reads.shrink_to_fit();
        }
        next
    }
}

impl Redis {
    /// Asks for as much as may be on its way at once.
    pub(super) fn ask_some(&mut self) {
        while let Some((reading, bytes)) = self.large.next() {
            match reading {
                Reading::Sync(at) => self.sync(at, bytes),
                Reading::Page(at, place) => self.read_page(at, place, bytes),
                Reading::Fill(at, number) => self.read_missing(at, number, bytes),
                Reading::History { ticket, at, wanted, batch } => self.read_history(ticket, at, wanted, batch, bytes),
            }
        }
    }

    /// Has the room asked for how it stands, after what was asked before now.
    pub(super) fn queue_sync(&mut self, at: At) {
        let Some(room) = self.room(at) else { return };
        match room.syncing {
            Syncing::No => {
                room.syncing = Syncing::Queued;
                self.large.sync(at);
            }
            Syncing::Asked => room.syncing = Syncing::AskedAgain,
            Syncing::Queued | Syncing::AskedAgain => (),
        }
    }

    fn sync(&mut self, at: At, bytes: usize) {
        let keeping = self.keeping();
        let Some(room) = self.room(at).filter(|room| room.syncing == Syncing::Queued) else { return };
        room.syncing = Syncing::Asked;
        let call = scripts::sync(&room.channel, room.seen().as_ref(), &room.rules.history, &keeping);
        if !std::mem::replace(&mut room.subscribed, true) {
            let channel = room.channel.clone();
            self.link.subscribe(&channel);
        }
        self.call_for(Asked::Sync { at }, bytes, call);
    }

    fn read_page(&mut self, at: At, place: u64, bytes: usize) {
        let Some(room) = self.room(at) else { return };
        let call = scripts::page(&room.channel, place);
        self.call_for(Asked::Page { at }, bytes, call);
    }

    /// Reads the messages that are missing. Not before it is known how the room stands: they may be of a Redis that lacks
    /// some of those that were told.
    pub(super) fn fill(&mut self, at: At) {
        let number = self.number();
        let may = |room: &&mut Room| room.filling.is_none() && room.syncing == Syncing::No;
        let Some(room) = self.room(at).filter(may) else { return };
        if room.count.as_ref().is_some_and(Count::lacks) {
            room.filling = Some(number);
            self.large.fill(at, number);
        }
    }

    fn read_missing(&mut self, at: At, number: u64, bytes: usize) {
        let Some(room) = self.room(at).filter(|room| room.filling == Some(number)) else { return };
        let syncing = room.syncing != Syncing::No;
        let Some(count) = room.count.as_ref().filter(|count| count.lacks() && !syncing) else {
            // They have come meanwhile, or are read when it is known how the room stands.
            room.filling = None;
            return;
        };
        let call = scripts::read(&room.channel, count.told, FILL, &room.rules.history);
        self.call_for(Asked::Fill { at, number }, bytes, call);
    }

    /// Has a history read behind what is to be read before.
    pub(super) fn queue_history(&mut self, ticket: u64, at: At, wanted: Wanted, batch: Batch) {
        let rules = self.room(at).map(|room| room.rules.clone());
        if rules.is_some_and(|rules| self.large.history(ticket, at, wanted, batch, &rules)) {
            self.ask_some();
        } else {
            self.events.push_back(Event::Unread { ticket });
        }
    }

    fn read_history(&mut self, ticket: u64, at: At, wanted: Wanted, batch: Batch, bytes: usize) {
        let Some(room) = self.room(at) else { return self.events.push_back(Event::Unread { ticket }) };
        let call = scripts::read(&room.channel, wanted.after, batch, &room.rules.history);
        self.call_for(Asked::Read { ticket, at, wanted }, bytes, call);
    }
}
