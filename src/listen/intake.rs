//! A shard's way in: arrivals become connections on its thread.
use super::proxy_header::{self, Fault};
use super::{Arrival, LetIn};
use crate::admission::Entrance;
use crate::admission::forwarded::Ends;
use crate::front::{self, Front};
use crate::metrics::Handshake;
use crate::outbox::wire::{Socket, Stream};
use crate::session;
use crate::shard::{Load, LoadPermit, Place};
use crate::tls::Tls;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout, timeout_at};

/// Arrivals that may wait for one shard; then accepting pauses.
const QUEUE: usize = 1024;

/// How long after the window ordinary requests may still run. Then they are cut off: a stream of events has no other end.
const PAST_WINDOW: Duration = Duration::from_secs(1);

/// How long a PROXY header may take, within `header_timeout`: a proxy sends it at once.
const PROXY_HEADER_WITHIN: Duration = Duration::from_secs(5);

/// How a peer goes away within its TLS handshake.
const GONE: [ErrorKind; 3] = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];

/// What a shard is told from outside.
pub enum Job {
    /// A connection, and its share of the load.
    Arrival(Arrival, LoadPermit),
    /// Checks find this server unhealthy: its sessions are to be closed.
    Lost(u64),
    /// The gateway stops: close every session within this window, then end.
    Drain(Duration),
}

/// The sending end of a shard's queue.
#[derive(Clone)]
pub struct Intake {
    /// Connections that the shard has.
    pub load: Load,
    jobs: Sender<Job>,
}

/// The listeners' TLS, and how long a head may take.
pub struct Sockets(pub Vec<(Option<Arc<Tls>>, Duration)>);

impl Intake {
    /// A queue.
    pub fn new() -> (Intake, Receiver<Job>) {
        let (jobs, receiver) = channel(QUEUE);
        (Intake { load: Load::default(), jobs }, receiver)
    }

    pub(super) async fn send(&self, arrival: Arrival) {
        // A shard that has ended takes nothing more; the connection is dropped.
        let _ = self.jobs.send(Job::Arrival(arrival, self.load.add())).await;
    }

    /// Tells the shard to close its sessions with the server of this number.
    pub async fn lose(&self, server: u64) {
        let _ = self.jobs.send(Job::Lost(server)).await;
    }

    /// Tells the shard to close its sessions and end.
    pub async fn drain(&self, window: Duration) {
        let _ = self.jobs.send(Job::Drain(window)).await;
    }
}

/// Serves arrivals until the shard is told to drain, and then until its last session has ended.
pub async fn run(front: Rc<Front>, sockets: Arc<Sockets>, mut jobs: Receiver<Job>) {
    while let Some(job) = jobs.recv().await {
        match job {
            Job::Arrival(arrival, permit) => {
                let place = Place::new(front.around.shard.clone(), permit);
                tokio::task::spawn_local(connection(front.clone(), sockets.clone(), arrival, place));
            }
            Job::Lost(server) => session::lose(&front.around.shard, server),
            Job::Drain(window) => {
                let shard = &front.around.shard;
                front.opening.stop();
                shard.drain(window);
                let deadline = Instant::now() + window + PAST_WINDOW;
                while shard.sessions() > 0 || (!front.opening.is_empty() && Instant::now() < deadline) {
                    let _ = timeout_at(deadline, front.opening.emptied()).await;
                    shard.emptied().await;
                }
                return;
            }
        }
    }
}

/// A PROXY header and TLS where the listener has them, then HTTP.
async fn connection(front: Rc<Front>, sockets: Arc<Sockets>, arrival: Arrival, place: Place) {
    let (tls, head_timeout) = &sockets.0[arrival.listener];
    let deadline = Instant::now() + *head_timeout;
    let metrics = front.around.shard.metrics();
    let Ok(mut socket) = arrival.socket.into_socket() else { return metrics.handshake(Handshake::Disconnected) };
    let knock = match arrival.let_in {
        LetIn::Knocked(knock) => knock,
        LetIn::Unnamed { process, ends, told } => {
            let named = match read_ends(&mut socket, PROXY_HEADER_WITHIN.min(*head_timeout)).await {
                Ok(named) => named.or(ends),
                Err(outcome) => return metrics.handshake(outcome),
            };
            match front.around.gate.knock(process, named, arrival.listener) {
                Ok(knock) => knock,
                Err(denied) => {
                    if let Some(refused) = told.refuse(denied, metrics, tls.is_some()) {
                        tokio::task::spawn_local(refused.tell(socket));
                    }
                    return;
                }
            }
        }
    };
    let stream = match tls {
        None => Stream::Plain(socket),
        Some(tls) => match timeout_at(deadline, tls.acceptor().accept(socket)).await {
            Ok(Ok(stream)) => Stream::Tls(Box::new(stream.into())),
            Ok(Err(error)) if GONE.contains(&error.kind()) => return metrics.handshake(Handshake::Disconnected),
            Ok(Err(error)) => {
                tracing::debug!(target: "wsgate::tls", %error, "handshake failed");
                return metrics.handshake(Handshake::TlsFailed);
            }
            Err(_) => return metrics.handshake(Handshake::TlsTimeout),
        },
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let entrance = Rc::new(Entrance::new(knock, place));
    Box::pin(front::serve(front, stream, entrance, left)).await;
}

/// What the PROXY header says of a connection, or how its handshake ended for want of one.
async fn read_ends(socket: &mut Socket, within: Duration) -> Result<Option<Ends>, Handshake> {
    let why = match timeout(within, proxy_header::read(socket)).await {
        Ok(Ok(ends)) => return Ok(ends),
        Ok(Err(Fault::Gone)) => return Err(Handshake::Disconnected),
        Ok(Err(Fault::Malformed(why))) => why,
        Err(_) => "not in time",
    };
    tracing::debug!(target: "wsgate::listen", why, "no PROXY header");
    Err(Handshake::ProxyHeader)
}
