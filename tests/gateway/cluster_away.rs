//! Redis ends and comes back, stands still, and comes back with less than it had.
use crate::rooms_help::{chat, join_since, members};
use crate::support::nodes::*;
use crate::support::redis::Setup;
use crate::support::*;
use serde_json::{Value, json};

/// A member on each of two nodes, both past all that their joining brought, and the place that both start from.
async fn two_members(nodes: &[Gateway]) -> (Client, Client, Value) {
    let mut both = join_each(nodes, "member", "a").await;
    let (right, joined) = both.pop().unwrap();
    let (left, _) = both.pop().unwrap();
    (left, right, joined["position"].clone())
}

#[tokio::test]
async fn redis_that_ends_and_comes_back_with_all_it_had_costs_nothing() {
    let Some(mut redis) = Setup::new().durable().start().await else { return };
    let nodes = nodes::<2>(&[&redis.url()], "").await;
    let (mut left, mut right, place) = two_members(&nodes).await;
    send_until_taken(&mut left, "a", "1", json!(1)).await;
    redis.stop();
    for client in [&mut left, &mut right] {
        let refused = send_named(client, "a", "2", json!(2)).await;
        assert_eq!((&refused["payload"]["code"], &refused["payload"]["retryable"]), (&json!(4000), &json!(true)));
    }
    for node in &nodes {
        readiness(node, 503).await;
    }
    let joined = left.ask("join_room", json!({"room_id": "a"})).await;
    assert_eq!(joined["type"], "room_joined", "who is in stays in: {joined}");
    redis.restart().await;
    let sent = send_until_taken(&mut right, "a", "2", json!(2)).await;
    assert_eq!(sent["position"], json!({"epoch": place["epoch"], "offset": 2}), "{sent}");
    send_until_taken(&mut left, "a", "3", json!(3)).await;
    let mut late = session_on(&nodes[1], "late").await;
    let joined = join_since(&mut late, "a", &place).await;
    assert_eq!((&joined["recovered"], &joined["count"]), (&json!(true), &json!(3)), "{joined}");
    for client in [&mut late] {
        for n in 1..=3 {
            assert_eq!(chat(client).await, (n, json!(n)));
        }
    }
    for node in &nodes {
        readiness(node, 200).await;
    }
}

#[tokio::test]
async fn members_see_all_of_what_was_said_around_the_end_of_redis() {
    let Some(mut redis) = Setup::new().durable().start().await else { return };
    let nodes = nodes::<2>(&[&redis.url()], "history = { messages = 1000 }").await;
    let (mut left, mut right, _) = two_members(&nodes).await;
    let mut publisher = member(&nodes[0], "publisher", "a").await;
    let streaming = tokio::spawn(async move {
        for n in 1..=200 {
            send_until_taken(&mut publisher, "a", &n.to_string(), json!(n)).await;
        }
    });
    for n in 1..=200 {
        assert_eq!(chat(&mut right).await, (n, json!(n)));
        if n % 60 == 0 {
            redis.restart().await;
        }
    }
    for n in 1..=200 {
        assert_eq!(chat(&mut left).await, (n, json!(n)));
    }
    within(streaming).await.unwrap();
}

