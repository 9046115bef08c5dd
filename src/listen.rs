//! Sockets that listen: connections are accepted on the main thread, judged by their address, and
//! handed to the least loaded shard. A connection never moves again. Where a PROXY header names the address, the shard
//! judges it.
mod bind;
mod intake;
mod proxy_header;

pub use bind::{Bound, bind};
pub use intake::{Intake, Job, Sockets, run};

use crate::admission::forwarded::Ends;
use crate::admission::refusal::Refusal;
use crate::admission::{Gate, Knock};
use crate::limits::{Denied, ProcessPermit};
use crate::metrics::{Handshake, Metrics, ShardMetrics};
use crate::outbox::wire::Socket;
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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
    /// How far it was let in.
    pub let_in: LetIn,
    /// Its listener.
    pub listener: usize,
}

/// How far a connection was let in before its shard has it.
pub enum LetIn {
    /// As far as its address goes.
    Knocked(Knock),
    /// Into the process alone: a PROXY header names the address. Who sends none has no address that could be held to
    /// anything; what bounds these is the place in the process, and a deadline of their own.
    Unnamed {
        /// The place.
        process: ProcessPermit,
        /// The ends of the proxy's own connection.
        ends: Option<Ends>,
        /// Who may be told that it is not let in.
        told: Told,
    },
}

/// The places of those that are told why they are refused.
#[derive(Clone)]
pub struct Told(Arc<Semaphore>);

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
    told: Told,
}

impl Acceptor {
    /// Hands connections to these shards.
    pub fn new(gate: Arc<Gate>, metrics: Arc<Metrics>, shards: Vec<Intake>) -> Acceptor {
        Acceptor { gate, metrics, shards, told: Told(Arc::new(Semaphore::new(TOLD_MAX))) }
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

    async fn arrived(&self, socket: Accepted, ends: Option<Ends>, listener: usize) {
        match self.let_in(ends, listener) {
            Ok(let_in) => {
                let least = self.shards.iter().min_by_key(|s| s.load.now());
                if let Some(shard) = least {
                    shard.send(Arrival { socket, let_in, listener }).await;
                }
            }
            Err(denied) => {
                let tls = !self.gate.config().listeners[listener].tls.is_empty();
                let refused = self.told.refuse(denied, self.metrics.elsewhere(), tls);
                if let (Some(refused), Ok(socket)) = (refused, socket.into_socket()) {
                    tokio::spawn(refused.tell(socket));
                }
            }
        }
    }

    fn let_in(&self, ends: Option<Ends>, listener: usize) -> Result<LetIn, Denied> {
        let process = self.gate.enter()?;
        if self.gate.config().listeners[listener].proxy_protocol {
            return Ok(LetIn::Unnamed { process, ends, told: self.told.clone() });
        }
        self.gate.knock(process, ends, listener).map(LetIn::Knocked)
    }
}

impl Told {
    /// Counts a connection that found no place; it may be told why where it is not to be greeted by TLS first and few
    /// are told just now.
    fn refuse(&self, denied: Denied, metrics: &ShardMetrics, tls: bool) -> Option<Refused> {
        let refusal = Refusal::denied(denied);
        metrics.refused(refusal.reason);
        metrics.handshake(Handshake::Refused);
        let place = self.0.clone().try_acquire_owned().ok().filter(|_| !tls)?;
        Some(Refused { refusal, _place: place })
    }
}

/// A refused connection that is told why.
struct Refused {
    refusal: Refusal,
    _place: OwnedSemaphorePermit,
}

impl Refused {
    async fn tell(self, socket: Socket) {
        let _ = timeout(TELL, tell(socket, &self.refusal)).await;
    }
}

/// Answers a connection that found no place, without looking at what it asks.
async fn tell(mut socket: Socket, refusal: &Refusal) -> io::Result<()> {
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
    socket.write_all(&Bytes::from(text)).await?;
    socket.shutdown().await?;
    // What the peer still sends is read, or a reset would take the answer from it.
    let mut rest = [0; 1024];
    while socket.read(&mut rest).await? > 0 {}
    Ok(())
}
