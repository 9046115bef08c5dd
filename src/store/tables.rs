//! What stands in the file, and what each request does to it within a transaction.
use super::queue::{Outcome, Request};
use super::{Append, BANS_MAX, BanKey, BanRow, BanWritten, Ended, Loaded, ROOMS_MAX, Record, RoomName};
use bytes::Bytes;
use redb::{
    Database, Durability, Error, ReadableTable as _, ReadableTableMetadata as _, Table, TableDefinition,
    WriteTransaction,
};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// What the tables mean; another version of the gateway may mean something else.
const FORMAT: u64 = 1;
/// Rooms or bans that one slice of a purge looks at, and rooms that it deletes.
const PURGE_LOOKS: usize = 4096;
const PURGE_DELETES: usize = 256;
/// Records, and bytes of their texts, that one slice deletes: what waits for the store waits for a slice at most.
const PURGE_RECORDS: usize = 4096;
const PURGE_BYTES: usize = 8 << 20;
const DAY_MS: i64 = 86_400_000;

/// Namespace and room.
type RoomPlace = (&'static str, &'static str);
/// Number, epoch, offset, time of the last message, age; times in ms.
type RoomValue = (u64, &'static str, u64, i64, u64);
/// Number of the room, offset.
type RecordPlace = (u64, u64);
/// Time in ms, sender, `message_id`, text.
type RecordValue = (i64, Option<&'static str>, &'static str, &'static [u8]);
/// Namespace, client, room (empty: the gateway).
type BanPlace = (&'static str, &'static str, &'static str);
/// Since and until in µs, reason.
type BanValue = (i64, Option<i64>, Option<&'static str>);

/// `format`; `closed`: the last user closed the file; `room`: the last number that a room got.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const ROOMS: TableDefinition<RoomPlace, RoomValue> = TableDefinition::new("rooms");
const RECORDS: TableDefinition<RecordPlace, RecordValue> = TableDefinition::new("records");
const BANS: TableDefinition<BanPlace, BanValue> = TableDefinition::new("bans");

/// What is stored of a room, but for its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    number: u64,
    epoch: Arc<str>,
    offset: u64,
    last_at_ms: i64,
    age_ms: u64,
}

/// What stood in the places that a transaction wrote to. Where its commit fails it may nevertheless be in the file, and
/// is taken back by this.
#[derive(Debug, Default)]
pub(super) struct Undo {
    rooms: HashMap<RoomName, Option<Row>>,
    bans: HashMap<BanKey, Option<BanRow>>,
}

/// Where a purge goes on: after this room, and when those are done, after this ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cursor {
    Rooms(Option<(String, String)>),
    Bans(Option<(String, String, String)>),
}

/// What a slice of a purge may still delete.
struct Slice {
    records: usize,
    bytes: usize,
}

/// The tables within one transaction.
pub(super) struct Tables<'t> {
    meta: Table<'t, &'static str, u64>,
    rooms: Table<'t, RoomPlace, RoomValue>,
    records: Table<'t, RecordPlace, RecordValue>,
    bans: Table<'t, BanPlace, BanValue>,
    /// [`ROOMS_MAX`], but in tests.
    pub rooms_max: u64,
    /// Whether anything was written.
    changed: bool,
}

/// Does something in a transaction, and commits it to the disk where something was written; what it gave, and whether
/// that was so.
pub(super) fn transact<T>(
    database: &Database,
    work: impl FnOnce(&mut Tables<'_>) -> Result<T, Error>,
) -> Result<(T, bool), Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    let (result, changed) = {
        let mut tables = Tables::of(&transaction)?;
        (work(&mut tables)?, tables.changed)
    };
    if changed {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok((result, changed))
}

/// Makes the tables where they are missing, and takes note that the file is in use.
pub(super) fn begin(database: &Database) -> Result<Ended, Error> {
    let begun = transact(database, |tables| {
        let format = tables.meta.get("format")?.map(|f| f.value());
        match format {
            Some(FORMAT) => {}
            Some(other) => {
                return Err(Error::Corrupted(format!("it has format {other}, and this gateway reads {FORMAT}")));
            }
            None if tables.is_empty()? => {
                tables.meta.insert("format", FORMAT)?;
                tables.meta.insert("closed", 1)?;
            }
            None => return Err(Error::Corrupted("it has no format".to_owned())),
        }
        tables.changed = true;
        let closed = tables.meta.remove("closed")?.is_some();
        Ok(if closed { Ended::Cleanly } else { Ended::Uncleanly })
    });
    begun.map(|(ended, _)| ended)
}

/// Takes note that the file is left.
pub(super) fn end(database: &Database) -> Result<(), Error> {
    let ended = transact(database, |tables| {
        tables.meta.insert("closed", 1)?;
        tables.changed = true;
        Ok(())
    });
    ended.map(|_| ())
}

impl<'t> Tables<'t> {
    fn of(transaction: &'t WriteTransaction) -> Result<Tables<'t>, Error> {
        Ok(Tables {
            meta: transaction.open_table(META)?,
            rooms: transaction.open_table(ROOMS)?,
            records: transaction.open_table(RECORDS)?,
            bans: transaction.open_table(BANS)?,
            rooms_max: ROOMS_MAX,
            changed: false,
        })
    }

    fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.meta.is_empty()? && self.rooms.is_empty()? && self.records.is_empty()? && self.bans.is_empty()?)
    }

    /// Does what is asked, and notes in `undo` what stood there before.
    pub fn apply(&mut self, request: &Request, undo: &mut Undo) -> Result<Outcome, Error> {
        Ok(match request {
            Request::Load { room, .. } => Outcome::Loaded(self.load(room)?),
            Request::Append { append, .. } => Outcome::Done(self.append(append, undo)?),
            Request::Forget { room, .. } => {
                self.forget(room, undo)?;
                Outcome::Done(true)
            }
            Request::PutBan { key, row, .. } => Outcome::Ban(self.put_ban(key, row, undo)?),
            Request::LiftBan { key, ended_by, .. } => Outcome::Ban(self.lift_ban(key, *ended_by, undo)?),
            Request::Bans { .. } => Outcome::Bans(self.all_bans()?),
            Request::Close(_) => Outcome::Done(true),
        })
    }

    fn row(&self, room: &RoomName) -> Result<Option<Row>, Error> {
        let found = self.rooms.get((&*room.namespace, &*room.room))?;
        Ok(found.map(|row| {
            let (number, epoch, offset, last_at_ms, age_ms) = row.value();
            Row { number, epoch: epoch.into(), offset, last_at_ms, age_ms }
        }))
    }

    fn set_row(&mut self, room: &RoomName, row: &Row) -> Result<(), Error> {
        let value = (row.number, &*row.epoch, row.offset, row.last_at_ms, row.age_ms);
        self.rooms.insert((&*room.namespace, &*room.room), value)?;
        self.changed = true;
        Ok(())
    }

    /// Deletes the records of a room from one offset to before another.
    fn drop_records(&mut self, number: u64, from: u64, before: Bound<u64>) -> Result<(), Error> {
        let end = before.map(|offset| (number, offset));
        self.records.retain_in((Bound::Included((number, from)), end), |_, _| false)?;
        self.changed = true;
        Ok(())
    }

    fn drop_all_records(&mut self, number: u64) -> Result<(), Error> {
        self.drop_records(number, 0, Bound::Included(u64::MAX))
    }

    fn load(&self, room: &RoomName) -> Result<Option<Loaded>, Error> {
        let Some(row) = self.row(room)? else { return Ok(None) };
        let mut records = VecDeque::new();
        let mut expected = row.offset;
        // From the last one backwards: what is behind a gap would not be history.
        for entry in self.records.range((row.number, 0)..=(row.number, row.offset))?.rev() {
            let (key, value) = entry?;
            let (_, offset) = key.value();
            if offset != expected {
                break;
            }
            expected = expected.saturating_sub(1);
            let (at_ms, sender, message_id, text) = value.value();
            records.push_front(Record {
                offset,
                at_ms,
                sender: sender.map(Arc::from),
                message_id: message_id.into(),
                text: Bytes::copy_from_slice(text),
            });
        }
        Ok(Some(Loaded { epoch: row.epoch, offset: row.offset, records: records.into() }))
    }

    fn append(&mut self, append: &Append, undo: &mut Undo) -> Result<bool, Error> {
        let Append { room, epoch, record, keep_from, acknowledged, age } = append;
        let before = self.row(room)?;
        let same = before.as_ref().filter(|row| row.epoch == *epoch);
        let last = same.map_or(*acknowledged, |row| row.offset);
        if last.checked_add(1) != Some(record.offset) || (before.is_none() && self.rooms.len()? >= self.rooms_max) {
            return Ok(false);
        }
        let restarts = same.is_none();
        let number = match &before {
            Some(row) => row.number,
            None => self.next_number()?,
        };
        undo.rooms.entry(room.clone()).or_insert(before);
        if restarts {
            self.drop_all_records(number)?;
        }
        let sender = record.sender.as_deref();
        self.records.insert((number, record.offset), (record.at_ms, sender, &*record.message_id, &*record.text))?;
        if *keep_from > 0 {
            self.drop_records(number, 0, Bound::Excluded(*keep_from))?;
        }
        let age_ms = age.as_millis().try_into().unwrap_or(u64::MAX);
        let row = Row { number, epoch: Arc::clone(epoch), offset: record.offset, last_at_ms: record.at_ms, age_ms };
        self.set_row(room, &row)?;
        Ok(true)
    }

    fn next_number(&mut self) -> Result<u64, Error> {
        let last = self.meta.get("room")?.map_or(0, |n| n.value());
        let next = last.checked_add(1).ok_or_else(|| Error::Corrupted("rooms have run out of numbers".to_owned()))?;
        self.meta.insert("room", next)?;
        Ok(next)
    }

    fn forget(&mut self, room: &RoomName, undo: &mut Undo) -> Result<(), Error> {
        if let Some(row) = self.row(room)? {
            self.drop_all_records(row.number)?;
            self.rooms.remove((&*room.namespace, &*room.room))?;
            undo.rooms.entry(room.clone()).or_insert(Some(row));
        }
        Ok(())
    }

    /// A slice of a purge: deletes rooms that have been silent for too long, and bans that have ended, also those of
    /// namespaces that nobody knows any more. Where it has come to, if there is more.
    pub fn purge(&mut self, from: &Cursor, now_ms: i64) -> Result<Option<Cursor>, Error> {
        match from {
            Cursor::Rooms(after) => self.purge_rooms(after.clone(), now_ms).map(Some),
            Cursor::Bans(after) => self.purge_bans(after.as_ref(), now_ms),
        }
    }

    fn purge_rooms(&mut self, after: Option<(String, String)>, now_ms: i64) -> Result<Cursor, Error> {
        let start = match &after {
            Some((namespace, room)) => Bound::Excluded((namespace.as_str(), room.as_str())),
            None => Bound::Unbounded,
        };
        let mut gone: Vec<((String, String), u64)> = Vec::new();
        let mut reached = Cursor::Bans(None);
        for (looked, entry) in self.rooms.range((start, Bound::Unbounded))?.enumerate() {
            let (key, value) = entry?;
            let (number, _, _, last_at_ms, age_ms) = value.value();
            let name = || (key.value().0.to_owned(), key.value().1.to_owned());
            if is_over(last_at_ms, Duration::from_millis(age_ms), now_ms) {
                gone.push((name(), number));
            }
            if looked + 1 == PURGE_LOOKS || gone.len() == PURGE_DELETES {
                reached = Cursor::Rooms(Some(name()));
                break;
            }
        }
        let mut slice = Slice { records: PURGE_RECORDS, bytes: PURGE_BYTES };
        let mut done = after;
        for (name, number) in gone {
            if !self.drop_slice(number, &mut slice)? {
                // What is left of its history has no gap, and is looked at again.
                return Ok(Cursor::Rooms(done));
            }
            self.rooms.remove((name.0.as_str(), name.1.as_str()))?;
            done = Some(name);
        }
        Ok(reached)
    }

    /// Deletes the first records of a room, as many as the slice may; whether it was all of them.
    fn drop_slice(&mut self, number: u64, slice: &mut Slice) -> Result<bool, Error> {
        let mut kept_from = None;
        for entry in self.records.range((number, 0)..=(number, u64::MAX))? {
            let (key, value) = entry?;
            if slice.records == 0 || slice.bytes == 0 {
                kept_from = Some(key.value().1);
                break;
            }
            slice.records -= 1;
            slice.bytes = slice.bytes.saturating_sub(value.value().3.len());
        }
        self.drop_records(number, 0, kept_from.map_or(Bound::Included(u64::MAX), Bound::Excluded))?;
        Ok(kept_from.is_none())
    }

    fn purge_bans(&mut self, after: Option<&(String, String, String)>, now_ms: i64) -> Result<Option<Cursor>, Error> {
        let start = match after {
            Some((namespace, client, room)) => Bound::Excluded((namespace.as_str(), client.as_str(), room.as_str())),
            None => Bound::Unbounded,
        };
        let now_us = now_ms.saturating_mul(1000);
        let mut ended = Vec::new();
        let mut reached = None;
        for (looked, entry) in self.bans.range((start, Bound::Unbounded))?.enumerate() {
            let (key, value) = entry?;
            let place = || (key.value().0.to_owned(), key.value().1.to_owned(), key.value().2.to_owned());
            if value.value().1.is_some_and(|until_us| until_us <= now_us) {
                ended.push(place());
            }
            if looked + 1 == PURGE_LOOKS {
                reached = Some(Cursor::Bans(Some(place())));
                break;
            }
        }
        for (namespace, client, room) in ended {
            self.bans.remove((namespace.as_str(), client.as_str(), room.as_str()))?;
            self.changed = true;
        }
        Ok(reached)
    }

    fn ban(&self, key: &BanKey) -> Result<Option<BanRow>, Error> {
        let found = self.bans.get(place(key))?;
        Ok(found.map(|row| ban_row(row.value())))
    }

    fn put_ban(&mut self, key: &BanKey, row: &BanRow, undo: &mut Undo) -> Result<BanWritten, Error> {
        let before = self.ban(key)?;
        if before.is_none() && self.bans.len()? >= BANS_MAX {
            return Ok(BanWritten::TooMany);
        }
        undo.bans.entry(key.clone()).or_insert(before);
        self.set_ban(key, row)?;
        Ok(BanWritten::Put)
    }

    fn set_ban(&mut self, key: &BanKey, row: &BanRow) -> Result<(), Error> {
        self.bans.insert(place(key), (row.since_us, row.until_us, row.reason.as_deref()))?;
        self.changed = true;
        Ok(())
    }

    fn lift_ban(&mut self, key: &BanKey, ended_by: Option<i64>, undo: &mut Undo) -> Result<BanWritten, Error> {
        let Some(before) = self.ban(key)? else { return Ok(BanWritten::Lifted(false)) };
        if ended_by.is_some_and(|now| before.until_us.is_none_or(|until| until > now)) {
            return Ok(BanWritten::Lifted(false));
        }
        undo.bans.entry(key.clone()).or_insert(Some(before));
        self.bans.remove(place(key))?;
        self.changed = true;
        Ok(BanWritten::Lifted(true))
    }

    fn all_bans(&self) -> Result<Vec<(BanKey, BanRow)>, Error> {
        let mut found = Vec::new();
        let mut names: BTreeMap<Box<str>, Arc<str>> = BTreeMap::new();
        for entry in self.bans.iter()? {
            let (key, value) = entry?;
            let (namespace, client, room) = key.value();
            let namespace = Arc::clone(names.entry(namespace.into()).or_insert_with(|| namespace.into()));
            found.push((BanKey { namespace, client: client.into(), room: room.into() }, ban_row(value.value())));
        }
        Ok(found)
    }

    /// Takes back a transaction whose commit failed, whether or not it is in the file.
    pub fn take_back(&mut self, undo: &Undo) -> Result<(), Error> {
        for (room, before) in &undo.rooms {
            let now = self.row(room)?;
            if now == *before {
                continue;
            }
            match (&now, before) {
                (Some(now), Some(before)) if now.number == before.number && now.epoch == before.epoch => {
                    let newer = before.offset.saturating_add(1);
                    self.drop_records(now.number, newer, Bound::Included(u64::MAX))?;
                }
                (Some(now), _) => self.drop_all_records(now.number)?,
                (None, _) => {}
            }
            match before {
                Some(before) => self.set_row(room, before)?,
                None => {
                    self.rooms.remove((&*room.namespace, &*room.room))?;
                    self.changed = true;
                }
            }
        }
        for (key, before) in &undo.bans {
            match before {
                Some(before) => self.set_ban(key, before)?,
                None => {
                    self.bans.remove(place(key))?;
                    self.changed = true;
                }
            }
        }
        Ok(())
    }
}

impl Undo {
    /// Adds what a later transaction found.
    pub fn merge(&mut self, later: Undo) {
        for (room, row) in later.rooms {
            self.rooms.entry(room).or_insert(row);
        }
        for (key, row) in later.bans {
            self.bans.entry(key).or_insert(row);
        }
    }
}

fn place(key: &BanKey) -> (&str, &str, &str) {
    (&key.namespace, &key.client, &key.room)
}

fn ban_row((since_us, until_us, reason): (i64, Option<i64>, Option<&str>)) -> BanRow {
    BanRow { since_us, until_us, reason: reason.map(Box::from) }
}

/// Whether a room is to be purged: twice its age and a day have passed since its last message.
fn is_over(last_at_ms: i64, age: Duration, now_ms: i64) -> bool {
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    now_ms > last_at_ms.saturating_add(age_ms.saturating_mul(2)).saturating_add(DAY_MS)
}
