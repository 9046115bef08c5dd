//! The servers of each upstream, in round robin.
use super::handshake::{self, Backend, Forward, Unopened};
use crate::config;
use hyper::StatusCode;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Every upstream of the configuration, shared by all shards.
pub struct Upstreams {
    pools: Vec<Pool>,
}

struct Pool {
    configured: Arc<config::Upstream>,
    /// How many connections were asked for, modulo the number of servers: whose turn it is.
    turn: AtomicUsize,
}

impl Upstreams {
    /// The upstreams in the order of [`config::Config::upstreams`].
    pub fn new(configured: &[Arc<config::Upstream>]) -> Arc<Upstreams> {
        let pool = |configured: &Arc<config::Upstream>| Pool { configured: configured.clone(), turn: 0.into() };
        Arc::new(Upstreams { pools: configured.iter().map(pool).collect() })
    }

    /// Connects to a server of `Config::upstreams[upstream]` and upgrades there. Takes at most `connect_timeout` for
    /// each server that is tried, and 10 s for the answer. Where no connection can be made, as many other servers as
    /// `retries` says are tried; once a request was sent, none. Must run on the thread of a tokio runtime.
    ///
    /// # Errors
    /// [`Unopened::Answer`] where the backend refuses, [`Unopened::Unavailable`] where none can be reached in time or
    /// the answer is no valid upgrade.
    ///
    /// # Panics
    /// Where there is no such upstream.
    pub async fn open(&self, upstream: usize, forward: Forward<'_>) -> Result<Backend, Unopened> {
        let pool = &self.pools[upstream];
        let mut refused = Unopened::Unavailable {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason: format!("upstream {} has no server", pool.configured.name),
        };
        for server in pool.candidates() {
            match pool.connect(server).await {
                Ok(stream) => {
                    let preserve_host = pool.configured.preserve_host;
                    return handshake::upgrade(stream, server, preserve_host, forward).await;
                }
                Err(unopened) => refused = unopened,
            }
        }
        Err(refused)
    }
}

impl Pool {
    /// The server whose turn it is, then those that may be tried after it.
    fn candidates(&self) -> impl Iterator<Item = &config::Backend> {
        let servers = &self.configured.servers;
        let first = self.turn.fetch_add(1, Relaxed) % servers.len().max(1);
        let tries = (self.configured.retries as usize).saturating_add(1);
        servers.iter().cycle().skip(first).take(servers.len().min(tries))
    }

    /// The look-up of a name is part of the time; it runs on tokio's threads for blocking calls.
    async fn connect(&self, server: &config::Backend) -> Result<TcpStream, Unopened> {
        let connect = async {
            let stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
            stream.set_nodelay(true)?;
            io::Result::Ok(stream)
        };
        let (status, why) = match timeout(self.configured.connect_timeout, connect).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => (StatusCode::BAD_GATEWAY, error.to_string()),
            Err(_) => (StatusCode::GATEWAY_TIMEOUT, "connect timed out".to_owned()),
        };
        Err(Unopened::Unavailable { status, reason: format!("{}: {why}", server.url) })
    }
}
