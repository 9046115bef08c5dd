//! Requests that are wrong: `error` with the code, the request's `correlation_id` and the field's name.
use crate::rooms::session;
use crate::support::*;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

async fn gateway() -> Gateway {
    Gateway::start(&rooms_with_limits("messages_per_second = 0")).await
}

#[tokio::test]
async fn missing_wrong_and_overlong_fields_are_4006_and_named() {
    let gateway = gateway().await;
    let long = "x".repeat(129);
    let table: Vec<(&str, Value, &str)> = vec![
        ("join_room", json!({}), "room_id"),
        ("join_room", json!({"room_id": null}), "room_id"),
        ("join_room", json!({"room_id": 7}), "room_id"),
        ("join_room", json!({"room_id": ["a"]}), "room_id"),
        ("join_room", json!({"room_id": ""}), "room_id"),
        ("join_room", json!({"room_id": long}), "room_id"),
        ("join_room", json!({"room_id": "a b"}), "room_id"),
        ("join_room", json!({"room_id": "gr\u{fc}n"}), "room_id"),
        ("join_room", json!({"room_id": "a\u{0}b"}), "room_id"),
        ("join_room", json!({"room_id": "a*"}), "room_id"),
        ("leave_room", json!({}), "room_id"),
        ("leave_room", json!({"room_id": {}}), "room_id"),
        ("leave_room", json!({"room_id": long}), "room_id"),
        ("room_members", json!({}), "room_id"),
        ("room_members", json!({"room_id": false}), "room_id"),
        ("room_members", json!({"room_id": "in", "limit": "ten"}), "limit"),
        ("room_members", json!({"room_id": "in", "limit": -1}), "limit"),
        ("room_members", json!({"room_id": "in", "limit": 1.5}), "limit"),
        ("room_members", json!({"room_id": "in", "after": 7}), "after"),
        ("message", json!({"room_id": "in"}), "message"),
        ("message", json!({"room_id": 7, "message": "x"}), "room_id"),
        ("message", json!({"room_id": long, "message": "x"}), "room_id"),
        ("message", json!({"room_id": "", "message": "x"}), "room_id"),
        ("auth", json!({}), "token"),
        ("auth", json!({"token": 7}), "token"),
    ];
    for (kind, payload, field) in table {
        let mut client = session(&gateway, "alice").await;
        client.join("in").await;
        let error = client.refused(kind, payload.clone(), 4006).await;
        let words = error["payload"]["message"].as_str().unwrap();
        assert!(words.contains(field), "{kind} {payload}: {error}");
        assert_eq!(error["payload"]["retryable"], false, "{error}");
    }
}

