//! The generic cell rate algorithm: a bucket is one number, the time at which it will be full again.
use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::Instant;

/// How fast a bucket refills, and how much it holds.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    nanos_per_unit: f64,
    /// Never 0, so that an `Option<Rate>` takes no more place.
    burst_nanos: NonZeroU64,
}

impl Rate {
    /// `per_second` units a second and a burst of `burst` units; 0 counts as 1 in both.
    pub fn new(per_second: u64, burst: u64) -> Rate {
        let nanos_per_unit = 1e9 / per_second.max(1) as f64;
        let burst_nanos = (burst.max(1) as f64 * nanos_per_unit).ceil() as u64;
        Rate { nanos_per_unit, burst_nanos: NonZeroU64::new(burst_nanos).unwrap_or(NonZeroU64::MIN) }
    }

    /// How long the bucket takes to refill what these units took, in nanoseconds.
    pub(super) fn cost(&self, units: u64) -> u64 {
        (units as f64 * self.nanos_per_unit) as u64
    }

    /// How long it takes to refill from empty, in nanoseconds.
    pub(super) fn burst_nanos(&self) -> u64 {
        self.burst_nanos.get()
    }
}

/// One bucket, shared by all who hold a reference.
#[derive(Debug, Default)]
pub struct Bucket {
    full_at: AtomicU64,
}

impl Bucket {
    /// Takes `units` at time `now` (as by [`nanos`]): all of them or none.
    ///
    /// # Errors
    /// How long until they are there. What is larger than the whole burst is never there.
    pub fn take(&self, rate: &Rate, units: u64, now: u64) -> Result<(), Duration> {
        let cost = rate.cost(units);
        let mut full_at = self.full_at.load(Relaxed);
        loop {
            let next = full_at.max(now).saturating_add(cost);
            let ahead = next - now;
            if ahead > rate.burst_nanos() {
                return Err(Duration::from_nanos(ahead - rate.burst_nanos()));
            }
            match self.full_at.compare_exchange_weak(full_at, next, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(seen) => full_at = seen,
            }
        }
    }

    /// How long until one unit is there; `None`: it is.
    pub fn wait(&self, rate: &Rate, now: u64) -> Option<Duration> {
        let ahead = self.full_at.load(Relaxed).saturating_sub(now).saturating_add(rate.cost(1));
        (ahead > rate.burst_nanos()).then(|| Duration::from_nanos(ahead - rate.burst_nanos()))
    }

    /// Takes `units` at time `now`, also where they are not there: what is owed must come back before one unit is
    /// [there](Self::wait) again.
    pub fn owe(&self, rate: &Rate, units: u64, now: u64) {
        let more = |full_at: u64| Some(full_at.max(now).saturating_add(rate.cost(units)));
        // It always answers with a value.
        let _ = self.full_at.fetch_update(Relaxed, Relaxed, more);
    }

    /// It is not full before `at` (as by [`nanos`]): others have taken of it as well.
    pub(super) fn raise(&self, at: u64) {
        self.full_at.fetch_max(at, Relaxed);
    }

    /// When it is full again, as by [`nanos`].
    pub(super) fn full_at(&self) -> u64 {
        self.full_at.load(Relaxed)
    }

    /// Whether something was taken that has not come back by `now` (as by [`nanos`]).
    pub fn busy(&self, now: u64) -> bool {
        self.full_at.load(Relaxed) > now
    }
}

/// `now` in nanoseconds since the first call in this process, and one second: never 0.
pub fn nanos(now: Instant) -> u64 {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    // One second of head start, so that 0 is always in the past.
    let start = *START.get_or_init(|| Instant::now().into_std());
    now.into_std().saturating_duration_since(start).as_nanos() as u64 + 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn burst_then_rate() {
        let (bucket, rate) = (Bucket::default(), Rate::new(50, 100));
        assert_eq!((0..500).filter(|_| bucket.take(&rate, 1, SECOND).is_ok()).count(), 100);
        assert_eq!((0..500).filter(|_| bucket.take(&rate, 1, 2 * SECOND).is_ok()).count(), 50);
        assert!(bucket.busy(3 * SECOND));
        assert!(!bucket.busy(4 * SECOND));
    }

    #[test]
    fn the_wait_that_is_told_is_enough_and_not_too_long() {
        let (bucket, rate) = (Bucket::default(), Rate::new(3, 1));
        assert!(bucket.take(&rate, 1, SECOND).is_ok());
        let wait = bucket.take(&rate, 1, SECOND).map_or_else(|w| w.as_nanos() as u64, |()| 0);
        assert!(bucket.take(&rate, 1, SECOND + wait - 1).is_err());
        assert!(bucket.take(&rate, 1, SECOND + wait).is_ok());
    }

    #[test]
    fn more_than_the_burst_is_never_there_and_costs_nothing() {
        let (bucket, rate) = (Bucket::default(), Rate::new(10, 10));
        assert!(bucket.take(&rate, 11, SECOND).is_err());
        assert!(bucket.take(&rate, u64::MAX, SECOND).is_err());
        assert!(bucket.take(&rate, 10, SECOND).is_ok());
    }

    #[test]
    fn what_is_owed_comes_back_before_anything_is_there() {
        let (bucket, rate) = (Bucket::default(), Rate::new(10, 10));
        assert_eq!(bucket.wait(&rate, SECOND), None);
        bucket.owe(&rate, 25, SECOND);
        assert_eq!(bucket.wait(&rate, SECOND), Some(Duration::from_millis(1600)));
        assert!(bucket.take(&rate, 1, SECOND).is_err());
        assert_eq!(bucket.wait(&rate, SECOND + 1_600_000_000), None);
        assert!(bucket.take(&rate, 1, SECOND + 1_600_000_000).is_ok());
    }
}
