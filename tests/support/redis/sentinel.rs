//! A Sentinel, which makes a replica the master where the master does not answer for a second.
use super::{Redis, Setup};

/// The name by which it knows the master.
pub const MASTER: &str = "mymaster";

/// A Sentinel that decides alone.
pub struct Sentinel {
    pub redis: Redis,
}

impl Sentinel {
    /// A Sentinel of this master, once it knows so many replicas.
    pub async fn of(master: &Redis, replicas: usize) -> Sentinel {
        let mut setup = Setup::new()
            .line(format!("sentinel monitor {MASTER} 127.0.0.1 {} 1", master.port))
            .line(format!("sentinel down-after-milliseconds {MASTER} 1000"))
            .line(format!("sentinel failover-timeout {MASTER} 5000"));
        setup.is_sentinel = true;
        let redis = setup.start().await.unwrap();
        let known = format!("slaves={replicas},");
        redis.comes_to(&["INFO", "sentinel"], |info| info.contains("status=ok") && info.contains(&known)).await;
        Sentinel { redis }
    }

    /// `redis://127.0.0.1:PORT/mymaster`.
    pub fn url(&self) -> String {
        format!("{}/{MASTER}", self.redis.url())
    }

    /// The port of the master of now.
    pub async fn master(&self) -> u16 {
        let address = self.redis.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]).await;
        address[1].as_str().unwrap().parse().unwrap()
    }

    /// Waits until it names this server as the master, and that one says so too.
    pub async fn has_promoted(&self, server: &Redis) {
        let port = server.port.to_string();
        self.redis.comes_to(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER], |address| address.contains(&port)).await;
        server.comes_to(&["ROLE"], |role| role.contains("master")).await;
    }

    /// Asks for a failover while the master is well.
    pub async fn fail_over(&self) {
        self.redis.ask(&["SENTINEL", "FAILOVER", MASTER]).await;
    }
}
