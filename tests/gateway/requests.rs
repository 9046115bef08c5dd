//! Ordinary HTTP on a proxy route, byte for byte on both sides.
use crate::support::backend::{Recorder, switch};
use crate::support::*;

/// A gateway that passes `/live/*` on to a server that the test plays, without tokens; more of the upstream may follow.
pub async fn behind(more: &str) -> (Gateway, Origin) {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{}{more}\n", proxy(&[origin.port]))).await;
    (gateway, origin)
}

/// A request head; each header line ends with CRLF.
pub fn head(line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_get_is_passed_on_and_its_connection_is_kept() {
    let (gateway, origin) = behind("").await;
    let mut client = gateway.raw().await;
    client.send(head("GET /live/a%20b?x=1&y", "X-Own: 1\r\n")).await;
    let (mut server, asked) = origin.asked().await;
    assert_eq!(asked.line, "GET /live/a%20b?x=1&y HTTP/1.1");
    assert_eq!(asked.header("x-own"), Some("1"));
    assert_eq!((asked.header("content-length"), asked.header("transfer-encoding")), (None, None));
    server.send("HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nX-Answer: 2\r\n\r\nok").await;
    let answer = client.read_head().await;
    assert_eq!((answer.status, answer.header("x-answer")), (200, Some("2")));
    assert_eq!(client.read_body(&answer).await, b"ok");
    // On the same connections, both of them.
    client.send(head("GET /live/again", "")).await;
    assert_eq!(server.try_read_request().await.unwrap().line, "GET /live/again HTTP/1.1");
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.read_head().await.status, 204);
}

#[tokio::test]
async fn bodies_are_streams_both_ways() {
    let (gateway, origin) = behind("").await;
    let mut client = gateway.raw().await;
    client.send(head("POST /live/up", "Transfer-Encoding: chunked\r\n") + "3\r\none\r\n").await;
    let (mut server, asked) = origin.asked().await;
    assert_eq!((asked.header("transfer-encoding"), asked.header("content-length")), (Some("chunked"), None));
    // Each piece arrives before the next one is sent.
    assert_eq!(server.read_chunk().await.unwrap(), b"one");
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nuno\r\n").await;
    let answer = client.read_head().await;
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    assert_eq!(client.read_chunk().await.unwrap(), b"uno");
    client.send("3\r\ntwo\r\n").await;
    assert_eq!(server.read_chunk().await.unwrap(), b"two");
    server.send("3\r\ndos\r\n").await;
    assert_eq!(client.read_chunk().await.unwrap(), b"dos");
    client.send("0\r\n\r\n").await;
    assert_eq!(server.read_chunks().await, (vec![], vec![]));
    server.send("0\r\n\r\n").await;
    assert_eq!(client.read_chunks().await, (vec![], vec![]));
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let (gateway, origin) = behind("").await;
    let mut client = gateway.raw().await;
    let headers = "Transfer-Encoding: chunked\r\nTrailer: X-Sum, X-Client-Id\r\nTE: trailers\r\nConnection: TE\r\n";
    client.send(head("PUT /live/t", headers) + "1\r\na\r\n0\r\nX-Sum: 1\r\nX-Client-Id: root\r\n\r\n").await;
    let (mut server, asked) = origin.asked().await;
    assert_eq!((asked.header("trailer"), asked.header("te")), (Some("X-Sum, X-Client-Id"), Some("trailers")));
    // What only the gateway may say is no trailer either.
    assert_eq!(server.read_chunks().await, (b"a".to_vec(), vec!["x-sum: 1".to_owned()]));
    server
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Own\r\n\r\n1\r\nb\r\n0\r\nX-Own: 2\r\n\r\n")
        .await;
    let answer = client.read_head().await;
    assert_eq!(answer.header("trailer"), Some("X-Own"));
    assert_eq!(client.read_chunks().await, (b"b".to_vec(), vec!["x-own: 2".to_owned()]));
}

