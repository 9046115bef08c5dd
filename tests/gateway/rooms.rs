//! Rooms: joining, messages and their order, members, namespaces, sizes, broadcasts.
use crate::support::token::good;
use crate::support::*;
use serde_json::{Value, json};
use std::collections::HashSet;

async fn gateway(rooms: &str) -> Gateway {
    let limits = "[limits]\nmessages_per_second = 0\nconnections_per_client = 0\n";
    Gateway::start(&format!("{PLAIN}{SECRET_AUTH}{ROOMS}{limits}[rooms]\n{rooms}\n")).await
}

/// A session of this client, past its `connection_established`.
pub async fn session(gateway: &Gateway, client: &str) -> Client {
    greeted(gateway.open_as("/ws", &good(client)).await, client).await
}

/// The session, past its `connection_established`, which has to name this client.
pub async fn greeted(mut session: Client, client: &str) -> Client {
    let established = session.expect("connection_established").await;
    assert_eq!(established["payload"]["client_id"], client, "{established}");
    session
}

/// `2026-01-02T03:04:05.678Z`.
fn assert_timestamp(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{text}");
}

#[tokio::test]
async fn the_first_message_says_who_one_is_and_what_is_allowed() {
    let gateway = Gateway::start(&rooms_with_limits("messages_per_second = 7\nping_interval = \"20s\"")).await;
    let token = Token::of("alice").with("exp", token::now() + 1000);
    let mut client = gateway.open_as("/ws", &token.sign()).await;
    let message = client.expect("connection_established").await;
    let payload = &message["payload"];
    assert_eq!(payload["client_id"], "alice");
    assert!(payload["session_id"].as_str().is_some_and(|s| !s.is_empty()), "{message}");
    assert_timestamp(&payload["server_time"]);
    assert_timestamp(&message["metadata"]["timestamp"]);
    assert!(message["metadata"]["message_id"].is_string(), "{message}");
    assert!(message["metadata"].get("correlation_id").is_none(), "a push has none: {message}");
    assert!(!payload["protocol"].is_null(), "{message}");
    assert!(payload["heartbeat_ms"].as_u64().is_some_and(|ms| ms > 0), "{message}");
    assert!(!payload["expires_at"].is_null(), "{message}");
    assert_eq!(payload["limits"]["messages_per_second"], 7, "{message}");
    assert_eq!(payload["limits"]["max_message_size"], 65_536, "{message}");
}

#[tokio::test]
async fn sessions_of_one_client_have_ids_of_their_own() {
    let gateway = gateway("").await;
    let mut ids = HashSet::new();
    for _ in 0..3 {
        let mut client = gateway.open_as("/ws", &good("alice")).await;
        let established = client.expect("connection_established").await;
        assert!(ids.insert(established["payload"]["session_id"].to_string()), "{established}");
    }
}

#[tokio::test]
async fn the_subprotocol_is_named_where_it_was_offered() {
    let gateway = gateway("").await;
    let token = good("alice");
    let bearer = format!("Bearer {token}");
    for (offered, named) in [
        (None, None),
        (Some("rooms.v1".to_owned()), Some("rooms.v1")),
        (Some("other, rooms.v1".to_owned()), Some("rooms.v1")),
        (Some(format!("bearer, {token}")), Some("bearer")),
        (Some(format!("bearer, {token}, rooms.v1")), Some("rooms.v1")),
        (Some(format!("rooms.v1, bearer, {token}")), Some("rooms.v1")),
    ] {
        let header = match &offered {
            Some(offered) => ("Sec-WebSocket-Protocol", offered.as_str()),
            None => ("X-Nothing", "1"),
        };
        let mut headers = vec![header];
        if !offered.as_ref().is_some_and(|o| o.contains("bearer")) {
            headers.push(("Authorization", &bearer));
        }
        let mut client = gateway.open_with("/ws", &headers).await;
        client.expect("connection_established").await;
        assert_eq!(client.protocol(), named, "{offered:?}");
    }
}

