//! The configuration, valid by construction.
//!
//! [`mod@file`] reads `gateway.toml` and reports every fault with its place; what it returns is a
//! [`Config`], in which nothing is left to check: addresses are parsed, routes name services that
//! exist, secrets have been read.
mod cluster;
pub mod file;
pub mod filter;
pub mod keys;
pub mod pattern;
mod rooms;
pub mod secret;
mod upstream;

pub use cluster::{Cluster, RedisServer};
pub use rooms::{Create, Duplicates, History, Hook, HookEvent, Permission, Policy, Rooms, Rules};
pub use upstream::{Backend, Balance, HeaderRules, HealthCheck, Transport, Upstream, UpstreamTls};

use ipnet::IpNet;
use secret::Secret;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A whole, valid configuration.
#[derive(Debug)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[[listener]]`, at least one.
    pub listeners: Vec<Listener>,
    /// The keys and rules of `[auth]` that hold for the whole gateway.
    pub auth: Auth,
    /// The two limits of `[limits]` that count by address.
    pub ip_limits: IpLimits,
    /// `[[route]]`, in the order of the file: the first match wins.
    pub routes: Vec<Arc<Route>>,
    /// `[upstream.NAME]`, in the order of their names.
    pub upstreams: Vec<Arc<Upstream>>,
    /// `[rooms]`.
    pub rooms: Rooms,
    /// `[cluster]`; none where the table is missing: one node, and everything in memory.
    pub cluster: Option<Arc<Cluster>>,
    /// `[admin]`; none where the table is missing.
    pub admin: Option<Admin>,
    /// Names of the namespaces that the routes use; [`Namespace::index`] points into it.
    pub namespaces: Vec<Arc<str>>,
}

/// `[server]`.
#[derive(Debug)]
pub struct Server {
    /// Worker threads, at least 1 (0 in the file has become the number of cores).
    pub shards: usize,
    /// Most connections of the whole process.
    pub max_connections: usize,
    /// The window over which closes are spread when the gateway stops.
    pub drain: Duration,
    /// A `tracing` filter.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// `[[listener]]`.
#[derive(Debug)]
pub struct Listener {
    /// Where it listens.
    pub address: Address,
    /// Networks whose `Forwarded` and `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Time for the TLS handshake plus one request head.
    pub header_timeout: Duration,
    /// Certificates; empty for plain HTTP. The first is the fallback where no SNI name fits.
    pub tls: Vec<Certificate>,
    /// Whether ALPN offers HTTP/2, with WebSockets over it (RFC 8441).
    pub http2: bool,
    /// Whether every connection begins with a PROXY header, v1 or v2.
    pub proxy_protocol: bool,
    /// Certificates of authorities that a client's certificate must chain to; `None`: clients show none.
    pub client_ca: Option<PathBuf>,
}

/// The address of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `HOST:PORT`, resolved (a host name may stand for several).
    Tcp(Vec<SocketAddr>),
    /// `unix:PATH`.
    Unix(PathBuf),
}

/// `[[listener.tls]]`.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The PEM chain.
    pub certificate: PathBuf,
    /// The PEM key.
    pub private_key: PathBuf,
    /// Whether a self-signed pair for localhost is made where the files are missing.
    pub generate: bool,
}

/// The rules of `[origins]`, of a route.
#[derive(Debug, Clone)]
pub struct Origins {
    /// What is allowed.
    pub allow: Vec<OriginPattern>,
    /// Whether a request without the header passes (`missing = "allow"`).
    pub missing: bool,
}

/// One entry of `origins.allow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// `"*"`: any origin, `null` included.
    Any,
    /// Scheme, host (lower case, as serialized in an `Origin` header) and port.
    Exact {
        /// `https`, `http` or an application's own scheme, lower case.
        scheme: String,
        /// The host, lower case; an IPv6 address in brackets.
        host: String,
        /// The port, the scheme's default filled in; `None` for schemes without a default.
        port: Option<u16>,
    },
    /// `https://*.example.com`: any host that ends with `.example.com`, not `example.com` itself.
    Subdomains {
        /// As in `Exact`.
        scheme: String,
        /// The suffix with its leading dot, lower case.
        suffix: String,
        /// As in `Exact`.
        port: Option<u16>,
    },
}

