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
/// it waits for the end of TCP.
pub async fn linger(peer: &RefCell<Peer>, scratch: &RefCell<Vec<u8>>, peer_is_done: bool) {
    let mut thrown_away = 0;
    let mut down = false;
    let ending = poll_fn(|cx| {
        let mut peer = peer.borrow_mut();
        loop {
            match peer.poll_flush(cx) {
                Poll::Ready(Flush::Failed) => return Poll::Ready(()),
                Poll::Ready(_) if !down => {
                    if let Poll::Ready(result) = peer.poll_shutdown(cx) {
                        down = true;
                        if result.is_err() || peer_is_done {
                            return Poll::Ready(());
                        }
                    }
                }
                _ => (),
            }
            match peer.poll_read(cx, &mut scratch.borrow_mut()) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) if down => return Poll::Ready(()),
                // Half closed: it may still read what is queued.
                Poll::Ready(Ok(0)) => return if peer.backlog() == 0 { Poll::Ready(()) } else { Poll::Pending },
                Poll::Ready(Ok(n)) => thrown_away += n,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
            }
            if thrown_away > LINGER_BYTES {
                return Poll::Ready(());
            }
        }
    });
    let _ = timeout(LINGER, ending).await;
}