#[tokio::test]
async fn a_message_reaches_every_session_of_the_room_and_nobody_else() {
    let gateway = gateway("").await;
    let mut alice = session(&gateway, "alice").await;
    let mut bob = session(&gateway, "bob").await;
    let mut carol = session(&gateway, "carol").await;
    alice.join("a").await;
    bob.join("a").await;
    carol.join("b").await;
    alice
        .json(
            json!({"type": "message", "payload": {"room_id": "a", "message": "hi"}, "metadata": {"message_id": "m-1"}}),
        )
        .await;
    let sent = alice.skip_to("message_sent").await;
    assert_eq!(sent["metadata"]["correlation_id"], "m-1");
    assert_eq!(sent["payload"]["message_id"], "m-1");
    assert_eq!(sent["payload"]["room_id"], "a");
    assert_eq!(sent["payload"]["duplicate"], false);
    assert_eq!(sent["payload"]["position"]["offset"], 1);
    let chat = bob.skip_to("chat_message").await;
    assert_eq!(chat["payload"]["sender_id"], "alice");
    assert_eq!(chat["payload"]["message"], "hi");
    assert_eq!(chat["payload"]["room_id"], "a");
    assert_eq!(chat["payload"]["position"], sent["payload"]["position"]);
    assert_eq!(chat["metadata"]["message_id"], "m-1");
    assert_eq!(chat["metadata"]["client_id"], "alice");
    assert_timestamp(&chat["metadata"]["timestamp"]);
    assert!(chat["metadata"].get("correlation_id").is_none(), "a push has none: {chat}");
    assert_eq!(carol.ask("ping", json!({})).await["type"], "pong");
    carol.publish("b", json!("own")).await;
    assert_eq!(carol.skip_to("chat_message").await["payload"]["message"], "own", "the first that carol sees");
}

#[tokio::test]
async fn the_sender_gets_its_own_message_too() {
    let gateway = gateway("").await;
    let mut alice = session(&gateway, "alice").await;
    alice.join("a").await;
    alice.json(json!({"type": "message", "payload": {"room_id": "a", "message": 1}})).await;
    let mut seen = [alice.next_json().await["type"].clone(), alice.next_json().await["type"].clone()];
    seen.sort_by_key(ToString::to_string);
    assert_eq!(seen, [json!("chat_message"), json!("message_sent")]);
}

#[tokio::test]
async fn what_the_client_says_of_time_and_sender_is_not_believed() {
    let gateway = gateway("").await;
    let mut alice = session(&gateway, "alice").await;
    alice.join("a").await;
    let forged = json!({
        "type": "message", "timestamp": "1999-01-01T00:00:00.000Z", "clientId": "bob", "client_id": "bob", "sender_id": "bob",
        "payload": {"room_id": "a", "message": "x", "sender_id": "bob", "position": {"offset": 99}},
        "metadata": {"client_id": "bob", "timestamp": "1999-01-01T00:00:00.000Z", "correlation_id": "c"},
    });
    alice.json(forged).await;
    let chat = alice.skip_to("chat_message").await;
    assert_eq!(chat["payload"]["sender_id"], "alice");
    assert_eq!(chat["metadata"]["client_id"], "alice");
    assert_eq!(chat["payload"]["position"]["offset"], 1);
    assert!(!chat.to_string().contains("1999-"), "{chat}");
}

