//! A request's body on its way to a backend.
use super::exchange::{Exchange, Quiet};
use super::{BodyError, Source};
use crate::config::Upstream;
use crate::upstream::headers;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Pulled by hyper as the backend takes it, so that a client is read no faster than that.
pub(super) struct Upload {
    source: Source,
    exchange: Rc<Exchange>,
    upstream: Arc<Upstream>,
    quiet: Quiet,
}

impl Upload {
    pub(super) fn new(source: Source, exchange: Rc<Exchange>, upstream: Arc<Upstream>) -> Upload {
        Upload { source, quiet: Quiet::new(exchange.clone()), exchange, upstream }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        ready!(self.exchange.poll_released(cx));
        let Poll::Ready(frame) = self.source.as_mut().poll_frame(cx) else {
            ready!(self.quiet.poll_expired(cx));
            return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())));
        };
        self.exchange.touch();
        if let Some(Err(_)) = &frame {
            self.exchange.break_off();
        }
        let rules = &self.upstream.headers;
        Poll::Ready(frame.map(|frame| {
            frame.map(|mut frame| {
                if let Some(trailers) = frame.trailers_mut() {
                    headers::clean_trailers(trailers, rules);
                }
                frame
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.exchange.upload_ended();
    }
}
