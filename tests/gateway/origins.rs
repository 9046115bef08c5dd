//! The Origin header: what passes, what does not, and how a refusal looks.
use crate::support::raw::upgrade_head;
use crate::support::*;

const RULES: &str = r#"
[origins]
allow = ["https://app.example.com", "https://*.example.org", "http://localhost:3000"]
"#;

fn config(on_reject: &str, rules: &str) -> String {
    format!("{PLAIN}{ECHO}{rules}{OPEN}on_reject = \"{on_reject}\"\n")
}

async fn status(gateway: &Gateway, headers: &[&str]) -> u16 {
    let mut raw = gateway.raw().await;
    raw.send(upgrade_head("/echo", headers)).await;
    raw.read_head().await.status
}

#[tokio::test]
async fn allowed_origins_pass() {
    let gateway = Gateway::start(&config("http", RULES)).await;
    for origin in
        ["https://app.example.com", "https://a.example.org", "https://a.b.example.org", "http://localhost:3000"]
    {
        assert_eq!(status(&gateway, &[&format!("Origin: {origin}")]).await, 101, "{origin}");
    }
    assert_eq!(status(&gateway, &[]).await, 101, "no Origin (missing = \"allow\" is the default)");
}

#[tokio::test]
async fn look_alikes_are_refused() {
    let gateway = Gateway::start(&config("http", RULES)).await;
    for origin in [
        "null",
        "https://app.example.com.evil.test",
        "https://evilapp.example.com",
        "https://app.example.com:8443",
        "http://app.example.com",
        "wss://app.example.com",
        "https://app.example.com@evil.test",
        "https://evil.test/https://app.example.com",
        "https://app-example.com",
        "https://sub.app.example.com",
        "https://example.org",
        "https://evilexample.org",
        "https://a.example.org.evil.test",
        "http://a.example.org",
        "https://a.example.org:444",
        "https://.example.org",
        "http://localhost",
        "http://localhost:3001",
        "https://localhost:3000",
        "app.example.com",
        "https://*.example.org",
        "*",
        "https://app.example.com https://evil.test",
    ] {
        assert_eq!(status(&gateway, &[&format!("Origin: {origin}")]).await, 403, "{origin}");
    }
    let two = ["Origin: https://app.example.com", "Origin: https://evil.test"];
    let refused = status(&gateway, &two).await;
    assert!(matches!(refused, 400 | 403), "two Origins: {refused}");
}

#[tokio::test]
async fn a_refusal_by_status_says_4003_in_its_body() {
    let gateway = Gateway::start(&config("http", RULES)).await;
    let mut raw = gateway.raw().await;
    raw.send(upgrade_head("/echo", &["Origin: https://evil.test"])).await;
    let head = raw.read_head().await;
    assert_eq!(head.status, 403);
    let body: serde_json::Value = serde_json::from_slice(&raw.read_body(&head).await).unwrap();
    assert_eq!(body["error"]["code"], 4003, "{body}");
}

#[tokio::test]
async fn a_refusal_by_close_code_is_readable_by_a_browser() {
    let gateway = Gateway::start(&config("close", RULES)).await;
    let mut client = gateway.open_with("/echo", &[("Origin", "https://evil.test")]).await;
    client.closes_with(4003).await;
    let offered = [("Origin", "https://evil.test"), ("Sec-WebSocket-Protocol", "chat.v2, chat.v1")];
    let mut client = gateway.open_with("/echo", &offered).await;
    assert_eq!(client.protocol(), Some("chat.v2"), "the first that was offered");
    client.closes_with(4003).await;
    let offered = [("Origin", "https://evil.test"), ("Sec-WebSocket-Protocol", "bearer, a.b.c")];
    let mut client = gateway.open_with("/echo", &offered).await;
    assert_eq!(client.protocol(), Some("bearer"), "never the token");
    client.closes_with(4003).await;
}

#[tokio::test]
async fn data_of_a_refused_socket_is_thrown_away_and_does_not_lose_the_code() {
    let gateway = Gateway::start(&config("close", RULES)).await;
    let mut raw = gateway.raw().await;
    raw.upgrade("/echo", &["Origin: https://evil.test"]).await;
    raw.try_send(raw::frame(0x82, &[7; 60_000])).await;
    raw.expect_close(4003).await;
}

#[tokio::test]
async fn any_origin_passes_a_star() {
    let gateway = Gateway::start(&config("http", "[origins]\nallow = [\"*\"]\n")).await;
    for origin in ["https://anything.test", "null", "http://127.0.0.1:1"] {
        assert_eq!(status(&gateway, &[&format!("Origin: {origin}")]).await, 101, "{origin}");
    }
}

#[tokio::test]
async fn missing_origins_can_be_denied() {
    let gateway = Gateway::start(&config("http", &format!("{RULES}missing = \"deny\"\n"))).await;
    assert_eq!(status(&gateway, &[]).await, 403);
    assert_eq!(status(&gateway, &["Origin: https://app.example.com"]).await, 101);
}

#[tokio::test]
async fn no_rules_allow_no_origin() {
    let gateway = Gateway::start(&config("http", "")).await;
    assert_eq!(status(&gateway, &["Origin: http://localhost"]).await, 403);
    assert_eq!(status(&gateway, &[]).await, 101);
}

#[tokio::test]
async fn a_route_may_have_rules_of_its_own() {
    let route = "[[route]]\npath = \"/open\"\nservice = \"echo\"\norigins = { allow = [\"https://other.test\"] }\n";
    let gateway = Gateway::start(&(config("http", RULES) + route)).await;
    let mut raw = gateway.raw().await;
    raw.send(upgrade_head("/open", &["Origin: https://other.test"])).await;
    assert_eq!(raw.read_head().await.status, 101);
    assert_eq!(status(&gateway, &["Origin: https://other.test"]).await, 403);
}
