//! Permits and rates: what one address, one client and the whole process may take.
//!
//! Permits are given back by Drop. Rates are GCRA buckets of one atomic each, so that all sessions
//! of a client share a bucket without a lock on the message path, but that of what is to be settled with other nodes, once for each bucket and 0.1 s.
pub mod deadlines;
pub mod gcra;
pub mod meter;
pub mod shared;
pub mod table;

use crate::config::{Config, IpLimits};
use gcra::{Bucket, Rate, nanos};
use shared::{Account, Kind, Ledger};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use table::{Live, Table};
use tokio::time::Instant;

/// Every table of the process that counts peers.
pub struct Limiter {
    connections: AtomicUsize,
    connections_max: usize,
    ip_limits: IpLimits,
    ip_rate: Option<Rate>,
    ips: Mutex<Table<IpKey, Address>>,
    clients: Mutex<Table<ClientKey, Arc<Client>>>,
    /// What is taken, where it counts over all nodes.
    ledger: Option<Arc<Ledger>>,
}

/// One IPv4 address, or one IPv6 network of 64 bits: what one subscriber can use freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpKey(u64, bool);

impl From<IpAddr> for IpKey {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => IpKey(u32::from(ip).into(), false),
            IpAddr::V6(ip) => IpKey((u128::from(ip) >> 64) as u64, true),
        }
    }
}

/// A client on a route.
type ClientKey = (usize, Arc<str>);

struct Address {
    connections: u32,
    handshakes: Bucket,
}

impl Live for Address {
    fn live(&self, now: u64) -> bool {
        self.connections > 0 || self.handshakes.busy(now)
    }
}

/// What all sockets of one client on one route share.
#[derive(Default)]
pub struct Client {
    sockets: AtomicU32,
    rooms: AtomicU32,
    messages: Bucket,
    bytes: Bucket,
    /// Where its rates count over all nodes.
    account: Option<Box<Account>>,
}

impl Client {
    fn bucket(&self, kind: Kind) -> &Bucket {
        match kind {
            Kind::Messages => &self.messages,
            Kind::Bytes => &self.bytes,
        }
    }
}

impl Live for Arc<Client> {
    fn live(&self, now: u64) -> bool {
        self.sockets.load(Relaxed) > 0
            || self.rooms.load(Relaxed) > 0
            || self.messages.busy(now)
            || self.bytes.busy(now)
    }
}

/// Why a permit was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The process holds `max_connections`.
    ProcessFull,
    /// The address holds `connections_per_ip`.
    IpConnections,
    /// The address makes handshakes too fast; may come again after this time.
    HandshakeRate(Duration),
    /// The client holds `connections_per_client`.
    ClientConnections,
}

/// One connection of the process.
pub struct ProcessPermit(Arc<Limiter>);

/// One connection of an address.
pub struct IpPermit(Arc<Limiter>, IpKey);

/// One socket of a client, and its buckets.
pub struct ClientPermit(Arc<Client>);

/// The rooms that a client is in, over all its sockets on a route.
#[derive(Clone)]
pub struct ClientRooms(Arc<Client>);

/// One room that a client is in.
pub struct RoomPermit(Arc<Client>);

impl Limiter {
    /// `connections_max` bounds the process; each of the two tables holds at most twice as many entries, and
    /// 65,536 more.
    pub fn new(connections_max: usize, ip_limits: IpLimits) -> Arc<Limiter> {
        Limiter::with(connections_max, ip_limits, None)
    }

    /// The tables of this configuration. Where it says that rates count over all nodes, somebody must
    /// [settle](Self::to_settle) them.
    pub fn of(config: &Config) -> Arc<Limiter> {
        let shares = config.cluster.as_ref().is_some_and(|cluster| cluster.shared_limits);
        Limiter::with(config.server.max_connections, config.ip_limits, shares.then(|| Ledger::new(config)))
    }

    fn with(connections_max: usize, ip_limits: IpLimits, ledger: Option<Arc<Ledger>>) -> Arc<Limiter> {
        let entries_max = connections_max.saturating_mul(2).saturating_add(65_536);
        Arc::new(Limiter {
            connections: AtomicUsize::new(0),
            connections_max,
            ip_limits,
            ip_rate: ip_limits.handshakes_per_second.map(|n| Rate::new(n.into(), u64::from(n) * 2)),
            ips: Mutex::new(Table::new(entries_max)),
            clients: Mutex::new(Table::new(entries_max)),
            ledger,
        })
    }

