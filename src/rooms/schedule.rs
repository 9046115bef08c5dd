//! Things that are due at some time, with one timer for all of them.
use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep, sleep_until};

/// Keys by the time at which they are due, each with a place by which it can be taken out before. A key that is entered
/// twice comes twice; whoever takes it looks whether it is still of interest.
pub struct Schedule<K> {
    keys: BTreeMap<Place, K>,
    next: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

/// A time, and a number that tells keys of one time apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(Instant, u64);

impl Place {
    /// Whether its time has come.
    pub fn is_over(self, now: Instant) -> bool {
        self.0 <= now
    }
}

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Schedule { keys: BTreeMap::new(), next: 0, timer: None }
    }
}

impl<K> Schedule<K> {
    /// Has `key` come at this time.
    pub fn enter(&mut self, at: Instant, key: K) -> Place {
        self.next += 1;
        let place = Place(at, self.next);
        self.keys.insert(place, key);
        place
    }

    /// Takes a key out.
    pub fn take(&mut self, place: Place) -> Option<K> {
        self.keys.remove(&place)
    }

    /// The places, in order.
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.keys.keys().copied()
    }

    /// The next key that is due.
    pub fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<K> {
        let Some((Place(at, _), _)) = self.keys.first_key_value() else {
            self.timer = None;
            return Poll::Pending;
        };
        if poll_until(&mut self.timer, *at, cx).is_pending() {
            return Poll::Pending;
        }
        self.keys.pop_first().map_or(Poll::Pending, |(_, key)| Poll::Ready(key))
    }
}

/// Ready when the time has come; else the task is woken then. The timer is kept for the next time.
pub fn poll_until(timer: &mut Option<Pin<Box<Sleep>>>, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
    // A timer that is polled often in one turn is put off by the runtime.
    if at <= Instant::now() {
        return Poll::Ready(());
    }
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
    if timer.deadline() != at {
        timer.as_mut().reset(at);
    }
    timer.as_mut().poll(cx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn what_is_due_comes_in_order_also_what_was_entered_later() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        schedule.enter(at(5), "five");
        assert!(poll_fn(|cx| Poll::Ready(schedule.poll_due(cx).is_pending())).await);
        schedule.enter(at(2), "two");
        schedule.enter(at(2), "two again");
        for (key, seconds) in [("two", 2), ("two again", 2), ("five", 5)] {
            assert_eq!(poll_fn(|cx| schedule.poll_due(cx)).await, key);
            assert_eq!(start.elapsed().as_secs(), seconds);
        }
    }
}