#[tokio::test]
async fn headers_of_one_hop_stay_behind() {
    let (gateway, origin) = behind("").await;
    let mut client = gateway.raw().await;
    let hop = "Connection: keep-alive, X-Hop, Content-Length, Host, X-Real-IP\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
               Proxy-Authorization: x\r\nTE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n";
    let kept = "Content-Length: 2\r\nVia: 1.1 before\r\nAuthorization: Basic x\r\n";
    let forged = "X-Real-IP: 6.6.6.6\r\nX_Client_Id: root\r\nForwarded: for=6.6.6.6\r\n";
    client.send(head("POST /live/h", &format!("{hop}{kept}{forged}")) + "ab").await;
    let (mut server, asked) = origin.asked().await;
    for gone in ["connection", "x-hop", "keep-alive", "proxy-authorization", "te", "upgrade", "http2-settings"] {
        assert_eq!(asked.header(gone), None, "{gone}");
    }
    assert_eq!((asked.header("x_client_id"), asked.header("x-client-id")), (None, None));
    assert_eq!((asked.header("host"), asked.header("content-length")), (Some("localhost"), Some("2")));
    assert_eq!((asked.header("x-real-ip"), asked.header("authorization")), (Some("127.0.0.1"), Some("Basic x")));
    assert_eq!(asked.header("forwarded"), Some("for=127.0.0.1;proto=http;host=\"localhost\""));
    assert_eq!(asked.all("via"), ["1.1 before", "1.1 wsgate"]);
    assert_eq!(server.take(2).await, b"ab");
    server
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Hop, Content-Length\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nok")
        .await;
    let answer = client.read_head().await;
    for gone in ["x-hop", "keep-alive"] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    assert_eq!((answer.header("via"), answer.header("content-length")), (Some("1.1 wsgate"), Some("2")));
    assert_eq!(answer.headers.iter().filter(|(name, _)| name == "set-cookie").count(), 2);
    assert_eq!(client.read_body(&answer).await, b"ok");
}

#[tokio::test]
async fn answers_without_a_body_keep_their_length_and_the_connection() {
    let (gateway, origin) = behind("").await;
    let mut client = gateway.raw().await;
    client.send(head("HEAD /live/h", "")).await;
    let (mut server, _) = origin.asked().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n").await;
    assert_eq!(client.read_head().await.header("content-length"), Some("1234"));
    client.send(head("GET /live/h", "If-None-Match: \"a\"\r\n")).await;
    server.try_read_request().await.unwrap();
    server.send("HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: \"a\"\r\n\r\n").await;
    let answer = client.read_head().await;
    assert_eq!((answer.status, answer.header("content-length")), (304, Some("1234")));
    client.send(head("DELETE /live/h", "")).await;
    assert_eq!(server.try_read_request().await.unwrap().header("content-length"), None);
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    let answer = client.read_head().await;
    assert_eq!((answer.status, answer.header("content-length")), (204, None));
    client.send(head("POST /live/h", "Content-Length: 0\r\n")).await;
    assert_eq!(server.try_read_request().await.unwrap().header("content-length"), Some("0"));
    server.send(OK).await;
    assert_eq!(client.read_head().await.status, 200);
}

/// hyper would leave it out.
#[tokio::test]
async fn a_get_may_have_a_body_of_unknown_length() {
    let (gateway, origin) = behind("").await;
    let mut client = gateway.raw().await;
    client.send(head("GET /live/search", "Transfer-Encoding: chunked\r\n") + "5\r\nquery\r\n0\r\n\r\n").await;
    let (mut server, _) = origin.asked().await;
    assert_eq!(server.read_chunks().await.0, b"query");
    server.send(OK).await;
    assert_eq!(client.read_head().await.status, 200);
}

#[tokio::test]
async fn what_the_upstream_says_of_headers_is_done() {
    let rules = "headers = { set = { X-Env = \"prod\" }, remove = [\"X-Debug\"] }\npreserve_host = false";
    let (gateway, origin) = behind(rules).await;
    let mut client = gateway.raw().await;
    client.send(head("GET /live/x", "X-Env: dev\r\nX-Debug: 1\r\n")).await;
    let (mut server, asked) = origin.asked().await;
    assert_eq!((asked.header("x-env"), asked.header("x-debug")), (Some("prod"), None));
    assert_eq!(asked.header("host"), Some(format!("127.0.0.1:{}", origin.port).as_str()));
    server.send(OK).await;
    assert_eq!(client.read_head().await.status, 200);
}