    /// A place in the process.
    ///
    /// # Errors
    /// [`Denied::ProcessFull`].
    pub fn enter(self: &Arc<Self>) -> Result<ProcessPermit, Denied> {
        let taken = self.connections.fetch_add(1, Relaxed);
        let permit = ProcessPermit(self.clone());
        if taken >= self.connections_max { Err(Denied::ProcessFull) } else { Ok(permit) }
    }

    /// A place among the connections of `ip`.
    ///
    /// # Errors
    /// [`Denied::IpConnections`], also where the table of addresses is full.
    pub fn enter_ip(self: &Arc<Self>, ip: IpAddr) -> Result<IpPermit, Denied> {
        let key = IpKey::from(ip);
        let mut ips = lock(&self.ips);
        let address = ips.entry(key, nanos(Instant::now()), Address::new).ok_or(Denied::IpConnections)?;
        if self.ip_limits.connections.is_some_and(|max| address.connections >= max) {
            return Err(Denied::IpConnections);
        }
        address.connections += 1;
        Ok(IpPermit(self.clone(), key))
    }

    /// Counts a handshake of `ip`; one that is denied is not counted.
    ///
    /// # Errors
    /// [`Denied::HandshakeRate`], also where the table of addresses is full: then the wait is 1 s.
    pub fn handshake(&self, ip: IpAddr) -> Result<(), Denied> {
        let Some(rate) = &self.ip_rate else { return Ok(()) };
        let now = nanos(Instant::now());
        let mut ips = lock(&self.ips);
        let key = IpKey::from(ip);
        let address = ips.entry(key, now, Address::new).ok_or(Denied::HandshakeRate(Duration::from_secs(1)))?;
        address.handshakes.take(rate, 1, now).map_err(Denied::HandshakeRate)?;
        if let Some(ledger) = &self.ledger {
            ledger.address_took(key, rate.cost(1), now);
        }
        Ok(())
    }

    /// A socket for `client` on the route with this index ([`crate::config::Route::index`]). `max`: sockets that
    /// the client may have there; `None`: no limit.
    ///
    /// # Errors
    /// [`Denied::ClientConnections`], also where the table of clients is full.
    pub fn enter_client(&self, route: usize, client: &Arc<str>, max: Option<u32>) -> Result<ClientPermit, Denied> {
        let mut clients = lock(&self.clients);
        let found = clients
            .entry((route, client.clone()), nanos(Instant::now()), || Arc::new(self.new_client(route, client)))
            .ok_or(Denied::ClientConnections)?;
        if max.is_some_and(|max| found.sockets.load(Relaxed) >= max) {
            return Err(Denied::ClientConnections);
        }
        found.sockets.fetch_add(1, Relaxed);
        Ok(ClientPermit(found.clone()))
    }

    fn new_client(&self, route: usize, client: &str) -> Client {
        let account = self.ledger.as_ref().map(|ledger| Box::new(Account::new(ledger, route, client)));
        Client { account, ..Client::default() }
    }

    /// Forgets addresses and clients that hold nothing any more: no permit, and full buckets. Looks at every entry;
    /// called now and then.
    pub fn sweep(&self) {
        let now = nanos(Instant::now());
        lock(&self.ips).sweep(now);
        lock(&self.clients).sweep(now);
    }

    /// Connections of the process now.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Entries of the tables of addresses and clients, for tests.
    pub fn entries(&self) -> (usize, usize) {
        (lock(&self.ips).len(), lock(&self.clients).len())
    }
}

impl Address {
    fn new() -> Address {
        Address { connections: 0, handshakes: Bucket::default() }
    }
}

impl ClientPermit {
    /// A permit of a client that shares nothing: a socket without a token.
    pub fn alone() -> ClientPermit {
        let client = Client::default();
        client.sockets.store(1, Relaxed);
        ClientPermit(Arc::new(client))
    }

    /// A bucket, shared by all sockets of the client on the route.
    pub fn bucket(&self, kind: Kind) -> &Bucket {
        self.0.bucket(kind)
    }

    /// What notes that so much was taken of a bucket, by its refilling in nanoseconds, and when; `None` where it counts
    /// on this node alone.
    fn account(&self) -> Option<impl Fn(Kind, u64, u64)> {
        let account = self.0.account.as_ref()?;
        Some(|kind, cost, now| account.took(&self.0, kind, cost, now))
    }

    /// The count of the client's rooms.
    pub fn rooms(&self) -> ClientRooms {
        ClientRooms(self.0.clone())
    }
}

