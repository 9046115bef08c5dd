//! What a backend says to a request before its answer (RFC 9110, section 15.2), as 103; 100 is not among it.
use hyper::Response;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// How many are passed on: nothing holds them back where the client takes none.
const HINTS_MAX: usize = 8;

/// On its way from a backend's connection to a client's. Both are of one thread, but hyper wants it to be `Send`.
#[derive(Debug, Clone, Default)]
pub struct Hints(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    hints: Vec<Response<()>>,
    /// How many there were in all.
    count: usize,
}

impl Hints {
    /// One more; those beyond [`HINTS_MAX`] are dropped.
    pub(super) fn tell(&self, hint: Response<()>) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.count < HINTS_MAX {
            waiting.count += 1;
            waiting.hints.push(hint);
            self.0.more.notify_one();
        }
    }

    /// Those that wait, at least one.
    pub async fn next(&self) -> Vec<Response<()>> {
        loop {
            let hints = std::mem::take(&mut self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).hints);
            if !hints.is_empty() {
                return hints;
            }
            self.0.more.notified().await;
        }
    }
}
