//! Whether the gateway lives and takes connections: what `/healthz`, `/readyz` and systemd's
//! watchdog ask.
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a shard calls [`Health::beat`].
pub const BEAT_EVERY: Duration = Duration::from_secs(1);

/// Age of a heartbeat from which its shard counts as stuck.
pub const STALE_AFTER: Duration = Duration::from_secs(10);

/// The phase of the process; shared by all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Not every listener is open yet.
    Starting,
    /// Connections are taken in.
    Ready,
    /// No new connections; the open ones are being closed.
    Draining,
}

impl Phase {
    /// As `GET /api/status` says it.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
        }
    }
}

/// The phase, and the last heartbeat of each shard.
#[derive(Debug)]
pub struct Health {
    phase: AtomicU8,
    /// What the times in `beats` count from.
    epoch: Instant,
    /// Milliseconds since `epoch`; [`ENDED`] for a shard that ended in order.
    beats: Box<[AtomicU64]>,
}

const ENDED: u64 = u64::MAX;

impl Health {
    /// Starting; every one of `shards` shards counts as heard of at `now`.
    pub fn new(shards: usize, now: Instant) -> Health {
        Health {
            phase: AtomicU8::new(Phase::Starting as u8),
            epoch: now,
            beats: (0..shards).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// The listeners are open. Nothing happens where draining has begun: a drain is for good.
    pub fn set_ready(&self) {
        let (starting, ready) = (Phase::Starting as u8, Phase::Ready as u8);
        let _ = self.phase.compare_exchange(starting, ready, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The gateway stops.
    pub fn set_draining(&self) {
        self.phase.store(Phase::Draining as u8, Ordering::Release);
    }

    /// The event loop of `shard` runs. For the shard itself, every [`BEAT_EVERY`].
    pub fn beat(&self, shard: usize, now: Instant) {
        self.beats[shard].store(self.since_epoch_ms(now), Ordering::Relaxed);
    }

    /// The shard ended in order, and is not missed from now on.
    pub fn ended(&self, shard: usize) {
        self.beats[shard].store(ENDED, Ordering::Relaxed);
    }

    /// Whether every shard was heard of within `max_age` before `now`.
    pub fn fresh(&self, now: Instant, max_age: Duration) -> bool {
        self.stuck(now, max_age).next().is_none()
    }

    /// The shards that were not.
    pub fn stuck(&self, now: Instant, max_age: Duration) -> impl Iterator<Item = usize> + '_ {
        let now_ms = self.since_epoch_ms(now);
        let max_age_ms = max_age.as_millis() as u64;
        let old = move |beat: &AtomicU64| now_ms.saturating_sub(beat.load(Ordering::Relaxed)) > max_age_ms;
        self.beats.iter().enumerate().filter(move |(_, beat)| old(beat)).map(|(shard, _)| shard)
    }

    fn since_epoch_ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_silent_shard_is_enough() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let health = Health::new(2, start);
        assert!(health.fresh(at(10), STALE_AFTER), "a shard has time to start");
        assert!(!health.fresh(at(11), STALE_AFTER));
        health.beat(0, at(11));
        assert_eq!(health.stuck(at(11), STALE_AFTER).collect::<Vec<_>>(), [1]);
        health.beat(1, at(11));
        assert!(health.fresh(at(21), STALE_AFTER));
        assert!(!health.fresh(at(22), STALE_AFTER));
    }

    #[test]
    fn a_shard_that_ended_is_not_missed() {
        let start = Instant::now();
        let health = Health::new(1, start);
        health.ended(0);
        assert!(health.fresh(start + Duration::from_secs(999), STALE_AFTER));
    }

    #[test]
    fn a_clock_behind_the_beat_is_fresh() {
        let start = Instant::now();
        let health = Health::new(1, start);
        health.beat(0, start + Duration::from_secs(5));
        assert!(health.fresh(start, Duration::ZERO));
    }

    #[test]
    fn draining_is_for_good() {
        let health = Health::new(0, Instant::now());
        assert_eq!(health.phase(), Phase::Starting);
        health.set_ready();
        assert_eq!(health.phase(), Phase::Ready);
        health.set_draining();
        health.set_ready();
        assert_eq!(health.phase(), Phase::Draining);
    }
}
