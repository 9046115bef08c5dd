//! Bans, in memory alone: what stands here until the store has them.
use crate::config::Namespace;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bans of the process.
const BANS_MAX: usize = 10_000;

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::admin) struct Ban {
    pub namespace: Namespace,
    pub client: String,
    /// `None`: from the gateway.
    pub room: Option<String>,
    /// `None`: for good.
    pub until: Option<Timestamp>,
    pub reason: Option<String>,
    pub since: Timestamp,
}

/// There are as many as there may be.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::admin) struct TooMany;

type Key = (Namespace, String, Option<String>);

/// The bans.
#[derive(Debug, Default)]
pub(in crate::admin) struct Book(Mutex<BTreeMap<Key, Ban>>);

impl Book {
    /// Adds a ban, or replaces the one of this client in this room.
    pub async fn put(&self, ban: Ban) -> Result<(), TooMany> {
        let mut bans = self.bans();
        bans.retain(|_, ban| ban.until.is_none_or(|until| until > Timestamp::now()));
        let key = (ban.namespace, ban.client.clone(), ban.room.clone());
        if bans.len() >= BANS_MAX && !bans.contains_key(&key) {
            return Err(TooMany);
        }
        bans.insert(key, ban);
        Ok(())
    }

    /// Ends a ban. Whether there was one.
    pub async fn lift(&self, namespace: Namespace, client: &str, room: Option<&str>) -> bool {
        self.bans().remove(&(namespace, client.to_owned(), room.map(str::to_owned))).is_some()
    }

    /// At most `limit` bans of the namespace, by client and room, after this one; and whether there are more.
    pub fn list(&self, namespace: Namespace, after: Option<(&str, Option<&str>)>, limit: usize) -> (Vec<Ban>, bool) {
        let bans = self.bans();
        let now = Timestamp::now();
        let mut found: Vec<Ban> = bans
            .values()
            .filter(|ban| ban.namespace == namespace && ban.until.is_none_or(|until| until > now))
            .filter(|ban| after.is_none_or(|after| (ban.client.as_str(), ban.room.as_deref()) > after))
            .take(limit.saturating_add(1))
            .cloned()
            .collect();
        let more = found.len() > limit;
        found.truncate(limit);
        (found, more)
    }

    fn bans(&self) -> MutexGuard<'_, BTreeMap<Key, Ban>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
