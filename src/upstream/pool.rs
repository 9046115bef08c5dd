//! The servers of each upstream: which ones there are, and which are tried.
use super::balance::{self, Choice, Turns};
use super::condition::Standing;
use super::handshake::{self, Backend, Forward, Unopened};
use super::names::{self, LookUp};
use super::server::{Lease, Server, Source, Trust, Unavailable};
use super::upkeep::Upkeep;
use crate::config::{self, Balance, Transport};
use crate::metrics::ServerLevels;
use crate::tls::{self, LoadError};
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;
use tokio_rustls::rustls::ClientConfig;

/// Every upstream of the configuration, shared by all shards.
pub struct Upstreams {
    pools: Vec<Pool>,
    look_up: LookUp,
    /// Notified when there are other servers than before.
    changed: Notify,
}

/// One upstream.
struct Pool {
    name: String,
    trust: Trust,
    /// Locked when a session or request begins, and when something changes.
    listed: Mutex<Listed>,
}

/// What it consists of now.
struct Listed {
    configured: Arc<config::Upstream>,
    /// For each of `configured.servers`.
    sources: Vec<Arc<Source>>,
    /// For each address of each source.
    servers: Vec<Arc<Server>>,
    turns: Turns,
}

/// What servers are chosen by where the balance is a hash.
#[derive(Debug, Clone, Copy)]
pub struct Affinity<'a> {
    /// The client's name, where it has one.
    pub client: Option<&'a str>,
    /// The client's address, where it is known.
    pub ip: Option<IpAddr>,
}

/// How a server of the configuration does, with all its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// As it is configured.
    pub url: String,
    /// Its share.
    pub weight: u32,
    /// Sessions and requests that use it.
    pub used: usize,
    /// Connections that could not be made.
    pub connect_failures: u64,
    /// Times that it was left alone for a while because of that.
    pub ejections: u64,
    /// Where it is: none where its name is not found.
    pub addresses: Vec<AddressLevel>,
}

/// How a server does at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressLevel {
    /// `HOST:PORT`, or `unix:PATH`.
    pub address: String,
    /// Whether it is chosen now: checks find it healthy, and it can be connected to.
    pub healthy: bool,
    /// Sessions and requests that use it.
    pub used: usize,
}

impl Level {
    /// Whether any address is.
    pub fn is_healthy(&self) -> bool {
        self.addresses.iter().any(|address| address.healthy)
    }
}

impl Upstreams {
    /// The upstreams in the order of [`config::Config::upstreams`]. Reads no files ([`Self::reload`]), and looks no name
    /// up ([`Self::run`]).
    pub fn new(configured: &[Arc<config::Upstream>]) -> Arc<Upstreams> {
        Upstreams::with_look_up(configured, names::system())
    }

    pub(super) fn with_look_up(configured: &[Arc<config::Upstream>], look_up: LookUp) -> Arc<Upstreams> {
        let pools = configured.iter().map(Pool::new).collect();
        Arc::new(Upstreams { pools, look_up, changed: Notify::new() })
    }

    /// Looks names up, and checks whether servers are well, for as long as it is polled. `lost` is told the number of
    /// each server whose sessions are to be closed.
    pub async fn run(self: Arc<Self>, lost: broadcast::Sender<u64>) {
        let mut upkeep = Upkeep::default();
        loop {
            let (mut sources, mut servers) = (Vec::new(), Vec::new());
            for pool in &self.pools {
                let listed = pool.listed();
                sources.extend_from_slice(&listed.sources);
                servers.extend_from_slice(&listed.servers);
            }
            let upstreams = self.clone();
            upkeep.follow_names(&sources, &self.look_up, move || upstreams.relist());
            upkeep.check_servers(&servers, &lost);
            self.changed.notified().await;
        }
    }

