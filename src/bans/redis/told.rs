//! Bans of which other nodes have told, until the sessions here are ended.
//!
//! Who makes a ban asks the nodes it knows to end their sessions, and counts those. A node that has just joined may not be
//! known yet, and is told of the ban all the same: so every node looks by itself, once nobody waits for its count.
use super::super::{Ban, Shared, has_ended};
use jiff::Timestamp;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// How long whoever makes a ban waits for the count of sessions.
const COUNTED_WITHIN: Duration = Duration::from_secs(2);
/// Bans at one time.
const TOLD_MAX: usize = 4096;

/// In the order in which they came.
#[derive(Default)]
pub(super) struct ToldBans {
    waiting: Mutex<VecDeque<(Instant, Ban)>>,
    wake: Notify,
}

impl ToldBans {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<(Instant, Ban)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node has told of this one just now.
    pub(super) fn push(&self, ban: Ban) {
        let mut waiting = self.waiting();
        if waiting.len() < TOLD_MAX {
            waiting.push_back((Instant::now() + COUNTED_WITHIN, ban));
            self.wake.notify_one();
        } else {
            tracing::warn!("too many bans at once: only who makes them ends the sessions here");
        }
    }

    /// The next one whose time has come, if it holds still. Nothing is lost where this is given up.
    pub(super) async fn next(&self, shared: &Shared) -> Ban {
        loop {
            let first = self.waiting().front().map(|(due, _)| *due);
            let Some(due) = first else {
                self.wake.notified().await;
                continue;
            };
            sleep_until(due).await;
            let Some((_, ban)) = self.waiting().pop_front() else { continue };
            let held = shared.read().get(ban.place()).map(|held| held.until);
            if held.is_some_and(|until| !has_ended(until, Timestamp::now())) {
                return ban;
            }
        }
    }
}
