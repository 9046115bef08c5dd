//! The upgrade towards a backend (RFC 6455, section 4.1): what is sent, and what is believed of the answer.
mod refused;

pub use refused::Refused;

use super::headers;
use super::http;
use super::server::{Lease, Proxied, Server, Unavailable};
use crate::close::Code;
use crate::outbox::Peer;
use crate::outbox::ending::{Awaits, linger};
use crate::outbox::wire::{Stream, Wire};
use crate::ws::{self, Opcode, Rsv, masked_frame};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::timeout;

/// Time for a backend's answer, from the request to the end of its head.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the backend is to be told.
#[derive(Debug, Clone, Copy)]
pub struct Forward<'a> {
    /// The client's headers.
    pub headers: &'a HeaderMap,
    /// Path and query, the token already removed.
    pub path_and_query: &'a str,
    /// The offered subprotocols without the pair that carries the token.
    pub protocols: Option<&'a str>,
    /// The client's address, behind trusted proxies too; `None` where it is not known (Unix sockets).
    pub client_ip: Option<IpAddr>,
    /// The version of HTTP that the client speaks with the gateway.
    pub version: Version,
    /// The chain believed from a trusted proxy; the peer's address is appended.
    pub forwarded_for: Option<&'a str>,
    /// The `Forwarded` believed from a trusted proxy; an element for the peer is appended.
    pub forwarded: Option<&'a str>,
    /// The address of whoever is connected to the gateway.
    pub peer_ip: Option<IpAddr>,
    /// `https` or `http`, as the client (or a trusted proxy) has it.
    pub proto: &'a str,
    /// The client's Host.
    pub host: &'a str,
    /// The client's name; percent-encoded on its way where it is not visible ASCII.
    pub client_id: Option<&'a str>,
    /// What a PROXY header says; `None` where the client's address is not known.
    pub proxied: Option<Proxied>,
}

/// A backend that has upgraded.
pub struct Backend {
    /// The connection: only frames go here now.
    pub wire: Wire,
    /// Frames that came together with the 101.
    pub early: Bytes,
    /// What of the 101 is passed on to the client: subprotocol, extensions, cookies and other end-to-end headers, no
    /// `Sec-WebSocket-Accept`.
    pub headers: HeaderMap,
    /// Which reserved bits the negotiated extensions may set.
    pub rsv: Rsv,
    /// Whether the client may compress with what it sent before (RFC 7692, section 7.1.1.2).
    pub client_takeover: bool,
    /// The server, used until this is dropped.
    pub lease: Lease,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("headers", &self.headers).field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl Backend {
    /// Says that no client comes (1001, RFC 6455, section 7.4.1), and ends the connection. Takes at most 2 s.
    pub async fn leave(self, scratch: &RefCell<Vec<u8>>) {
        let mut peer = Peer::new(self.wire);
        peer.push(masked_frame(Opcode::Close, &(Code::GoingAway as u16).to_be_bytes(), rand::random()));
        linger(&RefCell::new(peer), scratch, Awaits::End).await;
    }
}

/// Why there is no backend.
#[derive(Debug)]
pub enum Unopened {
    /// The backend refused the upgrade: its answer, to be passed on as it is. Headers of the hop are removed. To a
    /// client over HTTP/2 no 2xx.
    Answer(Response<Refused>),
    /// No answer that could be passed on.
    Unavailable(Unavailable),
}

/// Upgrades a fresh connection to a server.
pub(super) async fn upgrade(stream: Stream, lease: Lease, forward: Forward<'_>) -> Result<Backend, Unopened> {
    let server = &*lease.server;
    let bad = |why: String| Unopened::Unavailable(Unavailable::bad(server, why));
    let key = BASE64_STANDARD.encode(rand::random::<[u8; 16]>());
    let request = request(server, &forward, &key).map_err(|e| bad(e.to_string()))?;
    let offer = Offer::of(&request);
    let http1 = http1::Builder::new().max_buf_size(http::BUFFER_MAX).handshake(TokioIo::new(stream));
    let (mut sender, connection) = http1.await.map_err(|e| bad(e.to_string()))?;
    // It ends with the upgrade, or when nobody wants the answer or its body any more.
    tokio::spawn(connection.with_upgrades());
    let mut answer = match timeout(ANSWER_TIMEOUT, sender.send_request(request)).await {
        Ok(answer) => answer.map_err(|e| bad(e.to_string()))?,
        Err(_) => return Err(Unopened::Unavailable(Unavailable::late(server))),
    };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        http::judge(&answer).map_err(|e| bad(e.to_owned()))?;
        if forward.version == Version::HTTP_2 && answer.status().is_success() {
            // There a 2xx opens the WebSocket (RFC 8441, section 5).
            return Err(bad(format!("{} to an upgrade", answer.status().as_u16())));
        }
        return Err(Unopened::Answer(refusal(answer).map(|body| Refused::new(body, lease))));
    }
    let rsv = offer.judge(answer.headers(), &ws::accept_key(key.as_bytes())).map_err(|e| bad(e.to_owned()))?;
    let upgraded = hyper::upgrade::on(&mut answer).await.map_err(|e| bad(e.to_string()))?;
    let parts = upgraded.downcast::<TokioIo<Stream>>().map_err(|_| bad("not the stream it was".to_owned()))?;
    let mut passed_on = std::mem::take(answer.headers_mut());
    headers::for_client(&mut passed_on, Version::HTTP_11);
    passed_on.remove(header::SEC_WEBSOCKET_ACCEPT);
    passed_on.remove(header::CONTENT_LENGTH);
    // A copy: hyper's buffer is large, and would live as long as this part of it.
    let early = Bytes::copy_from_slice(&parts.read_buf);
    let client_takeover = client_takeover(&passed_on);
    Ok(Backend { wire: parts.io.into_inner().into(), early, headers: passed_on, rsv, client_takeover, lease })
}

