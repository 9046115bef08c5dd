//! `[[rooms.policy]]`, and the rules that `[rooms]` has for all rooms.
use super::report::{Complaint, Place};
use super::table::Table;
use crate::config::{Create, History, Permission, Policy, Rules, pattern};
use std::sync::Arc;
use std::time::Duration;

const MEMBERS_MAX: u64 = 10_000_000;
const MESSAGES_MAX: u64 = 1_000_000;
const HISTORY_AGE_MAX: Duration = Duration::from_secs(366 * 86_400);
const HISTORY_BYTES_MAX: u64 = 1 << 30;
const INTERVAL_MIN: Duration = Duration::from_millis(10);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
const PATTERN_BYTES_MAX: usize = 128;
const PATTERN_HELP: &str = "write it as in match = \"private-*\"";

/// The policies, in the order of the file; what one does not say is `base`.
pub(super) fn read(rooms: &Table, base: &Rules) -> Vec<Policy> {
    let mut policies: Vec<Policy> = Vec::new();
    for table in rooms.tables("policy", "rooms.policy") {
        let rules = rules(&table, base);
        check_durable(&table, &rules);
        let pattern = table.required("match", PATTERN_HELP).and_then(|e| e.convert(read_pattern));
        if let Some(pattern) = pattern {
            check_reachable(&pattern, &table, &policies);
            policies.push(Policy { pattern, rules: Arc::new(rules) });
        }
    }
    policies
}

fn rules(table: &Table, base: &Rules) -> Rules {
    let (any, claim) = (("any", Some(Permission::Any)), ("claim", Some(Permission::Claim)));
    Rules {
        join: table.choice("join", &[any, claim], base.join),
        publish: table.choice("publish", &[any, claim, ("none", Some(Permission::None))], base.publish),
        durable: table.flag("durable", base.durable),
        latest_only: table
            .entry("latest_only")
            .and_then(|e| e.duration(INTERVAL_MIN..=INTERVAL_MAX))
            .or(base.latest_only),
        ..read_shared(table, "rooms.policy.history", base)
    }
}

/// The keys that `[rooms]` and a policy have both, over `base`.
pub(super) fn read_shared(table: &Table, history_section: &str, base: &Rules) -> Rules {
    Rules {
        create: table.choice(
            "create",
            &[("join", Some(Create::Join)), ("declared", Some(Create::Declared))],
            base.create,
        ),
        max_members: table.number("max_members", 1..=MEMBERS_MAX, base.max_members),
        history: history(&table.table("history", history_section), base.history),
        ..base.clone()
    }
}

fn history(table: &Table, base: History) -> History {
    // In [limits] 0 lifts a limit: here it would keep nothing, which `messages` says more plainly.
    let bytes = table.entry("bytes").and_then(|e| e.size(1..=HISTORY_BYTES_MAX));
    History {
        messages: table.number("messages", 0..=MESSAGES_MAX, base.messages),
        age: table.duration_or_zero("age", HISTORY_AGE_MAX, base.age),
        bytes: bytes.and_then(|n| usize::try_from(n).ok()).unwrap_or(base.bytes),
    }
}

fn read_pattern(text: &str) -> Result<String, Complaint> {
    let is_fit = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/@*".contains(&b);
    if (1..=PATTERN_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_fit) {
        return Ok(text.to_owned());
    }
    let message = format!("a pattern is 1 to {PATTERN_BYTES_MAX} letters, digits, `-_.:/@` and `*`");
    Err(Complaint::new(message).help(PATTERN_HELP))
}

/// Notes `durable` where nothing is kept. With `latest_only` there is something: servers read it, though no member recovers it.
fn check_durable(table: &Table, rules: &Rules) {
    let empty = match rules.history {
        History { messages: 0, .. } => "messages",
        History { age: Duration::ZERO, .. } => "age",
        History { .. } => return,
    };
    if let Some(entry) = table.entry("durable").filter(|_| rules.durable) {
        let message = format!("`durable` has no history to save: `history.{empty}` is 0 for this policy");
        let help = "set it, as in history = { messages = 100, age = \"1d\" }, or leave `durable` out";
        entry.complain(Complaint::new(message).help(help));
    }
}

/// Notes a policy that an earlier one hides.
fn check_reachable(pattern: &str, table: &Table, earlier: &[Policy]) {
    // Only a star takes a star: a pattern that fits another as if it were a name fits all its names.
    let Some(other) = earlier.iter().find(|p| pattern::fits(&p.pattern, pattern)) else { return };
    let complaint = if earlier.iter().any(|p| p.pattern == pattern) {
        Complaint::new("an earlier policy has the same pattern").help("the first match wins; keep one of them")
    } else if pattern::is_plain(pattern) && table.iter().all(|e| matches!(e.key(), "match" | "create")) {
        // It declares a room, which the earlier policy rules.
        return;
    } else {
        let message = format!("this policy never holds: the earlier `{}` takes its rooms", other.pattern);
        Complaint::new(message).help("the first match wins; move this policy up")
    };
    let place: Option<Place> = table.entry("match").map(|e| e.place()).or_else(|| table.place());
    if let Some(place) = place {
        table.report().fault(place, complaint);
    }
}
