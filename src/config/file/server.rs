//! `[server]`.
use super::World;
use super::report::Complaint;
use super::table::Table;
use crate::config::{LogFormat, Server, filter};
use std::time::Duration;

pub(super) fn read(table: &Table, world: &World) -> Server {
    let shards = match table.number("shards", 0..=1024, 0) {
        0 => world.cores.clamp(1, 1024),
        shards => shards,
    };
    Server {
        shards,
        max_connections: table.number("max_connections", 1..=10_000_000, 100_000),
        drain: table.duration("drain", Duration::ZERO..=Duration::from_secs(3600), Duration::from_secs(30)),
        log: table.checked("log", check_filter, "info"),
        log_format: table.choice(
            "log_format",
            &[("text", Some(LogFormat::Text)), ("json", Some(LogFormat::Json))],
            LogFormat::Text,
        ),
    }
}

fn check_filter(text: &str) -> Result<(), Complaint> {
    let help = r#"write it as in "info" or "info,wsgate::upstream=debug""#;
    filter::parse(text).map(drop).map_err(|_| Complaint::new("this is no log filter").help(help))
}