/// What of `[auth]` holds for the whole gateway.
#[derive(Debug)]
pub struct Auth {
    /// Name of the query parameter.
    pub query: String,
    /// Name of the cookie.
    pub cookie: String,
    /// Name of the subprotocol that is followed by the token.
    pub subprotocol: String,
    /// Accepted algorithms; never empty where `key` is given.
    pub algorithms: Vec<jsonwebtoken::Algorithm>,
    /// Where the key comes from; `None` only where no route looks at tokens.
    pub key: Option<KeySource>,
    /// The `iss` that a token must carry.
    pub issuer: Option<String>,
    /// The `aud` of which a token must carry one; empty: not looked at.
    pub audience: Vec<String>,
    /// Tolerance for clocks, at `nbf` and `exp`.
    pub leeway: Duration,
    /// The claim that names the client.
    pub client_id: String,
}

/// Where the key for tokens comes from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// `secret_env`, already read: the bytes of the HMAC secret.
    Secret(Secret),
    /// `secret_file`, read at start and on SIGHUP.
    SecretFile {
        /// The file; surrounding white space is not part of the secret.
        path: PathBuf,
        /// Whether it is made where missing (`generate_secret`).
        generate: bool,
    },
    /// `public_key`: a PEM file.
    PublicKey(PathBuf),
    /// `jwks`: a file with a JSON Web Key Set.
    Jwks(PathBuf),
    /// `jwks`: a URL with a JSON Web Key Set.
    JwksUrl {
        /// `https://…`, or `http://…` of a loopback address.
        url: String,
        /// How old a key set may grow before it is fetched again.
        refresh: Duration,
    },
}

/// Places where a token is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenSource {
    /// `Authorization: Bearer`.
    Header,
    /// `Sec-WebSocket-Protocol: bearer, TOKEN`.
    Subprotocol,
    /// A cookie.
    Cookie,
    /// A query parameter.
    Query,
    /// The first message.
    Message,
}

/// What of `[auth]` a route may set for itself.
#[derive(Debug, Clone)]
pub struct RouteAuth {
    /// Whether a token is required.
    pub required: bool,
    /// Where it is looked for, in this order. What `[auth]` says is skipped is already left out.
    pub sources: Vec<TokenSource>,
    /// Time for the `auth` message, from the start of the session.
    pub message_timeout: Duration,
    /// Whether a socket is closed when its token expires.
    pub close_on_expiry: bool,
    /// Whether a refusal is a status (`"http"`) or a 101 and a close code (`"close"`).
    pub on_reject: OnReject,
}

/// `on_reject`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnReject {
    /// 101, then a close code that a browser can read.
    Close,
    /// A status before any upgrade.
    Http,
}

/// The two limits that count by address, for the whole gateway.
#[derive(Debug, Clone, Copy)]
pub struct IpLimits {
    /// Connections of one address (IPv6: of one /64); `None`: no limit.
    pub connections: Option<u32>,
    /// Handshakes a second of one address, with a burst of twice that; `None`: no limit.
    pub handshakes_per_second: Option<u32>,
}

