//! Switching from nginx: one set of checks against nginx with a usual configuration and against the gateway with its
//! counterpart. What clients and the backend see is the same, but for the differences that stand here.
use crate::support::backend::accept_key;
use crate::support::nginx::Nginx;
use crate::support::origin::Origin;
use crate::support::raw::{Asked, Head, frame, upgrade_head};
use crate::support::*;
use std::path::Path;
use tokio::net::TcpStream;

/// Both configurations, as the README has them.
const NGINX: &str = include_str!("../nginx/nginx.conf");
const GATEWAY: &str = include_str!("../nginx/gateway.toml");

/// What one side says and the other does not, and is meant. A check's name before it where it is of that one alone.
const ONLY_NGINX: [(&str, &str); 7] = [
    ("server: nginx", "says which program it is"),
    ("connection: keep-alive", "is the default of HTTP/1.1; the gateway says nothing"),
    ("backend: connection: close", "opens a connection for each ordinary request, as the usual `map` has it"),
    ("connection: upgrade", "in small letters, which is the same"),
    ("strip, backend: host: app", "the default where nothing is set; here preserve_host is"),
    ("Host, backend: host: localhost", "$host has small letters and no port; the gateway passes it as it came"),
    ("forged, backend: x-forwarded-for: 6.6.6.6, 127.0.0.1", "appends to what the client said"),
];
const ONLY_GATEWAY: [(&str, &str); 9] = [
    ("via: 1.1 wsgate", "RFC 9110, 7.6.3"),
    ("backend: x-forwarded-host: ", "is always told"),
    ("backend: forwarded: ", "is always told"),
    ("connection: Upgrade", "in other letters"),
    ("refused, client: connection: close", "what follows an upgrade that is refused is never read as a request"),
    ("strip, backend: host: localhost", "preserve_host"),
    ("strip, backend: x-", "every route tells who the client is"),
    ("Host, backend: host: LOCALHOST:8443", "as it came"),
    ("forged, backend: x-forwarded-for: 127.0.0.1", "believes trusted_proxies alone"),
];

#[test]
fn the_readme_has_these_configurations() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for (language, text) in [("nginx", NGINX), ("toml", GATEWAY)] {
        assert!(readme.contains(&format!("```{language}\n{text}```\n")), "README.md has another {language}");
    }
}

#[tokio::test]
async fn the_same_is_seen_behind_nginx_and_behind_the_gateway() {
    let origin = Origin::start().await;
    let (certificate, key) = tls::certificate("localhost");
    let servers = format!("127.0.0.1:{}", origin.port);
    let server = replace(NGINX, "127.0.0.1:3000", &servers);
    let files = [("certs/fullchain.pem", certificate.as_bytes()), ("certs/privkey.pem", key.as_bytes())];
    let listens = |port| replace(&server, "listen 443 ", &format!("listen 127.0.0.1:{port} "));
    let Some(nginx) = Nginx::start(listens, &files).await else { return };
    let config = replace(&replace(GATEWAY, "127.0.0.1:3000", &servers), "0.0.0.0:443", "127.0.0.1:0");
    let setup = gateway::Setup::new().file("certs/fullchain.pem", &certificate).file("certs/privkey.pem", &key);
    let gateway = setup.start(&config).await;
    let by_nginx = look(nginx.port, &certificate, &origin).await;
    let by_gateway = look(gateway.port(0), &certificate, &origin).await;
    differ_as_meant("nginx", &by_nginx, &by_gateway, &ONLY_NGINX);
    differ_as_meant("the gateway", &by_gateway, &by_nginx, &ONLY_GATEWAY);
}

/// Every line that is not on the other side is meant, and everything that is meant is there.
fn differ_as_meant(side: &str, here: &[String], there: &[String], meant: &[(&str, &str)]) {
    let only: Vec<&String> = here.iter().filter(|line| !there.contains(line)).collect();
    for line in &only {
        assert!(meant.iter().any(|(part, _)| line.contains(part)), "only behind {side}: {line}\n{there:#?}");
    }
    for (part, why) in meant {
        assert!(only.iter().any(|line| line.contains(part)), "no longer only behind {side}: {part} ({why})");
    }
}

fn replace(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
    text.replace(from, to)
}

/// What is seen on one side, line by line.
struct Look<'a> {
    port: u16,
    certificate: &'a str,
    origin: &'a Origin,
    seen: Vec<String>,
}

async fn look(port: u16, certificate: &str, origin: &Origin) -> Vec<String> {
    let mut look = Look { port, certificate, origin, seen: Vec::new() };
    look.websocket().await;
    look.refused_upgrade().await;
    let ok =
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-App: a\r\nSet-Cookie: c=d\r\nContent-Length: 5\r\n\r\nhello";
    look.ask("GET", "GET /app/x?a=b HTTP/1.1\r\nHost: localhost\r\nCookie: a=b\r\nX-Own: c\r\n\r\n", ok).await;
    look.ask("strip", "GET /api/x?a=b HTTP/1.1\r\nHost: localhost\r\n\r\n", ok).await;
    look.ask("Host", "GET /app/x HTTP/1.1\r\nHost: LOCALHOST:8443\r\n\r\n", ok).await;
    look.ask("forged", "GET /app/x HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n", ok).await;
    let post = "POST /app/x HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";
    look.ask("POST", post, "HTTP/1.1 201 Created\r\nLocation: /app/y\r\nContent-Length: 0\r\n\r\n").await;
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n";
    look.ask("HEAD", "HEAD /app/x HTTP/1.1\r\nHost: localhost\r\n\r\n", head).await;
    let lost = "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nlost";
    look.ask("404", "GET /app/lost HTTP/1.1\r\nHost: localhost\r\n\r\n", lost).await;
    let upload = "POST /app/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    let chunk = format!("40000\r\n{}\r\n", "x".repeat(0x40000));
    look.ask("upload", &(upload + &chunk.repeat(4) + "0\r\n\r\n"), ok).await;
    look.events().await;
    look.kept().await;
    look.elsewhere().await;
    look.seen
}

