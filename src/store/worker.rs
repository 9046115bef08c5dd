//! The store's thread.
use super::disk::{Faults, Folder};
use super::queue::{Inbox, Outcome, Request};
use super::tables::{self, Cursor, Tables, Undo, transact};
use super::{Ended, StoreError};
use redb::Database;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Requests, and about how many bytes of them and of what they load, in one transaction.
const BATCH_REQUESTS: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;
/// From one purge to the next.
const PURGE_EVERY: Duration = Duration::from_secs(3600);
/// Longest pause before the file is tried again.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What tests set otherwise.
pub(super) struct Options {
    /// Unix time in ms.
    pub now_ms: fn() -> i64,
    /// First pause before the file is tried again; the next ones are twice as long.
    pub retry: Duration,
    pub faults: Faults,
}

impl Default for Options {
    fn default() -> Options {
        let now_ms = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as i64);
        Options { now_ms, retry: Duration::from_secs(1), faults: Faults::default() }
    }
}

struct Worker {
    inbox: Inbox,
    folder: Folder,
    state: State,
    /// Of the last transaction.
    undo: Undo,
    purge: Purge,
    options: Options,
}

enum State {
    Open(Database),
    Broken {
        why: StoreError,
        retry_at: Instant,
        pause: Duration,
        /// Requests that were answered with failure.
        refused: u64,
    },
}

enum Purge {
    /// From the beginning, or after this room.
    Running(Option<Cursor>),
    At(Instant),
}

/// Opens the file, and starts the thread. How the file was found.
pub(super) fn start(folder: &Path, inbox: Inbox, options: Options) -> Result<Ended, StoreError> {
    let folder = Folder::take(folder, options.faults.clone())?;
    let database = folder.open()?;
    let ended = catch_unwind(AssertUnwindSafe(|| tables::begin(&database)));
    let ended = match ended {
        Ok(ended) => ended.map_err(|e| folder.judged_content(&e))?,
        Err(_) => return Err(folder.damaged(&"reading it went wrong")),
    };
    let no_thread = |e: &std::io::Error| folder.failed(&format!("no thread: {e}"));
    let builder = thread::Builder::new().name("store".into());
    let (hand_over, worker) = std::sync::mpsc::sync_channel::<Worker>(1);
    let whole_life = move || {
        let close = worker.recv().ok().and_then(Worker::run);
        // By now the folder is free.
        if let Some(close) = close {
            close.answer(Ok(Outcome::Done(true)));
        }
    };
    builder.spawn(whole_life).map_err(|e| no_thread(&e))?;
    let purge = Purge::Running(None);
    let state = State::Open(database);
    let _ = hand_over.send(Worker { inbox, folder, state, undo: Undo::default(), purge, options });
    Ok(ended)
}

impl Worker {
    /// Until it is asked to close, which is then to be answered, or all who might ask are gone.
    fn run(mut self) -> Option<Request> {
        let mut close = None;
        while close.is_none() {
            self.purge_some();
            let Some(first) = self.next() else { break };
            let mut batch = Vec::new();
            let mut bytes = 0;
            let mut next = first;
            while let Some(request) = next {
                if let Request::Close(_) = request {
                    close = Some(request);
                    break;
                }
                bytes += request.bytes();
                batch.push(request);
                let full = batch.len() == BATCH_REQUESTS || bytes >= BATCH_BYTES;
                next = if full { None } else { self.inbox.next_now().ok() };
            }
            if !batch.is_empty() {
                self.serve(batch);
            }
        }
        self.close();
        close
    }

    /// The next request, if one comes before the next purge; nothing: all who might ask are gone.
    #[expect(clippy::option_option, reason = "none to come, none now, or one")]
    fn next(&self) -> Option<Option<Request>> {
        match self.purge {
            Purge::Running(_) => match self.inbox.next_now() {
                Ok(request) => Some(Some(request)),
                Err(TryRecvError::Empty) => Some(None),
                Err(TryRecvError::Disconnected) => None,
            },
            Purge::At(time) => match self.inbox.next_within(time.saturating_duration_since(Instant::now())) {
                Ok(request) => Some(Some(request)),
                Err(RecvTimeoutError::Timeout) => Some(None),
                Err(RecvTimeoutError::Disconnected) => None,
            },
        }
    }

