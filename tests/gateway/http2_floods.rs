//! Floods of frames end their connection with ENHANCE_YOUR_CALM; what a client needs does not.
use crate::crowds::{metric, resident_mib};
use crate::support::backend::{Recorder, switch};
use crate::support::h2raw::*;
use crate::support::http2::Http2;
use crate::support::*;

async fn gateway() -> Gateway {
    let limits = "[limits]\nhandshakes_per_second = 0\nmessages_per_second = 0\nbytes_per_second = 0\n";
    Gateway::start(&format!("{TLS}{OPEN}{ECHO}{ADMIN}{limits}")).await
}

async fn raw(gateway: &Gateway) -> H2Raw {
    H2Raw::over(http2::tls(gateway, 0).await).await
}

/// Sends a piece again and again until the connection is ended for it.
async fn floods(gateway: &Gateway, what: &str, piece: impl Fn(u32) -> Vec<u8>) {
    let mut raw = raw(gateway).await;
    raw.send(frame(HEADERS, END_HEADERS, 1, &block(CONNECT))).await;
    raw.skip_to(HEADERS).await;
    let mut sent = 0;
    let mut number = 0;
    loop {
        let bytes: Vec<u8> = (0..100).flat_map(|i| piece(number + i)).collect();
        number += 100;
        sent += bytes.len();
        assert!(sent < 64 << 20, "{what}: it goes on for ever");
        if !raw.try_send(bytes).await {
            break;
        }
        // The answers must be read, or neither side goes on.
        if raw.went_away().await {
            break;
        }
    }
    assert_eq!(raw.goes_away().await, ENHANCE_YOUR_CALM, "{what}");
}

#[tokio::test]
async fn frames_that_bring_nothing() {
    let gateway = gateway().await;
    let before = resident_mib(&gateway);
    let stream = |number: u32| number * 2 + 3;
    floods(&gateway, "SETTINGS", |_| frame(SETTINGS, 0, 0, &[])).await;
    floods(&gateway, "PING", |_| frame(PING, 0, 0, &[0; 8])).await;
    floods(&gateway, "PRIORITY", |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])).await;
    floods(&gateway, "WINDOW_UPDATE", |_| frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).await;
    floods(&gateway, "empty DATA", |_| frame(DATA, 0, 1, &[])).await;
    floods(&gateway, "unknown frames", |_| frame(0xbe, 0, 0, &[])).await;
    floods(&gateway, "rapid reset", |n| {
        let open = frame(HEADERS, END_HEADERS, stream(n), &block(CONNECT));
        [open, frame(RST_STREAM, 0, stream(n), &CANCEL.to_be_bytes())].concat()
    })
    .await;
    floods(&gateway, "malformed requests", |n| frame(HEADERS, END_HEADERS, stream(n), &block(&[(":method", "GET")])))
        .await;
    floods(&gateway, "CONTINUATION", |n| match n {
        0 => frame(HEADERS, 0, 3, &[]),
        _ => frame(CONTINUATION, 0, 3, &[]),
    })
    .await;
    floods(&gateway, "a head without end", |n| match n {
        0 => frame(HEADERS, 0, 3, &block(CONNECT)),
        _ => frame(CONTINUATION, 0, 3, &block(&[("x", "y"); 1000])),
    })
    .await;
    assert_eq!(metric(&gateway, "wsgate_refusals_total{reason=\"flood\"}").await, 10);
    let grown = resident_mib(&gateway).saturating_sub(before);
    assert!(grown < 32, "{grown} MiB");
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let gateway = gateway().await;
    let mut raw = raw(&gateway).await;
    for number in 0..129 {
        raw.send(frame(HEADERS, END_HEADERS, number * 2 + 1, &block(CONNECT))).await;
    }
    let reset = raw.skip_to(RST_STREAM).await;
    assert_eq!((reset.stream, reset.payload), (257, 7_u32.to_be_bytes().to_vec()));
    raw.lives().await;
}

