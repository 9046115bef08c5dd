//! What one client may send, and how long it may be silent.
use crate::support::raw::{frame, header};
use crate::support::token::good;
use crate::support::*;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

/// Sends until it no longer can: the Close waits behind what was sent.
async fn flood(client: &mut Client, message: Message, most: usize) {
    for _ in 0..most {
        if !client.try_send(message.clone()).await {
            break;
        }
    }
}

#[tokio::test]
async fn a_message_is_judged_by_its_header() {
    let gateway = Gateway::start(&echo_with_limits("max_message_size = \"1KiB\"")).await;
    for (first, length) in
        [(0x81, 1025), (0x82, 1025), (0x82, 70_000), (0x81, 1 << 32), (0x82, 1 << 62), (0x82, i64::MAX as u64)]
    {
        let mut raw = gateway.raw_ws("/echo").await;
        raw.send(header(first, length)).await;
        raw.expect_close(4005).await;
    }
    let mut raw = gateway.raw_ws("/echo").await;
    raw.send(frame(0x82, &[7; 1024])).await;
    assert_eq!(raw.read_frame().await.payload, [7; 1024]);
}

#[tokio::test]
async fn fragments_are_summed() {
    let gateway = Gateway::start(&echo_with_limits("max_message_size = \"1KiB\"")).await;
    let mut raw = gateway.raw_ws("/echo").await;
    raw.send(frame(0x02, &[1; 1000])).await;
    raw.send(frame(0x89, b"controls do not count")).await;
    raw.send(frame(0x80, &[2; 24])).await;
    assert_eq!(raw.read_frame().await.first, 0x8a);
    assert_eq!(raw.read_frame().await.payload.len(), 1024);
    raw.send(frame(0x02, &[1; 1000])).await;
    raw.send(header(0x80, 25)).await;
    raw.expect_close(4005).await;
}

#[tokio::test]
async fn rooms_judge_sizes_too() {
    let gateway = Gateway::start(&rooms_with_limits("max_message_size = \"1KiB\"")).await;
    let mut client = gateway.open_as("/ws", &good("alice")).await;
    let established = client.expect("connection_established").await;
    assert_eq!(established["payload"]["limits"]["max_message_size"], 1024, "{established}");
    client.text(&"x".repeat(1025)).await;
    client.closes_with(4005).await;
}

#[tokio::test]
async fn too_many_messages_close_with_a_wait() {
    let gateway = Gateway::start(&echo_with_limits("messages_per_second = 1\nmessage_burst = 5")).await;
    let mut client = gateway.open("/echo").await;
    flood(&mut client, Message::text("x"), 1000).await;
    let reason = client.closes_with(4004).await;
    assert!(reason.contains("(retry_after_ms="), "{reason}");
}

#[tokio::test]
async fn control_frames_and_empty_fragments_count_as_messages() {
    for (name, bytes) in
        [("pings", frame(0x89, b"")), ("pongs", frame(0x8a, b"")), ("empty fragments", frame(0x00, b""))]
    {
        let gateway = Gateway::start(&echo_with_limits("messages_per_second = 1\nmessage_burst = 5")).await;
        let mut raw = gateway.raw_ws("/echo").await;
        if name == "empty fragments" {
            raw.send(frame(0x01, b"")).await;
        }
        for _ in 0..1000 {
            if !raw.try_send(&bytes).await {
                break;
            }
        }
        loop {
            let frame = raw.try_read_frame().await.unwrap_or_else(|| panic!("{name}: no Close"));
            match frame.close() {
                Some((code, reason)) => break assert_eq!(code, 4004, "{name}: {reason}"),
                None => assert_eq!(frame.first, 0x8a, "{name}"),
            }
        }
    }
}

#[tokio::test]
async fn too_many_bytes_close() {
    let limits = "max_message_size = \"2KiB\"\nbytes_per_second = \"1KiB\"\nmessages_per_second = 0";
    let gateway = Gateway::start(&echo_with_limits(limits)).await;
    let mut client = gateway.open("/echo").await;
    flood(&mut client, Message::binary(vec![0; 1024]), 1000).await;
    client.closes_with(4004).await;
}

