//! WebSockets over HTTP/2 (RFC 8441), for every service.
use crate::crowds::metric;
use crate::support::backend::{Recorder, switch};
use crate::support::http2::{self, Http2, connect};
use crate::support::*;
use h2::Reason;
use h2::ext::Protocol;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::http::{Method, Request};

const LIMITS: &str = "[limits]\nhandshakes_per_second = 0\n";

async fn echo() -> Gateway {
    Gateway::start(&format!("{TLS}{OPEN}{ECHO}{LIMITS}{ADMIN}")).await
}

async fn echoes(client: &mut Client, text: &str) {
    client.text(text).await;
    assert_eq!(client.next_text().await, text);
}

#[tokio::test]
async fn an_echo() {
    let gateway = echo().await;
    let mut http2 = Http2::connect(&gateway).await;
    let mut client = http2.open("/echo", &[("sec-websocket-protocol", "a, b")]).await;
    assert_eq!(client.protocol(), Some("a"));
    for name in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!client.response.headers().contains_key(name), "{name}");
    }
    echoes(&mut client, "hello").await;
    assert_eq!(client.close(1000, "done").await, Some(1000));
    assert!(client.next().await.is_none());
    let line = gateway.wait_for_log(|l| l.contains("session ended")).await;
    assert!(line.contains("code=1000"), "{line}");
    echoes(&mut http2.open("/echo", &[]).await, "the connection is still there").await;
}

#[tokio::test]
async fn a_large_message_passes_the_windows() {
    let gateway =
        Gateway::start(&format!("{TLS}{OPEN}{ECHO}[limits]\nmax_message_size = \"4MiB\"\nbytes_per_second = 0\n"))
            .await;
    let mut client = Http2::connect(&gateway).await.open("/echo", &[]).await;
    let payload: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    client.send(Message::binary(payload.clone())).await;
    assert!(client.next_binary().await == payload);
}

#[tokio::test]
async fn rooms_whose_members_share_a_connection_or_do_not() {
    let gateway = Gateway::start(&format!("{TLS}{SECRET_AUTH}{ROOMS}{LIMITS}")).await;
    let mut http2 = Http2::connect(&gateway).await;
    let pair = |client| format!("bearer, {}", token::good(client));
    let mut a = http2.open("/ws", &[("sec-websocket-protocol", &pair("a"))]).await;
    assert_eq!(a.protocol(), Some("bearer"));
    // A cookie may come in pieces (RFC 9113, section 8.2.3).
    let cookie = format!("token={}", token::good("b"));
    let mut b = http2.open("/ws", &[("cookie", "x=1"), ("cookie", &cookie)]).await;
    let authorization = format!("Bearer {}", token::good("c"));
    let mut c = Client::open(gateway.tls(0).await, "/ws", &[("Authorization", &authorization)]).await;
    for client in [&mut a, &mut b, &mut c] {
        client.expect("connection_established").await;
        client.join("lobby").await;
    }
    a.publish("lobby", json!("to all")).await;
    for client in [&mut b, &mut c] {
        let message = client.skip_to("chat_message").await;
        assert_eq!(message["payload"]["message"], "to all", "{message}");
    }
}

#[tokio::test]
async fn a_relay_to_a_backend_that_speaks_http1() {
    for peer in [Peer::Node, Peer::Python] {
        let Some(mut backend) = Backend::start(peer).await else { continue };
        let gateway = Gateway::start(&format!("{TLS}{OPEN}{}", proxy(&[backend.port]))).await;
        let mut http2 = Http2::connect(&gateway).await;
        let mut client = http2.open("/live/a?x=1", &[]).await;
        assert_eq!(backend.event("open").await["path"], "/live/a?x=1");
        echoes(&mut client, "through").await;
        assert_eq!(client.close(1000, "done").await, Some(1000));
        assert_eq!(backend.event("close").await["code"], 1000);
        // A stream that the client takes back.
        let (stream, _) = http2.tunnel("/live/b", &[]).await;
        backend.event("open").await;
        stream.reset(Reason::CANCEL);
        assert_eq!(backend.event("close").await["code"], 1001);
    }
}

