//! Who is banned, from a room or from the gateway.
//!
//! All bans of the configured namespaces are in memory, where checks find them; where there are none a check is one
//! relaxed load. A ban is written to the [`Store`] first, and comes into memory from the store's thread when it is on
//! the disk: so memory follows the order of the commits, also where two write about one client at once, or where one
//! who asked does not wait for the answer. Bans of namespaces that the configuration does not know stay in the store
//! until they end, and count there. Where there are several nodes, Redis is the store (`redis`).
mod redis;
mod table;
#[cfg(test)]
mod tests;

use crate::cluster::{Nodes, Script};
use crate::config::Namespace;
use crate::identity::is_client;
use crate::store::{BanKey, BanRow, BanWritten, Store, StoreError};
use jiff::Timestamp;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use table::{Place, Table};
use tokio::sync::{mpsc, oneshot};

/// What Redis is asked for bans.
pub const SCRIPTS: [&Script; 4] = [&redis::PUT, &redis::LIFT, &redis::RESTORE, &redis::PURGE];
/// Most bytes of a reason.
pub const REASON_MAX: usize = 256;
/// Bans that one sweep looks up to delete.
const SWEEP_MAX: usize = 1024;

/// Whether a ban may have this reason.
fn is_reason(text: &str) -> bool {
    text.len() <= REASON_MAX && !text.chars().any(char::is_control)
}

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Where it holds.
    pub namespace: Namespace,
    /// Who is banned: 1 to 128 bytes without controls.
    pub client: Arc<str>,
    /// The room, 1 to 128 bytes without controls; `None`: the gateway.
    pub room: Option<Arc<str>>,
    /// When it ends, to the µs; `None`: never.
    pub until: Option<Timestamp>,
    /// Why: at most [`REASON_MAX`] bytes without controls.
    pub reason: Option<Box<str>>,
    /// When it was made, to the µs.
    pub since: Timestamp,
}

/// Why a ban was not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BanError {
    /// A namespace that is not configured.
    Namespace,
    /// A client's name that cannot be one.
    Client,
    /// A room's name that cannot be one.
    Room,
    /// A reason that is too long, or has controls.
    Reason,
    /// There are [`crate::store::BANS_MAX`] already.
    TooMany,
    /// The store has too much to do now.
    Busy,
    /// The store failed.
    Store(StoreError),
    /// Redis is not reached. The ban may have been written nevertheless, and then all nodes find it.
    Away,
    /// Redis refused it, in these words.
    Refused(Box<str>),
}

/// All bans.
pub struct Bans {
    shared: Arc<Shared>,
    namespaces: Vec<Arc<str>>,
    keep: Keep,
}

/// Where bans are kept.
enum Keep {
    /// Nowhere but here.
    Memory,
    /// In the store of a folder.
    Store(Arc<Lazy>),
    /// In Redis, for all nodes.
    Redis(Arc<redis::Redis>),
}

/// A store that is opened for the first ban.
struct Lazy {
    folder: PathBuf,
    store: OnceLock<Store>,
    opening: Mutex<()>,
}

/// What the store's thread writes to as well.
struct Shared {
    /// Bans in the table.
    count: AtomicUsize,
    /// No ban ends before this Unix time in µs. Written with the table locked.
    next_end_us: AtomicI64,
    table: RwLock<Table>,
}

impl Ban {
    /// What a row says; `None` where no timestamp can hold its times: it cannot have come from a ban.
    fn new(namespace: Namespace, key: &BanKey, row: BanRow) -> Option<Ban> {
        Some(Ban {
            namespace,
            client: Arc::clone(&key.client),
            room: (!key.room.is_empty()).then(|| Arc::clone(&key.room)),
            until: row.until_us.map(Timestamp::from_microsecond).transpose().ok()?,
            reason: row.reason,
            since: Timestamp::from_microsecond(row.since_us).ok()?,
        })
    }

    fn place(&self) -> Place<'_> {
        Place { namespace: self.namespace, client: &self.client, room: self.room.as_deref().unwrap_or_default() }
    }

    fn row(&self) -> BanRow {
        BanRow {
            since_us: self.since.as_microsecond(),
            until_us: self.until.map(Timestamp::as_microsecond),
            reason: self.reason.clone(),
        }
    }
}

