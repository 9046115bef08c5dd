//! `Expect: 100-continue`, from the client to the backend and back.
use crate::requests::{OK, behind, head};

const EXPECT: &str = "Content-Length: 4\r\nExpect: 100-continue\r\n";

#[tokio::test]
async fn a_body_comes_when_the_backend_asks_for_it() {
    let (gateway, origin) = behind("").await;
    let mut client = gateway.raw().await;
    client.send(head("POST /live/x", EXPECT)).await;
    let (mut server, asked) = origin.asked().await;
    assert_eq!(asked.header("expect"), Some("100-continue"));
    server.send("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.read_head().await.status, 102);
    assert_eq!(client.read_head().await.status, 100);
    client.send("body").await;
    assert_eq!(server.take(4).await, b"body");
    server.send(OK).await;
    let answer = client.read_head().await;
    assert_eq!((answer.status, client.read_body(&answer).await), (200, b"ok".to_vec()));
    // Both connections are kept.
    client.send(head("GET /live/next", "")).await;
    assert_eq!(server.try_read_request().await.unwrap().line, "GET /live/next HTTP/1.1");
}

#[tokio::test]
async fn a_final_answer_comes_without_100() {
    let (gateway, origin) = behind("").await;
    let mut client = gateway.raw().await;
    client.send(head("POST /live/x", EXPECT)).await;
    let (mut server, _) = origin.asked().await;
    server.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno").await;
    let answer = client.read_head().await;
    assert_eq!((answer.status, client.read_body(&answer).await), (417, b"no".to_vec()));
    // The body that was announced never comes: neither connection can be used again.
    server.expect_end().await;
    client.expect_end().await;
}

/// RFC 9110, 10.1.1: not for ever.
#[tokio::test]
async fn a_backend_that_knows_no_100_gets_the_body_after_a_while() {
    let (gateway, origin) = behind("").await;
    let mut client = gateway.raw().await;
    client.send(head("POST /live/x", EXPECT)).await;
    let (mut server, _) = origin.asked().await;
    assert_eq!(client.read_head().await.status, 100);
    client.send("body").await;
    assert_eq!(server.take(4).await, b"body");
    server.send(OK).await;
    assert_eq!(client.read_head().await.status, 200);
}

/// RFC 9110, 15.2: a proxy passes informational answers on.
#[tokio::test]
async fn early_hints_are_passed_on() {
    let (gateway, origin) = behind("").await;
    let mut client = gateway.raw().await;
    client.send(head("GET /live/x", "")).await;
    let (mut server, _) = origin.asked().await;
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\
                Content-Length: 5\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n";
    server.send(hint).await;
    let told = client.read_head().await;
    assert_eq!((told.status, told.header("link")), (103, Some("</a.css>; rel=preload")));
    assert_eq!((told.header("x-hop"), told.header("content-length")), (None, None));
    // What comes at once is passed on in order; so much and no more.
    server.send(hint.repeat(20) + "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
    for _ in 0..7 {
        assert_eq!(client.read_head().await.status, 103);
    }
    let answer = client.read_head().await;
    assert_eq!((answer.status, client.read_body(&answer).await), (200, b"ok".to_vec()));
    // A client of HTTP/1.0 knows none of it.
    let mut old = gateway.raw().await;
    old.send("GET /live/x HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
    let (mut server, _) = origin.asked().await;
    server.send(hint.to_owned() + "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
    let answer = old.read_head().await;
    assert_eq!((answer.status, answer.header("transfer-encoding")), (200, None));
    assert_eq!(old.read_body(&answer).await, b"ok");
}
