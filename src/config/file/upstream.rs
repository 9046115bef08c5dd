//! `[upstream.NAME]`.
use super::World;
use super::backend;
use super::headers;
use super::host;
use super::report::Complaint;
use super::table::Table;
use super::units;
use crate::config::{Backend, Balance, HealthCheck, Transport, Upstream, UpstreamTls};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const CONNECT_TIMES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(300);
const CHECK_TIMES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(300);
const CHECK_INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
const WAIT_TIMES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(86_400);
const SLOW_START_MAX: Duration = Duration::from_secs(3600);
const CHECKS_MAX: u64 = 100;
const RETRIES_MAX: u64 = 10;

const BALANCES: [(&str, Option<Balance>); 5] = [
    ("round-robin", Some(Balance::RoundRobin)),
    ("least-connections", Some(Balance::LeastConnections)),
    ("random-two", Some(Balance::RandomTwo)),
    ("hash-client", Some(Balance::HashClient)),
    ("hash-ip", Some(Balance::HashIp)),
];

/// The upstreams, in the order of their names.
pub(super) fn read(root: &Table, world: &World) -> Vec<Arc<Upstream>> {
    let mut upstreams = Vec::new();
    for entry in root.table("upstream", "upstream").iter() {
        if let Err(complaint) = host::check_name(entry.key()) {
            root.report().fault(entry.key_place(), complaint);
        }
        if let Some(table) = entry.table("upstream.NAME") {
            upstreams.push(Arc::new(upstream(entry.key(), &table, &world.folder)));
        }
    }
    upstreams
}

fn upstream(name: &str, table: &Table, folder: &Path) -> Upstream {
    let built_in = Upstream::new(name, backend::read(table, folder));
    let wait = |key, built_in| table.entry(key).and_then(|e| e.duration_limit(WAIT_TIMES)).unwrap_or(built_in);
    Upstream {
        balance: table.choice("balance", &BALANCES, built_in.balance),
        connect_timeout: table.duration("connect_timeout", CONNECT_TIMES, built_in.connect_timeout),
        retries: table.number("retries", 0..=RETRIES_MAX, built_in.retries),
        preserve_host: table.flag("preserve_host", built_in.preserve_host),
        proxy_protocol: table.flag("proxy_protocol", built_in.proxy_protocol),
        tls: tls(table, &built_in.servers, folder),
        close_on_unhealthy: table.flag("close_on_unhealthy", built_in.close_on_unhealthy),
        headers: headers::read(&table.table("headers", "upstream.NAME.headers")),
        health: health(&table.table("health", "upstream.NAME.health"), built_in.health),
        response_timeout: wait("response_timeout", built_in.response_timeout),
        idle_timeout: wait("idle_timeout", built_in.idle_timeout),
        slow_start: table.duration_or_zero("slow_start", SLOW_START_MAX, built_in.slow_start),
        name: built_in.name,
        servers: built_in.servers,
    }
}

fn tls(table: &Table, servers: &[Backend], folder: &Path) -> UpstreamTls {
    let is_used = servers.is_empty() || servers.iter().any(|s| matches!(s.transport, Transport::Tls { .. }));
    let path = |key| {
        let entry = table.entry(key)?;
        if !is_used {
            let complaint = Complaint::new(format!("`{key}` is for https:// servers, and there is none"));
            table.report().fault(entry.key_place(), complaint);
        }
        entry.path(folder)
    };
    let (ca, certificate, private_key) = (path("ca"), path("certificate"), path("private_key"));
    for (key, other) in [("certificate", "private_key"), ("private_key", "certificate")] {
        if is_used && table.entry(key).is_none() && table.entry(other).is_some() {
            table.missing(key, Some("`certificate` and `private_key` stand together"));
        }
    }
    UpstreamTls { ca, identity: certificate.zip(private_key) }
}

fn health(table: &Table, built_in: HealthCheck) -> HealthCheck {
    let duration = |key, bounds, built_in| table.entry(key).map_or(Some(built_in), |e| e.duration(bounds));
    let interval = duration("interval", CHECK_INTERVALS, built_in.interval);
    let timeout = duration("timeout", CHECK_TIMES, built_in.timeout);
    if let (Some(interval), Some(timeout)) = (interval, timeout)
        && timeout > interval
        && let Some(entry) = table.entry("timeout").or_else(|| table.entry("interval"))
    {
        let [interval, timeout] = [interval, timeout].map(units::duration_text);
        let message = format!("`timeout` (\"{timeout}\") is longer than `interval` (\"{interval}\")");
        let help = format!("a check ends before the next one begins: write timeout = \"{interval}\" or less");
        entry.complain(Complaint::new(message).help(help));
    }
    HealthCheck {
        path: table.entry("path").and_then(|e| e.convert(health_path)).flatten(),
        interval: interval.unwrap_or(built_in.interval),
        timeout: timeout.unwrap_or(built_in.timeout),
        rise: table.number("rise", 1..=CHECKS_MAX, built_in.rise),
        fall: table.number("fall", 1..=CHECKS_MAX, built_in.fall),
    }
}

/// A path with or without a query; empty where a connection is enough.
fn health_path(text: &str) -> Result<Option<String>, Complaint> {
    if text.is_empty() {
        return Ok(None);
    }
    if !text.starts_with('/') {
        return Err(Complaint::new("a path begins with `/`").help("write it as in path = \"/healthz\""));
    }
    host::check_target(text)?;
    Ok(Some(text.to_owned()))
}
