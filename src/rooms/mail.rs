//! What shards tell each other about rooms.
use super::room::Member;
use super::statuses::Said;
use crate::close::Code;
use crate::config::Namespace;
use crate::limits::ClientRooms;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

/// Bytes of deliveries that may wait for one shard. Requests need no bound of their own: a session
/// has at most 64 of them unanswered.
const DELIVERIES_BYTES_MAX: usize = 64 << 20;

/// What names a room.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomKey {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name; empty for the room of everyone in the namespace, which no client can name.
    pub name: Arc<str>,
}

impl RoomKey {
    /// The room of everyone: it has an order of its own, and no members to keep.
    pub fn everyone(namespace: Namespace) -> RoomKey {
        RoomKey { namespace, name: "".into() }
    }

    /// Whether it is the room of everyone.
    pub fn is_everyone(&self) -> bool {
        self.name.is_empty()
    }
}

/// A session, anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionRef {
    /// Its shard.
    pub shard: u16,
    /// Its place there.
    pub slot: u32,
    /// Tells it from earlier sessions in the same place.
    pub generation: u32,
}

/// What an answer goes with: the `message_id` of the request.
pub type Ticket = Box<str>;

/// A request to the home of a room.
pub struct Request {
    /// The room.
    pub room: RoomKey,
    /// Who asks.
    pub from: SessionRef,
    /// As whom.
    pub client: Arc<str>,
    /// What the answer goes with.
    pub ticket: Ticket,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked of a home.
pub enum Ask {
    /// To become a member.
    Join(Box<Join>),
    /// To be a member no more.
    Leave,
    /// As `Leave`, from a session that is gone: no answer.
    Gone,
    /// As `Leave`, from a session that may not be here any more: it is told by `Mail::Expelled`.
    Forbidden,
    /// To send a message to the room.
    Publish {
        /// The message, as it came.
        message: Box<RawValue>,
        /// Whether the client gave it its name.
        named: bool,
    },
    /// A page of the members.
    Members {
        /// At most so many.
        limit: usize,
        /// Those after this client, in the order of names.
        after: Option<String>,
    },
    /// The client has begun to type, or has stopped.
    Typing {
        /// It has begun.
        start: bool,
    },
    /// The client has read everything up to this message.
    Receipt {
        /// Its offset.
        offset: u64,
    },
    /// Who of these clients is here, or of all.
    Presences {
        /// These.
        clients: Option<Arc<[Box<str>]>>,
    },
    /// The client has changed its status: no answer.
    Status(Arc<Said>),
    /// The next messages for a member that recovers: answered by `Mail::Feed`.
    More(Cursor),
}

/// What a home must know of a session that joins.
pub struct Join {
    /// Whether the session takes compressed frames.
    pub deflate: bool,
    /// The last message that the client has.
    pub since: Option<Position>,
    /// What the client has said of itself.
    pub said: Option<Arc<Said>>,
    /// The count of the client's rooms.
    pub rooms: ClientRooms,
}

/// An answer to a request.
pub enum Answer {
    /// The session is a member from here on.
    Joined(Box<Joined>),
    /// The session is a member no more.
    Left {
        /// The room.
        room: RoomKey,
    },
    /// The message has its place.
    Sent {
        /// The room.
        room: RoomKey,
        /// The place.
        position: Position,
        /// Whether it is the place of an earlier message with this `message_id`.
        duplicate: bool,
        /// Sessions it was posted to; unknown for everyone.
        recipients: Option<usize>,
    },
    /// A page of members: the payload, encoded.
    Members(String),
    /// Who is here.
    Presences {
        /// The clients that are, or why that is not said.
        found: Result<Vec<Member>, (Code, &'static str)>,
    },
    /// Done, and there is nothing to say.
    Done,
    /// No.
    Refused {
        /// The room of a join that failed.
        unjoined: Option<RoomKey>,
        /// Why.
        code: Code,
        /// In words.
        message: &'static str,
    },
}

/// Where a member that recovers stands in the history.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cursor {
    /// Names its recovery: who joins twice recovers twice, and what was asked for the first is void.
    pub number: u64,
    /// The last message that it was sent, or has.
    pub after: u64,
}

/// How a session became a member.
pub struct Joined {
    /// The room.
    pub room: RoomKey,
    /// Clients in the room.
    pub count: usize,
    /// The room's last message.
    pub position: Position,
    /// Where the client said what it has: whether it gets everything that it has missed.
    pub recovered: Option<bool>,
    /// Where it must be sent messages before those to come: from here on.
    pub missed: Option<Cursor>,
    /// Whether only the newest messages are sent.
    pub conflated: bool,
}

/// What came of asking for more.
pub enum Feed {
    /// The next messages.
    Messages {
        /// Their frames.
        frames: Vec<Bytes>,
        /// The offset of the last of them, or as asked for where there are none.
        last: u64,
        /// Whether everything after these is delivered.
        live: bool,
    },
    /// They are not kept any more: the session has lost its place, and is a member no more.
    Overtaken,
    /// The session is no member, or not the one that asked.
    Stale,
}

/// A place in a room's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Names one unbroken count.
    pub epoch: Arc<str>,
    /// Counts from 1; 0 before the first message.
    pub offset: u64,
}

