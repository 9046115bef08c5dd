//! One server: where it is, how it is connected to, how it does, and who uses it.
use super::balance::hash;
use super::condition::{Condition, Standing};
use super::names::Name;
use super::proxy_header;
use crate::config::{self, Transport};
use crate::dial::{self, Address};
use crate::outbox::wire::Stream;
use arc_swap::ArcSwapOption;
use hyper::StatusCode;
use hyper::header::{HeaderValue, InvalidHeaderValue};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// The gateway's own wants in `io::Error::raw_os_error`: no descriptors left for the process, or the system.
const NO_DESCRIPTORS: [i32; 2] = [24, 23];

/// How long it is known how a server does at an address that its name no longer has, and of how many.
const LEFT_FOR: Duration = Duration::from_secs(60);
const LEFT_MAX: usize = 64;

/// The TLS of an upstream's servers; none while nothing was read, or where no server has it.
pub(super) type Trust = Arc<ArcSwapOption<ClientConfig>>;

/// A server of an upstream at one address, shared by all shards. A name with several addresses is several servers.
pub struct Server {
    /// The upstream it belongs to.
    pub upstream: Arc<config::Upstream>,
    /// As it is configured.
    pub configured: config::Backend,
    pub(super) source: Arc<Source>,
    /// `None`: its name was not found yet.
    pub(super) address: Option<Address>,
    /// What tells it from others in a hash.
    pub(super) hash: u64,
    trust: Trust,
    kept: Arc<Kept>,
}

/// One entry of `servers`, which becomes a server for each of its addresses.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) url: String,
    pub(super) place: Place,
    pub(super) used: AtomicUsize,
    pub(super) connect_failures: AtomicU64,
    pub(super) ejections: AtomicU64,
    /// Addresses that it no longer has, the oldest first: names with many give out some of them at a time.
    left: Mutex<VecDeque<Left>>,
}

/// An address that a name no longer has, and what is kept for when it comes back.
#[derive(Debug)]
struct Left {
    address: Address,
    kept: Arc<Kept>,
    since: Instant,
}

/// Where it is.
#[derive(Debug)]
pub(super) enum Place {
    /// There.
    Fixed(Address),
    /// Where a look-up finds it.
    Named(Name),
}

/// What of a server outlasts a change of its configuration.
#[derive(Debug)]
struct Kept {
    number: u64,
    /// Sessions and requests that use it now.
    used: AtomicUsize,
    /// Connections that are being made.
    dialing: AtomicUsize,
    condition: Mutex<Condition>,
}

/// Both ends of a client's connection, for a PROXY header to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxied {
    /// The client's, behind trusted proxies too (then without its port: 0).
    pub source: SocketAddr,
    /// The gateway's, as the client connected to it.
    pub destination: SocketAddr,
}

/// Why no server has given an answer that could be passed on.
#[derive(Debug)]
pub struct Unavailable {
    /// 502: refused, or a bad answer; 503: no server; 504: no connection, or no answer in time.
    pub status: StatusCode,
    /// Why, for the log: names of servers and errors, nothing of the client's.
    pub reason: String,
}

impl Unavailable {
    /// What this server did wrong.
    pub(super) fn of(server: &Server, status: StatusCode, why: impl fmt::Display) -> Unavailable {
        Unavailable { status, reason: format!("{}: {why}", server.configured.url) }
    }

    /// It answered what cannot be passed on, or broke off.
    pub(super) fn bad(server: &Server, why: impl fmt::Display) -> Unavailable {
        Unavailable::of(server, StatusCode::BAD_GATEWAY, why)
    }

    /// It did not answer in time.
    pub(super) fn late(server: &Server) -> Unavailable {
        Unavailable::of(server, StatusCode::GATEWAY_TIMEOUT, "no answer in time")
    }

