//! Which headers cross the gateway (RFC 9110, section 7.6.1), and what the backend is told of the client.
use super::handshake::Forward;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use std::borrow::Cow;
use std::fmt::Write;

/// The client's headers as the backend gets them: without those of one hop and of the handshake, and with what only
/// the gateway may say. The handshake's own are still to be added.
pub(super) fn for_backend(forward: &Forward<'_>, host: HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(forward.headers.len() + 10);
    headers.insert(header::HOST, host);
    for (name, value) in forward.headers {
        if !is_ours(name) {
            headers.append(name, value.clone());
        }
    }
    remove_hop_by_hop(&mut headers, forward.headers.get_all(header::CONNECTION));
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
    headers
}

/// What belongs to one hop is taken out of `headers`: the usual ones, and those that the values of its `connection`
/// headers name.
pub(super) fn remove_hop_by_hop<'a>(headers: &mut HeaderMap, connection: impl IntoIterator<Item = &'a HeaderValue>) {
    for name in elements(connection) {
        if let Ok(name) = HeaderName::from_bytes(name) {
            // The host is the message's own, whatever a peer says.
            if name != header::HOST {
                headers.remove(name);
            }
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Whether the gateway alone says this to a backend. An underscore counts as a hyphen: CGI and WSGI make one name of
/// both, so that a client could forge the one with the other.
fn is_ours(name: &HeaderName) -> bool {
    let name = match name.as_str() {
        name if name.contains('_') => Cow::Owned(name.replace('_', "-")),
        name => Cow::Borrowed(name),
    };
    match &*name {
        "host" | "content-length" | "expect" | "forwarded" | "x-real-ip" | "x-client-id" => true,
        "sec-websocket-key" | "sec-websocket-accept" | "sec-websocket-version" | "sec-websocket-protocol" => true,
        name => name.starts_with("x-forwarded"),
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
