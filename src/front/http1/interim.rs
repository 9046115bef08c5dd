//! Informational answers (RFC 9110, section 15.2). hyper's server has no way to send them, so that they are written past
//! it, where it has nothing half written.
use hyper::Response;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Where informational answers to the request that is being judged go.
#[derive(Clone, Default)]
pub(super) struct Interim(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    /// Whole answers, but for what of the first is written already.
    bytes: Vec<u8>,
    /// hyper has written something since it flushed last: there may be more of it.
    begun: bool,
}

impl Interim {
    /// Only this thread comes here: hyper wants what it is given to be `Send`.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends an answer, unless the client has not taken the answer to an earlier request yet. It goes out when hyper
    /// flushes, which it does whenever the request is still being judged.
    pub(super) fn send(&self, answer: &Response<()>) {
        let mut queue = self.queue();
        if queue.begun {
            return;
        }
        let status = answer.status();
        let line = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default());
        queue.bytes.extend_from_slice(line.as_bytes());
        for (name, value) in answer.headers() {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                queue.bytes.extend_from_slice(part);
            }
        }
        queue.bytes.extend_from_slice(b"\r\n");
    }
}

/// The stream below hyper.
pub(super) struct Between<S> {
    stream: S,
    interim: Interim,
}

impl<S> Between<S> {
    pub(super) fn new(stream: S, interim: Interim) -> Between<S> {
        Between { stream, interim }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncWrite + Unpin> Between<S> {
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut queue = self.interim.queue();
        while !queue.bytes.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &queue.bytes))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(queue.bytes.drain(..written)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Between<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Between<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        self.interim.queue().begun = true;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        self.interim.queue().begun = true;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx))?;
        // hyper flushes when it has written all that it had.
        self.interim.queue().begun = false;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn hint() -> Response<()> {
        Response::builder().status(103).header("link", "</a>").body(()).unwrap()
    }

    #[tokio::test]
    async fn a_hint_stands_between_answers() {
        let (stream, mut peer) = tokio::io::duplex(1024);
        let interim = Interim::default();
        let mut between = Between::new(stream, interim.clone());
        between.write_all(b"one").await.unwrap();
        // Of the answer something may still be missing.
        interim.send(&hint());
        between.write_all(b"!").await.unwrap();
        between.flush().await.unwrap();
        interim.send(&hint());
        interim.send(&hint());
        between.write_all(b"two").await.unwrap();
        drop(between);
        let mut all = String::new();
        peer.read_to_string(&mut all).await.unwrap();
        let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        assert_eq!(all, format!("one!{hint}{hint}two"));
    }

    #[tokio::test]
    async fn a_hint_goes_out_by_a_flush_however_slow_the_peer_is() {
        let (stream, mut peer) = tokio::io::duplex(7);
        let interim = Interim::default();
        let mut between = Between::new(stream, interim.clone());
        interim.send(&hint());
        let expected = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        let mut seen = vec![0; expected.len()];
        let (flushed, read) = tokio::join!(between.flush(), peer.read_exact(&mut seen));
        flushed.unwrap();
        read.unwrap();
        assert_eq!(seen, expected);
    }
}
