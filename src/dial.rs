//! Connecting to servers: over TCP or a Unix socket, with TLS on top where the server has it.
pub mod origin;

use crate::outbox::wire::{Socket, Stream};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

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
