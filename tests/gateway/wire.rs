//! RFC 6455 on the wire: what is wrong is closed with the right code, before the rest of it has come.
use crate::support::raw::{MASK, frame, header};
use crate::support::*;

/// A Close with this code.
fn close_frame(code: u16, reason: &[u8]) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason);
    frame(0x88, &payload)
}

/// A masked header with a length written in this form, and no payload.
fn with_length(first: u8, length: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    bytes.extend_from_slice(length);
    bytes.extend(MASK);
    bytes
}

/// The first bytes of a longer text.
fn start_of_text(announced: u64, bytes: &[u8]) -> Vec<u8> {
    let mut all = header(0x81, announced);
    all.extend(bytes.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    all
}

fn joined(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.concat()
}

/// Violations, each cut off as soon as it is one.
fn violations() -> Vec<(&'static str, Vec<u8>, u16)> {
    vec![
        ("an unmasked text", vec![0x81, 0x05], 1002),
        ("an unmasked ping", vec![0x89, 0x00], 1002),
        ("RSV1 without an extension", header(0xc1, 5), 1002),
        ("RSV2", header(0xa1, 5), 1002),
        ("RSV3", header(0x91, 5), 1002),
        ("RSV1 on a ping", header(0xc9, 0), 1002),
        ("opcode 3", header(0x83, 5), 1002),
        ("opcode 7", header(0x87, 0), 1002),
        ("opcode 11", header(0x8b, 5), 1002),
        ("opcode 15", header(0x8f, 0), 1002),
        ("a fragmented ping", header(0x09, 0), 1002),
        ("a fragmented close", header(0x08, 0), 1002),
        ("a ping of 126 bytes", header(0x89, 126), 1002),
        ("a pong of 65,536 bytes", header(0x8a, 65_536), 1002),
        ("a close of 126 bytes", header(0x88, 126), 1002),
        ("5 in sixteen bits", with_length(0x81, &[0xfe, 0, 5]), 1002),
        ("125 in sixteen bits", with_length(0x81, &[0xfe, 0, 125]), 1002),
        ("5 in sixty-four bits", with_length(0x81, &[0xff, 0, 0, 0, 0, 0, 0, 0, 5]), 1002),
        ("65,535 in sixty-four bits", with_length(0x81, &[0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), 1002),
        ("a length with its top bit", with_length(0x82, &[0xff, 0x80, 0, 0, 0, 0, 0, 0, 5]), 1002),
        ("a continuation of nothing", header(0x80, 3), 1002),
        ("an unfinished continuation of nothing", header(0x00, 0), 1002),
        ("a continuation after a whole message", joined(&[frame(0x81, b""), header(0x80, 3)]), 1002),
        ("a text within a text", joined(&[frame(0x01, b"a"), header(0x81, 5)]), 1002),
        ("a binary within a text", joined(&[frame(0x01, b"a"), header(0x82, 0)]), 1002),
        ("a close of one byte", frame(0x88, &[3]), 1002),
        ("close 0", close_frame(0, b""), 1002),
        ("close 999", close_frame(999, b""), 1002),
        ("close 1004", close_frame(1004, b""), 1002),
        ("close 1005", close_frame(1005, b""), 1002),
        ("close 1006", close_frame(1006, b""), 1002),
        ("close 1015", close_frame(1015, b""), 1002),
        ("close 1016", close_frame(1016, b""), 1002),
        ("close 2999", close_frame(2999, b""), 1002),
        ("close 5000", close_frame(5000, b""), 1002),
        ("close 65535", close_frame(65_535, b""), 1002),
        ("a close reason that is not UTF-8", close_frame(1000, &[0xc3, 0x28]), 1007),
        ("a byte that begins no character", start_of_text(1000, &[b'a', 0xff]), 1007),
        ("a lone continuation byte", start_of_text(1000, &[0x80]), 1007),
        ("an overlong form", start_of_text(1000, &[0xc0, 0xaf]), 1007),
        ("a surrogate", start_of_text(1000, &[0xed, 0xa0, 0x80]), 1007),
        ("beyond U+10FFFF", start_of_text(1000, &[0xf4, 0x90]), 1007),
        ("a character cut by the end", frame(0x81, &[b'a', 0xe2, 0x82]), 1007),
        ("a character broken by a fragment", joined(&[frame(0x01, &[0xe2, 0x82]), start_of_continuation(0x28)]), 1007),
        ("a character cut by the last fragment", joined(&[frame(0x01, &[0xe2, 0x82]), frame(0x80, b"")]), 1007),
    ]
}

/// A longer continuation's first byte.
fn start_of_continuation(byte: u8) -> Vec<u8> {
    let mut all = header(0x80, 1000);
    all.push(byte ^ MASK[0]);
    all
}

/// Echo sends back the whole messages that came before; the Close has to follow them.
async fn violate(raw: &mut RawWs, name: &str, bytes: &[u8], code: u16) {
    raw.send(bytes).await;
    loop {
        let frame =
            raw.try_read_frame().await.unwrap_or_else(|| panic!("{name}: the connection ended without a Close"));
        match frame.close() {
            Some((number, reason)) => break assert_eq!(number, code, "{name}: {reason}"),
            None => assert!(frame.first == 0x81 && frame.payload.is_empty(), "{name}: {frame:?}"),
        }
    }
}

#[tokio::test]
async fn violations_are_closed_at_once_by_echo() {
    let gateway = Gateway::start(&echo_with_limits("max_message_size = 0\nhandshakes_per_second = 0")).await;
    for (name, bytes, code) in violations() {
        violate(&mut gateway.raw_ws("/echo").await, name, &bytes, code).await;
    }
}

#[tokio::test]
async fn violations_are_closed_at_once_in_single_bytes() {
    let gateway = Gateway::start(&echo_with_limits("max_message_size = 0\nhandshakes_per_second = 0")).await;
    for (name, bytes, code) in violations() {
        let mut raw = gateway.raw_ws("/echo").await;
        let (last, bytes) = bytes.split_last().unwrap();
        for byte in bytes {
            if !raw.try_send([*byte]).await {
                break;
            }
        }
        violate_last(&mut raw, name, *last, code).await;
    }
}

/// The last byte may come after the Close: some violations are seen before it.
async fn violate_last(raw: &mut RawWs, name: &str, last: u8, code: u16) {
    raw.try_send([last]).await;
    violate(raw, name, b"", code).await;
}

#[tokio::test]
async fn violations_are_closed_at_once_by_rooms() {
    let config =
        format!("{PLAIN}{OPEN}{ROOMS}[limits]\nmax_message_size = 0\nmax_backlog = 0\nhandshakes_per_second = 0\n");
    let gateway = Gateway::start(&config).await;
    for (name, bytes, code) in violations() {
        let mut raw = gateway.raw_ws("/ws").await;
        raw.send(bytes).await;
        loop {
            let frame = raw.try_read_frame().await.unwrap_or_else(|| panic!("{name}: no Close"));
            match frame.close() {
                Some((number, reason)) => break assert_eq!(number, code, "{name}: {reason}"),
                None => assert_eq!(frame.first, 0x81, "{name}: {frame:?}"),
            }
        }
    }
}

/// The answer comes in the frame's first bytes, so nothing may follow it but the end.
#[tokio::test]
async fn after_its_close_the_gateway_sends_nothing_and_ends_the_connection() {
    let gateway = Gateway::start(&echo_with_limits("max_message_size = 0")).await;
    let mut raw = gateway.raw_ws("/echo").await;
    raw.send(header(0x83, 5)).await;
    raw.expect_close(1002).await;
    raw.try_send(joined(&[frame(0x81, b"more"), frame(0x89, b"ping"), close_frame(1000, b"")])).await;
    raw.expect_end().await;
}

#[tokio::test]
async fn a_close_is_answered_with_its_code() {
    let gateway = Gateway::start(&echo_with_limits("")).await;
    for code in [1000, 1001, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4321, 4999] {
        let mut raw = gateway.raw_ws("/echo").await;
        raw.send(close_frame(code, "a reason, gr\u{fc}n".as_bytes())).await;
        raw.expect_close(code).await;
        raw.expect_end().await;
    }
    let mut raw = gateway.raw_ws("/echo").await;
    raw.send(frame(0x88, b"")).await;
    assert_eq!(
        raw.read_frame().await,
        raw::Frame { first: 0x88, payload: Vec::new() },
        "no code is answered with none"
    );
    raw.expect_end().await;
}

#[tokio::test]
async fn what_comes_before_a_close_is_still_answered() {
    let gateway = Gateway::start(&echo_with_limits("")).await;
    let mut raw = gateway.raw_ws("/echo").await;
    raw.send(joined(&[frame(0x81, b"one"), frame(0x89, b"two"), close_frame(1000, b""), frame(0x81, b"three")])).await;
    assert_eq!(raw.read_frame().await.payload, b"one");
    let pong = raw.read_frame().await;
    assert_eq!((pong.first, pong.payload.as_slice()), (0x8a, b"two".as_slice()));
    raw.expect_close(1000).await;
    raw.expect_end().await;
}

#[tokio::test]
async fn lengths_and_fragments_of_every_kind_come_back() {
    let gateway = Gateway::start(&echo_with_limits("max_message_size = \"1MiB\"")).await;
    let mut raw = gateway.raw_ws("/echo").await;
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 200_000] {
        let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
        raw.send(frame(0x82, &payload)).await;
        let back = raw.read_frame().await;
        assert!(back.first == 0x82 && back.payload == payload, "{length} bytes");
    }
    let snowman = "\u{2603}".as_bytes();
    raw.send(joined(&[frame(0x01, &snowman[..1]), frame(0x00, b""), frame(0x89, b"p"), frame(0x00, &snowman[1..2])]))
        .await;
    raw.send(frame(0x80, &snowman[2..])).await;
    assert_eq!(raw.read_frame().await.first, 0x8a, "a ping between fragments is answered at once");
    let back = raw.read_frame().await;
    assert_eq!((back.first, back.payload.as_slice()), (0x81, snowman));
}

#[tokio::test]
async fn a_zero_mask_and_single_bytes_are_right_too() {
    let gateway = Gateway::start(&echo_with_limits("")).await;
    let mut raw = gateway.raw_ws("/echo").await;
    raw.send([0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await;
    assert_eq!(raw.read_frame().await.payload, b"hi");
    for byte in frame(0x81, "byte by byte \u{1f600}".as_bytes()) {
        raw.send([byte]).await;
    }
    assert_eq!(raw.read_frame().await.payload, "byte by byte \u{1f600}".as_bytes());
}

#[tokio::test]
async fn pongs_nobody_asked_for_are_no_matter() {
    let gateway = Gateway::start(&echo_with_limits("")).await;
    let mut raw = gateway.raw_ws("/echo").await;
    raw.send(joined(&[frame(0x8a, b"unasked"), frame(0x81, b"x")])).await;
    assert_eq!(raw.read_frame().await.payload, b"x");
}

/// No compression is the rule for echo and rooms until it was negotiated without context takeover.
#[tokio::test]
async fn compression_is_negotiated_without_context_takeover_or_not_at_all() {
    let gateway = Gateway::start(&echo_with_limits("")).await;
    let mut raw = gateway.raw().await;
    let head = raw.upgrade("/echo", &["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"]).await;
    if let Some(extensions) = head.header("sec-websocket-extensions") {
        assert!(extensions.starts_with("permessage-deflate"), "{extensions}");
        assert!(extensions.contains("server_no_context_takeover"), "{extensions}");
        assert!(extensions.contains("client_no_context_takeover"), "{extensions}");
    }
    let mut raw = gateway.raw().await;
    let head = raw.upgrade("/echo", &[]).await;
    assert_eq!(head.header("sec-websocket-extensions"), None, "not offered, not answered");
}
