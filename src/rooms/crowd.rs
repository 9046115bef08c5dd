//! Presence in a crowded room: who comes and goes is counted and pushed at most once a second, so that
//! joining does not cost the square of the members.
use super::mail::RoomKey;
use super::protocol::Status;
use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// Clients of a room from which on presence is counted.
pub const CROWD: usize = 1000;
const PUSH_EVERY: Duration = Duration::from_secs(1);

/// What has happened in crowded rooms since they were last told.
#[derive(Default)]
pub struct Crowds {
    rooms: HashMap<RoomKey, Changes>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Clients that came and went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Came.
    pub joined: u32,
    /// Went.
    pub left: u32,
}

impl Crowds {
    /// A client came or went.
    pub fn note(&mut self, room: &RoomKey, status: &Status) {
        let changes = self.rooms.entry(room.clone()).or_default();
        match status {
            Status::Offline => changes.left += 1,
            _ => changes.joined += 1,
        }
    }

    /// The rooms that are to be told now, with what has happened there.
    pub fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<HashMap<RoomKey, Changes>> {
        if self.rooms.is_empty() {
            return Poll::Pending;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + PUSH_EVERY)));
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.timer = None;
        Poll::Ready(std::mem::take(&mut self.rooms))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Namespace;
    use std::future::poll_fn;

    #[tokio::test(start_paused = true)]
    async fn a_room_is_told_once_a_second_of_all_that_happened() {
        let room = RoomKey { namespace: Namespace { index: 0 }, name: "r".into() };
        let mut crowds = Crowds::default();
        let started = Instant::now();
        for _ in 0..5 {
            crowds.note(&room, &Status::Online);
        }
        crowds.note(&room, &Status::Offline);
        let due = poll_fn(|cx| crowds.poll_due(cx)).await;
        assert_eq!(started.elapsed().as_secs(), 1);
        assert_eq!(due.get(&room), Some(&Changes { joined: 5, left: 1 }));
        crowds.note(&room, &Status::Offline);
        let due = poll_fn(|cx| crowds.poll_due(cx)).await;
        assert_eq!(started.elapsed().as_secs(), 2);
        assert_eq!(due.get(&room), Some(&Changes { joined: 0, left: 1 }));
    }
}
