//! `[rooms.hook]`.
use super::World;
use super::entry::Entry;
use super::host;
use super::report::Complaint;
use super::secret;
use super::table::Table;
use crate::config::{Hook, HookEvent};
use std::time::Duration;

const URL_BYTES_MAX: usize = 1024;
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
    let url = table.required("url", URL_HELP).and_then(|e| e.convert(url));
    let events = table.required("events", EVENTS_HELP).and_then(|e| events(&e)).unwrap_or_default();
    let timeout = table.duration("timeout", TIMEOUT_MIN..=TIMEOUT_MAX, Duration::from_secs(1));
    let deny_on_failure = table.choice("on_failure", &[("deny", Some(true)), ("allow", Some(false))], true);
    let secret =
        table.entry("secret_env").and_then(|e| secret::from_env(&e, world, SECRET_BYTES_MIN, "WSGATE_HOOK_SECRET"));
    Some(Hook { url: url?, events, timeout, deny_on_failure, secret })
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

/// An address with its path, which is `/` where none is written.
fn url(text: &str) -> Result<String, Complaint> {
    let fail = |message: &str| Err(Complaint::new(message).help(URL_HELP));
    if text.starts_with("https:") {
        return fail("a hook `https:…` is not supported yet");
    }
    let Some(rest) = text.strip_prefix("http://") else { return fail("the address of a hook begins with http://") };
    let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return fail("the address of a hook has no user and password; `secret_env` signs what it is sent");
    }
    let (_, port) = host::with_port(authority)?;
    if port == Some(0) {
        return fail("port 0 cannot be connected to");
    }
    if target.contains('#') {
        return fail("the address of a hook has no fragment");
    }
    if text.len() > URL_BYTES_MAX {
        return fail(&format!("the address of a hook has at most {URL_BYTES_MAX} bytes"));
    }
    host::check_target(target)?;
    let slash = if target.starts_with('/') { "" } else { "/" };
    Ok(format!("http://{authority}{slash}{target}"))
}
