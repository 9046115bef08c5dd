//! Ordinary HTTP on a proxy route, byte for byte on both sides.
use crate::support::*;

/// A gateway that passes `/live/*` on to a server that the test plays, without tokens; more of the upstream may follow.
async fn behind(more: &str) -> (Gateway, Origin) {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{}{more}\n", proxy(&[origin.port]))).await;
    (gateway, origin)
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

#[tokio::test]
async fn a_get_is_passed_on_and_its_connection_is_kept() {
    let (gateway, origin) = behind("").await;
    let mut client = gateway.raw().await;
    client.send(get("/live/a%20b?x=1&y", "X-Own: 1\r\n")).await;
    let (mut server, asked) = origin.asked().await;
    assert_eq!(asked.line, "GET /live/a%20b?x=1&y HTTP/1.1");
    assert_eq!(asked.header("x-own"), Some("1"));
    assert_eq!(asked.header("content-length"), None);
    server.send("HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nX-Answer: 2\r\n\r\nok").await;
    let head = client.read_head().await;
    assert_eq!((head.status, head.header("x-answer")), (200, Some("2")));
    assert_eq!(client.read_body(&head).await, b"ok");
    // On the same connections, both of them.
    client.send(get("/live/again", "")).await;
    assert_eq!(server.try_read_request().await.unwrap().line, "GET /live/again HTTP/1.1");
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.read_head().await.status, 204);
}

#[tokio::test]
async fn bodies_are_streams_both_ways() {
    let (gateway, origin) = behind("").await;
    let mut client = gateway.raw().await;
    client.send("POST /live/up HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    let (mut server, asked) = origin.asked().await;
    assert_eq!((asked.header("transfer-encoding"), asked.header("content-length")), (Some("chunked"), None));
    // Each piece arrives before the next one is sent.
    assert_eq!(server.read_chunk().await.unwrap(), b"one");
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nuno\r\n").await;
    let head = client.read_head().await;
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
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
