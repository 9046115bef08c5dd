//! `[limits]`, and the limits of a route.
use super::entry::Entry;
use super::report::Complaint;
use super::table::Table;
use super::units;
use crate::config::{FromUpstream, IpLimits, Limits, OnExcess, Route, Service};
use std::cmp::Reverse;
use std::time::Duration;

const RATE_MAX: u64 = 1_000_000_000;
const COUNT_MAX: u64 = 10_000_000;
const MESSAGE_BYTES_MAX: u64 = 1 << 32;
const BYTES_MAX: u64 = 1 << 40;
/// Of a server's message, where a route has no limit.
const SERVER_MESSAGE_BYTES: u64 = 1 << 20;
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// What holds where the file says nothing.
pub(super) fn built_in() -> Limits {
    Limits {
        max_message_size: 64 << 10,
        messages_per_second: Some(50),
        message_burst: 100,
        bytes_per_second: Some(1 << 20),
        on_excess: OnExcess::Close,
        connections_per_client: Some(20),
        idle_timeout: Some(Duration::from_secs(3600)),
        ping_interval: Some(Duration::from_secs(25)),
        pong_timeout: Some(Duration::from_secs(10)),
        max_backlog: 1 << 20,
        from_upstream: FromUpstream::UNLIMITED,
        max_inflated_size: u64::MAX,
        compression: true,
    }
}

/// The limits of a table, over those of `base`.
pub(super) fn read(table: &Table, base: &Limits) -> Limits {
    let time = |key| table.entry(key).and_then(|e| e.duration_limit(SHORTEST..=LONGEST));
    Limits {
        max_message_size: message_size(table, "max_message_size", base.max_message_size),
        messages_per_second: count(table, "messages_per_second", RATE_MAX).unwrap_or(base.messages_per_second),
        message_burst: table.number("message_burst", 1..=RATE_MAX, base.message_burst),
        bytes_per_second: size(table, "bytes_per_second", BYTES_MAX).unwrap_or(base.bytes_per_second),
        on_excess: table.choice(
            "on_excess",
            &[("close", Some(OnExcess::Close)), ("reject", Some(OnExcess::Reject)), ("pause", Some(OnExcess::Pause))],
            base.on_excess,
        ),
        connections_per_client: count(table, "connections_per_client", COUNT_MAX)
            .unwrap_or(base.connections_per_client),
        idle_timeout: time("idle_timeout").unwrap_or(base.idle_timeout),
        ping_interval: time("ping_interval").unwrap_or(base.ping_interval),
        pong_timeout: time("pong_timeout").unwrap_or(base.pong_timeout),
        max_backlog: size(table, "max_backlog", MESSAGE_BYTES_MAX)
            .map_or(base.max_backlog, |n| n.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX)),
        from_upstream: from_upstream(&table.table("from_upstream", "limits.from_upstream"), &base.from_upstream),
        max_inflated_size: message_size(table, "max_inflated_size", base.max_inflated_size),
        compression: table.flag("compression", base.compression),
    }
}

/// The limits for what a backend sends, over those of `base`.
fn from_upstream(table: &Table, base: &FromUpstream) -> FromUpstream {
    let on_excess = table.entry("on_excess").and_then(|entry| {
        if entry.is("reject") {
            let complaint = Complaint::new("on_excess = \"reject\" answers a client, and a backend is none");
            entry.complain(complaint.help("write \"close\" or \"pause\""));
            return None;
        }
        entry.choice(&[("close", Some(OnExcess::Close)), ("pause", Some(OnExcess::Pause))])
    });
    FromUpstream {
        max_message_size: message_size(table, "max_message_size", base.max_message_size),
        messages_per_second: count(table, "messages_per_second", RATE_MAX).unwrap_or(base.messages_per_second),
        message_burst: table.number("message_burst", 1..=RATE_MAX, base.message_burst),
        bytes_per_second: size(table, "bytes_per_second", BYTES_MAX).unwrap_or(base.bytes_per_second),
        on_excess: on_excess.unwrap_or(base.on_excess),
    }
}

/// Notes, of a route without a backend, limits of its own that are for backends.
pub(super) fn refuse_upstream_limits(limits: &Table) {
    for key in ["from_upstream", "max_inflated_size"] {
        if let Some(entry) = limits.entry(key) {
            let message = format!("`{key}` is for routes with service = \"proxy\": here is no upstream");
            limits.report().fault(entry.key_place(), Complaint::new(message));
        }
    }
}

