#![allow(clippy::unwrap_used)]
use super::*;

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let line = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    let mut headers = HeaderMap::new();
    for (name, value) in lines.iter().map(line) {
        headers.append(name, value);
    }
    headers
}

fn lines(headers: &HeaderMap) -> Vec<(&str, &str)> {
    let mut lines: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    lines.sort_unstable();
    lines
}

fn forward(headers: &HeaderMap) -> Forward<'_> {
    Forward {
        headers,
        path_and_query: "/",
        protocols: None,
        client_ip: Some("203.0.113.7".parse().unwrap()),
        version: Version::HTTP_11,
        forwarded_for: None,
        forwarded: None,
        peer_ip: Some("::ffff:10.0.0.1".parse().unwrap()),
        proto: "https",
        host: "chat.example",
        client_id: None,
        proxied: None,
    }
}

fn told(forward: &Forward<'_>, host: HeaderValue) -> HeaderMap {
    for_backend(forward, host, &HeaderRules::default())
}

/// What a backend is told where the client says nothing.
const TOLD: [(&str, &str); 7] = [
    ("forwarded", "for=10.0.0.1;proto=https;host=\"chat.example\""),
    ("host", "backend:9000"),
    ("via", "1.1 wsgate"),
    ("x-forwarded-for", "10.0.0.1"),
    ("x-forwarded-host", "chat.example"),
    ("x-forwarded-proto", "https"),
    ("x-real-ip", "203.0.113.7"),
];

#[test]
fn a_client_cannot_say_what_only_the_gateway_may() {
    for (name, value) in [
        ("X-Real-IP", "1.2.3.4"),
        ("X_Real_IP", "1.2.3.4"),
        ("X-Forwarded-For", "1.2.3.4"),
        ("X-Forwarded_For", "1.2.3.4"),
        ("X-Forwarded-Proto", "ftp"),
        ("X-Forwarded-Host", "evil"),
        ("X-Forwarded-Port", "1"),
        ("X-Forwarded", "for=evil"),
        ("Forwarded", "for=evil"),
        ("X-Client-Id", "root"),
        ("x_client_id", "root"),
        ("Host", "evil"),
        ("Connection", "Upgrade"),
        ("Connection", "x-real-ip, host, x-forwarded-for"),
        ("Keep-Alive", "5"),
        ("Proxy-Connection", "close"),
        ("Proxy-Authorization", "Basic x"),
        ("TE", "trailers"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "x"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "10"),
        ("Expect", "100-continue"),
        ("Sec-WebSocket-Key", "x"),
        ("Sec-WebSocket-Accept", "x"),
        ("Sec-WebSocket-Version", "8"),
        ("Sec-WebSocket-Protocol", "bearer, token"),
    ] {
        let headers = map(&[(name, value)]);
        let sent = told(&forward(&headers), HeaderValue::from_static("backend:9000"));
        let mut expected = TOLD;
        expected.sort_unstable();
        assert_eq!(lines(&sent), expected, "{name}: {value}");
    }
}

#[test]
fn the_rest_is_passed_on() {
    let kept = [
        ("authorization", "Bearer x"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("origin", "https://chat.example"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("user-agent", "test"),
        ("x-own", "1"),
    ];
    let headers = map(&[&kept[..], &[("connection", "upgrade, X-Hop"), ("x-hop", "1")]].concat());
    let sent = told(&forward(&headers), HeaderValue::from_static("backend:9000"));
    let mut expected = [&kept[..], &TOLD].concat();
    expected.sort_unstable();
    assert_eq!(lines(&sent), expected);
}

#[test]
fn a_rule_holds_for_both_spellings_of_a_name() {
    let name = |name: &str| name.parse::<HeaderName>().unwrap();
    let rules = HeaderRules {
        set: vec![(name("x-tenant-id"), HeaderValue::from_static("ours"))],
        remove: vec![name("x_internal-user")],
    };
    let forged = [("x_tenant_id", "forged"), ("X-Tenant_Id", "forged"), ("X-Internal-User", "root"), ("x-own", "1")];
    let headers = map(&forged);
    let sent = for_backend(&forward(&headers), HeaderValue::from_static("backend:9000"), &rules);
    let mut expected = [&TOLD[..], &[("x-own", "1"), ("x-tenant-id", "ours")]].concat();
    expected.sort_unstable();
    assert_eq!(lines(&sent), expected);
    let mut trailers = headers;
    trailers.append("transfer_encoding", HeaderValue::from_static("chunked"));
    clean_trailers(&mut trailers, &rules);
    assert_eq!(lines(&trailers), [("x-own", "1")]);
}

#[test]
fn the_chain_and_the_client_are_told() {
    let headers = HeaderMap::new();
    let mut known = forward(&headers);
    known.forwarded_for = Some("198.51.100.1, 203.0.113.7");
    known.client_id = Some("Zoë %41");
    let sent = told(&known, HeaderValue::from_static("b"));
    assert_eq!(sent["x-forwarded-for"], "198.51.100.1, 203.0.113.7, 10.0.0.1");
    assert_eq!(sent["x-client-id"], "Zo%C3%AB%20%2541");
    known.peer_ip = None;
    let sent = told(&known, HeaderValue::from_static("b"));
    assert_eq!(sent["x-forwarded-for"], "198.51.100.1, 203.0.113.7");
    (known.forwarded_for, known.client_ip) = (None, None);
    let sent = told(&known, HeaderValue::from_static("b"));
    assert!(!sent.contains_key("x-forwarded-for") && !sent.contains_key("x-real-ip"));
}

#[test]
fn elements_of_lists() {
    let headers = map(&[("a", "x , y;p=\"1,2\",, z"), ("a", "w")]);
    let found: Vec<_> = elements(headers.get_all("a")).collect();
    assert_eq!(found, [&b"x"[..], b"y;p=\"1,2\"", b"z", b"w"]);
}
