//! Bans that nodes share: kept in Redis, and in the memory of every node.
//!
//! Every change has a number, which Redis gives: whoever makes one tells the others, and each node applies what it hears
//! in the order of the numbers. What was not heard is missed by its number at the next [check](Redis::follow), and all
//! is read again; so it is whenever Redis is reached anew. The count has a name: where that is another one, or the count
//! is lower than it was, Redis has lost bans, and the nodes write there what they remember.
mod scripts;
#[cfg(test)]
mod tests;
mod told;

pub use scripts::{LIFT, PURGE, PUT, RESTORE};

use super::table::Table;
use super::{Ban, BanError, Shared, has_ended, is_reason};
use crate::cluster::nodes::Topic;
use crate::cluster::{Call, Nodes, Reply, Script, Trouble};
use crate::config::Namespace;
use crate::identity::is_client;
use crate::store::{BANS_MAX, BanKey, BanRow};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};
use told::ToldBans;

/// How often a node looks whether it has heard of every change, and forgets bans that have ended.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// How long Redis is tried at the start: in a Redis Cluster another master than that of the nodes may have the bans.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two tries.
const TRY_EVERY: Duration = Duration::from_millis(100);
/// How long a ban has ended before it is deleted: clocks of nodes differ.
const KEPT_AFTER_END: Duration = Duration::from_secs(60);
/// Changes that are remembered while one before them is missing.
const AHEAD_MAX: usize = 1024;
/// Bans that are taken from Redis: those that have ended, and are not deleted yet, stand there too.
const BANS_READ_MAX: usize = 2 * BANS_MAX as usize;
/// Bans that are read, written or deleted at once.
const BATCH: usize = 512;

/// The bans in Redis.
pub(super) struct Redis {
    nodes: Arc<Nodes>,
    /// The hash of the bans, and the count of changes.
    keys: [Box<[u8]>; 2],
    heard: Arc<Heard>,
}

/// What this node has heard of bans.
struct Heard {
    shared: Arc<Shared>,
    namespaces: Vec<Arc<str>>,
    order: Mutex<Order>,
    told: ToldBans,
    /// All is to be read again.
    stale: Notify,
}

/// The order of the changes.
#[derive(Default)]
struct Order {
    /// The name of the count; empty: there was none yet.
    epoch: Box<str>,
    /// Every change up to this one is in memory.
    seen: u64,
    /// Later ones, which are in memory too, while one before them is missing, or all is read: a page that was read before
    /// a change does not have it.
    ahead: BTreeMap<u64, Change>,
    /// All is being read, or was to be and could not.
    reading: bool,
}

impl Order {
    /// The name of the count, and up to which change all are in memory.
    fn known(&self) -> (Box<str>, u64) {
        (self.epoch.clone(), self.seen)
    }
}

/// A ban was made, or lifted: no row.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    key: BanKey,
    row: Option<BanRow>,
}

/// As the other nodes are told of it, in JSON; nothing at all: everything is to be read again.
#[derive(Serialize, Deserialize)]
struct Told<'a> {
    epoch: Cow<'a, str>,
    number: u64,
    key: Cow<'a, str>,
    row: Option<Cow<'a, str>>,
}

/// A key in Redis: a namespace, a client, and a room or nothing.
fn key_text(key: &BanKey) -> String {
    serde_json::json!([*key.namespace, *key.client, *key.room]).to_string()
}

fn row_text(row: &BanRow) -> String {
    serde_json::json!([row.since_us, row.until_us, row.reason]).to_string()
}

/// `None` where it is no ban that a gateway wrote.
fn read_key(text: &[u8]) -> Option<BanKey> {
    let (namespace, client, room): (Box<str>, Box<str>, Box<str>) = serde_json::from_slice(text).ok()?;
    let is_ban = is_client(&client) && (room.is_empty() || is_client(&room));
    is_ban.then(|| BanKey { namespace: namespace.into(), client: client.into(), room: room.into() })
}

fn read_row(text: &[u8]) -> Option<BanRow> {
    let (since_us, until_us, reason): (i64, Option<i64>, Option<Box<str>>) = serde_json::from_slice(text).ok()?;
    let reason = reason.filter(|reason| is_reason(reason));
    Some(BanRow { since_us, until_us, reason })
}

/// The name of the count and a number, where a reply begins with them.
fn counted(reply: &Reply) -> Result<(&str, u64), BanError> {
    let found = match reply.list() {
        Some([epoch, number, ..]) => epoch.text().zip(number.int().and_then(|number| u64::try_from(number).ok())),
        Some(_) | None => None,
    };
    found.ok_or_else(|| BanError::Refused("an answer that makes no sense".into()))
}

