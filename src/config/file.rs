//! Reads `gateway.toml` into a [`Config`], or says everything that is wrong with it.
//!
//! The document is parsed with its spans ([`toml::de::DeTable`]), then each table is taken apart by
//! a module of its own. A fault never ends the reading: the reader notes it and goes on with the
//! default, so that one run shows them all. Paths in the file are relative to the folder of the
//! file itself. Files of certificates, keys and secrets are named here and read by those who use
//! them; only `admin.token_file`, `cluster.redis_password_file` and the variables that hold secrets are read at once.
//!
//! To add a key: write it into `schema`, then read it in the module of its table. A test sets
//! every key of the schema to nonsense and fails where nobody notices.
mod admin;
mod auth;
mod backend;
mod blank;
mod cluster;
mod entry;
mod fault;
mod headers;
mod hook;
mod host;
mod limits;
mod listener;
mod origins;
mod policy;
mod report;
mod rooms;
mod route;
mod schema;
mod secret;
mod server;
mod table;
#[cfg(test)]
mod tests;
mod units;
mod upstream;
mod url;

pub use fault::{Fault, Faults};

use super::Config;
use report::Report;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;
use std::sync::Arc;
use std::time::Duration;
use table::Table;
use toml::de::DeTable;

/// Reads and checks the file at `path`, with the environment and the cores of this process.
///
/// # Errors
/// Every fault of the file, or the one that keeps it from being read at all.
pub fn load(path: &Path) -> Result<Config, Faults> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| Faults::of_file(&name, format!("cannot be read: {e}")))?;
    let text = String::from_utf8(bytes).map_err(|e| not_utf8(&e, &name))?;
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    read(&text, &name, &World { folder, env: &|name| std::env::var(name).ok(), cores, resolve: &resolve })
}

/// The fault of a file that is not text, at the first byte that is none.
fn not_utf8(error: &FromUtf8Error, name: &str) -> Faults {
    let end = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(&error.as_bytes()[..end]);
    let report = Report::default();
    report.syntax(Some(end..end), "this is not UTF-8");
    report.into_faults(&text, name).unwrap_or_else(|| Faults::of_file(name, "is not UTF-8".to_owned()))
}

/// Reads `text` as the file `name`, whose folder relative paths start from. `env` looks up
/// environment variables, `STATE_DIRECTORY` among them; `cores` is what `shards = 0` becomes. Host names of listeners are
/// resolved, and `admin.token_file` and `cluster.redis_password_file` are read.
///
/// # Errors
/// Every fault of the text, in the order of their places.
pub fn parse(text: &str, name: &str, env: &dyn Fn(&str) -> Option<String>, cores: usize) -> Result<Config, Faults> {
    let folder = Path::new(name).parent().map(Path::to_path_buf).unwrap_or_default();
    read(text, name, &World { folder, env, cores, resolve: &resolve })
}

/// What a file is read against.
struct World<'w> {
    folder: PathBuf,
    env: &'w dyn Fn(&str) -> Option<String>,
    cores: usize,
    resolve: &'w dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
}

fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.collect())
}

fn read(text: &str, name: &str, world: &World) -> Result<Config, Faults> {
    let report = Report::default();
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        report.syntax(error.span(), error.message());
    }
    let config = config(&Table::root(&report, document.get_ref()), world);
    match report.into_faults(text, name) {
        Some(faults) => Err(faults),
        None => Ok(config),
    }
}

/// What the tables say; worthless where a fault was noted.
fn config(root: &Table, world: &World) -> Config {
    let server = server::read(&root.table("server", "server"), world);
    let listeners = listener::read(root, world);
    let origins = origins::read(&root.table("origins", "origins"), &origins::built_in());
    let tokens = auth::read(&root.table("auth", "auth"), world);
    let limits_table = root.table("limits", "limits");
    let limits = limits::read(&limits_table, &limits::built_in());
    let ip_limits = limits::read_ip(&limits_table);
    let upstreams = upstream::read(root, world);
    let defaults = route::Defaults { limits, limits_table, origins, auth: &tokens, upstreams: &upstreams };
    let (routes, namespaces) = route::read(root, &defaults);
    let rooms = rooms::read(&root.table("rooms", "rooms"), world, &routes);
    let cluster = cluster::read(&root.table("cluster", "cluster"), world).map(Arc::new);
    let admin = admin::read(&root.table("admin", "admin"), world);
    listener::check_apart(root, &listeners, admin.as_ref());
    Config {
        server,
        listeners: listeners.into_iter().map(|(listener, _)| listener).collect(),
        auth: tokens.auth,
        ip_limits,
        routes,
        upstreams,
        rooms,
        cluster,
        admin: admin.map(|(admin, _)| admin),
        namespaces,
    }
}

/// The JSON Schema (draft 2020-12) of the file, with what keys mean and hold where they are missing.
pub fn schema() -> serde_json::Value {
    schema::document()
}

/// Reads a duration as the file has them: `500ms`, `10s`, `5m`, `1h`, `1d`.
///
/// # Errors
/// In words.
pub fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text).map_err(|complaint| complaint.message)
}
