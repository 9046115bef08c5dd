//! Malformed requests over HTTP/2 are errors of their stream, broken frames of the connection (RFC 9113, sections 5.4
//! and 8.1.1).
use crate::support::h2raw::*;
use crate::support::*;

async fn gateway() -> Gateway {
    Gateway::start(&format!("{TLS}{OPEN}{ECHO}[limits]\nhandshakes_per_second = 0\n")).await
}

async fn raw(gateway: &Gateway) -> H2Raw {
    H2Raw::over(http2::tls(gateway, 0).await).await
}

/// [`CONNECT`] without these fields, and with others behind it.
fn but(without: &[&str], more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let kept = CONNECT.iter().filter(|(name, _)| !without.contains(name));
    kept.chain(more).copied().collect()
}

fn get(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let get = [(":method", "GET"), (":scheme", "https"), (":path", "/echo"), (":authority", "localhost")];
    [&get[..], more].concat()
}

#[tokio::test]
async fn malformed_requests_are_errors_of_their_stream() {
    let gateway = gateway().await;
    let mut raw = raw(&gateway).await;
    let late = [("x", "1"), (":path", "/echo")];
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("no method", but(&[":method"], &[])),
        ("no scheme", but(&[":scheme"], &[])),
        ("no path", but(&[":path"], &[])),
        ("no host", but(&[":authority"], &[])),
        ("an empty path", but(&[":path"], &[(":path", "")])),
        ("a path without slash", but(&[":path"], &[(":path", "echo")])),
        ("two paths", but(&[], &[(":path", "/echo")])),
        ("a late pseudo-header", but(&[":path"], &late)),
        ("a status", but(&["sec-websocket-version"], &[(":status", "200")])),
        (":protocol without CONNECT", but(&[":method", "sec-websocket-version"], &[(":method", "GET")])),
        ("CONNECT with a path and no :protocol", but(&[":protocol", "sec-websocket-version"], &[])),
        ("Connection", but(&[], &[("connection", "upgrade")])),
        ("Upgrade", but(&[], &[("upgrade", "websocket")])),
        ("Transfer-Encoding", get(&[("transfer-encoding", "chunked")])),
        ("Keep-Alive", get(&[("keep-alive", "1")])),
        ("Proxy-Connection", get(&[("proxy-connection", "close")])),
        ("TE", get(&[("te", "gzip")])),
        ("another Host", but(&[], &[("host", "elsewhere")])),
        ("two Hosts", but(&[], &[("host", "localhost"), ("host", "localhost")])),
        ("a user", but(&[":authority"], &[(":authority", "a@localhost")]).into_iter().rev().collect()),
        ("padded values", but(&[], &[("x", " 1")])),
        ("two lengths", get(&[("content-length", "1"), ("content-length", "2")])),
        ("a length that is none", get(&[("content-length", "+1")])),
    ];
    for (number, (what, fields)) in cases.iter().enumerate() {
        let stream = number as u32 * 2 + 1;
        // Pseudo-headers first, where being late is not the point.
        let mut fields = fields.clone();
        if *what != "a late pseudo-header" {
            fields.sort_by_key(|(name, _)| !name.starts_with(':'));
        }
        raw.send(frame(HEADERS, END_HEADERS, stream, &block(&fields))).await;
        assert_eq!(raw.reset_of(stream).await, PROTOCOL_ERROR, "{what}");
        raw.lives().await;
    }
}

#[tokio::test]
async fn a_body_must_have_its_length() {
    let gateway = gateway().await;
    let mut raw = raw(&gateway).await;
    let head = block(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/echo"),
        (":authority", "localhost"),
        ("content-length", "2"),
    ]);
    for (stream, body) in [(1, &b"1"[..]), (3, b"123")] {
        let bytes = [frame(HEADERS, END_HEADERS, stream, &head), frame(DATA, END_STREAM, stream, body)];
        raw.send(bytes.concat()).await;
        assert_eq!(raw.reset_of(stream).await, PROTOCOL_ERROR);
    }
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 5, &head)).await;
    assert_eq!(raw.reset_of(5).await, PROTOCOL_ERROR);
}

