#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::{self, Transport, Upstream};
use crate::outbox::wire::Socket;
use crate::upstream::{Affinity, Upstreams};
use http_body_util::BodyExt;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn at(host: &str, port: u16) -> config::Backend {
    let transport = Transport::Tcp { host: host.into(), port };
    config::Backend { url: format!("http://localhost:{port}"), transport, weight: 1 }
}

fn upstreams(ports: &[u16], retries: u32, preserve_host: bool) -> Arc<Upstreams> {
    let servers = ports.iter().map(|port| at("127.0.0.1", *port)).collect();
    let connect_timeout = Duration::from_millis(500);
    Upstreams::new(&[Arc::new(Upstream { connect_timeout, retries, preserve_host, ..Upstream::new("chat", servers) })])
}

pub(in crate::upstream) fn forward(headers: &HeaderMap) -> Forward<'_> {
    Forward {
        headers,
        path_and_query: "/live?room=1",
        protocols: Some("chat, rooms.v1"),
        client_ip: None,
        version: Version::HTTP_11,
        forwarded_for: None,
        forwarded: None,
        peer_ip: None,
        proto: "http",
        host: "chat.example",
        client_id: None,
        proxied: None,
    }
}

/// A port that nobody listens on.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// Reads one request head and answers it; ACCEPT in the answer becomes the right key.
async fn answer(listener: &TcpListener, answer: &str) -> (TcpStream, String) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    let accept = ws::accept_key(key.as_bytes());
    stream.write_all(answer.replace("ACCEPT", &accept).as_bytes()).await.unwrap();
    (stream, head)
}

const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: keep-alive, upgrade, x-hop\r\nx-hop: 1\r\n\
     sec-websocket-accept: ACCEPT\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nsec-websocket-protocol: rooms.v1\r\n";

async fn opened(client: &[(&'static str, &'static str)], reply: &str) -> (Result<Backend, Unopened>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstreams = upstreams(&[listener.local_addr().unwrap().port()], 0, true);
    let mut headers = HeaderMap::new();
    for (name, value) in client {
        headers.append(*name, HeaderValue::from_static(value));
    }
    let (backend, (_kept, head)) =
        futures_util::future::join(upstreams.open(0, forward(&headers)), answer(&listener, reply)).await;
    (backend, head)
}

#[tokio::test]
async fn an_upgrade() {
    let reply =
        format!("{GOOD}sec-websocket-extensions: permessage-deflate; server_no_context_takeover\r\n\r\n\u{1}hi");
    let (backend, head) = opened(&[("sec-websocket-extensions", "permessage-deflate, x-own")], &reply).await;
    let backend = backend.unwrap();
    assert!(head.starts_with("GET /live?room=1 HTTP/1.1\r\n"), "{head}");
    for line in [
        "host: chat.example",
        "connection: Upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-protocol: chat, rooms.v1",
        "sec-websocket-extensions: permessage-deflate, x-own",
    ] {
        assert_eq!(head.lines().filter(|l| *l == line).count(), 1, "{line}");
    }
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"));
    assert_eq!(&backend.early[..], b"\x01hi");
    assert_eq!(backend.rsv, Rsv::Deflate);
    let mut names: Vec<_> = backend.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["sec-websocket-extensions", "sec-websocket-protocol", "set-cookie", "set-cookie", "via"]);
    let Wire::Plain(Socket::Tcp(stream)) = backend.wire else { panic!("a TCP stream") };
    assert!(stream.nodelay().unwrap());
}

