//! The end of a socket, whoever ends it and however rudely.
use crate::rooms::session;
use crate::support::token::good;
use crate::support::*;
use serde_json::json;
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
