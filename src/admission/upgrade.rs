//! The upgrade a request asks for: by HTTP/1.1 (RFC 6455, section 4.2.1), or over HTTP/2 by an extended CONNECT
//! (RFC 8441).
use super::forwarded::is_host;
use super::refusal::Refusal;
use super::token::{Offered, offered_protocols};
use crate::config::Auth;
use crate::metrics::Refused;
use crate::ws::accept_key;
use h2::ext::Protocol;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};

/// An upgrade request that is in order.
pub struct Upgrade {
    /// `Sec-WebSocket-Accept`; `None` over HTTP/2, which has neither that nor a key.
    pub accept: Option<HeaderValue>,
    /// Offered subprotocols, without the token's pair, as one list.
    pub protocols: Vec<String>,
    /// The name before a token among the subprotocols, where it was offered.
    pub token_name: Option<String>,
    /// Every `Sec-WebSocket-Extensions` value. Copied: a `HeaderValue` would keep the whole head in memory.
    pub extensions: Vec<String>,
}

/// Headers that decide something here and may stand in a request once.
const ONCE: [HeaderName; 5] = [HOST, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, CONTENT_LENGTH];

fn bad(message: &'static str) -> Refusal {
    Refusal::plain(StatusCode::BAD_REQUEST, Refused::Malformed, message)
}

/// Whether a request asks for an upgrade to WebSocket; any other Upgrade is ignored (RFC 9110, section 7.8). Over HTTP/2
/// that is an extended CONNECT, whatever its protocol.
pub fn is_asked(head: &Parts) -> bool {
    match head.version {
        Version::HTTP_2 => head.extensions.get::<Protocol>().is_some(),
        _ => lists(&head.headers, &UPGRADE, "websocket"),
    }
}

/// Judges what every request must have in order: one host, and no second value where one decides something.
pub fn check(head: &Parts) -> Result<(), Refusal> {
    if ONCE.iter().any(|name| head.headers.get_all(name).iter().nth(1).is_some()) {
        return Err(bad("a header stands twice"));
    }
    let target = head.uri.authority().map(|a| a.as_str());
    let host = head.headers.get(HOST).map(|h| h.to_str().unwrap_or_default());
    if target.or(host).is_none() || ![target, host].into_iter().flatten().all(is_host) {
        return Err(bad("the Host is no host"));
    }
    if let (Some(target), Some(host)) = (target, host)
        && !target.eq_ignore_ascii_case(host)
    {
        return Err(bad("the target and the Host name two hosts"));
    }
    Ok(())
}

impl Upgrade {
    /// Judges method, version and the headers of the handshake.
    pub fn read(auth: &Auth, head: &Parts) -> Result<Upgrade, Refusal> {
        let headers = &head.headers;
        check(head)?;
        let accept = match head.version {
            Version::HTTP_2 => {
                judge_http2(head)?;
                None
            }
            _ => Some(judge_http1(head)?),
        };
        let Offered { protocols, named } =
            offered_protocols(auth, headers).map_err(|_| bad("malformed Sec-WebSocket-Protocol"))?;
        Ok(Upgrade {
            accept,
            protocols: protocols.into_iter().map(str::to_owned).collect(),
            token_name: named.then(|| auth.subprotocol.clone()),
            extensions: texts(headers, &SEC_WEBSOCKET_EXTENSIONS).map(str::to_owned).collect(),
        })
    }

    /// The subprotocol of an answer that has nothing to say about them: the first that was offered,
    /// or the token's own, so that browsers take the 101.
    pub fn any_protocol(&self) -> Option<HeaderValue> {
        let name = self.protocols.first().or(self.token_name.as_ref())?;
        HeaderValue::try_from(name).ok()
    }

    /// `wanted` where it was offered, else the token's own.
    pub fn protocol(&self, wanted: &str) -> Option<HeaderValue> {
        let name = self.protocols.iter().find(|p| *p == wanted).or(self.token_name.as_ref())?;
        HeaderValue::try_from(name).ok()
    }
}

/// What is to be answered to the key of an upgrade by HTTP/1.1.
fn judge_http1(head: &Parts) -> Result<HeaderValue, Refusal> {
    let headers = &head.headers;
    if head.method != Method::GET {
        return Err(Refusal::plain(StatusCode::METHOD_NOT_ALLOWED, Refused::Method, "only GET is served here"));
    }
    if !is_asked(head) {
        return Err(Refusal::plain(StatusCode::UPGRADE_REQUIRED, Refused::UpgradeRequired, "upgrade required"));
    }
    if head.version != Version::HTTP_11 || !headers.contains_key(HOST) {
        return Err(bad("an upgrade needs HTTP/1.1 and a Host"));
    }
    if !lists(headers, &CONNECTION, "upgrade") {
        return Err(bad("Connection does not name Upgrade"));
    }
    let has_body = headers.get(CONTENT_LENGTH).is_some_and(|n| n.as_bytes() != b"0");
    if has_body || headers.contains_key(TRANSFER_ENCODING) {
        return Err(bad("an upgrade must have no body"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
        let message = "WebSocket version 13 is served here";
        return Err(Refusal::plain(StatusCode::UPGRADE_REQUIRED, Refused::Version, message));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).filter(|key| is_key(key));
    let key = key.ok_or_else(|| bad("Sec-WebSocket-Key must be 16 bytes in base64"))?;
    HeaderValue::try_from(accept_key(key)).map_err(|_| bad("Sec-WebSocket-Key"))
}

/// An extended CONNECT has neither key nor `Connection` nor `Upgrade` (RFC 8441, section 5). A 426 would need the
/// last (RFC 9110, section 15.5.22), so that 400 takes its place.
fn judge_http2(head: &Parts) -> Result<(), Refusal> {
    let Some(protocol) = head.extensions.get::<Protocol>().filter(|_| head.method == Method::CONNECT) else {
        let message = "a WebSocket is served here, by CONNECT with :protocol websocket";
        return Err(Refusal::plain(StatusCode::BAD_REQUEST, Refused::UpgradeRequired, message));
    };
    // RFC 9220, section 3.
    if protocol.as_str() != "websocket" {
        let message = "no other :protocol than websocket is known here";
        return Err(Refusal::plain(StatusCode::NOT_IMPLEMENTED, Refused::Method, message));
    }
    if head.headers.contains_key(CONTENT_LENGTH) {
        return Err(bad("a CONNECT must have no length"));
    }
    if head.headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
        let message = "WebSocket version 13 is served here";
        return Err(Refusal::plain(StatusCode::BAD_REQUEST, Refused::Version, message));
    }
    Ok(())
}

fn texts<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok())
}

/// The headers of every 101 (RFC 6455, section 4.2.2).
pub fn switch(headers: &mut HeaderMap, accept: &HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept.clone());
}

/// Whether one of the header's lists names `token`, in any case.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    texts(headers, name).flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token))
}

/// 16 bytes in base64: 22 characters and `==`.
fn is_key(key: &[u8]) -> bool {
    use base64::{Engine, engine::general_purpose::STANDARD};
    key.len() == 24 && STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}
