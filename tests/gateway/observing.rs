//! Health, metrics and the line that every ended session leaves in the log.
use crate::support::raw::upgrade_head;
use crate::support::token::good;
use crate::support::*;
use serde_json::Value;
use std::collections::HashSet;

/// The sum of all series of this name that carry these labels.
fn sum(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let series = metrics.lines().filter(|l| !l.starts_with('#') && l.starts_with(name));
    let series = series.filter(|l| labels.iter().all(|label| l.contains(label)));
    series.map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test]
async fn health_is_answered() {
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{ECHO}{ADMIN}")).await;
    assert_eq!(gateway.admin_get("/healthz").await.0, 200);
    assert_eq!(gateway.admin_get("/readyz").await.0, 200);
    assert_eq!(gateway.admin_get("/nowhere").await.0, 404);
}

#[tokio::test]
async fn the_admin_interface_is_not_on_the_public_listener() {
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{ECHO}{ADMIN}")).await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        let mut raw = gateway.raw().await;
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert_eq!(raw.read_head().await.status, 404, "{path}");
    }
}

/// Otherwise any page could read it by a name that resolves to this address.
#[tokio::test]
async fn the_admin_interface_wants_its_own_name_as_host() {
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{ECHO}{ADMIN}")).await;
    for (host, origin, allowed) in [
        (gateway.admin().to_owned(), None, true),
        (format!("localhost:{}", gateway.admin().rsplit(':').next().unwrap()), None, true),
        ("evil.test".to_owned(), None, false),
        (gateway.admin().to_owned(), Some("https://evil.test"), false),
    ] {
        let mut raw = RawWs::over(within(tokio::net::TcpStream::connect(gateway.admin())).await.unwrap());
        let origin_line = origin.map(|o| format!("Origin: {o}\r\n")).unwrap_or_default();
        raw.send(format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n{origin_line}Connection: close\r\n\r\n")).await;
        let status = raw.read_head().await.status;
        assert_eq!(status == 200, allowed, "Host {host}, Origin {origin:?}: {status}");
    }
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let config = format!("{PLAIN}{SECRET_AUTH}{ECHO}{ROOMS}{ADMIN}[limits]\nmax_message_size = \"1KiB\"\n");
    let gateway = Gateway::start(&config).await;
    let mut held = gateway.open_as("/echo", &good("alice")).await;
    let mut client = gateway.open_as("/echo", &good("alice")).await;
    for _ in 0..5 {
        client.text("0123456789").await;
        client.next_text().await;
    }
    client.close(1000, "").await;
    gateway.open("/echo").await.closes_with(4001).await;
    let mut large = gateway.open_as("/echo", &good("bob")).await;
    large.text(&"x".repeat(2000)).await;
    large.closes_with(4005).await;
    held.text("x").await;
    held.next_text().await;
    let metrics = eventually(|| async {
        let (status, metrics) = gateway.admin_get("/metrics").await;
        assert_eq!(status, 200);
        (sum(&metrics, "wsgate_", &["close", "too_large"]) + sum(&metrics, "wsgate_closes", &["too_large"]) >= 1.0)
            .then_some(metrics)
    })
    .await;
    let names: HashSet<&str> = metrics.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for wanted in ["connections", "handshakes", "refus", "close", "messages", "bytes"] {
        assert!(names.iter().any(|n| n.contains(wanted)), "nothing is counted as {wanted}: {names:?}");
    }
    let (_, first) = metrics.split_once("messages").unwrap();
    assert!(first.contains("echo"), "messages are not counted by service: {metrics}");
    assert!(!metrics.contains("alice") && !metrics.contains("127.0.0.1"), "labels are from fixed sets only: {metrics}");
}

#[tokio::test]
async fn every_ended_session_leaves_one_line() {
    let gateway = Gateway::start(&format!("{PLAIN}{SECRET_AUTH}{ECHO}")).await;
    let mut client = gateway.open_as("/echo", &good("alice-in-text")).await;
    for _ in 0..3 {
        client.text("12345").await;
        client.next_text().await;
    }
    client.close(4321, "for a reason").await;
    let line = gateway.wait_for_log(|l| l.contains("alice-in-text") && l.contains("4321")).await;
    for part in ["/echo", "127.0.0.1", "client", "3", "15", "for a reason"] {
        assert!(line.contains(part), "{part} is missing: {line}");
    }
    let again = gateway.log().lines().filter(|l| l.contains("alice-in-text") && l.contains("4321")).count();
    assert_eq!(again, 1, "{}", gateway.log());
}

#[tokio::test]
async fn in_json_too() {
    let config =
        format!("[server]\nlog_format = \"json\"\n{PLAIN}{SECRET_AUTH}{ECHO}[limits]\nmax_message_size = 10\n");
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.open_as("/echo", &good("alice-in-json")).await;
    client.text("12345678901").await;
    client.closes_with(4005).await;
    let line = gateway.wait_for_log(|l| l.contains("alice-in-json") && l.contains("4005")).await;
    let json: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let text = json.to_string();
    assert!(text.contains("\"/echo\"") && text.contains("gateway") && text.contains("127.0.0.1"), "{line}");
    for line in gateway.log().lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "no JSON: {line}");
    }
}

#[tokio::test]
async fn a_client_cannot_write_lines_of_the_log() {
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{ECHO}")).await;
    let mut client = gateway.open("/echo").await;
    client.close(4000, "one\nFORGED two\r\nFORGED\u{1b}[31m three").await;
    gateway.wait_for_log(|l| l.contains("4000")).await;
    let mut raw = gateway.raw().await;
    raw.try_send("GET /a%0aFORGED HTTP/1.1\r\nHost: localhost\r\nUser-Agent: x\r\n\r\n").await;
    raw.try_read_head().await;
    assert!(!gateway.log().lines().any(|l| l.starts_with("FORGED")), "{}", gateway.log());
}

/// A connection that was refused and is kept by its client ends with no second outcome.
#[tokio::test]
async fn a_connection_has_one_outcome() {
    let backend = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = proxy(&[backend.local_addr().unwrap().port()]);
    let listener = listener("127.0.0.1:0", "header_timeout = \"300ms\"");
    let gateway = Gateway::start(&format!("{listener}{OPEN}{ADMIN}{proxy}")).await;
    let mut refused = gateway.raw().await;
    refused.send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let head = refused.read_head().await;
    refused.read_body(&head).await;
    assert!(refused.try_read_head().await.is_none());
    drop(gateway.raw().await);
    let mut half = gateway.raw().await;
    half.send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n").await;
    drop(half);
    let mut unanswered = gateway.raw().await;
    unanswered.send(upgrade_head("/live/x", &[])).await;
    let _silent = within(backend.accept()).await.unwrap();
    drop(unanswered);
    let handshakes =
        |metrics: &str, outcome: &str| sum(metrics, "wsgate_handshakes_total", &[&format!("\"{outcome}\"")]);
    // A connection is counted before it is gone.
    let metrics = eventually(|| async {
        let metrics = gateway.admin_get("/metrics").await.1;
        let connections = sum(&metrics, "wsgate_connections", &[]);
        (handshakes(&metrics, "disconnected") == 3.0 && connections == 0.0).then_some(metrics)
    })
    .await;
    assert_eq!(handshakes(&metrics, "refused"), 1.0);
    assert_eq!(handshakes(&metrics, "head_timeout"), 0.0);
}
