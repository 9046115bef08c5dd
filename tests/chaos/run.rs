//! A run: chaos, then rest, again and again; in the end all leave.
use crate::checks::{events_of, everything_expires};
use crate::court::{Court, Phase};
use crate::device::{Device, Seen};
use crate::faults::{Faults, Store};
use crate::ledger::{Ledger, RoomRules};
use crate::nodes::{KINDS, Node};
use crate::support::{Redis, TcpProxy};
use crate::view::View;
use crate::{Dice, Verdict};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, interval, sleep_until, timeout_at};

/// The seed and the length of a run where nothing else is said, and how long faults happen in a row.
const SEED: u64 = 1;
const SECONDS: u64 = 30;
const ROUND: Duration = Duration::from_secs(12);
/// A run with faults comes to all of these, or proves nothing.
const MUST_HAPPEN: [&str; 5] =
    ["duplicates answered", "fault: node killed", "offline", "recovered: false", "recovered: true"];
/// How long after the last fault everything must be right.
const RIGHT_WITHIN: Duration = Duration::from_secs(20);
const NODES: usize = 3;
const CLIENTS: usize = 28;
/// Every third client has two devices.
const TWO_DEVICES_EVERY: usize = 3;

pub struct Run {
    pub court: Arc<Court>,
    pub views: Vec<Seen>,
    pub nodes: Vec<Arc<Mutex<Node>>>,
    pub dice: Dice,
    about: String,
}

impl Run {
    /// So many nodes, whose ways to Redis begin there, are started, and the clients come.
    pub async fn begin(about: String, seed: u64, redis: Vec<Vec<String>>) -> Run {
        eprintln!("chaos: {about}");
        let rooms = KINDS.iter().flat_map(|(kind, count, history)| {
            (0..*count).map(move |n| RoomRules { name: format!("{kind}-{n}"), history: *history })
        });
        let court = Arc::new(Court::new(Ledger::new(rooms.collect()), redis.len()));
        let nodes =
            redis.into_iter().enumerate().map(|(n, redis)| Arc::new(Mutex::new(Node::new(n, redis, court.clone()))));
        let mut run =
            Run { court: court.clone(), views: Vec::new(), nodes: nodes.collect(), dice: Dice::new(seed), about };
        for node in &run.nodes {
            node.lock().await.start(false).await;
        }
        run.admit_clients(seed);
        run
    }

    fn admit_clients(&mut self, seed: u64) {
        let rooms = self.court.ledger().rooms.len();
        for client in 0..CLIENTS {
            for _ in 0..if client % TWO_DEVICES_EVERY == 0 { 2 } else { 1 } {
                let number = self.views.len();
                let own = |n: u64| Dice::new(seed.wrapping_mul(1_000_003) ^ (number as u64 * 2 + n));
                let mut view = View::new(number, format!("c{client}"), own(0));
                for room in 0..rooms {
                    view.seats.entry(room).or_default().wanted = self.dice.percent(40);
                }
                let view = Arc::new(std::sync::Mutex::new(view));
                tokio::spawn(Device::new(view.clone(), self.court.clone(), own(1)).live());
                self.views.push(view);
            }
        }
    }

    /// Clients do as they like for so long, while `faults` happen.
    pub async fn chaos(&mut self, faults: impl Future<Output = ()>) -> Verdict {
        self.court.enter(Phase::Chaos);
        tokio::select! {
            wrong = self.court.failed() => Err(wrong),
            () = faults => Ok(()),
        }
    }

    /// Everything is right within its time, and still is when devices have asked who is there.
    pub async fn rest(&mut self) -> Verdict {
        let by = Instant::now() + RIGHT_WITHIN;
        self.court.silent();
        self.court.enter(Phase::Rest);
        self.comes_to_rest(by).await?;
        for view in &self.views {
            let mut view = view.lock().unwrap();
            let joined = view.seats.iter().filter(|(_, seat)| seat.joined).map(|(room, _)| *room);
            for room in joined.collect::<Vec<_>>() {
                view.members(room, &self.court.ledger());
            }
        }
        self.comes_to_rest(by + RIGHT_WITHIN).await?;
        self.court.count("rests");
        self.nothing_has_grown()
    }

    async fn comes_to_rest(&self, by: Instant) -> Verdict {
        let mut turn = interval(Duration::from_millis(200));
        loop {
            turn.tick().await;
            self.court.verdict()?;
            let Err(not_yet) = self.all_is_right().await else { return Ok(()) };
            if Instant::now() > by {
                return Err(format!("{RIGHT_WITHIN:?} after the last fault: {not_yet}"));
            }
        }
    }

