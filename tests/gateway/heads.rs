//! Request heads that are wrong, unusual or slow.
use crate::support::raw::{ACCEPT, head_of, upgrade_head, upgrade_lines};
use crate::support::*;

/// A good upgrade with one line replaced (or left out).
fn with(name: &str, replacement: Option<&str>) -> String {
    let mut lines = upgrade_lines("/echo");
    let place = lines.iter().position(|l| l.starts_with(name)).unwrap();
    match replacement {
        Some(line) => lines[place] = line.to_owned(),
        None => {
            lines.remove(place);
        }
    }
    head_of(&lines)
}

/// Sends one head on a connection of its own and gives the answer; `None` where there is none.
async fn answer(gateway: &Gateway, head: &str) -> Option<raw::Head> {
    let mut raw = gateway.raw().await;
    raw.send(head).await;
    raw.try_read_head().await
}

#[tokio::test]
async fn malformed_heads_are_refused() {
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{ECHO}")).await;
    let key = "Sec-WebSocket-Key";
    let version = "Sec-WebSocket-Version";
    let table = [
        ("no Host", with("Host", None), 400),
        ("no key", with(key, None), 400),
        ("a short key", with(key, Some("Sec-WebSocket-Key: dGhl")), 400),
        ("a key of 17 bytes", with(key, Some("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQA=")), 400),
        ("a key that is no base64", with(key, Some("Sec-WebSocket-Key: !!!!IHNhbXBsZSBub25jZQ==")), 400),
        ("two keys", upgrade_head("/echo", &["Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw=="]), 400),
        ("two Hosts", upgrade_head("/echo", &["Host: other.test"]), 400),
        ("a Host with a space", with("Host", Some("Host: a b")), 400),
        ("a Host with a path", with("Host", Some("Host: a.test/b")), 400),
        ("a Host with a user", with("Host", Some("Host: a@b.test")), 400),
        ("an empty Host", with("Host", Some("Host:")), 400),
        ("a user in the target", with("GET", Some("GET http://a@b.test/echo HTTP/1.1")), 400),
        ("HTTP/1.0", with("GET", Some("GET /echo HTTP/1.0")), 400),
        ("a POST", with("GET", Some("POST /echo HTTP/1.1")), 405),
        ("no version", with(version, None), 426),
        ("version 12", with(version, Some("Sec-WebSocket-Version: 12")), 426),
        ("version 8", with(version, Some("Sec-WebSocket-Version: 8")), 426),
        ("no Upgrade", with("Upgrade", None), 426),
        ("no Connection", with("Connection", None), 400),
        ("another protocol", with("Upgrade", Some("Upgrade: h2c")), 426),
        ("no route", with("GET", Some("GET /nowhere HTTP/1.1")), 404),
        ("a longer path", with("GET", Some("GET /echo/more HTTP/1.1")), 404),
        ("a space before the colon", with("Upgrade", Some("Upgrade : websocket")), 400),
        ("a folded header", upgrade_head("/echo", &["X-Long: a\r\n  b"]), 400),
        ("a control in a header", upgrade_head("/echo", &["X-Odd: a\u{1}b"]), 400),
        ("a line without a colon", upgrade_head("/echo", &["nonsense"]), 400),
    ];
    for (name, head, status) in table {
        let answer = answer(&gateway, &head).await.unwrap_or_else(|| panic!("{name}: no answer"));
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        if status == 426 {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{name}: {answer:?}");
            assert_eq!(answer.header("upgrade"), Some("websocket"), "{name}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_head_that_never_becomes_one_is_refused_or_closed() {
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{ECHO}")).await;
    let endless_header = format!("GET /echo HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(4 << 20));
    let endless_path = format!("GET /{} HTTP/1.1\r\n", "x".repeat(4 << 20));
    let many_headers = format!("GET /echo HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100_000));
    for (name, bytes) in [
        ("an endless header", endless_header.as_bytes()),
        ("an endless path", endless_path.as_bytes()),
        ("100,000 headers", many_headers.as_bytes()),
        ("zeros", &[0; 1000]),
        ("TLS on a plain port", &[0x16, 3, 1, 0x02, 0, 1, 0, 1, 0xfc, 3, 3, b'\r', b'\n', b'\r', b'\n']),
    ] {
        let mut raw = gateway.raw().await;
        raw.try_send(bytes).await;
        if let Some(head) = raw.try_read_head().await {
            assert!((400..500).contains(&head.status), "{name}: {head:?}");
        }
    }
    let mut client = gateway.open("/echo").await;
    client.text("unharmed").await;
    assert_eq!(client.next_text().await, "unharmed");
}

#[tokio::test]
async fn unusual_but_right_heads_are_served() {
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{ECHO}")).await;
    let lower = upgrade_lines("/echo").join("\r\n").replace("Sec-WebSocket-", "sec-websocket-");
    let lower = lower.replace("Host", "host").replace("Upgrade:", "upgrade:").replace("Connection:", "connection:");
    let table = [
        ("lower-case names", lower + "\r\n\r\n"),
        ("upper-case values", with("Upgrade", Some("Upgrade: WebSocket"))),
        ("several connection options", with("Connection", Some("Connection: keep-alive, Upgrade"))),
        ("connection options on two lines", with("Connection", Some("Connection: keep-alive\r\nConnection: upgrade"))),
        ("a query", with("GET", Some("GET /echo?a=b HTTP/1.1"))),
        ("a port in Host", with("Host", Some("Host: localhost:8443"))),
        ("an absolute target", with("GET", Some("GET http://localhost/echo HTTP/1.1"))),
        ("a Content-Length of 0", upgrade_head("/echo", &["Content-Length: 0"])),
        ("spaces around values", with("Upgrade", Some("Upgrade:   websocket  "))),
    ];
    for (name, head) in table {
        let answer = answer(&gateway, &head).await.unwrap_or_else(|| panic!("{name}: no answer"));
        assert_eq!(answer.status, 101, "{name}: {answer:?}");
        assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT), "{name}");
        assert!(answer.header("upgrade").is_some_and(|v| v.eq_ignore_ascii_case("websocket")), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn a_head_in_single_bytes_is_served() {
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{ECHO}")).await;
    let mut raw = gateway.raw().await;
    for byte in upgrade_head("/echo", &[]).as_bytes() {
        raw.send([*byte]).await;
    }
    assert_eq!(raw.read_head().await.status, 101);
    raw.send(raw::frame(0x81, b"slowly")).await;
    assert_eq!(raw.read_frame().await.payload, b"slowly");
}

#[tokio::test]
async fn a_slow_head_is_closed_in_time() {
    let config = listener("127.0.0.1:0", "header_timeout = \"300ms\"") + OPEN + ECHO;
    let gateway = Gateway::start(&config).await;
    let mut silent = gateway.raw().await;
    let mut half = gateway.raw().await;
    half.send("GET /echo HTTP/1.1\r\nHost: loc").await;
    let mut open = gateway.open("/echo").await;
    for raw in [&mut silent, &mut half] {
        if let Some(head) = raw.try_read_head().await {
            assert_eq!(head.status, 408, "{head:?}");
        }
    }
    open.text("the deadline is the head's, not the socket's").await;
    open.next_text().await;
}

#[tokio::test]
async fn an_ordinary_request_to_a_websocket_route_is_told_to_upgrade() {
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{ECHO}{ROOMS}")).await;
    for path in ["/echo", "/ws"] {
        let head = answer(&gateway, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await.unwrap();
        assert_eq!(head.status, 426, "{head:?}");
        assert_eq!(head.header("upgrade"), Some("websocket"));
    }
}

#[tokio::test]
async fn refusals_have_a_json_body() {
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{ECHO}")).await;
    let mut raw = gateway.raw().await;
    raw.send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let head = raw.read_head().await;
    let body: serde_json::Value = serde_json::from_slice(&raw.read_body(&head).await).unwrap();
    assert!(body["error"]["message"].is_string(), "{body}");
    assert!(head.header("content-type").is_some_and(|v| v.starts_with("application/json")), "{head:?}");
}
