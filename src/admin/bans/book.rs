//! Bans, in memory alone: what stands here until the store has them.
use crate::config::Namespace;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bans of the process.
const BANS_MAX: usize = 10_000;

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::admin) struct Ban {
    pub namespace: Namespace,
    pub client: Arc<str>,
    /// `None`: from the gateway.
    pub room: Option<Arc<str>>,
    /// `None`: for good.
    pub until: Option<Timestamp>,
    pub reason: Option<Box<str>>,
    pub since: Timestamp,
}

/// Why a ban was not written.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::admin) enum BanError {
    /// There are as many as there may be.
    TooMany,
}

type Key = (Namespace, Arc<str>, Option<Arc<str>>);

/// The bans.
#[derive(Debug, Default)]
pub(in crate::admin) struct Book(Mutex<BTreeMap<Key, Ban>>);

impl Book {
    /// Adds a ban, or replaces the one of this client in this room.
    pub async fn put(&self, ban: Ban) -> Result<(), BanError> {
        let mut bans = self.bans();
        bans.retain(|_, ban| ban.until.is_none_or(|until| until > Timestamp::now()));
        let key = (ban.namespace, ban.client.clone(), ban.room.clone());
        if bans.len() >= BANS_MAX && !bans.contains_key(&key) {
            return Err(BanError::TooMany);
        }
        bans.insert(key, ban);
        Ok(())
    }

    /// Ends a ban. Whether there was one.
    pub async fn lift(&self, namespace: Namespace, client: &str, room: Option<&str>) -> Result<bool, BanError> {
        Ok(self.bans().remove(&(namespace, client.into(), room.map(Arc::from))).is_some())
    }

    /// At most `limit` bans of the namespace, by client and room, after this one; and whether there are more.
    pub fn list(&self, namespace: Namespace, after: Option<(&str, Option<&str>)>, limit: usize) -> (Vec<Ban>, bool) {
        let bans = self.bans();
        let now = Timestamp::now();
        let mut found: Vec<Ban> = bans
            .values()
            .filter(|ban| ban.namespace == namespace && ban.until.is_none_or(|until| until > now))
            .filter(|ban| after.is_none_or(|after| (&*ban.client, ban.room.as_deref()) > after))
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
