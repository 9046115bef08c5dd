//! Who is in a room, over several nodes: nodes that end, are killed, or lose Redis for a while.
use crate::rooms_help::{brittle, members, sees, sees_presence};
use crate::support::nodes::*;
use crate::support::*;
use serde_json::json;

/// A member of the room `a`, past what its joining brought.
/// The first member, once Redis knows of it: who joins on another node sees it from the beginning.
async fn first_member(redis: &Redis, node: &Gateway, client: &str) -> Client {
    let first = member(node, client, "a").await;
    // Its line, and the version.
    redis.comes_to(&["HLEN", "wsgate:{default/a}:p"], |length| length == "2").await;
    first
}

fn online(names: &[&str]) -> (Vec<(String, String)>, u64) {
    (names.iter().map(|name| ((*name).to_owned(), "online".to_owned())).collect(), names.len() as u64)
}

#[tokio::test]
async fn comings_and_goings_are_seen_on_all_nodes_once() {
    let Some(redis) = Redis::start().await else { return };
    let [left, right] = &nodes::<2>(&[&redis.url()], "").await;
    let mut alice = first_member(&redis, left, "alice").await;
    let mut bob = session_on(right, "bob").await;
    assert_eq!(bob.join("a").await["count"], 2);
    sees_presence(&mut alice, "bob", "online").await;
    let mut carol = member(left, "carol", "a").await;
    for watcher in [&mut alice, &mut bob] {
        sees_presence(watcher, "carol", "online").await;
    }
    // A second session of hers on the other node is no news, nor is that one of them ends.
    let mut again = member(right, "carol", "a").await;
    again.publish("a", json!("here, too")).await;
    for client in [&mut alice, &mut bob] {
        client.expect("chat_message").await;
        assert_eq!(members(client, "a").await, online(&["alice", "bob", "carol"]));
    }
    carol.ask("leave_room", json!({"room_id": "a"})).await;
    let mut dave = member(left, "dave", "a").await;
    for watcher in [&mut alice, &mut bob] {
        sees_presence(watcher, "dave", "online").await;
    }
    again.ask("leave_room", json!({"room_id": "a"})).await;
    for watcher in [&mut alice, &mut bob, &mut dave] {
        sees_presence(watcher, "carol", "offline").await;
        assert_eq!(members(watcher, "a").await, online(&["alice", "bob", "dave"]));
    }
}

#[tokio::test]
async fn a_client_that_moves_to_another_node_is_seen_to_go_and_to_come() {
    let Some(redis) = Redis::start().await else { return };
    let [left, right] = &nodes::<2>(&[&redis.url()], "").await;
    let mut watcher = member(left, "watcher", "a").await;
    let mut roamer = brittle(left, "roamer").await;
    roamer.join("a").await;
    sees_presence(&mut watcher, "roamer", "online").await;
    drop(roamer);
    sees_presence(&mut watcher, "roamer", "offline").await;
    let _roamer = member(right, "roamer", "a").await;
    sees_presence(&mut watcher, "roamer", "online").await;
}

#[tokio::test]
async fn the_members_of_a_killed_node_go_offline_once() {
    let Some(redis) = Redis::start().await else { return };
    let mut all = nodes::<3>(&[&redis.url()], "").await;
    let mut alice = first_member(&redis, &all[0], "alice").await;
    let mut dave = member(&all[2], "dave", "a").await;
    sees_presence(&mut alice, "dave", "online").await;
    let _bob = member(&all[1], "bob", "a").await;
    let _carol = member(&all[1], "carol", "a").await;
    let _carol_too = member(&all[0], "carol", "a").await;
    for watcher in [&mut alice, &mut dave] {
        sees_presence(watcher, "bob", "online").await;
        sees_presence(watcher, "carol", "online").await;
    }
    all[1].signal("KILL");
    all[1].exit().await;
    for watcher in [&mut alice, &mut dave] {
        sees_presence(watcher, "bob", "offline").await;
    }
    // Nothing else was on its way: not of carol, who has a session elsewhere, and nothing twice.
    let _erin = member(&all[0], "erin", "a").await;
    for watcher in [&mut alice, &mut dave] {
        sees_presence(watcher, "erin", "online").await;
        assert_eq!(members(watcher, "a").await, online(&["alice", "carol", "dave", "erin"]));
    }
}