#[tokio::test]
async fn a_redis_that_stands_still_is_away_and_what_it_took_is_there_once() {
    let Some(redis) = Redis::start().await else { return };
    let nodes = nodes::<2>(&[&redis.url()], "").await;
    let (mut left, mut right, place) = two_members(&nodes).await;
    send_until_taken(&mut left, "a", "1", json!(1)).await;
    redis.pause();
    let refused = send_named(&mut left, "a", "2", json!(2)).await;
    assert_eq!((&refused["payload"]["code"], &refused["payload"]["retryable"]), (&json!(4000), &json!(true)));
    readiness(&nodes[0], 503).await;
    redis.resume();
    let sent = send_until_taken(&mut left, "a", "2", json!(2)).await;
    assert_eq!(sent["position"], json!({"epoch": place["epoch"], "offset": 2}), "{sent}");
    send_until_taken(&mut left, "a", "3", json!(3)).await;
    for n in 1..=3 {
        assert_eq!(chat(&mut right).await, (n, json!(n)));
    }
    let (listed, count) = members(&mut right, "a").await;
    assert_eq!((listed.len(), count), (2, 2), "nobody is gone: {listed:?}");
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_begins_a_new_epoch() {
    let Some(mut redis) = Redis::start().await else { return };
    let nodes = nodes::<2>(&[&redis.url()], "").await;
    let (mut left, mut right, mut place) = two_members(&nodes).await;
    for n in 1..=3 {
        send_until_taken(&mut left, "a", &n.to_string(), json!(n)).await;
        assert_eq!(chat(&mut right).await, (n, json!(n)));
    }
    place["offset"] = 3.into();
    redis.restart().await;
    for client in [&mut left, &mut right] {
        loses_its_place(client).await;
    }
    let anew = begins_anew(&mut left, &place).await;
    assert_eq!(begins_anew(&mut right, &place).await["epoch"], anew["epoch"], "one for both nodes");
    let sent = send_until_taken(&mut right, "a", "new", json!("new")).await;
    assert_eq!(sent["position"], json!({"epoch": anew["epoch"], "offset": 1}), "{sent}");
    assert_eq!(chat(&mut left).await, (1, json!("new")), "nothing of before");
    let (listed, count) = members(&mut left, "a").await;
    assert_eq!((listed.len(), count), (2, 2), "both are announced anew: {listed:?}");
}

#[tokio::test]
async fn a_redis_that_is_emptied_while_it_runs_begins_a_new_epoch() {
    let Some(redis) = Redis::start().await else { return };
    let nodes = nodes::<2>(&[&redis.url()], "").await;
    let (mut left, mut right, mut place) = two_members(&nodes).await;
    send_until_taken(&mut left, "a", "1", json!(1)).await;
    assert_eq!(chat(&mut right).await, (1, json!(1)));
    place["offset"] = 1.into();
    redis.flush().await;
    let sent = send_until_taken(&mut left, "a", "2", json!(2)).await;
    assert_ne!(sent["position"]["epoch"], place["epoch"], "{sent}");
    loses_its_place(&mut right).await;
    let anew = begins_anew(&mut right, &place).await;
    assert_eq!(anew["epoch"], sent["position"]["epoch"]);
    assert_eq!(join_until_let_in(&mut left, "a", None).await["position"], anew);
    send_until_taken(&mut right, "a", "3", json!(3)).await;
    assert_eq!(chat(&mut left).await, (2, json!(3)));
}

#[tokio::test]
async fn a_redis_whose_memory_is_full_refuses_and_forgets_nothing() {
    let Some(redis) = Redis::start().await else { return };
    let nodes = nodes::<2>(&[&redis.url()], "").await;
    let (mut left, mut right, place) = two_members(&nodes).await;
    let unnamed = async |client: &mut Client| {
        client.json(json!({"type": "message", "payload": {"room_id": "a", "message": "x"}})).await;
        client.skip_to("error").await["payload"].clone()
    };
    for n in 1..=5 {
        left.publish("a", json!(n)).await;
    }
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_eq!(unnamed(&mut left).await["code"], 4000);
    let refused = send_named(&mut right, "a", "named", json!("x")).await;
    assert_eq!(refused["payload"]["code"], 4000, "{refused}");
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let sent = send_until_taken(&mut right, "a", "named", json!("x")).await;
    assert_eq!(sent["position"], json!({"epoch": place["epoch"], "offset": 6}), "{sent}");
    let mut late = session_on(&nodes[1], "late").await;
    assert_eq!(join_since(&mut late, "a", &place).await["recovered"], true);
    for n in 1..=5 {
        assert_eq!(chat(&mut late).await, (n, json!(n)));
    }
}