    /// The upstream of this name has none.
    pub(super) fn none(upstream: &str) -> Unavailable {
        let reason = format!("upstream {upstream} has no healthy server");
        Unavailable { status: StatusCode::SERVICE_UNAVAILABLE, reason }
    }
}

impl From<Undialed> for Unavailable {
    fn from(undialed: Undialed) -> Unavailable {
        Unavailable { status: undialed.status(), reason: undialed.to_string() }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub struct Undialed {
    server: String,
    why: Why,
}

#[derive(Debug)]
pub(super) enum Why {
    /// The time was up.
    Late,
    /// The name has no address.
    Unresolved(String),
    /// What the system, or TLS, says.
    Failed(io::Error),
}

impl Why {
    /// The gateway's own fault, which says nothing of the server.
    pub(super) fn is_own(&self) -> bool {
        match self {
            Why::Late | Why::Unresolved(_) => false,
            Why::Failed(error) => {
                matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory)
                    || error.raw_os_error().is_some_and(|code| NO_DESCRIPTORS.contains(&code))
            }
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Late => f.write_str("connect timed out"),
            Why::Unresolved(why) => write!(f, "the name is not found: {why}"),
            Why::Failed(error) => error.fmt(f),
        }
    }
}

impl Undialed {
    /// 502; 503 where the server's name is not found; 504 where the time was up.
    pub fn status(&self) -> StatusCode {
        match &self.why {
            Why::Late => StatusCode::GATEWAY_TIMEOUT,
            Why::Failed(error) if error.kind() == io::ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Why::Failed(_) => StatusCode::BAD_GATEWAY,
            Why::Unresolved(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Names of servers and errors, nothing of the client's.
impl fmt::Display for Undialed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.server, self.why)
    }
}

impl Source {
    pub(super) fn new(configured: &config::Backend) -> Source {
        let place = match &configured.transport {
            Transport::Unix(path) => Place::Fixed(Address::Unix(path.clone())),
            Transport::Tcp { host, port } | Transport::Tls { host, port } => match host.parse::<IpAddr>() {
                Ok(ip) => Place::Fixed(Address::Tcp((ip, *port).into())),
                Err(_) => Place::Named(Name::new(host, *port)),
            },
        };
        Source {
            url: configured.url.clone(),
            place,
            used: 0.into(),
            connect_failures: 0.into(),
            ejections: 0.into(),
            left: Mutex::default(),
        }
    }

    /// Remembers for a while how the server does at an address that was left.
    pub(super) fn remember(&self, server: &Server) {
        let Some(address) = server.address.clone() else { return };
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.push_back(Left { address, kept: server.kept.clone(), since: Instant::now() });
        if left.len() > LEFT_MAX {
            left.pop_front();
        }
    }

    fn recall(&self, address: &Address) -> Option<Arc<Kept>> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|left| left.since.elapsed() < LEFT_FOR);
        let place = left.iter().position(|left| left.address == *address)?;
        left.remove(place).map(|left| left.kept)
    }

    /// One for each server that it stands for now, at least one.
    pub(super) fn addresses(&self) -> Vec<Option<Address>> {
        match &self.place {
            Place::Fixed(address) => vec![Some(address.clone())],
            Place::Named(name) => match name.addresses() {
                none if none.is_empty() => vec![None],
                addresses => addresses.into_iter().map(|address| Some(Address::Tcp(address))).collect(),
            },
        }
    }
}

/// Without what it shares with others.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("url", &self.configured.url)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.source.place, &self.address) {
            (Place::Named(_), Some(address)) => write!(f, "{} ({address})", self.configured.url),
            (Place::Named(_), None) | (Place::Fixed(_), _) => f.write_str(&self.configured.url),
        }
    }
}

impl Server {
    /// A server that nobody uses yet, of no pool.
    #[cfg(test)]
    pub(super) fn new(upstream: Arc<config::Upstream>, configured: config::Backend) -> Server {
        let source = Arc::new(Source::new(&configured));
        let address = match &source.place {
            Place::Fixed(address) => Some(address.clone()),
            Place::Named(_) => None,
        };
        Server::at(upstream, configured, source, address, Trust::default())
    }