#[tokio::test]
async fn a_node_that_has_lost_redis_for_less_than_its_lease_keeps_its_members() {
    let Some(redis) = Redis::start().await else { return };
    let proxy = TcpProxy::to(redis.port).await;
    let direct = node(&redis.url(), "direct", "").await;
    let proxied = node(&proxy.url(), "proxied", "").await;
    let mut alice = first_member(&redis, &direct, "alice").await;
    let mut bob = member(&proxied, "bob", "a").await;
    sees_presence(&mut alice, "bob", "online").await;
    proxy.refuse();
    readiness(&proxied, 503).await;
    proxy.open();
    readiness(&proxied, 200).await;
    let _carol = member(&proxied, "carol", "a").await;
    for watcher in [&mut alice, &mut bob] {
        sees_presence(watcher, "carol", "online").await;
        assert_eq!(members(watcher, "a").await, online(&["alice", "bob", "carol"]));
    }
}

#[tokio::test]
async fn who_comes_and_goes_while_a_node_has_no_redis_is_seen_when_it_is_back() {
    let Some(redis) = Redis::start().await else { return };
    let proxy = TcpProxy::to(redis.port).await;
    let direct = node(&redis.url(), "direct", "").await;
    let proxied = node(&proxy.url(), "proxied", "").await;
    let mut alice = first_member(&redis, &direct, "alice").await;
    let mut bob = member(&proxied, "bob", "a").await;
    sees_presence(&mut alice, "bob", "online").await;
    let mut carol = member(&proxied, "carol", "a").await;
    for watcher in [&mut alice, &mut bob] {
        sees_presence(watcher, "carol", "online").await;
    }
    proxy.refuse();
    readiness(&proxied, 503).await;
    carol.ask("leave_room", json!({"room_id": "a"})).await;
    sees_presence(&mut bob, "carol", "offline").await;
    let _dave = member(&direct, "dave", "a").await;
    sees_presence(&mut alice, "dave", "online").await;
    proxy.open();
    sees_presence(&mut alice, "carol", "offline").await;
    sees_presence(&mut bob, "dave", "online").await;
    for watcher in [&mut alice, &mut bob] {
        assert_eq!(members(watcher, "a").await, online(&["alice", "bob", "dave"]));
    }
}

#[tokio::test]
async fn a_redis_that_was_away_makes_nobody_offline() {
    let Some(mut redis) = redis::Setup::new().durable().start().await else { return };
    let [left, right] = &nodes::<2>(&[&redis.url()], "").await;
    let mut alice = first_member(&redis, left, "alice").await;
    let mut bob = member(right, "bob", "a").await;
    sees_presence(&mut alice, "bob", "online").await;
    redis.stop();
    for node in [left, right] {
        readiness(node, 503).await;
    }
    redis.restart().await;
    for node in [left, right] {
        readiness(node, 200).await;
    }
    let mut carol = session_on(right, "carol").await;
    join_until_let_in(&mut carol, "a", None).await;
    for watcher in [&mut alice, &mut bob] {
        sees_presence(watcher, "carol", "online").await;
        assert_eq!(members(watcher, "a").await, online(&["alice", "bob", "carol"]));
    }
}

#[tokio::test]
async fn typing_and_receipts_reach_the_other_nodes() {
    let Some(redis) = Redis::start().await else { return };
    let [left, right] = &nodes::<2>(&[&redis.url()], "").await;
    let mut alice = first_member(&redis, left, "alice").await;
    let mut bob = member(right, "bob", "a").await;
    sees_presence(&mut alice, "bob", "online").await;
    bob.publish("a", json!("hello")).await;
    alice.expect("chat_message").await;
    let of_bob = json!({"room_id": "a", "client_id": "bob"});
    bob.json(json!({"type": "typing_start", "payload": {"room_id": "a"}})).await;
    sees(&mut alice, "typing_start", of_bob.clone()).await;
    bob.json(json!({"type": "typing_stop", "payload": {"room_id": "a"}})).await;
    sees(&mut alice, "typing_stop", of_bob).await;
    alice.json(json!({"type": "read_receipt", "payload": {"room_id": "a", "offset": 1}})).await;
    let receipt = bob.skip_to("read_receipt").await;
    assert_eq!(receipt["payload"], json!({"room_id": "a", "client_id": "alice", "offset": 1}));
}