#[tokio::test]
async fn answers_that_are_not_believed() {
    let cases = [
        (GOOD.replace("ACCEPT", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "Sec-WebSocket-Accept"),
        (GOOD.replace("sec-websocket-accept: ACCEPT\r\n", ""), "Sec-WebSocket-Accept"),
        (format!("{GOOD}sec-websocket-accept: ACCEPT\r\n"), "Sec-WebSocket-Accept"),
        (GOOD.replace("WebSocket", "h2c"), "Upgrade: websocket"),
        (GOOD.replace("upgrade, ", ""), "Connection: Upgrade"),
        (GOOD.replace(": rooms.v1", ": Rooms.v1"), "subprotocol"),
        (GOOD.replace(": rooms.v1", ": chat, rooms.v1"), "subprotocol"),
        (format!("{GOOD}sec-websocket-protocol: chat\r\n"), "subprotocol"),
        (format!("{GOOD}sec-websocket-extensions: x-own\r\n"), "extension"),
    ];
    for (reply, why) in cases {
        let offered = ("sec-websocket-extensions", "permessage-deflate");
        match opened(&[offered], &format!("{reply}\r\n")).await.0 {
            Err(Unopened::Unavailable(Unavailable { status, reason })) => {
                assert_eq!(status, StatusCode::BAD_GATEWAY);
                assert!(reason.contains(why), "{reason} / {why}");
            }
            other => panic!("{why}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn extensions_say_which_bits_may_be_set() {
    for (chosen, rsv) in [
        ("", Rsv::None),
        ("sec-websocket-extensions: Permessage-Deflate\r\n", Rsv::Deflate),
        ("sec-websocket-extensions: x-own\r\n", Rsv::Any),
        ("sec-websocket-extensions: x-own, permessage-deflate\r\n", Rsv::Any),
    ] {
        let offered = [("sec-websocket-extensions", "permessage-deflate"), ("sec-websocket-extensions", "x-own;a=1")];
        let (backend, _) = opened(&offered, &format!("{GOOD}{chosen}\r\n")).await;
        assert_eq!(backend.unwrap().rsv, rsv, "{chosen}");
    }
}

#[tokio::test]
async fn a_refusal_is_passed_on() {
    let reply =
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\nx-why: no\r\nconnection: close, x-hop\r\nx-hop: 1\r\n\r\nNope";
    let (Err(Unopened::Answer(answer)), _) = opened(&[], reply).await else { panic!("must be refused") };
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert_eq!(answer.headers()["x-why"], "no");
    assert!(!answer.headers().contains_key("x-hop") && !answer.headers().contains_key("connection"));
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "Nope");
    let reply =
        "HTTP/1.1 426 Upgrade Required\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 0\r\n\r\n";
    let (Err(Unopened::Answer(answer)), _) = opened(&[], reply).await else { panic!("must be refused") };
    assert_eq!(
        (&answer.headers()["upgrade"], &answer.headers()["connection"]),
        (&"websocket".parse().unwrap(), &"Upgrade".parse().unwrap())
    );
}

#[tokio::test]
async fn a_refusal_that_stalls_breaks_off_and_uses_its_server_until_then() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = at("127.0.0.1", listener.local_addr().unwrap().port());
    let idle_timeout = Some(Duration::from_millis(50));
    let upstreams = Upstreams::new(&[Arc::new(Upstream { idle_timeout, ..Upstream::new("chat", vec![server]) })]);
    let headers = HeaderMap::new();
    let reply = "HTTP/1.1 403 Forbidden\r\ncontent-length: 10\r\n\r\nhalf";
    let (opened, _kept) =
        futures_util::future::join(upstreams.open(0, forward(&headers)), answer(&listener, reply)).await;
    let Err(Unopened::Answer(answer)) = opened else { panic!("must be refused") };
    let used = || upstreams.candidates(0, Affinity { client: None, ip: None }).next().unwrap().used();
    let mut body = answer.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    assert_eq!(used(), 1);
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.downcast::<std::io::Error>().unwrap().kind(), std::io::ErrorKind::TimedOut);
    drop(body);
    assert_eq!(used(), 0);
}

async fn status(upstreams: &Upstreams) -> StatusCode {
    match upstreams.open(0, forward(&HeaderMap::new())).await {
        Err(Unopened::Unavailable(Unavailable { status, .. })) => status,
        other => panic!("must be unavailable: {other:?}"),
    }
}

#[tokio::test]
async fn statuses_of_what_cannot_be_reached() {
    assert_eq!(status(&upstreams(&[], 1, false)).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status(&upstreams(&[closed_port().await], 3, false)).await, StatusCode::BAD_GATEWAY);
    let garbage = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let asked = upstreams(&[garbage.local_addr().unwrap().port()], 0, false);
    let (status, _) = futures_util::future::join(status(&asked), answer(&garbage, "SSH-2.0-x\r\n\r\n")).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_does_not_answer_times_out() {
    // It accepts by its backlog, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstreams = upstreams(&[listener.local_addr().unwrap().port()], 0, false);
    assert_eq!(status(&upstreams).await, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn servers_take_turns_and_stand_in_for_each_other() {
    let listeners = [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let ports =
        [listeners[0].local_addr().unwrap().port(), closed_port().await, listeners[1].local_addr().unwrap().port()];
    let reply = format!("{GOOD}\r\n");
    let turns = upstreams(&ports, 1, false);
    // The second server is down: its turn is taken by the third, whose own comes all the same, and then it is left alone.
    for listener in [0, 1, 1, 1, 0, 1, 0] {
        let headers = HeaderMap::new();
        let open = turns.open(0, forward(&headers));
        let (backend, (_, head)) = futures_util::future::join(open, answer(&listeners[listener], &reply)).await;
        backend.unwrap();
        assert!(head.contains(&format!("host: 127.0.0.1:{}\r\n", ports[listener * 2])), "{head}");
    }
    assert_eq!(status(&upstreams(&[ports[1], ports[0]], 0, false)).await, StatusCode::BAD_GATEWAY);
}

#[test]
fn authorities() {
    for (host, port, written) in [("b", 80, "b"), ("b", 8080, "b:8080"), ("::1", 80, "[::1]"), ("::1", 81, "[::1]:81")]
    {
        let server = Server::new(Arc::new(Upstream::new("u", vec![])), at(host, port));
        assert_eq!(server.authority(), written);
    }
}

#[tokio::test]
async fn a_backend_whose_client_has_gone_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstreams = upstreams(&[listener.local_addr().unwrap().port()], 0, true);
    let (headers, reply) = (HeaderMap::new(), format!("{GOOD}\r\n"));
    let opening = upstreams.open(0, forward(&headers));
    let (backend, (mut stream, _)) = futures_util::future::join(opening, answer(&listener, &reply)).await;
    let scratch = RefCell::new(vec![0; 1000]);
    let told = async {
        let mut told = Vec::new();
        stream.read_to_end(&mut told).await.unwrap();
        drop(stream);
        told
    };
    let ((), told) = futures_util::future::join(backend.unwrap().leave(&scratch), told).await;
    let [0x88, 0x82, a, b, _, _, x, y] = told[..] else { panic!("{told:?}") };
    assert_eq!([x ^ a, y ^ b], 1001_u16.to_be_bytes());
}
