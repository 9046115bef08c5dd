//! Bans that nodes share: kept in Redis, and in the memory of every node.
//!
//! Every change has a number, which Redis gives: whoever makes one tells the others, and each node applies what it hears
//! in the order of the numbers. What was not heard is missed by its number at the next [check](Redis::follow), and all
//! is read again; so it is whenever Redis is reached anew.
#[cfg(test)]
mod tests;

use super::table::Table;
use super::{Ban, BanError, REASON_MAX, Shared, has_ended};
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
use tokio::sync::Notify;

/// How often a node looks whether it has heard of every change, and forgets bans that have ended.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// How long a ban has ended before it is deleted: clocks of nodes differ.
const KEPT_AFTER_END: Duration = Duration::from_secs(60);
/// Changes that are remembered while one before them is missing.
const AHEAD_MAX: usize = 1024;
/// Bans that are taken from Redis: those that have ended, and are not deleted yet, stand there too.
const BANS_READ_MAX: usize = 2 * BANS_MAX as usize;
/// Bans that are read, written or deleted at once.
const BATCH: usize = 512;

/// Writes a ban, in place of an older one, unless there are too many (ARGV[3]). Returns the number of the change, or 0.
pub static PUT: Script = Script::new(
    "ban_put",
    r"
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('SET', KEYS[2], redis.call('TIME')[1] .. '000000', 'NX')
return redis.call('INCR', KEYS[2])
",
);

/// Deletes a ban. Returns the number of the change, and the ban.
pub static LIFT: Script = Script::new(
    "ban_lift",
    r"
local row = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], redis.call('TIME')[1] .. '000000', 'NX')
return {redis.call('INCR', KEYS[2]), row}
",
);

/// Writes bans, ARGV[2] and its row, …, that are not there. ARGV[1]: whether these are the last ones, so that what is
/// there counts from now on.
pub static RESTORE: Script = Script::new(
    "ban_restore",
    r"
for i = 2, #ARGV, 2 do
  redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1])
end
if ARGV[1] == '1' then
  redis.call('SET', KEYS[2], redis.call('TIME')[1] .. '000000', 'NX')
  redis.call('INCR', KEYS[2])
end
return 1
",
);

/// Deletes those of the bans ARGV[2], … that have ended by ARGV[1]. It is no change: they hold nobody any more.
pub static PURGE: Script = Script::new(
    "ban_purge",
    r"
for i = 2, #ARGV do
  local row = redis.call('HGET', KEYS[1], ARGV[i])
  local ends = row and tonumber(string.match(row, '^%[%-?%d+,(%-?%d+),'))
  if ends and ends <= tonumber(ARGV[1]) then
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return 1
",
);

/// The bans in Redis.
pub(super) struct Redis {
    nodes: Arc<Nodes>,
    /// The hash of the bans, and the number of the last change.
    keys: [Box<[u8]>; 2],
    heard: Arc<Heard>,
    reached: Arc<Notify>,
}

/// What this node has heard of bans.
struct Heard {
    shared: Arc<Shared>,
    namespaces: Vec<Arc<str>>,
    order: Mutex<Order>,
}

/// The order of the changes.
#[derive(Default)]
struct Order {
    /// Every change up to this one is in memory.
    seen: u64,
    /// Later ones, which are in memory too, while one before them is missing.
    ahead: BTreeMap<u64, Change>,
}

/// A ban was made, or lifted: no row.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    key: BanKey,
    row: Option<BanRow>,
}

/// As the other nodes are told of it, in JSON.
#[derive(Serialize, Deserialize)]
struct Told<'a> {
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
    let reason = reason.filter(|r| r.len() <= REASON_MAX && !r.chars().any(char::is_control));
    Some(BanRow { since_us, until_us, reason })
}

impl Heard {
    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a namespace that the configuration knows.
    fn namespace(&self, name: &str) -> Option<Namespace> {
        let index = self.namespaces.iter().position(|known| **known == *name)?;
        Some(Namespace { index: u16::try_from(index).ok()? })
    }

    fn key(&self, ban: &Ban) -> Option<BanKey> {
        let namespace = Arc::clone(self.namespaces.get(usize::from(ban.namespace.index))?);
        Some(BanKey { namespace, client: Arc::clone(&ban.client), room: ban.room.clone().unwrap_or_default() })
    }

    fn told(&self, payload: &[u8]) {
        let read = |told: Told<'_>| {
            let row = match told.row {
                Some(row) => Some(read_row(row.as_bytes())?),
                None => None,
            };
            Some((told.number, Change { key: read_key(told.key.as_bytes())?, row }))
        };
        match serde_json::from_slice(payload).ok().and_then(read) {
            Some((number, change)) => self.learn(number, change),
            None => tracing::warn!("a node has told of a ban what is not understood"),
        }
    }

    /// A change, in whatever order it is heard of.
    fn learn(&self, number: u64, change: Change) {
        let mut order = self.order();
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

    /// These bans hold, as of this change, with what has been heard of later ones.
    fn replace(&self, number: u64, bans: &[(BanKey, BanRow)]) {
        let mut order = self.order();
        let mut table = Table::default();
        for (key, row) in bans {
            let ban = self.namespace(&key.namespace).and_then(|namespace| Ban::new(namespace, key, row.clone()));
            ban.into_iter().for_each(|ban| table.put(ban));
        }
        self.shared.replace(table);
        order.seen = number;
        order.ahead = order.ahead.split_off(&(number + 1));
        order.ahead.values().for_each(|change| self.apply(change));
        order.advance();
    }
}

