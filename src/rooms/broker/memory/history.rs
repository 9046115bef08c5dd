//! The last messages of a room, within the bounds of its rules.
use crate::config;
use crate::rooms::broker::{Batch, Message};
use std::collections::VecDeque;
use tokio::time::Instant;

/// Messages in order, without a gap; the last of them is the room's last message.
#[derive(Default)]
pub struct History {
    messages: VecDeque<Kept>,
    bytes: usize,
}

struct Kept {
    message: Message,
    since: Instant,
}

impl History {
    /// Adds the room's next message, and lets go what is beyond the bounds.
    pub fn push(&mut self, message: Message, since: Instant, bounds: &config::History) {
        self.bytes += message.frame.len();
        self.messages.push_back(Kept { message, since });
        self.trim(since, bounds);
    }

    /// Lets go what is beyond the bounds.
    pub fn trim(&mut self, now: Instant, bounds: &config::History) {
        while let Some(first) = self.messages.front()
            && (self.messages.len() > bounds.messages
                || self.bytes > bounds.bytes
                || now.saturating_duration_since(first.since) >= bounds.age)
        {
            self.bytes -= first.message.frame.len();
            self.messages.pop_front();
        }
        if self.messages.capacity() > 4 * self.messages.len().max(8) {
            self.messages.shrink_to(2 * self.messages.len());
        }
    }

    /// When the oldest message was taken in.
    pub fn oldest(&self) -> Option<Instant> {
        self.messages.front().map(|kept| kept.since)
    }

    /// Bytes of all frames.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The offset of the oldest message, where there is one.
    pub fn first(&self) -> Option<u64> {
        self.messages.front().map(|kept| kept.message.position.offset)
    }

    /// The messages after an offset, up to `last`, the offset of the room's last message; `None` where the first of
    /// them is gone.
    pub fn after(&self, after: u64, last: u64, batch: Batch) -> Option<Vec<Message>> {
        if after >= last {
            return Some(Vec::new());
        }
        let first = self.first()?;
        let skipped = usize::try_from((after + 1).checked_sub(first)?).ok()?;
        let mut bytes = 0;
        let fits = |kept: &&Kept| {
            let fits = bytes < batch.bytes.max(1);
            bytes += kept.message.frame.len();
            fits
        };
        let rest = self.messages.range(skipped.min(self.messages.len())..);
        Some(rest.take(batch.messages).take_while(fits).map(|kept| kept.message.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rooms::mail::Position;
    use bytes::Bytes;
    use std::time::Duration;

    const BOUNDS: config::History = config::History { messages: 5, age: Duration::from_secs(10), bytes: 1000 };
    const ALL: Batch = Batch { messages: usize::MAX, bytes: usize::MAX };

    fn message(offset: u64, bytes: usize) -> Message {
        let position = Position { epoch: "e".into(), offset };
        Message { position, at: jiff::Timestamp::UNIX_EPOCH, frame: Bytes::from(vec![0; bytes]) }
    }

    fn offsets(history: &History, after: u64, last: u64, batch: Batch) -> Option<Vec<u64>> {
        history.after(after, last, batch).map(|m| m.iter().map(|m| m.position.offset).collect())
    }

    #[test]
    fn bounded_by_number_bytes_and_age() {
        let (mut history, start) = (History::default(), Instant::now());
        for offset in 1..=7 {
            history.push(message(offset, 10), start + Duration::from_secs(offset), &BOUNDS);
        }
        assert_eq!((history.first(), history.bytes()), (Some(3), 50));
        history.push(message(8, 985), start + Duration::from_secs(8), &BOUNDS);
        assert_eq!((history.first(), history.bytes()), (Some(7), 995));
        history.trim(start + Duration::from_secs(17), &BOUNDS);
        assert_eq!(history.first(), Some(8));
        history.push(message(9, 1001), start + Duration::from_secs(18), &BOUNDS);
        assert_eq!((history.first(), history.bytes()), (None, 0));
    }

    #[test]
    fn all_or_nothing_from_an_offset_on() {
        let (mut history, start) = (History::default(), Instant::now());
        assert_eq!(offsets(&history, 0, 0, ALL), Some(vec![]));
        for offset in 1..=8 {
            history.push(message(offset, 10), start, &BOUNDS);
        }
        assert_eq!(offsets(&history, 3, 8, ALL), Some(vec![4, 5, 6, 7, 8]));
        assert_eq!(offsets(&history, 2, 8, ALL), None);
        assert_eq!(offsets(&history, 8, 8, ALL), Some(vec![]));
        assert_eq!(offsets(&history, 5, 8, Batch { messages: 2, bytes: 100 }), Some(vec![6, 7]));
        assert_eq!(offsets(&history, 5, 8, Batch { messages: 0, bytes: 0 }), Some(vec![]));
        assert_eq!(offsets(&history, 2, 8, Batch { messages: 0, bytes: 0 }), None);
        // One at least, and one that crosses the bound.
        assert_eq!(offsets(&history, 5, 8, Batch { messages: 9, bytes: 0 }), Some(vec![6]));
        assert_eq!(offsets(&history, 5, 8, Batch { messages: 9, bytes: 11 }), Some(vec![6, 7]));
    }

    #[test]
    fn a_room_without_history_has_nothing_to_give() {
        let none = config::History { messages: 0, ..BOUNDS };
        let mut history = History::default();
        history.push(message(1, 10), Instant::now(), &none);
        assert_eq!(offsets(&history, 0, 1, ALL), None);
        assert_eq!(offsets(&history, 1, 1, ALL), Some(vec![]));
    }
}
