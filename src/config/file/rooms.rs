//! `[rooms]`.
use super::World;
use super::hook;
use super::limits;
use super::policy;
use super::table::Table;
use crate::config::{Duplicates, Rooms, Route, Rules, Service};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const DUPLICATES_AGE_MAX: Duration = Duration::from_secs(86_400);
const DUPLICATES_MAX: u64 = 65_536;
const TYPING_MIN: Duration = Duration::from_secs(1);
const TYPING_MAX: Duration = Duration::from_secs(600);

pub(super) fn read(table: &Table, world: &World, routes: &[Arc<Route>]) -> Rooms {
    let built_in = Rooms::default();
    let rules = policy::read_shared(table, "rooms.history", &Rules::default());
    Rooms {
        policies: policy::read(table, &rules),
        rules: Arc::new(rules),
        max_rooms_per_client: table.number("max_rooms_per_client", 1..=100_000, built_in.max_rooms_per_client),
        max_rooms: table.number("max_rooms", 1..=100_000_000, built_in.max_rooms),
        broadcast_to_all: table.flag("broadcast_to_all", built_in.broadcast_to_all),
        presence: table.flag("presence", built_in.presence),
        duplicates: duplicates(&table.table("duplicates", "rooms.duplicates"), built_in.duplicates),
        typing_expiry: table.duration("typing_expiry", TYPING_MIN..=TYPING_MAX, built_in.typing_expiry),
        store: store(&table.table("store", "rooms.store"), world),
        hook: hook::read(&table.table("hook", "rooms.hook"), world),
        max_message_size: max_message_size(routes).unwrap_or(built_in.max_message_size),
    }
}

fn duplicates(table: &Table, base: Duplicates) -> Duplicates {
    Duplicates {
        age: table.duration_or_zero("age", DUPLICATES_AGE_MAX, base.age),
        per_client: table.number("per_client", 0..=DUPLICATES_MAX, base.per_client),
    }
}

/// The folder of the store.
fn store(table: &Table, world: &World) -> PathBuf {
    if let Some(entry) = table.entry("path") {
        return entry.folder(&world.folder).unwrap_or_default();
    }
    // systemd names several folders where `StateDirectory=` does, with colons between them.
    let given = (world.env)("STATE_DIRECTORY").unwrap_or_default();
    let first = given.split(':').find(|folder| !folder.is_empty());
    world.folder.join(first.unwrap_or("data"))
}

/// `None` where no route leads to rooms.
fn max_message_size(routes: &[Arc<Route>]) -> Option<usize> {
    let routes = routes.iter().filter(|r| r.service == Service::Rooms);
    let largest = routes.map(|r| limits::server_message_size(&r.limits)).max()?;
    Some(usize::try_from(largest).unwrap_or(usize::MAX))
}
