//! What servers ask of one node, over all nodes.
use crate::admin_api::{call, done, get};
use crate::support::nodes::{nodes, session_on};
use crate::support::*;
use serde_json::{Value, json};

/// The nodes of a client's sessions, as this node tells it.
async fn nodes_of(node: &Gateway, client: &str) -> Vec<String> {
    let answer = get(node, &format!("/api/clients/{client}")).await;
    assert!(answer.get("unanswered").is_none(), "{answer}");
    let sessions = answer["sessions"].as_array().unwrap();
    let mut nodes: Vec<_> = sessions.iter().map(|s| s["node"].as_str().unwrap().to_owned()).collect();
    nodes.sort();
    nodes
}

#[tokio::test]
async fn a_clients_sessions_are_listed_and_closed_on_all_nodes() {
    let Some(redis) = Redis::start().await else { return };
    let all: [Gateway; 3] = nodes(&[&redis.url()], "").await;
    let (mut one, mut two) = (session_on(&all[0], "alice").await, session_on(&all[1], "alice").await);
    let mut bob = session_on(&all[1], "bob").await;
    one.join("tea").await;
    for node in &all {
        assert_eq!(nodes_of(node, "alice").await, ["node-0", "node-1"]);
        assert_eq!(nodes_of(node, "nobody").await, [""; 0]);
    }
    let sessions = get(&all[2], "/api/clients/alice").await["sessions"].clone();
    let first = sessions.as_array().unwrap().iter().find(|s| s["node"] == "node-0").unwrap();
    assert_eq!((&first["rooms"], &first["status"]), (&json!(["tea"]), &json!("online")), "{sessions}");
    assert!(first["session_id"].is_string() && first["since"].is_string(), "{sessions}");
    assert_eq!(done(&all[2], "DELETE", "/api/clients/alice", json!({"reason": "bye"})).await, json!({"sessions": 2}));
    for alice in [&mut one, &mut two] {
        assert!(alice.closes_with(4013).await.ends_with(": bye"));
    }
    bob.ask("ping", json!({})).await;
}

#[tokio::test]
async fn a_notification_reaches_the_sessions_of_all_nodes() {
    let Some(redis) = Redis::start().await else { return };
    let all: [Gateway; 3] = nodes(&[&redis.url()], "").await;
    let (mut one, mut two) = (session_on(&all[0], "alice").await, session_on(&all[1], "alice").await);
    let mut bob = session_on(&all[2], "bob").await;
    let body = json!({"client_ids": ["alice", "nobody"], "type": "note", "payload": {"text": "a \"quoted\" ü"}});
    assert_eq!(done(&all[1], "POST", "/api/notify", body).await, json!({"sessions": 2}));
    for alice in [&mut one, &mut two] {
        assert_eq!(alice.expect("note").await["payload"], json!({"text": "a \"quoted\" ü"}));
    }
    let body = json!({"everyone": true, "type": "all"});
    assert_eq!(done(&all[0], "POST", "/api/notify", body).await, json!({"sessions": 3}));
    for client in [&mut one, &mut two, &mut bob] {
        client.expect("all").await;
    }
}

#[tokio::test]
async fn a_client_is_kicked_from_a_room_on_all_nodes() {
    let Some(redis) = Redis::start().await else { return };
    let all: [Gateway; 2] = nodes(&[&redis.url()], "").await;
    let (mut one, mut two) = (session_on(&all[0], "alice").await, session_on(&all[1], "alice").await);
    one.join("tea").await;
    two.join("tea").await;
    two.join("cake").await;
    let answer = done(&all[0], "POST", "/api/rooms/tea/kick", json!({"client_id": "alice"})).await;
    assert_eq!(answer, json!({"sessions": 2}));
    for alice in [&mut one, &mut two] {
        let left = alice.skip_to("room_left").await;
        assert_eq!((&left["payload"]["room_id"], &left["payload"]["code"]), (&json!("tea"), &json!(4013)));
    }
    two.publish("cake", json!(1)).await;
    let answer = done(&all[0], "POST", "/api/rooms/cake/kick", json!({"client_id": "alice"})).await;
    assert_eq!(answer, json!({"sessions": 1}));
}