    /// Takes what the configuration says now of each upstream that was there at the start, and reads its TLS files
    /// again, also where the configuration says nothing. Servers that were there keep their sessions and how they do;
    /// sessions of those that are gone stay. Reads files: not to be called on a shard's thread.
    ///
    /// # Errors
    /// The upstreams that stay as they were, and why.
    pub fn reload(&self, configured: &[Arc<config::Upstream>]) -> Vec<LoadError> {
        let replace = |pool: &Pool| {
            let now = configured.iter().find(|upstream| upstream.name == pool.name);
            pool.replace(now.unwrap_or(&pool.configured())).err()
        };
        let faults = self.pools.iter().filter_map(replace).collect();
        self.changed.notify_one();
        faults
    }

    /// Takes the addresses that names have now.
    pub(super) fn relist(&self) {
        self.pools.iter().for_each(|pool| pool.listed().relist(&pool.trust));
        self.changed.notify_one();
    }

    /// What the configuration says of an upstream now.
    ///
    /// # Panics
    /// Where there is no such upstream.
    pub fn configured(&self, upstream: usize) -> Arc<config::Upstream> {
        self.pools[upstream].configured()
    }

    /// How the servers do, as metrics have it.
    pub fn server_levels(&self) -> Vec<ServerLevels> {
        let levels = |(upstream, servers): (String, Vec<Level>)| {
            servers.into_iter().map(move |level| ServerLevels {
                upstream: upstream.clone(),
                healthy: level.is_healthy(),
                server: level.url,
                used: level.used,
                connect_failures: level.connect_failures,
                ejections: level.ejections,
            })
        };
        self.levels().into_iter().flat_map(levels).collect()
    }

    /// How the servers of each upstream do, with its name.
    pub fn levels(&self) -> Vec<(String, Vec<Level>)> {
        self.pools.iter().map(|pool| (pool.name.clone(), pool.listed().levels())).collect()
    }

    /// The servers of `Config::upstreams[upstream]` that may be tried now, in order: the one whose turn it is, then as
    /// many others as `retries` says. None where none is healthy.
    ///
    /// # Panics
    /// Where there is no such upstream.
    pub fn candidates(&self, upstream: usize, affinity: Affinity<'_>) -> impl Iterator<Item = Arc<Server>> + use<> {
        self.pools[upstream].listed().candidates(affinity).into_iter()
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
        let mut refused = Unavailable::none(&self.pools[upstream].name);
        let affinity = Affinity { client: forward.client_id, ip: forward.client_ip };
        for server in self.candidates(upstream, affinity) {
            match server.dial(forward.proxied).await {
                Ok(stream) => return handshake::upgrade(stream, Lease::new(server), forward).await,
                Err(failed) => refused = failed.into(),
            }
        }
        Err(Unopened::Unavailable(refused))
    }
}

impl Pool {
    fn new(configured: &Arc<config::Upstream>) -> Pool {
        let trust = Trust::default();
        let mut listed = Listed {
            configured: configured.clone(),
            sources: Vec::new(),
            servers: Vec::new(),
            turns: Turns::default(),
        };
        listed.configure(configured.clone());
        listed.relist(&trust);
        Pool { name: configured.name.clone(), trust, listed: Mutex::new(listed) }
    }

    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn configured(&self) -> Arc<config::Upstream> {
        self.listed().configured.clone()
    }

    fn replace(&self, configured: &Arc<config::Upstream>) -> Result<(), LoadError> {
        self.trust.store(trust(configured)?);
        let mut listed = self.listed();
        if *listed.configured != **configured {
            listed.configure(configured.clone());
            listed.relist(&self.trust);
        }
        Ok(())
    }
}

/// What `https://` servers of an upstream are trusted by, and shown; `None` where it has none. Reads files: not to be
/// called on a shard's thread.
///
/// # Errors
/// Names the file that cannot be read or does not fit.
pub fn trust(upstream: &config::Upstream) -> Result<Option<Arc<ClientConfig>>, LoadError> {
    let has_tls = upstream.servers.iter().any(|server| matches!(server.transport, Transport::Tls { .. }));
    has_tls.then(|| tls::client::config(upstream.tls.ca.as_deref(), upstream.tls.identity.as_ref())).transpose()
}