#[tokio::test]
async fn data_in_small_pieces_that_nobody_reads_is_bounded() {
    let gateway = gateway().await;
    let before = resident_mib(&gateway);
    // The echo's own answers are not taken: no window.
    let mut raw = H2Raw::bare(http2::tls(&gateway, 0).await);
    raw.send([PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat()).await;
    for stream in (0..100).map(|n| n * 2 + 1) {
        raw.send(frame(HEADERS, END_HEADERS, stream, &block(CONNECT))).await;
    }
    let message = raw::frame(0x82, &[1; 60]);
    let mut pieces = Vec::new();
    for stream in (0..100).map(|n| n * 2 + 1) {
        pieces.extend(message.chunks(10).flat_map(|some| frame(DATA, 0, stream, some)));
    }
    let mut sent = 0;
    while sent < 50_000_000 && raw.try_send(&pieces).await {
        sent += pieces.len();
    }
    assert!(sent < 50_000_000, "it goes on for ever");
    let grown = resident_mib(&gateway).saturating_sub(before);
    assert!(grown < 64, "{grown} MiB");
}

#[tokio::test]
async fn small_pieces_for_a_socket_that_is_not_read_take_no_other() {
    let backend = Recorder::start(switch).await;
    let pause = "[limits]\nmessages_per_second = 1\nmessage_burst = 1\non_excess = \"pause\"\n";
    let gateway = Gateway::start(&format!("{TLS}{OPEN}{ECHO}{}{pause}", proxy(&[backend.port]))).await;
    for path in ["/echo", "/live/a"] {
        let mut raw = raw(&gateway).await;
        let head: Vec<_> = CONNECT.iter().map(|f| if f.0 == ":path" { (":path", path) } else { *f }).collect();
        raw.send(frame(HEADERS, END_HEADERS, 1, &block(&head))).await;
        raw.skip_to(HEADERS).await;
        // Nothing of a second message is read before a second has gone.
        let message = raw::frame(0x82, &[1; 60]);
        let pieces: Vec<u8> =
            message.iter().cycle().take(60_000).flat_map(|byte| frame(DATA, 0, 1, &[*byte])).collect();
        raw.send(pieces).await;
        raw.lives().await;
    }
}

#[tokio::test]
async fn small_messages_that_come_at_once_are_no_flood() {
    let gateway = gateway().await;
    let mut raw = raw(&gateway).await;
    raw.send(frame(HEADERS, END_HEADERS, 1, &block(CONNECT))).await;
    raw.skip_to(HEADERS).await;
    let messages: Vec<u8> = (0..9_000).flat_map(|_| frame(DATA, 0, 1, &raw::frame(0x82, b"1"))).collect();
    raw.send(messages).await;
    raw.lives().await;
}

#[tokio::test]
async fn a_client_that_acknowledges_every_byte_is_no_flood() {
    let gateway = gateway().await;
    let mut raw = raw(&gateway).await;
    raw.send(frame(HEADERS, END_HEADERS, 1, &block(CONNECT))).await;
    let piece: Vec<u8> = (0..50).flat_map(|_| frame(DATA, 0, 1, &raw::frame(0x82, b"1"))).collect();
    for _ in 0..100 {
        raw.send(&piece).await;
        let mut heard = 0;
        while heard < 150 {
            heard += raw.skip_to(DATA).await.payload.len();
            raw.send([frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 3]), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 3])].concat())
                .await;
        }
    }
    raw.lives().await;
}

#[tokio::test]
async fn streams_that_come_and_go_in_order_are_no_flood() {
    let gateway = gateway().await;
    let mut http2 = Http2::connect(&gateway).await;
    for _ in 0..1_500 {
        let (status, ..) = http2.ask(http2::connect("/nowhere", &[])).await.unwrap();
        assert_eq!(status, 404);
    }
}
