//! Keys that are fetched from a URL.
use crate::support::gateway::Setup;
use crate::support::keys::{Answer, SigningKey, Source, set};
use crate::support::raw::upgrade_head;
use crate::support::tls::Authority;
use crate::support::*;
use serde_json::json;

/// Refusals by status; more keys of `[auth]` may follow.
fn config(url: &str, more: &str) -> String {
    format!(
        "{PLAIN}{ECHO}{ROOMS}{ADMIN}[auth]\njwks = \"{url}\"\nalgorithms = [\"ES256\"]\non_reject = \"http\"\n{more}\n"
    )
}

async fn start(source: &Source, more: &str) -> Gateway {
    Gateway::start(&config(&format!("http://127.0.0.1:{}/jwks.json?tenant=1", source.port), more)).await
}

async fn ask(gateway: &Gateway, token: &str) -> RawWs {
    let mut raw = gateway.raw().await;
    raw.send(upgrade_head("/echo", &[&format!("Authorization: Bearer {token}")])).await;
    raw
}

async fn status(gateway: &Gateway, token: &str) -> u16 {
    ask(gateway, token).await.read_head().await.status
}

async fn fetches(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric("wsgate_jwks_fetches_total", &[&format!("\"{outcome}\"")]).await
}

#[tokio::test]
async fn keys_are_fetched_at_the_start() {
    let key = SigningKey::new("one");
    let source = Source::start(Answer::keys(&[&key])).await;
    let gateway = start(&source, "").await;
    assert_eq!(status(&gateway, &key.token("alice")).await, 101);
    assert_eq!(status(&gateway, &SigningKey::new("one").token("alice")).await, 401, "the same name, another key");
    assert_eq!(source.fetches(), 1);
    let head = source.heads().concat();
    assert!(head.starts_with("GET /jwks.json?tenant=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: 127.0.0.1:{}\r\n", source.port)), "{head}");
    assert_eq!((fetches(&gateway, "fresh").await, fetches(&gateway, "failed").await), (1.0, 0.0));
    let at = gateway.metric("wsgate_jwks_fetch_time_seconds", &[]).await;
    assert!((at - token::now() as f64).abs() < 60.0, "{at}");
}

/// Requests that come before the first set wait for it.
#[tokio::test]
async fn a_token_waits_for_the_first_set() {
    let key = SigningKey::new("one");
    let source = Source::start(Answer::Later).await;
    let gateway = start(&source, "").await;
    source.fetched(1).await;
    let mut waiting = ask(&gateway, &key.token("alice")).await;
    let mut open = gateway.raw().await;
    open.send(upgrade_head("/echo", &[])).await;
    assert_eq!(open.read_head().await.status, 401, "who has no token does not wait");
    source.set(Answer::keys(&[&key]));
    assert_eq!(waiting.read_head().await.status, 101);
    assert_eq!(source.fetches(), 1);
}

#[tokio::test]
async fn an_unknown_key_is_fetched_once_for_all() {
    let (old, new) = (SigningKey::new("old"), SigningKey::new("new"));
    let source = Source::start(Answer::keys(&[&old])).await;
    let gateway = start(&source, "").await;
    assert_eq!(status(&gateway, &old.token("alice")).await, 101);
    source.set(Answer::Later);
    let mut waiting = Vec::new();
    for client in 0..50 {
        waiting.push(ask(&gateway, &new.token(&format!("client-{client}"))).await);
    }
    source.fetched(2).await;
    assert_eq!(status(&gateway, &old.token("bob")).await, 101, "a known key waits for nothing");
    source.set(Answer::keys(&[&old, &new]));
    for mut raw in waiting {
        assert_eq!(raw.read_head().await.status, 101);
    }
    // A flood of others makes no other fetch, and does not wait for one.
    let stranger = SigningKey::new("stranger");
    for _ in 0..50 {
        assert_eq!(status(&gateway, &stranger.token("mallory")).await, 401);
    }
    assert_eq!(source.fetches(), 2);
    assert_eq!(fetches(&gateway, "fresh").await, 2.0);
}

#[tokio::test]
async fn a_set_that_has_grown_old_is_fetched_again() {
    let (old, new) = (SigningKey::new("old"), SigningKey::new("new"));
    let source = Source::start(Answer::keys(&[&old])).await;
    let gateway = start(&source, "jwks_refresh = \"1s\"").await;
    assert_eq!(status(&gateway, &old.token("alice")).await, 101);
    source.set(Answer::keys(&[&new]));
    // The one that is answered with the new set, and the one that comes when that was taken.
    source.fetched(source.fetches() + 2).await;
    assert_eq!(status(&gateway, &new.token("alice")).await, 101);
    assert_eq!(status(&gateway, &old.token("alice")).await, 401, "it was withdrawn");
}

