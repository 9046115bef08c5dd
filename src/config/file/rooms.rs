//! `[rooms]` and `[cluster]`.
use super::table::Table;
use crate::config::{Rooms, Rules};
use std::sync::Arc;
use std::time::Duration;

pub(super) fn read(table: &Table) -> Rooms {
    refuse_later_keys(table);
    let rules = Rules { max_members: table.number("max_members", 1..=10_000_000, 10_000), ..Rules::default() };
    Rooms {
        rules: Arc::new(rules),
        max_rooms_per_client: table.number("max_rooms_per_client", 1..=100_000, 100),
        max_rooms: table.number("max_rooms", 1..=100_000_000, 100_000),
        broadcast_to_all: table.flag("broadcast_to_all", false),
        presence: table.flag("presence", true),
        ..Rooms::default()
    }
}

fn refuse_later_keys(table: &Table) {
    table.choice("create", &[("join", Some(())), ("declared", None)], ());
    let history = table.table("history", "rooms.history");
    history.only_number("messages", &[100, 0]);
    history.only_duration("age", &[Duration::from_secs(600)]);
    history.only_size("bytes", 4 << 20);
    let duplicates = table.table("duplicates", "rooms.duplicates");
    duplicates.only_duration("age", &[Duration::from_secs(300), Duration::ZERO]);
    duplicates.only_number("per_client", &[128, 0]);
    table.only_duration("typing_expiry", &[Duration::from_secs(5)]);
    if let Some(entry) = table.entry("policy") {
        let policies = entry.tables("rooms.policy");
        for policy in &policies {
            policy.table("history", "rooms.policy.history");
        }
        if !policies.is_empty() {
            entry.refuse();
        }
    }
    table.refuse_table("store", "rooms.store");
    table.refuse_table("hook", "rooms.hook");
}

/// `[cluster]`: nothing of it is there yet.
pub(super) fn read_cluster(table: &Table) {
    table.refuse("redis");
    table.only_text("prefix", "wsgate");
    table.refuse("node");
    table.only_flag("shared_limits", false);
}