    /// One transaction for all, and then the answers.
    fn serve(&mut self, batch: Vec<Request>) {
        let mut left = batch.into_iter().peekable();
        while left.peek().is_some() {
            let mut undo = Undo::default();
            let mut taken = Vec::new();
            let outcomes = self.attempt(|tables| {
                let mut outcomes = Vec::new();
                let mut bytes = 0;
                // What is loaded is held until the commit.
                while bytes < BATCH_BYTES {
                    let Some(request) = left.next() else { break };
                    let outcome = tables.apply(&request, &mut undo);
                    taken.push(request);
                    let outcome = outcome?;
                    bytes += outcome.bytes();
                    outcomes.push(outcome);
                }
                Ok(outcomes)
            });
            match outcomes {
                Ok(outcomes) => {
                    for (request, outcome) in taken.into_iter().zip(outcomes) {
                        request.answer(Ok(outcome));
                    }
                }
                Err(why) => {
                    self.undo.merge(undo);
                    let mut refused = 0;
                    for request in taken.into_iter().chain(left.by_ref()) {
                        request.answer(Err(why.clone()));
                        refused += 1;
                    }
                    if let State::Broken { refused: all, .. } = &mut self.state {
                        *all += refused;
                    }
                }
            }
        }
    }

    /// Does something in a transaction, if the file can be used.
    fn attempt<T>(&mut self, work: impl FnOnce(&mut Tables<'_>) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        self.mend()?;
        let State::Open(database) = &self.state else { return Err(StoreError::Ended) };
        // redb may panic on a page that has changed on the disk since the file was opened.
        let done = catch_unwind(AssertUnwindSafe(|| transact(database, work)));
        let why = match done {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => self.folder.failed(&error),
            Err(_) => self.folder.failed(&"reading it went wrong"),
        };
        tracing::error!("{why}: until it works again, what is asked of the store is refused");
        self.broken(why.clone(), self.options.retry);
        Err(why)
    }

    /// Lets go of the file until the pause is over: redb does nothing more with one that failed.
    fn broken(&mut self, why: StoreError, pause: Duration) {
        let refused = if let State::Broken { refused, .. } = self.state { refused } else { 0 };
        let broken = State::Broken { why, retry_at: Instant::now() + pause, pause, refused };
        let before = std::mem::replace(&mut self.state, broken);
        let _ = catch_unwind(AssertUnwindSafe(|| drop(before)));
    }

    /// Opens the file again after a failure, where it is time for that, and takes back what failed.
    fn mend(&mut self) -> Result<(), StoreError> {
        let (pause, refused) = match &self.state {
            State::Open(_) => return Ok(()),
            State::Broken { why, retry_at, .. } if Instant::now() < *retry_at => return Err(why.clone()),
            State::Broken { pause, refused, .. } => (*pause, *refused),
        };
        let opened = self.folder.open().and_then(|database| {
            let (folder, undo) = (&self.folder, &self.undo);
            let taken_back = catch_unwind(AssertUnwindSafe(|| {
                tables::begin(&database)?;
                transact(&database, |tables| tables.take_back(undo))
            }));
            match taken_back {
                Ok(Ok(())) => Ok(database),
                Ok(Err(error)) => Err(folder.failed(&error)),
                Err(_) => Err(folder.damaged(&"reading it went wrong")),
            }
        });
        match opened {
            Ok(database) => {
                self.undo = Undo::default();
                self.state = State::Open(database);
                tracing::warn!(refused, "the store works again");
                Ok(())
            }
            Err(why) => {
                self.broken(why.clone(), (pause * 2).min(RETRY_MAX.max(self.options.retry)));
                Err(why)
            }
        }
    }

    /// A slice of a purge, where one is due. A failure puts it off.
    fn purge_some(&mut self) {
        let after = match &mut self.purge {
            Purge::At(time) if Instant::now() < *time => return,
            Purge::At(_) => None,
            Purge::Running(after) => after.take(),
        };
        let now_ms = (self.options.now_ms)();
        let reached = match self.state {
            State::Open(_) => self.attempt(|tables| tables.purge(after.as_ref(), now_ms)),
            State::Broken { .. } => Ok(None),
        };
        self.purge = match reached {
            Ok(Some(reached)) => Purge::Running(Some(reached)),
            Ok(None) | Err(_) => Purge::At(Instant::now() + PURGE_EVERY),
        };
    }

    fn close(&mut self) {
        // A failed commit may be in the file, and would be taken for stored by the next user.
        let _ = self.mend();
        let broken = State::Broken {
            why: StoreError::Ended,
            retry_at: Instant::now() + PURGE_EVERY,
            pause: PURGE_EVERY,
            refused: 0,
        };
        let State::Open(database) = std::mem::replace(&mut self.state, broken) else { return };
        let closed = catch_unwind(AssertUnwindSafe(|| {
            tables::end(&database)?;
            database.close().map_err(redb::Error::from)
        }));
        if !matches!(closed, Ok(Ok(()))) {
            tracing::warn!("the store could not be closed cleanly");
        }
    }
}