#[tokio::test]
async fn a_tunnel_takes_no_trailers() {
    let gateway = gateway().await;
    let mut raw = raw(&gateway).await;
    raw.send(frame(HEADERS, END_HEADERS, 1, &block(CONNECT))).await;
    raw.skip_to(HEADERS).await;
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x", "1")]))).await;
    assert_eq!(raw.reset_of(1).await, PROTOCOL_ERROR);
    raw.lives().await;
}

#[tokio::test]
async fn broken_frames_are_errors_of_the_connection() {
    let gateway = gateway().await;
    let open = frame(HEADERS, END_HEADERS, 1, &block(CONNECT));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("DATA of stream 0", frame(DATA, 0, 0, b"1")),
        ("DATA of an idle stream", frame(DATA, 0, 1, b"1")),
        ("HEADERS of an even stream", frame(HEADERS, END_HEADERS, 2, &block(CONNECT))),
        ("a stream that was passed by", [frame(HEADERS, END_HEADERS, 3, &block(CONNECT)), open.clone()].concat()),
        ("SETTINGS of a stream", frame(SETTINGS, 0, 1, &[])),
        ("SETTINGS of odd length", frame(SETTINGS, 0, 0, &[0])),
        ("an acknowledgement with settings", frame(SETTINGS, ACK, 0, &[0, 4, 0, 0, 0, 1])),
        ("a window too large", frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])),
        ("PING of 7 bytes", frame(PING, 0, 0, &[0; 7])),
        ("WINDOW_UPDATE of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, &[])),
        ("a block that is interrupted", [frame(HEADERS, 0, 1, &[]), frame(PING, 0, 0, &[0; 8])].concat()),
        ("RST_STREAM of an idle stream", frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes())),
        ("a frame too large", frame(DATA, 0, 1, &vec![0; 16_385])),
        ("HPACK of nothing", frame(HEADERS, END_HEADERS, 1, &[0x80])),
    ];
    for (what, bytes) in cases {
        let mut raw = raw(&gateway).await;
        raw.send(&bytes).await;
        assert_ne!(raw.goes_away().await, NO_ERROR, "{what}");
    }
    let mut raw = raw(&gateway).await;
    raw.send(open).await;
    raw.skip_to(HEADERS).await;
}

#[tokio::test]
async fn a_connection_begins_with_its_preface_and_settings() {
    let gateway = gateway().await;
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        [PREFACE, &frame(PING, 0, 0, &[0; 8])].concat(),
        [PREFACE, &frame(SETTINGS, ACK, 0, &[])].concat(),
    ] {
        let mut raw = H2Raw::bare(http2::tls(&gateway, 0).await);
        raw.send(bytes).await;
        while let Some(frame) = raw.read().await {
            assert!([SETTINGS, WINDOW_UPDATE, GOAWAY].contains(&frame.kind), "{frame:?}");
        }
    }
}

#[tokio::test]
async fn heads_come_within_the_timeout() {
    let slow = TLS.replacen("address", "header_timeout = \"2s\"\naddress", 1);
    let gateway = Gateway::start(&format!("{slow}{OPEN}{ECHO}")).await;
    // One that has a session may be silent.
    let mut lasting = raw(&gateway).await;
    lasting.send(frame(HEADERS, END_HEADERS, 1, &block(CONNECT))).await;
    lasting.skip_to(HEADERS).await;
    let settled = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let cases = [
        Vec::new(),
        PREFACE[..10].to_vec(),
        PREFACE.to_vec(),
        [&settled, &frame(HEADERS, 0, 1, &block(CONNECT))[..]].concat(),
        [&settled, &frame(HEADERS, END_HEADERS, 1, &block(CONNECT))[..20]].concat(),
    ];
    futures_util::future::join_all(cases.into_iter().map(async |bytes| {
        let mut raw = H2Raw::bare(http2::tls(&gateway, 0).await);
        raw.send(bytes).await;
        while raw.read().await.is_some() {}
    }))
    .await;
    lasting.lives().await;
}
