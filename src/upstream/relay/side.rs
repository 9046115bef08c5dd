//! One side of a relay: what it sends is followed frame by frame and forwarded as it is.
//!
//! Beyond a rate with `on_excess = "pause"` a side is not read, and what was read already waits in `held`, before the
//! walker has come to it: so the walker always stands where the other side does.
use crate::limits::deadlines::Deadlines;
use crate::limits::meter::Meter;
use crate::outbox::{Flush, Peer};
use crate::shard::Shard;
use crate::ws::frame::read_close;
use crate::ws::{Control, Fault, InflatedSize, Masking, Piece, Rules, Walker};
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Reads of one side before the other sessions of the thread have their turn.
const READS_PER_TURN: usize = 16;
/// The same where each may inflate to a thousand times as much.
const READS_PER_TURN_INFLATING: usize = 1;

/// The client or the backend, as a source of frames.
pub(super) struct Side {
    walker: Walker,
    /// Charged with what it sends; `None`: nothing limits it.
    meter: Option<Box<Meter>>,
    /// Holds its messages to their inflated size.
    inflated: Option<Box<InflatedSize>>,
    /// What was read and is not forwarded before the rate allows it: at most one read.
    held: Bytes,
    /// The other side has got a data frame in part.
    in_data_frame: bool,
    /// The other side must get the end of a frame, before it can be told anything.
    ends_frames: bool,
    closed: bool,
    /// When it must be pinged, when it has been silent for too long, and until when it is not read.
    pub times: Deadlines,
    /// It is not read, since the other side takes no more, or it has sent too much: its silence says nothing.
    pub paused: bool,
    /// The other side is to be pinged; the ping must stand between the frames of this one.
    pub ping_owed: bool,
    /// What its socket had taken of its queue when it was last asked for a sign.
    taken: u64,
    /// It was pinged then; else the queue was in the way.
    pinged: bool,
    /// Pings of the gateway that it has not answered; a pong is free for each of them.
    pongs_due: u32,
    /// Its next time may have come nearer.
    pub nearer: bool,
}

/// What the sides of one relay have in common, for one turn.
pub(super) struct Turn<'a> {
    pub shard: &'a Shard,
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
    /// Whether it is of a message, and no control frame.
    pub data: bool,
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

/// What a side that has been silent for too long has not shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// An answer to a ping.
    Pong,
    /// That it takes what is queued for it.
    Progress,
}

impl Side {
    pub(super) fn new(rules: Rules, times: Deadlines, meter: Option<Meter>) -> Side {
        let mut walker = Walker::new(rules);
        if meter.as_ref().is_some_and(Meter::pauses) || rules.masking == Masking::Forbidden && meter.is_some() {
            walker.by_frame();
        }
        Side {
            walker,
            meter: meter.map(Box::new),
            inflated: None,
            held: Bytes::new(),
            in_data_frame: false,
            ends_frames: rules.masking == Masking::Forbidden,
            closed: false,
            times,
            paused: false,
            ping_owed: false,
            taken: 0,
            pinged: false,
            pongs_due: 0,
            nearer: false,
        }
    }

    /// Holds its messages to their inflated size from now on.
    pub(super) fn follow(&mut self, inflated: InflatedSize) {
        self.walker.by_frame();
        self.inflated = Some(Box::new(inflated));
    }

    /// Whether its Close has come.
    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    /// Whether nothing may be put into its stream now.
    pub(super) fn in_data_frame(&self) -> bool {
        self.in_data_frame
    }

    /// Whether the ping that is owed to the other side can be sent now. Behind a queue it would be late, and the lack
    /// of an answer would say nothing.
    pub(super) fn can_ping(&self, to: &Peer) -> bool {
        self.ping_owed && !self.in_data_frame() && to.backlog() == 0
    }

    /// It has been silent, and must show that it is there: by answering a ping, which is owed to it from now on, or by
    /// taking what is queued for it in `peer`.
    pub(super) fn expect_sign(&mut self, peer: &Peer, now: Instant) {
        self.taken = peer.taken();
        self.pinged = false;
        if peer.backlog() > 0 {
            self.times.pinged(now);
        } else {
            self.times.rest(now);
        }
    }

