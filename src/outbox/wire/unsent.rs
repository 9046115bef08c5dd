//! What a stream of HTTP/2 has taken and not sent, piece by piece: however small, each costs h2 some hundred bytes.
use bytes::{Buf, Bytes};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Pieces of one stream that may wait in h2.
pub const PIECES_MAX: usize = 64;

/// Counts the pieces of one stream.
#[derive(Default)]
pub struct Unsent(Rc<Count>);

#[derive(Default)]
struct Count {
    pieces: Cell<usize>,
    /// Who waits until there are half as many.
    writer: RefCell<Option<Waker>>,
}

/// Bytes that are counted until they are sent, or thrown away.
pub struct Piece {
    bytes: Bytes,
    count: Rc<Count>,
}

impl Unsent {
    /// One more.
    pub fn piece(&self, bytes: Bytes) -> Piece {
        self.0.pieces.set(self.0.pieces.get() + 1);
        Piece { bytes, count: self.0.clone() }
    }

    /// Whether no more should be added.
    pub fn is_full(&self) -> bool {
        self.0.pieces.get() >= PIECES_MAX
    }

    /// Ready when one more may be added.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_full() {
            return Poll::Ready(());
        }
        *self.0.writer.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let left = self.count.pieces.get() - 1;
        self.count.pieces.set(left);
        if left == PIECES_MAX / 2
            && let Some(writer) = self.count.writer.take()
        {
            writer.wake();
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, n: usize) {
        self.bytes.advance(n);
    }
}
