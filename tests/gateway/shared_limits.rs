//! `shared_limits`: rates that count over all nodes. These tests start a redis-server.
use crate::support::nodes::cluster;
use crate::support::redis::RedisCluster;
use crate::support::token::good;
use crate::support::*;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::{interval, timeout_at};
use tokio_tungstenite::tungstenite::Message;

const SCRIPT: &str = include_str!("../../src/cluster/rates.lua");

/// A node of this name with `/echo`, these limits, and these keys of `[cluster]`.
async fn node(redis: &[String], name: &str, limits: &str, keys: &str) -> Gateway {
    let redis: Vec<&str> = redis.iter().map(String::as_str).collect();
    let cluster = cluster(&redis, name);
    Gateway::start(&format!("{PLAIN}{SECRET_AUTH}{ECHO}{ADMIN}[limits]\n{limits}\n{cluster}{keys}\n")).await
}

async fn two_nodes(redis: &[String], limits: &str) -> [Gateway; 2] {
    let keys = "shared_limits = true";
    [node(redis, "one", limits, keys).await, node(redis, "two", limits, keys).await]
}

/// Sends all at once until it is closed for that.
async fn exhaust(node: &Gateway, client: &str) {
    let mut client = node.open_as("/echo", &good(client)).await;
    while client.try_send(Message::text("x")).await {}
    client.closes_with(4004).await;
}

