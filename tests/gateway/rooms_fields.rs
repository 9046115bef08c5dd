//! Every field of every request: missing, of a wrong type, too long, too deep, twice.
use crate::rooms::session;
use crate::rooms_help::*;
use crate::support::*;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// Sends this payload and has to get `error` 4006 that goes with the request and names the field; the connection stays.
async fn refused_for(client: &mut Client, kind: &str, payload: &str, field: &str) {
    client.text(&format!(r#"{{"type":"{kind}","payload":{payload},"metadata":{{"message_id":"this one"}}}}"#)).await;
    let error = client.next_json().await;
    let shown = &payload[..payload.len().min(200)];
    assert_eq!((&error["type"], &error["payload"]["code"]), (&json!("error"), &json!(4006)), "{kind} {shown}: {error}");
    assert_eq!(error["metadata"]["correlation_id"], "this one", "{kind} {shown}: {error}");
    assert_eq!(error["payload"]["retryable"], false, "{kind} {shown}: {error}");
    assert!(error["payload"].get("retry_after_ms").is_none(), "{kind} {shown}: {error}");
    let words = error["payload"]["message"].as_str().unwrap();
    assert!(words.contains(field), "{kind} {shown}: {field} is not named: {error}");
    client.json(json!({"type": "ping"})).await;
    client.expect("pong").await;
}

/// The payload of a request with one member replaced; `None`: left out.
fn with(payload: &Value, field: &str, value: Option<&str>) -> String {
    let members = payload.as_object().unwrap().iter().filter(|(name, _)| *name != field);
    let mut members: Vec<String> = members.map(|(name, value)| format!("\"{name}\":{value}")).collect();
    members.extend(value.map(|value| format!("\"{field}\":{value}")));
    format!("{{{}}}", members.join(","))
}

fn text(length: usize) -> String {
    format!("\"{}\"", "x".repeat(length))
}

/// A name of a room: what it may not be.
fn no_rooms() -> Vec<String> {
    let wrong =
        ["7", "-1.5e3", "true", "[]", "[\"in\"]", "{}", "{\"room_id\":\"in\"}", "\"\"", "\"a b\"", "\"a*\"", "\"a?\""];
    let mut wrong: Vec<String> = wrong.iter().map(|v| (*v).to_owned()).collect();
    wrong.extend(["\"gr\u{fc}n\"", "\"a\\u0000b\"", "\"\\u0020\"", "\"\\ud800\"", "\"a\\nb\""].map(str::to_owned));
    wrong.extend([text(129), text(40_000)]);
    wrong
}

/// A number of a message: what it may not be.
const NO_OFFSETS: [&str; 11] =
    ["null", "-1", "-0.0", "1.0", "1e3", "1.5", "\"1\"", "[1]", "{}", "true", "18446744073709551616"];

#[tokio::test]
async fn rooms_of_every_request_are_checked() {
    let gateway = rooms("").await;
    let mut client = session(&gateway, "alice").await;
    client.join("in").await;
    for (kind, payload, may_miss) in [
        ("join_room", json!({"room_id": "in", "since": {"epoch": "e", "offset": 1}}), false),
        ("leave_room", json!({"room_id": "in"}), false),
        ("room_members", json!({"room_id": "in", "limit": 5, "after": "a"}), false),
        ("message", json!({"room_id": "in", "message": "x"}), true),
        ("typing_start", json!({"room_id": "in"}), false),
        ("typing_stop", json!({"room_id": "in"}), false),
        ("read_receipt", json!({"room_id": "in", "offset": 0}), false),
        ("presence_query", json!({"room_id": "in"}), false),
    ] {
        for wrong in no_rooms() {
            refused_for(&mut client, kind, &with(&payload, "room_id", Some(&wrong)), "payload.room_id").await;
        }
        if may_miss {
            continue;
        }
        for missing in [None, Some("null")] {
            refused_for(&mut client, kind, &with(&payload, "room_id", missing), "payload.room_id").await;
        }
        if payload.as_object().unwrap().len() == 1 {
            refused_for(&mut client, kind, "null", "payload.room_id").await;
            refused_for(&mut client, kind, "{\"Room_id\":\"in\",\"room\":\"in\"}", "payload.room_id").await;
        }
    }
    // None of it was done.
    assert_eq!(members(&mut client, "in").await.1, 1);
    assert_eq!(client.join("in").await["position"]["offset"], 0);
}

#[tokio::test]
async fn the_other_fields_of_every_request_are_checked() {
    let gateway = rooms("").await;
    let mut client = session(&gateway, "alice").await;
    client.join("in").await;
    let many: Vec<_> = (0..101).map(|n| n.to_string()).collect();
    let (many, long) = (json!(many).to_string(), text(129));
    let long_in_list = format!("[{long}]");
    let wrong_text = ["7", "1.5", "true", "[]", "{}", "[\"x\"]"];
    let table: Vec<(&str, Value, &str, Vec<&str>)> = vec![
        ("auth", json!({}), "token", [&wrong_text[..], &["null", "\"\\ud800\""]].concat()),
        (
            "room_members",
            json!({"room_id": "in"}),
            "limit",
            ["0", "-1", "1.0", "1e2", "\"5\"", "[]", "{}", "true"].into(),
        ),
        ("room_members", json!({"room_id": "in"}), "after", [&wrong_text[..], &["\"\"", &long]].concat()),
        ("read_receipt", json!({"room_id": "in"}), "offset", NO_OFFSETS.into()),
        (
            "presence_update",
            json!({}),
            "status",
            [&wrong_text[..], &["null", "\"\"", "\"offline\"", "\"a\\nb\"", "\"a\\u007fb\"", &long, "\"\\udc00\""]]
                .concat(),
        ),
        (
            "presence_query",
            json!({}),
            "client_ids",
            vec![
                "7",
                "true",
                "\"alice\"",
                "{}",
                "[]",
                "[7]",
                "[null]",
                "[\"a\",[]]",
                "[\"\"]",
                "[\"a\",7]",
                &long_in_list,
                &many,
            ],
        ),
        (
            "join_room",
            json!({"room_id": "in"}),
            "since",
            vec![
                "7",
                "true",
                "\"e\"",
                "[]",
                "[\"e\",1]",
                "{}",
                "{\"epoch\":\"e\"}",
                "{\"offset\":1}",
                "{\"epoch\":7,\"offset\":1}",
                "{\"epoch\":null,\"offset\":1}",
                "{\"epoch\":\"e\",\"offset\":1,\"offset\":2}",
            ],
        ),
    ];
    for (kind, payload, field, values) in table {
        for value in values {
            let named = format!("payload.{field}");
            refused_for(&mut client, kind, &with(&payload, field, Some(value)), &named).await;
        }
    }
    for offset in NO_OFFSETS {
        let since = format!("{{\"epoch\":\"e\",\"offset\":{offset}}}");
        let payload = with(&json!({"room_id": "in"}), "since", Some(&since));
        refused_for(&mut client, "join_room", &payload, "payload.since").await;
    }
    for (kind, payload, field) in [
        ("auth", "{}", "payload.token"),
        ("message", "{\"room_id\":\"in\"}", "payload.message"),
        ("message", "{}", "payload.message"),
        ("read_receipt", "{\"room_id\":\"in\"}", "payload.offset"),
        ("presence_update", "{}", "payload.status"),
        ("presence_query", "{}", "payload.client_ids"),
        ("presence_query", "{}", "payload.room_id"),
        ("presence_query", "{\"client_ids\":null,\"room_id\":null}", "payload.client_ids"),
        ("presence_query", "{\"client_ids\":[\"a\"],\"room_id\":\"in\"}", "payload.client_ids"),
    ] {
        refused_for(&mut client, kind, payload, field).await;
    }
    // 65 bytes are too many for a status, whatever they are; 64 are not.
    refused_for(&mut client, "presence_update", &with(&json!({}), "status", Some(&text(65))), "payload.status").await;
    let sushi = format!("\"{}x\"", "\u{1f363}".repeat(16));
    refused_for(&mut client, "presence_update", &with(&json!({}), "status", Some(&sushi)), "payload.status").await;
    client.json(json!({"type": "presence_update", "payload": {"status": "\u{1f363}".repeat(16)}})).await;
    assert_eq!(client.ask("ping", json!({})).await["type"], "pong");
    let hundred: Vec<_> = (0..100).map(|n| format!("{n:0>128}")).collect();
    let answer = client.ask("presence_query", json!({"client_ids": hundred})).await;
    assert_eq!(answer["payload"]["presences"].as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn envelopes_are_checked_and_the_answer_goes_with_them_where_it_can() {
    let gateway = rooms("").await;
    let mut client = session(&gateway, "alice").await;
    client.join("in").await;
    let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
    for kind in ["ping", "join_room", "message", "nothing"] {
        for payload in ["7", "\"x\"", "true", "[]", "[{}]", &deep] {
            refused_for(&mut client, kind, payload, "payload").await;
        }
    }
    for (payload, field) in [
        ("{\"room_id\":\"in\",\"room_id\":\"in\"}", "room_id"),
        ("{\"message\":1,\"room_id\":\"in\",\"message\":1}", "message"),
        ("{\"since\":null,\"s\\u0069nce\":null}", "since"),
    ] {
        refused_for(&mut client, "message", payload, field).await;
    }
    let id = "\"metadata\":{\"message_id\":\"x\"}";
    for (text, field, known) in [
        (format!("{{\"payload\":{{}},{id}}}"), "type", true),
        (format!("{{\"type\":null,{id}}}"), "type", true),
        (format!("{{\"type\":7,{id}}}"), "type", true),
        (format!("{{\"type\":[\"ping\"],{id}}}"), "type", true),
        (format!("{{\"type\":\"\",{id}}}"), "type", true),
        (format!("{{\"type\":\"{}\",{id}}}", "p".repeat(5000)), "type", true),
        (format!("{{\"type\":\"ping\",\"type\":\"ping\",{id}}}"), "type", true),
        (format!("{{\"type\":\"ping\",\"payload\":{{}},\"payload\":{{}},{id}}}"), "payload", true),
        (format!("{{\"type\":\"ping\",{id},{id}}}"), "metadata", false),
        (
            "{\"type\":\"ping\",\"metadata\":{\"message_id\":\"x\",\"message_id\":\"x\"}}".to_owned(),
            "message_id",
            false,
        ),
        ("{\"type\":\"ping\",\"metadata\":7}".to_owned(), "metadata", false),
        ("{\"type\":\"ping\",\"metadata\":[]}".to_owned(), "metadata", false),
        ("{\"type\":\"ping\",\"metadata\":{\"message_id\":7}}".to_owned(), "metadata.message_id", false),
        ("{\"type\":\"ping\",\"metadata\":{\"message_id\":\"\"}}".to_owned(), "metadata.message_id", false),
        (format!("{{\"type\":\"ping\",\"metadata\":{{\"message_id\":{}}}}}", text(129)), "metadata.message_id", false),
    ] {
        client.text(&text).await;
        let error = client.expect("error").await;
        assert_eq!(error["payload"]["code"], 4006, "{text}: {error}");
        assert!(error["payload"]["message"].as_str().unwrap().contains(field), "{text}: {error}");
        let correlation = error["metadata"].get("correlation_id");
        assert_eq!(correlation, known.then(|| json!("x")).as_ref(), "{text}: {error}");
        client.json(json!({"type": "ping"})).await;
        client.expect("pong").await;
    }
}

#[tokio::test]
async fn binary_messages_are_refused_and_count_as_not_understood() {
    let gateway = rooms("").await;
    let mut client = session(&gateway, "alice").await;
    for bytes in [&br#"{"type":"ping"}"#[..], b"", b"\xff\xfe"] {
        client.send(Message::binary(bytes.to_vec())).await;
        let error = client.expect("error").await;
        assert_eq!(error["payload"]["code"], 4006, "{error}");
        assert!(error["metadata"].get("correlation_id").is_none(), "{error}");
    }
    client.json(json!({"type": "ping"})).await;
    client.expect("pong").await;
    for n in 0..9 {
        client.send(Message::binary(vec![n])).await;
        client.expect("error").await;
    }
    client.text("{}").await;
    assert_eq!(client.expect("error").await["payload"]["code"], 4006);
    assert_eq!(client.expect("disconnect").await["payload"]["code"], 4006);
    client.closes_with(4006).await;
}

#[tokio::test]
async fn refusals_of_other_kinds_do_not_count_as_not_understood() {
    let gateway = rooms("").await;
    let mut client = session(&gateway, "alice").await;
    for _ in 0..12 {
        client.refused("leave_room", json!({"room_id": "nowhere"}), 4007).await;
    }
    client.join("a").await;
    for _ in 0..9 {
        client.refused("nothing", json!({}), 4006).await;
    }
    client.refused("leave_room", json!({"room_id": "nowhere"}), 4007).await;
    client.refused("nothing", json!({}), 4006).await;
    client.join("b").await;
}

#[tokio::test]
async fn messages_are_passed_on_as_they_are_and_up_to_64_deep() {
    let gateway = rooms("").await;
    let mut alice = session(&gateway, "alice").await;
    let mut bob = session(&gateway, "bob").await;
    alice.join("a").await;
    bob.join("a").await;
    let nested = |depth: usize| format!("{}0{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", "{\"a\":[".repeat(depth / 2), "]}".repeat(depth / 2));
    let wide = format!("[{}[]]", "[[1]],{\"b\":\"]]]}}[[[{{\\\"\"},".repeat(60));
    for body in [
        nested(64),
        objects(64),
        wide,
        text(60_000),
        r#"{"a":1,"a":2,"b":{"c":3,"c":{"d":4,"d":5}}}"#.to_owned(),
        "0.1000000000000000055511151231257827021181583404541015625".to_owned(),
        "-0".to_owned(),
        "1E+400".to_owned(),
        "123456789012345678901234567890.50".to_owned(),
        "[9007199254740993, 1e-999, 0e0, -0.0, 1.50]".to_owned(),
        "{ \"type\" : \"chat_message\" ,\t\"payload\":{\"room_id\":\"other\"}, \"metadata\": null }".to_owned(),
        r#""\u0000\u001f\"\\\/\b\f\n\r\t\uD834\uDD1E\ud834""#.to_owned(),
        "\"\u{7f}\u{80}\u{2028}\u{2029}\u{feff}\u{10ffff}\"".to_owned(),
        "null".to_owned(),
    ] {
        // Around it are members that nobody knows.
        alice
            .text(&format!(
                r#"{{"x":[{{"y":[{{}}]}}],"type":"message","payload":{{"?":null,"message":{body},"room_id":"a","z":1,"z":2}},"q":1}}"#
            ))
            .await;
        let chat = chat_text(&mut bob).await;
        assert!(chat.contains(&format!(",\"message\":{body},\"position\":")), "{body} became {chat}");
        assert_eq!(chat_text(&mut alice).await, chat);
    }
    for deep in [nested(65), objects(66), nested(20_000), format!("[1,2,{{\"a\":{}}}]", nested(63))] {
        refused_for(&mut alice, "message", &format!("{{\"room_id\":\"a\",\"message\":{deep}}}"), "payload.message")
            .await;
    }
    alice.publish("a", json!("end")).await;
    assert_eq!(chat(&mut bob).await.1, "end", "what was refused reached nobody");
}

#[tokio::test]
async fn unknown_members_are_ignored_everywhere() {
    let gateway = rooms("").await;
    let mut client = session(&gateway, "alice").await;
    let junk = r#""?":[1,{"?":{}}],"":null,"room":"b","limits":0,"Type":"x","\u0000":1,"?":2"#;
    for (kind, payload, answer) in [
        ("join_room", r#""room_id":"a","since":{"epoch":"e","offset":1,"x":[]}"#, "room_joined"),
        ("message", r#""room_id":"a","message":1"#, "chat_message"),
        ("room_members", r#""room_id":"a","limit":null,"after":null"#, "room_members"),
        ("presence_query", r#""room_id":"a","client_ids":null"#, "presence_update"),
        ("presence_query", r#""client_ids":["alice"],"room_id":null"#, "presence_update"),
        ("leave_room", r#""room_id":"a""#, "room_left"),
        ("join_room", r#""room_id":"a","since":null"#, "room_joined"),
        ("ping", r#""room_id":7,"status":[],"since":{},"message":{"deep":[]}"#, "pong"),
    ] {
        client
            .text(&format!(
                r#"{{{junk},"payload":{{{junk},{payload}}},"metadata":{{{junk},"client_id":7,"timestamp":{{}}}},"type":"{kind}"}}"#
            ))
            .await;
        client.skip_to(answer).await;
    }
    // Escapes are the same text.
    client.text(r#"{"\u0074ype":"p\u0069ng","metadata":{"message\u005fid":"\u0078"}}"#).await;
    assert_eq!(client.skip_to("pong").await["metadata"]["correlation_id"], "x");
}