    /// It was pinged.
    pub(super) fn pinged(&mut self, peer: &Peer, now: Instant) {
        self.taken = peer.taken();
        self.pinged = true;
        self.pongs_due = self.pongs_due.saturating_add(1);
        self.times.pinged(now);
    }

    /// Whether it is not read for as long as the other side takes nothing.
    pub(super) fn is_held_up(&self) -> bool {
        self.paused && self.times.paused().is_none()
    }

    /// The time for a sign is up; says what it has not shown. Of one that is not read there is nothing to be seen, but
    /// in a `jam`, where neither side is read: somebody must begin to take. One that takes what is queued for it is
    /// slow, not dead.
    pub(super) fn missing_sign(&mut self, peer: &Peer, jam: bool, now: Instant) -> Option<Missing> {
        match peer.backlog() {
            _ if self.paused && !jam => {
                self.times.rest(now);
                None
            }
            0 if self.pinged => Some(Missing::Pong),
            1.. if self.taken == peer.taken() => Some(Missing::Progress),
            _ => {
                self.expect_sign(peer, now);
                None
            }
        }
    }

    /// Forwards what has come `from` this side `to` the other. When it returns without an error, the task will be
    /// woken for whatever can go on, but for a ping that [can be sent](Self::can_ping), for the end of a frame that was
    /// asked for, and for the end of a [pause](Deadlines::paused).
    pub(super) fn pump(
        &mut self,
        (from, to): (&mut Peer, &mut Peer),
        reach: Reach,
        turn: &Turn<'_>,
        cx: &mut Context<'_>,
        mut note: impl FnMut(Count),
    ) -> Result<(), Halt> {
        let reads = if self.inflated.is_some() { READS_PER_TURN_INFLATING } else { READS_PER_TURN };
        for _ in 0..reads {
            if to.poll_flush(cx) == Poll::Ready(Flush::Failed) {
                self.paused = false;
                return Err(Halt::Deaf);
            }
            self.paused = to.backlog() > turn.high_mark || (reach == Reach::All && self.times.paused().is_some());
            let ended = reach == Reach::FrameEnd && !self.in_data_frame();
            if reach == Reach::Nothing || ended || self.paused || self.can_ping(to) {
                from.gather(cx);
                return Ok(());
            }
            if !self.held.is_empty() {
                let held = std::mem::take(&mut self.held);
                let room = self.room(reach).min(held.len() as u64) as usize;
                let came = self.forward(&held[..room], to, reach, turn, &mut note)?;
                self.held = held.slice(came..);
                continue;
            }
            let mut scratch = turn.shard.scratch.borrow_mut();
            let room = self.room(reach).min(scratch.len() as u64) as usize;
            match from.poll_read(cx, &mut scratch[..room]) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(Halt::Gone(None)),
                Poll::Ready(Ok(n)) => self.take(&scratch[..n], to, reach, turn, &mut note)?,
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

    /// Forwards what was read, and holds what may not be forwarded yet.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        to: &mut Peer,
        reach: Reach,
        turn: &Turn<'_>,
        note: &mut impl FnMut(Count),
    ) -> Result<(), Halt> {
        self.nearer |= self.times.heard(turn.now);
        let came = self.forward(bytes, to, reach, turn, note)?;
        self.held = Bytes::copy_from_slice(&bytes[came..]);
        Ok(())
    }

    /// Walks and forwards bytes up to a pause; says how far it came.
    fn forward(
        &mut self,
        bytes: &[u8],
        to: &mut Peer,
        reach: Reach,
        turn: &Turn<'_>,
        note: &mut impl FnMut(Count),
    ) -> Result<usize, Halt> {
        let mut run = Run { bytes, range: 0..0, to };
        let came = self.walk(&mut run, reach, turn, note);
        run.write();
        came
    }

    fn walk(
        &mut self,
        run: &mut Run<'_>,
        reach: Reach,
        turn: &Turn<'_>,
        note: &mut impl FnMut(Count),
    ) -> Result<usize, Halt> {
        let bytes = run.bytes;
        let mut at = 0;
        loop {
            if at < bytes.len() && reach == Reach::All && self.must_pause(turn.now) {
                return Ok(at);
            }
            let Side { walker, meter, inflated, in_data_frame, pongs_due, .. } = self;
            let Some(piece) = walker.next(bytes, &mut at).map_err(Halt::Fault)? else { return Ok(at) };
            let answers = *pongs_due > 0
                && matches!(&piece, Piece::Control { opcode: Control::Pong, payload, .. } if **payload == turn.nonce);
            // The gateway itself asked for it.
            let count = if answers { Count::NOTHING } else { Count::of(&piece) };
            if let (Some(inflated), Piece::Data { range, tally, part, .. }) = (inflated, &piece) {
                let payload = &bytes[range.end - tally.payload as usize..range.end];
                let spare = &mut turn.shard.inflater.borrow_mut();
                inflated.follow(payload, *part, tally.messages > 0, spare).map_err(Halt::Fault)?;
            }
            let charged = match meter {
                Some(meter) if reach == Reach::All => {
                    meter.charge(count.messages + count.extra, count.payload, turn.now)
                }
                Some(_) | None => Ok(()),
            };
            if !(self.ends_frames && *in_data_frame) {
                charged.map_err(Halt::Excess)?;
            }
            note(count);
            match piece {
                Piece::Data { head, range, .. } => {
                    run.add(head, range);
                    *in_data_frame = walker.in_data_frame();
                    self.times.message(turn.now);
                }
                Piece::Control { opcode: Control::Pong, .. } if answers => *pongs_due -= 1,
                Piece::Control { opcode: Control::Close, raw, payload } => {
                    run.add_apart(raw);
                    self.closed = true;
                    let said = read_close(payload).map_err(Halt::Fault)?;
                    let (code, reason) = said.map_or((None, ""), |(code, reason)| (Some(code), reason));
                    return Err(Halt::Closed(code, reason.to_owned()));
                }
                Piece::Control { opcode: Control::Ping | Control::Pong, raw, .. } => run.add_apart(raw),
            }
            charged.map_err(Halt::Excess)?;
        }
    }

    /// Whether it has sent too much; then it is not read until the rate allows it.
    fn must_pause(&mut self, now: Instant) -> bool {
        let Some(wait) = self.meter.as_ref().and_then(|meter| meter.pause(now)) else { return false };
        self.times.pause_until(now + wait);
        self.nearer = true;
        true
    }
}

impl Count {
    const NOTHING: Count = Count { data: false, messages: 0, extra: 0, payload: 0 };