/// A frame, and its compressed twin where some member takes one.
#[derive(Clone)]
pub struct Frame {
    /// The whole frame, header included.
    pub plain: Bytes,
    /// The whole compressed frame.
    pub deflated: Option<Bytes>,
    /// Bytes of the message.
    pub payload: usize,
}

/// Mail for a shard.
pub(super) enum Mail {
    /// To the home of a room.
    Request(Request),
    /// To the home: the sessions of this shard lost their place in the room and were told so.
    Lost {
        /// The room.
        room: RoomKey,
        /// The shard.
        shard: u16,
        /// As `Behind` named it.
        loss: u64,
    },
    /// To the shard of a session.
    Answer {
        /// The session.
        to: SessionRef,
        /// What it goes with.
        ticket: Ticket,
        /// The answer.
        answer: Answer,
    },
    /// To a shard with members.
    Deliver {
        /// The room.
        to: RoomKey,
        /// What to send.
        frame: Frame,
        /// What it is.
        kind: Kind,
        /// What it weighs.
        bytes: usize,
    },
    /// From the desk.
    Desk(super::desk::DeskAsk),
    /// To a shard whose mailbox was full: deliveries of this room have been left out, and are to be asked for.
    Behind {
        /// The room.
        room: RoomKey,
        /// Names what was left out.
        loss: u64,
    },
    /// To the home: the shard can take what was left out.
    CatchUp {
        /// The room.
        room: RoomKey,
        /// The shard.
        shard: u16,
        /// As `Behind` named it.
        loss: u64,
        /// The last message that it was sent.
        after: u64,
    },
    /// To a shard: what was left out cannot be had any more.
    Overtaken {
        /// The room.
        room: RoomKey,
        /// As `Behind` named it.
        loss: u64,
    },
    /// To the shard of a session that recovers.
    Feed {
        /// The session.
        to: SessionRef,
        /// The room.
        room: RoomKey,
        /// What it asked for.
        feed: Feed,
    },
    /// To the shard of a session: its membership has ended.
    Expelled {
        /// The session.
        to: SessionRef,
        /// The room.
        room: RoomKey,
        /// Why.
        code: Code,
    },
    /// To every shard: a client has changed its status.
    Status {
        /// Its namespace.
        namespace: Namespace,
        /// The client.
        client: Arc<str>,
        /// What it says now.
        said: Arc<Said>,
    },
    /// To the shard itself, whose loop sleeps: a client's new status is to be told then.
    StatusLater {
        /// When.
        at: Instant,
        /// Its namespace.
        namespace: Namespace,
        /// The client.
        client: Arc<str>,
    },
}

