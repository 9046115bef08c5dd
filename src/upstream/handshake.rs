//! The upgrade towards a backend (RFC 6455, section 4.1): what is sent, and what is believed of the answer.
use crate::outbox::wire::Socket;
use crate::ws::Rsv;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};
use std::net::IpAddr;

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
    /// The chain believed from a trusted proxy; the peer's address is appended.
    pub forwarded_for: Option<&'a str>,
    /// The address of whoever is connected to the gateway.
    pub peer_ip: Option<IpAddr>,
    /// `https` or `http`, as the client (or a trusted proxy) has it.
    pub proto: &'a str,
    /// The client's Host.
    pub host: &'a str,
    /// The client's name.
    pub client_id: Option<&'a str>,
}

/// A backend that has upgraded.
pub struct Backend {
    /// The connection: only frames go here now.
    pub socket: Socket,
    /// Frames that came together with the 101.
    pub early: Bytes,
    /// What of the 101 is passed on to the client: subprotocol, extensions, cookies and other end-to-end headers.
    pub headers: HeaderMap,
    /// Which reserved bits the negotiated extensions may set.
    pub rsv: Rsv,
}

/// Why there is no backend.
#[derive(Debug)]
pub enum Unopened {
    /// The backend refused the upgrade: its answer, to be passed on as it is.
    Answer(Response<Incoming>),
    /// No answer that could be passed on.
    Unavailable {
        /// 502, 503 or 504.
        status: StatusCode,
        /// Why, for the log: names of servers and errors, nothing of the client's.
        reason: String,
    },
}
