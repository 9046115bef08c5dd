//! `[upstream.NAME]`, as it is used.
use hyper::header::{HeaderName, HeaderValue};
use std::path::PathBuf;
use std::time::Duration;

/// `[upstream.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// Servers, at least one.
    pub servers: Vec<Backend>,
    /// How a server is chosen.
    pub balance: Balance,
    /// Time for the name look-up, the connect and a TLS handshake, for each server that is tried.
    pub connect_timeout: Duration,
    /// How many other servers are tried when a connection cannot be made.
    pub retries: u32,
    /// Whether the backend sees the client's Host header, or its own address.
    pub preserve_host: bool,
    /// Whether each connection begins with a PROXY v2 header.
    pub proxy_protocol: bool,
    /// How `https://` servers are trusted, and what they are shown.
    pub tls: UpstreamTls,
    /// Whether the sockets of a server are closed with 4012 when it is found unhealthy.
    pub close_on_unhealthy: bool,
    /// What is changed about the headers of requests.
    pub headers: HeaderRules,
    /// How servers are asked whether they are well.
    pub health: HealthCheck,
    /// Time from a request's end, or the last byte of it that was sent, to the head of its answer; `None`: no limit.
    pub response_timeout: Option<Duration>,
    /// Longest time in which nothing of an ordinary request or answer moves; `None`: no limit.
    pub idle_timeout: Option<Duration>,
    /// How long a server that has come back gets less than its share, rising; zero: none.
    pub slow_start: Duration,
}

impl Upstream {
    /// With what holds where the file says nothing.
    pub fn new(name: &str, servers: Vec<Backend>) -> Upstream {
        Upstream {
            name: name.to_owned(),
            servers,
            balance: Balance::RoundRobin,
            connect_timeout: Duration::from_secs(2),
            retries: 1,
            preserve_host: true,
            proxy_protocol: false,
            tls: UpstreamTls::default(),
            close_on_unhealthy: false,
            headers: HeaderRules::default(),
            health: HealthCheck {
                path: None,
                interval: Duration::from_secs(5),
                timeout: Duration::from_secs(2),
                rise: 2,
                fall: 3,
            },
            response_timeout: Some(Duration::from_secs(60)),
            idle_timeout: Some(Duration::from_secs(60)),
            slow_start: Duration::from_secs(10),
        }
    }
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// As in the file; names it in logs and metrics.
    pub url: String,
    /// Where it is.
    pub transport: Transport,
    /// Its share of what is balanced, 1 to 1,000.
    pub weight: u32,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// `http://HOST:PORT`.
    Tcp {
        /// Host name or address (IPv6 without brackets).
        host: String,
        /// The port, 80 where the file has none.
        port: u16,
    },
    /// `https://HOST:PORT`.
    Tls {
        /// Host name or address (IPv6 without brackets): the name that its certificate must be for.
        host: String,
        /// The port, 443 where the file has none.
        port: u16,
    },
    /// `unix:PATH`.
    Unix(PathBuf),
}

/// `balance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn, by weight.
    RoundRobin,
    /// The one with the fewest connections for its weight.
    LeastConnections,
    /// The one with fewer connections of two that are drawn by weight.
    RandomTwo,
    /// One client's requests go to one server: consistent hashing of the client's name, or of the address where it
    /// has none.
    HashClient,
    /// One address' requests go to one server.
    HashIp,
}

/// What `https://` servers are trusted by, and shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// PEM file with the authorities; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// PEM files with the certificate that is shown, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// `headers`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// Set on every request to a server, whatever the client said.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Taken out of every request.
    pub remove: Vec<HeaderName>,
}

/// `health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Asked with GET, and 200 to 399 is healthy; `None`: a connection is enough.
    pub path: Option<String>,
    /// Time between two checks of a server.
    pub interval: Duration,
    /// Time for one check.
    pub timeout: Duration,
    /// Successes in a row after which an unhealthy server is healthy.
    pub rise: u32,
    /// Failures in a row after which a healthy server is not.
    pub fall: u32,
}
