//! Binding, and accepting: the socket leaves the main thread's runtime, it will belong to a shard's.
use super::Accepted;
use crate::admission::forwarded::Ends;
use crate::config::{Address, Config};
use crate::outbox::wire::Socket;
use socket2::{Domain, Protocol, SockAddr, Type};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
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
            Address::Tcp(addresses) => bind_tcp(config, index, addresses, &mut bound)?,
            Address::Unix(path) => {
                let socket = unix(path).map_err(|e| format!("cannot listen on {}: {e}", path.display()))?;
                let address = format!("unix:{}", path.display());
                bound.push(Bound::new(socket, index, address, Some(path.clone()))?);
            }
        }
    }
    Ok(bound)
}

/// A name may stand for addresses that this machine does not have, as `localhost` for `::1` where there
/// is no IPv6: one of them is enough.
fn bind_tcp(config: &Config, index: usize, addresses: &[SocketAddr], bound: &mut Vec<Bound>) -> Result<(), String> {
    let (mut port, mut absent) = (None, Vec::new());
    for address in addresses {
        let mut address = *address;
        if address.port() == 0 {
            // A name that stands for two addresses has one port, also where it is chosen here.
            address.set_port(port.unwrap_or(0));
        }
        let failed = |error| format!("cannot listen on {address}: {error}");
        match tcp(address, takes_ipv4(config, address)) {
            Ok(socket) => {
                let at = socket.local_addr().ok().and_then(|a| a.as_socket()).unwrap_or(address);
                port = Some(at.port());
                bound.push(Bound::new(socket, index, at.to_string(), None)?);
            }
            Err(error) if is_absent(&error) => absent.push(failed(error)),
            Err(error) => return Err(failed(error)),
        }
    }
    match absent.first() {
        Some(first) if absent.len() == addresses.len() => return Err(first.clone()),
        _ => absent.iter().for_each(|why| tracing::warn!(listener = index, "{why}; its other address is enough")),
    }
    Ok(())
}

/// `EADDRNOTAVAIL`, and on a machine without any IPv6 `EAFNOSUPPORT`.
fn is_absent(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// Whether `[::]` takes IPv4 connections too: where nothing of IPv4 is configured for the port.
fn takes_ipv4(config: &Config, address: SocketAddr) -> bool {
    let tcp = config.listeners.iter().flat_map(|l| match &l.address {
        Address::Tcp(addresses) => addresses.as_slice(),
        Address::Unix(_) => &[],
    });
    let mut all = tcp.chain(config.admin.iter().map(|admin| &admin.address));
    address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED) && !all.any(|a| a.is_ipv4() && a.port() == address.port())
}

fn tcp(address: SocketAddr, takes_ipv4: bool) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!takes_ipv4)?;
    }
    socket.bind(&address.into())?;
    socket.listen(QUEUE)?;
    Ok(socket)
}

fn unix(path: &Path) -> io::Result<socket2::Socket> {
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        remove_stale(path)?;
    }
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Who may connect is decided by the folder and the group, as for other servers' sockets.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    socket.listen(QUEUE)?;
    Ok(socket)
}

/// A socket that a crashed gateway left is in the way. Only one that refuses connections is: another
/// answer, a full queue too, is another gateway's, or none of ours to judge.
fn remove_stale(path: &Path) -> io::Result<()> {
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Ok(()) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

impl Bound {
    fn new(socket: socket2::Socket, listener: usize, address: String, path: Option<PathBuf>) -> Result<Bound, String> {
        let listening = match path {
            None => TcpListener::from_std(socket.into()).map(Listening::Tcp),
            Some(_) => UnixListener::from_std(socket.into()).map(Listening::Unix),
        };
        Ok(Bound { socket: listening.map_err(|e| format!("{address}: {e}"))?, listener, address, path })
    }

    /// The next connection, with both its ends where these are addresses.
    pub async fn accept(&self) -> io::Result<(Accepted, Option<Ends>)> {
        Ok(match &self.socket {
            Listening::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                let ends = Ends::new(peer, socket.local_addr()?);
                (Accepted::Tcp(socket.into_std()?), Some(ends))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::file;

    fn config(addresses: &[&[&str]]) -> Config {
        let listeners = "[[listener]]\naddress = \"127.0.0.1:0\"\n".repeat(addresses.len());
        let rest = "[auth]\nrequired = false\n[[route]]\npath = \"/\"\nservice = \"echo\"\n";
        let mut config = file::parse(&format!("{listeners}{rest}"), "test.toml", &|_| None, 1).unwrap();
        for (listener, addresses) in config.listeners.iter_mut().zip(addresses) {
            listener.address = Address::Tcp(addresses.iter().map(|a| a.parse().unwrap()).collect());
        }
        config
    }

    /// An address of documentation (RFC 3849) stands for one that this machine does not have.
    #[tokio::test]
    async fn one_address_of_a_name_is_enough() {
        let absent = "[2001:db8::1]:0";
        let bound = bind(&config(&[&[absent, "127.0.0.1:0"]])).unwrap();
        assert_eq!(bound.len(), 1);
        assert!(bound[0].address.starts_with("127.0.0.1:"));
        assert!(bind(&config(&[&[absent]])).err().unwrap().contains("2001:db8::1"));
        let taken = &*bound[0].address;
        let error = bind(&config(&[&[taken, "127.0.0.2:0"]])).err().unwrap();
        assert!(error.contains(taken), "a taken port is no absent address: {error}");
    }

    #[test]
    fn all_of_ipv6_is_all_of_ipv4_too_where_nothing_else_is() {
        let all: SocketAddr = "[::]:8443".parse().unwrap();
        assert!(takes_ipv4(&config(&[&["[::]:8443"], &["0.0.0.0:80"]]), all));
        assert!(!takes_ipv4(&config(&[&["[::]:8443"], &["0.0.0.0:8443"]]), all));
        assert!(!takes_ipv4(&config(&[&["[::1]:8443"]]), "[::1]:8443".parse().unwrap()));
    }

    #[test]
    fn only_a_dead_socket_is_removed() {
        let folder = std::env::temp_dir().join(format!("wsgate-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("http.sock");
        let live = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        live.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        live.listen(0).unwrap();
        // The second time its queue is full.
        let waiting: Vec<_> = (0..2).map(|_| remove_stale(&path).unwrap_err().kind()).collect();
        assert_eq!(waiting, [io::ErrorKind::AddrInUse; 2]);
        assert!(path.exists());
        drop(live);
        remove_stale(&path).unwrap();
        assert!(!path.exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
