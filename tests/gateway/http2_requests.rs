//! Ordinary requests over HTTP/2, to a backend that speaks HTTP/1.1.
use crate::support::http2::{Http2, connect, take};
use crate::support::*;
use bytes::Bytes;
use h2::Reason;
use tokio_tungstenite::tungstenite::http::{HeaderMap, Request};

/// A gateway that passes `/live/*` on to a server that the test plays, and a connection to it.
async fn behind() -> (Gateway, Origin, Http2) {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&format!("{TLS}{OPEN}{ECHO}{}", proxy(&[origin.port]))).await;
    let http2 = Http2::connect(&gateway).await;
    (gateway, origin, http2)
}

fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("https://localhost{path}")).body(()).unwrap()
}

#[tokio::test]
async fn a_get() {
    let (_gateway, origin, mut http2) = behind().await;
    let mut asking = request("GET", "/live/a%20b?x=1");
    asking.headers_mut().insert("te", "trailers".parse().unwrap());
    let answer = http2.ask(asking);
    let server = async {
        let (mut server, asked) = origin.asked().await;
        assert_eq!(asked.line, "GET /live/a%20b?x=1 HTTP/1.1");
        assert_eq!(asked.header("x-forwarded-host"), Some("localhost"));
        assert_eq!(asked.header("transfer-encoding"), None);
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\nKeep-Alive: 5\r\nConnection: x-b\r\nX-B: 2\r\n\r\nok").await;
        server
    };
    let (answer, _server) = tokio::join!(answer, server);
    let (status, headers, body) = answer.unwrap();
    assert_eq!(
        (status, &headers["x-a"], &headers["content-length"]),
        (200, &"1".parse().unwrap(), &"2".parse().unwrap())
    );
    for name in ["connection", "keep-alive", "x-b", "transfer-encoding"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert_eq!(body, b"ok");
}

#[tokio::test]
async fn bodies_are_streams_both_ways_with_trailers() {
    let (_gateway, origin, mut http2) = behind().await;
    let mut asking = request("POST", "/live/up");
    asking.headers_mut().insert("te", "trailers".parse().unwrap());
    asking.headers_mut().insert("trailer", "x-mine".parse().unwrap());
    let (answer, mut to) = http2.begin(asking, false).await.unwrap();
    let (mut server, asked) = origin.asked().await;
    assert_eq!(asked.header("transfer-encoding"), Some("chunked"));
    // Each piece arrives before the next one is sent.
    to.send_data(Bytes::from("one"), false).unwrap();
    assert_eq!(server.read_chunk().await.unwrap(), b"one");
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-end\r\n\r\n3\r\nuno\r\n").await;
    let mut from = within(answer).await.unwrap().into_body();
    assert_eq!(take(&mut from).await.unwrap().unwrap(), "uno");
    to.send_data(Bytes::from("two"), false).unwrap();
    assert_eq!(server.read_chunk().await.unwrap(), b"two");
    let trailers: HeaderMap = [("x-mine".parse().unwrap(), "1".parse().unwrap())].into_iter().collect();
    to.send_trailers(trailers).unwrap();
    let (rest, trailers) = server.read_chunks().await;
    assert!(rest.is_empty());
    assert_eq!(trailers.len(), 1, "{trailers:?}");
    assert!(trailers[0].eq_ignore_ascii_case("x-mine: 1"), "{trailers:?}");
    server.send("3\r\ndos\r\n0\r\nX-End: 2\r\n\r\n").await;
    assert_eq!(take(&mut from).await.unwrap().unwrap(), "dos");
    assert!(take(&mut from).await.unwrap().is_none());
    assert_eq!(within(from.trailers()).await.unwrap().unwrap()["x-end"], "2");
}

#[tokio::test]
async fn answers_without_a_body_keep_their_length() {
    let (_gateway, origin, mut http2) = behind().await;
    for (method, answer, status) in
        [("HEAD", "200 OK\r\nContent-Length: 5", 200), ("GET", "304 Not Modified\r\nContent-Length: 5", 304)]
    {
        let server = async {
            let (mut server, _) = origin.asked().await;
            server.send(format!("HTTP/1.1 {answer}\r\nConnection: close\r\n\r\n")).await;
        };
        let (answer, ()) = tokio::join!(http2.ask(request(method, "/live/a")), server);
        let (got, headers, body) = answer.unwrap();
        assert_eq!((got, body.len(), &headers["content-length"]), (status, 0, &"5".parse().unwrap()), "{method}");
    }
}

#[tokio::test]
async fn no_length_is_made_up_for_a_head() {
    let (_gateway, origin, mut http2) = behind().await;
    let server = async {
        let (mut server, _) = origin.asked().await;
        server.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await;
    };
    let (answer, ()) = tokio::join!(http2.ask(request("HEAD", "/live/a")), server);
    let (status, headers, _) = answer.unwrap();
    assert_eq!((status, headers.get("content-length")), (200, None));
}

#[tokio::test]
async fn the_pieces_of_a_cookie_are_one_header() {
    let (_gateway, origin, mut http2) = behind().await;
    let mut asking = request("GET", "/live/a");
    for n in 0..150 {
        asking.headers_mut().append("cookie", format!("c{n}=1").parse().unwrap());
    }
    let server = async {
        let (mut server, asked) = origin.asked().await;
        assert!(asked.header("cookie").unwrap().ends_with("; c148=1; c149=1"), "{asked:?}");
        server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    };
    let (answer, ()) = tokio::join!(http2.ask(asking), server);
    assert_eq!(answer.unwrap().0, 204);
}

#[tokio::test]
async fn a_2xx_to_an_upgrade_opens_nothing() {
    let (_gateway, origin, mut http2) = behind().await;
    for status in ["200 OK", "204 No Content", "299 So So"] {
        let server = async {
            let (mut server, _) = origin.asked().await;
            server.send(format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n")).await;
        };
        let (answer, ()) = tokio::join!(http2.send(connect("/live/a", &[]), false), server);
        assert_eq!(answer.unwrap().0.status(), 502, "{status}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_reset() {
    let (_gateway, origin, mut http2) = behind().await;
    let (answer, _) = http2.begin(request("GET", "/live/a"), true).await.unwrap();
    let (mut server, _) = origin.asked().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    let mut from = within(answer).await.unwrap().into_body();
    assert_eq!(take(&mut from).await.unwrap().unwrap(), "half");
    drop(server);
    assert_eq!(take(&mut from).await.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
    // The connection goes on.
    assert_eq!(http2.ask(request("GET", "/nowhere")).await.unwrap().0, 404);
}

#[tokio::test]
async fn a_request_that_is_taken_back_ends_at_the_backend() {
    let (_gateway, origin, mut http2) = behind().await;
    // Before its answer, and within; with a body that is still to come, and without.
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    for (method, head) in [("GET", ""), ("GET", half), ("POST", ""), ("POST", half)] {
        let (_answer, mut to) = http2.begin(request(method, "/live/a"), method == "GET").await.unwrap();
        let (mut server, _) = origin.asked().await;
        server.send(head).await;
        to.send_reset(Reason::CANCEL);
        server.expect_end().await;
    }
    assert_eq!(http2.ask(request("GET", "/nowhere")).await.unwrap().0, 404);
}

#[tokio::test]
async fn a_body_is_asked_for_when_the_backend_wants_it() {
    let (_gateway, origin, mut http2) = behind().await;
    let mut asking = request("POST", "/live/a");
    asking.headers_mut().insert("expect", "100-continue".parse().unwrap());
    let (mut answer, mut to) = http2.begin(asking, false).await.unwrap();
    let (mut server, _) = origin.asked().await;
    server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    let told = within(std::future::poll_fn(|cx| answer.poll_informational(cx))).await;
    assert_eq!(told.unwrap().unwrap().status(), 100);
    to.send_data(Bytes::from("body"), true).unwrap();
    assert_eq!(server.read_chunks().await.0, b"body");
    server.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(within(answer).await.unwrap().status(), 201);
}

#[tokio::test]
async fn a_request_that_waits_holds_up_no_other() {
    let (_gateway, origin, mut http2) = behind().await;
    let (_answer, mut to) = http2.begin(request("POST", "/live/slow"), false).await.unwrap();
    // The backend reads nothing of a body that is larger than all buffers.
    let (_server, _) = origin.asked().await;
    to.reserve_capacity(64 << 20);
    let uploading = tokio::spawn(async move {
        while let Some(Ok(room)) = std::future::poll_fn(|cx| to.poll_capacity(cx)).await {
            let piece = vec![0; room.min(16 << 10)];
            to.send_data(piece.into(), false).unwrap();
            to.reserve_capacity(64 << 20);
        }
    });
    let mut client = http2.open("/echo", &[]).await;
    for round in 0..100 {
        client.text(&format!("{round}")).await;
        assert_eq!(client.next_text().await, format!("{round}"));
    }
    assert!(!uploading.is_finished());
    uploading.abort();
}
