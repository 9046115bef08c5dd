//! One client connection: TCP or TLS, the upgrade, and frames at low cost.
use crate::frame::{client_frame, frame_at, number};
use crate::tls::connector;
use base64::Engine;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Where to connect.
#[derive(Clone)]
pub struct Target {
    /// The address to connect to.
    pub addr: SocketAddr,
    /// The Host header.
    pub authority: String,
    /// The path; `{i}` in it becomes the connection's number.
    pub path: String,
    tls: Option<tokio_rustls::TlsConnector>,
}

impl Target {
    /// Reads a ws://, wss://, http:// or https:// address; with `resume`, TLS sessions are resumed.
    pub fn new(url: &str, resume: bool) -> Result<Target, String> {
        let (scheme, rest) = url.split_once("://").ok_or("the address needs ws:// or wss://")?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let secure = matches!(scheme, "wss" | "https");
        let with_port = match authority.contains(':') {
            true => authority.to_string(),
            false => format!("{authority}:{}", if secure { 443 } else { 80 }),
        };
        let mut addrs = with_port.to_socket_addrs().map_err(|e| e.to_string())?;
        Ok(Target {
            addr: addrs.find(|a| a.is_ipv4()).ok_or("no IPv4 address")?,
            authority: authority.into(),
            path: if path.is_empty() { "/".into() } else { path.into() },
            tls: secure.then(|| connector(resume)),
        })
    }
}

/// What every connection does when it opens.
#[derive(Clone, Default)]
pub struct Opening {
    /// Extra request headers.
    pub headers: Vec<String>,
    /// Messages sent after the handshake.
    pub init: Vec<String>,
    /// Messages awaited after them.
    pub init_replies: usize,
    /// Text of a message awaited after them.
    pub init_until: Option<String>,
    /// Binds to many loopback addresses.
    pub spread: bool,
}

/// A TCP or a TLS stream.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open WebSocket.
pub struct Conn {
    io: Option<Pin<Box<dyn Io>>>,
    write_half: Option<tokio::io::WriteHalf<Pin<Box<dyn Io>>>>,
    buf: Vec<u8>,
    start: usize,
}

impl Conn {
    /// Opens connection number `i`, with all that `Opening` asks for.
    pub async fn open(t: &Target, i: usize, opening: &Opening) -> Result<Conn, String> {
        let named = |e: String| format!("connection {i}: {e}");
        let io = connect(t, i, opening.spread).await.map_err(named)?;
        let mut conn = upgrade(io, t, i, &opening.headers).await.map_err(named)?;
        for m in &opening.init {
            conn.write(&client_frame(1, number(m, i).as_bytes())).await.map_err(named)?;
        }
        let mut got = 0;
        while got < opening.init_replies {
            got += conn.read_messages(|_| ()).await.map_err(named)?;
        }
        if let Some(text) = &opening.init_until {
            let mut found = false;
            while !found {
                let has = |payload: &[u8]| payload.windows(text.len().max(1)).any(|w| w == text.as_bytes());
                conn.read_messages(|payload| found |= has(payload)).await.map_err(named)?;
            }
        }
        Ok(conn)
    }

