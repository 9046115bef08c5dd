//! Ordinary requests that go wrong: backends that are away, late or broken, and clients that leave.
use crate::requests::{OK, behind, head};
use crate::support::backend::unused_port;
use crate::support::*;

/// The answer to a request, and its JSON body.
async fn refused(client: &mut RawWs, status: u16) {
    let answer = client.read_head().await;
    assert_eq!(answer.status, status, "{answer:?}");
    let body: serde_json::Value = serde_json::from_slice(&client.read_body(&answer).await).unwrap();
    assert_eq!(body["error"]["code"], 4012, "{body}");
}

#[tokio::test]
async fn a_server_that_is_away_is_502_unless_another_is_there() {
    let origin = Origin::start().await;
    let away = unused_port().await;
    for (ports, status) in [(vec![away], 502), (vec![away, origin.port], 200)] {
        let gateway = Gateway::start(&format!("{PLAIN}{OPEN}{}", proxy(&ports))).await;
        let mut client = gateway.raw().await;
        client.send(head("POST /live/x", "Content-Length: 3\r\n") + "abc").await;
        if status == 502 {
            refused(&mut client, 502).await;
            continue;
        }
        let (mut server, _) = origin.asked().await;
        assert_eq!(server.take(3).await, b"abc");
        server.send(OK).await;
        assert_eq!(client.read_head().await.status, 200);
    }
}

#[tokio::test]
async fn answers_that_parsers_understand_differently_are_502() {
    let (gateway, origin) = behind("").await;
    let too_large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(128 * 1024));
    let too_many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(200));
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
        "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX Y: z\r\n\r\nok",
        "rubbish\r\n\r\n",
        "",
        &too_large,
        &too_many,
    ] {
        let mut client = gateway.raw().await;
        client.send(head("GET /live/x", "")).await;
        let (mut server, _) = origin.asked().await;
        server.try_send(answer).await;
        drop(server);
        refused(&mut client, 502).await;
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_to_break_off() {
    let (gateway, origin) = behind("").await;
    for (begun, chunked) in [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n9\r\nd", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", false),
    ] {
        let mut client = gateway.raw().await;
        client.send(head("GET /live/x", "")).await;
        let (mut server, _) = origin.asked().await;
        server.send(begun).await;
        assert_eq!(client.read_head().await.status, 200);
        let first = if chunked { client.read_chunk().await.unwrap() } else { client.take(3).await };
        assert_eq!(first, b"abc");
        drop(server);
        let rest = client.read_to_end().await;
        assert!(!rest.ends_with("0\r\n\r\n"), "it looks whole: {rest}");
    }
}

#[tokio::test]
async fn a_backend_that_does_not_answer_is_504() {
    for times in ["response_timeout = \"200ms\"", "response_timeout = 0\nidle_timeout = \"200ms\""] {
        let (gateway, origin) = behind(times).await;
        let mut client = gateway.raw().await;
        client.send(head("POST /live/x", "Content-Length: 1\r\n") + "a").await;
        let (mut server, _) = origin.asked().await;
        refused(&mut client, 504).await;
        assert_eq!(server.take(1).await, b"a");
        server.expect_end().await;
    }
}