impl Bans {
    /// Reads the bans of the namespaces, each named by its place. The store is that of `folder`, open already where
    /// something else needs it; otherwise it is opened here if it exists, or else for the first ban, so that a gateway
    /// that bans nobody needs no folder that it may write. Waits for the disk.
    ///
    /// # Errors
    /// Where there is a store that cannot be used.
    pub fn load(folder: PathBuf, store: Option<Store>, namespaces: &[Arc<str>]) -> Result<Arc<Bans>, StoreError> {
        let store = match store {
            None if Store::exists(&folder) => Some(Store::open(&folder)?),
            store => store,
        };
        let shared = Shared::new();
        if let Some(store) = &store {
            for (key, row) in store.bans()? {
                if let Some(namespace) = Namespace::named(namespaces, &key.namespace) {
                    shared.put(namespace, &key, row);
                }
            }
        }
        let store = store.map(OnceLock::from).unwrap_or_default();
        let keep = Keep::Store(Arc::new(Lazy { folder, store, opening: Mutex::new(()) }));
        Ok(Arc::new(Bans { shared: Arc::new(shared), namespaces: namespaces.to_vec(), keep }))
    }

    /// Reads the bans that these nodes share, from the keys that begin with `prefix`.
    ///
    /// # Errors
    /// Where Redis does not give them, or refuses.
    pub async fn of_nodes(nodes: Arc<Nodes>, prefix: &str, namespaces: &[Arc<str>]) -> Result<Arc<Bans>, BanError> {
        let shared = Arc::new(Shared::new());
        let redis = redis::Redis::new(nodes, prefix, Arc::clone(&shared), namespaces);
        redis.begin().await?;
        Ok(Arc::new(Bans { shared, namespaces: namespaces.to_vec(), keep: Keep::Redis(redis) }))
    }

    /// Hears of what other nodes do, for as long as it is polled: to be run on the main thread. `late` is sent bans of which
    /// this node has not heard when they were made: nobody has ended the sessions here.
    pub async fn follow(&self, late: mpsc::Sender<Ban>) {
        match &self.keep {
            Keep::Redis(redis) => redis.follow(&late).await,
            Keep::Memory | Keep::Store(_) => std::future::pending().await,
        }
    }

    /// Bans that end with the process. For tests: namespaces of any index.
    pub fn in_memory() -> Arc<Bans> {
        let namespaces = vec![Arc::from(""); 1024];
        Arc::new(Bans { shared: Arc::new(Shared::new()), namespaces, keep: Keep::Memory })
    }

    /// The ban of a client from the gateway, if one holds now.
    pub fn from_gateway(&self, namespace: Namespace, client: &str) -> Option<Ban> {
        self.find(Place { namespace, client, room: "" })
    }

    /// The ban of a client from a room, if one holds now. One from the gateway does not count here.
    pub fn from_room(&self, namespace: Namespace, room: &str, client: &str) -> Option<Ban> {
        if room.is_empty() { None } else { self.find(Place { namespace, client, room }) }
    }

    fn find(&self, place: Place<'_>) -> Option<Ban> {
        if self.shared.count.load(Relaxed) == 0 {
            return None;
        }
        self.shared.read().get(place).filter(|ban| !has_ended(ban.until, Timestamp::now())).cloned()
    }

    /// Writes a ban, in place of an older one of this client and room. When it returns, the ban is on the disk, or in
    /// Redis, and checks find it. The ban is written also where nobody waits for it to the end.
    ///
    /// # Errors
    /// [`BanError`]; the older one holds.
    pub async fn put(&self, ban: Ban) -> Result<(), BanError> {
        let namespace = ban.namespace;
        let key = self.key(namespace, &ban.client, ban.room.as_deref())?;
        if ban.reason.as_deref().is_some_and(|reason| !is_reason(reason)) {
            return Err(BanError::Reason);
        }
        let row = ban.row();
        if let Keep::Redis(redis) = &self.keep {
            return redis.put(key, row).await;
        }
        let Some(store) = self.store().await? else {
            self.shared.put(namespace, &key, row);
            return Ok(());
        };
        let (shared, told, answer) = self.shared.for_thread();
        let (kept_key, kept_row) = (key.clone(), row.clone());
        let done = move |written: Result<BanWritten, StoreError>| {
            if written == Ok(BanWritten::Put) {
                shared.put(namespace, &kept_key, kept_row);
            }
            let _ = told.send(written);
        };
        store.put_ban(key, row, done).map_err(|_| BanError::Busy)?;
        match answer.await.unwrap_or(Err(StoreError::Ended))? {
            BanWritten::TooMany => Err(BanError::TooMany),
            BanWritten::Put | BanWritten::Lifted(_) => Ok(()),
        }
    }

