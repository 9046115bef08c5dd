//! `[rooms.hook]`.
use super::World;
use super::entry::Entry;
use super::report::Complaint;
use super::secret;
use super::table::Table;
use super::url;
use crate::config::{Hook, HookEvent};
use std::time::Duration;

const URL_HELP: &str = "write it as in url = \"http://127.0.0.1:3000/wsgate\"";
const EVENTS_HELP: &str = "write them as in events = [\"join\", \"publish\"]";
const TIMEOUT_MIN: Duration = Duration::from_millis(10);
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// 128 bits cannot be guessed; the 32 bytes that RFC 7518 asks for are for tokens.
const SECRET_BYTES_MIN: usize = 16;

const EVENTS: [(&str, Option<HookEvent>); 7] = [
    ("connect", Some(HookEvent::Connect)),
    ("join", Some(HookEvent::Join)),
    ("publish", Some(HookEvent::Publish)),
    ("occupied", Some(HookEvent::Occupied)),
    ("vacated", Some(HookEvent::Vacated)),
    ("joined", Some(HookEvent::Joined)),
    ("left", Some(HookEvent::Left)),
];

/// The hook; `None` where the table or its address is missing.
pub(super) fn read(table: &Table, world: &World) -> Option<Hook> {
    if !table.is_present() {
        return None;
    }
    let url = table
        .required("url", URL_HELP)
        .and_then(|e| e.convert(|text| url::read(text, "the address of a hook", URL_HELP)));
    let events = table.required("events", EVENTS_HELP).and_then(|e| events(&e)).unwrap_or_default();
    let timeout = table.duration("timeout", TIMEOUT_MIN..=TIMEOUT_MAX, Duration::from_secs(1));
    let deny_on_failure = table.choice("on_failure", &[("deny", Some(true)), ("allow", Some(false))], true);
    let secret =
        table.entry("secret_env").and_then(|e| secret::from_env(&e, world, SECRET_BYTES_MIN, "WSGATE_HOOK_SECRET"));
    Some(Hook { url: url?.text, events, timeout, deny_on_failure, secret })
}

fn events(entry: &Entry) -> Option<Vec<HookEvent>> {
    let listed = entry.list(64)?;
    if listed.is_empty() {
        entry.complain(Complaint::new("at least one event is needed").help(EVENTS_HELP));
    }
    let mut events = Vec::new();
    for entry in listed {
        let Some(event) = entry.choice(&EVENTS) else { continue };
        if events.contains(&event) {
            entry.complain(Complaint::new("this event stands here already"));
        }
        events.push(event);
    }
    Some(events)
}
