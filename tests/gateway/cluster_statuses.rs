//! What clients say of themselves, over all nodes.
use crate::admin_api::{get, sees_none};
use crate::support::nodes::{member, node, nodes, readiness, session_on};
use crate::support::*;
use serde_json::json;

/// The status of the client's session on this node, as that one knows it.
async fn status_on(node: &Gateway, name: &str, client: &str) -> String {
    let sessions = get(node, &format!("/api/clients/{client}")).await["sessions"].clone();
    let here = sessions.as_array().unwrap().iter().find(|s| s["node"] == name).unwrap().clone();
    here["status"].as_str().unwrap().to_owned()
}

async fn comes_to_be(node: &Gateway, name: &str, client: &str, status: &str) {
    eventually(|| async { (status_on(node, name, client).await == status).then_some(()) }).await;
}

#[tokio::test]
async fn what_a_client_says_to_one_node_its_sessions_on_the_others_know() {
    let Some(redis) = Redis::start().await else { return };
    let all: [Gateway; 2] = nodes(&[&redis.url()], "").await;
    let (mut one, mut two) = (session_on(&all[0], "alice").await, session_on(&all[1], "alice").await);
    let mut bob = session_on(&all[1], "bob").await;
    two.join("tea").await;
    bob.join("tea").await;
    one.json(json!({"type": "presence_update", "payload": {"status": "at lunch ü"}})).await;
    let told = bob.skip_to("presence_update").await;
    assert_eq!((&told["payload"]["client_id"], &told["payload"]["status"]), (&json!("alice"), &json!("at lunch ü")));
    comes_to_be(&all[1], "node-1", "alice", "at lunch ü").await;
    two.json(json!({"type": "presence_update", "payload": {"status": "online"}})).await;
    comes_to_be(&all[0], "node-0", "alice", "online").await;
}

#[tokio::test]
async fn who_is_invisible_is_so_on_a_node_that_has_just_started() {
    let Some(redis) = Redis::start().await else { return };
    let [mut a, b]: [Gateway; 2] = nodes(&[&redis.url()], "").await;
    let mut alice = session_on(&a, "alice").await;
    alice.json(json!({"type": "presence_update", "payload": {"status": "away"}})).await;
    // It waits to be told, and the client goes.
    alice.json(json!({"type": "presence_update", "payload": {"status": "invisible"}})).await;
    redis.comes_to(&["HGET", "wsgate:{said/default}", "alice"], |said| said.ends_with(" invisible")).await;
    alice.close(1000, "").await;
    let late = node(&redis.url(), "late", "").await;
    assert!(a.stop().await.success());
    for node in [&late, &b] {
        let mut bob = member(node, "bob", "tea").await;
        let mut alice = member(node, "alice", "tea").await;
        sees_none(&mut bob, "presence_update").await;
        bob.close(1000, "").await;
        alice.close(1000, "").await;
    }
}

#[tokio::test]
async fn what_is_said_without_redis_is_told_when_it_is_back() {
    let Some(mut redis) = Redis::start().await else { return };
    let all: [Gateway; 2] = nodes(&[&redis.url()], "").await;
    let mut one = session_on(&all[0], "alice").await;
    let _two = session_on(&all[1], "alice").await;
    one.json(json!({"type": "presence_update", "payload": {"status": "away"}})).await;
    comes_to_be(&all[1], "node-1", "alice", "away").await;
    redis.stop();
    readiness(&all[0], 503).await;
    one.json(json!({"type": "presence_update", "payload": {"status": "busy"}})).await;
    comes_to_be(&all[0], "node-0", "alice", "busy").await;
    redis.restart().await;
    comes_to_be(&all[1], "node-1", "alice", "busy").await;
    // Redis came back empty, and has it again.
    redis.comes_to(&["HGET", "wsgate:{said/default}", "alice"], |said| said.ends_with(" busy")).await;
}
