//! A node that loses its way to Redis for a while misses nothing, or says that it has.
use crate::rooms_help::{chat, join_since};
use crate::support::nodes::*;
use crate::support::*;
use serde_json::json;
use std::ops::RangeInclusive;

/// A node that reaches Redis directly, and one that reaches it over the proxy.
async fn pair(redis: &Redis, proxy: &TcpProxy, rooms: &str) -> [Gateway; 2] {
    [node(&redis.url(), "direct", rooms).await, node(&proxy.url(), "proxied", rooms).await]
}

async fn publish(client: &mut Client, range: RangeInclusive<u64>) {
    for n in range {
        send_until_taken(client, "a", &n.to_string(), json!(n)).await;
    }
}

async fn sees_all(client: &mut Client, range: RangeInclusive<u64>) {
    for n in range {
        assert_eq!(chat(client).await, (n, json!(n)));
    }
}

/// Sees all messages up to the last one, while the connections to Redis are cut behind some of them.
async fn sees_over_cuts(client: &mut Client, proxy: &TcpProxy, cuts: [u64; 5], last: u64) {
    let mut seen = 0;
    for cut_at in cuts {
        sees_all(client, seen + 1..=cut_at).await;
        seen = cut_at;
        proxy.cut();
    }
    sees_all(client, seen + 1..=last).await;
}

const LONG: &str = "history = { messages = 10000, bytes = \"64MiB\" }";

#[tokio::test]
async fn connections_that_are_cut_in_the_middle_of_a_stream_lose_nothing() {
    let Some(redis) = Redis::start().await else { return };
    let proxy = TcpProxy::to(redis.port).await;
    let [direct, proxied] = &pair(&redis, &proxy, LONG).await;
    let mut here = member(direct, "here", "a").await;
    let mut there = member(proxied, "there", "a").await;
    let mut publisher = member(direct, "publisher", "a").await;
    let streaming = tokio::spawn(async move { publish(&mut publisher, 1..=600).await });
    sees_over_cuts(&mut here, &proxy, [50, 100, 101, 200, 350], 600).await;
    sees_all(&mut there, 1..=600).await;
    within(streaming).await.unwrap();
}

#[tokio::test]
async fn a_sender_whose_node_is_cut_off_sends_again_and_nothing_is_doubled() {
    let Some(redis) = Redis::start().await else { return };
    let proxy = TcpProxy::to(redis.port).await;
    let [direct, proxied] = &pair(&redis, &proxy, LONG).await;
    let mut watcher = member(direct, "watcher", "a").await;
    let mut publisher = member(proxied, "publisher", "a").await;
    let streaming = tokio::spawn(async move { publish(&mut publisher, 1..=300).await });
    sees_over_cuts(&mut watcher, &proxy, [50, 100, 150, 200, 250], 300).await;
    within(streaming).await.unwrap();
}

#[tokio::test]
async fn a_node_without_redis_refuses_at_once_and_catches_up_afterwards() {
    let Some(redis) = Redis::start().await else { return };
    let proxy = TcpProxy::to(redis.port).await;
    let [direct, proxied] = &pair(&redis, &proxy, LONG).await;
    let mut here = member(direct, "here", "a").await;
    let mut there = member(proxied, "there", "a").await;
    publish(&mut here, 1..=5).await;
    sees_all(&mut there, 1..=5).await;
    proxy.refuse();
    readiness(proxied, 503).await;
    assert_eq!(proxied.admin_get("/healthz").await.0, 200);
    let refused = send_named(&mut there, "a", "6", json!(6)).await;
    assert_eq!((&refused["type"], &refused["payload"]["code"]), (&json!("error"), &json!(4000)), "{refused}");
    assert_eq!(refused["payload"]["retryable"], true, "{refused}");
    there.refused("join_room", json!({"room_id": "other"}), 4000).await;
    publish(&mut here, 6..=400).await;
    proxy.open();
    sees_all(&mut there, 6..=400).await;
    readiness(proxied, 200).await;
    let mut late = member(direct, "late", "a").await;
    publish(&mut there, 401..=402).await;
    sees_all(&mut late, 401..=402).await;
    join_until_let_in(&mut there, "other", None).await;
}

#[tokio::test]
async fn a_connection_that_stands_still_is_given_up_and_loses_nothing() {
    let Some(redis) = Redis::start().await else { return };
    let proxy = TcpProxy::to(redis.port).await;
    let [direct, proxied] = &pair(&redis, &proxy, LONG).await;
    let mut here = member(direct, "here", "a").await;
    let mut there = member(proxied, "there", "a").await;
    proxy.hold();
    publish(&mut here, 1..=50).await;
    let refused = send_named(&mut there, "a", "x", json!("x")).await;
    assert_eq!(refused["payload"]["code"], 4000, "{refused}");
    proxy.open();
    publish(&mut here, 51..=60).await;
    // What was held may have reached Redis after all: then it stands where it came, once.
    let x = send_until_taken(&mut there, "a", "x", json!("x")).await;
    let x = x["position"]["offset"].as_u64().unwrap();
    let mut late = session_on(direct, "late").await;
    let joined = join_since(&mut late, "a", &json!({"epoch": late_epoch(&mut here).await, "offset": 0})).await;
    assert_eq!((&joined["recovered"], &joined["position"]["offset"]), (&json!(true), &json!(61)), "{joined}");
    for offset in 1..=61 {
        let n = if offset < x { offset } else { offset - 1 };
        let expected = if offset == x { json!("x") } else { json!(n) };
        assert_eq!(chat(&mut late).await, (offset, expected));
    }
}

/// The epoch of the room `a`.
async fn late_epoch(member: &mut Client) -> serde_json::Value {
    member.join("a").await["position"]["epoch"].clone()
}

#[tokio::test]
async fn who_has_missed_more_than_is_kept_is_told_and_joins_again() {
    let Some(redis) = Redis::start().await else { return };
    let proxy = TcpProxy::to(redis.port).await;
    let [direct, proxied] = &pair(&redis, &proxy, "history = { messages = 10 }").await;
    let mut here = member(direct, "here", "a").await;
    let mut there = session_on(proxied, "there").await;
    let place = there.join("a").await["position"].clone();
    proxy.refuse();
    readiness(proxied, 503).await;
    publish(&mut here, 1..=30).await;
    proxy.open();
    loses_its_place(&mut there).await;
    let joined = join_until_let_in(&mut there, "a", Some(&place)).await;
    assert_eq!(joined["recovered"], false, "{joined}");
    assert_eq!(joined["position"], json!({"epoch": place["epoch"], "offset": 30}));
    publish(&mut here, 31..=31).await;
    sees_all(&mut there, 31..=31).await;
}

#[tokio::test]
async fn subscriptions_that_redis_ends_are_made_again() {
    let Some(redis) = Redis::start().await else { return };
    let [left, right] = &nodes::<2>(&[&redis.url()], LONG).await;
    let mut here = member(left, "here", "a").await;
    let mut there = member(right, "there", "a").await;
    for n in 1..=20 {
        if n % 5 == 0 {
            redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        }
        publish(&mut here, n..=n).await;
    }
    sees_all(&mut there, 1..=20).await;
}