#[tokio::test]
async fn a_backend_is_asked_as_by_http1() {
    let recorder = Recorder::start(switch).await;
    let gateway = Gateway::start(&format!("{TLS}{OPEN}{}", proxy(&[recorder.port]))).await;
    let headers = [("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")];
    let _client = Http2::connect(&gateway).await.tunnel("/live/a", &headers).await;
    // A health check only connects.
    let request = recorder.received().into_iter().find(|request| !request.is_empty()).unwrap().to_ascii_lowercase();
    assert!(request.starts_with("get /live/a http/1.1\r\n"), "{request}");
    for line in ["connection: upgrade", "upgrade: websocket", "cookie: a=1; b=2", "x-forwarded-host: localhost"] {
        assert!(request.contains(&format!("{line}\r\n")), "{line} is missing in {request}");
    }
    for name in ["\r\n:", "\r\nte:"] {
        assert!(!request.contains(name), "{request}");
    }
    assert_eq!(request.matches("sec-websocket-key").count(), 1);
}

#[tokio::test]
async fn refusals() {
    let gateway = Gateway::start(&format!("{TLS}{ECHO}{LIMITS}{SECRET_AUTH}on_reject = \"http\"\n")).await;
    let mut http2 = Http2::connect(&gateway).await;
    let mut old = connect("/echo", &[]);
    old.headers_mut().insert("sec-websocket-version", "8".parse().unwrap());
    let mut other = connect("/echo", &[]);
    other.extensions_mut().insert(Protocol::from_static("connect-udp"));
    let get = Request::get("https://localhost/echo").body(()).unwrap();
    let tunnel = Request::builder().method(Method::CONNECT).uri("localhost:443").body(()).unwrap();
    for (request, expected) in [
        (connect("/echo", &[]), 401),
        (connect("/echo", &[("authorization", "Bearer no")]), 401),
        (connect("/nowhere", &[]), 404),
        (connect("/echo", &[("content-length", "0")]), 400),
        (old, 400),
        (other, 501),
        (get, 400),
        (tunnel, 405),
    ] {
        let what = format!("{request:?}");
        let (status, headers, body) = http2.ask(request).await.unwrap_or_else(|e| panic!("{e}: {what}"));
        assert_eq!(status, expected, "{what}");
        assert!(!headers.contains_key("connection") && !headers.contains_key("upgrade"), "{headers:?}");
        if status != 405 {
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert!(body["error"]["code"].is_u64(), "{body}");
        }
    }
    let mut client = http2.open_as("/echo", &token::good("a")).await;
    echoes(&mut client, "none of them took the connection").await;
}

#[tokio::test]
async fn a_refusal_may_be_a_close() {
    let gateway = Gateway::start(&format!("{TLS}{ECHO}{SECRET_AUTH}on_reject = \"close\"\n")).await;
    let mut http2 = Http2::connect(&gateway).await;
    let mut client = http2.open("/echo", &[("sec-websocket-protocol", "mine")]).await;
    assert_eq!(client.protocol(), Some("mine"));
    client.closes_with(4001).await;
    echoes(&mut http2.open_as("/echo", &token::good("a")).await, "still there").await;
}

#[tokio::test]
async fn one_of_100_that_does_not_read_holds_up_nobody() {
    let gateway = Gateway::start(&format!(
        "{TLS}{OPEN}{ECHO}{ADMIN}[limits]\nhandshakes_per_second = 0\nconnections_per_ip = 0\nbytes_per_second = 0\n\
         messages_per_second = 0\nmax_message_size = \"1MiB\"\n"
    ))
    .await;
    // The connection's window is not what one stream can use up.
    let mut settings = h2::client::Builder::new();
    settings.initial_connection_window_size(8 << 20);
    let mut http2 = Http2::with(&gateway, &settings).await;
    let (mut stuck, _) = http2.tunnel("/echo", &[]).await;
    let mut clients = Vec::new();
    for _ in 0..99 {
        clients.push(http2.open("/echo", &[]).await);
    }
    // It sends until nothing more is taken, and reads no answer.
    let frame = raw::frame(0x82, &[7; 1000]);
    let flooding = tokio::spawn(async move { while stuck.write_all(&frame).await.is_ok() {} });
    for round in 0..20 {
        for (i, client) in clients.iter_mut().enumerate() {
            echoes(client, &format!("{round} {i}")).await;
        }
    }
    assert_eq!(metric(&gateway, "wsgate_sessions{service=\"echo\"}").await, 100);
    assert!(!flooding.is_finished());
    flooding.abort();
}