    /// Ends a ban; `false`: none held. When it returns, that is on the disk and checks know it.
    ///
    /// # Errors
    /// [`BanError`]; the ban holds.
    pub async fn lift(&self, namespace: Namespace, client: &str, room: Option<&str>) -> Result<bool, BanError> {
        let key = self.key(namespace, client, room)?;
        let holds = |ban: Option<Ban>| ban.is_some_and(|b| !has_ended(b.until, Timestamp::now()));
        let store = match &self.keep {
            Keep::Memory => return Ok(holds(self.shared.remove(namespace, &key, None))),
            Keep::Redis(redis) => {
                let lifted = redis.lift(key.clone()).await?;
                return Ok(holds(lifted.and_then(|row| Ban::new(namespace, &key, row))));
            }
            // Without a store there is nothing to lift.
            Keep::Store(lazy) => lazy.store.get(),
        };
        let Some(store) = store else { return Ok(false) };
        let (shared, told, answer) = self.shared.for_thread();
        let kept_key = key.clone();
        let done = move |written: Result<BanWritten, StoreError>| {
            let before = written.is_ok().then(|| shared.remove(namespace, &kept_key, None)).flatten();
            let _ = told.send(written.map(|_| holds(before)));
        };
        store.lift_ban(key, None, done).map_err(|_| BanError::Busy)?;
        answer.await.unwrap_or(Err(StoreError::Ended)).map_err(BanError::Store)
    }

    /// Bans that hold now, in the order of clients, and for each the gateway and then rooms: at most `limit` after the
    /// given client and room; and whether there are more.
    pub fn list(&self, namespace: Namespace, after: Option<(&str, Option<&str>)>, limit: usize) -> (Vec<Ban>, bool) {
        let now = Timestamp::now();
        let table = self.shared.read();
        let mut holding = table.after(namespace, after).filter(|ban| !has_ended(ban.until, now));
        let bans = holding.by_ref().take(limit).cloned().collect();
        (bans, holding.next().is_some())
    }

    /// Closes the store. Waits for what was asked before, up to 5 s; no ban can be written afterwards.
    pub fn close(&self) {
        if let Keep::Store(lazy) = &self.keep
            && let Some(store) = lazy.store.get()
        {
            store.shutdown();
        }
    }

    /// Forgets some of the bans that have ended, also in the store; does not wait for that. To be called now and then.
    pub fn sweep(&self) {
        let now = Timestamp::now();
        let store = match &self.keep {
            Keep::Memory => None,
            Keep::Store(lazy) => lazy.store.get(),
            // It does so by itself.
            Keep::Redis(_) => return,
        };
        for ban in self.shared.ended_by(now) {
            let namespace = ban.namespace;
            let Ok(key) = self.key(namespace, &ban.client, ban.room.as_deref()) else { continue };
            let Some(store) = store else {
                self.shared.remove(namespace, &key, Some(now));
                continue;
            };
            let (shared, kept_key) = (Arc::clone(&self.shared), key.clone());
            let done = move |written: Result<BanWritten, StoreError>| {
                if written.is_ok() {
                    shared.remove(namespace, &kept_key, Some(now));
                }
            };
            // What finds the queue full is found again by the next sweep.
            if store.lift_ban(key, Some(now.as_microsecond()), done).is_err() {
                return;
            }
        }
    }

    fn key(&self, namespace: Namespace, client: &str, room: Option<&str>) -> Result<BanKey, BanError> {
        let name = self.namespaces.get(usize::from(namespace.index)).ok_or(BanError::Namespace)?;
        if !is_client(client) {
            return Err(BanError::Client);
        }
        // What may name a room is narrower still, and is judged by who calls.
        if !room.is_none_or(is_client) {
            return Err(BanError::Room);
        }
        Ok(BanKey { namespace: Arc::clone(name), client: client.into(), room: room.unwrap_or("").into() })
    }

