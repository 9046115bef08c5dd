//! One side of a relay: what it sends is followed frame by frame and forwarded as it is.
use crate::limits::deadlines::Deadlines;
use crate::outbox::{Flush, Peer};
use crate::ws::frame::read_close;
use crate::ws::{Control, Fault, Piece, Rules, Walker};
use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Reads of one side before the other sessions of the thread have their turn.
const READS_PER_TURN: usize = 16;

/// The client or the backend, as a source of frames.
pub(super) struct Side {
    walker: Walker,
    closed: bool,
    /// When it must be pinged, and when it has been silent for too long.
    pub times: Deadlines,
    /// It is not read, since the other side takes no more: its silence says nothing.
    pub paused: bool,
    /// The other side is to be pinged; the ping must stand between the frames of this one.
    pub ping_owed: bool,
    /// Its next time may have come nearer.
    pub nearer: bool,
}

/// What the sides of one relay have in common, for one turn.
pub(super) struct Turn<'a> {
    pub scratch: &'a RefCell<Vec<u8>>,
    /// Bytes queued for one side beyond which the other is not read.
    pub high_mark: usize,
    /// The payload of the gateway's own pings.
    pub nonce: [u8; 8],
    pub now: Instant,
}

/// How far a side is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// As far as it has come.
    All,
    /// To the end of the frame that has begun.
    FrameEnd,
    /// Not at all.
    Nothing,
}

/// What was found in one run, for limits and figures.
#[derive(Clone, Copy)]
pub(super) struct Count {
    pub messages: u64,
    /// Frames that are no message, but are charged like one.
    pub extra: u64,
    pub payload: u64,
}

/// Why nothing more of a side is forwarded.
pub(super) enum Halt {
    /// Its Close has been forwarded.
    Closed(Option<u16>, String),
    /// Its connection ended without a Close; `None`: in order.
    Gone(Option<io::ErrorKind>),
    /// It broke a rule; what it broke it with was not forwarded.
    Fault(Fault),
    /// It sent too much, and must wait so long.
    Excess(Duration),
    /// The other side cannot be written any more.
    Deaf,
}

impl Side {
    pub(super) fn new(rules: Rules, times: Deadlines) -> Side {
        Side { walker: Walker::new(rules), closed: false, times, paused: false, ping_owed: false, nearer: false }
    }

    /// Whether its Close has come.
    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    /// Whether nothing may be put into its stream now.
    pub(super) fn in_data_frame(&self) -> bool {
        self.walker.in_data_frame()
    }

    /// Whether the ping that is owed to the other side can be sent now. Behind a queue it would be late, and the lack
    /// of an answer would say nothing.
    pub(super) fn can_ping(&self, to: &Peer) -> bool {
        self.ping_owed && !self.in_data_frame() && to.backlog() == 0
    }

    /// Forwards what has come `from` this side `to` the other. When it returns without an error, the task will be
    /// woken for whatever can go on, but for a ping that [can be sent](Self::can_ping) and for the end of a frame
    /// that was asked for.
    pub(super) fn pump(
        &mut self,
        (from, to): (&mut Peer, &mut Peer),
        reach: Reach,
        turn: &Turn<'_>,
        cx: &mut Context<'_>,
        mut count: impl FnMut(Count) -> Result<(), Duration>,
    ) -> Result<(), Halt> {
        for _ in 0..READS_PER_TURN {
            if to.poll_flush(cx) == Poll::Ready(Flush::Failed) {
                return Err(Halt::Deaf);
            }
            self.paused = to.backlog() > turn.high_mark;
            let ended = reach == Reach::FrameEnd && !self.in_data_frame();
            if reach == Reach::Nothing || ended || self.paused || self.can_ping(to) {
                return Ok(());
            }
            let mut scratch = turn.scratch.borrow_mut();
            let room = self.room(reach).min(scratch.len() as u64) as usize;
            match from.poll_read(cx, &mut scratch[..room]) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(Halt::Gone(None)),
                Poll::Ready(Ok(n)) => self.forward(&scratch[..n], to, turn, &mut count)?,
                Poll::Ready(Err(error)) => return Err(Halt::Gone(Some(error.kind()))),
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// The most that may be read at once, so that a read ends where something is to be put in.
    fn room(&self, reach: Reach) -> u64 {
        match self.walker.frame_rest() {
            rest if rest > 0 && (self.ping_owed || reach == Reach::FrameEnd) => rest,
            _ => u64::MAX,
        }
    }

    /// Walks and forwards what was read.
    pub(super) fn forward(
        &mut self,
        bytes: &[u8],
        to: &mut Peer,
        turn: &Turn<'_>,
        count: &mut impl FnMut(Count) -> Result<(), Duration>,
    ) -> Result<(), Halt> {
        self.nearer |= self.times.heard(turn.now);
        let mut at = 0;
        while let Some(piece) = self.walker.next(bytes, &mut at).map_err(Halt::Fault)? {
            match piece {
                Piece::Data { head, range, tally } => {
                    let (messages, extra) = (tally.messages.into(), tally.empty_fragments.into());
                    count(Count { messages, extra, payload: tally.payload }).map_err(Halt::Excess)?;
                    self.times.message(turn.now);
                    if !head.is_empty() {
                        to.write_through(head);
                    }
                    to.write_through(&bytes[range]);
                }
                Piece::Control { opcode: Control::Pong, payload, .. } if *payload == turn.nonce => (),
                Piece::Control { opcode: Control::Close, raw, payload } => {
                    to.write_through(raw);
                    self.closed = true;
                    let said = read_close(payload).map_err(Halt::Fault)?;
                    let (code, reason) = said.map_or((None, ""), |(code, reason)| (Some(code), reason));
                    return Err(Halt::Closed(code, reason.to_owned()));
                }
                Piece::Control { opcode: Control::Ping | Control::Pong, raw, payload } => {
                    let payload = payload.len() as u64;
                    count(Count { messages: 0, extra: 1, payload }).map_err(Halt::Excess)?;
                    to.write_through(raw);
                }
            }
        }
        Ok(())
    }
}