fn request(server: &Server, forward: &Forward<'_>, key: &str) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let mut headers = headers::for_backend(forward, server.host(forward.host)?, &server.upstream.headers);
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_str(key)?);
    if let Some(protocols) = forward.protocols {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(protocols)?);
    }
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = Uri::try_from(forward.path_and_query)?;
    *request.headers_mut() = headers;
    Ok(request)
}

fn refusal(mut answer: Response<Incoming>) -> Response<Incoming> {
    // The one hop header that says something to the client: what the backend would have liked (RFC 9110, 15.5.22).
    let wanted = match answer.status() {
        StatusCode::UPGRADE_REQUIRED => answer.headers().get(header::UPGRADE).cloned(),
        _ => None,
    };
    headers::for_client(answer.headers_mut(), Version::HTTP_11);
    if let Some(wanted) = wanted {
        answer.headers_mut().insert(header::UPGRADE, wanted);
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    *answer.version_mut() = Version::HTTP_11;
    answer
}

/// What the client offers: a backend may choose nothing else.
struct Offer {
    protocols: Option<HeaderValue>,
    extensions: Vec<HeaderValue>,
}

impl Offer {
    fn of<B>(request: &Request<B>) -> Offer {
        let headers = request.headers();
        Offer {
            protocols: headers.get(header::SEC_WEBSOCKET_PROTOCOL).cloned(),
            extensions: headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter().cloned().collect(),
        }
    }

    /// Verifies the head of a 101 (RFC 6455, section 4.1, the six points about the server's response); says which
    /// reserved bits the extensions in it may set.
    fn judge(&self, answer: &HeaderMap, accept: &str) -> Result<Rsv, &'static str> {
        let says = |name, word: &str| {
            headers::elements(answer.get_all(name)).any(|element| element.eq_ignore_ascii_case(word.as_bytes()))
        };
        if !says(header::UPGRADE, "websocket") {
            return Err("101 without Upgrade: websocket");
        }
        if !says(header::CONNECTION, "upgrade") {
            return Err("101 without Connection: Upgrade");
        }
        let mut accepts = answer.get_all(header::SEC_WEBSOCKET_ACCEPT).iter();
        if accepts.next().is_none_or(|value| value != accept) || accepts.next().is_some() {
            return Err("101 with a wrong Sec-WebSocket-Accept");
        }
        let mut chosen = answer.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
        if let Some(protocol) = chosen.next()
            && (chosen.next().is_some() || !headers::elements(&self.protocols).any(|offered| offered == protocol))
        {
            return Err("101 with a subprotocol that was not offered");
        }
        self.judge_extensions(answer)
    }

    fn judge_extensions(&self, answer: &HeaderMap) -> Result<Rsv, &'static str> {
        let mut rsv = Rsv::None;
        for chosen in headers::elements(answer.get_all(header::SEC_WEBSOCKET_EXTENSIONS)) {
            let chosen = extension_name(chosen);
            if !headers::elements(&self.extensions).any(|offered| extension_name(offered).eq_ignore_ascii_case(chosen))
            {
                return Err("101 with an extension that was not offered");
            }
            rsv = match rsv {
                Rsv::None if chosen.eq_ignore_ascii_case(b"permessage-deflate") => Rsv::Deflate,
                Rsv::None | Rsv::Deflate | Rsv::Any => Rsv::Any,
            };
        }
        Ok(rsv)
    }
}

/// Whether a 101 leaves it to the client to take its window over. What cannot be read is no promise.
fn client_takeover(answer: &HeaderMap) -> bool {
    let chosen = headers::elements(answer.get_all(header::SEC_WEBSOCKET_EXTENSIONS));
    let mut parameters = chosen.flat_map(|element| element.split(|byte| *byte == b';').skip(1));
    !parameters.any(|parameter| parameter.trim_ascii() == b"client_no_context_takeover")
}

/// The name in front of an extension's parameters.
fn extension_name(element: &[u8]) -> &[u8] {
    element.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

#[cfg(test)]
pub(super) mod tests;
