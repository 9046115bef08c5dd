//! Programs nobody here wrote: servers and clients of npm and PyPI, curl, Chromium; and a backend that only
//! records what it received.
use super::message::Message;
use super::{DEADLINE, eventually, skip, within};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::process::{Child, ChildStdout, Command};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// A kind of program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// npm `ws` and `playwright-core`.
    Node,
    /// PyPI `websockets`, `h2` and `wsproto`.
    Python,
}

impl Peer {
    /// A command that runs `tests/peers/NAME` of this kind; `None` (and a plain line) where the
    /// environment is missing. `tests/run` makes the environments and names them.
    pub fn command(self, name: &str) -> Option<Command> {
        let (variable, extension) = match self {
            Peer::Node => ("WSGATE_TEST_NODE", "mjs"),
            Peer::Python => ("WSGATE_TEST_PY", "py"),
        };
        let Some(environment) = std::env::var_os(variable).map(PathBuf::from) else {
            skip(&format!("{variable} is not set; tests/run makes that environment"));
            return None;
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/peers/{name}.{extension}"));
        let mut command = match self {
            Peer::Node => Command::new("node"),
            Peer::Python => Command::new(environment.join("bin/python")),
        };
        command.arg(script).env("WSGATE_TEST_NODE", &environment).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Some(command)
    }

    /// Runs `tests/peers/client` with a scenario against this URL and gives what it reports.
    pub async fn client(self, url: &str, scenario: &str, environment: &[(&str, &str)]) -> Option<Value> {
        self.run("client", &[url, scenario], environment).await
    }

    /// Runs `tests/peers/NAME` to its end and gives the line of JSON that it prints last.
    pub async fn run(self, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Option<Value> {
        let mut command = self.command(name)?;
        command.args(arguments).envs(environment.iter().copied()).stderr(Stdio::piped());
        let output = within(command.output()).await.unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name} {arguments:?} ({self:?}): {}\n{out}\n{err}", output.status);
        Some(serde_json::from_str(out.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {out}")))
    }
}

/// Where this program of the machine's is, which `tests/run` installs; `None` (and a plain line) where it is missing.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = folders.map(|folder: PathBuf| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// A real WebSocket server behind the gateway. What it sees it tells line by line, as JSON:
/// `{"event": "open", "path", "headers", "protocol"}`, `{"event": "close", "code", "reason", "sizes"}` with the sizes of
/// the first messages; npm `ws` also `{"event": "ping" or "pong", "payload"}`, in hexadecimal.
pub struct Backend {
    pub port: u16,
    child: Child,
    events: Lines<BufReader<ChildStdout>>,
}

impl Backend {
    /// An echo server of this kind on a free port; `None` where its environment is missing.
    pub async fn start(peer: Peer) -> Option<Backend> {
        Backend::run(peer, "echo").await
    }

    /// The application `tests/peers/httpd.mjs`: ordinary requests and WebSockets, on a free port.
    pub async fn httpd() -> Option<Backend> {
        Backend::run(Peer::Node, "httpd").await
    }

    async fn run(peer: Peer, name: &str) -> Option<Backend> {
        let mut child = peer.command(name)?.spawn().unwrap();
        let mut events = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = within(events.next_line()).await.unwrap().expect("the backend ended");
        let first: Value = serde_json::from_str(&first).unwrap();
        Some(Backend { port: first["port"].as_u64().unwrap() as u16, child, events })
    }

    /// The next event of this name; others are skipped.
    pub async fn event(&mut self, name: &str) -> Value {
        loop {
            let line = within(self.events.next_line()).await.unwrap().expect("the backend ended");
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["event"] == name {
                return event;
            }
        }
    }

    /// Sends a signal to the server.
    pub fn signal(&self, name: &str) {
        super::signal(self.child.id().unwrap(), name);
    }

    /// Ends the server without a word to its sockets.
    pub async fn kill(&mut self) {
        self.child.start_kill().unwrap();
        within(self.child.wait()).await.unwrap();
    }
}

/// A backend that keeps every byte it received, and answers a request head as it is told to.
pub struct Recorder {
    /// 0 where it listens on no port.
    pub port: u16,
    received: Received,
    task: tokio::task::JoinHandle<()>,
}

type Received = Arc<Mutex<Vec<Vec<u8>>>>;

/// What is answered to a request of this head.
type Answers = Arc<dyn Fn(&str) -> Vec<u8> + Send + Sync>;

impl Recorder {
    /// Answers every request of a connection with what `answer` makes of its head, up to a 101, and goes on
    /// recording.
    pub async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Recorder {
        Recorder::accept(answer, |tcp| async { Some(tcp) }).await
    }

    /// The same behind TLS; what is received is what was encrypted.
    pub async fn tls(config: ServerConfig, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Recorder {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Recorder::accept(answer, move |tcp| {
            let acceptor = acceptor.clone();
            async move { acceptor.accept(tcp).await.ok() }
        })
        .await
    }

    /// The same on a Unix socket.
    pub fn unix(path: &Path, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Recorder {
        let listener = UnixListener::bind(path).unwrap();
        let (received, answer) = (Received::default(), Arc::new(answer));
        let all = received.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(record(stream, answer.clone(), all.clone(), begin(&all)));
            }
        });
        Recorder { port: 0, received, task }
    }

    async fn accept<S, F>(
        answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
        upgrade: impl Fn(TcpStream) -> F + Clone + Send + Sync + 'static,
    ) -> Recorder
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = Option<S>> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (received, answer) = (Received::default(), Arc::new(answer));
        let all = received.clone();
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (all, answer, upgrade, number) = (all.clone(), answer.clone(), upgrade.clone(), begin(&all));
                tokio::spawn(async move {
                    if let Some(stream) = upgrade(tcp).await {
                        record(stream, answer, all, number).await;
                    }
                });
            }
        });
        Recorder { port, received, task }
    }

    /// What each connection sent so far, as text.
    pub fn received(&self) -> Vec<String> {
        self.bytes().iter().map(|b| String::from_utf8_lossy(b).into_owned()).collect()
    }

    /// Waits until the first connection has sent exactly this behind its head.
    pub async fn gets(&self, sent: &[u8]) {
        eventually(|| async {
            let received = self.bytes();
            let body = received.first()?.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
            let frames = &received[0][body..];
            assert!(sent.starts_with(frames), "the bytes were changed: {frames:?}");
            (frames.len() == sent.len()).then_some(())
        })
        .await;
    }

    /// What each connection sent so far, of those that sent anything: others only look whether somebody listens.
    pub fn bytes(&self) -> Vec<Vec<u8>> {
        self.received.lock().unwrap().iter().filter(|bytes| !bytes.is_empty()).cloned().collect()
    }

    /// How many connections have sent a request for a path that begins so.
    pub fn requests(&self, path: &str) -> usize {
        let wanted = format!("GET {path}");
        self.received().iter().filter(|sent| sent.contains(&wanted)).count()
    }
}

