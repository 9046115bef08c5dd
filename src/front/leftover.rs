//! What is left of a request's body when it has been answered. A connection that is closed while bytes of the client are
//! unread is reset, and the answer may be lost with it (RFC 9112, section 9.6).
use super::BodyError;
use crate::upstream::discard;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::header::EXPECT;
use hyper::http::request::Parts;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::spawn_local;
use tokio::time::timeout;

/// How much of it is thrown away, and for how long.
const BYTES_MAX: usize = 1024 * 1024;
const TIME_MAX: Duration = Duration::from_secs(2);

/// The body of a request by HTTP/1.1; when it is dropped its rest is read for a while.
pub struct Leftover {
    body: Option<Incoming>,
    /// The client sends nothing before it is told to, and reading would tell it.
    waits: bool,
}

impl Leftover {
    pub(super) fn new(head: &Parts, body: Incoming) -> Leftover {
        Leftover { body: Some(body), waits: head.headers.contains_key(EXPECT) }
    }
}

impl Body for Leftover {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.waits = false;
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !self.waits && !body.is_end_stream()) {
            // The timer is made when the task runs, which it does not where the shard itself has ended.
            spawn_local(async { timeout(TIME_MAX, discard(body, BYTES_MAX)).await });
        }
    }
}