impl Heard {
    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a namespace that the configuration knows.
    fn namespace(&self, name: &str) -> Option<Namespace> {
        Namespace::named(&self.namespaces, name)
    }

    fn key(&self, ban: &Ban) -> Option<BanKey> {
        let namespace = Arc::clone(self.namespaces.get(usize::from(ban.namespace.index))?);
        Some(BanKey { namespace, client: Arc::clone(&ban.client), room: ban.room.clone().unwrap_or_default() })
    }

    fn told(&self, payload: &[u8]) {
        if payload.is_empty() {
            return self.stale.notify_one();
        }
        let read = |told: Told<'_>| {
            let row = match told.row {
                Some(row) => Some(read_row(row.as_bytes())?),
                None => None,
            };
            Some((told.epoch.into_owned(), told.number, Change { key: read_key(told.key.as_bytes())?, row }))
        };
        match serde_json::from_slice(payload).ok().and_then(read) {
            Some((epoch, number, change)) => {
                let namespace = self.namespace(&change.key.namespace);
                let ban = namespace.zip(change.row.clone()).and_then(|(n, row)| Ban::new(n, &change.key, row));
                self.learn(&epoch, number, change);
                ban.into_iter().for_each(|ban| self.told.push(ban));
            }
            None => tracing::warn!("a node has told of a ban what is not understood"),
        }
    }

    /// A change, in whatever order it is heard of.
    fn learn(&self, epoch: &str, number: u64, change: Change) {
        let mut order = self.order();
        if *epoch != *order.epoch {
            self.apply(&change);
            return self.stale.notify_one();
        }
        if number <= order.seen {
            return;
        }
        if !order.ahead.range(number..).any(|(_, later)| later.key == change.key) {
            self.apply(&change);
        }
        order.ahead.insert(number, change);
        order.advance();
    }

    fn apply(&self, Change { key, row }: &Change) {
        let Some(namespace) = self.namespace(&key.namespace) else { return };
        match row {
            Some(row) if self.shared.len() < BANS_READ_MAX => self.shared.put(namespace, key, row.clone()),
            Some(_) => tracing::warn!("a node has told of more bans than there may be"),
            None => drop(self.shared.remove(namespace, key, None)),
        }
    }

    /// All is read from now on. What the count is known to be.
    fn begin_reading(&self) -> (Box<str>, u64) {
        let mut order = self.order();
        order.reading = true;
        order.known()
    }

    /// These bans hold, as of this change, with what has been heard of later ones. Those that did not hold before.
    fn replace(&self, epoch: &str, number: u64, bans: &[(BanKey, BanRow)]) -> Vec<Ban> {
        let mut order = self.order();
        if *epoch != *order.epoch {
            *order = Order { epoch: epoch.into(), ..Order::default() };
        }
        let ban = |(key, row): &(BanKey, BanRow)| Ban::new(self.namespace(&key.namespace)?, key, row.clone());
        let mut bans: Vec<Ban> = bans.iter().filter_map(ban).collect();
        let mut table = Table::default();
        bans.iter().for_each(|ban| table.put(ban.clone()));
        let before = self.shared.replace(table);
        order.seen = number;
        order.ahead = order.ahead.split_off(&(number + 1));
        order.ahead.values().for_each(|change| self.apply(change));
        order.reading = false;
        order.advance();
        bans.retain(|ban| before.get(ban.place()).is_none());
        bans
    }
}

impl Order {
    fn advance(&mut self) {
        while !self.reading && self.ahead.remove(&(self.seen + 1)).is_some() {
            self.seen += 1;
        }
        // It stays in memory; that one is missing before it is found by the next check.
        if self.ahead.len() > AHEAD_MAX {
            self.ahead.pop_first();
        }
    }
}

impl Redis {
    pub(super) fn new(nodes: Arc<Nodes>, prefix: &str, shared: Arc<Shared>, namespaces: &[Arc<str>]) -> Arc<Redis> {
        let (namespaces, order) = (namespaces.to_vec(), Mutex::default());
        let heard = Arc::new(Heard { shared, namespaces, order, told: ToldBans::default(), stale: Notify::new() });
        let (told, reached) = (Arc::clone(&heard), Arc::clone(&heard));
        nodes.handle(Topic::Bans, Box::new(move |payload| told.told(&payload)));
        nodes.on_reached(Box::new(move || reached.stale.notify_one()));
        let keys = ["{bans}", "{bans}:v"].map(|key| format!("{prefix}:{key}").into_bytes().into());
        Arc::new(Redis { nodes, keys, heard })
    }

