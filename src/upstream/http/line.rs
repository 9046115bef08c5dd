//! Connections to servers, kept between requests.
use super::exchange::{Exchange, Quiet};
use super::upload::Upload;
use crate::outbox::wire::Stream;
use crate::upstream::server::Server;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, interval};

/// Connections of one server that are kept for another request, on each shard.
pub(super) const IDLE_MAX: usize = 128;
/// How long one is kept.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// How often those that are too old, or that the server has closed, are put away.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// The largest head of an answer, and what is read ahead of one body.
pub(in crate::upstream) const BUFFER_MAX: usize = 64 * 1024;

/// A connection to a server. Dropping it closes it.
pub(super) struct Line {
    pub(super) sender: SendRequest<Upload>,
    pub(super) server: Arc<Server>,
    task: AbortHandle,
}

impl Line {
    /// HTTP/1.1 over a fresh connection.
    pub(super) async fn new(stream: Stream, server: Arc<Server>) -> hyper::Result<Line> {
        let (sender, connection) =
            http1::Builder::new().max_buf_size(BUFFER_MAX).handshake(TokioIo::new(stream)).await?;
        let task = spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(target: "wsgate::upstream", %error, "a connection ended");
            }
        });
        Ok(Line { sender, server, task: task.abort_handle() })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The connections that one shard keeps. Those of a server whose connections begin with a client's address are not kept.
#[derive(Default)]
pub struct Lines(RefCell<HashMap<*const Server, Vec<Idle>>>);

/// Holds the server, so that its address stays its own.
struct Idle {
    line: Line,
    since: Instant,
}

impl Lines {
    /// Puts away what has been kept too long, from time to time.
    pub async fn sweep(self: Rc<Self>) {
        let mut turn = interval(SWEEP_EVERY);
        loop {
            turn.tick().await;
            self.0.borrow_mut().retain(|_, idle| {
                idle.retain(|idle| idle.since.elapsed() < IDLE_TIME && !idle.line.sender.is_closed());
                idle.shrink_to_fit();
                !idle.is_empty()
            });
        }
    }

    /// The connection that was used last, of those that can be used now.
    pub(super) fn take(&self, server: &Arc<Server>) -> Option<Line> {
        let mut all = self.0.borrow_mut();
        let idle = all.get_mut(&Arc::as_ptr(server))?;
        idle.retain(|idle| !idle.line.sender.is_closed());
        // One whose answer has just ended may not have noticed it yet.
        let place = idle.iter().rposition(|idle| idle.line.sender.is_ready() && idle.since.elapsed() < IDLE_TIME)?;
        Some(idle.remove(place).line)
    }

    /// An answer has ended. Where the request has not, as an answer may come early, its connection goes on until it has.
    pub(super) fn give_back(self: &Rc<Self>, line: Line, exchange: &Rc<Exchange>) {
        if exchange.is_held() || line.sender.is_closed() {
            return;
        }
        if !exchange.is_uploading() {
            return self.keep(line);
        }
        let (lines, mut quiet) = (self.clone(), Quiet::new(exchange.clone()));
        spawn_local(async move {
            let mut line = line;
            let ready = tokio::select! {
                ready = line.sender.ready() => ready.is_ok(),
                () = quiet.expired() => false,
            };
            if ready {
                lines.keep(line);
            }
        });
    }

    fn keep(&self, line: Line) {
        if line.server.upstream.proxy_protocol {
            return;
        }
        let mut all = self.0.borrow_mut();
        let idle = all.entry(Arc::as_ptr(&line.server)).or_default();
        if idle.len() == IDLE_MAX {
            // The oldest is the likeliest to be closed by the server.
            idle.remove(0);
        }
        idle.push(Idle { line, since: Instant::now() });
    }
}