#[tokio::test]
async fn payloads_and_metadata_of_a_wrong_type_are_4006() {
    let gateway = gateway().await;
    for text in [
        r#"{"type":"ping","payload":7}"#,
        r#"{"type":"ping","payload":[]}"#,
        r#"{"type":"join_room","payload":"a"}"#,
        r#"{"type":"ping","metadata":7}"#,
        r#"{"type":"ping","metadata":{"message_id":7}}"#,
        r#"{"type":"ping","metadata":{"message_id":""}}"#,
        &format!(r#"{{"type":"ping","metadata":{{"message_id":"{}"}}}}"#, "x".repeat(129)),
    ] {
        let mut client = session(&gateway, "alice").await;
        client.text(text).await;
        let error = client.next_json().await;
        assert_eq!((&error["type"], &error["payload"]["code"]), (&json!("error"), &json!(4006)), "{text}: {error}");
    }
}

#[tokio::test]
async fn what_is_no_envelope_is_4006() {
    let gateway = gateway().await;
    let deep = "[".repeat(30_000);
    for text in [
        "",
        " ",
        "null",
        "7",
        "\"ping\"",
        "[]",
        "{}",
        "{",
        "ping",
        r#"{"type":7}"#,
        r#"{"type":null}"#,
        r#"{"type":"ping"} x"#,
        r#"{"type":"ping",}"#,
        r#"{"type":"ping","payload":{"a":"\ud800"}"#,
        r#"{"payload":{}}"#,
        &deep,
    ] {
        let mut client = session(&gateway, "alice").await;
        client.text(text).await;
        let error = client.expect("error").await;
        assert_eq!(error["payload"]["code"], 4006, "{text}: {error}");
        assert_eq!(client.ask("ping", json!({})).await["type"], "pong", "the connection stays");
    }
}

#[tokio::test]
async fn an_unknown_type_is_4006() {
    let gateway = gateway().await;
    let mut client = session(&gateway, "alice").await;
    for kind in ["nothing", "Ping", "", "chat_message", "connection_established", "error", "disconnect"] {
        client.refused(kind, json!({}), 4006).await;
    }
}

#[tokio::test]
async fn a_binary_message_is_4006() {
    let gateway = gateway().await;
    let mut client = session(&gateway, "alice").await;
    client.send(Message::binary(br#"{"type":"ping"}"#.to_vec())).await;
    assert_eq!(client.expect("error").await["payload"]["code"], 4006);
    assert_eq!(client.ask("ping", json!({})).await["type"], "pong");
}

#[tokio::test]
async fn unknown_members_are_no_matter() {
    let gateway = gateway().await;
    let mut client = session(&gateway, "alice").await;
    client
        .text(
            r#"{"x":[1,{"y":2}],"timestamp":1,"clientId":null,"type":"ping","payload":{"z":null},"metadata":{"w":1}}"#,
        )
        .await;
    client.expect("pong").await;
}

#[tokio::test]
async fn rooms_one_is_not_in_are_4007() {
    let gateway = gateway().await;
    let mut other = session(&gateway, "other").await;
    other.join("a").await;
    let mut client = session(&gateway, "alice").await;
    for room in ["a", "nowhere"] {
        for (kind, payload) in [
            ("leave_room", json!({"room_id": room})),
            ("room_members", json!({"room_id": room})),
            ("message", json!({"room_id": room, "message": "x"})),
        ] {
            client.refused(kind, payload, 4007).await;
        }
    }
}

#[tokio::test]
async fn the_tenth_invalid_message_in_a_row_closes() {
    let gateway = gateway().await;
    let mut client = session(&gateway, "alice").await;
    for _ in 0..9 {
        client.refused("nothing", json!({}), 4006).await;
    }
    client.json(json!({"type": "nothing"})).await;
    client.closes_with(4006).await;
}

#[tokio::test]
async fn a_valid_message_in_between_begins_the_row_again() {
    let gateway = gateway().await;
    let mut client = session(&gateway, "alice").await;
    for _ in 0..3 {
        for _ in 0..9 {
            client.refused("nothing", json!({}), 4006).await;
        }
        assert_eq!(client.ask("ping", json!({})).await["type"], "pong");
    }
}

#[tokio::test]
async fn longest_names_are_right() {
    let gateway = gateway().await;
    let mut client = session(&gateway, "alice").await;
    let room = format!("aZ09-_.:/@{}", "x".repeat(118));
    client.join(&room).await;
    let id = "m".repeat(128);
    client
        .json(json!({"type": "message", "payload": {"room_id": room, "message": 1}, "metadata": {"message_id": id}}))
        .await;
    let sent = client.skip_to("message_sent").await;
    assert_eq!(sent["metadata"]["correlation_id"], id.as_str());
    assert_eq!(sent["payload"]["message_id"], id.as_str());
}

#[tokio::test]
async fn an_answer_without_a_message_id_of_one_s_own_still_correlates() {
    let gateway = gateway().await;
    let mut client = session(&gateway, "alice").await;
    client.join("a").await;
    client.text(r#"{"type":"message","payload":{"room_id":"a","message":1}}"#).await;
    let sent = client.skip_to("message_sent").await;
    assert!(sent["payload"]["message_id"].as_str().is_some_and(|id| !id.is_empty()), "the gateway makes one: {sent}");
}
