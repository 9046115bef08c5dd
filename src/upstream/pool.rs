//! The servers of each upstream, in round robin.
use super::handshake::{Backend, Forward, Unopened};
use crate::config;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Every upstream of the configuration, shared by all shards.
pub struct Upstreams {
    pools: Vec<Pool>,
}

struct Pool {
    configured: Arc<config::Upstream>,
    next: AtomicUsize,
}

impl Upstreams {
    /// The upstreams in the order of [`config::Config::upstreams`].
    pub fn new(configured: &[Arc<config::Upstream>]) -> Arc<Upstreams> {
        let pool = |configured: &Arc<config::Upstream>| Pool { configured: configured.clone(), next: AtomicUsize::new(0) };
        Arc::new(Upstreams { pools: configured.iter().map(pool).collect() })
    }

    /// Connects to a server of `Config::upstreams[upstream]` and upgrades there.
    ///
    /// # Errors
    /// [`Unopened::Answer`] where the backend refuses, [`Unopened::Unavailable`] where none can be reached in time or
    /// the answer is no valid upgrade.
    pub async fn open(&self, upstream: usize, forward: Forward<'_>) -> Result<Backend, Unopened> {
        let _ = (&self.pools[upstream].configured, &self.pools[upstream].next, forward.path_and_query);
        unimplemented!()
    }
}
