//! Rooms over several nodes: one order, one history, one memory of names.
use crate::rooms_help::{chat, chat_text, join_since};
use crate::support::nodes::*;
use crate::support::*;
use serde_json::{Value, json};
use std::collections::HashSet;

#[tokio::test]
async fn messages_of_all_nodes_come_to_all_in_one_order() {
    const EACH: usize = 50;
    let Some(redis) = Redis::start().await else { return };
    let nodes = nodes::<3>(&[&redis.url()], "").await;
    let mut watchers = join_each(&nodes, "watcher", "a").await;
    let epoch = watchers[0].1["position"]["epoch"].clone();
    let mut publishers = Vec::new();
    for (n, (mut publisher, joined)) in join_each(&nodes, "publisher", "a").await.into_iter().enumerate() {
        assert_eq!(joined["position"], json!({"epoch": epoch, "offset": 0}));
        publishers.push(tokio::spawn(async move {
            let mut places = Vec::new();
            for k in 0..EACH {
                let sent = publisher.publish("a", json!([n, k])).await;
                assert_eq!(sent["duplicate"], false, "{sent}");
                places.push(sent["position"]["offset"].as_u64().unwrap());
            }
            places
        }));
    }
    let mut seen = Vec::new();
    for _ in 0..3 * EACH {
        seen.push(chat_text(&mut watchers[0].0).await);
    }
    for (watcher, _) in &mut watchers[1..] {
        for expected in &seen {
            assert_eq!(chat_text(watcher).await, *expected, "to the byte");
        }
    }
    let mut places = HashSet::new();
    for (n, publisher) in publishers.into_iter().enumerate() {
        let own = within(publisher).await.unwrap();
        assert!(own.is_sorted(), "of one sender in its order: {own:?}");
        for (k, offset) in own.into_iter().enumerate() {
            let chat: Value = serde_json::from_str(&seen[offset as usize - 1]).unwrap();
            assert_eq!((&chat["payload"]["message"], &chat["payload"]["position"]["epoch"]), (&json!([n, k]), &epoch));
            assert!(places.insert(offset));
        }
    }
}

#[tokio::test]
async fn a_client_leaves_one_node_and_recovers_on_another() {
    let Some(redis) = Redis::start().await else { return };
    let [left, right] = &nodes::<2>(&[&redis.url()], "").await;
    let mut publisher = member(left, "publisher", "a").await;
    let mut alice = session_on(left, "alice").await;
    let mut place = alice.join("a").await["position"].clone();
    for round in 0..4 {
        let node = if round % 2 == 0 { right } else { left };
        for n in 1..=5 {
            publisher.publish("a", json!([round, n])).await;
        }
        let first = place["offset"].as_u64().unwrap() + 1;
        assert_eq!(chat(&mut alice).await, (first, json!([round, 1])));
        place["offset"] = first.into();
        drop(alice);
        publisher.publish("a", json!([round, 6])).await;
        alice = session_on(node, "alice").await;
        let joined = join_since(&mut alice, "a", &place).await;
        assert_eq!((&joined["recovered"], &joined["position"]["epoch"]), (&json!(true), &place["epoch"]), "{joined}");
        for n in 2..=6 {
            assert_eq!(chat(&mut alice).await, (first + n - 1, json!([round, n])), "on the other node");
        }
        place["offset"] = (first + 5).into();
    }
}

#[tokio::test]
async fn the_first_member_on_a_node_recovers_what_was_said_while_nobody_was_there() {
    let Some(redis) = Redis::start().await else { return };
    let [left, right] = &nodes::<2>(&[&redis.url()], "").await;
    let mut alice = session_on(left, "alice").await;
    let start = alice.join("a").await["position"].clone();
    for n in 1..=120 {
        alice.publish("a", json!(n)).await;
    }
    alice.ask("leave_room", json!({"room_id": "a"})).await;
    let mut bob = session_on(right, "bob").await;
    let joined = join_since(&mut bob, "a", &start).await;
    assert_eq!(joined["recovered"], false, "the history has 100: {joined}");
    assert_eq!(joined["position"], json!({"epoch": start["epoch"], "offset": 120}));
    let mut carol = session_on(right, "carol").await;
    let joined = join_since(&mut carol, "a", &json!({"epoch": start["epoch"], "offset": 20})).await;
    assert_eq!(joined["recovered"], true, "{joined}");
    for n in 21..=120 {
        assert_eq!(chat(&mut carol).await, (n, json!(n)));
    }
}

