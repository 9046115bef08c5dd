//! What bodies may hold, and what is answered.
use super::*;
use serde_json::{Value, json};

fn json_of(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"))
}

#[tokio::test]
async fn faults_name_the_member() {
    let admin = start(None).await;
    let long = "x".repeat(129);
    for (path, body, words) in [
        ("/api/publish", json!({}), "\"room_id\" is missing"),
        ("/api/publish", json!({"room_id": "a"}), "\"message\" is missing"),
        ("/api/publish", json!({"room_id": 5, "message": 1}), "\"room_id\" must be a string"),
        ("/api/publish", json!({"room_id": "a b", "message": 1}), "\"room_id\" must be 1 to 128"),
        ("/api/publish", json!({"room_id": "", "message": 1}), "\"room_id\" must be 1 to 128"),
        ("/api/publish", json!({"room_id": "a", "message": 1, "sender_id": "a\n"}), "\"sender_id\" must be 1 to 128"),
        ("/api/publish", json!({"room_id": "a", "message": 1, "sender_id": []}), "\"sender_id\" must be a string"),
        ("/api/publish", json!({"room_id": "a", "message": 1, "message_id": ""}), "\"message_id\" must be 1 to 128"),
        ("/api/publish", json!({"room_id": "a", "message": 1, "message_id": long}), "\"message_id\" must be 1 to 128"),
        ("/api/publish", json!({"room_id": "a", "message": 1, "namespace": 1}), "\"namespace\" must be a string"),
        ("/api/publish", json!({"room": "a", "message": 1}), "unknown member \"room\""),
        ("/api/notify", json!({"everyone": true}), "\"type\" is missing"),
        ("/api/notify", json!({"everyone": true, "type": "pong"}), "protocol's own"),
        ("/api/notify", json!({"type": "n"}), "\"everyone\""),
        ("/api/notify", json!({"type": "n", "client_ids": [1]}), "\"client_ids\" must be a list"),
        ("/api/notify", json!({"type": "n", "client_ids": vec!["c"; 1001]}), "\"client_ids\" must be a list"),
        ("/api/rooms/a/kick", json!({}), "\"client_id\" is missing"),
        ("/api/rooms/a/kick", json!({"client_id": null}), "\"client_id\" is missing"),
        ("/api/rooms/a/kick", json!({"client_id": "a\u{0}"}), "\"client_id\" must be 1 to 128"),
    ] {
        let (status, _, answer) = admin.send("POST", path, &body.to_string()).await;
        assert_eq!((status.as_u16(), error_code(&answer)), (400, 4006), "{path} {body}: {answer}");
        let message = json_of(&answer)["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains(words), "{path} {body}: {message}");
    }
    for (body, words) in [
        (json!({"seconds": 0}), "\"seconds\""),
        (json!({"seconds": 1.5}), "\"seconds\""),
        (json!({"seconds": "60"}), "\"seconds\""),
        (json!({"seconds": 4_000_000_000u64}), "\"seconds\""),
        (json!({"room_id": "a b"}), "\"room_id\""),
        (json!({"reason": 1}), "\"reason\""),
    ] {
        let (status, _, answer) = admin.send("PUT", "/api/bans/c", &body.to_string()).await;
        assert_eq!(status, 400, "{body}");
        assert!(answer.contains(&words.replace('"', "\\\"")), "{answer}");
    }
    assert_eq!(admin.send("DELETE", "/api/clients/c", r#"{"reason":1}"#).await.0, 400);
    assert_eq!(admin.send("DELETE", "/api/bans/c", r#"{"room_id":"a"}"#).await.0, 400, "it belongs in the query");
}

#[tokio::test]
async fn messages_are_bounded_in_size_and_depth() {
    let admin = start(None).await;
    let most = admin.state.config.rooms.max_message_size;
    let body = |message: &str| format!(r#"{{"room_id":"a","message":{message}}}"#);
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    assert_eq!(admin.send("POST", "/api/publish", &body(&text(most))).await.0, 503, "it fits");
    let (status, _, answer) = admin.send("POST", "/api/publish", &body(&text(most + 1))).await;
    assert_eq!((status.as_u16(), error_code(&answer)), (413, 4005), "{answer}");
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(admin.send("POST", "/api/publish", &body(&deep(64))).await.0, 503, "it fits");
    assert_eq!(admin.send("POST", "/api/publish", &body(&deep(65))).await.0, 400);
    let notify = |payload: &str| format!(r#"{{"everyone":true,"type":"n","payload":{payload}}}"#);
    assert_eq!(admin.send("POST", "/api/notify", &notify(&text(most))).await.0, 200);
    assert_eq!(admin.send("POST", "/api/notify", &notify(&text(most + 1))).await.0, 413);
    assert_eq!(admin.send("POST", "/api/notify", &notify(&deep(65))).await.0, 400);
}

#[tokio::test]
async fn each_item_of_a_list_has_its_status() {
    let admin = start(None).await;
    let items = r#" [{"room_id":"a","message":1}, 5, {"room_id":"a b","message":1}, {"room_id":"a","message":1,"namespace":"x"}]"#;
    let (status, _, body) = admin.send("POST", "/api/publish", items).await;
    assert_eq!(status, 207);
    let found: Vec<_> = json_of(&body).as_array().expect("a list").iter().map(|i| i["status"].as_u64()).collect();
    assert_eq!(found, [Some(503), Some(400), Some(400), Some(404)], "{body}");
    assert_eq!(json_of(&body)[2]["error"]["code"], 4006);
    let list = |n: usize| format!("[{}]", vec![r#"{"room_id":"a","message":1}"#; n].join(","));
    let (status, _, body) = admin.send("POST", "/api/publish", &list(1000)).await;
    assert_eq!((status.as_u16(), json_of(&body).as_array().map(Vec::len)), (207, Some(1000)));
    for wrong in ["[]", &list(1001), r#"[{"room_id":"a","message":1},]"#, "[{}"] {
        assert_eq!(admin.send("POST", "/api/publish", wrong).await.0, 400);
    }
}

#[tokio::test]
async fn bodies_are_bounded() {
    let admin = start(None).await;
    let padded = |bytes: usize| format!("{}{{}}", " ".repeat(bytes - 2));
    assert_eq!(admin.send("POST", "/api/drain", &padded(body::BODY_MAX)).await.0, 202);
    let (status, _, answer) = admin.send("POST", "/api/drain", &padded(body::BODY_MAX + 1)).await;
    assert_eq!((status.as_u16(), error_code(&answer)), (413, 4005));
    let huge = "Content-Type: application/json\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n";
    let (status, ..) = admin.with_body("POST", "/api/publish", huge, "").await;
    assert_eq!(status, 413, "told before anything is sent");
    let chunked = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
    let (status, ..) = admin.with_body("POST", "/api/drain", chunked, &(chunk.repeat(5) + "0\r\n\r\n")).await;
    assert_eq!(status, 413);
    let (status, ..) = admin.with_body("POST", "/api/drain", chunked, "2\r\n{}\r\n0\r\n\r\n").await;
    assert_eq!(status, 202);
    let head = "Content-Type: application/json\r\nContent-Length: 2\r\n";
    assert_eq!(parse(&admin.raw_bytes("POST", "/api/drain", head, b"\"\xff").await).0, 400, "no UTF-8");
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_given_up() {
    let admin = start(None).await;
    let began = Instant::now();
    let head = "Content-Type: application/json\r\nContent-Length: 2\r\n";
    let (status, _, body) = admin.with_body("POST", "/api/drain", head, "{").await;
    assert_eq!((status.as_u16(), error_code(&body)), (408, 4000));
    let waited = began.elapsed();
    assert!(waited >= body::BODY_TIMEOUT && waited < 2 * body::BODY_TIMEOUT, "{waited:?}");
}

#[tokio::test]
async fn the_status_tells_of_the_process() {
    let upstream = "[[route]]\npath = \"/live\"\nservice = \"proxy\"\nupstream = \"live\"\n\
                    [upstream.live]\nservers = [\"http://127.0.0.1:1\"]\n";
    let admin = start_with(None, &format!("{ROUTE}{upstream}")).await;
    admin.state.health.set_ready();
    admin.state.metrics.shard(0).connection_opened();
    admin.state.metrics.elsewhere().connection_opened();
    admin.state.metrics.shard(0).session_opened(metrics::ServiceLabel::Rooms);
    admin.state.metrics.shard(0).room_opened();
    let status = json_of(&admin.call("GET", "/api/status", "").await.2);
    let expected = json!({
        "version": env!("CARGO_PKG_VERSION"), "uptime_seconds": status["uptime_seconds"], "phase": "ready",
        "connections": 2, "sessions": {"echo": 0, "rooms": 1, "proxy": 0}, "rooms": 1,
        "shards": admin.state.config.server.shards,
        "upstreams": [{"name": "live", "servers": [{
            "url": "http://127.0.0.1:1", "weight": 1, "healthy": true, "used": 0,
            "addresses": [{"address": "127.0.0.1:1", "healthy": true, "used": 0}],
        }]}],
        "nodes": [],
    });
    assert_eq!(status, expected);
    assert!(status["uptime_seconds"].as_u64().is_some_and(|s| s < 60), "{status}");
}

#[tokio::test]
async fn a_drain_is_heard() {
    let admin = start(None).await;
    assert!(timeout(Duration::ZERO, admin.state.drain.notified()).await.is_err());
    let (status, _, body) = admin.call("POST", "/api/drain", "Content-Length: 0\r\n").await;
    assert_eq!((status.as_u16(), &json_of(&body)["phase"]), (202, &json!("draining")));
    timeout(Duration::from_secs(5), admin.state.drain.notified()).await.expect("notified");
    assert_eq!(admin.call("POST", "/api/drain", "").await.0, 202, "once more is no fault");
}

#[tokio::test]
async fn bans_are_kept_and_listed_by_pages() {
    let admin = start(None).await;
    let list = async |query: &str| json_of(&admin.call("GET", &format!("/api/bans{query}"), "").await.2);
    assert_eq!(list("").await, json!({"bans": []}));
    for (client, body) in [
        ("bob", json!({"reason": "spam\n"})),
        ("bob", json!({"room_id": "tea", "seconds": 60})),
        ("alice%7C", json!({"room_id": "tea", "reason": null})),
    ] {
        let (status, _, answer) = admin.send("PUT", &format!("/api/bans/{client}"), &body.to_string()).await;
        assert_eq!((status.as_u16(), json_of(&answer)), (200, json!({"sessions": 0})));
    }
    let all = list("").await;
    let names = |page: &Value| {
        let bans = page["bans"].as_array().expect("a list").iter();
        bans.map(|b| (b["client_id"].clone(), b["room_id"].clone())).collect::<Vec<_>>()
    };
    let expected = [(json!("alice|"), json!("tea")), (json!("bob"), Value::Null), (json!("bob"), json!("tea"))];
    assert_eq!(names(&all), expected, "{all}");
    assert_eq!(all["bans"][1]["reason"], "spam ", "{all}");
    assert!(all["bans"][1].get("until").is_none() && all["bans"][2]["until"].is_string(), "{all}");
    let mut after = String::new();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let page = list(&format!("?limit=1&after={after}")).await;
        seen.extend(names(&page));
        after = page["next"].as_str().unwrap_or_default().replace('|', "%7C");
    }
    assert_eq!((seen.as_slice(), after.as_str()), (expected.as_slice(), ""));
    for (path, lifted) in [
        ("/api/bans/bob?room_id=coffee", false),
        ("/api/bans/bob?room_id=tea", true),
        ("/api/bans/bob?room_id=tea", false),
        ("/api/bans/bob", true),
    ] {
        let (status, _, answer) = admin.call("DELETE", path, "").await;
        assert_eq!((status.as_u16(), json_of(&answer)), (200, json!({"lifted": lifted})), "{path}");
    }
    assert_eq!(names(&list("").await), expected[..1]);
}
