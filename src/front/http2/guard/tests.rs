#![allow(clippy::unwrap_used)]
use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PING: u8 = 6;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// A walk behind the first SETTINGS.
fn begun() -> Walk {
    let mut walk = Walk::new();
    walk.take(BEGIN).unwrap();
    walk
}

/// How many of these frames are taken at once.
fn taken(walk: &mut Walk, frame: &[u8]) -> u64 {
    (0..10_000).take_while(|_| walk.take(frame).is_ok()).count() as u64
}

#[test]
fn frames_are_found_wherever_they_are_cut() {
    let bytes = [BEGIN, &frame(HEADERS, 0, &[0; 300]), &frame(CONTINUATION, END_HEADERS, b"12"), &frame(DATA, 0, b"3")];
    let bytes = bytes.concat();
    for cut in 0..bytes.len() {
        let mut walk = Walk::new();
        walk.take(&bytes[..cut]).unwrap();
        walk.take(&bytes[cut..]).unwrap();
        assert_eq!((walk.filled, walk.payload_left, walk.is_waiting()), (0, 0, false), "{cut}");
    }
    let mut walk = Walk::new();
    let waits: Vec<bool> = bytes.iter().map(|byte| walk.take(&[*byte]).map(|()| walk.is_waiting()).unwrap()).collect();
    // Up to the header of the first SETTINGS; from that of HEADERS to the last byte of the block.
    let settled = BEGIN.len();
    let block = settled + 9..settled + 9 + 300 + 9 + 2;
    for (at, waits) in waits.iter().enumerate() {
        assert_eq!(*waits, at + 1 < settled || (at + 1 >= block.start && at + 1 < block.end), "{at}");
    }
}

#[test]
fn the_first_frame_is_settings() {
    for first in [frame(PING, 0, &[0; 8]), frame(SETTINGS, ACK, b"")] {
        assert_eq!(Walk::new().take(&[&BEGIN[..PREFACE], &first].concat()), Err(Fault::NoSettings));
    }
}

#[tokio::test(start_paused = true)]
async fn frames_that_bring_nothing_are_counted() {
    for (kind, flags, payload, most) in [
        (PING, 0, &[0; 8][..], CONTROL_BURST - SETTINGS_COST),
        (DATA, 0, &[], CONTROL_BURST - SETTINGS_COST),
        (CONTINUATION, 0, &[], CONTROL_BURST - SETTINGS_COST),
        (0xbe, 0, &[], CONTROL_BURST - SETTINGS_COST),
        (SETTINGS, 0, &[], CONTROL_BURST / SETTINGS_COST - 1),
        (RST_STREAM, 0, &[0; 4], RESETS_BURST),
    ] {
        assert_eq!(taken(&mut begun(), &frame(kind, flags, payload)), most, "frames of type {kind}");
    }
    for (kind, flags, payload) in [(DATA, 0, &[1][..]), (DATA, END_STREAM, &[]), (HEADERS, END_HEADERS, &[1])] {
        assert_eq!(taken(&mut begun(), &frame(kind, flags, payload)), 10_000, "frames of type {kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_comes_back_with_time() {
    let (mut walk, unknown) = (begun(), frame(0xbe, 0, &[]));
    taken(&mut walk, &unknown);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(taken(&mut walk, &unknown), CONTROL_PER_SECOND);
}

#[tokio::test(start_paused = true)]
async fn window_updates_are_paid_for_by_what_was_sent() {
    let (mut walk, update) = (begun(), frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]));
    // The smallest DATA frames with something of a WebSocket in them, each answered twice.
    for _ in 0..10_000 {
        walk.sent(HEADER + 2);
        assert_eq!([walk.take(&update), walk.take(&update)], [Ok(()), Ok(())]);
    }
    assert!(taken(&mut walk, &update) < 2 * CONTROL_BURST);
    walk.sent(usize::MAX);
    assert_eq!(walk.earned, EARNED_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_block_has_its_time() {
    let timeout = Duration::from_secs(3);
    for (begin, goes_on) in [
        (BEGIN[..30].to_vec(), false),
        ([BEGIN, &frame(HEADERS, 0, b"1")].concat(), false),
        ([BEGIN, &frame(HEADERS, END_HEADERS, b"12")[..10]].concat(), false),
        ([BEGIN, &frame(HEADERS, END_HEADERS, b"12")].concat(), true),
        ([BEGIN, &frame(DATA, 0, b"12")[..10]].concat(), true),
    ] {
        let (mut peer, ours) = duplex(1000);
        let (mut guard, _) = Guard::new(ours, timeout);
        peer.write_all(&begin).await.unwrap();
        let mut read = vec![0; begin.len()];
        guard.read_exact(&mut read).await.unwrap();
        let began = Instant::now();
        let more = tokio::time::timeout(timeout * 2, guard.read_u8()).await;
        assert_eq!(more.is_err(), goes_on, "{begin:?}");
        if let Ok(more) = more {
            assert_eq!(more.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!(began.elapsed(), timeout);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_read_no_further() {
    let (mut peer, ours) = duplex(1 << 20);
    let (mut guard, flooded) = Guard::new(ours, Duration::from_secs(3));
    peer.write_all(BEGIN).await.unwrap();
    peer.write_all(&frame(PING, 0, &[0; 8]).repeat(CONTROL_BURST as usize + 100)).await.unwrap();
    let mut read = vec![0; 1 << 20];
    assert!(tokio::time::timeout(Duration::from_secs(60), guard.read_exact(&mut read)).await.is_err());
    assert!(flooded.get());
}
