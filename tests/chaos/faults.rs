//! What goes wrong: nodes, Redis, and the ways between them.
use crate::Dice;
use crate::court::Court;
use crate::nodes::Node;
use crate::support::TcpProxy;
use crate::support::redis::{Redis, RedisCluster, Setup};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// SIGKILL, and another life under the same name or a new one.
    NodeKilled,
    /// SIGTERM: it drains.
    NodeStopped,
    /// The connections of a node to Redis end.
    LinkCut,
    /// No connection of a node reaches Redis.
    LinkRefused,
    /// Nothing goes over them.
    LinkHeld,
    /// Redis crashes, and comes back with all that it had.
    RedisKilled,
    /// SIGSTOP.
    RedisPaused,
    /// It comes back empty.
    RedisEmptied,
    /// It forgets everything while it is connected.
    RedisFlushed,
    /// A room's slot gets another master.
    SlotMoved,
}

use Fault::*;

const ONE: &[Fault] = &[
    NodeKilled,
    NodeKilled,
    NodeStopped,
    LinkCut,
    LinkCut,
    LinkRefused,
    LinkHeld,
    RedisKilled,
    RedisPaused,
    RedisEmptied,
    RedisFlushed,
];
const CLUSTER: &[Fault] =
    &[NodeKilled, NodeStopped, RedisKilled, RedisPaused, RedisFlushed, SlotMoved, SlotMoved, SlotMoved];

/// Milliseconds from one fault to the next.
const PAUSE_MS: (u64, u64) = (200, 1400);

/// Redis, as one server or as a Redis Cluster.
pub enum Store {
    One(Redis),
    Cluster(RedisCluster),
}

impl Store {
    /// One server that keeps what it has answered, whatever kills its process: written before each answer, and not
    /// forced to the disk, since no power is cut here.
    fn setup() -> Setup {
        Setup::new().line("appendonly yes").line("appendfsync no").line("cluster-require-full-coverage no")
    }

    /// `None` where there is no redis-server.
    pub async fn one() -> Option<Store> {
        Store::setup().start().await.map(Store::One)
    }

    pub async fn cluster() -> Option<Store> {
        RedisCluster::start_with(Store::setup).await.map(Store::Cluster)
    }

    pub fn servers(&self) -> &[Redis] {
        match self {
            Store::One(redis) => std::slice::from_ref(redis),
            Store::Cluster(cluster) => &cluster.nodes,
        }
    }

    fn servers_mut(&mut self) -> &mut [Redis] {
        match self {
            Store::One(redis) => std::slice::from_mut(redis),
            Store::Cluster(cluster) => &mut cluster.nodes,
        }
    }
}

/// What can go wrong, and what did.
pub struct Faults {
    pub court: Arc<Court>,
    pub nodes: Vec<Arc<Mutex<Node>>>,
    pub store: Arc<Mutex<Store>>,
    /// Each node's way to Redis; none to a Redis Cluster, whose nodes say where they are.
    pub proxies: Vec<Arc<TcpProxy>>,
    pub dice: Dice,
    deck: Vec<Fault>,
}

/// What a fault needs for itself, until it is over.
enum Taken {
    Node(OwnedMutexGuard<Node>),
    Store(OwnedMutexGuard<Store>),
    /// With the node's lock, so that it does not start while it cannot.
    Link(OwnedMutexGuard<Node>, Arc<TcpProxy>),
}

impl Faults {
    pub fn new(
        court: Arc<Court>,
        nodes: Vec<Arc<Mutex<Node>>>,
        store: Arc<Mutex<Store>>,
        proxies: Vec<Arc<TcpProxy>>,
        dice: Dice,
    ) -> Faults {
        Faults { court, nodes, store, proxies, dice, deck: Vec::new() }
    }

    /// One fault after the other until then; when all of them are over a node is killed, so that nothing else has the
    /// others look who is left.
    pub async fn happen(&mut self, until: Instant) {
        self.happen_at_random(until).await;
        let node = 1 + self.dice.below(self.nodes.len() - 1);
        let node = self.nodes[node].clone().lock_owned().await;
        node_fails(NodeKilled, node, &mut self.dice, &self.court).await;
    }

    async fn happen_at_random(&mut self, until: Instant) {
        let mut going_on = JoinSet::new();
        while Instant::now() < until {
            sleep(Duration::from_millis(self.dice.between(PAUSE_MS.0, PAUSE_MS.1))).await;
            if self.deck.is_empty() {
                self.deck = if self.proxies.is_empty() { CLUSTER.to_vec() } else { ONE.to_vec() };
            }
            let drawn = self.dice.below(self.deck.len());
            if let Some(taken) = self.take(self.deck[drawn]) {
                let fault = self.deck.swap_remove(drawn);
                let dice = Dice::new(self.dice.between(0, u64::MAX));
                going_on.spawn(happen(fault, taken, dice, self.court.clone()));
            }
        }
        while let Some(ended) = going_on.join_next().await {
            if let Err(e) = ended {
                self.court.fail(format!("a node or Redis did not come back: {e}"));
            }
        }
    }

