//! Between a connection and hyper's parser, which is lenient: it sees no byte of a request that breaks the grammar.
use super::framing::Walker;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that is followed as it is read. Within a head the first bad byte comes as a NUL, which no head may have, so
/// that the answer is 400; within a body reading fails there. Nothing is read behind it.
pub(super) struct Guard<S> {
    stream: S,
    walker: Walker,
    broken: bool,
}

impl<S> Guard<S> {
    pub(super) fn new(stream: S) -> Guard<S> {
        Guard { stream, walker: Walker::new(), broken: false }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Follows what stands in the buffer from `start`, and cuts it off behind what is good of it.
    fn follow(&mut self, buffer: &mut ReadBuf<'_>, start: usize) -> io::Result<()> {
        let fresh = &mut buffer.filled_mut()[start..];
        let Some(place) = self.walker.walk(fresh) else { return Ok(()) };
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

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the body breaks the grammar of HTTP/1.1")
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.broken {
            return Poll::Ready(Err(broken()));
        }
        let start = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
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