#[tokio::test]
async fn sighup_fetches_at_once() {
    let (old, new) = (SigningKey::new("old"), SigningKey::new("new"));
    let source = Source::start(Answer::keys(&[&old])).await;
    let gateway = start(&source, "jwks_refresh = \"1d\"").await;
    for _ in 0..3 {
        let before = source.fetches();
        gateway.signal("HUP");
        source.fetched(before + 1).await;
    }
    source.set(Answer::keys(&[&new]));
    gateway.signal("HUP");
    eventually(|| async { (status(&gateway, &old.token("alice")).await == 401).then_some(()) }).await;
    assert_eq!(status(&gateway, &new.token("alice")).await, 101);
}

#[tokio::test]
async fn without_keys_nobody_is_told_to_get_a_new_token() {
    let key = SigningKey::new("one");
    let source = Source::start(Answer::of("503 Unavailable", "")).await;
    let gateway = start(&source, "jwks_refresh = \"1s\"").await;
    gateway.wait_for_log(|l| l.contains("WARN") && l.contains("cannot be fetched") && l.contains("status 503")).await;
    let mut raw = ask(&gateway, &key.token("alice")).await;
    let head = raw.read_head().await;
    assert_eq!((head.status, head.header("retry-after")), (503, Some("1")), "{head:?}");
    let body: serde_json::Value = serde_json::from_slice(&raw.read_body(&head).await).unwrap();
    assert_eq!(body["error"]["code"], 4000, "{body}");
    assert!(gateway.metric("wsgate_refusals_total", &["\"no_keys\""]).await >= 1.0);
    let mut visitor = gateway.open("/ws").await;
    visitor.json(json!({"type": "auth", "payload": {"token": key.token("alice")}})).await;
    let told = visitor.expect("disconnect").await;
    assert_eq!((&told["payload"]["code"], &told["payload"]["reconnect"]), (&json!(4000), &json!(true)), "{told}");
    visitor.closes_with(4000).await;
    // And once more, now with a failure in between that is no news.
    source.fetched(source.fetches() + 2).await;
    source.set(Answer::keys(&[&key]));
    gateway.wait_for_log(|l| l.contains("is fetched again")).await;
    assert_eq!(status(&gateway, &key.token("alice")).await, 101);
    assert_eq!(gateway.log().matches("cannot be fetched").count(), 1, "{}", gateway.log());
    assert!(!gateway.log().contains("tenant"), "a query may hold a secret");
}

#[tokio::test]
async fn old_keys_serve_while_the_source_is_down() {
    let key = SigningKey::new("one");
    let source = Source::start(Answer::keys(&[&key])).await;
    let gateway = start(&source, "jwks_refresh = \"1d\"").await;
    assert_eq!(status(&gateway, &key.token("alice")).await, 101);
    // Good, but for what is wrong with each.
    let large = set(&[&key]).replacen('{', &format!("{{\"filler\": \"{}\",", "x".repeat(1 << 20)), 1);
    let many: Vec<SigningKey> = (0..65).map(|n| SigningKey::new(&n.to_string())).collect();
    let endless = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n{}", "x".repeat(0x20_0000));
    let good = set(&[&key]);
    let cut = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{good}", good.len() + 1);
    let moved =
        format!("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{}/\r\nContent-Length: 0\r\n\r\n", source.port);
    let wrong = [
        ("status 500", Answer::of("500 Internal Server Error", &good)),
        ("a redirect", Answer::Bytes(moved.into_bytes())),
        ("no JSON", Answer::of("200 OK", "<html>")),
        ("no set", Answer::of("200 OK", "[]")),
        ("no keys", Answer::of("200 OK", "{\"keys\": []}")),
        ("too many keys", Answer::of("200 OK", &set(&many.iter().collect::<Vec<_>>()))),
        ("too large", Answer::of("200 OK", &large)),
        ("without an end", Answer::Bytes(endless.into_bytes())),
        ("cut off", Answer::Bytes(cut.into_bytes())),
        ("no HTTP", Answer::Bytes(b"SSH-2.0\r\n".to_vec())),
        ("a large head", Answer::Bytes([b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 1 << 20]].concat())),
        ("nothing", Answer::Bytes(Vec::new())),
    ];
    for (count, (name, answer)) in wrong.into_iter().enumerate() {
        source.set(answer);
        let before = source.fetches();
        gateway.signal("HUP");
        let failed = || async { (fetches(&gateway, "failed").await == (count + 1) as f64).then_some(()) };
        eventually(failed).await;
        assert_eq!(source.fetches(), before + 1, "{name}");
        assert_eq!(status(&gateway, &key.token("alice")).await, 101, "{name}");
    }
    assert_eq!(gateway.log().matches("the old keys stay").count(), 1, "{}", gateway.log());
    source.set(Answer::keys(&[&key]));
    gateway.signal("HUP");
    gateway.wait_for_log(|l| l.contains("is fetched again")).await;
}

