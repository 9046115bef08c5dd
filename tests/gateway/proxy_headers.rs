//! What a backend is told of the client, and that no client can forge it.
use crate::support::backend::{Recorder, switch};
use crate::support::token::good;
use crate::support::*;

/// The head that the backend received for an upgrade with these headers, in lines.
async fn seen_by_the_backend(config: &str, path: &str, headers: &[(&str, &str)]) -> Vec<String> {
    let backend = Recorder::start(switch).await;
    let gateway = Gateway::start(&format!("{config}{}", proxy(&[backend.port]))).await;
    gateway.open_with(path, headers).await;
    let received = backend.received();
    assert_eq!(received.len(), 1, "{received:?}");
    let head = received[0].split("\r\n\r\n").next().unwrap();
    head.lines().map(str::to_owned).collect()
}

/// All values of a header.
fn values(head: &[String], name: &str) -> Vec<String> {
    let pairs = head.iter().skip(1).map(|l| l.split_once(':').unwrap());
    pairs.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned()).collect()
}

fn with_tokens() -> String {
    format!("{PLAIN}{SECRET_AUTH}")
}

#[tokio::test]
async fn the_client_is_described() {
    let bearer = format!("Bearer {}", good("alice"));
    let head =
        seen_by_the_backend(&with_tokens(), "/live/x?a=b", &[("Authorization", &bearer), ("X-Own", "kept")]).await;
    assert_eq!(head[0], "GET /live/x?a=b HTTP/1.1");
    assert_eq!(values(&head, "x-real-ip"), ["127.0.0.1"]);
    assert_eq!(values(&head, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&head, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&head, "x-forwarded-host"), ["localhost"]);
    assert_eq!(values(&head, "x-client-id"), ["alice"]);
    assert_eq!(values(&head, "host"), ["localhost"]);
    assert_eq!(values(&head, "x-own"), ["kept"]);
    assert_eq!(values(&head, "upgrade").concat().to_ascii_lowercase(), "websocket");
    assert_eq!(values(&head, "sec-websocket-version"), ["13"]);
    assert_eq!(values(&head, "sec-websocket-key").len(), 1);
}

