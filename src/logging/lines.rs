//! A writer that never blocks: lines go to a bounded queue, and a thread writes them.
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait.
const QUEUE_LINES: usize = 4096;
/// Bytes of one write, about.
const BATCH_BYTES: usize = 64 * 1024;
/// Longest wait of [`Lines::flush`].
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The queue's way in.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    queue: SyncSender<Entry>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// Answered when all before it is written.
    Flush(SyncSender<()>),
}

impl Lines {
    /// Starts the thread that writes to `sink`; it ends with the last of the clones.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub fn to(sink: impl Write + Send + 'static) -> io::Result<Lines> {
        let (queue, entries) = sync_channel(QUEUE_LINES);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        thread::Builder::new().name("log".into()).spawn(move || write_all(&entries, sink, &counted))?;
        Ok(Lines { queue, lost })
    }

    /// Waits until the lines so far are written, but not for long: the sink may be stuck.
    pub fn flush(&self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let (done, written) = sync_channel(1);
        let mut entry = Entry::Flush(done);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(entry) {
            if Instant::now() > deadline {
                return;
            }
            entry = back;
            #[expect(clippy::disallowed_methods, reason = "at the end of the process, on the main thread")]
            thread::sleep(Duration::from_millis(5));
        }
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn write_all(entries: &Receiver<Entry>, mut sink: impl Write, lost: &AtomicU64) {
    let mut batch = Vec::new();
    while let Ok(entry) = entries.recv() {
        let mut next = Some(entry);
        let mut flushed = None;
        while let Some(entry) = next {
            match entry {
                Entry::Line(line) => batch.extend_from_slice(&line),
                Entry::Flush(done) => flushed = Some(done),
            }
            let full = flushed.is_some() || batch.len() >= BATCH_BYTES;
            next = if full { None } else { entries.try_recv().ok() };
        }
        // There is nowhere to tell that the log cannot be written.
        let _ = sink.write_all(&batch).and_then(|()| sink.flush());
        batch.clear();
        let lines = lost.swap(0, Relaxed);
        if lines > 0 {
            tracing::warn!(lines, "log lines were lost: what reads them is too slow");
        }
        if let Some(done) = flushed {
            let _ = done.send(());
        }
    }
}

/// One call is one line: the formatter gives each event as a whole.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Entry::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> &'a Lines {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lock").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flush_waits_for_the_lines_before_it() {
        let sink = Written::default();
        let lines = Lines::to(sink.clone()).expect("thread");
        let mut expected = String::new();
        for i in 0..1000 {
            let line = format!("line {i}\n");
            (&lines).write_all(line.as_bytes()).expect("never fails");
            expected += &line;
        }
        lines.flush();
        assert_eq!(String::from_utf8_lossy(&sink.0.lock().expect("lock")), expected);
    }

    /// A sink whose writes wait until the test lets them go.
    struct Stuck(Receiver<()>, SyncSender<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.1.try_send(());
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_sink_loses_lines_and_holds_nobody_up() {
        let (go, going) = sync_channel(1);
        let (writing, at_write) = sync_channel(1);
        let lines = Lines::to(Stuck(going, writing)).expect("thread");
        (&lines).write_all(b"first\n").expect("never fails");
        at_write.recv().expect("the thread writes");
        for _ in 0..QUEUE_LINES + 10 {
            (&lines).write_all(b"x\n").expect("never fails");
        }
        assert_eq!(lines.lost.load(Relaxed), 10);
        drop(go);
        lines.flush();
        assert_eq!(lines.lost.load(Relaxed), 0);
    }
}