/// What a delivery is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A message of the room, at this offset.
    Chat(u64),
    /// Something else, for all members but some.
    Push(Except),
}

/// Who is left out.
#[derive(Debug, Clone)]
pub enum Except {
    /// Nobody.
    None,
    /// The sessions of a client.
    Client(Arc<str>),
    /// A session.
    Session(SessionRef),
}

/// The mailboxes of all shards.
#[derive(Clone)]
pub struct Post(Arc<[Mailbox]>);

struct Mailbox {
    sender: UnboundedSender<Mail>,
    deliveries_bytes: AtomicUsize,
}

impl Post {
    /// Mailboxes for `shards` shards.
    pub fn new(shards: usize) -> (Post, Vec<UnboundedReceiver<Mail>>) {
        let (boxes, inboxes): (Vec<_>, Vec<_>) = (0..shards)
            .map(|_| {
                #[expect(clippy::disallowed_methods, reason = "requests and deliveries are bounded one by one")]
                let (sender, inbox) = unbounded_channel();
                (Mailbox { sender, deliveries_bytes: AtomicUsize::new(0) }, inbox)
            })
            .unzip();
        (Post(boxes.into()), inboxes)
    }

    /// How many there are.
    pub fn shards(&self) -> usize {
        self.0.len()
    }

    /// Posts what is bounded elsewhere. A shard that has ended takes none.
    pub(super) fn send(&self, shard: usize, mail: Mail) {
        let _ = self.0[shard].sender.send(mail);
    }

    /// Whether a delivery of any size still fits.
    pub fn has_room(&self, shard: usize) -> bool {
        self.0[shard].deliveries_bytes.load(Relaxed) < DELIVERIES_BYTES_MAX
    }

    /// Posts a delivery, or says that the mailbox is full.
    pub fn deliver(&self, shard: usize, to: RoomKey, frame: Frame, kind: Kind) -> bool {
        // What is no message cannot be had a second time, and is small: it may take twice as much.
        let waits = self.0[shard].deliveries_bytes.load(Relaxed);
        let bound = if matches!(kind, Kind::Chat(_)) { DELIVERIES_BYTES_MAX } else { 2 * DELIVERIES_BYTES_MAX };
        if waits >= bound {
            return false;
        }
        let bytes = frame.plain.len() + frame.deflated.as_ref().map_or(0, Bytes::len) + size_of::<Mail>();
        self.0[shard].deliveries_bytes.fetch_add(bytes, Relaxed);
        self.send(shard, Mail::Deliver { to, frame, kind, bytes });
        true
    }

    /// As if deliveries of so many bytes waited.
    #[cfg(test)]
    pub fn reserve(&self, shard: usize, bytes: usize) {
        self.0[shard].deliveries_bytes.fetch_add(bytes, Relaxed);
    }

    /// A delivery was taken out of the mailbox.
    pub fn received(&self, shard: usize, bytes: usize) {
        self.0[shard].deliveries_bytes.fetch_sub(bytes, Relaxed);
    }
}

impl Frame {
    /// A copy whose reference count another shard does not share, where that is cheaper than two
    /// threads that count on one cache line.
    pub fn on_its_own(&self, elsewhere: bool) -> Frame {
        const COPIED_UP_TO: usize = 16 * 1024;
        let copy = |bytes: &Bytes| {
            if elsewhere && bytes.len() <= COPIED_UP_TO { Bytes::copy_from_slice(bytes) } else { bytes.clone() }
        };
        Frame { plain: copy(&self.plain), deflated: self.deflated.as_ref().map(copy), payload: self.payload }
    }
}

/// How many rooms the process has.
#[derive(Clone, Default)]
pub struct RoomCount(Arc<AtomicUsize>);

impl RoomCount {
    /// One more, where there are fewer than `max`.
    pub fn open(&self, max: usize) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |n| (n < max).then_some(n + 1)).is_ok()
    }

    /// How many there are.
    #[cfg(test)]
    pub fn now(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// One fewer.
    pub fn shut(&self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