impl Order {
    fn advance(&mut self) {
        while self.ahead.remove(&(self.seen + 1)).is_some() {
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
        let heard = Arc::new(Heard { shared, namespaces: namespaces.to_vec(), order: Mutex::default() });
        let reached = Arc::new(Notify::new());
        let (told, notified) = (Arc::clone(&heard), Arc::clone(&reached));
        nodes.handle(Topic::Bans, Box::new(move |payload| told.told(&payload)));
        nodes.on_reached(Box::new(move || notified.notify_one()));
        let keys = ["{bans}", "{bans}:v"].map(|key| format!("{prefix}:{key}").into_bytes().into());
        Arc::new(Redis { nodes, keys, heard, reached })
    }

    /// Carried out to the end also where nobody waits for it.
    pub(super) async fn put(self: &Arc<Self>, key: BanKey, row: BanRow) -> Result<(), BanError> {
        let this = Arc::clone(self);
        let put = async move {
            let max = BANS_MAX.to_string();
            let reply = this.call(&PUT, &[&key_text(&key), &row_text(&row), &max]).await?;
            match reply.int().and_then(|number| u64::try_from(number).ok()) {
                Some(0) => Err(BanError::TooMany),
                Some(number) => {
                    this.changed(number, Change { key, row: Some(row) }).await;
                    Ok(())
                }
                None => Err(BanError::Refused("an answer that makes no sense".into())),
            }
        };
        tokio::spawn(put).await.unwrap_or(Err(BanError::Away))
    }

    /// As [`put`](Self::put). The ban that was lifted.
    pub(super) async fn lift(self: &Arc<Self>, key: BanKey) -> Result<Option<BanRow>, BanError> {
        let this = Arc::clone(self);
        let lift = async move {
            let reply = this.call(&LIFT, &[&key_text(&key)]).await?;
            let Some([number, row]) = reply.list() else {
                return Err(BanError::Refused("an answer that makes no sense".into()));
            };
            if let Some(number) = number.int().and_then(|number| u64::try_from(number).ok()) {
                this.changed(number, Change { key, row: None }).await;
            }
            Ok(row.bytes().and_then(|row| read_row(row)))
        };
        tokio::spawn(lift).await.unwrap_or(Err(BanError::Away))
    }

    /// Redis has it: this node knows it from now on, and the others are told.
    async fn changed(&self, number: u64, change: Change) {
        let (key, row) = (key_text(&change.key), change.row.as_ref().map(row_text));
        self.heard.learn(number, change);
        // Such values can be written always.
        let told = serde_json::to_vec(&Told { number, key: key.into(), row: row.map(Cow::from) }).unwrap_or_default();
        if let Err(trouble) = self.nodes.tell_all(Topic::Bans, told.into()).await {
            tracing::warn!(?trouble, "other nodes were not told of a ban: they will find it");
        }
    }

    async fn call(&self, script: &Script, args: &[&str]) -> Result<Reply, BanError> {
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        Ok(self.nodes.call(Call::script(script, &[&self.keys[0], &self.keys[1]], &args)).await?)
    }

    async fn command(&self, words: &[&[u8]]) -> Result<Reply, BanError> {
        Ok(self.nodes.call(Call::command(&self.keys[0], words)).await?)
    }

    /// The number of the last change.
    async fn number(&self) -> Result<u64, BanError> {
        let number = self.command(&[b"GET", &self.keys[1]]).await?.int().unwrap_or(0);
        Ok(u64::try_from(number).unwrap_or(0))
    }

    /// Reads all bans. Where Redis has lost them, they are written there again as this node knows them.
    pub(super) async fn load(&self) -> Result<(), BanError> {
        let mut number = self.number().await?;
        if number == 0 && self.heard.order().seen > 0 {
            self.restore().await?;
            number = self.number().await?;
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
        self.heard.replace(number, &bans);
        self.purge(&ended, now - KEPT_AFTER_END).await
    }

    /// Redis came back empty: what lasts is what the nodes remember. Who reads before the end does the same.
    async fn restore(&self) -> Result<(), BanError> {
        let bans: Vec<Ban> = self.heard.shared.read().all().cloned().collect();
        tracing::warn!(bans = bans.len(), "Redis has lost the bans: they are written there again");
        let pair = |ban: &Ban| Some([key_text(&self.heard.key(ban)?), row_text(&ban.row())]);
        let texts: Vec<String> = bans.iter().filter_map(pair).flatten().collect();
        for batch in texts.chunks(2 * BATCH) {
            let args: Vec<&str> = ["0"].into_iter().chain(batch.iter().map(String::as_str)).collect();
            self.call(&RESTORE, &args).await?;
        }
        self.call(&RESTORE, &["1"]).await.map(drop)
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

    /// Reads all bans whenever Redis is reached anew, or a change was missed. Ends never.
    pub(super) async fn follow(&self) {
        let (mut missing, mut known) = (false, 0);
        loop {
            tokio::select! {
                () = self.reached.notified() => missing = true,
                () = tokio::time::sleep(CHECK_EVERY) => {}
            }
            if !missing && self.nodes.reaches_redis() {
                let seen = self.heard.order().seen;
                match self.number().await {
                    Ok(number) => {
                        // What Redis had at the last check must have been heard of by now.
                        missing = seen < known || number < seen;
                        known = number;
                    }
                    Err(error) => tracing::debug!(%error, "the bans could not be looked at"),
                }
            }
            let done = if missing { self.load().await } else { self.sweep().await };
            match done {
                Ok(()) => missing = false,
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
