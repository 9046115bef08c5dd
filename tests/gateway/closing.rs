//! The end of a socket, whoever ends it and however rudely.
use crate::rooms::session;
use crate::support::token::good;
use crate::support::*;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

/// What still comes after the client's own Close must not turn the end into a reset, which would lose the answer.
#[tokio::test]
async fn data_after_a_close_does_not_lose_the_answer() {
    let gateway = Gateway::start(&echo_with_limits("")).await;
    for after in [10, 100_000, 600_000] {
        let mut raw = gateway.raw_ws("/echo").await;
        let mut bytes = raw::frame(0x88, &4321u16.to_be_bytes());
        bytes.extend(std::iter::repeat_n(0x55, after));
        raw.send(&bytes).await;
        raw.expect_close(4321).await;
        raw.expect_orderly_end().await;
    }
}

/// A socket that cannot be written any more may still hold the Close of a client that did not wait for the answer.
#[tokio::test]
async fn a_close_is_read_although_the_socket_has_failed() {
    let gateway = Gateway::start(&rooms_with_limits(
        "max_backlog = \"64MiB\"\nmessages_per_second = 0\nbytes_per_second = 0\nping_interval = 0\n",
    ))
    .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let tcp = within(socket.connect(gateway.address(0).parse().unwrap())).await.unwrap();
    tcp.set_zero_linger().unwrap();
    let mut rude = RawWs::over(tcp);
    rude.upgrade("/ws", &[&format!("Authorization: Bearer {}", good("rude"))]).await;
    rude.send(raw::frame(0x81, json!({"type": "join_room", "payload": {"room_id": "a"}}).to_string().as_bytes())).await;
    let mut bob = session(&gateway, "bob").await;
    bob.join("a").await;
    bob.ask("room_members", json!({"room_id": "a"})).await;
    for _ in 0..200 {
        bob.publish("a", json!("x".repeat(60_000))).await;
    }
    // The gateway must not see the one before the other.
    gateway.signal("STOP");
    rude.send(raw::frame(0x88, &[&4321u16.to_be_bytes()[..], b"no time"].concat())).await;
    drop(rude);
    gateway.signal("CONT");
    let line = gateway.wait_for_log(|l| l.contains("client=rude") || l.contains("\"rude\"")).await;
    assert!(line.contains("4321") && line.contains("no time"), "{line}");
}

/// A proxied client must not come back with all the others at once either.
#[tokio::test]
async fn a_restart_tells_every_client_its_wait() {
    let Some(backend) = Backend::start(Peer::Node).await else { return };
    let routes = format!("{ECHO}{}", proxy(&[backend.port]));
    let mut gateway = Gateway::start(&format!("[server]\ndrain = \"100ms\"\n{PLAIN}{OPEN}{routes}")).await;
    let mut clients = Vec::new();
    for path in ["/echo", "/live/x"] {
        let mut client = gateway.open(path).await;
        client.text("x").await;
        client.next_text().await;
        clients.push(client);
    }
    gateway.signal("TERM");
    for mut client in clients {
        let reason = client.closes_with(1012).await;
        assert!(reason.contains(" (retry_after_ms="), "{reason}");
    }
    assert!(gateway.exit().await.success());
}

/// TLS 1.3 lets a peer ask for new keys at any time, and wants an answer before the next data.
#[tokio::test]
async fn keys_of_tls_are_renewed_within_a_session() {
    let gateway = Gateway::start(&format!("{TLS}{OPEN}{ECHO}")).await;
    let mut stream = gateway.tls(0).await;
    within(stream.write_all(raw::upgrade_head("/echo", &[]).as_bytes())).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(stream.read_u8()).await.unwrap());
    }
    for n in 0..50u8 {
        stream.get_mut().1.refresh_traffic_keys().unwrap();
        within(stream.write_all(&raw::frame(0x82, &[n; 100]))).await.unwrap();
        within(stream.flush()).await.unwrap();
        let mut echoed = [0; 102];
        within(stream.read_exact(&mut echoed)).await.unwrap();
        assert_eq!(echoed[2..], [n; 100]);
    }
    // And its orderly end, without a Close, is an end.
    within(stream.shutdown()).await.unwrap();
    gateway.wait_for_log(|l| l.contains("session ended") && l.contains("without a Close")).await;
}