#[tokio::test]
async fn forged_descriptions_are_replaced() {
    let bearer = format!("Bearer {}", good("alice"));
    let forged = [
        ("Authorization", bearer.as_str()),
        ("X-Real-IP", "203.0.113.9"),
        ("X-Forwarded-For", "203.0.113.9"),
        ("x-forwarded-for", "203.0.113.10"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.test"),
        ("X-Client-Id", "root"),
        ("x-client-id", "admin"),
        ("X_Client_Id", "underscored"),
        ("Forwarded", "for=203.0.113.9"),
    ];
    let head = seen_by_the_backend(&with_tokens(), "/live/x", &forged).await;
    assert_eq!(values(&head, "x-real-ip"), ["127.0.0.1"]);
    assert_eq!(values(&head, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&head, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&head, "x-forwarded-host"), ["localhost"]);
    assert_eq!(values(&head, "x-client-id"), ["alice"]);
    let all = head.join("\n");
    assert!(!all.contains("203.0.113.") && !all.contains("evil.test"), "{all}");
}

#[tokio::test]
async fn a_client_without_a_token_cannot_name_itself() {
    let config = format!("{PLAIN}{OPEN}");
    let head = seen_by_the_backend(&config, "/live/x", &[("X-Client-Id", "root")]).await;
    let named = values(&head, "x-client-id");
    assert!(named.iter().all(|n| n.starts_with("anon-")), "{named:?}");
}

#[tokio::test]
async fn a_header_named_in_connection_does_not_take_a_description_away() {
    let bearer = format!("Bearer {}", good("alice"));
    let backend = Recorder::start(switch).await;
    let gateway = Gateway::start(&format!("{}{}", with_tokens(), proxy(&[backend.port]))).await;
    let mut raw = gateway.raw().await;
    let mut lines = raw::upgrade_lines("/live/x");
    lines[3] = "Connection: Upgrade, X-Client-Id, X-Real-IP, X-Forwarded-For, X-Hop".to_owned();
    lines.push(format!("Authorization: {bearer}"));
    lines.push("X-Hop: 1".to_owned());
    lines.push("Keep-Alive: timeout=5".to_owned());
    lines.push("Proxy-Authorization: Basic eA==".to_owned());
    lines.push("TE: trailers".to_owned());
    raw.send(raw::head_of(&lines)).await;
    assert_eq!(raw.read_head().await.status, 101);
    let received = backend.received();
    let head: Vec<String> = received[0].split("\r\n\r\n").next().unwrap().lines().map(str::to_owned).collect();
    assert_eq!(values(&head, "x-client-id"), ["alice"]);
    assert_eq!(values(&head, "x-real-ip"), ["127.0.0.1"]);
    for hop in ["x-hop", "keep-alive", "proxy-authorization", "te"] {
        assert_eq!(values(&head, hop), Vec::<String>::new(), "{hop} belongs to one connection");
    }
}

#[tokio::test]
async fn a_trusted_proxy_is_believed() {
    let config = listener("127.0.0.1:0", "trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]") + OPEN;
    let told = [
        ("X-Forwarded-For", "198.51.100.7, 203.0.113.9, 10.1.2.3"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "app.test"),
    ];
    let head = seen_by_the_backend(&config, "/live/x", &told).await;
    assert_eq!(values(&head, "x-real-ip"), ["203.0.113.9"], "the last that no trusted proxy is");
    let path = values(&head, "x-forwarded-for").join(", ");
    assert!(path.contains("203.0.113.9") && path.ends_with("127.0.0.1"), "{path}");
    assert_eq!(values(&head, "x-forwarded-proto"), ["https"]);
    assert_eq!(values(&head, "x-forwarded-host"), ["app.test"]);
}

#[tokio::test]
async fn another_proxy_is_not() {
    let config = listener("127.0.0.1:0", "trusted_proxies = [\"10.0.0.0/8\"]") + OPEN;
    let head = seen_by_the_backend(&config, "/live/x", &[("X-Forwarded-For", "203.0.113.9")]).await;
    assert_eq!(values(&head, "x-real-ip"), ["127.0.0.1"]);
    assert_eq!(values(&head, "x-forwarded-for"), ["127.0.0.1"]);
}

/// Behind a trusted proxy the limits count the real client's address.
#[tokio::test]
async fn limits_of_an_address_are_the_real_client_s() {
    let listener = listener("127.0.0.1:0", "trusted_proxies = [\"127.0.0.0/8\"]");
    let gateway = Gateway::start(&format!("{listener}{OPEN}{ECHO}[limits]\nconnections_per_ip = 1\n")).await;
    let _one = gateway.open_with("/echo", &[("X-Forwarded-For", "203.0.113.9")]).await;
    let _other = gateway.open_with("/echo", &[("X-Forwarded-For", "203.0.113.10")]).await;
    let mut raw = gateway.raw().await;
    raw.send(raw::upgrade_head("/echo", &["X-Forwarded-For: 203.0.113.9"])).await;
    assert_eq!(raw.read_head().await.status, 429);
}

#[tokio::test]
async fn over_tls_the_scheme_is_https() {
    let backend = Recorder::start(switch).await;
    let gateway = Gateway::start(&format!("{TLS}{OPEN}{}", proxy(&[backend.port]))).await;
    Client::open(gateway.tls(0).await, "/live/x", &[]).await;
    assert!(
        backend.received()[0].to_ascii_lowercase().contains("x-forwarded-proto: https\r\n"),
        "{:?}",
        backend.received()
    );
}

#[tokio::test]
async fn a_token_of_the_query_or_the_subprotocols_never_reaches_the_backend() {
    let token = good("alice");
    for (path, wanted) in [
        (format!("/live/x?token={token}"), "GET /live/x HTTP/1.1"),
        (format!("/live/x?a=1&token={token}&b=2"), "GET /live/x?a=1&b=2 HTTP/1.1"),
        (format!("/live/x?token={token}&b=2"), "GET /live/x?b=2 HTTP/1.1"),
        (format!("/live/x?b=%20&token={token}"), "GET /live/x?b=%20 HTTP/1.1"),
        (format!("/live/x?token={token}&token=again&a"), "GET /live/x?a HTTP/1.1"),
    ] {
        let head = seen_by_the_backend(&with_tokens(), &path, &[]).await;
        assert_eq!(head[0], wanted);
        assert!(!head.join("\n").contains(&token), "{head:?}");
    }
    for (offered, wanted) in [
        (format!("bearer, {token}"), vec![]),
        (format!("bearer, {token}, chat.v2, chat.v1"), vec!["chat.v2", "chat.v1"]),
        (format!("chat.v2, bearer, {token}"), vec!["chat.v2"]),
    ] {
        let head = seen_by_the_backend(&with_tokens(), "/live/x", &[("Sec-WebSocket-Protocol", &offered)]).await;
        let names = values(&head, "sec-websocket-protocol").join(", ");
        let names: Vec<&str> = names.split(", ").filter(|n| !n.is_empty()).collect();
        assert_eq!(names, wanted);
        assert!(!head.join("\n").contains(&token), "{head:?}");
    }
}

#[tokio::test]
async fn a_client_s_name_is_percent_encoded_in_a_header() {
    let bearer = format!("Bearer {}", good("gr\u{fc}n & co"));
    let head = seen_by_the_backend(&with_tokens(), "/live/x", &[("Authorization", &bearer)]).await;
    let name = values(&head, "x-client-id").concat();
    assert!(name.starts_with("gr%C3%BCn%20"), "{name}");
}

#[tokio::test]
async fn the_host_can_be_the_backend_s_own() {
    let backend = Recorder::start(switch).await;
    let config = format!("{PLAIN}{OPEN}{}preserve_host = false\n", proxy(&[backend.port]));
    let gateway = Gateway::start(&config).await;
    gateway.open("/live/x").await;
    let received = backend.received();
    let head: Vec<String> = received[0].split("\r\n\r\n").next().unwrap().lines().map(str::to_owned).collect();
    assert_eq!(values(&head, "host"), [format!("127.0.0.1:{}", backend.port)]);
    assert_eq!(values(&head, "x-forwarded-host"), ["localhost"]);
}

/// A proxy that knows only `X-Forwarded-For` passes on what the client wrote into `Forwarded`.
#[tokio::test]
async fn a_forwarded_that_the_client_wrote_does_not_count_beside_x_forwarded_for() {
    let config = listener("127.0.0.1:0", "trusted_proxies = [\"127.0.0.0/8\"]") + OPEN;
    let told = [("Forwarded", "for=198.51.100.1;proto=https;host=forged.test"), ("X-Forwarded-For", "203.0.113.9")];
    let head = seen_by_the_backend(&config, "/live/x", &told).await;
    assert_eq!(values(&head, "x-real-ip"), ["203.0.113.9"]);
    assert_eq!(values(&head, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&head, "x-forwarded-host"), ["localhost"]);
}

/// Its own connections, as for its health checks, name no client.
#[tokio::test]
async fn the_trusted_proxy_itself_is_exempt_from_the_limits_of_an_address() {
    let listener = listener("127.0.0.1:0", "trusted_proxies = [\"127.0.0.0/8\"]");
    let limits = "[limits]\nconnections_per_ip = 1\nhandshakes_per_second = 1\n";
    let gateway = Gateway::start(&format!("{listener}{OPEN}{ECHO}{limits}")).await;
    let mut all = Vec::new();
    for _ in 0..10 {
        all.push(gateway.open("/echo").await);
    }
    for client in &mut all {
        client.text("still here").await;
        assert_eq!(client.next_text().await, "still here");
    }
}
