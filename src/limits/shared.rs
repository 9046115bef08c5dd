//! Buckets that count over all nodes: what is taken of them here is told to a store that all nodes share, and what all
//! have taken is put back into them.
//!
//! A message is judged by its local bucket alone. What it took is noted beside; [`Limiter::to_settle`] collects that,
//! the cluster adds it to the shared bucket of that name, and [`Limiter::settled`] sets the local one forward to what the
//! shared one says. Of N nodes that settle after at most `p`, a client gets no more than `rate × t + N × (burst + rate ×
//! p)` in any time `t`; one that is within its rates is not refused, but for the last `rate × p` of its burst.
use super::gcra::{Rate, nanos};
use super::meter::Rates;
use super::{Address, Client, IpKey, Limiter, lock};
use crate::config::{Config, Route};
use aws_lc_rs::digest::{Context, SHA256};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// Buckets of clients that wait to be settled, and addresses, at most so many each; of what is taken beyond, the other
/// nodes are not told.
const WAITING_MAX: usize = 65_536;
/// What was taken longer ago, and has been refilled since, is forgotten where it could not be settled.
const AGE_MAX: u64 = SECOND;
/// Nodes that may take a whole burst at once, and be believed to have done so.
const NODES_MAX: u64 = 64;
const SECOND: u64 = 1_000_000_000;

/// Which of a client's buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its messages.
    Messages,
    /// Its payload bytes.
    Bytes,
}

/// A bucket's name, which is the same on all nodes: a hash, so that the shared store learns no client's name.
type Name = [u8; 16];

/// What was taken and is to be settled, of all buckets.
pub struct Ledger {
    routes: Vec<SharedRoute>,
    /// Each bucket at most once: it is put here by whoever takes the first of it.
    clients: Mutex<VecDeque<(Arc<Client>, Kind)>>,
    addresses: Mutex<HashMap<IpKey, Taken>>,
}

struct SharedRoute {
    /// Of its namespace, host and path.
    digest: Name,
    rates: Rates,
}

/// What was taken of a bucket, in nanoseconds of its refilling, and when the first of it was.
#[derive(Clone, Copy)]
struct Taken {
    cost: u64,
    since: u64,
}

/// The same of a client, for all threads.
#[derive(Default)]
struct Tally {
    cost: AtomicU64,
    since: AtomicU64,
}

/// What a client has taken, and where that is collected.
pub(super) struct Account {
    ledger: Arc<Ledger>,
    route: usize,
    name: Name,
    messages: Tally,
    bytes: Tally,
}

/// One bucket that is to be settled. Times are those in which a bucket refills what was taken, in nanoseconds.
pub struct Due {
    /// What was taken here since the last time.
    pub cost: u64,
    /// How long ago the first of it was.
    pub age: u64,
    /// What all nodes may have taken at most.
    pub most: u64,
    name: Name,
    owner: Owner,
    at: u64,
}

enum Owner {
    Client(Arc<Client>, Kind),
    Address(IpKey),
}

impl Ledger {
    /// For the routes of this configuration. Routes of the same namespace, host and path are the same on all nodes.
    pub fn new(config: &Config) -> Arc<Ledger> {
        let digest = |route: &Route| {
            let namespace = &config.namespaces[usize::from(route.namespace.index)];
            name_of(&[
                b"route",
                namespace.as_bytes(),
                route.host.as_deref().unwrap_or("*").as_bytes(),
                route.name().as_bytes(),
            ])
        };
        Ledger::of(config.routes.iter().map(|route| (digest(route), Rates::new(&route.limits))))
    }

    fn of(routes: impl Iterator<Item = (Name, Rates)>) -> Arc<Ledger> {
        Arc::new(Ledger {
            routes: routes.map(|(digest, rates)| SharedRoute { digest, rates }).collect(),
            clients: Mutex::default(),
            addresses: Mutex::default(),
        })
    }

    /// A handshake of an address took so much at `now`.
    pub(super) fn address_took(&self, address: IpKey, cost: u64, now: u64) {
        let mut addresses = lock(&self.addresses);
        if let Some(taken) = addresses.get_mut(&address) {
            taken.cost = taken.cost.saturating_add(cost);
        } else if addresses.len() < WAITING_MAX {
            addresses.insert(address, Taken { cost, since: now });
        }
    }

    fn collect_addresses(&self, most: usize) -> HashMap<IpKey, Taken> {
        let mut addresses = lock(&self.addresses);
        if addresses.len() <= most {
            return std::mem::take(&mut addresses);
        }
        let some: Vec<IpKey> = addresses.keys().copied().take(most).collect();
        some.into_iter().filter_map(|key| addresses.remove_entry(&key)).collect()
    }

    fn collect_clients(&self, most: usize) -> Vec<(Arc<Client>, Kind)> {
        let mut clients = lock(&self.clients);
        let most = most.min(clients.len());
        clients.drain(..most).collect()
    }
}

impl Account {
    /// Of this client on the route with this index.
    pub(super) fn new(ledger: &Arc<Ledger>, route: usize, client: &str) -> Account {
        let digest = ledger.routes.get(route).map_or(Name::default(), |route| route.digest);
        let name = name_of(&[b"client", &digest, client.as_bytes()]);
        Account { ledger: ledger.clone(), route, name, messages: Tally::default(), bytes: Tally::default() }
    }