    /// All leave, and nothing is left of them.
    pub async fn end(&mut self) -> Verdict {
        self.court.enter(Phase::Leaving);
        let by = Instant::now() + RIGHT_WITHIN;
        let mut turn = interval(Duration::from_millis(200));
        loop {
            turn.tick().await;
            let Err(not_yet) = self.nothing_is_left().await else { return Ok(()) };
            if Instant::now() > by {
                return Err(not_yet);
            }
        }
    }

    /// What has happened, and whether it was right; logs are kept where it was not.
    pub async fn conclude(&mut self, verdict: Verdict) {
        let (counts, longest) = self.court.counts();
        eprintln!("chaos: {}", self.about);
        for (what, count) in counts {
            eprintln!("| {what:32} | {count:>9} |");
        }
        eprintln!("| {:32} | {:>7.1} s |", "longest without a publish", longest.as_secs_f64());
        for (node, first, now) in self.memory() {
            eprintln!("| {:32} | {first:>5} to {now} KiB |", format!("memory of {node}"));
        }
        if let Err(wrong) = verdict {
            let folder = self.keep_logs().await;
            panic!("{wrong}\nchaos FAILED: {}\nlogs of nodes and clients: {}", self.about, folder.display());
        }
    }

    async fn keep_logs(&self) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("wsgate-chaos-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        for (number, view) in self.views.iter().enumerate() {
            std::fs::write(folder.join(format!("device-{number}.log")), events_of(view)).unwrap();
        }
        for node in &self.nodes {
            // A fault that is cut off may hold it for a moment.
            if let Ok(node) = timeout_at(Instant::now() + RIGHT_WITHIN, node.lock()).await {
                node.keep_logs(&folder);
            }
        }
        folder
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number: {text}")))
}

/// Chaos and rest by turns for so long, and then all leave.
async fn rounds(run: &mut Run, mut faults: Option<Faults>, seconds: Duration, round: Duration) -> Verdict {
    let end = Instant::now() + seconds;
    loop {
        let until = Instant::now() + round;
        let happening = async {
            match &mut faults {
                Some(faults) => faults.happen(until).await,
                None => sleep_until(until).await,
            }
        };
        run.chaos(happening).await?;
        run.rest().await?;
        if Instant::now() >= end {
            return run.end().await;
        }
    }
}

fn seed() -> u64 {
    number("WSGATE_CHAOS_SEED").unwrap_or(SEED)
}

fn seconds() -> Duration {
    Duration::from_secs(number("WSGATE_CHAOS_SECONDS").unwrap_or(SECONDS))
}

/// Three nodes over this Redis; to one server each has a way of its own.
async fn with_redis(what: &str, store: Store) {
    let (seed, seconds) = (seed(), seconds());
    let mut proxies = Vec::new();
    let mut ways = Vec::new();
    for _ in 0..NODES {
        if let Store::One(redis) = &store {
            let proxy = TcpProxy::to(redis.port).await;
            ways.push(vec![proxy.url()]);
            proxies.push(Arc::new(proxy));
        } else {
            ways.push(store.servers().iter().map(Redis::url).collect());
        }
    }
    let about = format!("WSGATE_CHAOS_SEED={seed} WSGATE_CHAOS_SECONDS={}, {what}", seconds.as_secs());
    let mut run = Run::begin(about, seed, ways).await;
    let store = Arc::new(Mutex::new(store));
    let faults = Faults::new(run.court.clone(), run.nodes.clone(), store.clone(), proxies, Dice::new(seed ^ 0xfa17));
    let mut verdict = rounds(&mut run, Some(faults), seconds, ROUND).await;
    if verdict.is_ok() {
        let rooms = run.court.ledger().rooms.clone();
        verdict = everything_expires(&*store.lock().await, &rooms).await;
        let (counts, _) = run.court.counts();
        let missing: Vec<_> = MUST_HAPPEN.iter().filter(|what| !counts.contains_key(*what)).collect();
        if verdict.is_ok() && !missing.is_empty() {
            verdict = Err(format!("{missing:?} have not happened once"));
        }
    }
    run.conclude(verdict).await;
}

/// Clients alone, on one node without Redis: the ledger must find nothing wrong with what is known to be right.
#[tokio::test]
async fn one_node_keeps_its_word_to_clients_that_come_and_go() {
    let seed = seed();
    let mut run = Run::begin(format!("WSGATE_CHAOS_SEED={seed}, one node"), seed, vec![Vec::new()]).await;
    let verdict = rounds(&mut run, None, Duration::from_secs(8), Duration::from_secs(3)).await;
    run.conclude(verdict).await;
}

#[tokio::test]
async fn three_nodes_keep_their_word_whatever_happens_to_them_and_to_redis() {
    if let Some(store) = Store::one().await {
        with_redis("three nodes, one Redis", store).await;
    }
}

#[tokio::test]
async fn three_nodes_keep_their_word_over_a_redis_cluster() {
    if let Some(store) = Store::cluster().await {
        with_redis("three nodes, a Redis Cluster of three masters", store).await;
    }
}
