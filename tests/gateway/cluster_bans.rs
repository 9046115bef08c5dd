//! Bans that hold on all nodes.
use crate::admin_api::{call, done, get};
use crate::support::nodes::{member, node, nodes, readiness, session_on};
use crate::support::redis::Setup;
use crate::support::token::good;
use crate::support::*;
use serde_json::{Value, json};

/// Whether this client is let in by the node.
async fn is_let_in(node: &Gateway, client: &str) -> bool {
    let mut session = node.open_as("/ws", &good(client)).await;
    matches!(session.next().await, Some(tokio_tungstenite::tungstenite::Message::Text(_)))
}

async fn is_kept_out(node: &Gateway, client: &str) {
    node.open_as("/ws", &good(client)).await.closes_with(4009).await;
}

/// Clients and rooms of the bans, as this node tells it.
async fn banned(node: &Gateway) -> Vec<(String, String)> {
    let bans = get(node, "/api/bans").await["bans"].clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    bans.as_array().unwrap().iter().map(|ban| (text(&ban["client_id"]), text(&ban["room_id"]))).collect()
}

async fn comes_to_ban(node: &Gateway, wanted: &[(&str, &str)]) {
    let is_it = |found: Vec<(String, String)>| found.iter().map(|(c, r)| (&**c, &**r)).eq(wanted.iter().copied());
    eventually(|| async { is_it(banned(node).await).then_some(()) }).await;
}

#[tokio::test]
async fn a_ban_holds_on_every_node_and_ends_the_sessions_of_all() {
    let Some(redis) = Redis::start().await else { return };
    let all: [Gateway; 3] = nodes(&[&redis.url()], "").await;
    let (mut alice, mut other) = (session_on(&all[0], "alice").await, session_on(&all[1], "alice").await);
    let mut eve = member(&all[1], "eve", "tea").await;
    // From the gateway.
    assert_eq!(done(&all[2], "PUT", "/api/bans/alice", json!({"reason": "spam"})).await, json!({"sessions": 2}));
    for alice in [&mut alice, &mut other] {
        alice.closes_with(4009).await;
    }
    // From a room, by another node than the client's.
    let body = json!({"room_id": "tea", "seconds": 3600});
    assert_eq!(done(&all[0], "PUT", "/api/bans/eve", body).await, json!({"sessions": 1}));
    assert_eq!(eve.skip_to("room_left").await["payload"]["code"], 4009);
    for node in &all {
        is_kept_out(node, "alice").await;
        session_on(node, "eve").await.refused("join_room", json!({"room_id": "tea"}), 4009).await;
        let bans = get(node, "/api/bans").await;
        assert_eq!(bans, get(&all[0], "/api/bans").await);
        assert_eq!(banned(node).await, [("alice".into(), "".into()), ("eve".into(), "tea".into())]);
        assert_eq!(bans["bans"][0]["reason"], "spam");
    }
    // Lifted by yet another one.
    assert_eq!(done(&all[1], "DELETE", "/api/bans/alice", json!({})).await, json!({"lifted": true}));
    assert_eq!(done(&all[1], "DELETE", "/api/bans/alice", json!({})).await, json!({"lifted": false}));
    for node in &all {
        comes_to_ban(node, &[("eve", "tea")]).await;
        assert!(is_let_in(node, "alice").await);
    }
    assert_eq!(done(&all[2], "DELETE", "/api/bans/eve?room_id=tea", json!({})).await, json!({"lifted": true}));
    for node in &all {
        comes_to_ban(node, &[]).await;
        session_on(node, "eve").await.join("tea").await;
    }
}

#[tokio::test]
async fn bans_outlast_all_nodes() {
    let Some(redis) = Redis::start().await else { return };
    let [mut a, mut b]: [Gateway; 2] = nodes(&[&redis.url()], "").await;
    done(&a, "PUT", "/api/bans/alice", json!({"reason": "it's \"spam\" ü"})).await;
    done(&b, "PUT", "/api/bans/eve", json!({"room_id": "tea", "seconds": 3600})).await;
    done(&b, "PUT", "/api/bans/bob", json!({})).await;
    done(&a, "DELETE", "/api/bans/bob", json!({})).await;
    let before = get(&a, "/api/bans").await;
    assert!(a.stop().await.success() && b.stop().await.success());
    let [a, b]: [Gateway; 2] = nodes(&[&redis.url()], "").await;
    for node in [&a, &b] {
        assert_eq!(get(node, "/api/bans").await, before);
        is_kept_out(node, "alice").await;
    }
    assert!(!a.folder.path().join("data").exists(), "there is no store beside Redis");
}

