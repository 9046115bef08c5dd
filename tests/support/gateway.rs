//! The real binary on free ports, in a folder of its own, ended on Drop.
use super::{Client, DEADLINE, Folder, RawWs, SECRET, signal, tls, within};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

/// A running gateway.
pub struct Gateway {
    pub folder: Folder,
    child: Child,
    log: Log,
    listeners: Vec<String>,
    admin: Option<String>,
}

/// Standard output and standard error so far, line by line, each in its own list.
#[derive(Clone)]
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    output: Arc<Mutex<String>>,
    grown: watch::Receiver<usize>,
}

/// What is needed before the gateway starts.
pub struct Setup {
    folder: Folder,
    ulimit: Option<String>,
    environment: Vec<(String, String)>,
}

impl Setup {
    pub fn new() -> Setup {
        let folder = Folder::new();
        folder.write("jwt-secret", SECRET);
        Setup { folder, ulimit: None, environment: Vec::new() }
    }

    /// A file beside the configuration.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Setup {
        self.folder.write(name, content);
        self
    }

    /// The most descriptors that the process may open.
    pub fn descriptors(mut self, most: u32) -> Setup {
        self.ulimit = Some(format!("ulimit -n {most}"));
        self
    }

    /// The most descriptors that the process may open before it raises the limit itself.
    pub fn descriptors_at_first(mut self, most: u32) -> Setup {
        self.ulimit = Some(format!("ulimit -Sn {most}"));
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Setup {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the gateway with this configuration and waits until it listens everywhere.
    pub async fn start(self, config: &str) -> Gateway {
        self.folder.write("gateway.toml", config);
        let mut command = match self.ulimit {
            None => Command::new(binary()),
            Some(ulimit) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("{ulimit}; exec \"$0\" \"$@\"")).arg(binary());
                shell
            }
        };
        command.args(["serve", "--config", "gateway.toml"]).envs(self.environment);
        let mut child = command
            .current_dir(self.folder.path())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::of(&mut child);
        let listeners = config.lines().filter(|l| l.trim() == "[[listener]]").count();
        let admin = config.lines().any(|l| l.trim() == "[admin]");
        let mut gateway = Gateway { folder: self.folder, child, log, listeners: Vec::new(), admin: None };
        gateway.wait_until_listening(listeners, admin).await;
        gateway
    }
}

impl Default for Setup {
    fn default() -> Self {
        Setup::new()
    }
}

/// The binary under test: cargo's, or the one that `WSGATE_TEST_BINARY` names.
pub fn binary() -> String {
    std::env::var("WSGATE_TEST_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_wsgate").to_owned())
}

/// Runs a command of the binary to its end in this folder.
pub fn wsgate(folder: &Folder, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(folder.path()).env_remove("RUST_LOG").stdin(Stdio::null());
    command.output().unwrap()
}

impl Gateway {
    /// Starts the gateway; `jwt-secret` with [`SECRET`] stands beside the configuration.
    pub async fn start(config: &str) -> Gateway {
        Setup::new().start(config).await
    }

    async fn wait_until_listening(&mut self, listeners: usize, admin: bool) {
        let all = |lines: &[String]| {
            let found: Vec<_> = lines.iter().filter_map(|l| listening(l)).collect();
            let tcp = (0..listeners).map(|i| address_of(&found, &i.to_string())).collect::<Option<Vec<_>>>()?;
            let admin = if admin { Some(address_of(&found, "admin")?) } else { None };
            Some((tcp, admin))
        };
        (self.listeners, self.admin) = self.log.wait(all).await;
    }

    /// The address of a listener: `127.0.0.1:PORT` or `unix:PATH`.
    pub fn address(&self, listener: usize) -> &str {
        &self.listeners[listener]
    }

    pub fn port(&self, listener: usize) -> u16 {
        self.listeners[listener].rsplit(':').next().unwrap().parse().unwrap()
    }

