//! Connecting to servers: over TCP or a Unix socket, with TLS on top where the server has it.
pub mod origin;

use crate::outbox::wire::{Socket, Stream};
use hyper::header::HeaderValue;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// Most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;

/// What the gateway calls itself where it asks on its own account.
pub const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("wsgate/", env!("CARGO_PKG_VERSION")));

/// An address that can be connected to: names have been looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Looks a name up when one of the `places` is free. A task of its own: the place is taken until the look-up ends, since
/// one that hangs holds a thread, also where its caller has given up.
///
/// # Errors
/// Of the look-up.
pub async fn look_up<T: Send + 'static>(
    places: &Arc<Semaphore>,
    look_up: impl Future<Output = io::Result<T>> + Send + 'static,
) -> io::Result<T> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let asked = tokio::spawn(async move {
        let _place = place;
        look_up.await
    });
    asked.await.map_err(io::Error::other)?
}

/// The addresses of a host: an IP address, or a name that is looked up when one of the `places` is free. At most 8.
///
/// # Errors
/// Of the look-up.
pub async fn addresses(places: &Arc<Semaphore>, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![(ip, port).into()]);
    }
    let host = host.to_owned();
    let found = async move { Ok(lookup_host((host, port)).await?.take(ADDRESSES_MAX).collect()) };
    look_up(places, found).await
}

/// Connects to the first of these addresses that takes it: each has its share of the time until `deadline`, TLS included.
///
/// # Errors
/// Of the last one.
pub async fn connect_any(
    addresses: &[SocketAddr],
    tls: Option<(&TlsConnector, &ServerName<'static>)>,
    deadline: Instant,
) -> io::Result<Stream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let share = deadline.saturating_duration_since(Instant::now()) / (addresses.len() - tried) as u32;
        let tls = tls.map(|(connector, name)| (connector, name.clone()));
        match timeout(share, connect(&Address::Tcp(*address), &[], tls)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failed)
}

/// Connects. `preamble` is written before anything else, before TLS too (a PROXY header). `tls`: a handshake follows,
/// in which the server must show a certificate for this name. Has no time of its own: the caller gives up.
///
/// # Errors
/// Of the system, or of the handshake ([`io::ErrorKind::InvalidData`] where the certificate is not trusted).
pub async fn connect(
    address: &Address,
    preamble: &[u8],
    tls: Option<(&TlsConnector, ServerName<'static>)>,
) -> io::Result<Stream> {
    let mut socket = match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Socket::Tcp(stream)
        }
        Address::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
    };
    if !preamble.is_empty() {
        socket.write_all(preamble).await?;
    }
    match tls {
        None => Ok(Stream::Plain(socket)),
        Some((connector, name)) => {
            let stream = connector.connect(name, socket).await?;
            Ok(Stream::Tls(Box::new(stream.into())))
        }
    }
}
