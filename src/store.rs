//! What outlasts the process, on a single node: the bans, and the history of durable rooms.
//!
//! The database is one file, `FOLDER/wsgate.redb`, which one process at a time may use. A thread of its own, "store",
//! owns it: what others ask goes through a bounded queue and is refused at once where that is full, so nobody waits for
//! a disk who did not choose to.
//!
//! **When it is on the disk.** The thread takes all that waits, up to a bound, writes it as one transaction, and commits
//! that with one fdatasync; only then is any of it answered. So what was answered with success survives a kill -9 and,
//! where the disk keeps its word, a power cut. redb writes a commit in one phase: it never overwrites a page of the
//! last commit, every page is under a checksum that its parent holds, up to one of two slots in the header, and
//! whichever slot is older stays whole until the next commit is on the disk. A commit that was torn by a power cut
//! fails its checksums, and the one before it holds. (Two phases, and so two fdatasyncs, would help only against one
//! who chooses which pages reach the disk, and knows the file.) [`Store::open`] reads and checks the whole file every
//! time, also after a clean end, so a damaged one is known before anything of it is used; that takes up to some seconds
//! for each GB. redb rounds large records up to a power of two, so the file may be twice as large as what is in it.
//!
//! **A disk that fails.** A commit that fails is answered with failure, and so is everything until the disk works again,
//! which is tried at growing intervals of up to 30 s. Linux tells of a failed fsync once, and may then hold pages for
//! clean that are not on the disk; hence what was written since the last good sync is written again before the file is
//! opened anew. What of a failed commit is in the file nevertheless is taken back then. Where the process ends
//! between, a write that was answered with failure may yet be found.
//!
//! **Bounds.** [`ROOMS_MAX`] rooms, [`BANS_MAX`] bans; a room's records are bounded by what its appends say; the file has
//! no bound of its own. Of the queue's places some are kept for bans. A room whose last message is older than twice its
//! age and a day is deleted, at open and hourly, and so is a ban that has ended: in slices, between which requests are
//! served.
mod disk;
mod queue;
mod tables;
#[cfg(test)]
mod tests;
mod worker;

use bytes::Bytes;
use queue::{Queue, Request};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Most rooms in the store.
pub const ROOMS_MAX: u64 = 1_000_000;
/// Most bans in the store.
pub const BANS_MAX: u64 = 100_000;
/// Longest wait of [`Store::shutdown`].
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// The store: a handle, cheap to clone. The thread ends, and the file is closed cleanly, by [`Store::shutdown`], or some
/// time after the last handle and link is gone.
#[derive(Clone)]
pub struct Store {
    queue: Queue,
    ended: Ended,
}

/// One shard's way to the store. No call waits.
pub struct StoreLink {
    queue: Queue,
    replies: UnboundedSender<Reply>,
}

/// Where the answers to one [`StoreLink`] arrive: one for each call that was not refused, in the order of the calls.
pub struct Replies(UnboundedReceiver<Reply>);

/// A room, by names: an index of a namespace changes with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoomName {
    /// The namespace's name.
    pub namespace: Arc<str>,
    /// The room's name.
    pub room: Arc<str>,
}

/// A message of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the room's order, from 1.
    pub offset: u64,
    /// When it was sent: Unix time in ms.
    pub at_ms: i64,
    /// The client that sent it; `None`: a server.
    pub sender: Option<Arc<str>>,
    /// The sender's own name for it.
    pub message_id: Box<str>,
    /// What is sent: JSON.
    pub text: Bytes,
}

/// The next message of a room.
#[derive(Debug)]
pub struct Append {
    /// The room.
    pub room: RoomName,
    /// Names the count that the offset belongs to.
    pub epoch: Arc<str>,
    /// The message.
    pub record: Record,
    /// Records with smaller offsets are deleted in the same commit.
    pub keep_from: u64,
    /// The offset up to which the caller knows this epoch to be stored, by [`Reply::Appended`] or [`Reply::Loaded`]; 0:
    /// nothing of it. Where the store does not have the room in this epoch (it is new, or was deleted for its age), the
    /// message is taken only if it follows this one, so that a message never stands without one before it that failed.
    pub acknowledged: u64,
    /// How long the room's messages are kept.
    pub age: Duration,
}

