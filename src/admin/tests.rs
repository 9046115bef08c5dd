mod bodies;
mod calls;

use super::*;
use crate::config::secret::Secret;
use crate::rooms::{Inbox, Shared};
use hyper::{HeaderMap, StatusCode, header};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Running {
    address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A state whose rooms have one shard, and what is asked of it.
fn state(address: SocketAddr, token: Option<&str>, config: &str) -> (State, Vec<Inbox>) {
    let config = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n[auth]\nrequired = false\nsources = []\n{config}\n");
    let config = config::file::parse(&config, "gateway.toml", &|_| None, 1);
    let config = Arc::new(config.unwrap_or_else(|faults| panic!("{faults}")));
    let (shared, inboxes) = Shared::new(1, crate::rooms::Parts::alone(config.rooms.clone()));
    let admin = config::Admin { address, token: token.map(Secret::new) };
    let health = Arc::new(Health::new(1, Instant::now().into_std()));
    let (desk, upstreams) = (Desk::new(shared), Upstreams::new(&config.upstreams));
    (State::new(admin, config, Metrics::new(1), health, desk, Bans::in_memory(), upstreams), inboxes)
}

/// The interface of this state.
fn open(state: &Arc<State>) -> Arc<Interface> {
    let interface = Interface::new(&state.admin);
    interface.open(Arc::clone(state));
    interface
}

const ROUTE: &str = "[[route]]\npath = \"/ws\"\nservice = \"rooms\"\n";

/// The interface alone; its rooms have ended, and answer nothing.
async fn start(token: Option<&str>) -> Running {
    start_with(token, ROUTE).await
}

/// The same with these routes.
async fn start_with(token: Option<&str>, config: &str) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let state = Arc::new(state(address, token, config).0);
    let task = tokio::spawn(serve(listener, open(&state)));
    Running { address, state, task }
}

impl Running {
    async fn call(&self, method: &str, path: &str, more: &str) -> (StatusCode, HeaderMap, String) {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{more}\r\n", self.address);
        parse(&self.raw(&head).await)
    }

    /// A call with a JSON body.
    async fn send(&self, method: &str, path: &str, body: &str) -> (StatusCode, HeaderMap, String) {
        let more = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        self.with_body(method, path, &more, body).await
    }

    async fn with_body(&self, method: &str, path: &str, more: &str, body: &str) -> (StatusCode, HeaderMap, String) {
        parse(&self.raw_bytes(method, path, more, body.as_bytes()).await)
    }

    /// A body that is no text.
    async fn raw_bytes(&self, method: &str, path: &str, more: &str, body: &[u8]) -> String {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{more}\r\n", self.address);
        self.exchange(&[head.as_bytes(), body].concat()).await
    }

    async fn raw(&self, head: &str) -> String {
        self.exchange(head.as_bytes()).await
    }

    async fn exchange(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("connect");
        stream.write_all(request).await.expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    }
}

fn parse(answer: &str) -> (StatusCode, HeaderMap, String) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.lines();
    let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok()).expect("a status");
    let headers = lines
        .filter_map(|l| l.split_once(": "))
        .map(|(n, v)| (n.parse::<header::HeaderName>().expect("name"), v.parse().expect("value")))
        .collect();
    (status, headers, body.to_owned())
}

fn error_code(body: &str) -> u64 {
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert!(body["error"]["message"].is_string(), "{body}");
    body["error"]["code"].as_u64().expect("a code")
}

