//! `[limits]`, and the limits of a route.
use super::report::Complaint;
use super::table::Table;
use super::units;
use crate::config::{IpLimits, Limits, OnExcess};
use std::time::Duration;

const RATE_MAX: u64 = 1_000_000_000;
const COUNT_MAX: u64 = 10_000_000;
const MESSAGE_BYTES_MAX: u64 = 1 << 32;
const BYTES_MAX: u64 = 1 << 40;
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
        compression: true,
    }
}

/// The limits of a table, over those of `base`.
pub(super) fn read(table: &Table, base: &Limits) -> Limits {
    table.refuse_table("from_upstream", "limits.from_upstream");
    table.refuse("max_inflated_size");
    let size = |key, most| table.entry(key).and_then(|e| e.size(0..=most)).map(|n| Some(n).filter(|n| *n > 0));
    let time = |key| table.entry(key).and_then(|e| e.duration_limit(SHORTEST..=LONGEST));
    Limits {
        max_message_size: size("max_message_size", MESSAGE_BYTES_MAX)
            .map_or(base.max_message_size, |n| n.unwrap_or(u64::MAX)),
        messages_per_second: count(table, "messages_per_second", RATE_MAX).unwrap_or(base.messages_per_second),
        message_burst: table.number("message_burst", 1..=RATE_MAX, base.message_burst),
        bytes_per_second: size("bytes_per_second", BYTES_MAX).unwrap_or(base.bytes_per_second),
        on_excess: table.choice(
            "on_excess",
            &[("close", Some(OnExcess::Close)), ("reject", Some(OnExcess::Reject)), ("pause", None)],
            base.on_excess,
        ),
        connections_per_client: count(table, "connections_per_client", COUNT_MAX)
            .unwrap_or(base.connections_per_client),
        idle_timeout: time("idle_timeout").unwrap_or(base.idle_timeout),
        ping_interval: time("ping_interval").unwrap_or(base.ping_interval),
        pong_timeout: time("pong_timeout").unwrap_or(base.pong_timeout),
        max_backlog: size("max_backlog", MESSAGE_BYTES_MAX)
            .map_or(base.max_backlog, |n| n.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX)),
        compression: table.flag("compression", base.compression),
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
    let written = [route, all].into_iter().flat_map(|t| ["max_backlog", "max_message_size"].map(|key| t.entry(key)));
    let written: Vec<_> = written.flatten().collect();
    // A value that was not understood has been replaced, by one that the message must not name.
    if written.iter().any(|e| e.size(0..=MESSAGE_BYTES_MAX).is_none()) {
        return;
    }
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

/// A count in which 0 lifts the limit: `Some(None)`.
fn count(table: &Table, key: &'static str, most: u64) -> Option<Option<u32>> {
    table.entry(key).and_then(|e| e.number::<u32>(0..=most)).map(|n| Some(n).filter(|n| *n > 0))
}
