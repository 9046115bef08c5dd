use super::*;
use crate::config::secret::Secret;
use serde_json::Value;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

mod asked;
mod failing;
mod told;

const ALL: [HookEvent; 7] = [
    HookEvent::Connect,
    HookEvent::Join,
    HookEvent::Publish,
    HookEvent::Occupied,
    HookEvent::Vacated,
    HookEvent::Joined,
    HookEvent::Left,
];

/// A request as it came over the wire.
struct Seen {
    connection: usize,
    head: String,
    raw: Vec<u8>,
    body: Value,
}

impl Seen {
    fn id(&self) -> &str {
        self.body["id"].as_str().expect("an id")
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// What the application of a test does with a request.
enum Reply {
    /// Sends this and waits for the next one.
    Say(String),
    /// Sends this and closes.
    Last(String),
    /// Sends this and never anything more.
    Silent(String),
    /// Sends this chunk again and again.
    Endless(&'static str),
    /// Says 200 when the value has become true.
    Held(watch::Receiver<bool>),
}

fn say(status: u16, body: &str) -> Reply {
    Reply::Say(http(status, body))
}

fn http(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} Any\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

type Script = Box<dyn Fn(usize, &Seen) -> Reply + Send + Sync>;

/// An application on a loopback port, by a script: the number of a request, and the request, give the reply.
struct Application {
    url: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    script: Script,
    seen: Mutex<Vec<Seen>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Drop for Application {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Application {
    async fn start(script: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Application {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}/hook?from=wsgate", listener.local_addr().expect("address"));
        let shared = Arc::new(Shared {
            script: Box::new(script),
            seen: Mutex::default(),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
        });
        let serving = shared.clone();
        let task = tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.expect("accept");
                tokio::spawn(serve(stream, connection, serving.clone()));
            }
        });
        Application { url, shared, task }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Vec<Seen>> {
        self.shared.seen.lock().expect("a lock")
    }
}

async fn serve(mut stream: TcpStream, connection: usize, shared: Arc<Shared>) {
    while let Some(seen) = request(&mut stream, connection).await {
        let now = shared.at_once.fetch_add(1, Relaxed) + 1;
        shared.most_at_once.fetch_max(now, Relaxed);
        let reply = {
            let mut all = shared.seen.lock().expect("a lock");
            let reply = (shared.script)(all.len(), &seen);
            all.push(seen);
            reply
        };
        let text = match reply {
            Reply::Say(text) => text,
            Reply::Last(text) => return drop(stream.write_all(text.as_bytes()).await),
            Reply::Silent(text) => {
                stream.write_all(text.as_bytes()).await.expect("write");
                return std::future::pending().await;
            }
            Reply::Endless(piece) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.expect("write");
                let pieces = piece.repeat(1000);
                while stream.write_all(pieces.as_bytes()).await.is_ok() {}
                return;
            }
            Reply::Held(mut open) => {
                open.wait_for(|open| *open).await.expect("the gate");
                http(200, "")
            }
        };
        shared.at_once.fetch_sub(1, Relaxed);
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The next request of a connection; `None` where the client has closed it.
async fn request(stream: &mut TcpStream, connection: usize) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("a head in UTF-8");
    let mut seen = Seen { connection, head, raw: Vec::new(), body: Value::Null };
    seen.raw = vec![0; seen.header("content-length").expect("a length").parse().expect("a number")];
    stream.read_exact(&mut seen.raw).await.ok()?;
    seen.body = serde_json::from_slice(&seen.raw).expect("JSON");
    Some(seen)
}

struct Setup {
    config: config::Hook,
    tuning: Tuning,
}

/// Every event, a time that no test waits for, short pauses.
fn setup(url: &str) -> Setup {
    Setup {
        config: config::Hook {
            url: url.to_owned(),
            events: ALL.to_vec(),
            timeout: Duration::from_secs(20),
            deny_on_failure: true,
            secret: None,
        },
        tuning: Tuning {
            first_pause: Duration::from_millis(1),
            longest_pause: Duration::from_millis(4),
            last_pause: Duration::from_millis(4),
            ..Tuning::default()
        },
    }
}

impl Setup {
    fn hook(&self) -> Arc<Hook> {
        Hook::tuned(&self.config, Metrics::new(1), self.tuning).expect("a hook")
    }
}

fn question(event: HookEvent) -> Question<'static> {
    Question {
        event,
        namespace: "default",
        client: "alice",
        session_id: None,
        room: None,
        message_id: None,
        message: None,
        ip: None,
    }
}

/// The value of a series.
fn counted(hook: &Hook, series: &str) -> u64 {
    let text = hook.metrics.encode();
    let line = text.lines().find_map(|line| line.strip_prefix(series)).expect("the series");
    line.trim().parse().expect("a number")
}

fn asked_of(hook: &Hook, event: &str, outcome: &str) -> u64 {
    counted(hook, &format!(r#"wsgate_hook_asked_total{{event="{event}",outcome="{outcome}"}}"#))
}

fn told_of(hook: &Hook, outcome: &str) -> u64 {
    counted(hook, &format!(r#"wsgate_hook_told_total{{outcome="{outcome}"}}"#))
}

/// A port where nobody listens.
async fn deserted() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    format!("http://{}/", listener.local_addr().expect("address"))
}

#[test]
fn signatures_are_those_of_rfc_4231() {
    let cases: [(&[u8], &[u8], &str); 3] = [
        (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (&[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    ];
    for (secret, body, digest) in cases {
        assert_eq!(Signer::new(&Secret::new(secret)).sign(body), format!("sha256={digest}"));
    }
}

#[test]
fn only_a_url_of_a_server_has_a_hook() {
    for url in [
        "http://localhost/",
        "https://localhost/",
        "http://127.0.0.1:3000/a?b",
        "http://[::1]:80",
        "HTTP://app.example:81",
    ] {
        assert!(Hook::new(&setup(url).config, Metrics::new(1)).is_ok(), "{url}");
    }
    for url in ["localhost", "/hook", "http://", "http://me:pass@localhost/", "unix:/x", ""] {
        let fault = Hook::new(&setup(url).config, Metrics::new(1)).expect_err(url);
        assert!(!fault.contains("pass"), "{fault}");
    }
}

#[test]
fn what_is_shown_of_a_hook_holds_no_secret() {
    let mut setup = setup("http://localhost/");
    setup.config.secret = Some(Secret::new("s3cret-s3cret"));
    let hook = setup.hook();
    let shown = format!("{hook:?} {:?} {:?}", hook.asker(0), setup.config);
    assert!(!shown.contains("s3cret") && !shown.contains("115, 51"), "{shown}");
}

#[test]
fn the_log_hears_of_the_same_trouble_once() {
    let seldom = Seldom::new();
    assert!(seldom.may_log());
    assert!(!seldom.may_log());
    seldom.next_ms.store(0, Relaxed);
    assert!(seldom.may_log());
}

fn is_shared<T: Send + Sync>(_: &T) {}

#[test]
fn a_hook_is_shared_by_threads() {
    let hook = setup("http://localhost/").hook();
    is_shared(&hook);
    for event in ALL {
        assert_ne!(hook.asks(event), hook.tells(event), "{event:?}");
    }
    let mut setup = setup("http://localhost/");
    setup.config.events = vec![HookEvent::Join, HookEvent::Left];
    let hook = setup.hook();
    let asks: Vec<_> = ALL.into_iter().filter(|e| hook.asks(*e)).collect();
    let tells: Vec<_> = ALL.into_iter().filter(|e| hook.tells(*e)).collect();
    assert_eq!((asks, tells), (vec![HookEvent::Join], vec![HookEvent::Left]));
}
