//! PROXY headers in front of connections: who the client is then, and what happens without one.
use crate::support::backend::{Recorder, switch};
use crate::support::raw::upgrade_head;
use crate::support::*;
use std::net::{Ipv6Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A plain listener that wants PROXY headers.
fn proxied(more: &str) -> String {
    listener("127.0.0.1:0", &format!("proxy_protocol = true\n{more}"))
}

/// Version 1.
fn first(source: &str) -> Vec<u8> {
    format!("PROXY TCP4 {source} 192.0.2.1 4711 443\r\n").into_bytes()
}

/// Version 2, for a client of any family, with an addition.
fn second(source: &str) -> Vec<u8> {
    let source: SocketAddr = source.parse().unwrap();
    let (family, addresses) = match source {
        SocketAddr::V4(at) => (0x11, [at.ip().octets(), [192, 0, 2, 1]].concat()),
        SocketAddr::V6(at) => (0x21, [at.ip().octets(), Ipv6Addr::LOCALHOST.octets()].concat()),
    };
    let rest = [&addresses[..], &source.port().to_be_bytes(), &443u16.to_be_bytes(), &[0x04, 0, 3, 1, 2, 3]].concat();
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n\x21", &[family][..], &length, &rest].concat()
}

/// `LOCAL`: the proxy asks for itself.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

async fn begun(gateway: &Gateway, header: &[u8]) -> TcpStream {
    let mut tcp = gateway.tcp().await;
    tcp.write_all(header).await.unwrap();
    tcp
}

/// The status of an upgrade behind this header; `None` where the connection is closed instead.
async fn status(gateway: &Gateway, header: &[u8], headers: &[&str]) -> Option<u16> {
    let mut raw = gateway.raw().await;
    raw.try_send([header, upgrade_head("/echo", headers).as_bytes()].concat()).await;
    Some(raw.try_read_head().await?.status)
}

#[tokio::test]
async fn the_client_is_whom_the_header_names() {
    let backend = Recorder::start(switch).await;
    let gateway = Gateway::start(&format!("{}{OPEN}{}", proxied(""), proxy(&[backend.port]))).await;
    let cases = [
        (first("203.0.113.9"), "203.0.113.9"),
        (second("203.0.113.10:4711"), "203.0.113.10"),
        (second("[2001:db8::7]:4711"), "2001:db8::7"),
        (second("[::ffff:203.0.113.11]:4711"), "203.0.113.11"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (LOCAL.to_vec(), "127.0.0.1"),
    ];
    for (number, (header, client)) in cases.iter().enumerate() {
        let mut socket = Client::open(begun(&gateway, header).await, "/live/x", &[]).await;
        let head = backend.received()[number].to_ascii_lowercase();
        assert!(head.contains(&format!("\r\nx-real-ip: {client}\r\n")), "{head}");
        assert!(head.contains(&format!("\r\nx-forwarded-for: {client}\r\n")), "{head}");
        socket.try_send(tokio_tungstenite::tungstenite::Message::text("x")).await;
        drop(socket);
        gateway.wait_for_log(|l| l.contains("session ended") && l.contains(&format!("peer=\"{client}\""))).await;
    }
}

#[tokio::test]
async fn tls_follows_the_header() {
    let config = TLS.replace("[[listener.tls]]", "proxy_protocol = true\n[[listener.tls]]");
    let backend = Recorder::start(switch).await;
    let gateway = Gateway::start(&format!("{config}{OPEN}{ADMIN}{}", proxy(&[backend.port]))).await;
    let roots = tls::client(&gateway.folder.read("certs/fullchain.pem"), tls::ANY);
    for (number, header) in [first("203.0.113.9"), second("203.0.113.9:1")].into_iter().enumerate() {
        let stream = tls::connect(begun(&gateway, &header).await, "localhost", &roots).await.unwrap();
        Client::open(stream, "/live/x", &[]).await;
        let head = backend.received()[number].to_ascii_lowercase();
        assert!(head.contains("x-real-ip: 203.0.113.9\r\n") && head.contains("x-forwarded-proto: https\r\n"), "{head}");
    }
    assert!(tls::connect(gateway.tcp().await, "localhost", &roots).await.is_err(), "no header");
    assert_eq!(gateway.metric("wsgate_handshakes_total", &["\"proxy_header\""]).await, 1.0);
}

#[tokio::test]
async fn a_unix_socket_may_have_it_too() {
    let backend = Recorder::start(switch).await;
    let config = listener("unix:http.sock", "proxy_protocol = true");
    let gateway = Gateway::start(&format!("{config}{OPEN}{}", proxy(&[backend.port]))).await;
    for (number, header) in [first("203.0.113.9"), LOCAL.to_vec()].into_iter().enumerate() {
        let mut unix = gateway.unix(0).await;
        unix.write_all(&header).await.unwrap();
        Client::open(unix, "/live/x", &[]).await;
        let head = backend.received()[number].to_ascii_lowercase();
        assert_eq!(head.contains("x-real-ip: 203.0.113.9\r\n"), number == 0, "{head}");
        assert_eq!(head.contains("x-real-ip:"), number == 0, "of the proxy's own no address is known: {head}");
    }
}

#[tokio::test]
async fn limits_of_an_address_are_the_client_s() {
    let limits = "[limits]\nconnections_per_ip = 1\n";
    let gateway = Gateway::start(&format!("{}{OPEN}{ECHO}{ADMIN}{limits}", proxied(""))).await;
    let header = first("203.0.113.9");
    // More from the proxy's address than one address may have.
    let _silent = (gateway.raw().await, gateway.raw().await);
    let one = Client::open(begun(&gateway, &header).await, "/echo", &[]).await;
    let _other = Client::open(begun(&gateway, &first("203.0.113.10")).await, "/echo", &[]).await;
    assert_eq!(status(&gateway, &header, &[]).await, Some(429));
    assert_eq!(status(&gateway, &second("203.0.113.9:2"), &[]).await, Some(429), "by either version");
    assert_eq!(gateway.metric("wsgate_refusals_total", &["\"ip_connections\""]).await, 2.0);
    drop(one);
    eventually(|| async { (status(&gateway, &header, &[]).await? == 101).then_some(()) }).await;
}

#[tokio::test]
async fn handshakes_are_counted_for_the_client() {
    let config = TLS.replace("[[listener.tls]]", "proxy_protocol = true\n[[listener.tls]]");
    let limits = "[limits]\nhandshakes_per_second = 1\n";
    let gateway = Gateway::start(&format!("{config}{OPEN}{ECHO}{ADMIN}{limits}")).await;
    let roots = tls::client(&gateway.folder.read("certs/fullchain.pem"), tls::ANY);
    let mut refused = 0;
    for _ in 0..20 {
        let stream = begun(&gateway, &first("203.0.113.9")).await;
        refused += usize::from(tls::connect(stream, "localhost", &roots).await.is_err());
    }
    assert!(refused > 0);
    assert_eq!(gateway.metric("wsgate_refusals_total", &["\"rate_limit\""]).await, refused as f64);
    for last in 1..=20 {
        let stream = begun(&gateway, &first(&format!("198.51.100.{last}"))).await;
        tls::connect(stream, "localhost", &roots).await.unwrap();
    }
}

/// What a proxy that is trusted says in its headers is said of the client that it is.
#[tokio::test]
async fn networks_are_trusted_by_the_address_in_the_header() {
    let config = proxied("trusted_proxies = [\"10.0.0.0/8\"]");
    let backend = Recorder::start(switch).await;
    let gateway = Gateway::start(&format!("{config}{OPEN}{}", proxy(&[backend.port]))).await;
    let told = [("X-Forwarded-For", "203.0.113.9")];
    for (number, (peer, client)) in [("10.1.2.3", "203.0.113.9"), ("127.0.0.1", "127.0.0.1")].into_iter().enumerate() {
        Client::open(begun(&gateway, &first(peer)).await, "/live/x", &told).await;
        let head = backend.received()[number].to_ascii_lowercase();
        assert!(head.contains(&format!("\r\nx-real-ip: {client}\r\n")), "{head}");
    }
}

#[tokio::test]
async fn without_a_header_nothing_is_answered() {
    let gateway = Gateway::start(&format!("{}{OPEN}{ECHO}{ADMIN}", proxied(""))).await;
    let wrong: [&[u8]; 6] = [
        b"",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 65536\r\n",
        b"PROXY TCP5 203.0.113.9 192.0.2.1 4711 443\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x22\x11\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x01x",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ];
    for header in wrong {
        assert_eq!(status(&gateway, header, &[]).await, None, "{:?}", String::from_utf8_lossy(header));
    }
    assert_eq!(gateway.metric("wsgate_handshakes_total", &["\"proxy_header\""]).await, wrong.len() as f64);
    // Whoever only looks whether somebody listens.
    drop(gateway.tcp().await);
    drop(begun(&gateway, b"PROXY TCP4 203.").await);
    eventually(|| async {
        let gone = gateway.metric("wsgate_handshakes_total", &["\"disconnected\""]).await;
        (gone == 2.0).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("wsgate_handshakes_total", &["\"proxy_header\""]).await, wrong.len() as f64);
    assert_eq!(gateway.metric("wsgate_connections", &[]).await, 0.0);
}

#[tokio::test]
async fn a_header_has_its_time() {
    let gateway = Gateway::start(&format!("{}{OPEN}{ECHO}{ADMIN}", proxied("header_timeout = \"300ms\""))).await;
    let mut silent = gateway.tcp().await;
    let mut partial = begun(&gateway, b"PROXY TCP4 203.0.113.9").await;
    let mut answer = Vec::new();
    for stream in [&mut silent, &mut partial] {
        let _ = within(stream.read_to_end(&mut answer)).await;
    }
    assert!(answer.is_empty());
    assert_eq!(gateway.metric("wsgate_handshakes_total", &["\"proxy_header\""]).await, 2.0);
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    let gateway = Gateway::start(&format!("{}{OPEN}{ECHO}", proxied(""))).await;
    for header in [first("203.0.113.9"), second("203.0.113.9:1")] {
        let mut tcp = gateway.tcp().await;
        tcp.set_nodelay(true).unwrap();
        for byte in header {
            tcp.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut client = Client::open(tcp, "/echo", &[]).await;
        client.text("here").await;
        assert_eq!(client.next_text().await, "here");
    }
}
