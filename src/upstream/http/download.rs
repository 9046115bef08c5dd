//! An answer's body on its way to a client.
use super::exchange::{Exchange, Quiet};
use super::line::{Line, Lines};
use super::{BodyError, Lease};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// The body of a backend's answer, as it comes. It breaks off with an error where the backend's breaks off, or nothing
/// moves for `idle_timeout`. Dropped before its end it closes the connection; at its end that is kept for the next
/// request.
pub struct Download {
    body: Incoming,
    exchange: Rc<Exchange>,
    quiet: Quiet,
    /// A 304 says the length of what it does not send (RFC 9110, section 8.6). hyper would leave that out where it knew
    /// that nothing comes.
    not_modified: bool,
    /// The last poll gave nothing.
    waiting: bool,
    ended: bool,
    line: Option<Line>,
    lines: Rc<Lines>,
    _lease: Lease,
}

impl Download {
    pub(super) fn new(
        answer: Response<Incoming>,
        line: Line,
        lease: Lease,
        exchange: Rc<Exchange>,
        lines: Rc<Lines>,
    ) -> Response<Download> {
        let not_modified = answer.status() == StatusCode::NOT_MODIFIED;
        let quiet = Quiet::new(exchange.clone());
        answer.map(|body| {
            let ended = body.is_end_stream();
            let (waiting, line) = (false, Some(line));
            Download { body, exchange, quiet, not_modified, waiting, ended, line, lines, _lease: lease }
        })
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            if !std::mem::replace(&mut self.waiting, true) {
                // The client has taken what came before, however long that took.
                self.exchange.touch();
            }
            ready!(self.quiet.poll_expired(cx));
            return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())));
        };
        self.waiting = false;
        self.exchange.touch();
        let is_last = |frame: &Result<Frame<Bytes>, _>| frame.as_ref().is_ok_and(Frame::is_trailers);
        self.ended = frame.as_ref().is_none_or(is_last) || self.body.is_end_stream();
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        !self.not_modified && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.not_modified { SizeHint::default() } else { self.body.size_hint() }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if let (Some(line), true) = (self.line.take(), self.ended) {
            self.lines.give_back(line, &self.exchange);
        }
    }
}
