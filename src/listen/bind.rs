//! Binding, and accepting: the socket leaves the main thread's runtime, it will belong to a shard's.
use super::Accepted;
use crate::config::{Address, Config};
use crate::outbox::wire::Socket;
use socket2::{Domain, Protocol, SockAddr, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, UnixListener};

/// Connections that may wait in the kernel's queue.
const QUEUE: i32 = 4096;

/// A socket that listens.
pub struct Bound {
    socket: Listening,
    /// Its place in the configuration.
    pub listener: usize,
    /// Where it listens, for people.
    pub address: String,
    path: Option<PathBuf>,
}

enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Binds every listener of the configuration. Must be called within a runtime.
pub fn bind(config: &Config) -> Result<Vec<Bound>, String> {
    let mut bound = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        match &listener.address {
            Address::Tcp(addresses) => {
                let mut port = None;
                for address in addresses {
                    let mut address = *address;
                    if address.port() == 0 {
                        // A name that stands for two addresses has one port, also where it is chosen here.
                        address.set_port(port.unwrap_or(0));
                    }
                    let socket = tcp(address).map_err(|e| format!("cannot listen on {address}: {e}"))?;
                    let at = socket.local_addr().ok().and_then(|a| a.as_socket()).unwrap_or(address);
                    port = Some(at.port());
                    bound.push(Bound::new(socket, index, at.to_string(), None)?);
                }
            }
            Address::Unix(path) => {
                let socket = unix(path).map_err(|e| format!("cannot listen on {}: {e}", path.display()))?;
                let address = format!("unix:{}", path.display());
                bound.push(Bound::new(socket, index, address, Some(path.clone()))?);
            }
        }
    }
    Ok(bound)
}

fn tcp(address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `0.0.0.0` beside `[::]` must be possible, and an IPv4 client is never seen as IPv6.
        socket.set_only_v6(address.ip() != IpAddr::from(std::net::Ipv6Addr::UNSPECIFIED))?;
    }
    socket.bind(&address.into())?;
    socket.listen(QUEUE)?;
    Ok(socket)
}

fn unix(path: &Path) -> io::Result<socket2::Socket> {
    // A socket that a crashed gateway left is in the way; one that answers is another gateway's.
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Who may connect is decided by the folder and the group, as for other servers' sockets.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    socket.listen(QUEUE)?;
    Ok(socket)
}

impl Bound {
    fn new(socket: socket2::Socket, listener: usize, address: String, path: Option<PathBuf>) -> Result<Bound, String> {
        let listening = match path {
            None => TcpListener::from_std(socket.into()).map(Listening::Tcp),
            Some(_) => UnixListener::from_std(socket.into()).map(Listening::Unix),
        };
        Ok(Bound { socket: listening.map_err(|e| format!("{address}: {e}"))?, listener, address, path })
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<(Accepted, Option<IpAddr>)> {
        Ok(match &self.socket {
            Listening::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                (Accepted::Tcp(socket.into_std()?), Some(peer.ip().to_canonical()))
            }
            Listening::Unix(listener) => (Accepted::Unix(listener.accept().await?.0.into_std()?), None),
        })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Accepted {
    /// Registers the socket with the runtime of this thread.
    pub fn into_socket(self) -> io::Result<Socket> {
        Ok(match self {
            Accepted::Tcp(socket) => {
                socket.set_nodelay(true)?;
                Socket::Tcp(tokio::net::TcpStream::from_std(socket)?)
            }
            Accepted::Unix(socket) => Socket::Unix(tokio::net::UnixStream::from_std(socket)?),
        })
    }
}
