//! Bytes on their way to one peer.
//!
//! Sending never waits: frames are appended to the [`Peer`]'s queue, and [`Peer::flush`] writes
//! what the socket takes now. Whoever flushes may be the session itself or the shard's fan-out;
//! what does not fit stays, and the session flushes it when the socket is writable again.
pub mod ending;
pub mod wire;

use bytes::Bytes;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, Waker};
use wire::Wire;

/// Frames written with one call.
const FRAMES_PER_WRITE: usize = 64;
/// A queue's memory is given back when it is empty and larger than this.
const QUEUE_KEPT: usize = 4;

/// A socket, and what is queued for it.
pub struct Peer {
    wire: Wire,
    queue: VecDeque<Bytes>,
    /// Bytes of the first frame that are already written.
    written: usize,
    backlog: usize,
    /// Bytes of the queue that the socket has taken.
    taken: u64,
    failed: Option<io::ErrorKind>,
    session: Option<Waker>,
    /// The session's task is woken by the socket when it can be written.
    waits_for_socket: bool,
}

/// What a flush achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Everything is written.
    Done,
    /// The socket takes no more now.
    Blocked,
    /// The socket has failed; the session learns it when it reads.
    Failed,
}

impl Peer {
    /// A peer with an empty queue.
    pub fn new(wire: Wire) -> Peer {
        Peer {
            wire,
            queue: VecDeque::new(),
            written: 0,
            backlog: 0,
            taken: 0,
            failed: None,
            session: None,
            waits_for_socket: false,
        }
    }

    /// Appends a frame; nothing is written yet.
    pub fn push(&mut self, frame: Bytes) {
        if self.failed.is_none() {
            self.backlog += frame.len();
            self.queue.push_back(frame);
        }
    }

    /// Bytes that are queued.
    pub fn backlog(&self) -> usize {
        self.backlog
    }

    /// Bytes of the queue that the socket has taken so far. While some are left, it takes more only as the peer does.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Why the socket cannot be written any more.
    pub fn failed(&self) -> Option<io::ErrorKind> {
        self.failed
    }

    /// Writes `bytes` at once where nothing waits before them; queues what does not fit. For the
    /// relay, whose bytes lie in a buffer that is about to be used again.
    pub fn write_through(&mut self, bytes: &[u8]) -> Flush {
        let mut taken = 0;
        if self.queue.is_empty() && self.failed.is_none() {
            match self.wire.try_write(&[IoSlice::new(bytes)]) {
                Ok(n) => taken = n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => (),
                Err(e) => return self.fail(e.kind()),
            }
        }
        if taken == bytes.len() {
            return self.flush();
        }
        self.push(Bytes::copy_from_slice(&bytes[taken..]));
        self.flush()
    }

    /// Writes what the socket takes now.
    pub fn flush(&mut self) -> Flush {
        while self.failed.is_none() {
            if self.queue.is_empty() {
                return match self.wire.try_flush() {
                    Ok(()) => {
                        self.waits_for_socket = false;
                        Flush::Done
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.block(),
                    Err(e) => self.fail(e.kind()),
                };
            }
            match self.write_some() {
                Ok(n) => self.advance(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return self.block(),
                Err(e) => return self.fail(e.kind()),
            }
        }
        Flush::Failed
    }

    fn write_some(&mut self) -> io::Result<usize> {
        let first = &self.queue[0][self.written..];
        if self.queue.len() == 1 {
            return self.wire.try_write(&[IoSlice::new(first)]);
        }
        let mut slices = [IoSlice::new(&[]); FRAMES_PER_WRITE];
        slices[0] = IoSlice::new(first);
        let mut count = 1;
        for frame in self.queue.iter().skip(1).take(FRAMES_PER_WRITE - 1) {
            slices[count] = IoSlice::new(frame);
            count += 1;
        }
        self.wire.try_write(&slices[..count])
    }

    fn advance(&mut self, mut n: usize) {
        self.backlog -= n;
        self.taken += n as u64;
        while let Some(first) = self.queue.front() {
            let rest = first.len() - self.written;
            if n < rest {
                self.written += n;
                return;
            }
            n -= rest;
            self.written = 0;
            self.queue.pop_front();
        }
        if self.queue.capacity() > QUEUE_KEPT {
            self.queue = VecDeque::new();
        }
    }

    /// The session must wait for the socket: only its own task can be woken when it is writable.
    fn block(&mut self) -> Flush {
        if !self.waits_for_socket {
            self.wake_session();
        }
        Flush::Blocked
    }

    fn fail(&mut self, kind: io::ErrorKind) -> Flush {
        self.failed = Some(kind);
        self.queue = VecDeque::new();
        self.backlog = 0;
        self.wake_session();
        Flush::Failed
    }

    /// Throws away what is queued, and whatever is still to come.
    pub fn give_up(&mut self) {
        self.fail(io::ErrorKind::NotConnected);
    }

    /// Writes what is queued, and remembers the session's task: for when more can be written, and for
    /// [`wake_session`](Self::wake_session).
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Flush> {
        if !self.session.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            self.session = Some(cx.waker().clone());
        }
        loop {
            self.waits_for_socket = true;
            match self.flush() {
                Flush::Blocked => match self.wire.poll_writable(cx) {
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(e)) => return Poll::Ready(self.fail(e.kind())),
                    Poll::Pending => return Poll::Pending,
                },
                done => return Poll::Ready(done),
            }
        }
    }

    /// Reads into `buffer`; 0 at the end of the stream. A socket that has failed when it was written is read to its
    /// end all the same, since its last words may be a Close.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match (self.wire.poll_read(cx, buffer), self.failed) {
            (Poll::Pending, Some(kind)) => Poll::Ready(Err(kind.into())),
            (read, _) => read,
        }
    }

    /// Instead of a read, by a task that may not read now: no other stream of the connection is to suffer from what has
    /// come for this one.
    pub fn gather(&mut self, cx: &mut Context<'_>) {
        self.wire.gather(cx);
    }

    /// Forgets the frames of which nothing is written yet, so that a Close can still go out.
    pub fn drop_unsent(&mut self) {
        let keep = usize::from(self.written > 0);
        self.queue.truncate(keep);
        self.backlog = self.queue.front().map_or(0, |f| f.len() - self.written);
    }

    /// Whether other streams go on, on the same connection, when this one ends.
    pub fn is_stream_of_many(&self) -> bool {
        matches!(self.wire, Wire::Http2(_))
    }

    /// Ends the writing side, after what is queued was flushed.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_shutdown(cx)
    }

    /// Wakes the session's task, to look at what has changed for it.
    pub fn wake_session(&mut self) {
        if let Some(session) = self.session.take() {
            session.wake();
        }
    }
}