    pub fn admin(&self) -> &str {
        self.admin.as_deref().expect("this configuration has no [admin]")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A TCP connection to the first listener.
    pub async fn tcp(&self) -> TcpStream {
        within(TcpStream::connect(&self.listeners[0])).await.unwrap()
    }

    pub async fn unix(&self, listener: usize) -> UnixStream {
        let path = self.listeners[listener].strip_prefix("unix:").unwrap();
        within(UnixStream::connect(self.folder.path().join(path))).await.unwrap()
    }

    /// A WebSocket of the first, plain listener.
    pub async fn open(&self, path: &str) -> Client {
        Client::open(self.tcp().await, path, &[]).await
    }

    /// A WebSocket with more headers.
    pub async fn open_with(&self, path: &str, headers: &[(&str, &str)]) -> Client {
        Client::open(self.tcp().await, path, headers).await
    }

    /// A WebSocket of a client with this token in its `Authorization` header.
    pub async fn open_as(&self, path: &str, token: &str) -> Client {
        self.open_with(path, &[("Authorization", &format!("Bearer {token}"))]).await
    }

    /// Bytes instead of a client: plain TCP to the first listener.
    pub async fn raw(&self) -> RawWs {
        RawWs::over(self.tcp().await)
    }

    /// Bytes instead of a client, after a good upgrade of `path`.
    pub async fn raw_ws(&self, path: &str) -> RawWs {
        let mut raw = self.raw().await;
        raw.upgrade(path, &[]).await;
        raw
    }

    /// TLS to a listener with the certificate that stands in `certs/fullchain.pem` as the only root.
    pub async fn tls(&self, listener: usize) -> tls::Stream {
        let roots = self.folder.read("certs/fullchain.pem");
        let tcp = within(TcpStream::connect(&self.listeners[listener])).await.unwrap();
        tls::connect(tcp, "localhost", &tls::client(&roots, tls::ANY)).await.unwrap()
    }

    /// Status and body of a `GET` on the admin address.
    pub async fn admin_get(&self, path: &str) -> (u16, String) {
        let tcp = within(TcpStream::connect(self.admin())).await.unwrap();
        let mut raw = RawWs::over(tcp);
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin())).await;
        let head = raw.read_head().await;
        (head.status, String::from_utf8(raw.read_body(&head).await).unwrap())
    }

    /// The sum of all series of this name that carry these labels, as in `outcome="refused"`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let metrics = self.admin_get("/metrics").await.1;
        let series = metrics.lines().filter(|l| !l.starts_with('#') && l.starts_with(name));
        let series = series.filter(|l| labels.iter().all(|label| l.contains(label)));
        series.map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Standard error so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Standard output so far.
    pub fn output(&self) -> String {
        self.log.output.lock().unwrap().clone()
    }

    /// The first line of the log for which `wanted` holds, now or later.
    pub async fn wait_for_log(&self, wanted: impl Fn(&str) -> bool) -> String {
        self.log.wait(|lines| lines.iter().find(|l| wanted(l)).cloned()).await
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// SIGTERM, then the exit status.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.exit().await
    }

    /// The exit status, once the process ends by itself.
    pub async fn exit(&mut self) -> ExitStatus {
        let started = Instant::now();
        let mut turn = tokio::time::interval(Duration::from_millis(20));
        loop {
            turn.tick().await;
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < DEADLINE, "the gateway did not end; its log:\n{}", self.log());
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the gateway's log ---\n{}\n--- end of log ---", self.log());
        }
    }
}

impl Log {
    /// Reads both outputs of the child on threads of their own until they end.
    fn of(child: &mut Child) -> Log {
        let (grow, grown) = watch::channel(0);
        let log = Log { lines: Arc::default(), output: Arc::default(), grown };
        let (lines, output) = (log.lines.clone(), log.output.clone());
        let mut stdout = child.stdout.take().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut chunk) {
                output.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..n]));
            }
        });
        std::thread::spawn(move || {
            for line in stderr.split(b'\n').map_while(Result::ok) {
                lines.lock().unwrap().push(without_colours(&String::from_utf8_lossy(&line)));
                grow.send_modify(|n| *n += 1);
            }
        });
        log
    }

    /// All lines; nothing is locked any more when they are printed by a panic.
    fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// What `find` makes of the lines, as soon as it makes something of them.
    async fn wait<T>(&self, find: impl Fn(&[String]) -> Option<T>) -> T {
        let mut grown = self.grown.clone();
        let found = tokio::time::timeout(DEADLINE, async {
            loop {
                grown.mark_unchanged();
                if let Some(found) = find(&self.lines.lock().unwrap()) {
                    return Some(found);
                }
                if grown.changed().await.is_err() {
                    return find(&self.lines.lock().unwrap());
                }
            }
        });
        match found.await {
            Ok(Some(found)) => found,
            Ok(None) => panic!("the gateway ended; its log:\n{}", self.text()),
            Err(_) => panic!("no such line; the gateway's log:\n{}", self.text()),
        }
    }
}

/// The listener's name and address in a line such as `… listening address=127.0.0.1:1 listener=0 tls=true`,
/// as text or JSON.
fn listening(line: &str) -> Option<(String, String)> {
    if !line.contains("listening") {
        return None;
    }
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(line) {
        let fields = json.get("fields").unwrap_or(&json);
        let listener = fields.get("listener")?.to_string();
        return Some((listener.trim_matches('"').to_owned(), fields.get("address")?.as_str()?.to_owned()));
    }
    let field = |name: &str| {
        let value = line.split_whitespace().find_map(|word| word.strip_prefix(name));
        value.map(|v| v.trim_matches('"').to_owned())
    };
    Some((field("listener=")?, field("address=")?))
}

fn address_of(found: &[(String, String)], listener: &str) -> Option<String> {
    found.iter().find(|(name, _)| name == listener).map(|(_, address)| address.clone())
}

fn without_colours(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}
