//! The tasks on the main thread that look after servers: one for each name, one for each server that is checked.
use super::check::{self, CHECKS_MAX};
use super::names::{self, LOOKUPS_MAX, LookUp};
use super::server::{Place, Server, Source};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Semaphore, broadcast};
use tokio::task::{AbortHandle, JoinSet};

/// All of them; they end when this is dropped.
pub(super) struct Upkeep {
    names: Tasks<Source>,
    checks: Tasks<Server>,
    look_ups: Arc<Semaphore>,
    checking: Arc<Semaphore>,
}

impl Default for Upkeep {
    fn default() -> Upkeep {
        Upkeep {
            names: Tasks::default(),
            checks: Tasks::default(),
            look_ups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            checking: Arc::new(Semaphore::new(CHECKS_MAX)),
        }
    }
}

impl Upkeep {
    /// Follows the names of these and of no others. `changed` is called when one has other addresses.
    pub(super) fn follow_names(
        &mut self,
        sources: &[Arc<Source>],
        look_up: &LookUp,
        changed: impl Fn() + Clone + Send + 'static,
    ) {
        let named = sources.iter().filter(|source| matches!(source.place, Place::Named(_)));
        let look_ups = &self.look_ups;
        self.names.keep(named, |source| names::follow(source, look_up.clone(), look_ups.clone(), changed.clone()));
    }

    /// Checks these and no others.
    pub(super) fn check_servers(&mut self, servers: &[Arc<Server>], lost: &broadcast::Sender<u64>) {
        let found = servers.iter().filter(|server| server.address.is_some());
        let checking = &self.checking;
        self.checks.keep(found, |server| check::watch(server, checking.clone(), lost.clone()));
    }
}

/// A task for each of some things, by where the thing is: as long as it is here, no other can be there.
struct Tasks<T> {
    running: HashMap<usize, (Arc<T>, AbortHandle)>,
    set: JoinSet<()>,
}

impl<T> Default for Tasks<T> {
    fn default() -> Tasks<T> {
        Tasks { running: HashMap::new(), set: JoinSet::new() }
    }
}

impl<T> Tasks<T> {
    /// Ends the tasks of all others, and begins those that are missing.
    fn keep<'a, F>(&mut self, wanted: impl Iterator<Item = &'a Arc<T>>, task: impl Fn(Arc<T>) -> F)
    where
        T: 'a,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut before = std::mem::take(&mut self.running);
        for thing in wanted {
            let place = Arc::as_ptr(thing).addr();
            let kept = before.remove(&place);
            let begin = || (thing.clone(), self.set.spawn(task(thing.clone())));
            self.running.entry(place).or_insert_with(|| kept.unwrap_or_else(begin));
        }
        before.into_values().for_each(|(_, task)| task.abort());
        while self.set.try_join_next().is_some() {}
    }
}
