//! `[upstream.NAME]`.
use super::entry::Entry;
use super::host;
use super::report::Complaint;
use super::table::Table;
use crate::config::{Backend, Transport, Upstream};
use std::sync::Arc;
use std::time::Duration;

const SERVERS_MAX: usize = 256;
const SERVER_HELP: &str = "write it as in \"http://127.0.0.1:8765\"";

/// The upstreams, in the order of their names.
pub(super) fn read(root: &Table) -> Vec<Arc<Upstream>> {
    let mut upstreams = Vec::new();
    for entry in root.table("upstream", "upstream").iter() {
        if let Err(complaint) = host::check_name(entry.key()) {
            root.report().fault(entry.key_place(), complaint);
        }
        if let Some(table) = entry.table("upstream.NAME") {
            upstreams.push(Arc::new(upstream(entry.key(), &table)));
        }
    }
    upstreams
}

fn upstream(name: &str, table: &Table) -> Upstream {
    let servers = table.entry("servers");
    if servers.is_none() {
        table.missing("servers", Some("write it as in servers = [\"http://127.0.0.1:8765\"]"));
    }
    let listed = servers.as_ref().and_then(|e| e.list(SERVERS_MAX));
    if let (Some(entry), Some([])) = (&servers, listed.as_deref()) {
        entry.complain(Complaint::new("at least one server is needed").help(SERVER_HELP));
    }
    refuse_later_keys(table);
    let servers = listed.unwrap_or_default().iter().filter_map(server).collect();
    let built_in = Upstream::new(name, servers);
    let connect_timeouts = Duration::from_millis(10)..=Duration::from_secs(300);
    Upstream {
        connect_timeout: table.duration("connect_timeout", connect_timeouts, built_in.connect_timeout),
        retries: table.number("retries", 0..=10, built_in.retries),
        preserve_host: table.flag("preserve_host", built_in.preserve_host),
        ..built_in
    }
}

fn refuse_later_keys(table: &Table) {
    let balances = [
        ("round-robin", Some(())),
        ("least-connections", None),
        ("random-two", None),
        ("hash-client", None),
        ("hash-ip", None),
    ];
    table.choice("balance", &balances, ());
    table.only_flag("proxy_protocol", false);
    table.only_flag("close_on_unhealthy", false);
    table.refuse_table("headers", "upstream.NAME.headers");
    for key in ["weights", "ca", "response_timeout", "idle_timeout", "slow_start", "certificate", "private_key"] {
        table.refuse(key);
    }
    let health = table.table("health", "upstream.NAME.health");
    health.only_text("path", "");
    health.only_duration("interval", &[Duration::from_secs(5)]);
    health.only_duration("timeout", &[Duration::from_secs(2)]);
    health.only_number("rise", &[2]);
    health.only_number("fall", &[3]);
}

fn server(entry: &Entry) -> Option<Backend> {
    entry.convert(|text| {
        for scheme in ["https:", "unix:"] {
            if text.starts_with(scheme) {
                return Err(Complaint::new(format!("a server `{scheme}…` is not supported yet")).help(SERVER_HELP));
            }
        }
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(Complaint::new("a server begins with http://").help(SERVER_HELP));
        };
        if rest.contains('@') {
            return Err(Complaint::new("a server is named without user and password").help(SERVER_HELP));
        }
        if rest.contains(['/', '?', '#']) {
            let complaint = Complaint::new("a server is a host and a port, without path and query");
            return Err(complaint.help("requests keep their own path; write it as in \"http://127.0.0.1:8765\""));
        }
        let (host, port) = host::with_port(rest)?;
        if port == Some(0) {
            return Err(Complaint::new("port 0 cannot be connected to"));
        }
        let transport = Transport::Tcp { host: host.bare(), port: port.unwrap_or(80) };
        Ok(Backend { url: text.to_owned(), transport, weight: 1 })
    })
}