/// The limits of a route.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Payload bytes of one whole message, inflated (on a proxy route as on the wire); `u64::MAX`: no limit.
    pub max_message_size: u64,
    /// Messages, control frames and empty fragments a second; `None`: no limit.
    pub messages_per_second: Option<u32>,
    /// Burst of messages, at least 1.
    pub message_burst: u32,
    /// Payload bytes a second; `None`: no limit. The burst is one second's worth or
    /// `max_message_size`, whichever is larger.
    pub bytes_per_second: Option<u64>,
    /// What happens beyond the rates.
    pub on_excess: OnExcess,
    /// Sockets of one client; `None`: no limit.
    pub connections_per_client: Option<u32>,
    /// Longest time without a message either way; `None`: no limit.
    pub idle_timeout: Option<Duration>,
    /// How long a peer is silent until the gateway pings it; `None`: it sends none.
    pub ping_interval: Option<Duration>,
    /// Time within which anything must come after a ping; `None`: no limit.
    pub pong_timeout: Option<Duration>,
    /// Bytes that may wait for one peer; `usize::MAX`: no limit (echo and the relay have bounds of their own).
    pub max_backlog: usize,
    /// What a backend may send (proxy routes).
    pub from_upstream: FromUpstream,
    /// Bytes of one compressed message on its way to a backend, inflated; `u64::MAX`: no limit, and nothing is
    /// inflated (proxy routes).
    pub max_inflated_size: u64,
    /// Whether permessage-deflate is offered (rooms and echo).
    pub compression: bool,
}

/// `on_excess`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExcess {
    /// Close with 4004.
    Close,
    /// Answer with an error message and drop the message (rooms only).
    Reject,
    /// Read no further until the rate allows it.
    Pause,
}

/// `limits.from_upstream`: what a backend may send to one client. Nothing is limited where nothing is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromUpstream {
    /// Payload bytes of one whole message, as on the wire; `u64::MAX`: no limit.
    pub max_message_size: u64,
    /// As in [`Limits`], of one socket.
    pub messages_per_second: Option<u32>,
    /// As in [`Limits`].
    pub message_burst: u32,
    /// As in [`Limits`], of one socket.
    pub bytes_per_second: Option<u64>,
    /// [`OnExcess::Close`] or [`OnExcess::Pause`].
    pub on_excess: OnExcess,
}

impl FromUpstream {
    /// Nothing is limited.
    pub const UNLIMITED: FromUpstream = FromUpstream {
        max_message_size: u64::MAX,
        messages_per_second: None,
        message_burst: 100,
        bytes_per_second: None,
        on_excess: OnExcess::Close,
    };
}

/// `[[route]]`.
#[derive(Debug)]
pub struct Route {
    /// Place in [`Config::routes`].
    pub index: usize,
    /// The host without its port, lower case; `None`: any.
    pub host: Option<String>,
    /// The path.
    pub path: PathPattern,
    /// What answers.
    pub service: Service,
    /// Namespace of rooms, clients and limits.
    pub namespace: Namespace,
    /// The limits.
    pub limits: Limits,
    /// Origins.
    pub origins: Origins,
    /// Tokens.
    pub auth: RouteAuth,
    /// Whether a backend sees the path without the part before the `*` (proxy routes).
    pub strip_prefix: bool,
    /// Whether ordinary HTTP requests get 426 (proxy routes).
    pub websocket_only: bool,
}

impl Route {
    /// The path as the file has it, for logs.
    pub fn name(&self) -> &str {
        match &self.path {
            PathPattern::Exact(p) => p,
            PathPattern::Below { written, .. } => written,
        }
    }
}

/// The path of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// This path alone.
    Exact(String),
    /// `/live/*`: everything below `/live/`, and `/live` itself is not.
    Below {
        /// `/live/`.
        prefix: String,
        /// `/live/*`.
        written: String,
    },
}

/// What answers on a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Sends every message back.
    Echo,
    /// Hosts rooms.
    Rooms,
    /// Relays to `Config::upstreams[.0]`.
    Proxy(usize),
}

/// A namespace, by its place in [`Config::namespaces`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace {
    /// The place.
    pub index: u16,
}

impl Namespace {
    /// The one of this name, where it is among all.
    pub fn named(all: &[Arc<str>], name: &str) -> Option<Namespace> {
        let index = all.iter().position(|known| **known == *name)?;
        Some(Namespace { index: u16::try_from(index).ok()? })
    }
}

/// `[admin]`.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where it listens.
    pub address: SocketAddr,
    /// The bearer token that `/metrics` and `/api` ask for, already read.
    pub token: Option<Secret>,
}
