//! The servers of an upstream, with their weights.
use super::host;
use super::report::Complaint;
use super::table::Table;
use crate::config::{Backend, Transport};
use std::path::Path;

const SERVERS_MAX: usize = 256;
const WEIGHT_MAX: u64 = 1000;
const HELP: &str = "write it as in \"http://127.0.0.1:8765\", \"https://app.example.com\" or \"unix:/run/app.sock\"";

/// The servers, in the order of the file.
pub(super) fn read(table: &Table, folder: &Path) -> Vec<Backend> {
    let entry = table.required("servers", "write it as in servers = [\"http://127.0.0.1:8765\"]");
    let listed = entry.as_ref().and_then(|e| e.list(SERVERS_MAX));
    if let (Some(entry), Some([])) = (&entry, listed.as_deref()) {
        entry.complain(Complaint::new("at least one server is needed").help(HELP));
    }
    let weights = weights(table, listed.as_ref().map(Vec::len));
    let mut servers: Vec<Backend> = Vec::new();
    for (index, entry) in listed.iter().flatten().enumerate() {
        let weight = weights.get(index).copied().unwrap_or(1);
        let Some(server) = entry.convert(|url| server(url, weight, folder)) else { continue };
        if servers.iter().any(|other| other.transport == server.transport) {
            let complaint = Complaint::new("this server stands here already");
            entry.complain(complaint.help("a larger share of what is balanced is given by `weights`"));
        }
        servers.push(server);
    }
    servers
}

/// The weights; empty where the file has none. `servers` is `None` where they were not understood.
fn weights(table: &Table, servers: Option<usize>) -> Vec<u32> {
    let Some(entry) = table.entry("weights") else { return vec![] };
    let Some(listed) = entry.list(SERVERS_MAX) else { return vec![] };
    if let Some(servers) = servers.filter(|servers| *servers != listed.len()) {
        let message = format!("`weights` must be as many as `servers`: {servers}, not {}", listed.len());
        entry.complain(Complaint::new(message).help("there is one for each server, in the same order"));
    }
    listed.iter().map(|entry| entry.number(1..=WEIGHT_MAX).unwrap_or(1)).collect()
}

fn server(url: &str, weight: u32, folder: &Path) -> Result<Backend, Complaint> {
    let transport = match url.split_once(':') {
        Some(("unix", path)) => Transport::Unix(host::unix_path(path, folder).map_err(|c| c.help(HELP))?),
        Some(("http", rest)) => {
            let (host, port) = authority(rest)?;
            Transport::Tcp { host, port: port.unwrap_or(80) }
        }
        Some(("https", rest)) => {
            let (host, port) = authority(rest)?;
            Transport::Tls { host, port: port.unwrap_or(443) }
        }
        _ => return Err(bad_scheme()),
    };
    Ok(Backend { url: url.to_owned(), transport, weight })
}

fn bad_scheme() -> Complaint {
    Complaint::new("a server begins with http://, https:// or unix:").help(HELP)
}

/// What stands behind `http:`: two slashes, a host and perhaps a port.
fn authority(rest: &str) -> Result<(String, Option<u16>), Complaint> {
    let rest = rest.strip_prefix("//").ok_or_else(bad_scheme)?;
    if rest.contains('@') {
        return Err(Complaint::new("a server is named without user and password").help(HELP));
    }
    if rest.contains(['/', '?', '#']) {
        let complaint = Complaint::new("a server is a host and a port, without path and query");
        return Err(complaint.help("requests keep their own path; write it as in \"http://127.0.0.1:8765\""));
    }
    let (host, port) = host::with_port(rest)?;
    if port == Some(0) {
        return Err(Complaint::new("port 0 cannot be connected to"));
    }
    Ok((host.bare(), port))
}
