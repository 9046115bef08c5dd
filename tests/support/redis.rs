//! Redis as its packages have it: servers, replicas, a Sentinel, and a Redis Cluster of three masters, each on ports of
//! its own and ended on Drop.
mod ask;
mod cluster;
mod sentinel;

pub use ask::Said;
pub use cluster::RedisCluster;
pub use sentinel::Sentinel;

use super::{Folder, eventually, signal, skip, tls};
use serde_json::Value;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// A server of its own. Nothing of it is on disk unless a setup says so.
pub struct Redis {
    pub port: u16,
    /// Where it speaks TLS, if it does.
    pub tls_port: Option<u16>,
    pub folder: Folder,
    child: Child,
    is_sentinel: bool,
}

/// What is needed before a server starts.
pub struct Setup {
    folder: Folder,
    lines: Vec<String>,
    tls: bool,
    is_sentinel: bool,
}

/// Whether there is a redis-server; a plain line where there is none.
pub fn is_here() -> bool {
    let version = Command::new("redis-server").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if version.is_err() {
        skip("there is no redis-server; tests/run installs it on Debian");
    }
    version.is_ok()
}

/// What a server, or a way to it, at this port answers to one word.
pub async fn ask_at(port: u16, word: &str) -> Said {
    ask::once(port, &[word]).await
}

/// A port of this machine on which nobody listens, and that the kernel gives to nobody: while a server is away, a
/// connection that is tried again and again would else be given the server's own port, and reach itself.
fn quiet_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 2000) as u16 * 10;
    let all = std::iter::repeat_with(|| 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000);
    let mut free = all.take(20_000).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("a free port below those of the kernel")
}

impl Setup {
    pub fn new() -> Setup {
        Setup { folder: Folder::new(), lines: Vec::new(), tls: false, is_sentinel: false }
    }

    /// A line of redis.conf.
    pub fn line(mut self, line: impl Into<String>) -> Setup {
        self.lines.push(line.into());
        self
    }

    /// A file beside redis.conf, where the server runs.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Setup {
        self.folder.write(name, content);
        self
    }

    /// These users besides the default one, who may do everything: lines of an ACL file without `user`.
    pub fn users(self, users: &[&str]) -> Setup {
        let lines: String = users.iter().map(|user| format!("user {user}\n")).collect();
        self.file("users.acl", format!("user default on nopass ~* &* +@all\n{lines}")).line("aclfile users.acl")
    }

    /// Everything that was answered is still there after a restart.
    pub fn durable(self) -> Setup {
        self.line("appendonly yes").line("appendfsync always")
    }

    /// TLS on a second port, with a certificate for localhost of this authority.
    pub fn tls(mut self, authority: &tls::Authority) -> Setup {
        let (certificate, key) = authority.sign("localhost", 2099);
        self.tls = true;
        self.file("redis.pem", certificate)
            .file("redis-key.pem", key)
            .line("tls-cert-file redis.pem")
            .line("tls-key-file redis-key.pem")
            .line("tls-auth-clients no")
    }

    /// The server, once it answers; `None` (and a plain line) where there is no redis-server.
    pub async fn start(self) -> Option<Redis> {
        if !is_here() {
            return None;
        }
        let (port, tls_port) = (quiet_port(), self.tls.then(quiet_port));
        let mut lines = vec![format!("port {port}"), "bind 127.0.0.1 -::1".to_owned()];
        lines.extend(tls_port.map(|port| format!("tls-port {port}")));
        if !self.is_sentinel {
            lines.extend(["save \"\"", "appendonly no", "repl-diskless-sync-delay 0"].map(str::to_owned));
        }
        lines.extend(self.lines);
        self.folder.write("redis.conf", lines.join("\n") + "\n");
        let child = spawn(&self.folder, self.is_sentinel);
        let redis = Redis { port, tls_port, folder: self.folder, child, is_sentinel: self.is_sentinel };
        redis.is_up().await;
        Some(redis)
    }
}

impl Default for Setup {
    fn default() -> Self {
        Setup::new()
    }
}

fn spawn(folder: &Folder, is_sentinel: bool) -> Child {
    let mut command = Command::new("redis-server");
    command.arg("redis.conf").args(is_sentinel.then_some("--sentinel")).current_dir(folder.path());
    let log = std::fs::File::options().create(true).append(true).open(folder.path().join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null()).spawn().unwrap()
}

impl Redis {
    /// A server without anything on disk; `None` (and a plain line) where there is no redis-server.
    pub async fn start() -> Option<Redis> {
        Setup::new().start().await
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Another server that follows this one, once it has all that this one has.
    pub async fn replica(&self) -> Redis {
        self.replica_of(Setup::new()).await
    }

    /// The same, set up so.
    pub async fn replica_of(&self, setup: Setup) -> Redis {
        let replica = setup.line(format!("replicaof 127.0.0.1 {}", self.port)).start().await.unwrap();
        replica.has_followed().await;
        replica
    }

    /// It is in touch with its master, whose data it has.
    pub async fn has_followed(&self) {
        self.comes_to(&["INFO", "replication"], |info| info.contains("master_link_status:up")).await;
    }

    /// Makes a replica a master, as an operator does by hand.
    pub async fn promote(&self) {
        self.ask(&["REPLICAOF", "NO", "ONE"]).await;
    }

    /// Ends it as a crash does: what is not on its disk is gone.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again where it was, with what is on its disk, once it answers.
    pub async fn restart(&mut self) {
        self.stop();
        self.child = spawn(&self.folder, self.is_sentinel);
        self.is_up().await;
    }

    /// It stands still: its sockets stay, and nothing is answered.
    pub fn pause(&self) {
        signal(self.child.id(), "STOP");
    }

    /// It goes on.
    pub fn resume(&self) {
        signal(self.child.id(), "CONT");
    }

    /// Forgets everything, and stays.
    pub async fn flush(&self) {
        self.ask(&["FLUSHALL"]).await;
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.folder.read("log")
    }

    /// How often it was asked this command since it began: `publish`, `evalsha`, `xadd`.
    pub async fn calls(&self, command: &str) -> u64 {
        let stats = self.ask(&["INFO", "commandstats"]).await;
        let prefix = format!("cmdstat_{command}:calls=");
        let line = stats.as_str().unwrap().lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned);
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    }

    /// What it answers, over a connection of its own and without TLS: a list is a list, a status and bytes are a text,
    /// nil is null.
    pub async fn ask(&self, words: &[&str]) -> Value {
        self.try_ask(words).await.unwrap_or_else(|error| panic!("{words:?}: {error}; its log:\n{}", self.log()))
    }

    /// The same, or its error.
    pub async fn try_ask(&self, words: &[&str]) -> Said {
        ask::once(self.port, words).await
    }

    /// Asks again and again until the answer, as text, is this.
    pub async fn comes_to(&self, words: &[&str], is_it: impl Fn(&str) -> bool) {
        let port = self.port;
        let is_it = &is_it;
        eventually(|| async move {
            let answer = ask::try_once(port, words).await?.ok()?;
            is_it(answer.as_str().unwrap_or(&answer.to_string())).then_some(())
        })
        .await;
    }

    async fn is_up(&self) {
        self.comes_to(&["PING"], |answer| answer == "PONG").await;
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- the log of the Redis at {} ---\n{}\n--- end of log ---", self.port, self.log());
        }
    }
}