#[tokio::test]
async fn one_message_of_the_full_size_passes_a_smaller_rate() {
    let limits = "max_message_size = \"64KiB\"\nbytes_per_second = \"1KiB\"";
    let gateway = Gateway::start(&echo_with_limits(limits)).await;
    let mut client = gateway.open("/echo").await;
    client.send(Message::binary(vec![5; 64 * 1024])).await;
    assert_eq!(client.next_binary().await.len(), 64 * 1024);
}

#[tokio::test]
async fn the_rate_is_the_client_s_over_all_its_sockets() {
    let config = format!("{PLAIN}{SECRET_AUTH}{ECHO}[limits]\nmessages_per_second = 1\nmessage_burst = 5\n");
    let gateway = Gateway::start(&config).await;
    let mut one = gateway.open_as("/echo", &good("alice")).await;
    let mut two = gateway.open_as("/echo", &good("alice")).await;
    let mut other = gateway.open_as("/echo", &good("bob")).await;
    flood(&mut one, Message::text("x"), 1000).await;
    one.closes_with(4004).await;
    flood(&mut two, Message::text("x"), 1000).await;
    two.closes_with(4004).await;
    other.text("y").await;
    assert_eq!(other.next_text().await, "y");
}

#[tokio::test]
async fn rooms_may_reject_instead_of_closing() {
    let limits = "messages_per_second = 1\nmessage_burst = 5\non_excess = \"reject\"";
    let gateway = Gateway::start(&rooms_with_limits(limits)).await;
    let mut client = gateway.open_as("/ws", &good("alice")).await;
    client.expect("connection_established").await;
    let error = within(async {
        loop {
            client.json(json!({"type": "ping", "metadata": {"message_id": "p"}})).await;
            let answer = client.next_json().await;
            if answer["type"] == "error" {
                break answer;
            }
            assert_eq!(answer["type"], "pong");
        }
    })
    .await;
    assert_eq!(error["payload"]["code"], 4004, "{error}");
    assert_eq!(error["payload"]["retryable"], true, "{error}");
    let wait = error["payload"]["retry_after_ms"].as_u64().unwrap();
    assert!((1..=5000).contains(&wait), "{error}");
    eventually_pong(&mut client).await;
}

