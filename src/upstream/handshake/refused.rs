//! What a backend says to an upgrade that it refuses.
use super::super::http::BodyError;
use super::super::server::Lease;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// The body of a backend's refusal, as it comes. It breaks off with an error where the backend's breaks off, or nothing
/// comes for the upstream's `idle_timeout`. Dropped, it closes the connection.
#[derive(Debug)]
pub struct Refused {
    body: Incoming,
    idle_timeout: Option<Duration>,
    /// Runs while the backend is waited for.
    idle: Option<Pin<Box<Sleep>>>,
    _lease: Lease,
}

impl Refused {
    pub(super) fn new(body: Incoming, lease: Lease) -> Refused {
        Refused { body, idle_timeout: lease.server.upstream.idle_timeout, idle: None, _lease: lease }
    }
}

impl Body for Refused {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.idle = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(timeout) = this.idle_timeout else { return Poll::Pending };
        let idle = this.idle.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(idle.as_mut().poll(cx));
        Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
