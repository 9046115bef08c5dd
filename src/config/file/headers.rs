//! `headers` of an upstream: what is changed about the headers of requests.
use super::host;
use super::report::Complaint;
use super::table::Table;
use crate::config::HeaderRules;
use hyper::header::{HeaderName, HeaderValue};

const NAMES_MAX: usize = 64;
const VALUE_BYTES_MAX: usize = 1024;

/// The rules; no name stands in them twice.
pub(super) fn read(table: &Table) -> HeaderRules {
    let mut rules = HeaderRules::default();
    let set = table.table("set", "upstream.NAME.headers.set");
    if let Some(place) = set.place()
        && set.iter().count() > NAMES_MAX
    {
        table.report().fault(place, Complaint::new(format!("`set` has more than {NAMES_MAX} headers")));
    }
    for entry in set.iter() {
        // A value may be a secret between the gateway and the backend.
        table.report().hide(entry.place());
        let name = name(entry.key(), &rules).map_err(|c| table.report().fault(entry.key_place(), c)).ok();
        if let (Some(name), Some(value)) = (name, entry.convert(value)) {
            rules.set.push((name, value));
        }
    }
    for entry in table.entry("remove").and_then(|e| e.list(NAMES_MAX)).unwrap_or_default() {
        if let Some(name) = entry.convert(|text| name(text, &rules)) {
            rules.remove.push(name);
        }
    }
    rules
}

fn name(text: &str, rules: &HeaderRules) -> Result<HeaderName, Complaint> {
    host::check_token(text)?;
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| Complaint::new("this is no name of a header"))?;
    if let Some(complaint) = reserved(text) {
        return Err(complaint);
    }
    if rules.remove.contains(&name) || rules.set.iter().any(|(other, _)| *other == name) {
        return Err(Complaint::new("this header stands here already").help("upper and lower case are the same"));
    }
    Ok(name)
}

/// Why a header is the gateway's own affair, if it is. An underscore counts as a hyphen, since CGI and WSGI make one
/// name of both.
fn reserved(name: &str) -> Option<Complaint> {
    let reason = match name.to_ascii_lowercase().replace('_', "-").as_str() {
        "host" => {
            let complaint = Complaint::new("`headers` cannot change the Host");
            return Some(complaint.help("with preserve_host = false a server is sent its own address instead"));
        }
        "connection"
        | "upgrade"
        | "http2-settings"
        | "keep-alive"
        | "proxy-connection"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "te" => "belongs to one connection",
        "transfer-encoding" | "content-length" | "trailer" | "expect" => "says how the message is sent",
        "forwarded" | "via" | "x-real-ip" | "x-client-id" => "says where the request comes from",
        name if name.starts_with("x-forwarded") => "says where the request comes from",
        name if name.starts_with("sec-websocket-") => "belongs to the WebSocket handshake",
        _ => return None,
    };
    Some(Complaint::new(format!("`{name}` {reason}: the gateway alone decides about it")))
}

fn value(text: &str) -> Result<HeaderValue, Complaint> {
    let is_fit = text.len() <= VALUE_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    let value = HeaderValue::from_str(text).ok().filter(|_| is_fit && text.trim() == text);
    let mut value = value.ok_or_else(|| {
        let message = format!("the value of a header is at most {VALUE_BYTES_MAX} bytes of visible ASCII");
        Complaint::new(message).help("spaces may stand within it")
    })?;
    value.set_sensitive(true);
    Ok(value)
}