    /// What the fault needs; `None` where that is being mended.
    fn take(&mut self, fault: Fault) -> Option<Taken> {
        match fault {
            // The first node lives as long as the run: what grows with that is seen in it.
            NodeKilled | NodeStopped => {
                let node = 1 + self.dice.below(self.nodes.len() - 1);
                self.nodes[node].clone().try_lock_owned().ok().map(Taken::Node)
            }
            LinkCut | LinkRefused | LinkHeld => {
                let node = self.dice.below(self.nodes.len());
                let taken = self.nodes[node].clone().try_lock_owned().ok()?;
                Some(Taken::Link(taken, self.proxies[node].clone()))
            }
            RedisKilled | RedisPaused | RedisEmptied | RedisFlushed | SlotMoved => {
                self.store.clone().try_lock_owned().ok().map(Taken::Store)
            }
        }
    }
}

async fn happen(fault: Fault, taken: Taken, mut dice: Dice, court: Arc<Court>) {
    match taken {
        Taken::Node(node) => node_fails(fault, node, &mut dice, &court).await,
        Taken::Link(_node, proxy) => link_fails(fault, &proxy, &mut dice, &court).await,
        Taken::Store(mut store) => {
            store_fails(fault, &mut store, &mut dice, &court).await;
            // What happens to Redis next finds nodes that have come back to it.
            lasts(&mut dice, 1500, 3500).await;
        }
    }
}

async fn lasts(dice: &mut Dice, least_ms: u64, most_ms: u64) {
    sleep(Duration::from_millis(dice.between(least_ms, most_ms))).await;
}

async fn node_fails(fault: Fault, mut node: OwnedMutexGuard<Node>, dice: &mut Dice, court: &Court) {
    if fault == NodeStopped {
        court.count("fault: node stopped");
        node.stop().await;
    } else {
        court.count("fault: node killed");
        node.kill();
    }
    lasts(dice, 0, 2000).await;
    node.start(dice.percent(50)).await;
}

async fn link_fails(fault: Fault, proxy: &TcpProxy, dice: &mut Dice, court: &Court) {
    match fault {
        LinkRefused => {
            court.count("fault: link refused");
            proxy.refuse();
            lasts(dice, 200, 3000).await;
        }
        LinkHeld => {
            court.count("fault: link held");
            proxy.hold();
            // For so long that the others take the node for dead, or not.
            let (least, most) = if dice.percent(20) { (9000, 12_000) } else { (200, 5000) };
            lasts(dice, least, most).await;
        }
        _ => {
            court.count("fault: link cut");
            proxy.cut();
        }
    }
    proxy.open();
}

async fn store_fails(fault: Fault, store: &mut Store, dice: &mut Dice, court: &Court) {
    let one = dice.below(store.servers().len());
    match fault {
        RedisPaused => {
            court.count("fault: Redis paused");
            store.servers()[one].pause();
            lasts(dice, 200, 4500).await;
            store.servers()[one].resume();
            if let Store::Cluster(cluster) = store {
                cluster.is_whole().await;
            }
        }
        RedisEmptied => {
            court.count("fault: Redis emptied");
            court.ledger().emptied += 1;
            let redis = &mut store.servers_mut()[one];
            redis.stop();
            std::fs::remove_dir_all(redis.folder.path().join("appendonlydir")).unwrap();
            lasts(dice, 0, 1500).await;
            redis.restart().await;
        }
        RedisFlushed => {
            court.count("fault: Redis flushed");
            court.ledger().emptied += 1;
            for redis in store.servers() {
                redis.flush().await;
            }
        }
        SlotMoved => {
            let Store::Cluster(cluster) = store else { return };
            court.count("fault: slot moved");
            let room = dice.below(court.ledger().rooms.len());
            let key = format!("chaos:{{default/{}}}", court.ledger().rooms[room].name);
            let slot = cluster.slot(&key).await;
            let from = cluster.owner(slot).await;
            let moving = cluster.begin_move(slot, (from + 1 + dice.below(2)) % 3).await;
            lasts(dice, 0, 300).await;
            moving.move_keys().await;
            lasts(dice, 0, 300).await;
            moving.move_keys().await;
            moving.end().await;
        }
        _ => {
            court.count("fault: Redis killed");
            let redis = &mut store.servers_mut()[one];
            redis.stop();
            lasts(dice, 0, 2500).await;
            redis.restart().await;
            if let Store::Cluster(cluster) = store {
                cluster.is_whole().await;
            }
        }
    }
}