/// Asks until the gateway answers again.
async fn eventually_pong(client: &mut Client) {
    let mut turn = tokio::time::interval(std::time::Duration::from_millis(200));
    within(async {
        loop {
            turn.tick().await;
            client.json(json!({"type": "ping"})).await;
            if client.next_json().await["type"] == "pong" {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_zero_is_no_limit() {
    let limits = "max_message_size = 0\nmessages_per_second = 0\nbytes_per_second = 0\nconnections_per_client = 0\n\
                  connections_per_ip = 0\nhandshakes_per_second = 0\nidle_timeout = \"0s\"";
    let gateway = Gateway::start(&echo_with_limits(limits)).await;
    let mut client = gateway.open("/echo").await;
    client.send(Message::binary(vec![5; 4 << 20])).await;
    assert_eq!(client.next_binary().await.len(), 4 << 20);
    for _ in 0..500 {
        client.text("x").await;
        client.next_text().await;
    }
    for _ in 0..300 {
        gateway.open("/echo").await;
    }
}

#[tokio::test]
async fn a_route_may_have_limits_of_its_own() {
    let route = "[[route]]\npath = \"/small\"\nservice = \"echo\"\nlimits = { max_message_size = 10 }\n";
    let gateway = Gateway::start(&(echo_with_limits("max_message_size = \"1KiB\"") + route)).await;
    let mut raw = gateway.raw_ws("/small").await;
    raw.send(header(0x81, 11)).await;
    raw.expect_close(4005).await;
    let mut raw = gateway.raw_ws("/echo").await;
    raw.send(frame(0x81, b"eleven byte")).await;
    assert_eq!(raw.read_frame().await.payload, b"eleven byte");
}

#[tokio::test]
async fn an_idle_socket_is_closed() {
    let gateway = Gateway::start(&echo_with_limits("idle_timeout = \"300ms\"")).await;
    gateway.open("/echo").await.closes_with(4014).await;
    let mut spoke = gateway.open("/echo").await;
    spoke.text("once").await;
    spoke.next_text().await;
    spoke.closes_with(4014).await;
}

#[tokio::test]
async fn pings_keep_no_idle_socket_open() {
    let limits = "idle_timeout = \"600ms\"\nping_interval = \"100ms\"\npong_timeout = \"20s\"";
    let gateway = Gateway::start(&echo_with_limits(limits)).await;
    gateway.open("/echo").await.closes_with(4014).await;
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed() {
    let limits = "ping_interval = \"100ms\"\npong_timeout = \"200ms\"";
    let gateway = Gateway::start(&echo_with_limits(limits)).await;
    let mut raw = gateway.raw_ws("/echo").await;
    assert_eq!(raw.read_frame().await.first, 0x89, "no ping came");
    raw.expect_close(4014).await;
}

#[tokio::test]
async fn a_client_that_answers_pings_stays() {
    let limits = "ping_interval = \"50ms\"\npong_timeout = \"20s\"";
    let gateway = Gateway::start(&echo_with_limits(limits)).await;
    let mut raw = gateway.raw_ws("/echo").await;
    for _ in 0..10 {
        let ping = raw.read_frame().await;
        assert_eq!(ping.first, 0x89, "{ping:?}");
        raw.send(frame(0x8a, &ping.payload)).await;
    }
}

/// Elsewhere than in rooms a peer that does not read is not read either, and costs no memory.
#[tokio::test]
async fn a_client_that_does_not_read_stops_being_read() {
    let limits = "max_message_size = \"1MiB\"\nmessages_per_second = 0\nbytes_per_second = 0\nmax_backlog = \"1MiB\"";
    let gateway = Gateway::start(&echo_with_limits(limits)).await;
    let mut raw = gateway.raw_ws("/echo").await;
    let message = frame(0x82, &vec![9; 1 << 20]);
    let mut sent = 0;
    // Until the kernel's buffers on the way are full: the write then waits.
    while sent < 200 {
        match tokio::time::timeout(std::time::Duration::from_secs(2), raw.send(&message)).await {
            Ok(()) => sent += 1,
            Err(_) => break,
        }
    }
    assert!(sent < 200, "200 MiB were taken from a client that reads nothing");
}

#[tokio::test]
async fn rooms_close_a_slow_consumer() {
    let limits = "max_message_size = \"1MiB\"\nmessages_per_second = 0\nbytes_per_second = 0\nmax_backlog = \"1MiB\"";
    let gateway = Gateway::start(&rooms_with_limits(limits)).await;
    let mut slow = gateway.open_as("/ws", &good("slow")).await;
    slow.join("a").await;
    let mut quick = gateway.open_as("/ws", &good("quick")).await;
    quick.join("a").await;
    let body = json!("x".repeat(500_000));
    let closed = || gateway.log().lines().any(|l| l.contains("slow") && mentions(l, "4010"));
    for _ in 0..200 {
        if closed() {
            break;
        }
        quick.publish("a", body.clone()).await;
    }
    eventually(|| async { closed().then_some(()) }).await;
    // The Close may have found no room any more; where it did, it says why.
    while let Some(message) = slow.next().await {
        if let Message::Close(frame) = message {
            assert_eq!(frame.map(|f| u16::from(f.code)), Some(4010));
        }
    }
    quick.publish("a", json!("the others are not held up")).await;
}

/// Whether the line has this number as a word of its own.
fn mentions(line: &str, number: &str) -> bool {
    line.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == number)
}
