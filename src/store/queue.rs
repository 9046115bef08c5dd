//! The way to the store's thread: bounded by requests and by bytes.
use super::{Append, BanKey, BanRow, BanWritten, Full, Loaded, Reply, RoomName, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// Requests that may wait.
pub(super) const REQUESTS_MAX: usize = 8192;
/// Bytes of the requests that may wait.
pub(super) const BYTES_MAX: usize = 64 << 20;
/// Places, and bytes, that are kept for bans: a disk that is slow, or the traffic of rooms, must not keep one out.
pub(super) const REQUESTS_KEPT: usize = 256;
pub(super) const BYTES_KEPT: usize = 1 << 20;

pub(super) type BanDone = Box<dyn FnOnce(Result<BanWritten, StoreError>) + Send>;
pub(super) type BansDone = Box<dyn FnOnce(Result<Vec<(BanKey, BanRow)>, StoreError>) + Send>;

pub(super) enum Request {
    Load {
        ticket: u64,
        room: RoomName,
        to: UnboundedSender<Reply>,
    },
    Append {
        ticket: u64,
        append: Box<Append>,
        to: UnboundedSender<Reply>,
    },
    Forget {
        ticket: u64,
        room: RoomName,
        to: UnboundedSender<Reply>,
    },
    PutBan {
        key: BanKey,
        row: BanRow,
        done: BanDone,
    },
    LiftBan {
        key: BanKey,
        ended_by: Option<i64>,
        done: BanDone,
    },
    Bans {
        done: BansDone,
    },
    /// Answered when the file is closed.
    Close(SyncSender<()>),
}

/// What came of a request in a transaction. It is told only after the commit.
pub(super) enum Outcome {
    Loaded(Option<Loaded>),
    /// Of an append, `false`: not in order, or too many rooms.
    Done(bool),
    Ban(BanWritten),
    Bans(Vec<(BanKey, BanRow)>),
}

impl Outcome {
    /// Bytes of the messages in it.
    pub fn bytes(&self) -> usize {
        match self {
            Outcome::Loaded(Some(loaded)) => loaded.records.iter().map(|r| r.text.len()).sum(),
            _ => 0,
        }
    }
}

impl Request {
    /// What it weighs in memory, about.
    pub fn bytes(&self) -> usize {
        let name = |room: &RoomName| room.namespace.len() + room.room.len();
        let ban = |key: &BanKey| key.namespace.len() + key.client.len() + key.room.len();
        let more = match self {
            Request::Load { room, .. } | Request::Forget { room, .. } => name(room),
            Request::Append { append, .. } => {
                let Append { room, epoch, record, .. } = &**append;
                let sender = record.sender.as_ref().map_or(0, |s| s.len());
                size_of::<Append>() + name(room) + epoch.len() + sender + record.message_id.len() + record.text.len()
            }
            Request::PutBan { key, row, .. } => ban(key) + row.reason.as_ref().map_or(0, |r| r.len()),
            Request::LiftBan { key, .. } => ban(key),
            Request::Bans { .. } | Request::Close(_) => 0,
        };
        size_of::<Request>() + more
    }

    /// Whether what is kept for bans is for it. Not for the sweeping of bans that have ended.
    fn is_order(&self) -> bool {
        match self {
            Request::Load { .. } | Request::Append { .. } | Request::Forget { .. } => false,
            Request::LiftBan { ended_by, .. } => ended_by.is_none(),
            Request::PutBan { .. } | Request::Bans { .. } | Request::Close(_) => true,
        }
    }

    /// Tells who asked. A receiver that is gone does not matter.
    pub fn answer(self, outcome: Result<Outcome, StoreError>) {
        match (self, outcome) {
            (Request::Load { ticket, room, to }, outcome) => {
                let found = outcome.map(|o| if let Outcome::Loaded(found) = o { found } else { None });
                let _ = to.send(Reply::Loaded { ticket, room, found });
            }
            (Request::Append { ticket, to, .. }, Ok(Outcome::Done(true))) => {
                let _ = to.send(Reply::Appended { ticket });
            }
            (Request::Forget { ticket, to, .. }, Ok(_)) => {
                let _ = to.send(Reply::Forgotten { ticket });
            }
            (Request::Append { ticket, to, .. } | Request::Forget { ticket, to, .. }, _) => {
                let _ = to.send(Reply::Failed { ticket });
            }
            (Request::PutBan { done, .. } | Request::LiftBan { done, .. }, outcome) => {
                done(outcome.map(|o| if let Outcome::Ban(written) = o { written } else { BanWritten::Lifted(false) }));
            }
            (Request::Bans { done }, outcome) => {
                done(outcome.map(|o| if let Outcome::Bans(bans) = o { bans } else { Vec::new() }));
            }
            (Request::Close(closed), _) => {
                let _ = closed.send(());
            }
        }
    }
}

/// The way in.
#[derive(Clone)]
pub(super) struct Queue {
    sender: SyncSender<Request>,
    shared: Arc<Shared>,
}

/// The way out.
pub(super) struct Inbox {
    receiver: Receiver<Request>,
    shared: Arc<Shared>,
}

/// What both ends know.
struct Shared {
    orders: Waiting,
    traffic: Waiting,
    has_ended: AtomicBool,
}

/// How many requests of one sort wait, and may.
struct Waiting {
    requests: AtomicUsize,
    bytes: AtomicUsize,
    requests_max: usize,
    bytes_max: usize,
}

pub(super) fn queue() -> (Queue, Inbox) {
    let (sender, receiver) = sync_channel(REQUESTS_MAX);
    let shared = Arc::new(Shared {
        orders: Waiting::new(REQUESTS_MAX, BYTES_KEPT),
        traffic: Waiting::new(REQUESTS_MAX - REQUESTS_KEPT, BYTES_MAX - BYTES_KEPT),
        has_ended: AtomicBool::new(false),
    });
    (Queue { sender, shared: Arc::clone(&shared) }, Inbox { receiver, shared })
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Relaxed);
    }
}

