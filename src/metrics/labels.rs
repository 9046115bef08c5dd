//! The values of the labels: closed sets, so that no peer can make a new time series.
use crate::close::{By, Close, Code};

/// An enum whose variants are places in an array of counters.
macro_rules! labels {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of the counters.
            pub const ALL: &[$name] = &[$($name::$variant,)+];
            /// How many values there are.
            pub const COUNT: usize = $name::ALL.len();

            /// The value of the label in the exposition.
            pub fn label(self) -> &'static str {
                match self { $($name::$variant => $label,)+ }
            }
        }
    };
}

labels! {
    /// How a connection's handshake (TLS and one request head) ended, by `outcome`.
    pub enum Handshake {
        /// An upgrade was answered with 101 and a session began.
        Accepted = "accepted",
        /// An ordinary request was let in, and passed on to a backend.
        Passed = "passed",
        /// A check of admission said no; [`Refused`] counts the reason.
        Refused = "refused",
        /// No PROXY header came, or not in time.
        ProxyHeader = "proxy_header",
        /// TLS could not be agreed on, or what came was not TLS.
        TlsFailed = "tls_failed",
        /// The TLS handshake was not done within `header_timeout`.
        TlsTimeout = "tls_timeout",
        /// The request head was not complete within `header_timeout`.
        HeadTimeout = "head_timeout",
        /// The request head was not HTTP.
        Malformed = "malformed",
        /// The peer went away before its request was complete or answered.
        Disconnected = "disconnected",
    }
}

labels! {
    /// Why a request or a connection was refused, by `reason`.
    pub enum Refused {
        /// The Origin is not allowed (4003).
        Origin = "origin",
        /// No token came (4001).
        AuthRequired = "auth_required",
        /// The token is bad or expired (4002).
        AuthFailed = "auth_failed",
        /// A token came, and the keys to judge it could not be fetched yet (4000).
        NoKeys = "no_keys",
        /// Too many handshakes a second from one address.
        RateLimit = "rate_limit",
        /// Too many connections from one address.
        IpConnections = "ip_connections",
        /// Too many sockets of one client (4011).
        ClientConnections = "client_connections",
        /// The client is banned (4009).
        Banned = "banned",
        /// `server.max_connections` are open.
        ProcessFull = "process_full",
        /// No route matches (404).
        NoRoute = "no_route",
        /// Not a GET (405).
        Method = "method",
        /// Not WebSocket version 13 (426).
        Version = "version",
        /// An ordinary request where only upgrades are served (426).
        UpgradeRequired = "upgrade_required",
        /// A request that is no valid upgrade (400).
        Malformed = "malformed",
        /// No server of the upstream could be reached (4012).
        Upstream = "upstream",
        /// The backend itself refused the upgrade; its answer was passed on.
        Backend = "backend",
        /// The gateway is stopping.
        Draining = "draining",
        /// An HTTP/2 connection whose frames brought nothing (GOAWAY with ENHANCE_YOUR_CALM).
        Flood = "flood",
    }
}

labels! {
    /// What came of a call of Redis, by `outcome`.
    pub enum RedisCall {
        /// Redis has carried it out.
        Answered = "answered",
        /// Redis has refused it.
        Refused = "refused",
        /// Redis was not reached, or did not answer.
        Away = "away",
        /// Too much was waiting for Redis.
        Full = "full",
    }
}

labels! {
    /// The service of a route, by `service`.
    pub enum ServiceLabel {
        /// Sends every message back.
        Echo = "echo",
        /// Hosts rooms.
        Rooms = "rooms",
        /// Relays to an upstream.
        Proxy = "proxy",
    }
}

labels! {
    /// The class of an answer's status, by `status`.
    pub enum StatusClass {
        /// 200 to 299, or informational.
        Success = "2xx",
        /// 300 to 399.
        Redirection = "3xx",
        /// 400 to 499.
        ClientError = "4xx",
        /// 500 and above.
        ServerError = "5xx",
    }
}

impl StatusClass {
    pub(super) fn of(status: u16) -> StatusClass {
        match status {
            ..300 => StatusClass::Success,
            300..400 => StatusClass::Redirection,
            400..500 => StatusClass::ClientError,
            500.. => StatusClass::ServerError,
        }
    }
}

labels! {
    /// Which way a message went, by `direction`.
    pub enum Direction {
        /// From clients.
        In = "in",
        /// To clients.
        Out = "out",
    }
}

labels! {
    /// What an application is asked about, by `event`.
    pub enum Asked {
        /// A client's session begins.
        Connect = "connect",
        /// A session joins a room.
        Join = "join",
        /// A member publishes.
        Publish = "publish",
    }
}

labels! {
    /// What became of a question, by `outcome`.
    pub enum AskedOutcome {
        /// It may happen.
        Allowed = "allowed",
        /// It may happen, with another message.
        Changed = "changed",
        /// The application said no.
        Refused = "refused",
        /// There was no answer that decides; `on_failure` did.
        Failed = "failed",
    }
}

labels! {
    /// What became of a fetch of a key set, by `outcome`.
    pub enum Fetched {
        /// There is a set.
        Fresh = "fresh",
        /// The source was down, or what it sent cannot be used.
        Failed = "failed",
    }
}

labels! {
    /// What became of an event that an application is told of, by `outcome`.
    pub enum ToldOutcome {
        /// The application has taken it.
        Delivered = "delivered",
        /// It was refused for good, or grew too old.
        GivenUp = "given_up",
        /// Too many waited before it.
        Dropped = "dropped",
    }
}

labels! {
    /// Why the members of a room of a cluster lost their places, by `cause`.
    pub enum PlacesLost {
        /// What they had missed stands in Redis no more.
        Gap = "gap",
        /// The room has another count.
        Epoch = "epoch",
    }
}

impl From<crate::config::Service> for ServiceLabel {
    fn from(service: crate::config::Service) -> ServiceLabel {
        match service {
            crate::config::Service::Echo => ServiceLabel::Echo,
            crate::config::Service::Rooms => ServiceLabel::Rooms,
            crate::config::Service::Proxy(_) => ServiceLabel::Proxy,
        }
    }
}

/// Who ended a socket, in the order of the counters.
pub(super) const BY: [By; 3] = [By::Client, By::Gateway, By::Upstream];

/// What the label `code` says beside the codes of [`Code::ALL`]: another number that a peer sent,
/// a Close without a number (1005), no Close at all.
const OTHER_CODES: [&str; 3] = ["peer", "no_code", "lost"];

/// How many values the label `code` has.
pub(super) const CODES: usize = Code::ALL.len() + OTHER_CODES.len();

/// The label `code` of a counter's place.
pub(super) fn code_label(place: usize) -> &'static str {
    match Code::ALL.get(place) {
        Some(code) => code.label(),
        None => OTHER_CODES[place - Code::ALL.len()],
    }
}

/// The counter's place for who ended a socket.
pub(super) fn by_place(by: By) -> usize {
    match by {
        By::Client => 0,
        By::Gateway => 1,
        By::Upstream => 2,
    }
}

/// The counter's place for the code of a close.
pub(super) fn code_place(close: &Close) -> usize {
    match close.number {
        None => Code::ALL.len() + 2,
        Some(1005) => Code::ALL.len() + 1,
        Some(number) => Code::ALL.iter().position(|c| c.number() == number).unwrap_or(Code::ALL.len()),
    }
}