/// The two that count by address, which only `[limits]` has.
pub(super) fn read_ip(table: &Table) -> IpLimits {
    IpLimits {
        connections: count(table, "connections_per_ip", COUNT_MAX).unwrap_or(Some(1000)),
        handshakes_per_second: count(table, "handshakes_per_second", COUNT_MAX).unwrap_or(Some(100)),
    }
}

/// Notes, of a route to rooms, that one message fills the backlog: it would close everybody who is a little slow.
pub(super) fn check_backlog(limits: &Limits, route: &Table, all: &Table) {
    let backlog = u64::try_from(limits.max_backlog).unwrap_or(u64::MAX);
    if backlog >= limits.max_message_size {
        return;
    }
    let Some(written) = sizes(&[route, all]) else { return };
    let size = match limits.max_message_size {
        u64::MAX => "no limit".to_owned(),
        size => units::size_text(size),
    };
    let backlog = units::size_text(backlog);
    let message = format!("`max_backlog` ({backlog}) is smaller than `max_message_size` ({size})");
    let help = "one such message would close the members of its room with 4010; raise `max_backlog` (0 lifts it), or \
                lower `max_message_size` for the routes to rooms";
    if let Some(entry) = written.first() {
        entry.complain(Complaint::new(message).help(help));
    }
}

/// Notes, of a route to rooms, that a message fills its backlog which a server, a hook or a client may send by another
/// route to the same rooms.
pub(super) fn check_shared_backlog(
    (route, table): &(Route, &Table),
    routes: &[(Route, &Table)],
    all: &Table,
    namespace: &str,
) {
    let backlog = u64::try_from(route.limits.max_backlog).unwrap_or(u64::MAX);
    let is_rooms = |other: &Route| other.service == Service::Rooms && other.namespace == route.namespace;
    // One that is too small for the route's own messages has been noted.
    if !is_rooms(route) || backlog < route.limits.max_message_size {
        return;
    }
    let others = routes.iter().filter(|(other, _)| is_rooms(other) && other.index != route.index);
    let Some((other, other_table)) = others.min_by_key(|(other, _)| Reverse(server_message_size(&other.limits))) else {
        return;
    };
    let size = server_message_size(&other.limits);
    let limits = table.table("limits", "route.limits");
    if backlog >= size || sizes(&[&limits, &other_table.table("limits", "route.limits"), all]).is_none() {
        return;
    }
    let (backlog, size, other_name) = (units::size_text(backlog), units::size_text(size), other.name());
    let message = if other.limits.max_message_size == u64::MAX {
        format!(
            "`max_backlog` ({backlog}) is smaller than a server's message may be ({size}): `{other_name}` has no limit"
        )
    } else {
        format!("`max_backlog` ({backlog}) is smaller than `max_message_size` ({size}) of the route `{other_name}`")
    };
    let help = format!(
        "both lead to rooms of the namespace \"{namespace}\", where one such message would close who came by this route \
         with 4010; raise `max_backlog` here (0 lifts it), or bound `max_message_size` there"
    );
    let place = limits.entry("max_backlog").or_else(|| table.entry("path")).map(|e| e.place());
    if let Some(place) = place {
        table.report().fault(place, Complaint::new(message).help(help));
    }
}

/// How large a server's message may be in the rooms of a route.
pub(super) fn server_message_size(limits: &Limits) -> u64 {
    if limits.max_message_size == u64::MAX { SERVER_MESSAGE_BYTES } else { limits.max_message_size }
}

/// What the tables say of both sizes. `None` where one was not understood: it has been replaced, by a value that no
/// message must name.
fn sizes<'d>(tables: &[&Table<'d>]) -> Option<Vec<Entry<'d>>> {
    let written = tables.iter().flat_map(|t| ["max_backlog", "max_message_size"].map(|key| t.entry(key)));
    let written: Vec<_> = written.flatten().collect();
    written.iter().all(|e| e.size(0..=MESSAGE_BYTES_MAX).is_some()).then_some(written)
}

/// A count in which 0 lifts the limit: `Some(None)`.
fn count(table: &Table, key: &'static str, most: u64) -> Option<Option<u32>> {
    table.entry(key).and_then(|e| e.number::<u32>(0..=most)).map(|n| Some(n).filter(|n| *n > 0))
}

/// A size in which 0 lifts the limit: `Some(None)`.
fn size(table: &Table, key: &'static str, most: u64) -> Option<Option<u64>> {
    table.entry(key).and_then(|e| e.size(0..=most)).map(|n| Some(n).filter(|n| *n > 0))
}

/// The size of a message; `u64::MAX` where the limit is lifted.
fn message_size(table: &Table, key: &'static str, base: u64) -> u64 {
    size(table, key, MESSAGE_BYTES_MAX).map_or(base, |n| n.unwrap_or(u64::MAX))
}
