//! Bodies of requests and answers, whatever they are made of.
use super::http2::Received;
use super::leftover::Leftover;
use super::pass::Passing;
pub use crate::upstream::BodyError;
use crate::upstream::Refused;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A body, as it comes or as it goes.
pub enum Body {
    /// There from the start.
    Full(Full<Bytes>),
    /// Of a backend that refuses an upgrade.
    Refused(Box<Refused>),
    /// Of a client over HTTP/1.1.
    Asked(Leftover),
    /// Of a client over HTTP/2.
    Http2(Received),
    /// A backend's answer to an ordinary request.
    Passed(Box<Passing>),
}

impl Body {
    /// None.
    pub fn empty() -> Body {
        Body::Full(Full::default())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Body::Full(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Body::Refused(body) => Pin::new(body.as_mut()).poll_frame(cx),
            Body::Asked(body) => Pin::new(body).poll_frame(cx),
            Body::Http2(body) => Pin::new(body).poll_frame(cx),
            Body::Passed(body) => Pin::new(&mut body.download).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Full(body) => body.is_end_stream(),
            Body::Refused(body) => body.is_end_stream(),
            Body::Asked(body) => body.is_end_stream(),
            Body::Http2(body) => body.is_end_stream(),
            Body::Passed(body) => body.download.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(body) => body.size_hint(),
            Body::Refused(body) => body.size_hint(),
            Body::Asked(body) => body.size_hint(),
            Body::Http2(body) => body.size_hint(),
            Body::Passed(body) => body.download.size_hint(),
        }
    }
}
