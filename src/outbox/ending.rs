//! The end of a socket: the Close goes out, what still comes is thrown away, then TCP is closed
//! (RFC 6455, section 7.1.1), so that the code is not lost to a reset.
use super::{Flush, Peer};
use std::cell::RefCell;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use tokio::time::timeout;

/// Longest time, and most bytes, that a closed peer is listened to.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// Flushes what is queued (the Close is its last frame), throws away input until the peer closes,
/// and ends the connection. Takes at most 2 s. `peer_is_done`: the peer's own Close has come, and
/// it waits for the end of TCP; it is listened to only where it sends on all the same.
///
/// A stream of HTTP/2 is ended after the peer has answered the Close, or ended it, and the peer's own end is waited for:
/// Chromium forgets a Close that comes with the end of the stream, and a stream that is only half ended has to be reset,
/// which clients take for a fault.
pub async fn linger(peer: &RefCell<Peer>, scratch: &RefCell<Vec<u8>>, peer_is_done: bool) {
    let mut thrown_away = 0;
    let (mut down, mut heard) = (false, peer_is_done);
    let in_turn = peer.borrow().ends_in_turn();
    let ending = poll_fn(|cx| {
        let mut peer = peer.borrow_mut();
        loop {
            let flushed = peer.poll_flush(cx);
            match flushed {
                Poll::Ready(Flush::Failed) => return Poll::Ready(()),
                Poll::Ready(_) if !down && (heard || !in_turn) => {
                    if let Poll::Ready(result) = peer.poll_shutdown(cx) {
                        down = true;
                        if result.is_err() {
                            return Poll::Ready(());
                        }
                    }
                }
                _ => (),
            }
            match peer.poll_read(cx, &mut scratch.borrow_mut()) {
                Poll::Pending if down && peer_is_done && thrown_away == 0 && !in_turn => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
                // Our own end is still to be said.
                Poll::Ready(Ok(0)) if in_turn && !down && flushed.is_ready() => heard = true,
                // Half closed: it may still read what is queued.
                Poll::Ready(Ok(0)) => {
                    heard = true;
                    return flushed.map(drop);
                }
                Poll::Ready(Ok(n)) => {
                    heard = true;
                    thrown_away += n;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
            }
            if thrown_away > LINGER_BYTES {
                return Poll::Ready(());
            }
        }
    });
    let _ = timeout(LINGER, ending).await;
    if in_turn && peer.borrow().backlog() == 0 {
        // The Close is out; dropped without an end, the stream would take it back.
        let _ = poll_fn(|cx| peer.borrow_mut().poll_shutdown(cx)).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::outbox::wire::Wire;
    use bytes::Bytes;
    use futures_util::future::join;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    /// Says goodbye over a pipe of 1,000 bytes to what `peer` does at the other end. How long it took.
    async fn goodbye<T>(peer_is_done: bool, peer: impl AsyncFnOnce(tokio::io::DuplexStream) -> T) -> (Duration, T) {
        let (theirs, ours) = duplex(1000);
        let started = Instant::now();
        let ours = async {
            let (peer, scratch) = (RefCell::new(Peer::new(Wire::Pipe(ours))), RefCell::new(vec![0; 500]));
            peer.borrow_mut().push(Bytes::from_static(b"bye"));
            linger(&peer, &scratch, peer_is_done).await;
            started.elapsed()
        };
        // What the peer sends at once is there when the goodbye begins.
        let (heard, took) = join(peer(theirs), ours).await;
        (took, heard)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_done_is_not_waited_for() {
        let (took, mut theirs) = goodbye(true, async |theirs| theirs).await;
        assert_eq!(took, Duration::ZERO);
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"bye");
    }

    /// Closed with input that is not read, TCP would be reset, and the code lost.
    #[tokio::test(start_paused = true)]
    async fn what_a_peer_sends_after_its_close_is_thrown_away() {
        for peer_is_done in [true, false] {
            let (took, heard) = goodbye(peer_is_done, async |mut theirs| {
                theirs.write_all(&[0; 50_000]).await.expect("the connection was cut");
                let mut heard = Vec::new();
                theirs.read_to_end(&mut heard).await.unwrap();
                heard
            })
            .await;
            assert_eq!(took, Duration::ZERO);
            assert_eq!(heard, b"bye");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_close_is_waited_for_two_seconds() {
        let (took, _theirs) = goodbye(false, async |theirs| theirs).await;
        assert_eq!(took, LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_stop_is_heard_for_a_mebibyte() {
        let (_, sent) = goodbye(false, async |mut theirs| {
            let mut sent = 0;
            while theirs.write_all(&[0; 100]).await.is_ok() {
                sent += 100;
            }
            sent
        })
        .await;
        assert!((LINGER_BYTES..LINGER_BYTES + 10_000).contains(&sent), "{sent}");
    }
}
