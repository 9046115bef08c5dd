//! Host names of servers, looked up again as records change.
//!
//! A task of the main thread asks the system, on tokio's threads for blocking calls: shards only read what it was told. The
//! last good answer holds until there is another.
use super::server::{Place, Source};
use crate::dial;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{sleep, timeout};

/// Most addresses of a name that are used.
const ADDRESSES_MAX: usize = 16;
/// Most look-ups at once.
pub(super) const LOOKUPS_MAX: usize = 8;
/// Time from an answer to the next look-up.
const LOOKUP_EVERY: Duration = Duration::from_secs(5);
/// The same where a connection has failed meanwhile.
const LOOKUP_PAUSE: Duration = Duration::from_secs(1);

/// What looks names up.
pub(super) type LookUp = Arc<dyn Fn(String, u16) -> LookingUp + Send + Sync>;
pub(super) type LookingUp = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// The system does.
pub(super) fn system() -> LookUp {
    Arc::new(|host, port| Box::pin(async move { Ok(lookup_host((host, port)).await?.collect()) }))
}

/// A host name, and where it was found.
#[derive(Debug)]
pub(super) struct Name {
    host: String,
    port: u16,
    answer: watch::Sender<Answer>,
    /// Notified when a connection has failed: the addresses may be of yesterday.
    doubted: Notify,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// There was none yet.
    Awaited,
    /// There was none that was good, and why.
    Failed(String),
    /// The last good one, sorted, at least one address.
    Found(Vec<SocketAddr>),
}

impl Name {
    pub(super) fn new(host: &str, port: u16) -> Name {
        let answer = watch::Sender::new(Answer::Awaited);
        Name { host: host.to_owned(), port, answer, doubted: Notify::new() }
    }

    /// The addresses, none where no look-up was good yet.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        match &*self.answer.borrow() {
            Answer::Found(addresses) => addresses.clone(),
            Answer::Awaited | Answer::Failed(_) => Vec::new(),
        }
    }

    /// The addresses, once the first look-up has ended.
    ///
    /// # Errors
    /// Why no look-up was good yet.
    pub(super) async fn awaited(&self) -> Result<Vec<SocketAddr>, String> {
        let mut answer = self.answer.subscribe();
        // The sender lives as long as `self`.
        let answer = answer.wait_for(|answer| *answer != Answer::Awaited).await.map(|answer| answer.clone());
        match answer {
            Ok(Answer::Found(addresses)) => Ok(addresses),
            Ok(Answer::Failed(why)) => Err(why),
            Ok(Answer::Awaited) | Err(_) => Err("was not looked up".to_owned()),
        }
    }

    /// Has the name looked up soon.
    pub(super) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Takes an answer; says whether the addresses are others than before.
    fn learn(&self, looked_up: io::Result<Vec<SocketAddr>>) -> Result<bool, String> {
        let mut addresses = looked_up.map_err(|error| error.to_string())?;
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        if addresses.is_empty() {
            return Err("the name has no address".to_owned());
        }
        Ok(self.answer.send_if_modified(|answer| {
            let found = Answer::Found(addresses);
            let differs = *answer != found;
            *answer = found;
            differs
        }))
    }

    /// There was no good answer: the last one holds.
    fn failed(&self, why: &str) {
        self.answer.send_if_modified(|answer| match answer {
            Answer::Found(_) => false,
            Answer::Awaited | Answer::Failed(_) => {
                *answer = Answer::Failed(why.to_owned());
                true
            }
        });
    }
}

/// Looks the name of a server up, again and again, and calls `changed` when its addresses are others. Does nothing for
/// a server without a name.
pub(super) async fn follow(source: Arc<Source>, look_up: LookUp, places: Arc<Semaphore>, changed: impl Fn()) {
    let Place::Named(name) = &source.place else { return };
    let mut failing = false;
    loop {
        let (ask, host, port) = (look_up.clone(), name.host.clone(), name.port);
        let found = dial::look_up(&places, async move { ask(host, port).await }).await;
        match name.learn(found) {
            Ok(differs) => {
                if std::mem::take(&mut failing) {
                    tracing::info!(target: "wsgate::upstream", host = name.host, "the name is found again");
                }
                if differs {
                    let addresses = name.addresses();
                    tracing::info!(target: "wsgate::upstream", host = name.host, ?addresses, "the name's addresses");
                    changed();
                }
            }
            Err(why) => {
                name.failed(&why);
                // Once, however long it takes.
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(target: "wsgate::upstream", host = name.host, why, "the name is not found");
                }
            }
        }
        sleep(LOOKUP_PAUSE).await;
        let rest = LOOKUP_EVERY.mul_f64(rand::random_range(0.9..1.1)) - LOOKUP_PAUSE;
        // Either is a reason to look it up.
        let _ = timeout(rest, name.doubted.notified()).await;
    }
}

#[cfg(test)]
mod tests;
