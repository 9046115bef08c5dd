//! Presence counts clients, not sessions: one online and one offline, however sockets end.
use crate::rooms::session;
use crate::support::*;
use serde_json::{Value, json};

async fn gateway() -> Gateway {
    Gateway::start(&rooms_with_limits("connections_per_client = 0")).await
}

/// The next push that `watcher` gets has to be this presence.
async fn sees(watcher: &mut Client, client: &str, status: &str) -> Value {
    let push = watcher.expect("presence_update").await;
    assert_eq!(push["payload"]["room_id"], "a", "{push}");
    assert_eq!(push["payload"]["client_id"], client, "{push}");
    assert_eq!(push["payload"]["status"], status, "{push}");
    assert!(push["metadata"].get("correlation_id").is_none(), "a push has none: {push}");
    push
}

/// Nothing is on its way to `watcher`: the next it gets is its own message.
async fn sees_nothing(watcher: &mut Client) {
    watcher.json(json!({"type": "message", "payload": {"room_id": "a", "message": "mark"}})).await;
    let (one, two) = (watcher.next_json().await, watcher.next_json().await);
    let kinds = [one["type"].as_str().unwrap(), two["type"].as_str().unwrap()];
    assert!(kinds == ["message_sent", "chat_message"] || kinds == ["chat_message", "message_sent"], "{one} {two}");
}

#[tokio::test]
async fn joining_and_leaving_is_seen_by_the_others() {
    let gateway = gateway().await;
    let mut watcher = session(&gateway, "watcher").await;
    watcher.join("a").await;
    let mut alice = session(&gateway, "alice").await;
    alice.join("a").await;
    sees(&mut watcher, "alice", "online").await;
    alice.ask("leave_room", json!({"room_id": "a"})).await;
    sees(&mut watcher, "alice", "offline").await;
}

#[tokio::test]
async fn two_tabs_are_one_client() {
    let gateway = gateway().await;
    let mut watcher = session(&gateway, "watcher").await;
    watcher.join("a").await;
    let mut one = session(&gateway, "alice").await;
    let mut two = session(&gateway, "alice").await;
    one.join("a").await;
    sees(&mut watcher, "alice", "online").await;
    assert_eq!(two.join("a").await["count"], 2, "clients are counted, not sessions");
    sees_nothing(&mut watcher).await;
    one.ask("leave_room", json!({"room_id": "a"})).await;
    sees_nothing(&mut watcher).await;
    assert_eq!(two.close(1000, "").await, Some(1000));
    sees(&mut watcher, "alice", "offline").await;
}

#[tokio::test]
async fn a_socket_that_is_closed_or_lost_goes_offline_once() {
    let gateway = gateway().await;
    let mut watcher = session(&gateway, "watcher").await;
    watcher.join("a").await;
    for lost in [false, true] {
        let mut alice = session(&gateway, "alice").await;
        alice.join("a").await;
        sees(&mut watcher, "alice", "online").await;
        if lost {
            drop(alice);
        } else {
            alice.close(1001, "").await;
        }
        sees(&mut watcher, "alice", "offline").await;
        sees_nothing(&mut watcher).await;
    }
}

#[tokio::test]
async fn a_client_that_answers_no_ping_goes_offline() {
    let limits = "ping_interval = \"200ms\"\npong_timeout = \"3s\"";
    let gateway = Gateway::start(&rooms_with_limits(limits)).await;
    let mut watcher = session(&gateway, "watcher").await;
    watcher.join("a").await;
    let mut dead = gateway.raw().await;
    let bearer = format!("Authorization: Bearer {}", token::good("dead"));
    dead.upgrade("/ws", &[&bearer]).await;
    let join = json!({"type": "join_room", "payload": {"room_id": "a"}}).to_string();
    dead.send(raw::frame(0x81, join.as_bytes())).await;
    sees(&mut watcher, "dead", "online").await;
    sees(&mut watcher, "dead", "offline").await;
}

#[tokio::test]
async fn one_s_own_presence_is_not_pushed_to_oneself() {
    let gateway = gateway().await;
    let mut alice = session(&gateway, "alice").await;
    alice.join("a").await;
    sees_nothing(&mut alice).await;
}

#[tokio::test]
async fn who_left_the_room_sees_no_presence_of_it() {
    let gateway = gateway().await;
    let mut watcher = session(&gateway, "watcher").await;
    watcher.join("a").await;
    watcher.ask("leave_room", json!({"room_id": "a"})).await;
    let mut alice = session(&gateway, "alice").await;
    alice.join("a").await;
    watcher.json(json!({"type": "ping"})).await;
    watcher.expect("pong").await;
}

#[tokio::test]
async fn presence_can_be_switched_off() {
    let gateway = Gateway::start(&format!("{PLAIN}{SECRET_AUTH}{ROOMS}[rooms]\npresence = false\n")).await;
    let mut watcher = session(&gateway, "watcher").await;
    watcher.join("a").await;
    let mut alice = session(&gateway, "alice").await;
    alice.join("a").await;
    sees_nothing(&mut watcher).await;
}

#[tokio::test]
async fn a_crowded_room_is_told_numbers() {
    let limits = "handshakes_per_second = 0\nconnections_per_ip = 0\nping_interval = 0";
    let gateway = Gateway::start(&rooms_with_limits(limits)).await;
    let mut watcher = session(&gateway, "watcher").await;
    watcher.join("a").await;
    let mut others = Vec::new();
    for i in 1..1003 {
        let mut other = session(&gateway, &format!("c{i}")).await;
        other.join("a").await;
        others.push(other);
    }
    // The 1,000 that make the crowd are seen one by one, and the rest as numbers.
    for _ in 1..1000 {
        let push = watcher.expect("presence_update").await;
        assert_eq!(push["payload"]["status"], "online", "{push}");
    }
    let mut joined = 0;
    while joined < 3 {
        let push = watcher.expect("presence_update").await;
        let payload = &push["payload"];
        assert_eq!((payload["room_id"].as_str(), payload["left"].as_u64()), (Some("a"), Some(0)), "{push}");
        joined += payload["joined"].as_u64().unwrap();
        assert_eq!(payload["count"].as_u64().unwrap(), 1000 + joined, "{push}");
    }
}