    /// `client`, whose account this is, took so much of a bucket at `now`.
    pub(super) fn took(&self, client: &Arc<Client>, kind: Kind, cost: u64, now: u64) {
        let tally = self.tally(kind);
        if cost == 0 || tally.cost.fetch_add(cost, Relaxed) > 0 {
            return;
        }
        tally.since.store(now, Relaxed);
        let mut waiting = lock(&self.ledger.clients);
        if waiting.len() < WAITING_MAX {
            waiting.push_back((client.clone(), kind));
        } else {
            tally.cost.store(0, Relaxed);
        }
    }

    fn tally(&self, kind: Kind) -> &Tally {
        match kind {
            Kind::Messages => &self.messages,
            Kind::Bytes => &self.bytes,
        }
    }

    fn rate(&self, kind: Kind) -> Option<&Rate> {
        let rates = &self.ledger.routes.get(self.route)?.rates;
        match kind {
            Kind::Messages => rates.messages.as_ref(),
            Kind::Bytes => rates.bytes.as_ref(),
        }
    }
}

impl Tally {
    /// What was taken since the last time. Whoever takes the next of it finds nothing here, and so has it collected again.
    fn collect(&self) -> Taken {
        let cost = self.cost.swap(0, Relaxed);
        Taken { cost, since: self.since.load(Relaxed) }
    }
}

impl Due {
    /// The bucket's name on all nodes: letters and digits.
    pub fn name(&self) -> String {
        let kind = match &self.owner {
            Owner::Client(_, Kind::Messages) => 'm',
            Owner::Client(_, Kind::Bytes) => 'b',
            Owner::Address(_) => 'h',
        };
        let mut name = String::with_capacity(1 + 2 * self.name.len());
        name.push(kind);
        let digits = self.name.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        name.extend(digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])));
        name
    }

    /// One of `parts`, by its name: the same on all nodes.
    pub fn part(&self, parts: usize) -> usize {
        usize::from(self.name[0]) % parts
    }

    /// `taken` of a bucket that is full again at `full_at`; `None` where all of it has been refilled, and too long ago
    /// for the others to need it.
    fn new(name: Name, owner: Owner, taken: Taken, full_at: u64, rate: &Rate, now: u64) -> Option<Due> {
        let age = now.saturating_sub(taken.since).min(AGE_MAX);
        // What was not taken longer ago is not more than what is owed at most since then.
        let cost = taken.cost.min(full_at.saturating_add(age).saturating_sub(now));
        let most = rate.burst_nanos().saturating_add(SECOND).saturating_mul(NODES_MAX);
        (cost > 0).then_some(Due { cost, age, most, name, owner, at: now })
    }
}

impl Limiter {
    /// What was taken of buckets that count over all nodes, of at most `most` of them: what waits longest first. Each is
    /// to be [settled](Self::settled), or is forgotten: the others do not count it then.
    pub fn to_settle(&self, most: usize) -> Vec<Due> {
        let Some(ledger) = &self.ledger else { return Vec::new() };
        let now = nanos(Instant::now());
        let addresses = ledger.collect_addresses(most / 2);
        let clients = ledger.collect_clients(most - addresses.len());
        let mut due = Vec::with_capacity(addresses.len() + clients.len());
        if let Some(rate) = &self.ip_rate {
            let mut ips = lock(&self.ips);
            due.extend(addresses.into_iter().filter_map(|(key, taken)| {
                let full_at = ips.existing(&key)?.handshakes.full_at();
                Due::new(name_of_address(key), Owner::Address(key), taken, full_at, rate, now)
            }));
        }
        due.extend(clients.into_iter().filter_map(|(client, kind)| {
            let account = client.account.as_ref()?;
            let (name, rate, taken) = (account.name, *account.rate(kind)?, account.tally(kind).collect());
            let full_at = client.bucket(kind).full_at();
            Due::new(name, Owner::Client(client, kind), taken, full_at, &rate, now)
        }));
        due
    }

    /// All nodes together have taken so much of a bucket that it is full again after `ahead`, from the time when it was
    /// [collected](Self::to_settle).
    pub fn settled(&self, due: Due, ahead: Duration) {
        let ahead = u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX).min(due.most);
        let full_at = due.at.saturating_add(ahead);
        match due.owner {
            Owner::Client(client, kind) => client.bucket(kind).raise(full_at),
            Owner::Address(key) => {
                if let Some(address) = lock(&self.ips).entry(key, nanos(Instant::now()), Address::new) {
                    address.handshakes.raise(full_at);
                }
            }
        }
    }
}

fn name_of_address(IpKey(network, v6): IpKey) -> Name {
    name_of(&[b"address", &network.to_be_bytes(), &[u8::from(v6)]])
}

/// SHA-256, cut, of these parts, each with its length.
fn name_of(parts: &[&[u8]]) -> Name {
    let mut hash = Context::new(&SHA256);
    for part in parts {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut name = Name::default();
    name.copy_from_slice(&hash.finish().as_ref()[..16]);
    name
}

#[cfg(test)]
mod tests;
