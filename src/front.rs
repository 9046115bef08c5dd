//! HTTP in front: requests are read, judged and answered, until one is let in and becomes a session.
mod answer;
mod body;
mod http1;
mod http2;
mod leftover;
mod pass;
mod patient;

pub use body::{Body, BodyError};

use crate::admission::Entrance;
use crate::outbox::wire::Stream;
use crate::session::Surroundings;
use crate::tls::ALPN_HTTP2;
use crate::upstream::{Lines, Upstreams};
use patient::UNSENT_MAX;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// What requests are answered with on one shard.
pub struct Front {
    /// What sessions use.
    pub around: Surroundings,
    /// The backends.
    pub upstreams: Arc<Upstreams>,
    /// Connections to them that ordinary requests share.
    pub lines: Rc<Lines>,
    /// Whether the gateway stops: nothing more is let in.
    pub draining: Arc<AtomicBool>,
    /// Requests that are being judged, or were let in and are no session yet.
    pub opening: Opening,
}

/// How many are on their way to become sessions, and connections that carry many: a shard that stops waits for them
/// too.
#[derive(Clone, Default)]
pub struct Opening(Rc<Shared>);

#[derive(Default)]
struct Shared {
    count: Cell<usize>,
    emptied: Notify,
    stopping: watch::Sender<bool>,
}

/// One of them, until it is dropped.
struct Opens(Opening);

impl Opening {
    fn enter(&self) -> Opens {
        self.0.count.set(self.0.count.get() + 1);
        Opens(self.clone())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.count.get() == 0
    }

    /// Returns when there are none.
    pub async fn emptied(&self) {
        while !self.is_empty() {
            self.0.emptied.notified().await;
        }
    }

    /// Tells the connections that carry many to take nothing more and to end.
    pub fn stop(&self) {
        self.0.stopping.send_replace(true);
    }

    /// Returns when they are to end.
    fn stopped(&self) -> impl Future<Output = ()> + use<> {
        let mut stopping = self.0.stopping.subscribe();
        async move {
            // An error is an end too.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }
}

impl Drop for Opens {
    fn drop(&mut self) {
        let Opening(shared) = &self.0;
        shared.count.set(shared.count.get() - 1);
        if shared.count.get() == 0 {
            shared.emptied.notify_one();
        }
    }
}

/// Serves the requests of one connection, in the version of HTTP that TLS has agreed on. `head_timeout` is what is left
/// for the first head, and what every later one has.
pub async fn serve(front: Rc<Front>, stream: Stream, entrance: Rc<Entrance>, head_timeout: Duration) {
    stream.limit_unsent(UNSENT_MAX);
    match stream.alpn() {
        Some(ALPN_HTTP2) => http2::serve(front, stream, entrance, head_timeout).await,
        _ => http1::serve(front, stream, entrance, head_timeout).await,
    }
}