#[tokio::test]
async fn the_body_is_passed_on_byte_for_byte() {
    let gateway = gateway("").await;
    let mut alice = session(&gateway, "alice").await;
    let mut bob = session(&gateway, "bob").await;
    alice.join("a").await;
    bob.join("a").await;
    for body in [
        r#"{"n":1.000000000000000000000001e400,"big":123456789012345678901234567890,"neg":-0.0}"#,
        r#"[1, 2 ,3,  {"b":1,"a":2,"b":3}]"#,
        r#""caf\u00e9 \ud83d\ude00 / \/""#,
        "\"\u{e9}\u{1f600}\"",
        "null",
        "true",
        "1E5",
        "{}",
    ] {
        alice.text(&format!(r#"{{"type":"message","payload":{{"room_id":"a","message":{body}}}}}"#)).await;
        // Not every such number is one that a parser of JSON takes.
        let answer = loop {
            let text = alice.next_text().await;
            if !text.contains("chat_message") && !text.contains("presence_update") {
                break text;
            }
        };
        assert!(answer.contains("message_sent"), "{body}: {answer}");
        let text = loop {
            let text = bob.next_text().await;
            if text.contains("chat_message") {
                break text;
            }
        };
        assert!(text.contains(body), "{body} became {text}");
    }
}

#[tokio::test]
async fn every_session_sees_one_order_with_offsets_that_rise_by_one() {
    let gateway = gateway("").await;
    let mut watchers = Vec::new();
    for i in 0..4 {
        let mut watcher = session(&gateway, &format!("watcher-{i}")).await;
        watcher.join("a").await;
        watchers.push(watcher);
    }
    let mut senders = Vec::new();
    for i in 0..4 {
        let mut sender = session(&gateway, &format!("sender-{i}")).await;
        sender.join("a").await;
        senders.push(tokio::spawn(async move {
            for n in 0..25 {
                sender.publish("a", json!([i, n])).await;
            }
        }));
    }
    for sender in senders {
        within(sender).await.unwrap();
    }
    let mut orders = Vec::new();
    for watcher in &mut watchers {
        let mut order = Vec::new();
        for offset in 1..=100 {
            let chat = watcher.skip_to("chat_message").await;
            assert_eq!(chat["payload"]["position"]["offset"], offset, "{chat}");
            order.push(chat["payload"]["message"].clone());
        }
        orders.push(order);
    }
    assert!(orders.windows(2).all(|w| w[0] == w[1]), "the watchers saw different orders");
    for sender in 0..4 {
        let own: Vec<_> = orders[0].iter().filter(|m| m[0] == sender).map(|m| m[1].clone()).collect();
        assert_eq!(own, (0..25).map(|n| json!(n)).collect::<Vec<_>>(), "a sender's own order was changed");
    }
}

#[tokio::test]
async fn the_position_at_a_join_is_that_of_the_last_message() {
    let gateway = gateway("").await;
    let mut alice = session(&gateway, "alice").await;
    let joined = alice.join("a").await;
    assert_eq!(joined["position"]["offset"], 0, "0 before the first");
    assert_eq!(joined["count"], 1);
    let first = alice.publish("a", json!(1)).await;
    let second = alice.publish("a", json!(2)).await;
    assert_eq!(first["position"]["epoch"], joined["position"]["epoch"]);
    let mut bob = session(&gateway, "bob").await;
    let joined = bob.join("a").await;
    assert_eq!(joined["position"], second["position"]);
    assert_eq!(joined["count"], 2);
    alice.publish("a", json!(3)).await;
    assert_eq!(bob.skip_to("chat_message").await["payload"]["position"]["offset"], 3, "only what came after the join");
}

#[tokio::test]
async fn who_left_gets_nothing_more() {
    let gateway = gateway("").await;
    let mut alice = session(&gateway, "alice").await;
    let mut bob = session(&gateway, "bob").await;
    alice.join("a").await;
    bob.join("a").await;
    let left = bob.ask("leave_room", json!({"room_id": "a"})).await;
    assert_eq!(left["type"], "room_left");
    assert_eq!(left["payload"]["room_id"], "a");
    alice.publish("a", json!("after")).await;
    bob.refused("leave_room", json!({"room_id": "a"}), 4007).await;
    bob.refused("message", json!({"room_id": "a", "message": 1}), 4007).await;
    bob.refused("room_members", json!({"room_id": "a"}), 4007).await;
    bob.join("a").await;
    bob.publish("a", json!("back")).await;
    assert_eq!(bob.skip_to("chat_message").await["payload"]["message"], "back");
}

#[tokio::test]
async fn a_second_join_of_one_session_is_one_membership() {
    let gateway = gateway("").await;
    let mut alice = session(&gateway, "alice").await;
    alice.join("a").await;
    assert_eq!(alice.join("a").await["count"], 1);
    alice.publish("a", json!("once")).await;
    alice.skip_to("chat_message").await;
    alice.publish("a", json!("twice")).await;
    assert_eq!(alice.skip_to("chat_message").await["payload"]["message"], "twice");
}

#[tokio::test]
async fn members_come_in_pages() {
    let gateway = gateway("").await;
    let mut sessions = Vec::new();
    for i in 0..7 {
        let mut one = session(&gateway, &format!("client-{i}")).await;
        one.join("a").await;
        sessions.push(one);
    }
    let mut found = Vec::new();
    let mut after = Value::Null;
    let mut pages = 0;
    loop {
        let mut payload = json!({"room_id": "a", "limit": 3});
        if !after.is_null() {
            payload["after"] = after;
        }
        let page = sessions[0].ask("room_members", payload).await["payload"].clone();
        let members = page["members"].as_array().unwrap();
        assert!(members.len() <= 3, "{page}");
        assert_eq!(page["count"], 7, "{page}");
        for member in members {
            assert_eq!(member["status"], "online", "{member}");
            assert!(!member["since"].is_null(), "{member}");
            found.push(member["client_id"].as_str().unwrap().to_owned());
        }
        pages += 1;
        assert!(pages <= 7, "the pages do not end");
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    found.sort();
    assert_eq!(found, (0..7).map(|i| format!("client-{i}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn namespaces_know_nothing_of_each_other() {
    let routes = "[[route]]\npath = \"/one\"\nservice = \"rooms\"\nnamespace = \"one\"\n\
                  [[route]]\npath = \"/also-one\"\nservice = \"rooms\"\nnamespace = \"one\"\n\
                  [[route]]\npath = \"/two\"\nservice = \"rooms\"\nnamespace = \"two\"\n";
    let gateway = Gateway::start(&format!("{PLAIN}{SECRET_AUTH}{routes}")).await;
    let mut clients = Vec::new();
    for (path, client) in [("/one", "alice"), ("/also-one", "bob"), ("/two", "carol")] {
        let mut session = gateway.open_as(path, &good(client)).await;
        session.expect("connection_established").await;
        clients.push(session);
    }
    assert_eq!(clients[0].join("a").await["count"], 1);
    assert_eq!(clients[1].join("a").await["count"], 2);
    assert_eq!(clients[2].join("a").await["count"], 1, "another namespace's members were counted");
    clients[2].publish("a", json!("two")).await;
    clients[0].publish("a", json!("one")).await;
    assert_eq!(clients[1].skip_to("chat_message").await["payload"]["message"], "one");
    assert_eq!(clients[2].skip_to("chat_message").await["payload"]["message"], "two");
}

#[tokio::test]
async fn a_full_room_is_4008_and_has_a_place_again_when_one_leaves() {
    let gateway = gateway("max_members = 2").await;
    let mut alice = session(&gateway, "alice").await;
    let mut bob = session(&gateway, "bob").await;
    let mut carol = session(&gateway, "carol").await;
    alice.join("a").await;
    bob.join("a").await;
    let error = carol.refused("join_room", json!({"room_id": "a"}), 4008).await;
    assert_eq!(error["payload"]["retryable"], true, "{error}");
    let mut tab = session(&gateway, "alice").await;
    tab.join("a").await;
    carol.join("b").await;
    bob.ask("leave_room", json!({"room_id": "a"})).await;
    carol.join("a").await;
}

#[tokio::test]
async fn rooms_of_one_client_are_bounded() {
    let gateway = gateway("max_rooms_per_client = 2").await;
    let mut alice = session(&gateway, "alice").await;
    alice.join("a").await;
    alice.join("b").await;
    assert_eq!(alice.ask("join_room", json!({"room_id": "c"})).await["type"], "error");
    alice.ask("leave_room", json!({"room_id": "a"})).await;
    alice.join("c").await;
}

#[tokio::test]
async fn a_message_without_a_room_is_for_those_who_may_broadcast() {
    let gateway = gateway("").await;
    let mut alice = session(&gateway, "alice").await;
    let mut bob = session(&gateway, "bob").await;
    alice.refused("message", json!({"message": "to all"}), 4007).await;
    let token = Token::of("speaker").with("broadcast", true).sign();
    let mut speaker = gateway.open_as("/ws", &token).await;
    speaker.expect("connection_established").await;
    assert_eq!(speaker.ask("message", json!({"message": "hear"})).await["type"], "message_sent");
    for client in [&mut alice, &mut bob] {
        let chat = client.skip_to("chat_message").await;
        assert_eq!((&chat["payload"]["message"], &chat["payload"]["sender_id"]), (&json!("hear"), &json!("speaker")));
    }
    let token = Token::of("pretender").with("broadcast", false).sign();
    let mut pretender = gateway.open_as("/ws", &token).await;
    pretender.expect("connection_established").await;
    pretender.refused("message", json!({"message": "hear"}), 4007).await;
    // A claim of a wrong type grants nothing: the token is bad.
    for claim in [json!("true"), json!(1), json!([true])] {
        let token = Token::of("pretender").with("broadcast", claim).sign();
        gateway.open_as("/ws", &token).await.closes_with(4002).await;
    }
}

#[tokio::test]
async fn any_client_may_broadcast_where_it_is_allowed() {
    let gateway = gateway("broadcast_to_all = true").await;
    let mut alice = session(&gateway, "alice").await;
    let mut bob = session(&gateway, "bob").await;
    assert_eq!(alice.ask("message", json!({"message": "to all"})).await["type"], "message_sent");
    assert_eq!(bob.skip_to("chat_message").await["payload"]["message"], "to all");
}

#[tokio::test]
async fn a_ping_is_answered() {
    let gateway = gateway("").await;
    let mut alice = session(&gateway, "alice").await;
    let pong = alice.ask("ping", json!({})).await;
    assert_eq!(pong["type"], "pong");
    assert_timestamp(&pong["payload"]["server_time"]);
    alice.text(r#"{"type":"ping"}"#).await;
    alice.expect("pong").await;
}

/// A client that sends faster than it is answered is read no further, and loses nothing.
#[tokio::test]
async fn many_requests_at_once_are_all_answered_in_order() {
    let gateway = gateway("").await;
    let mut alice = session(&gateway, "alice").await;
    alice.join("a").await;
    for n in 0..300 {
        alice.json(json!({"type": "message", "payload": {"room_id": "a", "message": n}, "metadata": {"message_id": n.to_string()}})).await;
    }
    for n in 0..300 {
        let sent = alice.skip_to("message_sent").await;
        assert_eq!(sent["payload"]["message_id"], n.to_string(), "{sent}");
    }
}

#[tokio::test]
async fn a_join_says_whether_anything_was_missed() {
    let gateway = gateway("").await;
    let mut alice = session(&gateway, "alice").await;
    assert!(alice.join("a").await.get("recovered").is_none(), "nobody asked");
    let position = alice.publish("a", json!(1)).await["position"].clone();
    alice.skip_to("chat_message").await;
    let mut bob = session(&gateway, "bob").await;
    let same = bob.ask("join_room", json!({"room_id": "a", "since": position})).await["payload"].clone();
    assert_eq!((&same["recovered"], &same["position"]), (&json!(true), &position));
    for (epoch, offset) in [(position["epoch"].clone(), 2), (json!("another"), 1)] {
        let since = json!({"epoch": epoch, "offset": offset});
        let mut late = session(&gateway, "late").await;
        let late = late.ask("join_room", json!({"room_id": "a", "since": since})).await["payload"].clone();
        assert_eq!((&late["recovered"], &late["position"]), (&json!(false), &position), "{since}");
    }
    let mut eve = session(&gateway, "eve").await;
    eve.refused("join_room", json!({"room_id": "a", "since": {"epoch": 1}}), 4006).await;
}