#[tokio::test]
async fn an_answer_in_which_nothing_moves_is_cut_off() {
    let (gateway, origin) = behind("idle_timeout = \"200ms\"").await;
    let mut client = gateway.raw().await;
    client.send(head("GET /live/events", "")).await;
    let (mut server, _) = origin.asked().await;
    server
        .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await;
    client.read_head().await;
    assert_eq!(client.read_chunk().await.unwrap(), b"abc");
    assert_eq!(client.read_to_end().await, "");
    server.expect_end().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request() {
    let (gateway, origin) = behind("").await;
    // Before the answer, within it, and within the request's own body; whatever it has sent behind the request.
    for behind in ["", "\r\n", "G", &head("GET /live/second", "")] {
        let mut client = gateway.raw().await;
        client.send(head("GET /live/x", "") + behind).await;
        let (mut server, _) = origin.asked().await;
        drop(client);
        server.expect_end().await;
    }
    let mut client = gateway.raw().await;
    client.send(head("GET /live/x", "")).await;
    let (mut server, _) = origin.asked().await;
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    client.read_head().await;
    drop(client);
    server.expect_end().await;
    let mut client = gateway.raw().await;
    client.send(head("POST /live/x", "Transfer-Encoding: chunked\r\n") + "3\r\nabc\r\n").await;
    let (mut server, _) = origin.asked().await;
    drop(client);
    assert_eq!(server.read_chunk().await.unwrap(), b"abc");
    server.expect_end().await;
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_has_ended() {
    let (gateway, origin) = behind("").await;
    let mut client = gateway.raw().await;
    client.send(head("POST /live/x", "Content-Length: 9\r\n") + "abc").await;
    let (mut server, _) = origin.asked().await;
    assert_eq!(server.take(3).await, b"abc");
    server.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno").await;
    let answer = client.read_head().await;
    assert_eq!((answer.status, client.read_body(&answer).await), (413, b"no".to_vec()));
    // Both connections are in order when the rest has come.
    client.send("defghi").await;
    assert_eq!(server.take(6).await, b"defghi");
    client.send(head("GET /live/next", "")).await;
    assert_eq!(server.try_read_request().await.unwrap().line, "GET /live/next HTTP/1.1");
}

#[tokio::test]
async fn an_answer_reaches_a_client_whose_body_nobody_takes() {
    let (gateway, origin) = behind("").await;
    let mut client = gateway.raw().await;
    client.send(head("POST /live/x", "Content-Length: 600000\r\n")).await;
    let (mut server, _) = origin.asked().await;
    server.send("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno").await;
    drop(server);
    client.send(vec![b'x'; 600_000]).await;
    let answer = client.read_head().await;
    assert_eq!((answer.status, client.read_body(&answer).await), (413, b"no".to_vec()));
}

#[tokio::test]
async fn connections_that_cannot_be_used_again_are_not() {
    let (gateway, origin) = behind("").await;
    let mut client = gateway.raw().await;
    client.send(head("GET /live/1", "")).await;
    let (mut server, _) = origin.asked().await;
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count();
    let connected = descriptors();
    // Told to close; closed without a word; with bytes that nobody asked for; and one that has an end for a length.
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    client.read_head().await;
    client.take(2).await;
    server.expect_end().await;
    for after in [None, Some("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")] {
        client.send(head("GET /live/2", "")).await;
        let (mut server, _) = origin.asked().await;
        server.send(OK).await;
        client.read_head().await;
        client.take(2).await;
        if let Some(after) = after {
            server.send(after).await;
            server.expect_end().await;
        }
        drop(server);
        eventually(|| async { (descriptors() < connected).then_some(()) }).await;
    }
    client.send(head("GET /live/3", "")).await;
    let (mut server, _) = origin.asked().await;
    server.send("HTTP/1.0 200 OK\r\n\r\nto the end").await;
    drop(server);
    let answer = client.read_head().await;
    assert_eq!(client.read_chunks().await.0, b"to the end", "{answer:?}");
    client.send(head("GET /live/4", "")).await;
    let (mut server, asked) = origin.asked().await;
    assert_eq!(asked.line, "GET /live/4 HTTP/1.1");
    server.send(OK).await;
    let answer = client.read_head().await;
    assert_eq!(client.read_body(&answer).await, b"ok");
}

#[tokio::test]
async fn requests_in_flight_end_before_the_gateway_does() {
    let origin = Origin::start().await;
    let drain = "[server]\nshards = 1\ndrain = \"30s\"\n";
    let mut gateway = Gateway::start(&format!("{drain}{PLAIN}{OPEN}{}", proxy(&[origin.port]))).await;
    let mut idle = gateway.raw().await;
    idle.send(head("GET /live/idle", "")).await;
    let (mut served, _) = origin.asked().await;
    served.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    idle.read_head().await;
    let mut waits = gateway.raw().await;
    waits.send(head("GET /live/waits", "")).await;
    let (mut waiting, _) = origin.asked().await;
    let mut reads = gateway.raw().await;
    reads.send(head("GET /live/reads", "")).await;
    let (mut reading, _) = origin.asked().await;
    reading.send("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n").await;
    reads.read_head().await;
    gateway.signal("TERM");
    // Whoever waits for nothing is let go at once.
    idle.expect_end().await;
    waiting.send(OK).await;
    let answer = waits.read_head().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(waits.read_body(&answer).await, b"ok");
    waits.expect_end().await;
    reading.send(vec![b'x'; 300_000]).await;
    assert_eq!(reads.take(300_000).await.len(), 300_000);
    reads.expect_end().await;
    assert!(gateway.exit().await.success());
    gateway.wait_for_log(|line| line.contains("stopped")).await;
}

/// It has no other end.
#[tokio::test]
async fn a_stream_of_events_does_not_hold_up_the_end() {
    let origin = Origin::start().await;
    let drain = "[server]\ndrain = \"200ms\"\n";
    let mut gateway = Gateway::start(&format!("{drain}{PLAIN}{OPEN}{}", proxy(&[origin.port]))).await;
    let mut client = gateway.raw().await;
    client.send(head("GET /live/events", "")).await;
    let (mut server, _) = origin.asked().await;
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.read_head().await;
    // Nor does a request whose body never ends.
    let mut sends = gateway.raw().await;
    sends.send(head("POST /live/x", "Content-Length: 100\r\n") + "abc").await;
    let (mut taking, _) = origin.asked().await;
    assert_eq!(taking.take(3).await, b"abc");
    assert!(gateway.stop().await.success());
    assert_eq!(client.read_to_end().await, "");
    assert_eq!(sends.read_to_end().await, "");
    let log = gateway.log();
    assert!(!log.contains("in time") && !log.contains("panicked"), "{log}");
}
