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

/// What is still to come of a peer whose connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaits {
    /// Its own Close has come, or is no longer waited for: it waits for the end of the connection.
    Nothing,
    /// The answer to the Close with this code, which is the last frame that is queued.
    Answer(u16),
    /// The end of the connection.
    End,
}

/// Flushes what is queued (the Close is its last frame), throws away input until the peer closes,
/// and ends the connection. Takes at most 2 s. Who [`Awaits::Nothing`] stands for is listened to only where it
/// sends on all the same.
///
/// TCP is half closed at once. A stream of HTTP/2 is not before the peer has answered: Chromium takes END_STREAM before
/// that for a connection that failed, and shows 1006 in the place of the code. Nor is it dropped before the peer has
/// ended its side, since RST_STREAM, with NO_ERROR too, makes an unclean end of it there.
pub async fn linger(peer: &RefCell<Peer>, scratch: &RefCell<Vec<u8>>, mut awaits: Awaits) {
    let mut thrown_away = 0;
    let mut down = false;
    let ending = poll_fn(|cx| {
        let mut peer = peer.borrow_mut();
        let shared = peer.is_stream_of_many();
        loop {
            let flushed = peer.poll_flush(cx);
            match flushed {
                Poll::Ready(Flush::Failed) => return Poll::Ready(()),
                Poll::Ready(_) if !down && (awaits == Awaits::Nothing || !shared) => {
                    if let Poll::Ready(result) = peer.poll_shutdown(cx) {
                        down = true;
                        if result.is_err() {
                            return Poll::Ready(());
                        }
                    }
                }
                _ => (),
            }
            let mut scratch = scratch.borrow_mut();
            match peer.poll_read(cx, &mut scratch) {
                Poll::Pending if down && awaits == Awaits::Nothing && thrown_away == 0 && !shared => {
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) if shared && awaits != Awaits::Nothing => awaits = Awaits::Nothing,
                // Half closed: it may still read what is queued.
                Poll::Ready(Ok(0)) => return flushed.map(drop),
                Poll::Ready(Ok(n)) => {
                    thrown_away += n;
                    if shared && matches!(awaits, Awaits::Answer(code) if ends_with_close(&scratch[..n], code)) {
                        awaits = Awaits::Nothing;
                    }
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
            }
            if thrown_away > LINGER_BYTES {
                return Poll::Ready(());
            }
        }
    });
    let _ = timeout(LINGER, ending).await;
    // Who has not answered in time is told the end all the same.
    poll_fn(|cx| {
        let mut peer = peer.borrow_mut();
        if !down && matches!(peer.poll_flush(cx), Poll::Ready(Flush::Done)) {
            let _ = peer.poll_shutdown(cx);
        }
        Poll::Ready(())
    })
    .await;
}

/// Whether a masked Close with this code is the last of these bytes. What comes before it is not followed, so that other
/// bytes may look like one; the code makes that rare.
fn ends_with_close(bytes: &[u8], code: u16) -> bool {
    (2..=125).any(|length| {
        let frame = bytes.len().checked_sub(6 + length).map(|at| &bytes[at..]);
        matches!(frame, Some([0x88, second, a, b, _, _, x, y, ..])
            if usize::from(*second) == 0x80 | length && [x ^ a, y ^ b] == code.to_be_bytes())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::outbox::wire::Wire;
    use crate::ws::{Opcode, masked_frame};
    use bytes::Bytes;
    use futures_util::future::join;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    /// Says goodbye over a pipe of 1,000 bytes to what `peer` does at the other end. How long it took.
    async fn goodbye<T>(awaits: Awaits, peer: impl AsyncFnOnce(tokio::io::DuplexStream) -> T) -> (Duration, T) {
        let (theirs, ours) = duplex(1000);
        let started = Instant::now();
        let ours = async {
            let (peer, scratch) = (RefCell::new(Peer::new(Wire::Pipe(ours))), RefCell::new(vec![0; 500]));
            peer.borrow_mut().push(Bytes::from_static(b"bye"));
            linger(&peer, &scratch, awaits).await;
            started.elapsed()
        };
        // What the peer sends at once is there when the goodbye begins.
        let (heard, took) = join(peer(theirs), ours).await;
        (took, heard)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_done_is_not_waited_for() {
        let (took, mut theirs) = goodbye(Awaits::Nothing, async |theirs| theirs).await;
        assert_eq!(took, Duration::ZERO);
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"bye");
    }

    /// Closed with input that is not read, TCP would be reset, and the code lost.
    #[tokio::test(start_paused = true)]
    async fn what_a_peer_sends_after_its_close_is_thrown_away() {
        for awaits in [Awaits::Nothing, Awaits::Answer(1000), Awaits::End] {
            let (took, heard) = goodbye(awaits, async |mut theirs| {
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
        let (took, _theirs) = goodbye(Awaits::Answer(1000), async |theirs| theirs).await;
        assert_eq!(took, LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_stop_is_heard_for_a_mebibyte() {
        let (_, sent) = goodbye(Awaits::Answer(1000), async |mut theirs| {
            let mut sent = 0;
            while theirs.write_all(&[0; 100]).await.is_ok() {
                sent += 100;
            }
            sent
        })
        .await;
        assert!((LINGER_BYTES..LINGER_BYTES + 10_000).contains(&sent), "{sent}");
    }
    #[test]
    fn an_answer_is_known_by_its_code() {
        let close = |payload: &[u8]| masked_frame(Opcode::Close, payload, [7, 1, 200, 99]).to_vec();
        let answer = close(&[0x0f, 0xa3, b'x']);
        assert!(ends_with_close(&answer, 4003));
        assert!(ends_with_close(&[&[0x82, 0x81, 1, 2, 3, 4, 5], &answer[..]].concat(), 4003));
        assert!(!ends_with_close(&answer, 4004));
        assert!(!ends_with_close(&answer[..answer.len() - 1], 4003));
        assert!(!ends_with_close(&[&answer[..], &[0]].concat(), 4003));
        assert!(ends_with_close(&close(&[&[0x0f, 0xa3], &[b'x'; 123][..]].concat()), 4003));
        assert!(!ends_with_close(&close(&[]), 4003));
        assert!(!ends_with_close(&[], 4003));
    }
}
