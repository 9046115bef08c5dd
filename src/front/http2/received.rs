//! The body of a request over HTTP/2.
use super::super::BodyError;
use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use hyper::header::CONTENT_LENGTH;
use hyper::http::request::Parts;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::Notify;

/// DATA as it comes, then trailers. The client may send as much again as was taken.
pub struct Received {
    from: RecvStream,
    /// What `content-length` says is still to come; h2 holds the client to it.
    left: Option<u64>,
    /// Told when the body is wanted, where the client waits for that (`Expect: 100-continue`).
    wanted: Option<Arc<Notify>>,
    /// Only trailers are left.
    read: bool,
}

impl Received {
    pub(super) fn new(head: &Parts, from: RecvStream, wanted: Option<Arc<Notify>>) -> Received {
        let said = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let left = if from.is_end_stream() { Some(0) } else { said };
        Received { from, left, wanted, read: false }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(wanted) = this.wanted.take() {
            wanted.notify_one();
        }
        while !this.read {
            match ready!(this.from.poll_data(cx)) {
                None => this.read = true,
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(data)) if data.is_empty() => (),
                Some(Ok(data)) => {
                    // An error says that the stream is gone, and its window with it.
                    let _ = this.from.flow_control().release_capacity(data.len());
                    this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
            }
        }
        let trailers = ready!(this.from.poll_trailers(cx));
        Poll::Ready(trailers.map_err(Into::into).transpose().map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.from.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
