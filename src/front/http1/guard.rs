//! Between a connection and hyper's parser, which is lenient: it sees no byte of a request that breaks the grammar.
use super::framing::{Walked, Walker};
use super::turn::Turns;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is held back behind a request that is not answered. More is left to the kernel, and hides that the client
/// leaves.
const HELD_MAX: usize = 16 * 1024;

/// A stream that is followed as it is read. Within a head the first bad byte comes as a NUL, which no head may have, so
/// that the answer is 400; within a body reading fails there. Nothing is read behind it. What comes behind a request is
/// held back until that is answered.
pub(super) struct Guard<S> {
    stream: S,
    walker: Walker,
    broken: bool,
    turns: Turns,
    /// How many requests have ended.
    requests: u64,
    held: Vec<u8>,
}

impl<S> Guard<S> {
    pub(super) fn new(stream: S, turns: Turns) -> Guard<S> {
        Guard { stream, walker: Walker::new(), broken: false, turns, requests: 0, held: Vec::new() }
    }

    /// The stream, and what was read of it and held back.
    pub(super) fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.held)
    }

    /// Follows what stands in the buffer from `start`, and cuts it off behind what is good of it.
    fn follow(&mut self, buffer: &mut ReadBuf<'_>, start: usize) -> io::Result<()> {
        let fresh = &mut buffer.filled_mut()[start..];
        let place = match self.walker.walk(fresh) {
            Walked::Open => return Ok(()),
            Walked::Ended(end) => {
                self.requests += 1;
                self.held.splice(..0, fresh[end..].iter().copied());
                buffer.set_filled(start + end);
                return Ok(());
            }
            Walked::Broken(place) => place,
        };
        self.broken = true;
        if self.walker.is_in_head() {
            fresh[place] = 0;
            buffer.set_filled(start + place + 1);
            return Ok(());
        }
        buffer.set_filled(start + place);
        if place == 0 { Err(broken()) } else { Ok(()) }
    }
}

impl<S: AsyncRead + Unpin> Guard<S> {
    /// What was held back, or else what comes.
    fn poll_more(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let some = self.held.len().min(buffer.remaining());
        buffer.put_slice(&self.held[..some]);
        self.held.drain(..some);
        if self.held.is_empty() {
            self.held = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Holds back what comes. Ready at the end of the stream.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held.len() < HELD_MAX {
            let mut bytes = [0; 1024];
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.held.extend_from_slice(buffer.filled());
        }
        Poll::Pending
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the body breaks the grammar of HTTP/1.1")
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.broken {
            return Poll::Ready(Err(broken()));
        }
        if self.turns.poll_answered(self.requests, cx).is_pending() {
            return self.poll_end(cx);
        }
        let start = buffer.filled().len();
        ready!(self.poll_more(cx, buffer))?;
        Poll::Ready(self.follow(buffer, start))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
