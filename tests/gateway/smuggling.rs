//! Requests that two parsers might read differently: nothing of them reaches a backend as a request.
use crate::support::backend::{Recorder, switch};
use crate::support::raw::{frame, upgrade_head};
use crate::support::*;

const SMUGGLED: &str = "GET /live/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";

async fn behind(answer: fn(&str) -> Vec<u8>) -> (Gateway, Recorder) {
    let backend = Recorder::start(answer).await;
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{}", proxy(&[backend.port]))).await;
    (gateway, backend)
}

#[tokio::test]
async fn an_upgrade_with_a_body_is_refused() {
    let (gateway, backend) = behind(switch).await;
    let length = format!("Content-Length: {}", SMUGGLED.len());
    let table: [(&str, &[&str]); 6] = [
        ("a body", &[&length]),
        ("chunks", &["Transfer-Encoding: chunked"]),
        ("two lengths", &["Content-Length: 0", &length]),
        ("a list of lengths", &["Content-Length: 0, 49"]),
        ("a length and chunks", &[&length, "Transfer-Encoding: chunked"]),
        ("an unknown coding", &["Transfer-Encoding: xchunked"]),
    ];
    for (name, headers) in table {
        let mut raw = gateway.raw().await;
        raw.try_send(upgrade_head("/live/x", headers) + SMUGGLED).await;
        if let Some(head) = raw.try_read_head().await {
            assert!((400..500).contains(&head.status), "{name}: {head:?}");
        }
    }
    assert_eq!(backend.received(), Vec::<String>::new(), "the backend was asked");
}

#[tokio::test]
async fn a_bad_length_is_refused() {
    let (gateway, backend) = behind(switch).await;
    for length in ["-1", "+1", "0x10", "1 1", "", "99999999999999999999", "1;2"] {
        let mut raw = gateway.raw().await;
        raw.try_send(upgrade_head("/live/x", &[&format!("Content-Length: {length}")])).await;
        if let Some(head) = raw.try_read_head().await {
            assert!((400..500).contains(&head.status), "{length}: {head:?}");
        }
    }
    assert_eq!(backend.received(), Vec::<String>::new(), "the backend was asked");
}

/// Frames that follow the head at once are frames, or the upgrade is refused; never another request.
#[tokio::test]
async fn bytes_after_the_head_are_frames_or_refused() {
    let (gateway, backend) = behind(switch).await;
    let mut raw = gateway.raw().await;
    let mut bytes = upgrade_head("/live/x", &[]).into_bytes();
    let early = frame(0x82, b"early");
    bytes.extend(&early);
    raw.send(bytes).await;
    let head = raw.read_head().await;
    if head.status == 101 {
        eventually(|| async { backend.bytes().iter().any(|b| b.ends_with(&early)).then_some(()) }).await;
        assert_eq!(backend.bytes().len(), 1);
    } else {
        assert_eq!(head.status, 400, "{head:?}");
    }
}

#[tokio::test]
async fn a_request_after_the_head_never_reaches_the_backend() {
    let (gateway, backend) = behind(switch).await;
    let mut raw = gateway.raw().await;
    raw.send(upgrade_head("/live/x", &[]) + SMUGGLED).await;
    let head = raw.read_head().await;
    if head.status == 101 {
        raw.expect_close(1002).await;
    } else {
        assert_eq!(head.status, 400, "{head:?}");
    }
    raw.expect_end().await;
    let received = backend.received();
    assert!(received.iter().all(|r| !r.contains("smuggled")), "{received:?}");
}

/// A backend that refuses the upgrade and keeps the connection must not get the rest as requests.
#[tokio::test]
async fn a_request_after_a_refused_upgrade_never_reaches_the_backend_as_it_is() {
    let (gateway, backend) = behind(|_| b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_vec()).await;
    let mut raw = gateway.raw().await;
    raw.send(upgrade_head("/live/x", &[]) + SMUGGLED).await;
    assert!((400..500).contains(&raw.read_head().await.status));
    let received = backend.received();
    assert!(received.iter().all(|r| !r.contains("smuggled")), "{received:?}");
}

#[tokio::test]
async fn early_frames_of_an_echo_are_answered_or_refused() {
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{ECHO}")).await;
    let mut raw = gateway.raw().await;
    let mut bytes = upgrade_head("/echo", &[]).into_bytes();
    bytes.extend(frame(0x81, b"early"));
    raw.send(bytes).await;
    let head = raw.read_head().await;
    if head.status == 101 {
        assert_eq!(raw.read_frame().await.payload, b"early");
    } else {
        assert_eq!(head.status, 400, "{head:?}");
    }
}

#[tokio::test]
async fn a_backend_that_switches_without_the_right_accept_is_not_believed() {
    let (gateway, _backend) = behind(|_| {
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"
            .to_vec()
    })
    .await;
    let mut raw = gateway.raw().await;
    raw.send(upgrade_head("/live/x", &[])).await;
    let head = raw.read_head().await;
    match head.status {
        101 => drop(raw.expect_close(4012).await),
        status => assert_eq!(status, 502, "{head:?}"),
    }
}

#[tokio::test]
async fn a_backend_that_answers_200_to_an_upgrade_opens_no_tunnel() {
    let (gateway, backend) = behind(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_vec()).await;
    let mut raw = gateway.raw().await;
    raw.send(upgrade_head("/live/x", &[])).await;
    let head = raw.read_head().await;
    assert_ne!(head.status, 101, "{head:?}");
    raw.try_send(SMUGGLED).await;
    drop(raw);
    let received = backend.received();
    assert!(received.iter().all(|r| !r.contains("smuggled")), "{received:?}");
}
