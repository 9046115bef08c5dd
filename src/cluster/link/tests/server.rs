//! A redis-server of a test, on a free port of loopback, that ends with it.
use crate::config::RedisServer;
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long anything may take that a test waits for.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Whether there is a redis-server; where there is none the test is counted as skipped.
pub fn has_redis() -> bool {
    let found = std::process::Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return true;
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os("CI").is_none(), "{test} would be skipped, which CI does not allow: no redis-server");
    let line = format!("skipped: {test} (there is no redis-server; tests/run installs it on Debian)");
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("WSGATE_TEST_SKIPPED") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        writeln!(file.unwrap(), "{line}").unwrap();
    }
    false
}

/// Asks until it is so.
pub async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let asking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(DEADLINE, asking).await.is_ok(), "not in time: {what}");
}

/// A port that was free just now, as was the one 10,000 above, which a cluster's bus takes.
pub fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let bus = port.checked_add(10_000).map(|bus| TcpListener::bind(("127.0.0.1", bus)));
        if let Some(Ok(_)) = bus {
            return port;
        }
    }
}

/// A running server.
pub struct Server {
    pub port: u16,
    folder: PathBuf,
    args: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Starts one, which is ready when this returns.
    pub async fn start(args: &[&str]) -> Server {
        Server::start_on(free_port(), args).await
    }

    /// The same on this port.
    pub async fn start_on(port: u16, args: &[&str]) -> Server {
        let folder = std::env::temp_dir().join(format!("wsgate-redis-{}-{port}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut server = Server { port, folder, args, child: None };
        server.run("redis-server").await;
        server
    }

    /// Starts a Sentinel with this configuration.
    pub async fn sentinel(config: &str) -> Server {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("wsgate-redis-{}-{port}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("sentinel.conf");
        std::fs::write(&file, config).unwrap();
        let args = vec![file.display().to_string(), "--sentinel".to_owned()];
        let mut server = Server { port, folder, args, child: None };
        server.run("redis-server").await;
        server
    }

    /// Starts it again, after it was killed, with what is on the disk.
    pub async fn restart(&mut self) {
        self.run("redis-server").await;
    }

    async fn run(&mut self, program: &str) {
        let mut command = Command::new(program);
        // A file, where there is one, comes first.
        let (files, options): (Vec<_>, Vec<_>) = self.args.iter().partition(|arg| arg.ends_with(".conf"));
        command.args(files).args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--dir", &self.folder.display().to_string()]).args(options);
        command.stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        self.child = Some(child);
        let ready = async {
            let mut all = String::new();
            while let Some(line) = lines.next_line().await.unwrap() {
                all.push_str(&line);
                all.push('\n');
                if line.contains("Ready to accept connections") || line.contains("Sentinel ID is") {
                    return;
                }
            }
            panic!("redis-server ended: {all}");
        };
        timeout(DEADLINE, ready).await.unwrap();
        // What it says later has a reader, or it would end with it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    }

    /// Kills it, as `kill -9` does.
    pub async fn kill(&mut self) {
        self.child.take().unwrap().kill().await.unwrap();
    }

    /// Sends it a signal by name.
    pub async fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().await.unwrap().success());
    }

    /// What redis-cli prints for a command.
    pub async fn cli(&self, words: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string()]).args(words);
        let output = timeout(DEADLINE, command.output()).await.unwrap().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Where it is.
    pub fn server(&self) -> RedisServer {
        RedisServer { host: "127.0.0.1".into(), port: self.port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
