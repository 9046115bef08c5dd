//! One server: where it is, how it is connected to, and who uses it.
use crate::config::{self, Transport};
use crate::dial::{self, Address};
use crate::outbox::wire::Stream;
use hyper::StatusCode;
use hyper::header::{HeaderValue, InvalidHeaderValue};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::time::timeout;

/// A server of an upstream, shared by all shards.
#[derive(Debug)]
pub struct Server {
    /// The upstream it belongs to.
    pub upstream: Arc<config::Upstream>,
    /// As it is configured.
    pub configured: config::Backend,
    /// Sessions and requests that use it now.
    used: AtomicUsize,
}

/// Both ends of a client's connection, for a PROXY header to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxied {
    /// The client's, behind trusted proxies too (then without its port: 0).
    pub source: SocketAddr,
    /// The gateway's, as the client connected to it.
    pub destination: SocketAddr,
}

/// Why there is no connection.
#[derive(Debug)]
pub struct Undialed {
    url: String,
    why: Option<io::Error>,
}

impl Undialed {
    /// 502, or 504 where the time was up.
    pub fn status(&self) -> StatusCode {
        if self.why.is_some() { StatusCode::BAD_GATEWAY } else { StatusCode::GATEWAY_TIMEOUT }
    }
}

/// Names of servers and errors, nothing of the client's.
impl fmt::Display for Undialed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Some(error) => write!(f, "{}: {error}", self.url),
            None => write!(f, "{}: connect timed out", self.url),
        }
    }
}

impl Server {
    /// A server that nobody uses yet.
    pub fn new(upstream: Arc<config::Upstream>, configured: config::Backend) -> Server {
        Server { upstream, configured, used: AtomicUsize::new(0) }
    }

    /// The server's own name, as a Host header has it.
    pub fn authority(&self) -> String {
        let (host, port, usual) = match &self.configured.transport {
            Transport::Tcp { host, port } => (host, *port, 80),
            Transport::Tls { host, port } => (host, *port, 443),
            Transport::Unix(_) => return "localhost".to_owned(),
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        if port == usual { host } else { format!("{host}:{port}") }
    }

    /// The Host of a request to it, where the client's was `asked`.
    pub(super) fn host(&self, asked: &str) -> Result<HeaderValue, InvalidHeaderValue> {
        if self.upstream.preserve_host { HeaderValue::from_str(asked) } else { HeaderValue::try_from(self.authority()) }
    }

    /// Connects, within `connect_timeout`.
    ///
    /// # Errors
    /// What the system says, or that the time was up.
    pub async fn dial(&self, _proxied: Option<Proxied>) -> Result<Stream, Undialed> {
        let undialed = |why| Undialed { url: self.configured.url.clone(), why };
        match timeout(self.upstream.connect_timeout, self.connect()).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(undialed(Some(error))),
            Err(_) => Err(undialed(None)),
        }
    }

    /// The look-up of a name is part of the time; it runs on tokio's threads for blocking calls.
    async fn connect(&self) -> io::Result<Stream> {
        let (host, port) = match &self.configured.transport {
            Transport::Tcp { host, port } => (host.as_str(), *port),
            Transport::Tls { .. } => return Err(io::ErrorKind::Unsupported.into()),
            Transport::Unix(path) => return dial::connect(&Address::Unix(path.clone()), &[], None).await,
        };
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for address in tokio::net::lookup_host((host, port)).await? {
            match dial::connect(&Address::Tcp(address), &[], None).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

/// One use of a server, given back by Drop.
#[derive(Debug)]
pub struct Lease {
    /// The server.
    pub server: Arc<Server>,
}

impl Lease {
    /// One more use.
    pub fn new(server: Arc<Server>) -> Lease {
        server.used.fetch_add(1, Relaxed);
        Lease { server }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.used.fetch_sub(1, Relaxed);
    }
}