#[tokio::test]
async fn a_prefix_is_stripped_from_requests_and_upgrades() {
    let strips = |port| proxy(&[port]).replace("[upstream", "strip_prefix = true\n[upstream");
    let origin = Origin::start().await;
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{}", strips(origin.port))).await;
    let mut client = gateway.raw().await;
    for (path, seen) in [("/live/x?a=/live/y", "/x?a=/live/y"), ("/live/", "/"), ("/live/?q", "/?q")] {
        client.send(head(&format!("GET {path}"), "Connection: close\r\n")).await;
        let (mut server, asked) = origin.asked().await;
        assert_eq!(asked.line, format!("GET {seen} HTTP/1.1"));
        server.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        assert_eq!(client.read_head().await.status, 204);
        client = gateway.raw().await;
    }
    // Some would take what is left for a host.
    client.send(head("GET /live//x", "")).await;
    assert_eq!(client.read_head().await.status, 404);
    let recorder = Recorder::start(switch).await;
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{}", strips(recorder.port))).await;
    gateway.open("/live/socket?b").await;
    assert!(recorder.received()[0].starts_with("GET /socket?b HTTP/1.1\r\n"), "{:?}", recorder.received());
}

#[tokio::test]
async fn a_route_can_be_for_sockets_only() {
    let origin = Origin::start().await;
    let routes = proxy(&[origin.port]).replace("[upstream", "websocket_only = true\n[upstream");
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{routes}")).await;
    let mut client = gateway.raw().await;
    client.send(head("GET /live/x", "")).await;
    assert_eq!(client.read_head().await.status, 426);
}

/// `X-Forwarded-For` is made into `Forwarded`, and one that is believed is gone on with.
#[tokio::test]
async fn what_a_trusted_proxy_forwarded_is_gone_on_with() {
    let origin = Origin::start().await;
    let listener = listener("127.0.0.1:0", "trusted_proxies = [\"127.0.0.0/8\"]");
    let gateway = Gateway::start(&format!("{listener}{OPEN}{}", proxy(&[origin.port]))).await;
    let own = "for=127.0.0.1;proto=https;host=\"app.test\"";
    for (told, forwarded) in [
        (
            "Forwarded: for=\"[2001:db8::1]\";proto=https;host=app.test",
            "for=\"[2001:db8::1]\";proto=https;host=app.test, ",
        ),
        (
            "X-Forwarded-For: 203.0.113.9, 2001:db8::2\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: app.test",
            "for=203.0.113.9, for=\"[2001:db8::2]\", ",
        ),
    ] {
        let mut client = gateway.raw().await;
        client.send(head("GET /live/x", &format!("{told}\r\n"))).await;
        let (_server, asked) = origin.asked().await;
        assert_eq!(asked.header("forwarded"), Some(format!("{forwarded}{own}").as_str()));
    }
}

#[tokio::test]
async fn requests_are_counted() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{}{ADMIN}", proxy(&[origin.port]))).await;
    let mut client = gateway.raw().await;
    client.send(head("GET /live/x", "")).await;
    let (mut server, _) = origin.asked().await;
    let metrics = async || gateway.admin_get("/metrics").await.1;
    assert!(metrics().await.contains("wsgate_requests_in_flight 1\n"));
    server.send("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nno").await;
    client.read_head().await;
    assert!(metrics().await.contains("wsgate_requests_in_flight 1\n"));
    server.send("no").await;
    client.take(4).await;
    let text = eventually(|| async { Some(metrics().await).filter(|m| m.contains("requests_in_flight 0\n")) }).await;
    assert!(text.contains("wsgate_requests_total{status=\"4xx\"} 1\n"), "{text}");
    assert!(text.contains("wsgate_handshakes_total{outcome=\"passed\"} 1\n"), "{text}");
}
