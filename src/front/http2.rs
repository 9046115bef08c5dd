//! HTTP/2 in front (RFC 9113), with WebSockets by extended CONNECT (RFC 8441). h2 speaks the protocol; one task moves
//! the bytes of a connection, and each of its streams is another's: a request's, then perhaps a session's.
mod exchange;
mod guard;
mod received;
mod request;
mod send;

pub use received::Received;

use super::patient::{Patient, STUCK_MAX};
use super::{Front, Opens};
use crate::admission::Entrance;
use crate::metrics::{Handshake, Refused};
use crate::outbox::wire::STREAM_BACKLOG;
use bytes::Bytes;
use guard::Guard;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use hyper::Request;
use std::cell::Cell;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_local;
use tokio::time::{Sleep, sleep, timeout};

/// Streams of one connection at once.
const STREAMS_MAX: u32 = 128;
/// The largest head, as HTTP/2 counts it (RFC 9113, section 6.5.2); beyond it h2 answers 431, and beyond four times as
/// much it ends the connection.
const HEAD_MAX: u32 = 16 * 1024;
/// Bytes that one stream may send before they are read; and all together, so that no stream holds up another.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = STREAMS_MAX * STREAM_WINDOW;
/// What DATA frames that wait to be read may lack to 256 bytes, all together.
const SMALL_DATA: usize = 512 * 1024;
/// How long a connection may have no request and no session.
const IDLE: Duration = Duration::from_secs(60);
/// How long a peer has to agree that it ends.
const LEAVE: Duration = Duration::from_secs(1);

/// Serves the requests of one connection. The first SETTINGS, and every header block, must be there within
/// `head_timeout`.
pub(super) async fn serve<S>(front: Rc<Front>, stream: S, entrance: Rc<Entrance>, head_timeout: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (guard, flooded) = Guard::new(Patient::new(stream), head_timeout);
    let connection = match timeout(head_timeout, settings().handshake(guard)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return front.around.shard.metrics().handshake(outcome(&error)),
        Err(_) => return front.around.shard.metrics().handshake(Handshake::HeadTimeout),
    };
    let opens = front.opening.enter();
    let stopped = Some(Box::pin(front.opening.stopped()) as Pin<Box<dyn Future<Output = ()>>>);
    Served { front, connection, entrance, flooded, stopped, owed: true, ending: false, idle: None, _opens: opens }
        .run()
        .await;
}

fn settings() -> Builder {
    let mut settings = Builder::new();
    settings
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_MAX)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(SMALL_DATA)
        .max_send_buffer_size(STREAM_BACKLOG)
        // A browser that leaves a page takes back all of its requests at once.
        .max_pending_accept_reset_streams(STREAMS_MAX as usize);
    settings
}

/// A connection that is served.
struct Served<S> {
    front: Rc<Front>,
    connection: Connection<S, Bytes>,
    /// Whoever uses the connection holds it too: requests, and sessions until they are written down.
    entrance: Rc<Entrance>,
    flooded: Rc<Cell<bool>>,
    /// Ready when the gateway stops; taken then.
    stopped: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// No request has come: the lack of one has an outcome.
    owed: bool,
    /// A GOAWAY was sent.
    ending: bool,
    /// Runs while nobody uses the connection.
    idle: Option<Pin<Box<Sleep>>>,
    _opens: Opens,
}

/// What a connection has to do.
enum Event {
    Ended(Result<(), h2::Error>),
    Flooded,
    Stop,
    Idle,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Served<S> {
    async fn run(mut self) {
        loop {
            match poll_fn(|cx| self.poll_event(cx)).await {
                Event::Flooded => {
                    self.front.around.shard.metrics().refused(Refused::Flood);
                    self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                }
                Event::Idle if self.ending => self.connection.abrupt_shutdown(Reason::NO_ERROR),
                Event::Stop | Event::Idle => {
                    self.ending = true;
                    self.connection.graceful_shutdown();
                }
                Event::Ended(ended) => {
                    let metrics = self.front.around.shard.metrics();
                    if let Err(error) = &ended
                        && error.is_library()
                        && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
                    {
                        metrics.refused(Refused::Flood);
                    }
                    if self.owed {
                        metrics.handshake(ended.map_or_else(|error| outcome(&error), |()| Handshake::Disconnected));
                    }
                    return;
                }
            }
        }
    }

    fn begin(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        self.owed = false;
        spawn_local(exchange::run(self.front.clone(), self.entrance.clone(), request, respond));
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        while let Poll::Ready(accepted) = self.connection.poll_accept(cx) {
            match accepted {
                Some(Ok((request, respond))) => self.begin(request, respond),
                Some(Err(error)) => return Poll::Ready(Event::Ended(Err(error))),
                None => return Poll::Ready(Event::Ended(Ok(()))),
            }
        }
        if self.flooded.replace(false) {
            return Poll::Ready(Event::Flooded);
        }
        if self.stopped.as_mut().is_some_and(|stopped| stopped.as_mut().poll(cx).is_ready()) {
            self.stopped = None;
            // How long it was idle before counts no more.
            self.idle = None;
            return Poll::Ready(Event::Stop);
        }
        if Rc::strong_count(&self.entrance) > 1 {
            self.idle = None;
            return Poll::Pending;
        }
        let wait = match (self.ending, self.connection.has_streams()) {
            (false, _) => IDLE,
            // The end of an answer is still on its way.
            (true, true) => STUCK_MAX,
            (true, false) => LEAVE,
        };
        let idle = self.idle.get_or_insert_with(|| Box::pin(sleep(wait)));
        idle.as_mut().poll(cx).map(|()| {
            self.idle = None;
            Event::Idle
        })
    }
}

/// How a connection ended that brought no request.
fn outcome(error: &h2::Error) -> Handshake {
    match error.get_io().map(std::io::Error::kind) {
        Some(ErrorKind::TimedOut) => Handshake::HeadTimeout,
        Some(ErrorKind::InvalidData) => Handshake::Malformed,
        Some(_) => Handshake::Disconnected,
        None if error.is_library() => Handshake::Malformed,
        None => Handshake::Disconnected,
    }
}

#[cfg(test)]
mod tests;