    /// Writes and flushes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        match (&mut self.io, &mut self.write_half) {
            (Some(io), _) => {
                io.write_all(bytes).await.map_err(|e| e.to_string())?;
                io.flush().await.map_err(|e| e.to_string())
            }
            (_, Some(w)) => {
                w.write_all(bytes).await.map_err(|e| e.to_string())?;
                w.flush().await.map_err(|e| e.to_string())
            }
            _ => unreachable!("a connection has one of the two"),
        }
    }

    /// Reads and throws away what the server sends, so that the publisher never blocks.
    pub fn drain_in_background(&mut self) {
        let Some(io) = self.io.take() else { return };
        let (mut r, w) = tokio::io::split(io);
        self.write_half = Some(w);
        tokio::spawn(async move {
            let mut sink = vec![0u8; 64 * 1024];
            while matches!(r.read(&mut sink).await, Ok(n) if n > 0) {}
        });
    }

    /// Reads until there is one, hands each complete text or binary message to `f`, answers pings; returns the count.
    pub async fn read_messages(&mut self, mut f: impl FnMut(&[u8])) -> Result<usize, String> {
        let mut n = 0;
        loop {
            while let Some((op, from, to)) = frame_at(&self.buf, self.start) {
                match op {
                    0..=2 => {
                        f(&self.buf[from..to]);
                        n += 1;
                    }
                    8 => return Err(format!("closed by the server with {}", close_code(&self.buf[from..to]))),
                    9 => {
                        let pong = client_frame(10, &self.buf[from..to]);
                        self.write(&pong).await?;
                    }
                    _ => (),
                }
                self.start = to;
            }
            self.compact();
            if n > 0 {
                return Ok(n);
            }
            let io = self.io.as_mut().expect("not drained in the background");
            self.buf.reserve(4096);
            if io.read_buf(&mut self.buf).await.map_err(|e| e.to_string())? == 0 {
                return Err("connection closed".into());
            }
        }
    }

    /// Forgets what has been read.
    fn compact(&mut self) {
        if self.start == self.buf.len() {
            self.buf.clear();
            self.start = 0;
            if self.buf.capacity() > 256 * 1024 {
                self.buf = Vec::new();
            }
        } else if self.start > 64 * 1024 {
            self.buf.drain(..self.start);
            self.start = 0;
        }
    }
}

/// A connection, with TLS where the address asks for it.
pub async fn connect(t: &Target, i: usize, spread: bool) -> Result<Pin<Box<dyn Io>>, String> {
    let socket = TcpSocket::new_v4().map_err(|e| format!("socket: {e}"))?;
    if spread {
        let host = 2 + (i / 20_000) as u8;
        let local = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
        socket.bind(local).map_err(|e| format!("bind: {e}"))?;
    }
    let tcp: TcpStream = socket.connect(t.addr).await.map_err(|e| format!("connect: {e}"))?;
    tcp.set_nodelay(true).ok();
    let Some(tls) = &t.tls else { return Ok(Box::pin(tcp)) };
    let name = rustls::pki_types::ServerName::try_from("localhost").map_err(|e| e.to_string())?;
    Ok(Box::pin(tls.connect(name, tcp).await.map_err(|e| format!("TLS: {e}"))?))
}

async fn upgrade(mut io: Pin<Box<dyn Io>>, t: &Target, i: usize, headers: &[String]) -> Result<Conn, String> {
    let key = base64::engine::general_purpose::STANDARD.encode(format!("wsload-{:09}", i % 1_000_000_000));
    let mut req = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", number(&t.path, i), t.authority);
    req += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
    req += &format!("Sec-WebSocket-Key: {key}\r\n");
    for h in headers {
        req += &number(h, i);
        req += "\r\n";
    }
    req += "\r\n";
    io.write_all(req.as_bytes()).await.map_err(|e| format!("upgrade: {e}"))?;
    io.flush().await.map_err(|e| format!("upgrade: {e}"))?;
    let mut buf = Vec::with_capacity(1024);
    let end = loop {
        if io.read_buf(&mut buf).await.map_err(|e| format!("upgrade: {e}"))? == 0 {
            return Err("upgrade: connection closed".into());
        }
        if let Some(p) = buf.windows(4).position(|w| w == b"\r\n\r\n") {
            break p + 4;
        }
    };
    if !buf.starts_with(b"HTTP/1.1 101") {
        return Err(format!("upgrade refused: {}", String::from_utf8_lossy(&buf[..buf.len().min(200)])));
    }
    Ok(Conn { io: Some(io), write_half: None, buf, start: end })
}

fn close_code(payload: &[u8]) -> u16 {
    payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))
}