    /// Carried out to the end also where nobody waits for it.
    pub(super) async fn put(self: &Arc<Self>, key: BanKey, row: BanRow) -> Result<(), BanError> {
        let this = Arc::clone(self);
        let put = async move {
            let max = BANS_MAX.to_string();
            let reply = this.call(&PUT, &[&key_text(&key), &row_text(&row), &max]).await?;
            if reply == Reply::Nil {
                return Err(BanError::TooMany);
            }
            let (epoch, number) = counted(&reply)?;
            this.changed(epoch, number, Change { key, row: Some(row) }).await;
            Ok(())
        };
        tokio::spawn(put).await.unwrap_or(Err(BanError::Away))
    }

    /// As [`put`](Self::put). The ban that was lifted.
    pub(super) async fn lift(self: &Arc<Self>, key: BanKey) -> Result<Option<BanRow>, BanError> {
        let this = Arc::clone(self);
        let lift = async move {
            let reply = this.call(&LIFT, &[&key_text(&key)]).await?;
            let (epoch, number) = counted(&reply)?;
            this.changed(epoch, number, Change { key, row: None }).await;
            Ok(reply.list().and_then(|items| read_row(items.get(2)?.bytes()?)))
        };
        tokio::spawn(lift).await.unwrap_or(Err(BanError::Away))
    }

    /// Redis has it: this node knows it from now on, and the others are told.
    async fn changed(&self, epoch: &str, number: u64, change: Change) {
        let (key, row) = (key_text(&change.key), change.row.as_ref().map(row_text));
        self.heard.learn(epoch, number, change);
        let told = Told { epoch: epoch.into(), number, key: key.into(), row: row.map(Cow::from) };
        // Such values can be written always.
        self.tell(serde_json::to_vec(&told).unwrap_or_default()).await;
    }

    async fn tell(&self, told: Vec<u8>) {
        if let Err(trouble) = self.nodes.tell_all(Topic::Bans, told.into()).await {
            tracing::warn!(?trouble, "other nodes were not told of a ban: they will find it");
        }
    }

    /// A script over bans; what may begin a count does so under a new name.
    async fn call(&self, script: &Script, args: &[&str]) -> Result<Reply, BanError> {
        let epoch = format!("{:016x}", rand::random::<u64>());
        let args: Vec<&[u8]> = [epoch.as_bytes()].into_iter().chain(args.iter().map(|arg| arg.as_bytes())).collect();
        Ok(self.nodes.call(Call::script(script, &[&self.keys[0], &self.keys[1]], &args)).await?)
    }

    async fn command(&self, words: &[&[u8]]) -> Result<Reply, BanError> {
        Ok(self.nodes.call(Call::command(&self.keys[0], words)).await?)
    }

    /// The name of the count, and the number of the last change.
    async fn count(&self) -> Result<(Box<str>, u64), BanError> {
        let reply = self.command(&[b"HGETALL", &self.keys[1]]).await?;
        let mut count = (Box::default(), 0);
        for field in reply.list().unwrap_or_default().chunks_exact(2) {
            match field[0].text() {
                Some("epoch") => count.0 = field[1].text().unwrap_or_default().into(),
                Some("number") => count.1 = field[1].int().and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
                Some(_) | None => {}
            }
        }
        Ok(count)
    }

    /// Reads all bans for the first time, and tries for a while where Redis is not reached.
    pub(super) async fn begin(&self) -> Result<(), BanError> {
        let give_up_at = Instant::now() + START_TIMEOUT;
        loop {
            match self.load().await {
                Err(BanError::Away) if Instant::now() < give_up_at => sleep(TRY_EVERY).await,
                loaded => return loaded.map(drop),
            }
        }
    }

