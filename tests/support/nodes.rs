//! Several gateways that are nodes of one cluster.
use super::token::good;
use super::{ADMIN, Client, Gateway, PLAIN, ROOMS, SECRET_AUTH, eventually, within};
use serde_json::{Value, json};
use std::time::Duration;

/// Limits of which no test is about.
const LIFTED: &str = "[limits]\nmessages_per_second = 0\nbytes_per_second = 0\nconnections_per_client = 0\n\
    connections_per_ip = 0\nhandshakes_per_second = 0\n";

/// `[cluster]` of a node of this name; more keys of it may follow.
pub fn cluster(redis: &[&str], node: &str) -> String {
    format!("[cluster]\nredis = {redis:?}\nnode = \"{node}\"\n")
}

/// `/ws` on two shards and an admin interface; `[rooms]` has these keys, and tables may follow them.
pub fn node_file(redis: &[&str], node: &str, rooms: &str) -> String {
    let cluster = cluster(redis, node);
    format!(
        "[server]\nshards = 2\ndrain = \"100ms\"\n{PLAIN}{SECRET_AUTH}{ROOMS}{ADMIN}{LIFTED}{cluster}[rooms]\n{rooms}\n"
    )
}

/// A node of this name.
pub async fn node(redis: &str, name: &str, rooms: &str) -> Gateway {
    Gateway::start(&node_file(&[redis], name, rooms)).await
}

/// So many nodes, called `node-0`, `node-1`, …, once each knows of the others.
pub async fn nodes<const N: usize>(redis: &[&str], rooms: &str) -> [Gateway; N] {
    let mut nodes = Vec::new();
    for n in 0..N {
        nodes.push(Gateway::start(&node_file(redis, &format!("node-{n}"), rooms)).await);
    }
    for node in &nodes {
        eventually(|| async {
            let status: Value = serde_json::from_str(&node.admin_get("/api/status").await.1).unwrap();
            (status["nodes"].as_array().unwrap().len() == N).then_some(())
        })
        .await;
    }
    nodes.try_into().unwrap_or_else(|_| unreachable!())
}

/// A session of this client, past its `connection_established`.
pub async fn session_on(node: &Gateway, client: &str) -> Client {
    let mut session = node.open_as("/ws", &good(client)).await;
    session.expect("connection_established").await;
    session
}

/// A session of this client that has joined this room.
pub async fn member(node: &Gateway, client: &str, room: &str) -> Client {
    let mut member = session_on(node, client).await;
    member.join(room).await;
    member
}

/// A session of a client on each node that has joined this room, with the payload of its `room_joined`: `NAME-0` on the
/// first, `NAME-1` on the second, …
pub async fn join_each(nodes: &[Gateway], name: &str, room: &str) -> Vec<(Client, Value)> {
    let mut members = Vec::new();
    for (n, node) in nodes.iter().enumerate() {
        let mut member = session_on(node, &format!("{name}-{n}")).await;
        let joined = member.join(room).await;
        members.push((member, joined));
    }
    members
}

/// Publishes under this name, and gives the answer: `message_sent` or `error`.
pub async fn send_named(client: &mut Client, room: &str, name: &str, message: Value) -> Value {
    let payload = json!({"room_id": room, "message": message});
    client.json(json!({"type": "message", "payload": payload, "metadata": {"message_id": name}})).await;
    loop {
        let answer = client.next_json().await;
        if answer["metadata"]["correlation_id"] == name {
            return answer;
        }
    }
}

/// Publishes under this name, again and again as long as the error says that it may be tried again, and gives the
/// payload of `message_sent`.
pub async fn send_until_taken(client: &mut Client, room: &str, name: &str, message: Value) -> Value {
    within(async {
        loop {
            let answer = send_named(client, room, name, message.clone()).await;
            if answer["type"] == "message_sent" {
                return answer["payload"].clone();
            }
            assert_eq!((&answer["payload"]["code"], &answer["payload"]["retryable"]), (&json!(4000), &json!(true)));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// Joins, again and again as long as the error says that it may be tried again, and gives the payload of `room_joined`.
pub async fn join_until_let_in(client: &mut Client, room: &str, since: Option<&Value>) -> Value {
    let payload = match since {
        Some(since) => json!({"room_id": room, "since": since}),
        None => json!({"room_id": room}),
    };
    within(async {
        loop {
            let answer = client.ask("join_room", payload.clone()).await;
            if answer["type"] == "room_joined" {
                return answer["payload"].clone();
            }
            assert_eq!((&answer["payload"]["code"], &answer["payload"]["retryable"]), (&json!(4000), &json!(true)));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// The next `room_left` of the room `a`, which has to say that the place is lost.
pub async fn loses_its_place(client: &mut Client) {
    let left = client.skip_to("room_left").await["payload"].clone();
    assert_eq!((&left["room_id"], &left["code"], &left["retryable"]), (&json!("a"), &json!(4010), &json!(true)));
}

/// Joins the room `a` with the place of before, in vain, and gives the new one.
pub async fn begins_anew(client: &mut Client, before: &Value) -> Value {
    let joined = join_until_let_in(client, "a", Some(before)).await;
    assert_eq!(joined["recovered"], false, "{joined}");
    assert_ne!(joined["position"]["epoch"], before["epoch"], "{joined}");
    joined["position"].clone()
}

/// Waits until `/readyz` answers with this status: 200, or 503 where the node is cut off from Redis.
pub async fn readiness(node: &Gateway, status: u16) {
    eventually(|| async { (node.admin_get("/readyz").await.0 == status).then_some(()) }).await;
}
