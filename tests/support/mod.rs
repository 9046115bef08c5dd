//! What the tests own: an ephemeral gateway, clients, tokens and backends. All of them end on Drop.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]
pub mod backend;
pub mod client;
pub mod config;
pub mod curl;
pub mod gateway;
pub mod h2raw;
pub mod http2;
pub mod keys;
pub mod message;
pub mod nginx;
pub mod nodes;
pub mod origin;
pub mod raw;
pub mod redis;
pub mod tcp_proxy;
pub mod tls;
pub mod token;

pub use backend::{Backend, Peer};
pub use client::Client;
pub use config::*;
pub use gateway::Gateway;
pub use origin::Origin;
pub use raw::RawWs;
pub use redis::{Redis, RedisCluster, Sentinel};
pub use tcp_proxy::TcpProxy;
pub use token::Token;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a test waits for an event before it gives up: never a measure of speed.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The value of `event`, which has to come before the deadline.
#[track_caller]
pub fn within<F: Future>(event: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(DEADLINE, event).await {
            Ok(value) => value,
            Err(_) => panic!("nothing happened within {DEADLINE:?} at {caller}"),
        }
    }
}

/// Asks `probe` again and again until it answers `Some`, where no event can be waited for.
#[track_caller]
pub fn eventually<T, F: Future<Output = Option<T>>>(mut probe: impl FnMut() -> F) -> impl Future<Output = T> {
    within(async move {
        let mut turn = tokio::time::interval(Duration::from_millis(20));
        loop {
            turn.tick().await;
            if let Some(value) = probe().await {
                return value;
            }
        }
    })
}

/// A folder that is removed on Drop.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        // Not by the process: one that was killed has left its folders, and its number comes again.
        let path = std::env::temp_dir().join(format!("wsgate-test-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file of this folder, and the folders above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Default for Folder {
    fn default() -> Self {
        Folder::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Sends a signal to one process.
pub fn signal(pid: u32, name: &str) {
    let status = std::process::Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
    assert!(status.unwrap().success(), "kill -{name} {pid}");
}

/// Writes the reason of a skipped test where `tests/run` counts them.
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os("CI").is_none(), "{test} would be skipped, which CI does not allow: {reason}");
    let line = format!("skipped: {test} ({reason})");
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("WSGATE_TEST_SKIPPED") {
        use std::io::Write;
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        writeln!(file.unwrap(), "{line}").unwrap();
    }
}
