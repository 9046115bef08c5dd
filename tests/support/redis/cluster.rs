//! A Redis Cluster of three masters.
use super::{Redis, Setup, quiet_port};
use crate::support::eventually;
use serde_json::Value;

const SLOTS: u16 = 16_384;

/// Three masters, each with a third of the slots.
pub struct RedisCluster {
    pub nodes: Vec<Redis>,
}

/// A slot on its way from one master to another: keys that are still at the source are answered there, others are sent
/// on with ASK.
pub struct Migration<'c> {
    cluster: &'c RedisCluster,
    slot: u16,
    from: usize,
    to: usize,
}

impl RedisCluster {
    /// A cluster whose slots are all served; `None` (and a plain line) where there is no redis-server.
    pub async fn start() -> Option<RedisCluster> {
        RedisCluster::start_with(Setup::new).await
    }

    /// The same, each server set up so.
    pub async fn start_with(setup: impl Fn() -> Setup) -> Option<RedisCluster> {
        let mut nodes = Vec::new();
        let mut buses = Vec::new();
        for _ in 0..3 {
            let bus = quiet_port();
            let lines = ["cluster-enabled yes".to_owned(), format!("cluster-port {bus}")];
            let lines = lines.into_iter().chain(["cluster-node-timeout 3000".to_owned()]);
            nodes.push(lines.fold(setup(), Setup::line).start().await?);
            buses.push(bus);
        }
        let share = SLOTS.div_ceil(3);
        for (n, node) in nodes.iter().enumerate() {
            let first = n as u16 * share;
            let last = (first + share).min(SLOTS) - 1;
            node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]).await;
            node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).await;
            let (port, bus) = (node.port.to_string(), buses[n].to_string());
            nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
        }
        let cluster = RedisCluster { nodes };
        cluster.is_whole().await;
        Some(cluster)
    }

    /// As `cluster.redis` has them.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    /// Every node says that all slots are served, by as many masters.
    pub async fn is_whole(&self) {
        for node in &self.nodes {
            let is_whole = |info: &str| info.contains("cluster_state:ok") && info.contains("cluster_size:3");
            node.comes_to(&["CLUSTER", "INFO"], is_whole).await;
        }
    }

    /// The slot of a key or a channel.
    pub async fn slot(&self, key: &str) -> u16 {
        self.nodes[0].ask(&["CLUSTER", "KEYSLOT", key]).await.as_u64().unwrap() as u16
    }

    /// Which of the nodes serves a slot, as the first of them has it.
    pub async fn owner(&self, slot: u16) -> usize {
        let ranges = self.nodes[0].ask(&["CLUSTER", "SLOTS"]).await;
        let has = |range: &&Value| {
            let [first, last] = [0, 1].map(|n| range[n].as_u64().unwrap());
            (first..=last).contains(&slot.into())
        };
        let port = ranges.as_array().unwrap().iter().find(has).unwrap()[2][1].as_u64().unwrap();
        self.nodes.iter().position(|node| u64::from(node.port) == port).unwrap()
    }

    /// Moves a slot with all its keys to this node, as operators do.
    pub async fn move_slot(&self, slot: u16, to: usize) {
        let migration = self.begin_move(slot, to).await;
        migration.move_keys().await;
        migration.end().await;
    }

    /// A slot begins to move.
    pub async fn begin_move(&self, slot: u16, to: usize) -> Migration<'_> {
        let from = self.owner(slot).await;
        assert_ne!(from, to, "it is there already");
        let migration = Migration { cluster: self, slot, from, to };
        migration.set_slot(to, &["IMPORTING", &self.id(from).await]).await;
        migration.set_slot(from, &["MIGRATING", &self.id(to).await]).await;
        migration
    }

    async fn id(&self, node: usize) -> String {
        self.nodes[node].ask(&["CLUSTER", "MYID"]).await.as_str().unwrap().to_owned()
    }
}

impl Migration<'_> {
    /// Moves the keys that are there now.
    pub async fn move_keys(&self) {
        let [from, to] = [self.from, self.to].map(|node| &self.cluster.nodes[node]);
        let keys = from.ask(&["CLUSTER", "GETKEYSINSLOT", &self.slot.to_string(), "1000"]).await;
        let port = to.port.to_string();
        for key in keys.as_array().unwrap() {
            from.ask(&["MIGRATE", "127.0.0.1", &port, key.as_str().unwrap(), "0", "5000"]).await;
        }
    }

    /// The slot is the other's from now on, and all nodes know it.
    pub async fn end(self) {
        let id = self.cluster.id(self.to).await;
        for node in [self.to, self.from].into_iter().chain((0..3).filter(|n| *n != self.to && *n != self.from)) {
            self.set_slot(node, &["NODE", &id]).await;
        }
        let (cluster, slot, to) = (self.cluster, self.slot, self.to);
        eventually(|| async move { (cluster.owner(slot).await == to).then_some(()) }).await;
    }

    async fn set_slot(&self, node: usize, words: &[&str]) {
        let slot = self.slot.to_string();
        let words: Vec<&str> = ["CLUSTER", "SETSLOT", &slot].into_iter().chain(words.iter().copied()).collect();
        self.cluster.nodes[node].ask(&words).await;
    }
}
