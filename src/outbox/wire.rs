//! The transports under a session: TCP, Unix sockets, TLS over either, a stream of HTTP/2, and a pipe for tests.
mod http2;
mod unsent;

pub use http2::{Http2, STREAM_BACKLOG};
pub use unsent::{PIECES_MAX, Piece, Unsent};

use socket2::SockRef;
use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;
use tokio_rustls::rustls::Connection;

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
}

impl Socket {
    /// Writes without waiting; `WouldBlock` where the socket takes nothing now.
    pub fn try_write(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, bytes) {
            (Socket::Tcp(s), [one]) => s.try_write(one),
            (Socket::Unix(s), [one]) => s.try_write(one),
            (Socket::Tcp(s), _) => s.try_write_vectored(bytes),
            (Socket::Unix(s), _) => s.try_write_vectored(bytes),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(s) => s.poll_write_ready(cx),
            Socket::Unix(s) => s.poll_write_ready(cx),
        }
    }

    fn poll_read_into(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        // tokio's own read notices a short read and saves the next call, `try_read` does not.
        ready!(Pin::new(self).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Socket::Unix(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Socket::Unix(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Socket::Unix(s) => Pin::new(s).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Socket::Unix(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

/// What HTTP is spoken over, with a client or a server: a socket, or TLS over it.
pub enum Stream {
    /// Without TLS.
    Plain(Socket),
    /// With TLS, after the handshake.
    Tls(Box<TlsStream<Socket>>),
}

impl Stream {
    /// The protocol that TLS has agreed on (RFC 7301).
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Stream::Plain(_) => None,
            Stream::Tls(tls) => tls.get_ref().1.alpn_protocol(),
        }
    }

    /// Lets the kernel take no more than about so many bytes that it cannot send yet (`TCP_NOTSENT_LOWAT`); 0: what the
    /// system has as its default. Nothing happens to a Unix socket, whose buffer is small.
    pub fn limit_unsent(&self, bytes: u32) {
        let socket = match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(tls) => tls.get_ref().0,
        };
        if let Socket::Tcp(tcp) = socket
            && let Err(error) = SockRef::from(tcp).set_tcp_notsent_lowat(bytes)
        {
            tracing::debug!(target: "wsgate::outbox", %error, "no limit of unsent bytes");
        }
    }
}

macro_rules! either {
    ($stream:expr, $s:ident => $call:expr) => {
        match $stream.get_mut() {
            Stream::Plain($s) => $call,
            Stream::Tls(boxed) => {
                let $s = boxed.as_mut();
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, s => Pin::new(s).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, s => Pin::new(s).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, s => Pin::new(s).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, s => Pin::new(s).poll_shutdown(cx))
    }
}

/// The transport of an upgraded connection.
pub enum Wire {
    /// A socket without TLS.
    Plain(Socket),
    /// TLS over a socket.
    Tls(Box<Tls>),
    /// A stream among others of an HTTP/2 connection.
    Http2(Box<Http2>),
    /// Memory, for tests.
    Pipe(DuplexStream),
}

/// A rustls session on a socket. Without an adapter between them, a frame can be written without a
/// task's context, and no plaintext is buffered for an idle connection.
pub struct Tls {
    socket: Socket,
    session: Connection,
}

impl From<Stream> for Wire {
    fn from(stream: Stream) -> Wire {
        match stream {
            Stream::Plain(socket) => Wire::Plain(socket),
            Stream::Tls(tls) => {
                let (socket, session) = match *tls {
                    TlsStream::Server(tls) => {
                        let (socket, session) = tls.into_inner();
                        (socket, Connection::Server(session))
                    }
                    TlsStream::Client(tls) => {
                        let (socket, session) = tls.into_inner();
                        (socket, Connection::Client(session))
                    }
                };
                Wire::Tls(Box::new(Tls { socket, session }))
            }
        }
    }
}

impl Wire {
    /// Takes bytes without waiting, as many as fit; `WouldBlock` where that is none.
    pub fn try_write(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.try_write(bytes),
            Wire::Tls(tls) => tls.try_write(bytes),
            Wire::Http2(stream) => stream.try_write(bytes),
            Wire::Pipe(pipe) => {
                let mut cx = Context::from_waker(std::task::Waker::noop());
                match Pin::new(pipe).poll_write(&mut cx, &bytes[0]) {
                    Poll::Ready(result) => result,
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        }
    }

    /// Sends what the transport itself has taken but not sent; `WouldBlock` where some is left.
    pub fn try_flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Tls(tls) => tls.try_flush(),
            // What HTTP/2 has taken, its connection sends.
            Wire::Plain(_) | Wire::Http2(_) | Wire::Pipe(_) => Ok(()),
        }
    }

    /// Ready when [`try_write`](Self::try_write) may take something.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Plain(socket) => socket.poll_writable(cx),
            Wire::Tls(tls) => tls.socket.poll_writable(cx),
            Wire::Http2(stream) => stream.poll_writable(cx),
            // An empty write registers nothing: the pipe of a test is asked again at once.
            Wire::Pipe(_) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Reads bytes; 0 at the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Wire::Plain(socket) => socket.poll_read_into(cx, buffer),
            Wire::Tls(tls) => tls.poll_read(cx, buffer),
            Wire::Http2(stream) => stream.poll_read(cx, buffer),
            Wire::Pipe(pipe) => {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(pipe).poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
        }
    }

    /// Takes what has come from where it is in the way of others, and keeps it for the next read.
    pub fn gather(&mut self, cx: &mut Context<'_>) {
        match self {
            // How it ends, the next read says.
            Wire::Http2(stream) => drop(stream.gather(cx)),
            Wire::Plain(_) | Wire::Tls(_) | Wire::Pipe(_) => (),
        }
    }

    /// Ends the writing side: close_notify under TLS, then FIN; END_STREAM over HTTP/2.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Wire::Tls(tls) => {
                tls.session.send_close_notify();
                // Best effort: a peer that takes nothing more gets the FIN alone.
                let _ = tls.try_flush();
                Pin::new(&mut tls.socket).poll_shutdown(cx)
            }
            Wire::Http2(stream) => Poll::Ready(stream.end()),
            Wire::Pipe(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }
}

impl Tls {
    fn try_write(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        // Ciphertext that waits bounds what is taken: nothing more before it is sent.
        self.try_flush()?;
        let taken = match bytes {
            [one] => self.session.writer().write(one)?,
            _ => self.session.writer().write_vectored(bytes)?,
        };
        match self.try_flush() {
            Ok(()) => Ok(taken),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && taken > 0 => Ok(taken),
            Err(e) => Err(e),
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut Direct(&self.socket))?;
        }
        Ok(())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.session.reader().read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => (),
                result => return Poll::Ready(result),
            }
            let read = match self.session.read_tls(&mut Polled(&mut self.socket, cx)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                result => result?,
            };
            let processed = self.session.process_new_packets();
            // Alerts and answers to key updates; what does not go now goes with the next write.
            let _ = self.try_flush();
            if let Err(e) = processed {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, e)));
            }
            if read == 0 && self.session.wants_read() {
                return Poll::Ready(Ok(0));
            }
        }
    }
}

/// Writes to the socket without waiting.
struct Direct<'a>(&'a Socket);

impl Write for Direct<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads from the socket within a task's context.
struct Polled<'a, 'c, 'w>(&'a mut Socket, &'c mut Context<'w>);

impl Read for Polled<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.poll_read_into(self.1, buffer) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}
