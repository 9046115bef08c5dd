//! Every call: its guards, its methods, its names.
use super::*;

/// Method, path, a good body, and the status where no shard answers.
const CALLS: [(&str, &str, Option<&str>, u16); 13] = [
    ("GET", "/api/status", None, 200),
    ("GET", "/api/rooms", None, 200),
    ("GET", "/api/rooms/a", None, 503),
    ("GET", "/api/rooms/a/history", None, 503),
    ("POST", "/api/rooms/a/kick", Some(r#"{"client_id":"c"}"#), 200),
    ("POST", "/api/publish", Some(r#"{"room_id":"a","message":1}"#), 503),
    ("POST", "/api/notify", Some(r#"{"everyone":true,"type":"n"}"#), 200),
    ("GET", "/api/clients/c", None, 200),
    ("DELETE", "/api/clients/c", Some("{}"), 200),
    ("GET", "/api/bans", None, 200),
    ("PUT", "/api/bans/c", Some("{}"), 200),
    ("DELETE", "/api/bans/c", Some("{}"), 200),
    ("POST", "/api/drain", Some("{}"), 202),
];

const AUTHORIZED: &str = "Authorization: Bearer s3cret\r\n";

fn head_of(body: Option<&str>, media_type: &str) -> String {
    body.map(|b| format!("Content-Type: {media_type}\r\nContent-Length: {}\r\n", b.len())).unwrap_or_default()
}

async fn call(admin: &Running, method: &str, path: &str, body: Option<&str>, more: &str) -> (u16, HeaderMap, String) {
    let more = format!("{}{more}", head_of(body, "application/json"));
    let (status, headers, body) = admin.with_body(method, path, &more, body.unwrap_or_default()).await;
    for name in headers.keys() {
        assert!(!name.as_str().starts_with("access-control"), "{method} {path}: {name}");
    }
    assert_eq!(headers["content-type"], "application/json", "{method} {path}");
    assert_eq!(headers["cache-control"], "no-store", "{method} {path}");
    (status.as_u16(), headers, body)
}

#[tokio::test]
async fn every_call_passes_its_guards() {
    let admin = start(Some("s3cret")).await;
    for (method, path, body, status) in CALLS {
        assert_eq!(call(&admin, method, path, body, AUTHORIZED).await.0, status, "{method} {path}");
        let own = format!("{AUTHORIZED}Origin: http://{}\r\n", admin.address);
        assert_eq!(call(&admin, method, path, body, &own).await.0, status, "{method} {path} of the own origin");
        for origin in ["https://evil.example", "null", "http://localhost", ""] {
            let more = format!("{AUTHORIZED}Origin: {origin}\r\n");
            let (status, _, body) = call(&admin, method, path, body, &more).await;
            assert_eq!((status, error_code(&body)), (403, 4003), "{method} {path} of {origin:?}");
        }
        for token in ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic czNjcmV0\r\n"] {
            let (status, headers, _) = call(&admin, method, path, body, token).await;
            assert_eq!((status, &headers["www-authenticate"]), (401, &"Bearer".parse().expect("a value")), "{path}");
        }
        let rebound = format!(
            "{method} {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n{AUTHORIZED}{}\r\n{}",
            head_of(body, "application/json"),
            body.unwrap_or_default()
        );
        assert_eq!(parse(&admin.raw(&rebound).await).0, 421, "{method} {path}");
    }
    assert_eq!(call(&admin, "GET", "/api/nothing", None, "").await.0, 401, "the token comes first");
    assert_eq!(call(&admin, "GET", "/api/nothing", None, AUTHORIZED).await.0, 404);
}

#[tokio::test]
async fn every_body_is_json() {
    let admin = start(None).await;
    for (method, path, body) in CALLS.into_iter().filter_map(|(m, p, body, _)| Some((m, p, body?))) {
        for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json", ""] {
            let (status, _, answer) = admin.with_body(method, path, &head_of(Some(body), media_type), body).await;
            assert_eq!((status.as_u16(), error_code(&answer)), (415, 4006), "{method} {path} {media_type:?}");
        }
        let unnamed = format!("Content-Length: {}\r\n", body.len());
        assert_eq!(admin.with_body(method, path, &unnamed, body).await.0, 415, "{method} {path} without a type");
        let packed = format!("{}Content-Encoding: gzip\r\n", head_of(Some(body), "application/json"));
        assert_eq!(admin.with_body(method, path, &packed, body).await.0, 415, "{method} {path} packed");
        let charset = head_of(Some(body), "Application/JSON ; charset=utf-8");
        assert_ne!(admin.with_body(method, path, &charset, body).await.0, 415, "{method} {path}");
        for wrong in ["{", "[]", "5", "null", r#"{"nonsense":1}"#, "{} x"] {
            let (status, _, answer) = admin.send(method, path, wrong).await;
            assert_eq!((status.as_u16(), error_code(&answer)), (400, 4006), "{method} {path} {wrong}: {answer}");
        }
        let typo = admin.send(method, path, r#"{"nonsense":1}"#).await.2;
        assert!(typo.contains(r#"unknown member \"nonsense\""#), "{typo}");
    }
}

#[tokio::test]
async fn every_path_has_its_methods() {
    let admin = start(None).await;
    for (_, path, ..) in CALLS {
        let mut allowed: Vec<&str> = CALLS.iter().filter(|c| c.1 == path).map(|c| c.0).collect();
        if let Some(get) = allowed.iter().position(|m| *m == "GET") {
            allowed.insert(get + 1, "HEAD");
        }
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
            if allowed.contains(&method) {
                continue;
            }
            let (status, headers, body) = admin.call(method, path, "").await;
            assert_eq!(status, 405, "{method} {path}");
            assert_eq!(headers["allow"], allowed.join(", "), "{method} {path}");
            assert!(body.is_empty() || error_code(&body) == 4000, "{method} {path}");
        }
        if allowed.contains(&"HEAD") {
            let (status, headers, body) = admin.call("HEAD", path, "").await;
            assert_eq!(status, admin.call("GET", path, "").await.0, "HEAD {path}");
            assert!(body.is_empty() && headers.contains_key("content-length"), "HEAD {path}");
        }
    }
}

#[tokio::test]
async fn unknown_parameters_are_named() {
    let admin = start(None).await;
    for (method, path, body, _) in CALLS {
        let (status, _, answer) = call(&admin, method, &format!("{path}?limt=5"), body, "").await;
        assert_eq!((status, error_code(&answer)), (400, 4006), "{method} {path}");
        assert!(answer.contains("limt"), "{answer}");
    }
    for (path, status) in [
        ("/api/rooms?limit=1000&prefix=a&after=b", 200),
        ("/api/rooms?prefix=&after=", 200),
        ("/api/rooms?prefix=a%20b", 400),
        ("/api/rooms?after=a%20b", 400),
        ("/api/rooms?limit=0", 400),
        ("/api/rooms?limit=1001", 400),
        ("/api/rooms?limit=1&limit=2", 400),
        ("/api/rooms?limit=%ZZ", 400),
        ("/api/rooms/a?limit=5&after=c", 503),
        ("/api/rooms/a?after=%0A", 400),
        ("/api/rooms/a/history?since=0&limit=5", 503),
        ("/api/rooms/a/history?since=-1", 400),
        ("/api/bans?after=%7Cbob", 200),
        ("/api/bans?after=bob", 400),
        ("/api/status?namespace=default", 400),
    ] {
        assert_eq!(admin.call("GET", path, "").await.0, status, "{path}");
    }
    assert_eq!(admin.call("DELETE", "/api/bans/c?room_id=", "").await.0, 400, "no room is not any room");
}

#[tokio::test]
async fn names_in_paths_are_decoded_strictly() {
    let admin = start(None).await;
    for (path, status) in [
        ("/api/rooms/chat%2Ftea", 503),
        ("/api/rooms/chat/tea", 404),
        ("/api/rooms/", 400),
        ("/api/rooms/a%2", 400),
        ("/api/rooms/a%zz", 400),
        ("/api/rooms/a%20b", 400),
        ("/api/rooms/%FF", 400),
        ("/api/rooms//history", 400),
        ("/api/clients/J%C3%BCrgen%20%2F", 200),
        ("/api/clients/a%00", 400),
        ("/api/clients/%FF", 400),
        ("/api/clients/", 400),
    ] {
        assert_eq!(admin.call("GET", path, "").await.0, status, "{path}");
    }
    let long = format!("/api/clients/{}", "a".repeat(129));
    assert_eq!(admin.call("GET", &long, "").await.0, 400);
    let (_, _, body) = admin.call("GET", "/api/clients/J%C3%BCrgen%20%2F", "").await;
    assert_eq!(body, r#"{"client_id":"Jürgen /","sessions":[]}"#);
    let (_, _, body) = admin.call("GET", "/api/rooms/chat%2Ftea", "").await;
    // Nobody answers for the rooms in these tests.
    assert!(body.contains("stopping") && error_code(&body) == 4000, "{body}");
    assert_eq!(error_code(&admin.call("GET", "/api/rooms/chat/tea", "").await.2), 4000, "no such call");
}

#[tokio::test]
async fn a_namespace_is_named_or_obvious() {
    let route = |path: &str, name: &str| format!("{ROUTE}namespace = \"{name}\"\n").replace("/ws", path);
    let several = start_with(None, &(route("/a", "a") + &route("/b", "b"))).await;
    for (method, path, body, status) in CALLS.into_iter().filter(|c| !matches!(c.1, "/api/status" | "/api/drain")) {
        let at = |namespace: &str| format!("{path}?namespace={namespace}");
        assert_eq!(call(&several, method, path, body, "").await.0, 400, "{method} {path}");
        assert_eq!(call(&several, method, &at("b"), body, "").await.0, status, "{method} {path}");
        let (status, _, answer) = call(&several, method, &at("c"), body, "").await;
        assert_eq!((status, error_code(&answer)), (404, 4007), "{method} {path}");
    }
    let own = r#"{"room_id":"a","message":1,"namespace":"a"}"#;
    assert_eq!(several.send("POST", "/api/publish", own).await.0, 503, "found");
    let unknown = r#"{"everyone":true,"type":"n","namespace":"c"}"#;
    assert_eq!(several.send("POST", "/api/notify", unknown).await.0, 404);
    let one = start_with(None, &route("/a", "a")).await;
    assert_eq!(one.call("GET", "/api/rooms", "").await.0, 200);
    let default = start_with(None, &(route("/a", "a") + &route("/b", "default"))).await;
    assert_eq!(default.call("GET", "/api/rooms", "").await.0, 200);
}

/// A shard that takes mail and never answers.
#[tokio::test(start_paused = true)]
async fn the_rooms_are_waited_for_a_bounded_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let (state, _inboxes) = state(address, None, ROUTE);
    let state = Arc::new(state);
    let admin = Running { address, state: state.clone(), task: tokio::spawn(serve(listener, open(&state))) };
    let began = Instant::now();
    for (method, path, body, _) in CALLS.into_iter().filter(|c| !matches!(c.1, "/api/status" | "/api/drain")) {
        admin.state.health.beat(0, Instant::now().into_std());
        let (status, headers, answer) = call(&admin, method, path, body, "").await;
        if path == "/api/bans" || (method, path) == ("DELETE", "/api/bans/c") {
            assert_eq!(status, 200, "{method} {path} asks no room");
            continue;
        }
        assert_eq!((status, error_code(&answer)), (503, 4000), "{method} {path}");
        assert_eq!(headers["retry-after"], "1", "{method} {path}");
        assert_eq!(answer.contains("it goes on"), method == "PUT", "{method} {path}: {answer}");
    }
    assert!(began.elapsed() >= 9 * ANSWER_TIMEOUT, "{:?}", began.elapsed());
    let many = format!("[{}]", vec![r#"{"room_id":"a","message":1}"#; 1000].join(","));
    admin.state.health.beat(0, Instant::now().into_std());
    let asked = Instant::now();
    let (status, _, body) = admin.send("POST", "/api/publish", &many).await;
    assert_eq!((status.as_u16(), body.matches("\"status\":503").count()), (207, 1000));
    assert!(asked.elapsed() < 2 * ANSWER_TIMEOUT, "one time for all: {:?}", asked.elapsed());
    tokio::time::advance(STALE_AFTER).await;
    let asked = Instant::now();
    assert_eq!(admin.call("GET", "/api/rooms", "").await.0, 503);
    assert!(asked.elapsed() < ANSWER_TIMEOUT, "a stuck shard is not asked");
}