impl Look<'_> {
    async fn client(&self) -> RawWs {
        let tcp = within(TcpStream::connect(("127.0.0.1", self.port))).await.unwrap();
        RawWs::over(tls::connect(tcp, "localhost", &tls::client(self.certificate, tls::ANY)).await.unwrap())
    }

    fn note(&mut self, check: &str, what: impl std::fmt::Display) {
        self.seen.push(format!("{check}, {what}"));
    }

    fn asked(&mut self, check: &str, asked: &Asked) {
        self.note(check, format!("backend: {}", asked.line));
        for (name, value) in asked.headers().iter().filter(|(name, _)| name != "sec-websocket-key") {
            self.note(check, format!("backend: {name}: {value}"));
        }
    }

    fn answered(&mut self, check: &str, head: &Head) {
        self.note(check, format!("client: {}", head.status));
        for (name, value) in head.headers.iter().filter(|(name, _)| name != "date") {
            self.note(check, format!("client: {name}: {value}"));
        }
    }

    /// A request on a connection of its own, its body at the backend, and the answer.
    async fn ask(&mut self, check: &str, request: &str, answer: &str) {
        let mut client = self.client().await;
        client.send(request).await;
        let (mut backend, asked) = self.origin.asked().await;
        self.asked(check, &asked);
        let body = match asked.header("content-length") {
            Some(length) => backend.take(length.parse().unwrap()).await.len(),
            None if asked.header("transfer-encoding").is_some() => backend.read_chunks().await.0.len(),
            None => 0,
        };
        self.note(check, format!("backend: body of {body} bytes"));
        backend.send(answer).await;
        let head = client.read_head().await;
        self.answered(check, &head);
        if check != "HEAD" {
            let body = client.read_body(&head).await;
            self.note(check, format!("client: body {:?}", String::from_utf8_lossy(&body)));
        }
    }

    async fn websocket(&mut self) {
        let mut client = self.client().await;
        let asks = [
            "Origin: https://app.example.com",
            "Sec-WebSocket-Protocol: chat, v2",
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
            "Cookie: a=b",
        ];
        client.send(upgrade_head("/app/ws?a=b", &asks)).await;
        let (mut backend, asked) = self.origin.asked().await;
        self.asked("upgrade", &asked);
        let key = format!("Sec-WebSocket-Key: {}", asked.header("sec-websocket-key").unwrap());
        let accept = format!("Sec-WebSocket-Accept: {}", accept_key(&key));
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n".to_owned();
        backend.send(format!("{head}{accept}\r\nSec-WebSocket-Protocol: v2\r\nSet-Cookie: c=d\r\n\r\n")).await;
        let head = client.read_head().await;
        self.answered("upgrade", &head);
        let hello = frame(0x81, b"hello");
        client.send(&hello).await;
        assert_eq!(backend.take(hello.len()).await, hello);
        backend.send(b"\x81\x05world").await;
        let answer = client.read_frame().await;
        self.note("frames", format!("client: {:02x} {}", answer.first, answer.payload.escape_ascii()));
        let close = frame(0x88, &4321_u16.to_be_bytes());
        client.send(&close).await;
        let closed = backend.take(close.len()).await;
        self.note(
            "close",
            format!(
                "backend: code {:?}",
                &closed[6..].iter().zip([0x37, 0xfa]).map(|(b, m)| b ^ m).collect::<Vec<_>>()
            ),
        );
        backend.send(b"\x88\x02\x10\xe1").await;
        let code = client.expect_close(4321).await;
        self.note("close", format!("client: 4321 {code:?}"));
    }

    async fn refused_upgrade(&mut self) {
        let mut client = self.client().await;
        client.send(upgrade_head("/app/ws", &[])).await;
        let (mut backend, _) = self.origin.asked().await;
        backend.send("HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno").await;
        let head = client.read_head().await;
        self.answered("refused", &head);
        assert_eq!(client.read_body(&head).await, b"no");
    }

    /// The first event is there before the second has been sent.
    async fn events(&mut self) {
        let mut client = self.client().await;
        client.send("GET /app/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n").await;
        let (mut backend, _) = self.origin.asked().await;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        backend.send(format!("{head}9\r\ndata: 1\n\n\r\n")).await;
        let head = client.read_head().await;
        self.answered("events", &head);
        assert_eq!(client.read_chunk().await.unwrap(), b"data: 1\n\n");
        backend.send("9\r\ndata: 2\n\n\r\n0\r\n\r\n").await;
        assert_eq!(client.read_chunks().await.0, b"data: 2\n\n");
    }

    /// Two requests on one connection of a client.
    async fn kept(&mut self) {
        let mut client = self.client().await;
        for _ in 0..2 {
            client.send("GET /app/x HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            let (mut backend, _) = self.origin.asked().await;
            backend.send("HTTP/1.1 204 No Content\r\n\r\n").await;
            assert_eq!(client.read_head().await.status, 204);
        }
    }

    /// Nothing is served there.
    async fn elsewhere(&mut self) {
        for (check, path) in [("no route", "/nowhere"), ("dots", "/app/../nowhere")] {
            let mut client = self.client().await;
            client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            let status = client.read_head().await.status;
            self.note(check, format!("client: {status}"));
        }
    }
}
