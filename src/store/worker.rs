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
    /// `None` after a failure, until the file is opened again: redb does nothing more with one that failed.
    database: Option<Database>,
    /// From a failure to the next commit.
    failing: Option<Failing>,
    /// What a failed transaction may have left in the file.
    undo: Undo,
    purge: Purge,
    options: Options,
}

struct Failing {
    why: StoreError,
    retry_at: Instant,
    pause: Duration,
    /// Requests that were answered with failure.
    refused: usize,
}

enum Purge {
    /// From here on.
    Running(Cursor),
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
    let (database, purge) = (Some(database), Purge::Running(Cursor::Rooms(None)));
    let _ = hand_over.send(Worker { inbox, folder, database, failing: None, undo: Undo::default(), purge, options });
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
                    for request in taken.into_iter().chain(left.by_ref()) {
                        request.answer(Err(why.clone()));
                        if let Some(failing) = &mut self.failing {
                            failing.refused += 1;
                        }
                    }
                }
            }
        }
    }

    /// Does something in a transaction, if the file can be used.
    fn attempt<T>(&mut self, work: impl FnOnce(&mut Tables<'_>) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        if let Some(failing) = &self.failing
            && Instant::now() < failing.retry_at
        {
            return Err(failing.why.clone());
        }
        let done = self.mended().and_then(|(folder, database)| {
            // redb may panic on a page that has changed on the disk since the file was opened.
            match catch_unwind(AssertUnwindSafe(|| transact(database, work))) {
                Ok(done) => done.map_err(|e| folder.failed(&e)),
                Err(_) => Err(folder.failed(&"reading it went wrong")),
            }
        });
        match done {
            // Reading may work where writing does not.
            Ok((done, committed)) => {
                if let Some(failing) = self.failing.take_if(|_| committed) {
                    tracing::warn!(refused = failing.refused, "the store works again");
                }
                Ok(done)
            }
            Err(why) => {
                self.fails(why.clone());
                Err(why)
            }
        }
    }

    /// Lets go of the file, until a pause is over.
    fn fails(&mut self, why: StoreError) {
        let database = self.database.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
        let (pause, refused) = match &self.failing {
            Some(failing) => ((failing.pause * 2).min(RETRY_MAX), failing.refused),
            None => {
                tracing::error!("{why}: until it works again, what is asked of the store is refused");
                (self.options.retry, 0)
            }
        };
        self.failing = Some(Failing { why, retry_at: Instant::now() + pause, pause, refused });
    }

    /// The file: opened again after a failure, and what failed taken back.
    fn mended(&mut self) -> Result<(&Folder, &Database), StoreError> {
        let folder = &self.folder;
        let database = match self.database.take() {
            Some(database) => database,
            None => {
                let database = folder.open()?;
                let taken_back = catch_unwind(AssertUnwindSafe(|| {
                    tables::begin(&database)?;
                    transact(&database, |tables| tables.take_back(&self.undo))
                }));
                match taken_back {
                    Ok(taken_back) => taken_back.map_err(|e| folder.failed(&e))?,
                    Err(_) => return Err(folder.damaged(&"reading it went wrong")),
                };
                self.undo = Undo::default();
                database
            }
        };
        Ok((folder, self.database.insert(database)))
    }

    /// A slice of a purge, where one is due. A failure puts it off.
    fn purge_some(&mut self) {
        let from = match &self.purge {
            Purge::At(time) if Instant::now() < *time => return,
            Purge::At(_) => Cursor::Rooms(None),
            Purge::Running(from) => from.clone(),
        };
        let now_ms = (self.options.now_ms)();
        let reached =
            if self.failing.is_some() { Ok(None) } else { self.attempt(|tables| tables.purge(&from, now_ms)) };
        self.purge = match reached {
            Ok(Some(reached)) => Purge::Running(reached),
            Ok(None) | Err(_) => Purge::At(Instant::now() + PURGE_EVERY),
        };
    }

    fn close(&mut self) {
        // A failed commit may be in the file, and would be taken for stored by the next user.
        let mended = self.mended().map(|_| ());
        let Some(database) = self.database.take().filter(|_| mended.is_ok()) else {
            return tracing::warn!("the store could not be closed cleanly");
        };
        let closed = catch_unwind(AssertUnwindSafe(|| {
            tables::end(&database)?;
            database.close().map_err(redb::Error::from)
        }));
        if !matches!(closed, Ok(Ok(()))) {
            tracing::warn!("the store could not be closed cleanly");
        }
    }
}