impl Queue {
    /// Takes a request, or refuses it at once.
    pub fn offer(&self, request: Request) -> Result<(), Full> {
        let (bytes, waiting) = (request.bytes(), self.shared.waiting(&request));
        waiting.take(bytes)?;
        self.sender.try_send(request).map_err(|_| {
            waiting.leave(bytes);
            Full
        })
    }

    /// Whether the thread is gone.
    pub fn has_ended(&self) -> bool {
        self.shared.has_ended.load(Relaxed)
    }

    /// Takes a request when there is a place for it.
    pub fn push(&self, request: Request) -> Result<(), Full> {
        let waiting = self.shared.waiting(&request);
        waiting.requests.fetch_add(1, Relaxed);
        waiting.bytes.fetch_add(request.bytes(), Relaxed);
        self.sender.send(request).map_err(|_| Full)
    }
}

impl Inbox {
    fn taken(&self, request: Request) -> Request {
        self.shared.waiting(&request).leave(request.bytes());
        request
    }

    /// The next request, if one comes in this time.
    pub fn next_within(&self, time: Duration) -> Result<Request, RecvTimeoutError> {
        self.receiver.recv_timeout(time).map(|r| self.taken(r))
    }

    /// The next request, if one waits.
    pub fn next_now(&self) -> Result<Request, TryRecvError> {
        self.receiver.try_recv().map(|r| self.taken(r))
    }
}

impl Shared {
    fn waiting(&self, request: &Request) -> &Waiting {
        if request.is_order() { &self.orders } else { &self.traffic }
    }
}

impl Waiting {
    fn new(requests_max: usize, bytes_max: usize) -> Waiting {
        let (requests, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Waiting { requests, bytes, requests_max, bytes_max }
    }

    /// A place for so many bytes. Where none of this sort waits there is always one.
    fn take(&self, bytes: usize) -> Result<(), Full> {
        let one_more = |waiting: usize| (waiting < self.requests_max).then_some(waiting + 1);
        self.requests.fetch_update(Relaxed, Relaxed, one_more).map_err(|_| Full)?;
        let fits = |waiting: usize| (waiting == 0 || waiting + bytes <= self.bytes_max).then_some(waiting + bytes);
        let Err(_) = self.bytes.fetch_update(Relaxed, Relaxed, fits) else { return Ok(()) };
        self.requests.fetch_sub(1, Relaxed);
        Err(Full)
    }

    fn leave(&self, bytes: usize) {
        self.requests.fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }
}
