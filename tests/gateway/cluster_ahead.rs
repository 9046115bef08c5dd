//! A client goes to a node that has been told less than the client has seen.
use crate::rooms_help::chat;
use crate::support::nodes::{node, session_on};
use crate::support::*;
use serde_json::{Value, json};

const NOTHING: Value = Value::Null;

/// Joins with `since` until that is not refused for the moment.
async fn join_at_last(client: &mut Client, room: &str, since: &Value) -> Value {
    loop {
        let answer = client.ask("join_room", json!({"room_id": room, "since": since})).await;
        if answer["payload"]["code"] != 4000 {
            return answer["payload"].clone();
        }
    }
}

#[tokio::test]
async fn what_was_seen_over_another_node_is_not_taken_for_a_place_that_never_was() {
    let Some(redis) = Redis::start().await else { return };
    let proxy = TcpProxy::to(redis.port).await;
    let near = node(&redis.url(), "near", "").await;
    let far = node(&proxy.url(), "far", "").await;
    let mut watcher = session_on(&far, "watcher").await;
    join_at_last(&mut watcher, "a", &NOTHING).await;
    let mut alice = session_on(&near, "alice").await;
    let epoch = join_at_last(&mut alice, "a", &NOTHING).await["position"]["epoch"].clone();
    proxy.hold();
    for n in 1..=3 {
        assert_eq!(alice.publish("a", json!(n)).await["position"]["offset"], n);
    }
    drop(alice);
    let mut alice = session_on(&far, "alice").await;
    let since = json!({"epoch": epoch, "offset": 3});
    let (joined, ()) = tokio::join!(join_at_last(&mut alice, "a", &since), async {
        // It has asked by now, or asks later: both must come to the same.
        watcher.ask("room_members", json!({"room_id": "a"})).await;
        proxy.open();
    });
    assert_eq!((&joined["recovered"], &joined["position"]), (&json!(true), &since), "{joined}");
    for n in 1..=3 {
        assert_eq!(chat(&mut watcher).await, (n, json!(n)));
    }
    watcher.publish("a", json!("live")).await;
    assert_eq!(chat(&mut alice).await, (4, json!("live")), "none twice");
}

#[tokio::test]
async fn a_place_that_no_node_has_seen_is_not_recovered() {
    let Some(redis) = Redis::start().await else { return };
    let node = node(&redis.url(), "one", "").await;
    let mut publisher = session_on(&node, "publisher").await;
    let epoch = join_at_last(&mut publisher, "a", &NOTHING).await["position"]["epoch"].clone();
    publisher.publish("a", json!("before")).await;
    for (epoch, offset) in [(epoch.clone(), 2), (epoch.clone(), u64::MAX), (epoch, 1 << 60), (json!("another"), 1)] {
        let mut late = session_on(&node, "late").await;
        let joined = join_at_last(&mut late, "a", &json!({"epoch": epoch, "offset": offset})).await;
        assert_eq!((&joined["recovered"], &joined["position"]["offset"]), (&json!(false), &json!(1)), "{offset}");
    }
}