#[tokio::test]
async fn a_source_that_hangs_is_given_up() {
    let key = SigningKey::new("one");
    let source = Source::start(Answer::Later).await;
    let gateway = start(&source, "message_timeout = \"4s\"").await;
    let mut visitor = gateway.open("/ws").await;
    visitor.json(json!({"type": "auth", "payload": {"token": key.token("bob")}})).await;
    assert_eq!(status(&gateway, &key.token("alice")).await, 503);
    visitor.closes_with(4000).await;
    gateway.wait_for_log(|l| l.contains("cannot be fetched") && l.contains("within 5 s")).await;
}

#[tokio::test]
async fn over_tls_the_source_must_be_whom_the_system_trusts() {
    let key = SigningKey::new("one");
    let authority = Authority::new("public");
    let source = Source::start_tls(Answer::keys(&[&key]), &authority).await;
    let config = config(&format!("https://localhost:{}/jwks.json", source.port), "");
    for (trusted, wanted) in [(authority.pem(), 101), (Authority::new("another").pem(), 503)] {
        let setup = Setup::new().file("roots.pem", trusted).environment("SSL_CERT_FILE", "roots.pem");
        let gateway = setup.environment("SSL_CERT_DIR", "").start(&config).await;
        assert_eq!(status(&gateway, &key.token("alice")).await, wanted);
        assert_eq!(source.fetches(), 1);
    }
}

/// The name in a certificate counts.
#[tokio::test]
async fn another_name_s_certificate_is_not_believed() {
    let key = SigningKey::new("one");
    let authority = Authority::new("public");
    let source = Source::start_tls(Answer::keys(&[&key]), &authority).await;
    let setup = Setup::new().file("roots.pem", authority.pem()).environment("SSL_CERT_FILE", "roots.pem");
    let config = config(&format!("https://127.0.0.1:{}/jwks.json", source.port), "");
    let gateway = setup.environment("SSL_CERT_DIR", "").start(&config).await;
    assert_eq!(status(&gateway, &key.token("alice")).await, 503);
    assert_eq!(source.fetches(), 0);
}

#[tokio::test]
async fn a_token_in_a_message_waits_for_its_key_too() {
    let (old, new) = (SigningKey::new("old"), SigningKey::new("new"));
    let source = Source::start(Answer::keys(&[&old])).await;
    let gateway = start(&source, "").await;
    let mut member = gateway.open_as("/ws", &old.token("alice")).await;
    member.expect("connection_established").await;
    let mut visitor = gateway.open("/ws").await;
    source.set(Answer::Later);
    let auth = |token: &str| json!({"type": "auth", "payload": {"token": token}});
    visitor.json(auth(&new.token("bob"))).await;
    source.fetched(2).await;
    // What comes behind it waits with it.
    member.json(auth(&new.token("alice"))).await;
    member.json(json!({"type": "ping", "payload": {}})).await;
    visitor.json(json!({"type": "ping", "payload": {}})).await;
    source.set(Answer::keys(&[&old, &new]));
    for (client, name) in [(&mut member, "alice"), (&mut visitor, "bob")] {
        let answer = client.expect("auth_response").await;
        assert_eq!(answer["payload"]["client_id"], name);
        if name == "bob" {
            client.expect("connection_established").await;
        }
        client.expect("pong").await;
    }
    let stranger = SigningKey::new("stranger");
    member.refused("auth", json!({"token": stranger.token("alice")}), 4002).await;
    assert_eq!(source.fetches(), 2);
}

/// `check` and `token` ask nobody.
#[tokio::test]
async fn check_does_not_fetch() {
    let source = Source::start(Answer::keys(&[])).await;
    let folder = Folder::new();
    folder.write("gateway.toml", config(&format!("http://localhost:{}/", source.port), ""));
    let check = gateway::wsgate(&folder, &["check", "--config", "gateway.toml"]);
    assert!(check.status.success(), "{check:?}");
    assert!(String::from_utf8_lossy(&check.stdout).contains("good") && check.stderr.is_empty(), "{check:?}");
    let token = gateway::wsgate(&folder, &["token", "--config", "gateway.toml", "--client", "alice"]);
    assert!(!token.status.success() && String::from_utf8_lossy(&token.stderr).contains("cannot sign"), "{token:?}");
    assert_eq!(source.fetches(), 0);
}