/// What is stored of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Names the count.
    pub epoch: Arc<str>,
    /// The offset of the last message, kept or not.
    pub offset: u64,
    /// The messages that are kept: in order, without a gap, the last of them that with `offset`. May be none.
    pub records: Vec<Record>,
}

/// An answer.
#[derive(Debug)]
pub enum Reply {
    /// To [`StoreLink::load`].
    Loaded {
        /// As given.
        ticket: u64,
        /// As given.
        room: RoomName,
        /// What is stored; `None`: the room is not.
        found: Result<Option<Loaded>, StoreError>,
    },
    /// To [`StoreLink::append`]: the message is on the disk.
    Appended {
        /// As given.
        ticket: u64,
    },
    /// To [`StoreLink::forget`]: the room is gone from the disk.
    Forgotten {
        /// As given.
        ticket: u64,
    },
    /// To [`StoreLink::append`] or [`StoreLink::forget`]: it is not done. The message does not follow the last one that
    /// is stored, there are too many rooms, or the disk failed.
    Failed {
        /// As given.
        ticket: u64,
    },
}

/// A ban's place: its client in a room, or at the gateway where `room` is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BanKey {
    /// The namespace's name.
    pub namespace: Arc<str>,
    /// The client.
    pub client: Arc<str>,
    /// The room; empty: the gateway.
    pub room: Arc<str>,
}

/// What is stored of a ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanRow {
    /// When it was made: Unix time in µs.
    pub since_us: i64,
    /// When it ends; `None`: never.
    pub until_us: Option<i64>,
    /// Why.
    pub reason: Option<Box<str>>,
}

/// What came of a write about a ban. It is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BanWritten {
    /// The ban is stored.
    Put,
    /// The ban is deleted; `false`: there was none.
    Lifted(bool),
    /// There are [`BANS_MAX`] already; nothing was written.
    TooMany,
}

/// The queue takes no more now; or the store has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Why the store cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// Another process, or another store of this one, has the folder.
    InUse {
        /// The file.
        file: PathBuf,
    },
    /// The file is no store, or damaged beyond repair. It is left as it is.
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: Arc<str>,
    },
    /// The system said no.
    Failed {
        /// The file or folder.
        file: PathBuf,
        /// What it said.
        what: Arc<str>,
    },
    /// The store was shut down.
    Ended,
}

/// How a store was left by its last user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was closed, or is new.
    Cleanly,
    /// It was not: the last commit, if it was not answered, may have been cut off.
    Uncleanly,
}

impl Store {
    /// Opens the store in this folder, and makes both where they are missing: the folder with mode 0700, the file with
    /// 0600. Reads the whole file, and waits for the disk. An unclean end is logged.
    ///
    /// # Errors
    /// [`StoreError`] but `Ended`.
    pub fn open(folder: &Path) -> Result<Store, StoreError> {
        Store::open_with(folder, worker::Options::default())
    }

    fn open_with(folder: &Path, options: worker::Options) -> Result<Store, StoreError> {
        let (queue, inbox) = queue::queue();
        let ended = worker::start(folder, inbox, options)?;
        if ended == Ended::Uncleanly {
            tracing::warn!(
                file = %disk::file_in(folder).display(),
                "the store was not closed cleanly: it has been checked, and a commit that was cut short is cut off; all \
                 that was acknowledged is there"
            );
        }
        Ok(Store { queue, ended })
    }

    /// Whether this folder has a store.
    pub fn exists(folder: &Path) -> bool {
        // A file that cannot be looked at is to be reported by `open`.
        disk::file_in(folder).try_exists().unwrap_or(true)
    }

    /// How it was found.
    pub fn ended(&self) -> Ended {
        self.ended
    }

    /// The part of one shard: calls go out by the link, answers come in by the replies. The replies are unbounded, but
    /// no more than the calls.
    pub fn connect(&self) -> (StoreLink, Replies) {
        #[expect(clippy::disallowed_methods, reason = "one answer for each call, and those are bounded by the callers")]
        let (replies, answers) = unbounded_channel();
        (StoreLink { queue: self.queue.clone(), replies }, Replies(answers))
    }