#[tokio::test]
async fn a_stream_that_is_reset_or_ends_takes_no_other() {
    let gateway = echo().await;
    let mut http2 = Http2::connect(&gateway).await;
    let mut other = http2.open("/echo", &[]).await;
    let (stream, _) = http2.tunnel("/echo", &[]).await;
    stream.reset(Reason::CANCEL);
    gateway.wait_for_log(|l| l.contains("session ended") && l.contains("connection reset")).await;
    let (mut stream, _) = http2.tunnel("/echo", &[]).await;
    stream.shutdown().await.unwrap();
    gateway.wait_for_log(|l| l.contains("session ended") && l.contains("ended without a Close")).await;
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    // Frames that break the rules close their own socket.
    let (mut stream, _) = http2.tunnel("/echo", &[]).await;
    stream.write_all(&[0xff, 0x80, 0, 0, 0, 0]).await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard[..4], [0x88, heard[1], 0x03, 0xea], "1002");
    echoes(&mut other, "still there").await;
}

#[tokio::test]
async fn sockets_are_counted_as_if_each_had_a_connection() {
    let limits = "[limits]\nhandshakes_per_second = 3\nconnections_per_ip = 4\n";
    let gateway = Gateway::start(&format!("{TLS}{OPEN}{ECHO}{limits}")).await;
    let mut http2 = Http2::connect(&gateway).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(http2.open("/echo", &[]).await);
    }
    let (status, _, body) = http2.ask(connect("/echo", &[])).await.unwrap();
    assert_eq!(status, 429, "{}", String::from_utf8_lossy(&body));
    // Of 6 handshakes at once, the sockets and the refusal were 4: more are too fast, and are told so on their streams.
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(http2.ask(connect("/echo", &[])).await.unwrap().0);
    }
    assert_eq!(statuses, [429; 5]);
    echoes(&mut clients[0], "still there").await;
}

#[tokio::test]
async fn a_gateway_that_stops_says_goodbye_to_every_stream() {
    let gateway_config = format!("[server]\ndrain = \"300ms\"\n{TLS}{OPEN}{ECHO}{LIMITS}");
    let mut gateway = Gateway::start(&gateway_config).await;
    let mut http2 = Http2::connect(&gateway).await;
    let mut idle = Http2::connect(&gateway).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(http2.open("/echo", &[]).await);
    }
    gateway.signal("TERM");
    for client in &mut clients {
        client.closes_with(1012).await;
    }
    for connection in [&mut http2, &mut idle] {
        within(&mut connection.ended).await.unwrap().unwrap();
    }
    assert!(gateway.exit().await.success());
}

#[tokio::test]
async fn http2_is_offered_where_the_listener_has_it() {
    let without = TLS.replacen("address", "http2 = false\naddress", 1);
    let gateway = Gateway::start(&format!("{without}{PLAIN}{OPEN}{ECHO}")).await;
    let roots = gateway.folder.read("certs/fullchain.pem");
    let mut config = std::sync::Arc::unwrap_or_clone(tls::client(&roots, tls::ANY));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = tls::connect(gateway.tcp().await, "localhost", &config.into()).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    echoes(&mut Client::open(stream, "/echo", &[]).await, "by HTTP/1.1").await;
    // Without TLS there is no way to agree on it.
    let mut plain = RawWs::over(tokio::net::TcpStream::connect(gateway.address(1)).await.unwrap());
    plain.send(h2raw::PREFACE).await;
    assert_eq!(plain.read_head().await.status, 400);
    plain.expect_end().await;
}

#[tokio::test]
async fn http1_goes_on_beside_it() {
    let gateway = echo().await;
    let _one = http2::tls(&gateway, 0).await;
    echoes(&mut Client::open(gateway.tls(0).await, "/echo", &[]).await, "by HTTP/1.1").await;
}
