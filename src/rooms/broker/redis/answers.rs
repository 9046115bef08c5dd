//! What Redis answers.
use super::presence::Scan;
use super::room::{Count, Syncing};
use super::{Asked, At, Redis, Wanted, is_passing, wire};
use crate::cluster::{Reply, Trouble};
use crate::metrics::PlacesLost;
use crate::rooms::broker::{Batch, Event, Message};
use crate::rooms::mail::Position;
use std::sync::Arc;
use wire::{Entry, read_epoch, read_number, read_page, read_publication};

/// What the script `read` answers: epoch, offset of the last message, offset of the oldest that is kept.
struct Found<'a> {
    epoch: &'a str,
    last: u64,
    oldest: Option<u64>,
    entries: &'a [Reply],
}

impl Found<'_> {
    fn entries(&self) -> impl Iterator<Item = Option<Entry<'_>>> {
        self.entries.chunks_exact(3).map(|entry| {
            let (offset, at) = (read_number(&entry[0])?, read_number(&entry[1])?);
            Some(Entry { offset, at, body: entry[2].bytes()? })
        })
    }
}

/// `Some(None)`: there is no count.
fn found(reply: &Reply) -> Option<Option<Found<'_>>> {
    match reply.list()? {
        [] => Some(None),
        [epoch, last, oldest, entries @ ..] => {
            let oldest = Some(read_number(oldest)?).filter(|oldest| *oldest > 0);
            Some(Some(Found { epoch: read_epoch(epoch)?, last: read_number(last)?, oldest, entries }))
        }
        _ => None,
    }
}

impl Redis {
    pub(super) fn answered(&mut self, asked: Asked, answer: Result<Reply, Trouble>) {
        if let Err(Trouble::Refused(error)) = &answer {
            self.turns.warn(error);
        }
        match asked {
            Asked::Publish { ticket, at } => self.published(ticket, at, answer),
            Asked::Read { ticket, at, wanted } if !wanted.some && self.lags_behind(at, &wanted, &answer) => {
                self.read_behind_the_gap(ticket, at, wanted);
            }
            Asked::Read { ticket, at, wanted } => {
                let event = self.was_read(ticket, at, &wanted, answer).unwrap_or(Event::Unread { ticket });
                self.events.push_back(event);
            }
            Asked::Sync { at } => self.synced(at, answer),
            Asked::Page { at } => self.paged(at, answer),
            Asked::Fill { at, number } => self.filled(at, number, answer),
            Asked::Check { at } => self.checked(at, answer),
            Asked::Hold { at, key } => {
                if let Err(trouble) = answer {
                    self.not_held(at, key, &trouble);
                }
            }
            Asked::Clear { key } => {
                if answer.is_err() {
                    self.leaves_over(key);
                }
            }
            Asked::Told => (),
        }
    }

    fn published(&mut self, ticket: u64, at: At, answer: Result<Reply, Trouble>) {
        let placed = answer.as_ref().ok().and_then(|reply| match reply.list()? {
            [epoch, offset, duplicate] => Some((read_epoch(epoch)?, read_number(offset)?, duplicate.int()? == 1))
                .filter(|(_, offset, _)| *offset > 0),
            _ => None,
        });
        let Some((epoch, offset, duplicate)) = placed else {
            return self.events.push_back(Event::Refused { ticket });
        };
        if !duplicate {
            self.has_place(at, epoch, offset);
        }
        let count = self.room(at).and_then(|room| room.count.as_ref());
        let epoch: Arc<str> =
            count.filter(|count| *count.epoch == *epoch).map_or_else(|| epoch.into(), |count| count.epoch.clone());
        let position = Position { epoch, offset };
        self.events.push_back(Event::Accepted { ticket, position, duplicate });
    }

    /// There is a message at this place, which may come at once, or was lost.
    fn has_place(&mut self, at: At, epoch: &str, offset: u64) {
        let count = self.room(at).and_then(|room| room.count.as_ref());
        if count.is_some_and(|count| *count.epoch != *epoch) {
            self.broken(at, epoch, offset - 1);
        }
        let Some(count) = self.room(at).and_then(|room| room.count.as_mut()) else { return };
        count.last = count.last.max(offset);
        if count.lacks() {
            self.suspect(at);
        }
    }