#[tokio::test]
async fn health_follows_phase_and_heartbeat() {
    let admin = start(None).await;
    assert_eq!(admin.call("GET", "/healthz", "").await.0, 200);
    assert_eq!(admin.call("GET", "/readyz", "").await.0, 503);
    admin.state.health.set_ready();
    let (status, headers, body) = admin.call("GET", "/readyz", "").await;
    assert_eq!((status.as_u16(), body.as_str()), (200, "ok"));
    assert_eq!(headers["cache-control"], "no-store");
    admin.state.health.set_draining();
    let (status, _, body) = admin.call("GET", "/readyz", "").await;
    assert_eq!((status.as_u16(), error_code(&body)), (503, 4000));
    assert_eq!(admin.call("GET", "/healthz", "").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_shard_is_not_healthy() {
    let (state, _inboxes) = state(([127, 0, 0, 1], 9180).into(), None, ROUTE);
    state.health.set_ready();
    assert!(healthz(&state).is_ok());
    tokio::time::advance(STALE_AFTER + Duration::from_millis(1)).await;
    assert!(matches!(healthz(&state), Err(Fault::Unavailable(_))));
    assert!(matches!(readyz(&state), Err(Fault::Unavailable(_))));
    state.health.beat(0, Instant::now().into_std());
    assert!(healthz(&state).is_ok());
}

#[tokio::test]
async fn metrics_ask_for_the_token_and_health_does_not() {
    let admin = start(Some("s3cret")).await;
    let (status, headers, body) = admin.call("GET", "/metrics", "").await;
    assert_eq!((status.as_u16(), error_code(&body)), (401, 4001));
    assert_eq!(headers["www-authenticate"], "Bearer");
    let (status, _, body) = admin.call("GET", "/metrics", "Authorization: Bearer wrong\r\n").await;
    assert_eq!((status.as_u16(), error_code(&body)), (401, 4002));
    assert!(!body.contains("wrong"));
    let (status, headers, body) = admin.call("GET", "/metrics", "Authorization: Bearer s3cret\r\n").await;
    assert_eq!(status, 200);
    assert_eq!(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert!(body.contains("\nwsgate_connections 0\n"), "{body}");
    assert_eq!(admin.call("GET", "/healthz", "").await.0, 200);
}

#[tokio::test]
async fn other_calls_are_faults() {
    let admin = start(None).await;
    for path in ["/", "/healthz/", "/metrics/x", "/api", "/api/", "//api/status"] {
        let (status, headers, body) = admin.call("GET", path, "").await;
        assert_eq!((status.as_u16(), error_code(&body)), (404, 4000), "{path}");
        assert_eq!(headers["content-type"], "application/json");
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        let (status, headers, body) = admin.call("POST", path, "Content-Length: 0\r\n").await;
        assert_eq!((status.as_u16(), error_code(&body)), (405, 4000), "{path}");
        assert_eq!(headers["allow"], "GET, HEAD");
    }
    let (status, headers, body) = admin.call("HEAD", "/healthz", "").await;
    assert_eq!((status.as_u16(), body.as_str()), (200, ""));
    assert_eq!(headers["content-length"], "2");
    assert_eq!(admin.call("GET", "/healthz", "Origin: https://evil.example\r\n").await.0, 403);
    let rebound = admin.raw("GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").await;
    assert_eq!(parse(&rebound).0, 421);
    let huge = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(BUFFER_BYTES));
    assert!(parse(&admin.raw(&huge).await).0.is_client_error());
}

/// One call after another on a connection that stays open.
#[tokio::test]
async fn a_connection_may_be_kept() {
    let admin = start(None).await;
    let mut stream = TcpStream::connect(admin.address).await.expect("connect");
    for _ in 0..3 {
        let head = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", admin.address);
        stream.write_all(head.as_bytes()).await.expect("write");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            assert_ne!(stream.read_buf(&mut answer).await.expect("read"), 0);
        }
    }
}

/// Silent peers are let go after the head's time, and what waits behind them is served then.
#[tokio::test(start_paused = true)]
async fn silent_connections_do_not_hold_the_places() {
    let admin = start(None).await;
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(TcpStream::connect(admin.address).await.expect("connect"));
    }
    assert_eq!(admin.call("GET", "/healthz", "").await.0, 200);
    let waited = began.elapsed();
    assert!(waited >= HEAD_TIMEOUT && waited < 2 * HEAD_TIMEOUT, "{waited:?}");
}

/// A kept connection that asks no more is closed as well.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends() {
    let admin = start(None).await;
    let head = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", admin.address);
    let answer = timeout(HEAD_TIMEOUT * 2, admin.raw(&head)).await.expect("closed by the interface");
    assert!(answer.ends_with("ok"));
}
