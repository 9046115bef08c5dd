//! The servers of each upstream: which one is asked, and how many use it.
use super::handshake::{self, Backend, Forward, Unopened};
use super::server::{Lease, Server};
use crate::config;
use hyper::StatusCode;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Every upstream of the configuration, shared by all shards.
pub struct Upstreams {
    pools: Vec<Pool>,
}

struct Pool {
    configured: Arc<config::Upstream>,
    servers: Vec<Arc<Server>>,
    /// How many connections were asked for, modulo the number of servers: whose turn it is.
    turn: AtomicUsize,
}

/// What servers are chosen by where the balance is a hash.
#[derive(Debug, Clone, Copy)]
pub struct Affinity<'a> {
    /// The client's name, where it has one.
    pub client: Option<&'a str>,
    /// The client's address, where it is known.
    pub ip: Option<IpAddr>,
}

impl Upstreams {
    /// The upstreams in the order of [`config::Config::upstreams`].
    pub fn new(configured: &[Arc<config::Upstream>]) -> Arc<Upstreams> {
        let pool = |configured: &Arc<config::Upstream>| Pool {
            configured: configured.clone(),
            servers: configured.servers.iter().map(|s| Arc::new(Server::new(configured.clone(), s.clone()))).collect(),
            turn: 0.into(),
        };
        Arc::new(Upstreams { pools: configured.iter().map(pool).collect() })
    }

    /// What the configuration says of an upstream.
    pub fn configured(&self, upstream: usize) -> &Arc<config::Upstream> {
        &self.pools[upstream].configured
    }

    /// The servers of `Config::upstreams[upstream]` that may be tried now, in order: the one whose turn it is, then as
    /// many others as `retries` says. None where none is healthy.
    ///
    /// # Panics
    /// Where there is no such upstream.
    pub fn candidates(&self, upstream: usize, affinity: Affinity<'_>) -> impl Iterator<Item = Arc<Server>> + use<> {
        self.pools[upstream].candidates(affinity).into_iter()
    }

    /// Connects to a server of `Config::upstreams[upstream]` and upgrades there. Takes at most `connect_timeout` for
    /// each server that is tried, and 10 s for the answer. Where no connection can be made, as many other servers as
    /// `retries` says are tried; once a request was sent, none. Must run on the thread of a tokio runtime.
    ///
    /// # Errors
    /// [`Unopened::Answer`] where the backend refuses, [`Unopened::Unavailable`] where none can be reached in time or
    /// the answer is no valid upgrade.
    ///
    /// # Panics
    /// Where there is no such upstream.
    pub async fn open(&self, upstream: usize, forward: Forward<'_>) -> Result<Backend, Unopened> {
        let mut refused = self.none(upstream);
        let affinity = Affinity { client: forward.client_id, ip: forward.client_ip };
        for server in self.candidates(upstream, affinity) {
            match server.dial(forward.proxied).await {
                Ok(stream) => return handshake::upgrade(stream, Lease::new(server), forward).await,
                Err(failed) => refused = Unopened::Unavailable { status: failed.status(), reason: failed.to_string() },
            }
        }
        Err(refused)
    }

    fn none(&self, upstream: usize) -> Unopened {
        Unopened::Unavailable {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason: format!("upstream {} has no server", self.configured(upstream).name),
        }
    }
}

impl Pool {
    fn candidates(&self, _: Affinity<'_>) -> Vec<Arc<Server>> {
        let first = self.turn.fetch_add(1, Relaxed) % self.servers.len().max(1);
        let tries = (self.configured.retries as usize).saturating_add(1);
        self.servers.iter().cycle().skip(first).take(self.servers.len().min(tries)).cloned().collect()
    }
}