    fn of(piece: &Piece<'_>) -> Count {
        match piece {
            Piece::Data { tally, .. } => Count {
                data: true,
                messages: tally.messages.into(),
                extra: tally.empty_fragments.into(),
                payload: tally.payload,
            },
            Piece::Control { opcode: Control::Close, .. } => Count::NOTHING,
            Piece::Control { opcode: Control::Ping | Control::Pong, payload, .. } => {
                Count { data: false, messages: 0, extra: 1, payload: payload.len() as u64 }
            }
        }
    }
}

/// Bytes that follow each other, written with one call.
struct Run<'a> {
    bytes: &'a [u8],
    range: Range<usize>,
    to: &'a mut Peer,
}

impl Run<'_> {
    /// Adds the next range of the bytes; `head` stands before it, and came with an earlier read.
    fn add(&mut self, head: &[u8], range: Range<usize>) {
        if !head.is_empty() {
            self.add_apart(head);
        }
        let start = if self.range.is_empty() { range.start } else { self.range.start };
        self.range = start..range.end;
    }

    /// Adds what is not next among the bytes.
    fn add_apart(&mut self, apart: &[u8]) {
        self.write();
        self.to.write_through(apart);
    }

    fn write(&mut self) {
        let range = std::mem::take(&mut self.range);
        if !range.is_empty() {
            self.to.write_through(&self.bytes[range]);
        }
    }
}
