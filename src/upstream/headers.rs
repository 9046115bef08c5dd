//! Which headers cross the gateway (RFC 9110, section 7.6.1), and what the backend is told of the client.
use super::handshake::Forward;
use crate::config::HeaderRules;
use hyper::Version;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use std::borrow::Cow;
use std::fmt::Write;
use std::net::IpAddr;

/// The client's headers as the backend gets them: without those of one hop, of the handshake and of the body, with what
/// only the gateway may say, and changed as the upstream has it. What the handshake or the body needs is still to be
/// added.
pub(super) fn for_backend(forward: &Forward<'_>, host: HeaderValue, rules: &HeaderRules) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(forward.headers.len() + 12);
    headers.insert(header::HOST, host);
    for (name, value) in forward.headers {
        if !is_ours(name) && !is_ruled(name, rules) {
            headers.append(name, value.clone());
        }
    }
    remove_hop_by_hop(&mut headers, forward.headers.get_all(header::CONNECTION));
    add_via(&mut headers, forward.version);
    describe(&mut headers, forward);
    for name in &rules.remove {
        headers.remove(name);
    }
    for (name, value) in &rules.set {
        headers.insert(name, value.clone());
    }
    headers
}

/// What the gateway says of the client.
fn describe(headers: &mut HeaderMap, forward: &Forward<'_>) {
    let mut tell = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    if let Some(ip) = forward.client_ip {
        tell("x-real-ip", &ip.to_canonical().to_string());
    }
    let peer = forward.peer_ip.map(|ip| ip.to_canonical().to_string());
    match (forward.forwarded_for, peer) {
        (Some(chain), Some(peer)) => tell("x-forwarded-for", &format!("{chain}, {peer}")),
        (Some(chain), None) => tell("x-forwarded-for", chain),
        (None, Some(peer)) => tell("x-forwarded-for", &peer),
        (None, None) => (),
    }
    tell("x-forwarded-proto", forward.proto);
    tell("x-forwarded-host", forward.host);
    if let Some(client) = forward.client_id {
        tell("x-client-id", &percent_encode(client));
    }
    tell("forwarded", &forwarded(forward));
}

/// `Forwarded` (RFC 7239): what a trusted proxy said, and an element for whoever is connected to the gateway. Where the
/// proxy named a chain in `X-Forwarded-For`, its addresses are elements too.
fn forwarded(forward: &Forward<'_>) -> String {
    let node = |ip: Option<IpAddr>| match ip.map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => format!("\"[{ip}]\""),
        None => "unknown".to_owned(),
    };
    let mut all = String::new();
    match (forward.forwarded, forward.forwarded_for) {
        (Some(before), _) => all = format!("{before}, "),
        (None, Some(chain)) => {
            for address in chain.split(',').map(str::trim).filter(|address| !address.is_empty()) {
                // Writing to a String cannot fail.
                let _ = write!(all, "for={}, ", node(address.parse().ok()));
            }
        }
        (None, None) => (),
    }
    // A quoted string; a host has neither quotes nor backslashes.
    let host = forward.host.replace(['"', '\\'], "");
    let _ = write!(all, "for={};proto={};host=\"{host}\"", node(forward.peer_ip), forward.proto);
    all
}

/// One more hop that the message has come through, over this version (RFC 9110, section 7.6.3).
pub(super) fn add_via(headers: &mut HeaderMap, received: Version) {
    let via = match received {
        Version::HTTP_2 => "2 wsgate",
        Version::HTTP_10 => "1.0 wsgate",
        // hyper makes no other.
        _ => "1.1 wsgate",
    };
    headers.append(header::VIA, HeaderValue::from_static(via));
}

/// An answer's headers as the client gets them: without those of one hop, framing included.
pub(super) fn for_client(headers: &mut HeaderMap, received: Version) {
    let said = headers.get_all(header::CONNECTION).iter().cloned().collect::<Vec<_>>();
    remove_hop_by_hop(headers, &said);
    add_via(headers, received);
}

/// What may stand in trailers of a request: nothing that only the gateway may say, nothing that the upstream's rules
/// name, and nothing of one hop.
pub(super) fn clean_trailers(trailers: &mut HeaderMap, rules: &HeaderRules) {
    let unwanted = |name: &&HeaderName| is_ours(name) || is_ruled(name, rules);
    let names: Vec<HeaderName> = trailers.keys().filter(unwanted).cloned().collect();
    for name in names {
        trailers.remove(name);
    }
    remove_hop_by_hop(trailers, []);
}

/// What belongs to one hop is taken out of `headers`: the usual ones, and those that the values of its `connection`
/// headers name.
pub(super) fn remove_hop_by_hop<'a>(headers: &mut HeaderMap, connection: impl IntoIterator<Item = &'a HeaderValue>) {
    for name in elements(connection) {
        if let Ok(name) = HeaderName::from_bytes(name) {
            // Host and framing are the message's own, whatever a peer says.
            if name != header::HOST && name != header::CONTENT_LENGTH {
                headers.remove(name);
            }
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Whether the gateway alone says this to a backend.
fn is_ours(name: &HeaderName) -> bool {
    match &*hyphened(name) {
        "host" | "content-length" | "expect" | "forwarded" | "x-real-ip" | "x-client-id" => true,
        "sec-websocket-key" | "sec-websocket-accept" | "sec-websocket-version" | "sec-websocket-protocol" => true,
        name => name.starts_with("x-forwarded") || HOP_BY_HOP.contains(&name),
    }
}

/// Whether the upstream's rules set or remove this.
fn is_ruled(name: &HeaderName, rules: &HeaderRules) -> bool {
    let mut ruled = rules.remove.iter().chain(rules.set.iter().map(|(name, _)| name));
    ruled.any(|ruled| hyphened(ruled) == hyphened(name))
}

/// A name as CGI and WSGI see it, which make one name of an underscore and a hyphen: a client could forge the one with
/// the other.
fn hyphened(name: &HeaderName) -> Cow<'_, str> {
    match name.as_str() {
        name if name.contains('_') => Cow::Owned(name.replace('_', "-")),
        name => Cow::Borrowed(name),
    }
}

/// The elements of comma-separated headers, without white space around them, and none that are empty. A comma in a
/// quoted string separates nothing.
pub(super) fn elements<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> impl Iterator<Item = &'a [u8]> {
    values.into_iter().flat_map(|value| {
        let mut quoted = false;
        let elements = value.as_bytes().split(move |byte| {
            quoted ^= *byte == b'"';
            *byte == b',' && !quoted
        });
        elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
    })
}

/// Visible ASCII stays, but for `%`: no two names look the same.
fn percent_encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            encoded.push(byte.into());
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
