//! Nodes that settle with one store, on a clock that the tests move.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::{IpLimits, file};
use crate::limits::ClientPermit;
use crate::limits::meter::Meter;
use std::net::IpAddr;
use tokio::time::advance;

const LIMITS: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\npath = \"/echo\"\nservice = \"echo\"\n\
                      [[route]]\npath = \"/ws\"\nservice = \"rooms\"\n[auth]\nsecret_env = \"SECRET\"\n";
const STEP: Duration = Duration::from_millis(1);
const PERIOD_MS: u64 = 100;
const RTT_MS: u64 = 3;

fn config(limits: &str) -> Config {
    let text = format!("{LIMITS}[limits]\n{limits}\n");
    let secret = "a secret that only the tests know, 0123456789".to_owned();
    file::parse(&text, "gateway.toml", &|_| Some(secret.clone()), 1).unwrap_or_else(|faults| panic!("{faults}"))
}

/// What the cluster's script does, over again.
#[derive(Default)]
struct Store {
    buckets: HashMap<String, (u64, usize)>,
}

impl Store {
    fn settle(&mut self, node: usize, due: &Due) -> Duration {
        let now = nanos(Instant::now());
        let held = self.buckets.get(&due.name()).copied();
        let alone = held.is_none_or(|(_, last)| last == node);
        let full = (held.map_or(0, |held| held.0).max(now - due.age) + due.cost).min(now + due.most);
        self.buckets.insert(due.name(), (full, node));
        if alone { Duration::ZERO } else { Duration::from_nanos(full.saturating_sub(now)) }
    }
}

struct Node {
    limiter: Arc<Limiter>,
    meter: Meter,
    /// Answers on their way.
    answers: Vec<(Due, Duration)>,
}

/// Nodes of one cluster, with a client on each of them.
struct Cluster {
    nodes: Vec<Node>,
    /// `None`: away.
    store: Option<Store>,
    millis: u64,
}

impl Cluster {
    fn new(nodes: usize, limits: &str) -> Cluster {
        let config = config(limits);
        let node = |_| {
            let limiter = Limiter::with(100, config.ip_limits, Some(Ledger::new(&config)));
            let meter = Meter::new(enter(&limiter, "alice"), Rates::new(&config.routes[0].limits));
            Node { limiter, meter, answers: Vec::new() }
        };
        Cluster { nodes: (0..nodes).map(node).collect(), store: Some(Store::default()), millis: 0 }
    }

    /// A millisecond goes by: each node settles every 100 ms, not all at the same time, and hears the answer later.
    async fn step(&mut self) {
        advance(STEP).await;
        self.millis += 1;
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let turn = (self.millis + 37 * index as u64) % PERIOD_MS;
            if turn == 0 {
                let due = node.limiter.to_settle(1000);
                let Some(store) = &mut self.store else { continue };
                node.answers.extend(due.into_iter().map(|due| {
                    let ahead = store.settle(index, &due);
                    (due, ahead)
                }));
            } else if turn == RTT_MS {
                node.answers.drain(..).for_each(|(due, ahead)| node.limiter.settled(due, ahead));
            }
        }
    }

    async fn steps(&mut self, millis: u64) {
        for _ in 0..millis {
            self.step().await;
        }
    }

    fn send(&self, node: usize) -> bool {
        self.nodes[node].meter.charge(1, 10, Instant::now()).is_ok()
    }

    /// How many messages get through of one who sends all the time, everywhere.
    async fn flood(&mut self, millis: u64) -> u64 {
        let mut passed = 0;
        for _ in 0..millis {
            for node in 0..self.nodes.len() {
                while self.send(node) {
                    passed += 1;
                }
            }
            self.step().await;
        }
        passed
    }
}

fn enter(limiter: &Limiter, client: &str) -> ClientPermit {
    limiter.enter_client(0, &client.into(), None).ok().unwrap()
}