#[tokio::test]
async fn a_message_that_is_sent_again_on_another_node_is_a_duplicate() {
    let Some(redis) = Redis::start().await else { return };
    let [left, right] = &nodes::<2>(&[&redis.url()], "").await;
    let mut watcher = member(right, "watcher", "a").await;
    let mut alice = member(left, "alice", "a").await;
    let first = send_named(&mut alice, "a", "one", json!("once")).await["payload"].clone();
    assert_eq!(first["duplicate"], false);
    drop(alice);
    let mut alice = member(right, "alice", "a").await;
    let again = send_named(&mut alice, "a", "one", json!("once")).await["payload"].clone();
    assert_eq!((&again["duplicate"], &again["position"]), (&json!(true), &first["position"]));
    let mut bob = member(left, "bob", "a").await;
    let of_another = send_named(&mut bob, "a", "one", json!("bob's")).await["payload"].clone();
    assert_eq!(of_another["duplicate"], false, "names are a sender's own");
    assert_eq!(chat(&mut watcher).await, (1, json!("once")));
    assert_eq!(chat(&mut watcher).await, (2, json!("bob's")));
}

#[tokio::test]
async fn history_is_the_same_from_every_node_and_is_left_when_all_have_ended() {
    let Some(redis) = Redis::start().await else { return };
    let mut all = nodes::<2>(&[&redis.url()], "").await;
    let mut publisher = session_on(&all[0], "publisher").await;
    let start = publisher.join("a").await["position"].clone();
    for n in 1..=3 {
        publisher.publish("a", json!(n)).await;
    }
    let read = async |node: &Gateway| {
        let (status, body) = node.admin_get("/api/rooms/a/history?since=1").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    let history = read(&all[0]).await;
    assert_eq!(history["messages"].as_array().unwrap().len(), 2, "{history}");
    assert_eq!(read(&all[1]).await, history);
    drop(publisher);
    for node in &mut all {
        assert!(node.stop().await.success());
    }
    let node = node(&redis.url(), "node-0", "").await;
    let mut late = session_on(&node, "late").await;
    let joined = join_since(&mut late, "a", &start).await;
    assert_eq!((&joined["recovered"], &joined["position"]["offset"]), (&json!(true), &json!(3)), "{joined}");
    for n in 1..=3 {
        assert_eq!(chat(&mut late).await, (n, json!(n)));
    }
}

#[tokio::test]
async fn a_message_to_everyone_comes_to_every_node() {
    let Some(redis) = Redis::start().await else { return };
    let [left, right] = &nodes::<2>(&[&redis.url()], "broadcast_to_all = true").await;
    let mut all = Vec::new();
    for (node, name) in [(left, "alice"), (left, "bob"), (right, "carol"), (right, "dave")] {
        all.push(session_on(node, name).await);
    }
    let sent = all[2].ask("message", json!({"message": "to all"})).await;
    assert_eq!((&sent["type"], &sent["payload"]["room_id"]), (&json!("message_sent"), &Value::Null), "{sent}");
    for (n, session) in all.iter_mut().enumerate() {
        if n != 2 {
            let chat = session.expect("chat_message").await;
            assert_eq!((&chat["payload"]["message"], &chat["payload"]["room_id"]), (&json!("to all"), &Value::Null));
        }
    }
}

#[tokio::test]
async fn another_prefix_is_another_cluster() {
    let Some(redis) = Redis::start().await else { return };
    let here = node(&redis.url(), "node", "").await;
    let file = node_file(&[&redis.url()], "node", "").replace("[cluster]\n", "[cluster]\nprefix = \"other\"\n");
    let there = Gateway::start(&file).await;
    let mut alice = member(&here, "alice", "a").await;
    alice.publish("a", json!("here")).await;
    let mut bob = session_on(&there, "bob").await;
    let joined = bob.join("a").await;
    assert_eq!((&joined["count"], &joined["position"]["offset"]), (&json!(1), &json!(0)), "{joined}");
    let keys = redis.ask(&["KEYS", "*"]).await;
    let mut keys = keys.as_array().unwrap().iter().map(|key| key.as_str().unwrap());
    assert!(keys.all(|key| key.starts_with("wsgate:") || key.starts_with("other:")));
}