impl Listed {
    fn configure(&mut self, configured: Arc<config::Upstream>) {
        let known = std::mem::take(&mut self.sources);
        let source = |server: &config::Backend| {
            let found = known.iter().find(|source| source.url == server.url);
            found.cloned().unwrap_or_else(|| Arc::new(Source::new(server)))
        };
        self.sources = configured.servers.iter().map(source).collect();
        self.configured = configured;
    }

    /// Lists a server for each address. Those that were there stay as they are.
    fn relist(&mut self, trust: &Trust) {
        let known = std::mem::take(&mut self.servers);
        for (configured, source) in self.configured.servers.iter().zip(&self.sources) {
            for address in source.addresses() {
                let found = known.iter().find(|known| Arc::ptr_eq(&known.source, source) && known.address == address);
                let (upstream, configured) = (self.configured.clone(), configured.clone());
                self.servers.push(match found {
                    Some(server) if Arc::ptr_eq(&server.upstream, &upstream) => server.clone(),
                    Some(server) => Arc::new(server.with(upstream, configured)),
                    None => Arc::new(Server::at(upstream, configured, source.clone(), address, trust.clone())),
                });
            }
        }
        // Only of those that are still configured: what is kept of others goes with their source.
        let is_listed = |known: &Server| self.servers.iter().any(|server| server.number() == known.number());
        known.iter().filter(|known| !is_listed(known)).for_each(|known| known.source.remember(known));
        self.turns.reset(self.servers.len());
    }

    fn candidates(&mut self, affinity: Affinity<'_>) -> Vec<Arc<Server>> {
        let now = Instant::now();
        let (mut ready, mut ejected) = (Vec::new(), Vec::new());
        for (place, server) in self.servers.iter().enumerate() {
            let (standing, weight) = server.standing(now);
            let choice = Choice { place, weight, used: server.load(), hash: server.hash };
            match standing {
                Standing::Ready => ready.push(choice),
                Standing::Ejected => ejected.push(choice),
                Standing::Unhealthy => (),
            }
        }
        let first = if ready.is_empty() { &mut ejected } else { &mut ready };
        let balance = self.configured.balance;
        balance::order(balance, key(balance, affinity), &mut self.turns, first);
        let tries = (self.configured.retries as usize).saturating_add(1);
        // Those that are ejected come last: better than nothing.
        ready.into_iter().chain(ejected).take(tries).map(|choice| self.servers[choice.place].clone()).collect()
    }

    fn levels(&self) -> Vec<Level> {
        let now = Instant::now();
        let level = |(configured, source): (&config::Backend, &Arc<Source>)| Level {
            url: source.url.clone(),
            weight: configured.weight,
            used: source.used.load(Relaxed),
            connect_failures: source.connect_failures.load(Relaxed),
            ejections: source.ejections.load(Relaxed),
            addresses: self.addresses(source, now),
        };
        self.configured.servers.iter().zip(&self.sources).map(level).collect()
    }

    fn addresses(&self, source: &Arc<Source>, now: Instant) -> Vec<AddressLevel> {
        let servers = self.servers.iter().filter(|server| Arc::ptr_eq(&server.source, source));
        let level = |server: &Arc<Server>| {
            let address = server.address.as_ref()?.to_string();
            let healthy = server.standing(now).0 == Standing::Ready;
            Some(AddressLevel { address, healthy, used: server.used() })
        };
        servers.filter_map(level).collect()
    }
}

/// The hash of what the balance chooses by.
fn key(balance: Balance, affinity: Affinity<'_>) -> Option<u64> {
    let ip = || affinity.ip.map(|ip| balance::hash(ip.to_canonical().to_string().as_bytes()));
    match balance {
        Balance::HashClient => affinity.client.map(|client| balance::hash(client.as_bytes())).or_else(ip),
        Balance::HashIp => ip(),
        Balance::RoundRobin | Balance::LeastConnections | Balance::RandomTwo => None,
    }
}

#[cfg(test)]
mod tests;
