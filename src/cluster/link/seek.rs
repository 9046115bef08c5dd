//! Which servers are masters now, and of what.
use super::redis::{Fault, Greeting, Redis, Talk};
use crate::cluster::script::Reply;
use crate::cluster::slots::{SLOTS, Slots};
use crate::config::RedisServer;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a server is asked, connecting to it included.
const ASKED_FOR: Duration = Duration::from_secs(2);
/// Most masters of a cluster: what Redis is made for.
const MASTERS_MAX: usize = 1000;

/// Most servers of whom is said why they were asked in vain.
const FAULTS_MAX: usize = 5;

/// The masters.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Each with its slots.
    pub masters: Vec<(RedisServer, Slots)>,
    /// Whether they are a Redis Cluster, whose slots may move.
    pub cluster: bool,
}

/// Finding out.
pub type Seeking = Pin<Box<dyn Future<Output = Result<Found, String>> + Send>>;

/// Asks one server after another, until one knows.
///
/// # Errors
/// Why each of them, or of the first ones, was asked in vain.
pub async fn seek(redis: Arc<Redis>, servers: Vec<RedisServer>) -> Result<Found, String> {
    let mut faults = Vec::new();
    for server in &servers {
        let asked = timeout(ASKED_FOR, ask(&redis, server)).await;
        match asked.unwrap_or(Err(Fault::Wrong("it does not answer"))) {
            Ok(found) => return Ok(found),
            Err(fault) if faults.len() < FAULTS_MAX => {
                faults.push(format!("{}:{}: {fault}", server.host, server.port));
            }
            Err(_) => {}
        }
    }
    Err(faults.join("; "))
}

async fn ask(redis: &Redis, server: &RedisServer) -> Result<Found, Fault> {
    let (mut talk, greeting) = redis.greet(server, redis.sentinel_master.is_some()).await?;
    match greeting {
        Greeting::Master if redis.sentinel_master.is_some() => {
            Err(Fault::Wrong("it is no Sentinel, and the URL names a master that Sentinels are asked for"))
        }
        Greeting::Master => Ok(one(server.clone())),
        Greeting::Replica => Err(Fault::Wrong("it is a replica")),
        Greeting::Sentinel => named(redis, &mut talk).await,
        Greeting::Cluster { .. } => {
            talk.expect_cluster_up().await?;
            let slots = talk.ask(&[b"CLUSTER", b"SLOTS"]).await?;
            let masters = masters_of(&slots, server).ok_or(Fault::Wrong("its map of slots cannot be read"))?;
            Ok(Found { masters, cluster: true })
        }
    }
}

fn one(server: RedisServer) -> Found {
    Found { masters: vec![(server, Slots::all())], cluster: false }
}

/// The master that a Sentinel names, once it calls itself one.
async fn named(redis: &Redis, sentinel: &mut Talk) -> Result<Found, Fault> {
    let Some(name) = &redis.sentinel_master else {
        return Err(Fault::Wrong("it is a Sentinel, and the URL names no master"));
    };
    let answer = sentinel.ask(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name.as_bytes()]).await?;
    let server = match answer.list() {
        Some([host, port]) => server_of(host, port, None),
        Some(_) | None => return Err(Fault::Wrong("the Sentinel knows no master of this name")),
    };
    let server = server.ok_or(Fault::Wrong("the Sentinel names no address"))?;
    match redis.greet(&server, false).await?.1 {
        Greeting::Master => Ok(one(server)),
        Greeting::Replica | Greeting::Cluster { .. } | Greeting::Sentinel => {
            Err(Fault::Wrong("what the Sentinel names is no master yet"))
        }
    }
}

/// Of `CLUSTER SLOTS`: lists of first slot, last slot, master, replicas. A server without a host is that which was asked.
fn masters_of(answer: &Reply, asked: &RedisServer) -> Option<Vec<(RedisServer, Slots)>> {
    let mut masters: Vec<(RedisServer, Slots)> = Vec::new();
    let ranges = answer.list().filter(|ranges| ranges.len() <= usize::from(SLOTS))?;
    for range in ranges {
        let [first, last, master, ..] = range.list()? else { return None };
        let slot = |reply: &Reply| reply.int().and_then(|n| u16::try_from(n).ok()).filter(|n| *n < SLOTS);
        let (first, last) = (slot(first)?, slot(last)?);
        let [host, port, ..] = master.list()? else { return None };
        let server = server_of(host, port, Some(asked))?;
        if first > last {
            return None;
        }
        match masters.iter().position(|(known, _)| *known == server) {
            Some(at) => masters[at].1.0.push((first, last)),
            None if masters.len() == MASTERS_MAX => return None,
            None => masters.push((server, Slots(vec![(first, last)]))),
        }
    }
    Some(masters)
}

fn server_of(host: &Reply, port: &Reply, asked: Option<&RedisServer>) -> Option<RedisServer> {
    let host = host.text().filter(|host| !host.is_empty() && host.len() <= 255);
    let host = host.map(Arc::from).or_else(|| Some(asked?.host.clone()))?;
    Some(RedisServer { host, port: u16::try_from(port.int()?).ok()? })
}
