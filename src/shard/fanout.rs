//! The fan-out loop: writes what was queued for many peers, directly and without waking a task for
//! each. New frames may be queued between its slices; they go out with the same write.
use super::Handle;
use crate::outbox::Flush;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How long the loop holds the thread, but for tests that must not depend on the clock.
const SLICE: Duration = Duration::from_millis(1);
/// Writes between two looks at the clock.
const WRITES_PER_LOOK: usize = 32;

pub(super) struct Fanout {
    slice: Cell<Duration>,
    marked: RefCell<VecDeque<Rc<Handle>>>,
    waker: RefCell<Option<Waker>>,
}

impl Default for Fanout {
    fn default() -> Fanout {
        Fanout { slice: Cell::new(SLICE), marked: RefCell::default(), waker: RefCell::default() }
    }
}

impl Fanout {
    /// Lets it hold the thread as long as there is something to write.
    #[cfg(test)]
    pub(super) fn unsliced(&self) {
        self.slice.set(Duration::MAX);
    }

    pub(super) fn mark(&self, handle: Rc<Handle>) {
        self.marked.borrow_mut().push_back(handle);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// One slice; `flushed` learns of every session whose queue was flushed.
    pub(super) fn slice(&self, cx: &mut Context<'_>, flushed: impl Fn(&Handle)) -> Poll<()> {
        let started = Instant::now();
        let mut writes = 0;
        loop {
            let Some(handle) = self.marked.borrow_mut().pop_front() else {
                *self.waker.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            };
            handle.marked.set(false);
            // A blocked or failed peer has woken its session, which goes on from there.
            let _: Flush = handle.peer.borrow_mut().flush();
            flushed(&handle);
            writes += 1;
            if writes % WRITES_PER_LOOK == 0 && started.elapsed() > self.slice.get() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}
