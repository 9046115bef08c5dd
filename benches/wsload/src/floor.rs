//! The floor: the least work that a server on one thread can do, to hold real servers against.
//!
//! `/sub` joins the one group and sends every message it receives to the whole group, each with one
//! `write` of a frame encoded once; any other path echoes. A request that is no upgrade is answered with 64
//! bytes. With `relay`, bytes go unread between
//! the client and a backend. There is no TLS, no check and no queue: what does not fit into a
//! socket's buffer is waited for.
use crate::frame::header;
use base64::Engine;
use std::collections::HashMap;
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// What is answered to an ordinary request.
pub const BODY: &str = "0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqr";

struct Peer {
    io: TcpStream,
    buf: Vec<u8>,
    open: bool,
    group: bool,
    other: Option<i32>,
}

/// Serves on 127.0.0.1 until the process ends.
pub fn serve(port: u16, relay: Option<String>) -> Result<(), Error> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    println!("listening {port}");
    let mut floor = Floor { epoll: epoll()?, relay, peers: HashMap::new(), group: Vec::new() };
    floor.watch(listener.as_raw_fd());
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 1024];
    let mut scratch = vec![0u8; 256 * 1024];
    loop {
        // SAFETY: the buffer holds as many events as it says.
        let n = unsafe { libc::epoll_wait(floor.epoll.as_raw_fd(), events.as_mut_ptr(), 1024, -1) };
        for e in events.iter().take(n.max(0) as usize) {
            let fd = e.u64 as i32;
            if fd == listener.as_raw_fd() {
                while let Ok((io, _)) = listener.accept() {
                    floor.add(io)?;
                }
            } else {
                floor.readable(fd, &mut scratch);
            }
        }
    }
}

struct Floor {
    epoll: OwnedFd,
    relay: Option<String>,
    peers: HashMap<i32, Peer>,
    group: Vec<i32>,
}

impl Floor {
    fn watch(&self, fd: i32) {
        let mut e = libc::epoll_event { events: libc::EPOLLIN as u32, u64: fd as u64 };
        // SAFETY: plain system call on descriptors that are open.
        unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut e) };
    }

    fn add(&mut self, io: TcpStream) -> Result<(), Error> {
        let fd = io.as_raw_fd();
        let mut other = None;
        if let Some(to) = &self.relay {
            let back = TcpStream::connect(to)?;
            other = Some(back.as_raw_fd());
            self.insert(back, true, Some(fd))?;
        }
        self.insert(io, false, other)
    }

    fn insert(&mut self, io: TcpStream, open: bool, other: Option<i32>) -> Result<(), Error> {
        io.set_nonblocking(true)?;
        io.set_nodelay(true)?;
        let fd = io.as_raw_fd();
        self.watch(fd);
        self.peers.insert(fd, Peer { io, buf: vec![], open, group: false, other });
        Ok(())
    }

    fn remove(&mut self, fd: i32) {
        self.group.retain(|g| *g != fd);
        if let Some(Peer { other: Some(other), .. }) = self.peers.remove(&fd) {
            self.peers.remove(&other);
        }
    }

    fn readable(&mut self, fd: i32, scratch: &mut [u8]) {
        let Some(p) = self.peers.get_mut(&fd) else { return };
        let got = match p.io.read(scratch) {
            Ok(n) if n > 0 => &scratch[..n],
            Err(e) if e.kind() == ErrorKind::WouldBlock => return,
            _ => return self.remove(fd),
        };
        if let Some(o) = p.other {
            if let Some(q) = self.peers.get_mut(&o) {
                put(&mut q.io, got);
            }
            return;
        }
        p.buf.extend_from_slice(got);
        if !p.open {
            while !p.open && answer_head(p) {}
            if p.group {
                self.group.push(fd);
            }
            return;
        }
        let (out, close) = answer(&mut p.buf);
        if !p.group || close {
            put(&mut p.io, &out);
        } else if !out.is_empty() {
            for g in &self.group {
                if let Some(member) = self.peers.get_mut(g) {
                    put(&mut member.io, &out);
                }
            }
        }
        if close {
            self.remove(fd);
        }
    }
}

fn epoll() -> Result<OwnedFd, Error> {
    // SAFETY: a new descriptor, or -1, which is refused.
    match unsafe { libc::epoll_create1(0) } {
        -1 => Err(Error::last_os_error()),
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

/// Answers a request head once it is whole: an upgrade opens the socket.
fn answer_head(p: &mut Peer) -> bool {
    let Some(end) = p.buf.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&p.buf[..end]).to_string();
    p.buf.drain(..end + 4);
    let value = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_string())
    };
    let answer = match text.lines().find_map(value) {
        Some(key) => {
            p.group = text.starts_with("GET /sub");
            p.open = true;
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
                accept(&key)
            )
        }
        None => format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len()),
    };
    put(&mut p.io, answer.as_bytes());
    true
}

/// The answers to all whole frames of `buf`, and whether the last was a Close.
///
/// Unfragmented and of under 64 KiB: all that the load generator sends here.
fn answer(buf: &mut Vec<u8>) -> (Vec<u8>, bool) {
    let (mut at, mut out, mut close) = (0, Vec::new(), false);
    while let Some((from, to)) = frame(buf, at) {
        let reply = match buf[at] & 15 {
            9 => 10,
            op => op,
        };
        if reply != 10 || buf[at] & 15 == 9 {
            let mask = [buf[from - 4], buf[from - 3], buf[from - 2], buf[from - 1]];
            out.extend(header(reply, 0, to - from));
            out.extend(buf[from..to].iter().enumerate().map(|(i, b)| b ^ mask[i & 3]));
        }
        close |= reply == 8;
        at = to;
    }
    buf.drain(..at);
    (out, close)
}

fn put(io: &mut TcpStream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match io.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                let mut p = libc::pollfd { fd: io.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
                // SAFETY: one pollfd, as said.
                unsafe { libc::poll(&mut p, 1, 1000) };
            }
            Err(_) => return,
        }
    }
}

fn frame(b: &[u8], at: usize) -> Option<(usize, usize)> {
    let (len, head) = match *b.get(at + 1)? & 0x7f {
        126 => (u16::from_be_bytes(b.get(at + 2..at + 4)?.try_into().ok()?) as usize, 4),
        n => (n as usize, 2),
    };
    let from = at + head + 4;
    (b.len() >= from + len).then_some((from, from + len))
}

fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest)
}
