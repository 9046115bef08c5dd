//! One stream of an HTTP/2 connection (RFC 8441). The connection's own task moves its bytes to and from the socket;
//! what happens here wakes it.
use super::unsent::{Piece, Unsent};
use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

/// Bytes of one stream that may wait for the connection's task and for the client's windows.
pub const STREAM_BACKLOG: usize = 32 * 1024;

/// Both directions of a stream. Dropped, it takes back what was not ended: RST_STREAM with CANCEL, or with NO_ERROR
/// where only the client's side is still open (RFC 9113, section 8.1).
pub struct Http2 {
    from: RecvStream,
    to: SendStream<Piece>,
    /// What was taken from HTTP/2 and not read: at most the stream's window, which comes back as it is read.
    came: BytesMut,
    unsent: Unsent,
    ended: bool,
}

impl Http2 {
    /// A stream whose request was answered with 200.
    pub fn new(from: RecvStream, to: SendStream<Piece>) -> Http2 {
        Http2 { from, to, came: BytesMut::new(), unsent: Unsent::default(), ended: false }
    }

    /// Takes what the client's windows allow, but no more than [`STREAM_BACKLOG`], and so many pieces, wait.
    pub(super) fn try_write(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        let wanted = bytes.iter().map(|b| b.len()).sum::<usize>().min(STREAM_BACKLOG);
        self.to.reserve_capacity(wanted);
        if self.unsent.is_full() && wanted > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let room = self.to.capacity().min(wanted);
        if room == 0 {
            return if wanted == 0 { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let mut taken = BytesMut::with_capacity(room);
        for slice in bytes {
            let some = slice.len().min(room - taken.len());
            taken.extend_from_slice(&slice[..some]);
        }
        self.to.send_data(self.unsent.piece(taken.freeze()), false).map_err(lost)?;
        Ok(room)
    }

    pub(super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.unsent.poll_room(cx));
        if self.to.capacity() > 0 {
            // h2 tells of what is new alone.
            return Poll::Ready(Ok(()));
        }
        match ready!(self.to.poll_capacity(cx)) {
            Some(Ok(_)) => Poll::Ready(Ok(())),
            Some(Err(error)) => Poll::Ready(Err(lost(error))),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Gives the client's window back as bytes are read: who is not read holds up its own stream alone.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let gathered = self.gather(cx);
        if self.came.is_empty() {
            ready!(gathered)?;
            return self.poll_trailers(cx);
        }
        let some = self.came.len().min(buffer.len());
        buffer[..some].copy_from_slice(&self.came[..some]);
        self.came.advance(some);
        if self.came.is_empty() {
            self.came = BytesMut::new();
        }
        // An error says that the stream is gone, and its window with it.
        let _ = self.from.flow_control().release_capacity(some);
        Poll::Ready(Ok(some))
    }

    /// Takes what has come from HTTP/2, where small DATA frames cost the whole connection. Ready when no more will come.
    pub(super) fn gather(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(data) = ready!(self.from.poll_data(cx)) {
            self.came.extend_from_slice(&data.map_err(lost)?);
        }
        Poll::Ready(Ok(()))
    }

    /// A tunnel ends by END_STREAM; a header block there is malformed (RFC 9113, section 8.5).
    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match ready!(self.from.poll_trailers(cx)).map_err(lost)? {
            None => Poll::Ready(Ok(0)),
            Some(_) => {
                self.to.send_reset(Reason::PROTOCOL_ERROR);
                Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
            }
        }
    }

    /// END_STREAM, after what was taken.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.ended, true) {
            self.to.send_data(self.unsent.piece(Bytes::new()), true).map_err(lost)?;
        }
        Ok(())
    }
}

/// A stream that was reset, or whose connection is gone.
fn lost(error: h2::Error) -> io::Error {
    match error.is_io() {
        true => error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
        false => io::ErrorKind::ConnectionReset.into(),
    }
}