#[tokio::test]
async fn rooms_of_all_nodes_are_listed_by_pages() {
    let Some(redis) = Redis::start().await else { return };
    let all: [Gateway; 2] = nodes(&[&redis.url()], "").await;
    let (mut one, mut two) = (session_on(&all[0], "alice").await, session_on(&all[1], "bob").await);
    for room in ["a", "c", "e"] {
        one.join(room).await;
    }
    for room in ["b", "c", "d"] {
        two.join(room).await;
    }
    for node in &all {
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let page = get(node, &format!("/api/rooms?limit=2&after={after}")).await;
            names.extend(page["rooms"].as_array().unwrap().iter().map(|r| r["room_id"].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(names, ["a", "b", "c", "d", "e"]);
    }
}

/// Also where it has no member of the room.
#[tokio::test]
async fn a_room_is_the_same_whichever_node_is_asked() {
    let Some(redis) = Redis::start().await else { return };
    let all: [Gateway; 3] = nodes(&[&redis.url()], "").await;
    let (mut alice, mut bob) = (session_on(&all[0], "alice").await, session_on(&all[1], "bob").await);
    alice.join("tea").await;
    bob.join("tea").await;
    alice.skip_to("presence_update").await;
    for (n, node) in all.iter().enumerate() {
        let body = json!({"room_id": "tea", "message": n, "message_id": format!("m{n}")});
        let sent = done(node, "POST", "/api/publish", body).await;
        assert_eq!((&sent["position"]["offset"], &sent["recipients"]), (&json!(n + 1), &json!(2)), "{sent}");
        for client in [&mut alice, &mut bob] {
            assert_eq!(client.skip_to("chat_message").await["payload"]["message"], n);
        }
    }
    let body = json!({"room_id": "tea", "message": "again", "message_id": "m0"});
    assert_eq!(done(&all[2], "POST", "/api/publish", body).await["duplicate"], true);
    for node in &all {
        let rooms = get(node, "/api/rooms").await;
        assert_eq!(rooms, json!({"rooms": [{"room_id": "tea", "members": 2, "offset": 3}]}));
        let room = get(node, "/api/rooms/tea").await;
        let members: Vec<_> = room["members"].as_array().unwrap().iter().map(|m| m["client_id"].clone()).collect();
        assert_eq!((members, &room["count"]), (vec![json!("alice"), json!("bob")], &json!(2)), "{room}");
        let history = get(node, "/api/rooms/tea/history?since=1").await;
        let said: Vec<_> =
            history["messages"].as_array().unwrap().iter().map(|m| m["payload"]["message"].clone()).collect();
        assert_eq!((said, &history["lost"]), (vec![json!(1), json!(2)], &json!(false)), "{history}");
    }
}

#[tokio::test]
async fn a_node_that_stands_still_is_named_and_not_waited_for() {
    let Some(redis) = Redis::start().await else { return };
    let all: [Gateway; 3] = nodes(&[&redis.url()], "").await;
    let mut alice = session_on(&all[0], "alice").await;
    let _other = session_on(&all[2], "alice").await;
    all[2].signal("STOP");
    let answer = get(&all[1], "/api/clients/alice").await;
    assert_eq!(answer["unanswered"], json!(["node-2"]), "{answer}");
    assert_eq!(answer["sessions"].as_array().unwrap().len(), 1, "{answer}");
    let body = json!({"client_ids": ["alice"], "type": "note"});
    let answer = done(&all[0], "POST", "/api/notify", body).await;
    assert_eq!(answer, json!({"sessions": 1, "unanswered": ["node-2"]}));
    alice.expect("note").await;
    all[2].signal("CONT");
    eventually(|| async {
        let answer = get(&all[1], "/api/clients/alice").await;
        (answer.get("unanswered").is_none() && answer["sessions"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_redis_the_own_sessions_are_reached_and_the_others_named() {
    let Some(mut redis) = Redis::start().await else { return };
    let all: [Gateway; 2] = nodes(&[&redis.url()], "").await;
    let mut alice = session_on(&all[0], "alice").await;
    let mut other = session_on(&all[1], "alice").await;
    redis.stop();
    nodes::readiness(&all[0], 503).await;
    let (status, answer) = call(&all[0], "DELETE", "/api/clients/alice", Value::Null).await;
    assert_eq!((status, answer), (200, json!({"sessions": 1, "unanswered": ["node-1"]})));
    alice.closes_with(4013).await;
    other.ask("ping", json!({})).await;
}