    /// All bans. Waits for the disk.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn bans(&self) -> Result<Vec<(BanKey, BanRow)>, StoreError> {
        let (found, answer) = sync_channel(1);
        let done = Box::new(move |bans| {
            let _ = found.send(bans);
        });
        self.queue.push(Request::Bans { done }).map_err(|_| StoreError::Ended)?;
        answer.recv().unwrap_or(Err(StoreError::Ended))
    }

    /// Stores a ban, in place of an older one. `done` runs on the store's thread when it is on the disk, or is dropped
    /// where the store ends before; for all bans in the order of the calls.
    ///
    /// # Errors
    /// The queue is full; `done` is dropped.
    pub fn put_ban(
        &self,
        key: BanKey,
        row: BanRow,
        done: impl FnOnce(Result<BanWritten, StoreError>) + Send + 'static,
    ) -> Result<(), Full> {
        self.queue.offer(Request::PutBan { key, row, done: Box::new(done) })
    }

    /// Deletes a ban; with `ended_by` (Unix time in µs) only one whose end is not later. `done` as for
    /// [`Store::put_ban`].
    ///
    /// # Errors
    /// The queue is full; `done` is dropped.
    pub fn lift_ban(
        &self,
        key: BanKey,
        ended_by: Option<i64>,
        done: impl FnOnce(Result<BanWritten, StoreError>) + Send + 'static,
    ) -> Result<(), Full> {
        self.queue.offer(Request::LiftBan { key, ended_by, done: Box::new(done) })
    }

    /// Does what was asked before, and closes the file. Waits for that, up to 5 s; calls afterwards are refused.
    pub fn shutdown(&self) {
        let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
        let (closed, answer) = sync_channel(1);
        while self.queue.offer(Request::Close(closed.clone())).is_err() {
            if self.queue.has_ended() {
                return;
            }
            if Instant::now() > deadline {
                break;
            }
            #[expect(clippy::disallowed_methods, reason = "at the end of the process, on the main thread")]
            thread::sleep(Duration::from_millis(5));
        }
        drop(closed);
        if answer.recv_timeout(deadline.saturating_duration_since(Instant::now())) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the store could not be closed in time");
        }
    }
}

impl StoreLink {
    /// Asks what is stored of a room. Answered by [`Reply::Loaded`].
    ///
    /// # Errors
    /// The queue is full.
    pub fn load(&self, ticket: u64, room: RoomName) -> Result<(), Full> {
        self.queue.offer(Request::Load { ticket, room, to: self.replies.clone() })
    }

    /// Stores the next message of a room. Answered by [`Reply::Appended`] or [`Reply::Failed`].
    ///
    /// Within an epoch offsets rise by one, and a message out of this order fails without harm: so do those that were
    /// asked for after one that failed. A message of another epoch than the stored one starts the room anew.
    ///
    /// # Errors
    /// The queue is full.
    pub fn append(&self, ticket: u64, append: Append) -> Result<(), Full> {
        self.queue.offer(Request::Append { ticket, append: Box::new(append), to: self.replies.clone() })
    }

    /// Deletes a room and its history. Answered by [`Reply::Forgotten`], also where there was none, or
    /// [`Reply::Failed`].
    ///
    /// # Errors
    /// The queue is full.
    pub fn forget(&self, ticket: u64, room: RoomName) -> Result<(), Full> {
        self.queue.offer(Request::Forget { ticket, room, to: self.replies.clone() })
    }
}

impl Replies {
    /// The next answer. Pending for ever once the store and the link are gone.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        match ready!(self.0.poll_recv(cx)) {
            Some(reply) => Poll::Ready(reply),
            None => Poll::Pending,
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the store has too much to do, or has ended")
    }
}

impl std::error::Error for Full {}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::InUse { file } => write!(f, "the store {} is in use by another process", file.display()),
            StoreError::Damaged { file, what } => write!(
                f,
                "the store {} is damaged or not a store: {what}. It is left as it is; restore it from a backup, or move it \
                 away to start without bans and history",
                file.display()
            ),
            StoreError::Failed { file, what } => write!(f, "the store {}: {what}", file.display()),
            StoreError::Ended => f.write_str("the store was shut down"),
        }
    }
}

impl std::error::Error for StoreError {}