    fn was_read(&mut self, ticket: u64, at: At, wanted: &Wanted, answer: Result<Reply, Trouble>) -> Option<Event> {
        let reply = answer.ok()?;
        let found = found(&reply)?;
        let found = self.of_the_count(at, found)?;
        let Wanted { epoch, after, some } = wanted;
        // Of another count the offset says nothing.
        if **epoch != *found.epoch {
            return None;
        }
        let kept = found.oldest.is_some_and(|oldest| oldest <= after.saturating_add(1));
        let room = self.room(at)?.key.name.clone();
        let message = |entry: Option<Entry<'_>>| {
            let entry = entry?;
            let position = Position { epoch: epoch.clone(), offset: entry.offset };
            Some(Message::new(&room, position, entry.time()?, &read_publication(entry.body)?))
        };
        let mut next = *after;
        let in_order = |message: &Message| {
            next += 1;
            message.position.offset == next
        };
        let messages: Vec<Message> = found.entries().map_while(message).take_while(in_order).collect();
        let has_all = *after >= found.last || kept && (!some || !messages.is_empty());
        Some(Event::Read { ticket, messages: has_all.then_some(messages), oldest: found.oldest })
    }

    /// Whether somebody has seen more of a room, over another node, than was told here, and no more than there is.
    fn lags_behind(&mut self, at: At, wanted: &Wanted, answer: &Result<Reply, Trouble>) -> bool {
        let Some(Some(found)) = answer.as_ref().ok().and_then(found) else { return false };
        let count = self.room(at).and_then(|room| room.count.as_mut());
        let of_one = |count: &&mut Count| *count.epoch == *found.epoch && wanted.epoch == count.epoch;
        let Some(count) = count.filter(of_one) else { return false };
        let lags = (count.told + 1..=found.last).contains(&wanted.after);
        if lags {
            count.last = count.last.max(found.last);
        }
        lags
    }

    /// Asks again, behind what is to be told before.
    fn read_behind_the_gap(&mut self, ticket: u64, at: At, wanted: Wanted) {
        self.fill(at);
        self.queue_history(ticket, at, wanted, Batch { messages: 0, bytes: 0 });
    }

    /// What was found, where it is of the count that is known here; else that is looked into.
    fn of_the_count<'a>(&mut self, at: At, found: Option<Found<'a>>) -> Option<Found<'a>> {
        let count = self.room(at)?.count.as_ref()?;
        match found {
            Some(found) if *count.epoch != *found.epoch => {
                self.broken(at, found.epoch, found.last);
                None
            }
            Some(found) if found.last >= count.told => Some(found),
            Some(_) | None => {
                self.queue_sync(at);
                None
            }
        }
    }

    fn filled(&mut self, at: At, number: u64, answer: Result<Reply, Trouble>) {
        let Some(room) = self.room(at).filter(|room| room.filling == Some(number)) else { return };
        room.filling = None;
        let reply = match answer {
            Ok(reply) => reply,
            Err(trouble) => {
                if is_passing(&trouble) {
                    self.suspect(at);
                }
                return;
            }
        };
        let Some(found) = found(&reply) else {
            self.turns.complain("an answer");
            return self.suspect(at);
        };
        let Some(found) = self.of_the_count(at, found) else { return };
        let told =
            |redis: &mut Redis| redis.room(at).and_then(|room| room.count.as_ref()).map_or(0, |count| count.told);
        let before = told(self);
        for entry in found.entries().map_while(|entry| entry) {
            if entry.offset > told(self) + 1 || !self.arrived(at, found.epoch, &entry) {
                break;
            }
        }
        let after = told(self);
        self.shard.metrics().messages_filled(after - before);
        if after == before && after < found.last {
            return self.lost(at, PlacesLost::Gap, found.epoch, found.last, 0);
        }
        let Some(count) = self.room(at).and_then(|room| room.count.as_mut()) else { return };
        // Whatever came before this answer is counted in it.
        count.last = found.last.max(count.told);
        count.early = 0;
        if count.lacks() {
            self.fill(at);
        } else {
            self.shard.metrics().gap_filled();
        }
    }

    fn checked(&mut self, at: At, answer: Result<Reply, Trouble>) {
        let Ok(reply) = answer else { return };
        let stands = reply.list().and_then(|items| match items {
            [epoch, last, version] => Some((read_epoch(epoch)?, read_number(last)?, read_number(version)?)),
            _ => None,
        });
        // Else that tells more.
        let Some(room) = self.room(at).filter(|room| room.syncing == Syncing::No) else { return };
        let everyone = room.key.is_everyone();
        let Some(count) = &mut room.count else { return };
        match stands {
            Some((epoch, last, version))
                if *count.epoch == *epoch && last >= count.told && (version == room.version || everyone) =>
            {
                count.last = count.last.max(last);
                self.fill(at);
            }
            Some(_) | None => self.queue_sync(at),
        }
    }

    fn synced(&mut self, at: At, answer: Result<Reply, Trouble>) {
        let stands = answer.as_ref().map(|reply| match reply.list()? {
            [epoch, offset, told_at, page] => {
                Some((read_epoch(epoch)?, read_number(offset)?, read_number(told_at)?, read_page(page)?))
            }
            _ => None,
        });
        match stands {
            Ok(Some((epoch, offset, told_at, page))) => {
                self.stands(at, epoch, offset, told_at);
                if let Some(room) = self.room(at) {
                    room.scan = Some(Box::new(Scan::new(page.version)));
                }
                self.scanned(at, &page);
            }
            Ok(None) => {
                self.turns.complain("an answer");
                self.not_synced(at, true);
            }
            Err(trouble) => self.not_synced(at, is_passing(trouble)),
        }
    }

    /// Some more of who is there.
    fn paged(&mut self, at: At, answer: Result<Reply, Trouble>) {
        match answer.as_ref().map(read_page) {
            Ok(Some(page)) => self.scanned(at, &page),
            Ok(None) => {
                self.turns.complain("an answer");
                self.not_synced(at, true);
            }
            Err(trouble) => self.not_synced(at, is_passing(trouble)),
        }
    }

    /// All of how a room stands is known.
    pub(super) fn is_synced(&mut self, at: At) {
        let Some(room) = self.room(at) else { return };
        let is_new = std::mem::take(&mut room.is_new);
        self.sync_ended(at);
        if is_new {
            self.opened(at);
        }
        self.fill(at);
    }

    /// What was asked about how a room stands is answered, or will not be.
    pub(super) fn sync_ended(&mut self, at: At) {
        let Some(room) = self.room(at) else { return };
        room.scan = None;
        if std::mem::take(&mut room.syncing) == Syncing::AskedAgain {
            self.queue_sync(at);
        }
    }

    /// This is how the room stands, at least.
    fn stands(&mut self, at: At, epoch: &str, offset: u64, told_at: u64) {
        let Some(room) = self.room(at) else { return };
        match &mut room.count {
            None => room.count = Some(Count::from(epoch, offset, told_at)),
            Some(count) if *count.epoch == *epoch && offset >= count.told => {
                count.last = offset;
                count.early = 0;
                if offset == count.told {
                    count.told_at = told_at;
                }
            }
            Some(_) => self.lost(at, PlacesLost::Epoch, epoch, offset, told_at),
        }
    }

    pub(super) fn not_synced(&mut self, at: At, passing: bool) {
        let Some(room) = self.room(at) else { return };
        if room.is_new {
            let room = room.key.clone();
            self.remove(at);
            return self.events.push_back(Event::Unavailable { room });
        }
        if passing {
            self.turns.try_again(at);
        }
        self.sync_ended(at);
    }

    /// Says that a room is open, where it is.
    pub(super) fn opened(&mut self, at: At) {
        let Some(room) = self.room(at).filter(|room| !room.is_new) else { return };
        if let Some(count) = &room.count {
            let event = Event::Opened { room: room.key.clone(), position: count.position() };
            self.events.push_back(event);
        }
    }
}