impl ClientRooms {
    /// One room more, where there are fewer than `max`.
    pub fn enter(&self, max: usize) -> Option<RoomPermit> {
        let more = |n: u32| ((n as usize) < max).then_some(n + 1);
        self.0.rooms.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(RoomPermit(self.0.clone()))
    }
}

impl Drop for RoomPermit {
    fn drop(&mut self) {
        self.0.rooms.fetch_sub(1, Relaxed);
    }
}

impl Drop for ProcessPermit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

impl Drop for IpPermit {
    fn drop(&mut self) {
        if let Some(address) = lock(&self.0.ips).existing(&self.1) {
            address.connections -= 1;
        }
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        self.0.sockets.fetch_sub(1, Relaxed);
    }
}

/// A panic elsewhere leaves these tables whole: each change is one step.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn limiter(connections: u32, handshakes: u32) -> Arc<Limiter> {
        Limiter::new(3, IpLimits { connections: Some(connections), handshakes_per_second: Some(handshakes) })
    }

    #[tokio::test(start_paused = true)]
    async fn permits_come_back_by_drop() {
        let limiter = limiter(1, 1000);
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        let places: Vec<_> = (0..3).map(|_| limiter.enter().ok().unwrap()).collect();
        assert!(matches!(limiter.enter(), Err(Denied::ProcessFull)));
        drop(places);
        assert_eq!(limiter.connections(), 0);
        let place = limiter.enter_ip(ip).ok().unwrap();
        assert!(matches!(limiter.enter_ip(ip), Err(Denied::IpConnections)));
        drop(place);
        assert!(limiter.enter_ip(ip).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn one_network_of_64_bits_is_one_address() {
        let limiter = limiter(1, 1000);
        let _held = limiter.enter_ip("2001:db8:1:2::1".parse().unwrap()).ok().unwrap();
        assert!(limiter.enter_ip("2001:db8:1:2:ffff::9".parse().unwrap()).is_err());
        assert!(limiter.enter_ip("2001:db8:1:3::1".parse().unwrap()).is_ok());
        let _held = limiter.enter_ip("::ffff:10.0.0.1".parse().unwrap()).ok().unwrap();
        assert!(limiter.enter_ip("10.0.0.1".parse().unwrap()).is_err(), "a mapped address is the IPv4 address");
    }

    #[tokio::test(start_paused = true)]
    async fn handshakes_have_a_burst_of_twice_the_rate() {
        let limiter = limiter(100, 5);
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!((0..20).filter(|_| limiter.handshake(ip).is_ok()).count(), 10);
        let Err(Denied::HandshakeRate(wait)) = limiter.handshake(ip) else { panic!("must be refused") };
        tokio::time::advance(wait).await;
        assert!(limiter.handshake(ip).is_ok());
        assert!(limiter.handshake(ip).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn clients_share_a_bucket_that_outlives_a_reconnect_and_then_goes() {
        let limiter = limiter(100, 5);
        let client: Arc<str> = "alice".into();
        let rate = Rate::new(1, 2);
        let first = limiter.enter_client(0, &client, Some(2)).ok().unwrap();
        let second = limiter.enter_client(0, &client, Some(2)).ok().unwrap();
        assert!(limiter.enter_client(0, &client, Some(2)).is_err());
        assert!(limiter.enter_client(1, &client, Some(2)).is_ok(), "another route counts for itself");
        let now = nanos(Instant::now());
        first.bucket(Kind::Messages).take(&rate, 1, now).unwrap();
        second.bucket(Kind::Messages).take(&rate, 1, now).unwrap();
        drop((first, second));
        limiter.sweep();
        let again = limiter.enter_client(0, &client, Some(2)).ok().unwrap();
        assert!(again.bucket(Kind::Messages).take(&rate, 1, now).is_err(), "a reconnect must not fill the bucket");
        drop(again);
        tokio::time::advance(Duration::from_secs(3)).await;
        limiter.sweep();
        assert_eq!(limiter.entries().1, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn tables_are_bounded_and_shrink() {
        let limiter = limiter(1, 5);
        for i in 0..200_000u32 {
            let _ = limiter.handshake(std::net::Ipv4Addr::from(0x0a00_0000 + i).into());
        }
        assert!(limiter.entries().0 <= 65_542);
        tokio::time::advance(Duration::from_secs(5)).await;
        limiter.sweep();
        assert_eq!(limiter.entries().0, 0);
        assert!(lock(&limiter.ips).capacity() < 4096);
    }
}
