//! A peer that takes no bytes holds its connection for so long and no longer. hyper has a time for
//! the head of a request, but none for a client that does not read its answer.
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long nothing of an answer may be taken.
pub(super) const STUCK_MAX: Duration = Duration::from_secs(30);
/// What the kernel takes of answers that it cannot send yet. It takes more when half of it is sent, so that a client is
/// seen to read; left alone, it would when a third of its buffer is free, which may be more than 1 MB.
pub(super) const UNSENT_MAX: u32 = 128 * 1024;

/// A stream whose writes fail where nothing is taken for [`STUCK_MAX`].
pub(super) struct Patient<S> {
    stream: S,
    /// Runs while a write waits; an idle connection has none.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S) -> Patient<S> {
        Patient { stream, stuck: None }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    fn wait<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stuck = None;
            return polled;
        }
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(STUCK_MAX)));
        stuck.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wait(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.wait(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.wait(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.wait(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::outbox::wire::{Socket, Stream};
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let (stream, _peer) = tokio::io::duplex(8);
        let began = Instant::now();
        let error = Patient::new(stream).write_all(&[0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), STUCK_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_one_is_not() {
        let (stream, mut peer) = tokio::io::duplex(8);
        let mut stream = Patient::new(stream);
        let read = async {
            for _ in 0..9 {
                tokio::time::sleep(STUCK_MAX - Duration::from_secs(1)).await;
                peer.read_exact(&mut [0; 8]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(stream.write_all(&[0; 80]), read);
        written.unwrap();
    }
    #[tokio::test]
    async fn the_kernel_takes_little_that_it_cannot_send() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        socket2::SockRef::from(&listener).set_recv_buffer_size(16 * 1024).unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_peer, _) = listener.accept().await.unwrap();
        let mut ours = Stream::Plain(Socket::Tcp(ours));
        ours.limit_unsent(UNSENT_MAX);
        let mut taken = 0;
        while let Some(written) = tokio::task::unconstrained(ours.write(&[0; 16 * 1024])).now_or_never() {
            taken += written.unwrap();
        }
        assert!((1..4 * UNSENT_MAX as usize).contains(&taken), "{taken}");
    }
}
