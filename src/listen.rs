//! Sockets that listen: connections are accepted on the main thread, judged by their address, and
//! handed to the least loaded shard. A connection never moves again.
mod bind;
mod intake;

pub use bind::{Bound, bind};
pub use intake::{Intake, Job, Sockets, run};

use crate::admission::refusal::Refusal;
use crate::admission::{Gate, Knock};
use crate::metrics::{Handshake, Metrics};
use bytes::Bytes;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// How long accepting rests when descriptors or memory are short.
const PAUSE: Duration = Duration::from_millis(100);
/// Refused connections without TLS that are still told why.
const TOLD_MAX: usize = 64;
/// How long one of them may take.
const TELL: Duration = Duration::from_secs(1);

/// A connection on its way to a shard.
pub struct Arrival {
    /// The socket.
    pub socket: Accepted,
    /// Its permits.
    pub knock: Knock,
    /// Its listener.
    pub listener: usize,
}

/// An accepted socket that belongs to no runtime yet.
pub enum Accepted {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A Unix stream socket.
    Unix(std::os::unix::net::UnixStream),
}

/// Accepts what comes to one socket.
pub struct Acceptor {
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    shards: Vec<Intake>,
    told: Arc<Semaphore>,
}

impl Acceptor {
    /// Hands connections to these shards.
    pub fn new(gate: Arc<Gate>, metrics: Arc<Metrics>, shards: Vec<Intake>) -> Acceptor {
        Acceptor { gate, metrics, shards, told: Arc::new(Semaphore::new(TOLD_MAX)) }
    }

    /// Accepts until it is dropped. While every shard's queue is full, or the process has no
    /// descriptors left, connections wait in the kernel's queue.
    pub async fn run(&self, bound: Bound) {
        let mut paused = false;
        loop {
            match bound.accept().await {
                Ok((socket, peer)) => {
                    if std::mem::take(&mut paused) {
                        tracing::info!(target: "wsgate::listen", address = %bound.address, "accepting goes on");
                    }
                    self.arrived(socket, peer, bound.listener).await;
                }
                Err(error) => self.failed(&error, &bound, &mut paused).await,
            }
        }
    }

    async fn failed(&self, error: &io::Error, bound: &Bound, paused: &mut bool) {
        // What a peer did while its connection was in the queue is no fault of ours.
        let passing = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted];
        if passing.contains(&error.kind()) {
            return;
        }
        // Once, however long it takes.
        if !std::mem::replace(paused, true) {
            tracing::warn!(target: "wsgate::listen", address = %bound.address, %error, "accepting pauses");
        }
        self.metrics.elsewhere().accept_paused();
        sleep(PAUSE).await;
    }

    async fn arrived(&self, socket: Accepted, peer: Option<IpAddr>, listener: usize) {
        match self.gate.knock(peer, listener) {
            Ok(knock) => {
                let least = self.shards.iter().min_by_key(|s| s.load.now());
                if let Some(shard) = least {
                    shard.send(Arrival { socket, knock, listener }).await;
                }
            }
            Err(denied) => {
                let refusal = Refusal::denied(denied);
                self.metrics.elsewhere().refused(refusal.reason);
                self.metrics.elsewhere().handshake(Handshake::Refused);
                let tls = !self.gate.config().listeners[listener].tls.is_empty();
                if let Ok(place) = self.told.clone().try_acquire_owned()
                    && !tls
                {
                    tokio::spawn(async move {
                        let _ = timeout(TELL, tell(socket, refusal)).await;
                        drop(place);
                    });
                }
            }
        }
    }
}

/// Answers a connection that found no place, without looking at what it asks.
async fn tell(socket: Accepted, refusal: Refusal) -> io::Result<()> {
    let body = refusal.body();
    let wait = refusal.retry_after_seconds().unwrap_or(1);
    let status = refusal.status;
    let text = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nRetry-After: {wait}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len()
    );
    let mut socket = socket.into_socket()?;
    socket.write_all(&Bytes::from(text)).await?;
    socket.shutdown().await?;
    // What the peer still sends is read, or a reset would take the answer from it.
    let mut rest = [0; 1024];
    while socket.read(&mut rest).await? > 0 {}
    Ok(())
}
