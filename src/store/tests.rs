#![allow(missing_docs)]
mod ends;
mod faults;
mod rules;

use super::disk::{Fault, Faults};
use super::worker::Options;
use super::*;
use std::future::poll_fn;
use std::sync::mpsc::{Receiver, SyncSender};

/// A folder that is removed with what is in it.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        Scratch(std::env::temp_dir().join(format!("wsgate-store-{}", uuid::Uuid::new_v4())))
    }

    fn file(&self) -> PathBuf {
        disk::file_in(&self.0)
    }

    /// A folder of its own with this as the file.
    fn with(content: &[u8]) -> Scratch {
        let scratch = Scratch::new();
        std::fs::create_dir(&scratch.0).expect("folder");
        std::fs::write(scratch.file(), content).expect("file");
        scratch
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A store, with what a test needs to use it.
struct Bench {
    store: Store,
    link: StoreLink,
    replies: Replies,
    faults: Faults,
}

impl Bench {
    fn open(folder: &Path) -> Bench {
        Bench::open_at(folder, || 0)
    }

    fn open_at(folder: &Path, now_ms: fn() -> i64) -> Bench {
        Bench::try_open(folder, now_ms).expect("opens")
    }

    fn try_open(folder: &Path, now_ms: fn() -> i64) -> Result<Bench, StoreError> {
        let faults = Faults::default();
        let options = Options { now_ms, retry: Duration::ZERO, faults: faults.clone() };
        let store = Store::open_with(folder, options)?;
        let (link, replies) = store.connect();
        Ok(Bench { store, link, replies, faults })
    }

    fn next(&mut self) -> Reply {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(poll_fn(|cx| self.replies.poll_next(cx)))
    }

    fn append(&mut self, append: Append) -> bool {
        self.link.append(7, append).expect("queued");
        match self.next() {
            Reply::Appended { ticket: 7 } => true,
            Reply::Failed { ticket: 7 } => false,
            other => panic!("{other:?}"),
        }
    }

    fn try_load(&mut self, name: &str) -> Result<Option<Loaded>, StoreError> {
        self.link.load(9, room(name)).expect("queued");
        match self.next() {
            Reply::Loaded { ticket: 9, room: named, found } if named == room(name) => found,
            other => panic!("{other:?}"),
        }
    }

    fn load(&mut self, name: &str) -> Option<Loaded> {
        self.try_load(name).expect("loads")
    }

    fn forget(&mut self, name: &str) -> bool {
        self.link.forget(3, room(name)).expect("queued");
        match self.next() {
            Reply::Forgotten { ticket: 3 } => true,
            Reply::Failed { ticket: 3 } => false,
            other => panic!("{other:?}"),
        }
    }

    fn put_ban(&self, client: &str, row: BanRow) -> Result<BanWritten, StoreError> {
        let (told, answer) = sync_channel(1);
        self.store.put_ban(ban(client), row, move |w| told.send(w).expect("asked")).expect("queued");
        answer.recv().expect("answered")
    }

    fn lift_ban(&self, client: &str, ended_by: Option<i64>) -> Result<BanWritten, StoreError> {
        let (told, answer) = sync_channel(1);
        self.store.lift_ban(ban(client), ended_by, move |w| told.send(w).expect("asked")).expect("queued");
        answer.recv().expect("answered")
    }

    /// Holds up the store's thread until the answer is dropped.
    fn hold_up(&self) -> SyncSender<()> {
        let (go, going): (SyncSender<()>, Receiver<()>) = sync_channel(0);
        let (held, is_held) = sync_channel(1);
        let hold = move |_| {
            held.send(()).expect("waited for");
            let _ = going.recv();
        };
        self.store.lift_ban(ban("nobody"), None, hold).expect("queued");
        is_held.recv().expect("runs");
        go
    }

    fn fail(&self, fault: Fault) {
        *self.faults.now.lock().expect("lock") = fault;
    }

    fn close(self) {
        self.store.shutdown();
    }
}

fn room(name: &str) -> RoomName {
    RoomName { namespace: "n".into(), room: name.into() }
}

fn ban(client: &str) -> BanKey {
    BanKey { namespace: "n".into(), client: client.into(), room: "".into() }
}

fn forever(reason: &str) -> BanRow {
    BanRow { since_us: 5, until_us: None, reason: Some(reason.into()) }
}

fn record(offset: u64) -> Record {
    Record {
        offset,
        at_ms: 1_000 + offset as i64,
        sender: offset.is_multiple_of(2).then(|| "ann".into()),
        message_id: format!("m{offset}").into(),
        text: format!("{{\"text\":{offset}}}").into(),
    }
}

/// The message with this offset, of one who knows that all before it are stored.
fn message(name: &str, epoch: &str, offset: u64) -> Append {
    Append {
        room: room(name),
        epoch: epoch.into(),
        record: record(offset),
        keep_from: 0,
        acknowledged: offset.saturating_sub(1),
        age: Duration::from_secs(60),
    }
}

fn stored(epoch: &str, kept: std::ops::RangeInclusive<u64>) -> Option<Loaded> {
    Some(Loaded { epoch: epoch.into(), offset: *kept.end(), records: kept.map(record).collect() })
}
