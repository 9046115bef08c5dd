//! Several gateways that are nodes of one cluster.
use super::token::good;
use super::{ADMIN, Client, Gateway, PLAIN, ROOMS, SECRET_AUTH};
use serde_json::Value;

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
    format!("[server]\nshards = 2\n{PLAIN}{SECRET_AUTH}{ROOMS}{ADMIN}{LIFTED}{cluster}[rooms]\n{rooms}\n")
}

/// A node of this name.
pub async fn node(redis: &str, name: &str, rooms: &str) -> Gateway {
    Gateway::start(&node_file(&[redis], name, rooms)).await
}

/// So many nodes, called `node-0`, `node-1`, …
pub async fn nodes<const N: usize>(redis: &[&str], rooms: &str) -> [Gateway; N] {
    let mut nodes = Vec::new();
    for n in 0..N {
        nodes.push(Gateway::start(&node_file(redis, &format!("node-{n}"), rooms)).await);
    }
    nodes.try_into().unwrap_or_else(|_| unreachable!())
}

/// A session of this client, past its `connection_established`.
pub async fn session_on(node: &Gateway, client: &str) -> Client {
    let mut session = node.open_as("/ws", &good(client)).await;
    session.expect("connection_established").await;
    session
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
