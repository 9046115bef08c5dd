//! The gateways of a run: started, killed, stopped, and what each of them said kept.
use crate::court::Court;
use crate::support::gateway::{Gateway, Setup};
use crate::support::{ADMIN, PLAIN, ROOMS, SECRET_AUTH};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// What stands beside `[cluster]`. Clients that are not heard of are missed soon, so that a round comes to rest.
const CONFIG: &str = r#"
[server]
shards = 2
drain = "2s"
[limits]
messages_per_second = 0
bytes_per_second = 0
connections_per_client = 0
connections_per_ip = 0
handshakes_per_second = 0
ping_interval = "3s"
pong_timeout = "5s"
[rooms]
history = { messages = 1000, age = "2h" }
duplicates = { age = "5m", per_client = 1000 }
[[rooms.policy]]
match = "small-*"
history = { messages = 20 }
[[rooms.policy]]
match = "none-*"
history = { messages = 0 }
"#;

/// Kinds of rooms: what their names begin with, how many there are, and how many messages the history keeps.
pub const KINDS: [(&str, usize, u64); 3] = [("deep", 6, 1000), ("small", 2, 20), ("none", 1, 0)];

pub struct Node {
    number: usize,
    /// Where its ways to Redis begin; none: it is alone.
    redis: Vec<String>,
    court: Arc<Court>,
    lives: usize,
    name: String,
    gateway: Option<Gateway>,
    /// Of its lives that have ended.
    logs: Vec<String>,
    /// Resident KiB when this life first came to rest.
    first_kib: Option<u64>,
}

impl Node {
    pub fn new(number: usize, redis: Vec<String>, court: Arc<Court>) -> Node {
        Node { number, redis, court, lives: 0, name: String::new(), gateway: None, logs: Vec::new(), first_kib: None }
    }

    /// Begins another life, under the name that it had, or a new one.
    pub async fn start(&mut self, rename: bool) {
        self.lives += 1;
        if rename || self.name.is_empty() {
            self.name = format!("node-{}-{}", self.number, self.lives);
        }
        let mut config = format!("{PLAIN}{SECRET_AUTH}{ROOMS}{ADMIN}{CONFIG}");
        if !self.redis.is_empty() {
            let (redis, name) = (&self.redis, &self.name);
            config += &format!("[cluster]\nredis = {redis:?}\nprefix = \"chaos\"\nnode = \"{name}\"\n");
        }
        let gateway = Setup::new().start(&config).await;
        self.court.is_at(self.number, Some(gateway.address(0).to_owned()));
        self.gateway = Some(gateway);
        self.first_kib = None;
    }

    fn end(&mut self) -> Gateway {
        self.court.is_at(self.number, None);
        self.gateway.take().expect("a node that lives")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let gateway = self.end();
        self.logs.push(gateway.log());
    }

    /// SIGTERM: it drains, and must end by itself.
    pub async fn stop(&mut self) {
        let mut gateway = self.end();
        let status = gateway.stop().await;
        self.logs.push(gateway.log());
        if !status.success() {
            self.court.fail(format!("{} was stopped, and ended with {status}", self.name));
        }
    }

    pub fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("a node that lives")
    }

    pub fn lives(&self) -> bool {
        self.gateway.is_some()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What an administrator is answered; `None` for a 404.
    pub async fn ask(&self, path: &str) -> Result<Option<Value>, String> {
        let (status, body) = self.gateway().admin_get(path).await;
        match status {
            200 => serde_json::from_str(&body).map(Some).map_err(|e| format!("{e} in {body}")),
            404 => Ok(None),
            _ => Err(format!("{} answers {path} with {status}: {body}", self.name)),
        }
    }

    /// Resident KiB when this life first came to rest, and now.
    pub fn memory_kib(&mut self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.gateway().pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let now = line.trim().trim_end_matches(" kB").parse().unwrap();
        (*self.first_kib.get_or_insert(now), now)
    }

    /// Writes what it has said in all its lives into this folder.
    pub fn keep_logs(&self, folder: &Path) {
        let now = self.gateway.as_ref().map(Gateway::log);
        for (life, log) in self.logs.iter().chain(&now).enumerate() {
            std::fs::write(folder.join(format!("node-{}-life-{}.log", self.number, life + 1)), log).unwrap();
        }
    }
}
