//! The way to the store's thread: bounded by requests and by bytes.
use super::{Append, BanKey, BanRow, BanWritten, Full, Loaded, Reply, RoomName, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// Requests that may wait.
pub(super) const REQUESTS_MAX: usize = 8192;
/// Bytes of the requests that may wait. One that is larger is taken where no other waits.
pub(super) const BYTES_MAX: usize = 64 << 20;

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
    bytes: Arc<AtomicUsize>,
    has_ended: Arc<AtomicBool>,
}

/// The way out.
pub(super) struct Inbox {
    receiver: Receiver<Request>,
    bytes: Arc<AtomicUsize>,
    has_ended: Arc<AtomicBool>,
}

pub(super) fn queue() -> (Queue, Inbox) {
    let (sender, receiver) = sync_channel(REQUESTS_MAX);
    let (bytes, has_ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let queue = Queue { sender, bytes: Arc::clone(&bytes), has_ended: Arc::clone(&has_ended) };
    (queue, Inbox { receiver, bytes, has_ended })
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.has_ended.store(true, Relaxed);
    }
}

impl Queue {
    /// Takes a request, or refuses it at once.
    pub fn offer(&self, request: Request) -> Result<(), Full> {
        let bytes = request.bytes();
        let fits = |waiting: usize| (waiting == 0 || waiting + bytes <= BYTES_MAX).then_some(waiting + bytes);
        self.bytes.fetch_update(Relaxed, Relaxed, fits).map_err(|_| Full)?;
        self.sender.try_send(request).map_err(|_| {
            self.bytes.fetch_sub(bytes, Relaxed);
            Full
        })
    }

    /// Whether the thread is gone.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Relaxed)
    }

    /// Takes a request when there is a place for it.
    pub fn push(&self, request: Request) -> Result<(), Full> {
        self.bytes.fetch_add(request.bytes(), Relaxed);
        self.sender.send(request).map_err(|_| Full)
    }
}

impl Inbox {
    fn taken(&self, request: Request) -> Request {
        self.bytes.fetch_sub(request.bytes(), Relaxed);
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