/// Messages of one who sends one each 20 ms, until it is closed for that.
async fn sent_until_closed(node: &Gateway, client: &str) -> u32 {
    let mut client = node.open_as("/echo", &good(client)).await;
    let mut pace = interval(Duration::from_millis(20));
    let mut sent = 0;
    loop {
        pace.tick().await;
        client.try_send(Message::text("x")).await;
        match client.next().await {
            Some(Message::Text(_)) => sent += 1,
            Some(Message::Close(Some(frame))) => {
                assert_eq!(u16::from(frame.code), 4004, "{frame:?}");
                return sent;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Requests of one connection, which count as handshakes, until one is refused.
async fn asked_until_refused(node: &Gateway, pace: Duration) -> u32 {
    let mut raw = node.raw().await;
    let mut pace = interval(pace);
    for asked in 0.. {
        pace.tick().await;
        raw.try_send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let Some(head) = raw.try_read_head().await.filter(|head| head.status != 429) else { return asked };
        raw.read_body(&head).await;
        assert_eq!(head.status, 404, "{head:?}");
    }
    unreachable!()
}

/// What all echoes of this client come to until then: as many as are sent are answered.
async fn echoes(node: &Gateway, client: &str, until: tokio::time::Instant) -> u64 {
    let mut socket = node.open_as("/echo", &good(client)).await;
    for _ in 0..2000 {
        socket.send(Message::text("x")).await;
    }
    let mut echoed = 0;
    while let Ok(message) = timeout_at(until, socket.next()).await {
        assert!(matches!(message, Some(Message::Text(_))), "{message:?}");
        echoed += 1;
    }
    echoed
}

#[tokio::test]
async fn a_clients_rate_holds_over_two_nodes() {
    let Some(redis) = Redis::start().await else { return };
    let (rate, burst, seconds) = (50, 10, 6);
    let limits = format!("messages_per_second = {rate}\nmessage_burst = {burst}\non_excess = \"pause\"");
    let [one, two] = two_nodes(&[redis.url()], &limits).await;
    let started = tokio::time::Instant::now();
    let until = started + Duration::from_secs(seconds);
    let (here, there) = tokio::join!(echoes(&one, "alice", until), echoes(&two, "alice", until));
    // Each may take its burst, and what comes until its takings are settled: 0.1 s, and on a busy machine not a second.
    let most = rate * (seconds + 1) + 2 * (burst + rate);
    assert!(here + there <= most, "{here} and {there} of at most {most}; each alone may have {}", rate * seconds);
    assert!(here + there >= rate * (seconds - 1), "{here} and {there}: fewer than the rate allows");
}

#[tokio::test]
async fn who_was_closed_on_one_node_is_closed_on_the_other() {
    let Some(redis) = Redis::start().await else { return };
    let [one, two] = two_nodes(&[redis.url()], "messages_per_second = 2\nmessage_burst = 60").await;
    exhaust(&one, "alice").await;
    // For itself it would allow 60.
    let sent = sent_until_closed(&two, "alice").await;
    assert!(sent < 50, "{sent}");
    let mut other = two.open_as("/echo", &good("bob")).await;
    other.text("y").await;
    assert_eq!(other.next_text().await, "y");
    let keys = redis.ask(&["KEYS", "*rate/*"]).await.to_string();
    assert!(keys.contains("wsgate:{rate/"), "{keys}");
    assert!(!keys.contains("alice") && !keys.contains("127.0.0.1"), "{keys}");
}

#[tokio::test]
async fn buckets_are_spread_over_the_masters_of_a_redis_cluster() {
    let Some(redis) = RedisCluster::start().await else { return };
    let [one, two] = two_nodes(&redis.urls(), "messages_per_second = 2\nmessage_burst = 60").await;
    let names: Vec<String> = (0..12).map(|n| format!("client-{n}")).collect();
    join_all(names.iter().map(|name| exhaust(&one, name))).await;
    let sent = join_all(names.iter().map(|name| sent_until_closed(&two, name))).await;
    assert!(sent.iter().all(|sent| *sent < 50), "{sent:?}");
    for master in &redis.nodes {
        let keys = master.ask(&["KEYS", "*rate/*"]).await;
        assert_ne!(keys, json!([]));
    }
}

#[tokio::test]
async fn handshakes_of_an_address_count_over_two_nodes() {
    let Some(redis) = Redis::start().await else { return };
    let [one, two] = two_nodes(&[redis.url()], "handshakes_per_second = 30").await;
    assert!(asked_until_refused(&one, Duration::from_millis(1)).await >= 59);
    // What comes back meanwhile is taken there as well.
    let goes_on = async {
        loop {
            asked_until_refused(&one, Duration::from_millis(5)).await;
        }
    };
    let asked = tokio::select! {
        asked = asked_until_refused(&two, Duration::from_millis(20)) => asked,
        () = goes_on => unreachable!(),
    };
    assert!(asked < 50, "for itself it would allow 60, and 30 a second: {asked}");
}

#[tokio::test]
async fn unless_asked_for_each_node_counts_for_itself() {
    let Some(redis) = Redis::start().await else { return };
    let limits = "messages_per_second = 1\nmessage_burst = 20";
    let one = node(&[redis.url()], "one", limits, "shared_limits = true").await;
    let two = node(&[redis.url()], "two", limits, "").await;
    exhaust(&one, "alice").await;
    assert!(sent_until_closed(&two, "alice").await >= 20);
}

#[tokio::test]
async fn without_redis_the_limits_of_each_node_hold() {
    let Some(mut redis) = Redis::start().await else { return };
    let [one, two] = two_nodes(&[redis.url()], "messages_per_second = 2\nmessage_burst = 60").await;
    redis.stop();
    for node in [&one, &two] {
        eventually(|| async { (node.admin_get("/readyz").await.0 == 503).then_some(()) }).await;
        assert!(sent_until_closed(node, "alice").await >= 60);
    }
    redis.restart().await;
    for node in [&one, &two] {
        eventually(|| async { (node.admin_get("/readyz").await.0 == 200).then_some(()) }).await;
    }
    exhaust(&one, "bob").await;
    let sent = sent_until_closed(&two, "bob").await;
    assert!(sent < 50, "{sent}");
}

/// What the script answers: for each bucket, how far it is from full, in microseconds.
async fn settle(redis: &Redis, node: &str, buckets: &[(&str, u64, u64, u64)]) -> Vec<u64> {
    let count = buckets.len().to_string();
    let mut words = vec!["EVAL", SCRIPT, &count];
    words.extend(buckets.iter().map(|bucket| bucket.0));
    let numbers: Vec<String> =
        buckets.iter().flat_map(|(_, cost, age, most)| [cost, age, most]).map(u64::to_string).collect();
    words.push(node);
    words.extend(numbers.iter().map(String::as_str));
    let answer = redis.ask(&words).await;
    answer.as_array().unwrap().iter().map(|ahead| ahead.as_u64().unwrap()).collect()
}

#[tokio::test]
async fn the_script_adds_up_what_nodes_take() {
    const MINUTE: u64 = 60_000_000;
    let Some(redis) = Redis::start().await else { return };
    let started = Instant::now();
    let is_about = |ahead: u64, minutes: u64| {
        let passed = started.elapsed().as_micros() as u64;
        assert!(ahead <= minutes * MINUTE && ahead + passed >= minutes * MINUTE, "{ahead} instead of {minutes} min");
    };
    let most = 1000 * MINUTE;
    // Who took last knows better itself.
    assert_eq!(settle(&redis, "a", &[("k", MINUTE, 0, most)]).await, [0]);
    assert_eq!(settle(&redis, "a", &[("k", MINUTE, 0, most)]).await, [0]);
    is_about(settle(&redis, "b", &[("k", 3 * MINUTE, 900_000, most)]).await[0], 5);
    is_about(settle(&redis, "a", &[("k", MINUTE, 0, most), ("l", MINUTE, 0, most)]).await[0], 6);
    is_about(settle(&redis, "b", &[("l", 0, 0, most)]).await[0], 1);
    // What was taken long ago has been refilled since.
    assert_eq!(settle(&redis, "a", &[("m", 900_000, 1_000_000, most)]).await, [0]);
    assert_eq!(settle(&redis, "b", &[("m", 10_000, 10_000, most)]).await, [0]);
    is_about(settle(&redis, "c", &[("k", 900 * MINUTE, 0, 20 * MINUTE)]).await[0], 20);
    // It goes a second after the bucket is full again.
    let ttl = redis.ask(&["PTTL", "k"]).await.as_u64().unwrap();
    is_about((ttl - 1000) * 1000, 20);
    // What stands there is not trusted.
    redis.ask(&["SET", "k", "nonsense"]).await;
    is_about(settle(&redis, "a", &[("k", MINUTE, 0, most)]).await[0], 1);
    redis.ask(&["DEL", "k"]).await;
    redis.ask(&["LPUSH", "k", "x"]).await;
    assert!(redis.try_ask(&["EVAL", SCRIPT, "1", "k", "a", "1", "0", "9"]).await.is_err());
    assert_eq!(redis.ask(&["LLEN", "k"]).await, json!(1));
    assert_ne!(redis.ask(&["GET", "l"]).await, Value::Null);
}