    /// The store, opened if it is not; nothing: bans are kept in memory alone.
    async fn store(&self) -> Result<Option<Store>, BanError> {
        let lazy = match &self.keep {
            Keep::Memory | Keep::Redis(_) => return Ok(None),
            Keep::Store(lazy) => lazy,
        };
        if let Some(store) = lazy.store.get() {
            return Ok(Some(store.clone()));
        }
        let opening = Arc::clone(lazy);
        let opened = tokio::task::spawn_blocking(move || opening.open()).await;
        let store = opened.unwrap_or(Err(StoreError::Ended)).map_err(BanError::Store)?;
        Ok(Some(store))
    }
}

impl Lazy {
    fn open(&self) -> Result<Store, StoreError> {
        let _one_opens = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = self.store.get() {
            return Ok(store.clone());
        }
        let store = Store::open(&self.folder)?;
        Ok(self.store.get_or_init(|| store).clone())
    }
}

impl Shared {
    fn new() -> Shared {
        let (count, next_end_us) = (AtomicUsize::new(0), AtomicI64::new(i64::MAX));
        Shared { count, next_end_us, table: RwLock::default() }
    }

    /// For a write: this, and the way of its answer.
    fn for_thread<T>(self: &Arc<Shared>) -> (Arc<Shared>, oneshot::Sender<T>, oneshot::Receiver<T>) {
        let (told, answer) = oneshot::channel();
        (Arc::clone(self), told, answer)
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// A row that cannot have come from a ban is left out.
    fn put(&self, namespace: Namespace, key: &BanKey, row: BanRow) {
        let until_us = row.until_us;
        let Some(ban) = Ban::new(namespace, key, row) else { return };
        let mut table = self.write();
        table.put(ban);
        self.next_end_us.fetch_min(until_us.unwrap_or(i64::MAX), Relaxed);
        self.count.store(table.len(), Relaxed);
    }

    /// Holds these bans instead of all others, which are returned.
    fn replace(&self, bans: Table) -> Table {
        let mut table = self.write();
        let before = std::mem::replace(&mut *table, bans);
        // What has ended is looked for anew.
        self.next_end_us.store(0, Relaxed);
        self.count.store(table.len(), Relaxed);
        before
    }

    /// Removes a ban; with `ended_by` only one that has ended by then.
    fn remove(&self, namespace: Namespace, key: &BanKey, ended_by: Option<Timestamp>) -> Option<Ban> {
        let mut table = self.write();
        let place = Place { namespace, client: &key.client, room: &key.room };
        let ban = table.get(place)?;
        if ended_by.is_some_and(|now| !has_ended(ban.until, now)) {
            return None;
        }
        let removed = table.remove(place);
        self.count.store(table.len(), Relaxed);
        removed
    }

    /// Some of the bans that have ended.
    fn ended_by(&self, now: Timestamp) -> Vec<Ban> {
        if self.len() == 0 || self.next_end_us.load(Relaxed) > now.as_microsecond() {
            return Vec::new();
        }
        let table = self.read();
        let mut ended = Vec::new();
        let mut next = i64::MAX;
        for ban in table.all() {
            match ban.until {
                Some(until) if until <= now => ended.push(ban.clone()),
                Some(until) => next = next.min(until.as_microsecond()),
                None => {}
            }
            if ended.len() == SWEEP_MAX {
                break;
            }
        }
        // What has ended stands in the table until it is gone from the store too; only then is there nothing to do.
        if ended.is_empty() {
            self.next_end_us.store(next, Relaxed);
        }
        ended
    }
}

fn has_ended(until: Option<Timestamp>, now: Timestamp) -> bool {
    until.is_some_and(|until| until <= now)
}

impl From<StoreError> for BanError {
    fn from(error: StoreError) -> BanError {
        BanError::Store(error)
    }
}

impl fmt::Display for BanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BanError::Namespace => f.write_str("there is no such namespace"),
            BanError::Client => f.write_str("a client's name is 1 to 128 bytes without control characters"),
            BanError::Room => f.write_str("a room's name is 1 to 128 bytes without control characters"),
            BanError::Reason => f.write_str("a reason is at most 256 bytes without control characters"),
            BanError::TooMany => f.write_str("there are too many bans"),
            BanError::Busy => f.write_str("the store has too much to do"),
            BanError::Store(error) => error.fmt(f),
            BanError::Away => f.write_str("Redis is not reached"),
            BanError::Refused(error) => write!(f, "Redis refused it: {error}"),
        }
    }
}

impl std::error::Error for BanError {}
