//! A session: what its task does on the gateway's side, and the client's end of its socket.
use super::view::{Asked, View};
use super::world::Flag;
use super::*;
use std::pin::Pin;
use std::task::Waker;
use tokio::io::{AsyncRead, ReadBuf};

/// What a batch of recovered messages may take besides the backlog, with what is left of the one before.
const BATCHES: usize = 80 << 10;
/// The longest message, and two of them may lie across a bound.
const MESSAGES: usize = (2 * 10) << 10;
/// What a session's task reads in one turn.
const READS_PER_TURN: usize = 16;

pub(super) struct Session {
    pub(super) client: usize,
    pub(super) shard: usize,
    /// The gateway's side, until that has ended.
    gateway: Option<(Member, Seat)>,
    pipe: DuplexStream,
    flag: Arc<Flag>,
    /// Sent and not yet read by the gateway.
    wire: VecDeque<(String, Asked)>,
    /// Received, and no whole message yet.
    input: Vec<u8>,
    max_backlog: usize,
    /// A pipe and a backlog so small that it may be closed for not reading.
    pub(super) slow: bool,
    /// It reads what comes.
    pub(super) reads: bool,
    /// The client has gone, and the gateway does not know.
    pub(super) dead: bool,
    pub(super) closed: Option<u16>,
    /// A mailbox was full since nothing was on the way to it.
    pub(super) was_full: bool,
    /// When it was last known that nothing was on the way to it.
    pub(super) rested: Instant,
    pub(super) view: View,
}

impl Session {
    pub(super) fn open(house: &House, shard: usize, client: (usize, &str), slow: Option<(usize, usize)>) -> Session {
        let (pipe_bytes, max_backlog) = slow.unwrap_or((PIPE_BYTES, 2 << 20));
        let limits = Limits { max_backlog, ..limits() };
        let (pipe, wire) = duplex(pipe_bytes);
        let rooms = &house.shards[shard];
        let seat = rooms.shard.seat(Wire::Pipe(wire));
        let enter = house.enter(&seat, client.1, &limits);
        let member = Member::enter(rooms, &seat.handle, enter, None);
        let flag = Arc::new(Flag::default());
        flag.raise();
        Session {
            client: client.0,
            shard,
            gateway: Some((member, seat)),
            pipe,
            flag,
            wire: VecDeque::new(),
            input: Vec::new(),
            max_backlog,
            slow: slow.is_some(),
            reads: true,
            dead: false,
            closed: None,
            was_full: false,
            rested: Instant::now(),
            view: View::default(),
        }
    }

    /// Whether the gateway still has it.
    pub(super) fn is_live(&self) -> bool {
        self.gateway.is_some()
    }

    /// Whether its client can still ask something.
    pub(super) fn can_ask(&self) -> bool {
        self.is_live() && !self.dead && self.wire.len() < 200
    }

    /// Whether the name of a request means another one that is on its way.
    pub(super) fn is_taken(&self, id: &str, room: usize) -> bool {
        let sent = self.wire.iter().any(|(_, asked)| asked.id == id && asked.room != Some(room));
        sent || self.view.is_taken(id, room)
    }

    pub(super) fn ask(&mut self, text: String, asked: Asked) {
        self.wire.push_back((text, asked));
        self.flag.raise();
    }

    /// One turn of the session's task. What the gateway has read of what was asked; whether it did anything.
    pub(super) fn turn(&mut self, world: &mut World) -> (Vec<Asked>, bool) {
        let (mut read, mut worked) = (Vec::new(), false);
        if self.gateway.is_none() || !self.flag.take() {
            return (read, worked);
        }
        let waker = Waker::from(self.flag.clone());
        for _ in 0..READS_PER_TURN {
            let Some((member, seat)) = &self.gateway else { return (read, true) };
            if let Some(close) = seat.handle.take_order() {
                member.say_goodbye(&close);
                self.end(world, close.number);
                return (read, true);
            }
            let backlog = seat.handle.peer.borrow().backlog();
            let _ = seat.handle.peer.borrow_mut().poll_flush(&mut Context::from_waker(&waker));
            worked |= seat.handle.peer.borrow().backlog() < backlog;
            member.feed();
            world.collect();
            if !member.may_ask() {
                return (read, worked);
            }
            let Some((text, asked)) = self.wire.pop_front() else { return (read, worked) };
            worked = true;
            let done = member.on_text(&text);
            assert!(matches!(done, Ok(None)), "{text}: {done:?}");
            world.collect();
            read.push(asked);
        }
        self.flag.raise();
        (read, true)
    }

    /// The gateway's side is over: by its own will, or because the socket is lost.
    pub(super) fn end(&mut self, world: &mut World, number: Option<u16>) {
        let Some((member, seat)) = self.gateway.take() else { return };
        drop(member);
        if number.is_some() {
            let _ = seat.handle.peer.borrow_mut().flush();
        }
        self.closed = number;
        drop(seat);
        world.collect();
    }

    /// What has come, each with its bytes on the wire, and whether the socket has ended.
    pub(super) fn read(&mut self, most: usize) -> (Vec<(Value, usize)>, bool) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut buffer = [0; 16 << 10];
        let mut taken = 0;
        let mut ended = false;
        while taken < most && !ended {
            let part = (most - taken).min(buffer.len());
            let mut buffer = ReadBuf::new(&mut buffer[..part]);
            match Pin::new(&mut self.pipe).poll_read(&mut cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => ended = true,
                Poll::Ready(Ok(())) => {
                    taken += buffer.filled().len();
                    self.input.extend_from_slice(buffer.filled());
                }
                Poll::Ready(Err(_)) => ended = true,
                Poll::Pending => break,
            }
        }
        let (mut messages, mut at) = (Vec::new(), 0);
        while let Some((text, bytes)) = frame_at(&self.input[at..]) {
            messages.push((serde_json::from_slice(text).unwrap(), bytes));
            at += bytes;
        }
        self.input.drain(..at);
        (messages, ended)
    }

    /// However slow it is, only so much is queued for it.
    pub(super) fn check_backlog(&self) {
        if let Some((_, seat)) = &self.gateway {
            let backlog = seat.handle.peer.borrow().backlog();
            let bound = self.max_backlog + BATCHES + MESSAGES;
            assert!(backlog <= bound, "{backlog} bytes are queued for one with a backlog of {}", self.max_backlog);
        }
    }

    /// Nothing is on its way, nor waits for an answer.
    pub(super) fn check_at_rest(&self) {
        assert!(self.wire.is_empty(), "what was sent is not read: a session was not woken");
        if let Some((member, seat)) = &self.gateway {
            assert_eq!(seat.handle.peer.borrow().backlog(), 0, "bytes are queued for one that reads");
            assert_eq!(member.waits_for(), None, "still to come");
        }
    }
}

/// The text of the frame at the beginning of these bytes, and the bytes of the frame.
fn frame_at(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (&first, &short) = bytes.first().zip(bytes.get(1))?;
    assert_eq!(first, 0x81, "text was expected");
    let (header, length) = match short {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize),
        short => (2, usize::from(short)),
    };
    Some((bytes.get(header..header + length)?, header + length))
}