    /// Reads all bans. Those that this node did not know.
    pub(super) async fn load(&self) -> Result<Vec<Ban>, BanError> {
        let (known, seen) = self.heard.begin_reading();
        let (mut epoch, mut number) = self.count().await?;
        if !known.is_empty() && (known != epoch || number < seen) {
            self.restore().await?;
            (epoch, number) = self.count().await?;
        }
        let now = Timestamp::now();
        let (mut bans, mut ended, mut cursor) = (Vec::new(), Vec::new(), "0".to_owned());
        loop {
            let count = BATCH.to_string();
            let reply = self.command(&[b"HSCAN", &self.keys[0], cursor.as_bytes(), b"COUNT", count.as_bytes()]).await?;
            let Some([next, page]) = reply.list() else { break };
            for pair in page.list().unwrap_or_default().chunks_exact(2) {
                let (Some(key), Some(row)) = (pair[0].bytes(), pair[1].bytes()) else { continue };
                let Some((key, row)) = read_key(key).zip(read_row(row)) else {
                    tracing::warn!("what stands among the bans in Redis is not understood");
                    continue;
                };
                let until = row.until_us.and_then(|us| Timestamp::from_microsecond(us).ok());
                if has_ended(until, now - KEPT_AFTER_END) {
                    ended.push(key_text(&key));
                } else if bans.len() < BANS_READ_MAX {
                    bans.push((key, row));
                }
            }
            cursor = next.text().unwrap_or("0").to_owned();
            if cursor == "0" {
                break;
            }
        }
        let late = self.heard.replace(&epoch, number, &bans);
        // Those that are late are known by now, and would not be found again.
        if let Err(error) = self.purge(&ended, now - KEPT_AFTER_END).await {
            tracing::debug!(%error, "bans that have ended could not be deleted in Redis");
        }
        Ok(late)
    }

    /// Redis came back without some bans, or all: what lasts is what the nodes remember.
    async fn restore(&self) -> Result<(), BanError> {
        let bans: Vec<Ban> = self.heard.shared.read().all().cloned().collect();
        tracing::warn!(bans = bans.len(), "Redis has lost bans: those that are remembered are written there again");
        let pair = |ban: &Ban| Some([key_text(&self.heard.key(ban)?), row_text(&ban.row())]);
        let texts: Vec<String> = bans.iter().filter_map(pair).flatten().collect();
        for batch in texts.chunks(2 * BATCH) {
            self.call(&RESTORE, &batch.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        }
        self.tell(Vec::new()).await;
        Ok(())
    }

    async fn purge(&self, ended: &[String], by: Timestamp) -> Result<(), BanError> {
        let by = by.as_microsecond().to_string();
        for batch in ended.chunks(BATCH) {
            let args: Vec<&str> = [by.as_str()].into_iter().chain(batch.iter().map(String::as_str)).collect();
            self.call(&PURGE, &args).await?;
        }
        Ok(())
    }

    /// Forgets bans that ended a while ago, here and in Redis.
    async fn sweep(&self) -> Result<(), BanError> {
        let by = Timestamp::now() - KEPT_AFTER_END;
        let named = |ban: &Ban| Some((ban.namespace, self.heard.key(ban)?));
        let ended: Vec<_> = self.heard.shared.ended_by(by).iter().filter_map(named).collect();
        self.purge(&ended.iter().map(|(_, key)| key_text(key)).collect::<Vec<_>>(), by).await?;
        for (namespace, key) in ended {
            self.heard.shared.remove(namespace, &key, Some(by));
        }
        Ok(())
    }

    /// Keeps the bans in memory as Redis has them, and names those whose sessions here are to be ended. Ends never.
    pub(super) async fn follow(&self, late: &mpsc::Sender<Ban>) {
        let told = async {
            loop {
                let _ = late.send(self.heard.told.next(&self.heard.shared).await).await;
            }
        };
        tokio::select! {
            () = told => {}
            () = self.check(late) => {}
        }
    }

    /// Reads all bans whenever Redis is reached anew, or a change was missed.
    async fn check(&self, late: &mpsc::Sender<Ban>) {
        let mut missing = false;
        // What Redis had at the last check must have been heard of by the next.
        let mut had = 0;
        loop {
            tokio::select! {
                () = self.heard.stale.notified() => missing = true,
                () = sleep(CHECK_EVERY) => {}
            }
            if !missing {
                let (known, seen) = self.heard.order().known();
                match self.count().await {
                    Ok((epoch, number)) => {
                        missing = epoch != known || number < seen || seen < had;
                        had = number;
                    }
                    Err(error) => tracing::debug!(%error, "the bans could not be looked at"),
                }
            }
            let done = if missing { self.load().await } else { self.sweep().await.map(|()| Vec::new()) };
            match done {
                Ok(bans) => {
                    missing = false;
                    for ban in bans {
                        let _ = late.send(ban).await;
                    }
                }
                // It is tried again.
                Err(error) => tracing::debug!(%error, "the bans could not be read from Redis"),
            }
        }
    }
}

impl From<Trouble> for BanError {
    fn from(trouble: Trouble) -> BanError {
        match trouble {
            Trouble::Away => BanError::Away,
            Trouble::Full => BanError::Busy,
            Trouble::Refused(error) => BanError::Refused(error),
        }
    }
}