#[tokio::test]
async fn without_redis_no_ban_is_made_and_those_that_are_hold() {
    let Some(mut redis) = Setup::new().durable().start().await else { return };
    let all: [Gateway; 2] = nodes(&[&redis.url()], "").await;
    done(&all[0], "PUT", "/api/bans/alice", json!({})).await;
    redis.stop();
    for node in &all {
        readiness(node, 503).await;
        let (status, body) = call(node, "PUT", "/api/bans/bob", json!({})).await;
        assert_eq!((status, &body["error"]["message"]), (503, &json!("Redis is not reached")));
        assert_eq!(call(node, "DELETE", "/api/bans/alice", json!({})).await.0, 503);
        assert_eq!(banned(node).await, [("alice".into(), "".into())]);
        is_kept_out(node, "alice").await;
        assert!(is_let_in(node, "bob").await);
    }
    redis.restart().await;
    for node in &all {
        readiness(node, 200).await;
    }
    assert_eq!(done(&all[1], "DELETE", "/api/bans/alice", json!({})).await, json!({"lifted": true}));
    comes_to_ban(&all[0], &[]).await;
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_is_given_the_bans_again() {
    let Some(mut redis) = Redis::start().await else { return };
    let [a, mut b]: [Gateway; 2] = nodes(&[&redis.url()], "").await;
    done(&a, "PUT", "/api/bans/alice", json!({"reason": "spam"})).await;
    done(&b, "PUT", "/api/bans/eve", json!({"room_id": "tea"})).await;
    let before = get(&a, "/api/bans").await;
    redis.restart().await;
    for node in [&a, &b] {
        readiness(node, 200).await;
    }
    redis.comes_to(&["HLEN", "wsgate:{bans}"], |n| n == "2").await;
    assert!(b.stop().await.success());
    let b = node(&redis.url(), "node-1", "").await;
    for node in [&a, &b] {
        assert_eq!(get(node, "/api/bans").await, before);
    }
    done(&b, "DELETE", "/api/bans/alice", json!({})).await;
    comes_to_ban(&a, &[("eve", "tea")]).await;
}

#[tokio::test]
async fn what_was_not_heard_of_is_found() {
    let Some(redis) = Redis::start().await else { return };
    let all: [Gateway; 2] = nodes(&[&redis.url()], "").await;
    done(&all[0], "PUT", "/api/bans/alice", json!({})).await;
    let (mut bob, mut eve) = (session_on(&all[0], "bob").await, session_on(&all[1], "eve").await);
    eve.join("tea").await;
    // As another node writes it, of which these two are told nothing.
    redis.ask(&["HSET", "wsgate:{bans}", r#"["default","bob",""]"#, "[5,null,\"spam\"]", "x", "nonsense"]).await;
    redis.ask(&["HSET", "wsgate:{bans}", r#"["default","eve","tea"]"#, "[5,null,null]"]).await;
    redis.ask(&["HINCRBY", "wsgate:{bans}:v", "number", "1"]).await;
    for node in &all {
        comes_to_ban(node, &[("alice", ""), ("bob", ""), ("eve", "tea")]).await;
        is_kept_out(node, "bob").await;
    }
    bob.closes_with(4009).await;
    assert_eq!(eve.skip_to("room_left").await["payload"]["code"], 4009);
}

#[tokio::test]
async fn bans_that_have_ended_are_deleted() {
    let Some(redis) = Redis::start().await else { return };
    let long_ago = r#"["elsewhere","bob",""]"#;
    let entries = [long_ago, "[5,6,\"spam\"]", r#"["default","alice",""]"#, "[5,null,null]"];
    redis.ask(&[&["HSET", "wsgate:{bans}"][..], &entries].concat()).await;
    let node = node(&redis.url(), "a", "").await;
    assert_eq!(banned(&node).await, [("alice".into(), "".into())]);
    redis.comes_to(&["HKEYS", "wsgate:{bans}"], |keys| keys == r#"["[\"default\",\"alice\",\"\"]"]"#).await;
}

/// As a node tells all others of bans; nothing: all of them are to be read again.
async fn tell(redis: &Redis, told: &str) {
    redis.ask(&["SPUBLISH", "wsgate:{nodes}", &format!("bans 0000000000000007\n{told}")]).await;
}

#[tokio::test]
async fn sessions_are_ended_also_where_old_bans_cannot_be_deleted() {
    let Some(redis) = Redis::start().await else { return };
    let node = node(&redis.url(), "a", "").await;
    let mut bob = session_on(&node, "bob").await;
    redis.ask(&["ACL", "SETUSER", "default", "-hdel"]).await;
    redis.ask(&["HSET", "wsgate:{bans}", r#"["default","bob",""]"#, "[5,null,null]"]).await;
    redis.ask(&["HSET", "wsgate:{bans}", r#"["default","old",""]"#, "[5,6,null]"]).await;
    tell(&redis, "").await;
    bob.closes_with(4009).await;
}

#[tokio::test]
async fn a_ban_that_is_told_ends_the_sessions_also_where_its_maker_does_not_ask() {
    let Some(redis) = Redis::start().await else { return };
    let node = node(&redis.url(), "a", "").await;
    let (mut bob, mut eve) = (session_on(&node, "bob").await, session_on(&node, "eve").await);
    eve.join("tea").await;
    // A first one begins the count.
    done(&node, "PUT", "/api/bans/alice", json!({})).await;
    let epoch = redis.ask(&["HGET", "wsgate:{bans}:v", "epoch"]).await;
    let bans = [(2, r#"["default","bob",""]"#), (3, r#"["default","eve","tea"]"#)];
    for (number, key) in bans {
        let row = "[5,null,null]";
        redis.ask(&["HSET", "wsgate:{bans}", key, row]).await;
        redis.ask(&["HINCRBY", "wsgate:{bans}:v", "number", "1"]).await;
        tell(&redis, &json!({"epoch": epoch, "number": number, "key": key, "row": row}).to_string()).await;
    }
    bob.closes_with(4009).await;
    assert_eq!(eve.skip_to("room_left").await["payload"]["code"], 4009);
}
