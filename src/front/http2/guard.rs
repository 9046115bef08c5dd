//! What stands between the socket and h2: it walks the frame headers as they come (RFC 9113, section 4.1), and ends a
//! connection whose frames cost work and bring nothing, or whose header block does not come to its end. What frames
//! mean is h2's business.
use crate::limits::gcra::{Bucket, Rate, nanos};
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// The client's connection preface (RFC 9113, section 3.4), without the SETTINGS that belong to it.
const PREFACE: usize = 24;
const HEADER: usize = 9;
/// Frames that only steer a connection: so many a second, and so many at once.
const CONTROL_PER_SECOND: u64 = 200;
const CONTROL_BURST: u64 = 2_000;
/// Streams that a client takes back: so many a second, and so many at once.
const RESETS_PER_SECOND: u64 = 100;
const RESETS_BURST: u64 = 500;
/// Settings are applied to every stream.
const SETTINGS_COST: u64 = 10;
/// For so many bytes that were sent, one WINDOW_UPDATE is free: a client may send two for each DATA frame.
const BYTES_PER_UPDATE: u64 = 5;
const EARNED_MAX: u64 = 4 << 20;
/// Bytes after which the streams have their turn.
const TURN: usize = 8 * 1024;
/// How long, and how much, a peer is listened to whose connection was ended.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// Types of frames, and flags (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A stream that is read by h2.
pub(super) struct Guard<S> {
    stream: S,
    walk: Walk,
    /// The connection costs too much; nothing more is read.
    flooded: Rc<Cell<bool>>,
    /// How long a header block may take.
    block_timeout: Duration,
    /// Runs within a header block, and up to the first SETTINGS.
    block: Option<Pin<Box<Sleep>>>,
    /// Bytes read in this turn.
    read: usize,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

/// Where in the frames the stream is, and what they may still cost.
struct Walk {
    preface_left: usize,
    header: [u8; HEADER],
    filled: usize,
    payload_left: usize,
    settled: bool,
    /// The frame that comes is part of a header block, and another one has to follow it.
    in_block: bool,
    block_goes_on: bool,
    control: Budget,
    resets: Budget,
    /// Bytes sent that no WINDOW_UPDATE has used up.
    earned: u64,
}

/// What frames of one kind may cost.
struct Budget {
    rate: Rate,
    bucket: Bucket,
}

impl Budget {
    fn new(per_second: u64, burst: u64) -> Budget {
        Budget { rate: Rate::new(per_second, burst), bucket: Bucket::default() }
    }

    fn charge(&self, cost: u64) -> Result<(), Fault> {
        self.bucket.take(&self.rate, cost, nanos(Instant::now())).map_err(|_| Fault::Flood)
    }
}

/// Why a connection is ended.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// The first frame is no SETTINGS (RFC 9113, section 3.4).
    NoSettings,
    /// Too many frames that bring nothing.
    Flood,
}

impl<S> Guard<S> {
    /// The first SETTINGS must be there after `block_timeout`, and each header block as long after its begin. The second
    /// value is set when the connection costs too much: then nothing more is read of it.
    pub(super) fn new(stream: S, block_timeout: Duration) -> (Guard<S>, Rc<Cell<bool>>) {
        let flooded = Rc::new(Cell::new(false));
        let block = Some(Box::pin(sleep(block_timeout)));
        let (walk, told) = (Walk::new(), flooded.clone());
        (Guard { stream, walk, flooded, block_timeout, block, read: 0, linger: None }, told)
    }
}

impl Walk {
    fn new() -> Walk {
        Walk {
            preface_left: PREFACE,
            header: [0; HEADER],
            filled: 0,
            payload_left: 0,
            settled: false,
            in_block: false,
            block_goes_on: false,
            control: Budget::new(CONTROL_PER_SECOND, CONTROL_BURST),
            resets: Budget::new(RESETS_PER_SECOND, RESETS_BURST),
            earned: 0,
        }
    }

    /// Whether something was begun that has to come to its end soon.
    fn is_waiting(&self) -> bool {
        !self.settled || self.block_goes_on || (self.in_block && self.payload_left > 0)
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        let preface = self.preface_left.min(bytes.len());
        self.preface_left -= preface;
        bytes = &bytes[preface..];
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let some = self.payload_left.min(bytes.len());
                self.payload_left -= some;
                bytes = &bytes[some..];
                continue;
            }
            let some = (HEADER - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + some].copy_from_slice(&bytes[..some]);
            self.filled += some;
            bytes = &bytes[some..];
            if self.filled == HEADER {
                self.filled = 0;
                self.begin_frame()?;
            }
        }
        Ok(())
    }

    fn begin_frame(&mut self) -> Result<(), Fault> {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.payload_left = u32::from_be_bytes([0, high, middle, low]) as usize;
        if !std::mem::replace(&mut self.settled, true) && (kind != SETTINGS || flags & ACK != 0) {
            return Err(Fault::NoSettings);
        }
        self.in_block = matches!(kind, HEADERS | CONTINUATION);
        self.block_goes_on = self.in_block && flags & END_HEADERS == 0;
        match kind {
            HEADERS => Ok(()),
            DATA if self.payload_left > 0 || flags & END_STREAM != 0 => Ok(()),
            RST_STREAM => self.resets.charge(1),
            SETTINGS if flags & ACK == 0 => self.control.charge(SETTINGS_COST),
            WINDOW_UPDATE if self.earned >= BYTES_PER_UPDATE => {
                self.earned -= BYTES_PER_UPDATE;
                Ok(())
            }
            _ => self.control.charge(1),
        }
    }

    fn sent(&mut self, bytes: usize) {
        self.earned = self.earned.saturating_add(bytes as u64).min(EARNED_MAX);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.flooded.get() {
            return Poll::Pending;
        }
        if this.read >= TURN {
            // Whoever was woken takes its DATA from h2 before more comes: only what nobody takes is held against a client.
            this.read = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        this.read += buffer.filled().len() - before;
        match this.walk.take(&buffer.filled()[before..]) {
            Ok(()) => (),
            Err(Fault::NoSettings) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            Err(Fault::Flood) => {
                // Whoever polls h2 looks at it afterwards.
                this.flooded.set(true);
                buffer.set_filled(before);
                return Poll::Pending;
            }
        }
        if !this.walk.is_waiting() {
            this.block = None;
        } else {
            let timeout = this.block_timeout;
            let block = this.block.get_or_insert_with(|| Box::pin(sleep(timeout)));
            if block.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(n)) = written {
            self.walk.sent(n);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        if let Poll::Ready(Ok(n)) = written {
            self.walk.sent(n);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Ends the writing side, and throws away what still comes: a reset would take the GOAWAY from the peer.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let (timer, left) = this.linger.get_or_insert_with(|| (Box::pin(sleep(LINGER)), LINGER_BYTES));
        let mut waste = [0; 4096];
        while *left > 0 && timer.as_mut().poll(cx).is_pending() {
            let mut waste = ReadBuf::new(&mut waste);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut waste)) {
                Ok(()) if !waste.filled().is_empty() => *left = left.saturating_sub(waste.filled().len()),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