fn begin(all: &Received) -> usize {
    let mut all = all.lock().unwrap();
    all.push(Vec::new());
    all.len() - 1
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The right 101 to an upgrade.
pub fn switch(head: &str) -> Vec<u8> {
    let accept = accept_key(head);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

/// The right `Sec-WebSocket-Accept`.
pub fn accept_key(head: &str) -> String {
    let lines = head.lines().filter_map(|l| l.split_once(':'));
    let key = lines.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    tungstenite::handshake::derive_accept_key(key.map_or("", |(_, key)| key.trim()).as_bytes())
}

async fn record(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: Answers, all: Received, number: usize) {
    let mut chunk = [0; 4096];
    let (mut answered, mut switched) = (0, false);
    while let Ok(Ok(n @ 1..)) = tokio::time::timeout(DEADLINE, stream.read(&mut chunk)).await {
        all.lock().unwrap()[number].extend_from_slice(&chunk[..n]);
        while !switched {
            let whole = {
                let received = &all.lock().unwrap()[number];
                if answered == 0 {
                    answered = proxy_header(received);
                }
                received.get(answered..).and_then(Message::first_of)
            };
            let Some((message, length)) = whole else { break };
            answered += length;
            let answer = answer(&message.head);
            switched = answer.starts_with(b"HTTP/1.1 101");
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

/// The length of the PROXY header, version 2, that a connection begins with, 0 for none.
fn proxy_header(received: &[u8]) -> usize {
    if received.len() < 16 || !received.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
        return 0;
    }
    16 + usize::from(u16::from_be_bytes([received[14], received[15]]))
}

/// A port of this machine on which nobody listens.
pub async fn unused_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}