    pub(super) fn at(
        upstream: Arc<config::Upstream>,
        configured: config::Backend,
        source: Arc<Source>,
        address: Option<Address>,
        trust: Trust,
    ) -> Server {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let hash = match &address {
            Some(address) => hash(format!("{} {address}", configured.url).as_bytes()),
            None => hash(configured.url.as_bytes()),
        };
        let new = || Kept {
            number: NUMBERS.fetch_add(1, Relaxed),
            used: 0.into(),
            dialing: 0.into(),
            condition: Mutex::default(),
        };
        let known = address.as_ref().and_then(|address| source.recall(address));
        let kept = known.unwrap_or_else(|| Arc::new(new()));
        Server { upstream, configured, source, address, hash, trust, kept }
    }

    /// The same server with another configuration.
    pub(super) fn with(&self, upstream: Arc<config::Upstream>, configured: config::Backend) -> Server {
        let (source, address, hash) = (self.source.clone(), self.address.clone(), self.hash);
        let (trust, kept) = (self.trust.clone(), self.kept.clone());
        Server { upstream, configured, source, address, hash, trust, kept }
    }

    /// What names it to shards: never 0, and no other server of the process has it.
    pub fn number(&self) -> u64 {
        self.kept.number
    }

    /// The server's own name, as a Host header has it.
    pub fn authority(&self) -> String {
        let (host, port, usual) = match &self.configured.transport {
            Transport::Tcp { host, port } => (host, *port, 80),
            Transport::Tls { host, port } => (host, *port, 443),
            Transport::Unix(_) => return "localhost".to_owned(),
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        if port == usual { host } else { format!("{host}:{port}") }
    }

    /// The Host of a request to it, where the client's was `asked`.
    pub(super) fn host(&self, asked: &str) -> Result<HeaderValue, InvalidHeaderValue> {
        if self.upstream.preserve_host { HeaderValue::from_str(asked) } else { HeaderValue::try_from(self.authority()) }
    }

    /// Connects, within `connect_timeout`: the first look-up of the name, the connect and TLS. What comes of it decides
    /// whether the server is left alone for a while.
    ///
    /// # Errors
    /// What the system says, or that the time was up.
    pub async fn dial(&self, proxied: Option<Proxied>) -> Result<Stream, Undialed> {
        let _dialing = Dialing::new(&self.kept);
        match self.reach(proxied, self.upstream.connect_timeout).await {
            Ok(stream) => {
                self.connected();
                Ok(stream)
            }
            Err(why) => {
                self.unreachable(&why);
                Err(Undialed { server: self.to_string(), why })
            }
        }
    }

    /// Connects, within this time; nothing else comes of it.
    pub(super) async fn reach(&self, proxied: Option<Proxied>, within: Duration) -> Result<Stream, Why> {
        timeout(within, self.connect(proxied)).await.unwrap_or(Err(Why::Late))
    }

    async fn connect(&self, proxied: Option<Proxied>) -> Result<Stream, Why> {
        let preamble = if self.upstream.proxy_protocol { proxy_header::encode(proxied) } else { Vec::new() };
        let tls = self.tls().map_err(Why::Failed)?;
        let tls = tls.as_ref().map(|(connector, name)| (connector, name.clone()));
        let addresses = match (&self.address, &self.source.place) {
            (Some(address), _) | (None, Place::Fixed(address)) => vec![address.clone()],
            (None, Place::Named(name)) => {
                name.awaited().await.map_err(Why::Unresolved)?.into_iter().map(Address::Tcp).collect()
            }
        };
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for address in addresses {
            match dial::connect(&address, &preamble, tls.clone()).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(Why::Failed(failed))
    }

    fn tls(&self) -> io::Result<Option<(TlsConnector, ServerName<'static>)>> {
        let host = match &self.configured.transport {
            Transport::Tls { host, .. } => host,
            Transport::Tcp { .. } | Transport::Unix(_) => return Ok(None),
        };
        let config = self.trust.load_full().ok_or_else(|| io::Error::other("its TLS files have not been read"))?;
        let name =
            ServerName::try_from(host.clone()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(Some((TlsConnector::from(config), name)))
    }

    fn condition(&self) -> MutexGuard<'_, Condition> {
        self.kept.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn connected(&self) {
        if self.condition().connected(Instant::now()) {
            tracing::info!(target: "wsgate::upstream", server = %self, "can be connected to again");
        }
    }

    pub(super) fn unreachable(&self, why: &Why) {
        self.source.connect_failures.fetch_add(1, Relaxed);
        if let Place::Named(name) = &self.source.place {
            name.doubt();
        }
        if why.is_own() {
            return;
        }
        let ejected = self.condition().unreachable(Instant::now(), rand::random_range(0.9..1.1));
        let Some(ejected) = ejected else { return };
        self.source.ejections.fetch_add(1, Relaxed);
        if ejected.first {
            let pause = ejected.pause.as_secs_f64();
            tracing::warn!(target: "wsgate::upstream", server = %self, %why, pause_s = pause, "cannot be connected to");
        }
    }

    /// A check was done. Says whether the server is healthy from now on, where that has changed.
    pub(super) fn checked(&self, outcome: &Result<(), String>) -> Option<bool> {
        let health = &self.upstream.health;
        let turned = self.condition().checked(outcome.is_ok(), health.rise, health.fall, Instant::now());
        match (turned, outcome) {
            (Some(true), _) => tracing::info!(target: "wsgate::upstream", server = %self, "is healthy"),
            (Some(false), Err(why)) => tracing::warn!(target: "wsgate::upstream", server = %self, why, "is unhealthy"),
            (Some(false), Ok(())) | (None, _) => (),
        }
        turned
    }

    /// Whether it may be chosen, and its weight then, in thousandths.
    pub(super) fn standing(&self, now: Instant) -> (Standing, u32) {
        let condition = self.condition();
        let part = condition.part(now, self.upstream.slow_start);
        let weight = f64::from(self.configured.weight) * 1000.0 * part;
        (condition.standing(now), (weight as u32).max(1))
    }

    /// Whether its sessions are to be closed because checks find it unhealthy.
    pub fn closes_sessions(&self) -> bool {
        self.upstream.close_on_unhealthy && self.standing(Instant::now()).0 == Standing::Unhealthy
    }

    /// Sessions and requests that use it now.
    pub(super) fn used(&self) -> usize {
        self.kept.used.load(Relaxed)
    }

    /// The same, and the connections that are being made: those that are asked for at the same time must not all go to
    /// the server that has the fewest.
    pub(super) fn load(&self) -> usize {
        self.used() + self.kept.dialing.load(Relaxed)
    }
}

/// A connection that is being made.
struct Dialing<'a>(&'a Kept);

impl<'a> Dialing<'a> {
    fn new(kept: &'a Kept) -> Dialing<'a> {
        kept.dialing.fetch_add(1, Relaxed);
        Dialing(kept)
    }
}

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        self.0.dialing.fetch_sub(1, Relaxed);
    }
}

/// One use of a server, given back by Drop.
#[derive(Debug)]
pub struct Lease {
    /// The server.
    pub server: Arc<Server>,
}

impl Lease {
    /// One more use.
    pub fn new(server: Arc<Server>) -> Lease {
        server.kept.used.fetch_add(1, Relaxed);
        server.source.used.fetch_add(1, Relaxed);
        Lease { server }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.kept.used.fetch_sub(1, Relaxed);
        self.server.source.used.fetch_sub(1, Relaxed);
    }
}
