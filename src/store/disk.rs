//! The folder, the file, and what redb writes to it.
use super::{StoreError, tables};
use redb::backends::FileBackend;
use redb::{BackendError, Database, DatabaseError, StorageBackend, StorageError};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// redb's memory for pages.
const CACHE_BYTES: usize = 16 << 20;

/// What was written and not yet synced: where, and how many bytes.
type Unsynced = Arc<Mutex<BTreeMap<u64, usize>>>;

/// The file of a folder's store.
pub(super) fn file_in(folder: &Path) -> PathBuf {
    folder.join("wsgate.redb")
}

/// The folder of the store, locked: this process' alone as long as this lives.
pub(super) struct Folder {
    file: PathBuf,
    handle: File,
    pub unsynced: Unsynced,
    faults: Faults,
}

impl Folder {
    /// Takes the folder, and makes it where it is missing.
    pub fn take(folder: &Path, faults: Faults) -> Result<Folder, StoreError> {
        let failed = |e: &io::Error| StoreError::Failed { file: folder.to_owned(), what: e.to_string().into() };
        if !folder.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| failed(&e))?;
            if let Some(parent) = folder.parent().filter(|p| !p.as_os_str().is_empty()) {
                File::open(parent).and_then(|p| p.sync_all()).map_err(|e| failed(&e))?;
            }
        }
        let handle = File::open(folder).map_err(|e| failed(&e))?;
        let file = file_in(folder);
        match handle.try_lock() {
            Ok(()) => Ok(Folder { file, handle, unsynced: Unsynced::default(), faults }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { file }),
            Err(TryLockError::Error(e)) => Err(failed(&e)),
        }
    }

    /// Opens the database, all of it checked, or makes a new one where there is no file.
    pub fn open(&self) -> Result<Database, StoreError> {
        match self.file.try_exists() {
            Ok(true) => {}
            Ok(false) => self.make()?,
            Err(e) => return Err(self.failed(&e)),
        }
        self.rewrite_unsynced().map_err(|e| self.failed(&e))?;
        self.database(&self.file)
    }

    /// Makes a new file under another name first, so that one that is empty or half made is never taken for a store.
    fn make(&self) -> Result<(), StoreError> {
        let unfinished = self.file.with_extension("redb.new");
        let io = |e: io::Error| self.failed(&e);
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished).map_err(io)?;
        let database = self.database(&unfinished)?;
        let made = tables::begin(&database).and_then(|_| tables::end(&database));
        made.map_err(|e| self.failed(&e))?;
        database.close().map_err(|e| self.failed(&e))?;
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).clear();
        std::fs::rename(&unfinished, &self.file).and_then(|()| self.handle.sync_all()).map_err(io)
    }

    fn database(&self, path: &Path) -> Result<Database, StoreError> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|e| self.failed(&e))?;
        let is_new = file.metadata().is_ok_and(|m| m.len() == 0) && path != self.file;
        if !is_new && file.metadata().is_ok_and(|m| m.len() == 0) {
            return Err(self.damaged(&"it is empty"));
        }
        let file = FileBackend::new(file).map_err(|e| self.judged(e))?;
        let disk = Disk { file, unsynced: Arc::clone(&self.unsynced), faults: self.faults.clone() };
        // redb asserts what it believes of a file; this one may be anything.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            Database::builder().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create_with_backend(disk)
        }));
        match opened {
            Ok(opened) => opened.map_err(|e| self.judged(e)),
            Err(_) => Err(self.damaged(&"reading it went wrong")),
        }
    }

    /// Writes again what the last sync did not bring to the disk: after a failed one the kernel may hold it for written.
    fn rewrite_unsynced(&self) -> io::Result<()> {
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        if unsynced.is_empty() {
            return Ok(());
        }
        let file = OpenOptions::new().read(true).write(true).open(&self.file)?;
        let end = file.metadata()?.len();
        let mut page = Vec::new();
        for (&at, &bytes) in unsynced.iter().filter(|&(&at, _)| at < end) {
            page.resize(bytes.min(usize::try_from(end - at).unwrap_or(usize::MAX)), 0);
            file.read_exact_at(&mut page, at)?;
            self.faults.on_write()?;
            file.write_all_at(&page, at)?;
        }
        self.faults.on_sync()?;
        file.sync_all()?;
        unsynced.clear();
        Ok(())
    }

    fn judged(&self, error: DatabaseError) -> StoreError {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                StoreError::InUse { file: self.file.clone() }
            }
            DatabaseError::Storage(StorageError::Io(e))
                if !matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                self.failed(&e)
            }
            other => self.damaged(&other),
        }
    }

    /// What a transaction said at the beginning of a file.
    pub fn judged_content(&self, error: &redb::Error) -> StoreError {
        match error {
            redb::Error::Io(e) => self.failed(e),
            redb::Error::PreviousIo => self.failed(error),
            other => self.damaged(other),
        }
    }

    pub fn failed(&self, what: &dyn std::fmt::Display) -> StoreError {
        StoreError::Failed { file: self.file.clone(), what: what.to_string().into() }
    }

    pub fn damaged(&self, what: &dyn std::fmt::Display) -> StoreError {
        StoreError::Damaged { file: self.file.clone(), what: what.to_string().into() }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Closing does not do where a process that is just being started has a copy of the handle.
        let _ = self.handle.unlock();
    }
}

/// The file as redb sees it.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    unsynced: Unsynced,
    faults: Faults,
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        // A power cut may leave the header of a commit that made the file grow, and not its new length. redb falls back
        // to the commit before where a page fails its checksum, but gives up where it cannot be read: so what is behind
        // the end reads as zeros.
        let there = self.file.len()?.saturating_sub(offset).try_into().unwrap_or(usize::MAX).min(out.len());
        let (there, behind) = out.split_at_mut(there);
        behind.fill(0);
        self.file.read(offset, there)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.on_write()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.on_sync()?;
        self.file.sync_data()?;
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faults.on_write()?;
        {
            let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes = unsynced.entry(offset).or_default();
            *bytes = data.len().max(*bytes);
        }
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

/// What a test makes the disk do.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    #[cfg(test)]
    pub now: Arc<Mutex<Fault>>,
    /// Syncs that were asked for.
    #[cfg(test)]
    pub syncs: Arc<std::sync::atomic::AtomicUsize>,
}

/// A fault of the disk.
#[cfg(test)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    None,
    /// No write is done.
    Full,
    /// Writes arrive, and a sync says that they have not.
    Sync,
}

impl Faults {
    #[cfg(test)]
    fn check(&self, fault: Fault) -> io::Result<()> {
        let fails = *self.now.lock().unwrap_or_else(PoisonError::into_inner) == fault;
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    #[cfg(test)]
    fn on_write(&self) -> io::Result<()> {
        self.check(Fault::Full)
    }

    #[cfg(test)]
    fn on_sync(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.check(Fault::Sync)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the disk has faults of its own")]
    fn on_write(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the disk has faults of its own")]
    fn on_sync(&self) -> io::Result<()> {
        Ok(())
    }
}