#[tokio::test(start_paused = true)]
async fn three_nodes_together_allow_the_rate_and_a_burst_of_each() {
    for (rate, burst) in [(50, 100), (200, 5), (1, 3)] {
        let mut cluster = Cluster::new(3, &format!("messages_per_second = {rate}\nmessage_burst = {burst}"));
        let first = cluster.flood(10_000).await;
        let most = |seconds: u64| seconds * rate + 3 * (burst + (rate * (PERIOD_MS + RTT_MS)).div_ceil(1000));
        assert!(first <= most(10), "{first} of at most {}", most(10));
        let second = cluster.flood(60_000).await;
        assert!(first + second <= most(70), "{first} and {second} of at most {}", most(70));
        assert!(first + second >= 70 * rate, "{first} and {second} are fewer than the rate allows");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_within_its_rates_is_not_refused_wherever_it_sends() {
    let mut cluster = Cluster::new(3, "messages_per_second = 50\nmessage_burst = 10");
    for message in 0..3000 {
        assert!(cluster.send(message % 3), "message {message}");
        cluster.steps(20).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_uses_one_node_is_judged_as_if_there_were_no_other() {
    let limits = "messages_per_second = 40\nmessage_burst = 8\nbytes_per_second = 1000";
    let mut cluster = Cluster::new(2, limits);
    let alone = Limiter::new(100, cluster.nodes[0].limiter.ip_limits);
    let alone = Meter::new(enter(&alone, "alice"), Rates::new(&config(limits).routes[0].limits));
    let mut random: u64 = 5;
    let mut refused = 0;
    for _ in 0..60_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if random >> 33 & 15 == 0 {
            let bytes = random >> 40 & 63;
            let now = Instant::now();
            let (here, there) = (cluster.nodes[0].meter.charge(1, bytes, now), alone.charge(1, bytes, now));
            assert_eq!(here, there);
            refused += u32::from(here.is_err());
        }
        cluster.step().await;
    }
    assert!(refused > 100, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn who_was_refused_meets_its_debt_on_another_node_when_its_first_message_is_settled() {
    let mut cluster = Cluster::new(2, "messages_per_second = 1\nmessage_burst = 30");
    while cluster.send(0) {}
    cluster.steps(2 * PERIOD_MS).await;
    assert!(cluster.send(1), "a node that has not asked does not know");
    cluster.steps(PERIOD_MS + RTT_MS).await;
    assert!(!cluster.send(1));
    let owed = cluster.nodes[1].meter.charge(1, 0, Instant::now()).unwrap_err();
    assert!(owed > Duration::from_millis(1500), "its own message is owed as well: {owed:?}");
    cluster.steps(owed.as_millis() as u64 + 1).await;
    assert!(cluster.send(1));
}

#[tokio::test(start_paused = true)]
async fn what_is_owed_by_one_that_is_paused_is_owed_everywhere() {
    let mut cluster = Cluster::new(2, "bytes_per_second = 1000\nmax_message_size = 1000\non_excess = \"pause\"");
    cluster.nodes[0].meter.charge(1, 5000, Instant::now()).unwrap();
    cluster.steps(PERIOD_MS).await;
    assert_eq!(cluster.nodes[1].meter.pause(Instant::now()), None);
    cluster.send(1);
    cluster.steps(PERIOD_MS + RTT_MS).await;
    let pause = cluster.nodes[1].meter.pause(Instant::now()).unwrap();
    assert!(pause > Duration::from_millis(3500) && pause < Duration::from_millis(4100), "{pause:?}");
}

#[tokio::test(start_paused = true)]
async fn handshakes_of_an_address_count_over_all_nodes() {
    let mut cluster = Cluster::new(3, "handshakes_per_second = 5");
    let (ip, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    let mut passed = 0;
    for _ in 0..20_000 {
        for node in &cluster.nodes {
            passed += u64::from(node.limiter.handshake(ip).is_ok());
        }
        cluster.step().await;
    }
    assert!((100..=20 * 5 + 3 * (10 + 1)).contains(&passed), "{passed}");
    assert!(cluster.nodes[0].limiter.handshake(other).is_ok());
}

#[tokio::test(start_paused = true)]
async fn routes_and_clients_count_each_for_themselves() {
    let config = config("messages_per_second = 1\nmessage_burst = 3");
    let ledger = Ledger::new(&config);
    let limiter = Limiter::with(100, IpLimits { connections: None, handshakes_per_second: Some(1) }, Some(ledger));
    for (route, client) in [(0, "alice"), (1, "alice"), (0, "bob")] {
        let permit = limiter.enter_client(route, &client.into(), None).ok().unwrap();
        Meter::new(permit, Rates::new(&config.routes[route].limits)).charge(1, 1, Instant::now()).unwrap();
    }
    limiter.handshake("10.0.0.1".parse().unwrap()).unwrap();
    let names: Vec<String> = limiter.to_settle(100).iter().map(Due::name).collect();
    let different: std::collections::HashSet<&String> = names.iter().collect();
    assert_eq!((names.len(), different.len()), (7, 7), "{names:?}");
    assert!(names.iter().all(|name| name.len() == 33 && name.bytes().all(|b| b.is_ascii_alphanumeric())), "{names:?}");
    assert!(limiter.to_settle(100).is_empty(), "each is collected once");
}

#[tokio::test(start_paused = true)]
async fn without_the_store_local_limits_hold_and_nothing_stays() {
    let mut cluster = Cluster::new(3, "messages_per_second = 50\nmessage_burst = 100");
    let store = cluster.store.take();
    let passed = cluster.flood(10_000).await;
    assert!((3 * 599..=3 * 600).contains(&passed), "{passed}");
    cluster.store = store;
    let passed = cluster.flood(60_000).await;
    assert!(passed <= 60 * 50 + 3 * (100 + 6), "{passed}");
}

#[tokio::test(start_paused = true)]
async fn what_was_refilled_long_ago_is_not_settled() {
    let cluster = Cluster::new(1, "messages_per_second = 50\nmessage_burst = 100\nbytes_per_second = 0");
    let limiter = &cluster.nodes[0].limiter;
    (0..100).for_each(|_| assert!(cluster.send(0)));
    advance(Duration::from_millis(1900)).await;
    let due = limiter.to_settle(10);
    // 2 s of refilling were taken 1.9 s ago: 0.1 s is owed, and as much as came back within the last second is told.
    assert_eq!(due.iter().map(|due| (due.cost, due.age)).collect::<Vec<_>>(), [(1_100_000_000, SECOND)]);
    assert!(cluster.send(0));
    advance(Duration::from_secs(10)).await;
    assert!(limiter.to_settle(10).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_bounded_and_comes_in_turn() {
    let config = config("messages_per_second = 1\nmessage_burst = 9\nbytes_per_second = 0\nhandshakes_per_second = 9");
    let limiter = Limiter::with(WAITING_MAX, config.ip_limits, Some(Ledger::new(&config)));
    let meter = |n: usize| Meter::new(enter(&limiter, &format!("client-{n}")), Rates::new(&config.routes[0].limits));
    for n in 0..WAITING_MAX + 10 {
        meter(n).charge(1, 0, Instant::now()).unwrap();
        limiter.handshake(std::net::Ipv4Addr::from(0x0a00_0000 + n as u32).into()).unwrap();
    }
    let due = limiter.to_settle(100);
    assert_eq!(due.len(), 100);
    assert_eq!(due.iter().filter(|due| matches!(due.owner, Owner::Address(_))).count(), 50, "both have their turn");
    let mut more = 0;
    loop {
        let due = limiter.to_settle(10_000).len();
        if due == 0 {
            break;
        }
        more += due;
    }
    assert_eq!(more + 100, 2 * WAITING_MAX);
    // One that found no place finds it when it takes more.
    meter(WAITING_MAX + 5).charge(1, 0, Instant::now()).unwrap();
    assert_eq!(limiter.to_settle(10).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_answer_of_the_store_shuts_a_client_out_for_long() {
    let cluster = Cluster::new(1, "messages_per_second = 50\nmessage_burst = 100");
    assert!(cluster.send(0));
    for due in cluster.nodes[0].limiter.to_settle(10) {
        cluster.nodes[0].limiter.settled(due, Duration::MAX);
    }
    let wait = cluster.nodes[0].meter.charge(1, 0, Instant::now()).unwrap_err();
    assert!(wait <= Duration::from_nanos(NODES_MAX * 3 * SECOND), "{wait:?}");
}
