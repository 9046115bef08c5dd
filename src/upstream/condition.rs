//! How a server does: what checks and connecting to it say, and which part of its weight it has.
use std::time::Duration;
use tokio::time::Instant;

/// The first time that a server is left alone after a connection failed; it doubles with each further failure.
const EJECTED_FIRST: Duration = Duration::from_secs(1);
/// The longest.
const EJECTED_MAX: Duration = Duration::from_secs(30);

/// Whether a server may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Yes.
    Ready,
    /// Where no other is ready: connecting to it has failed a while ago.
    Ejected,
    /// No: checks say so.
    Unhealthy,
}

/// A server is well until something else is found.
#[derive(Debug, Default)]
pub(super) struct Condition {
    unhealthy: bool,
    /// Checks in a row that contradict `unhealthy`.
    contradictions: u32,
    ejected: Option<Ejection>,
    /// When it was last found well after it had not been.
    back_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Ejection {
    /// From then on it is tried again, at the pace of the slow start.
    until: Instant,
    /// Failures in a row.
    times: u32,
}

/// A server was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ejected {
    /// For so long.
    pub(super) pause: Duration,
    /// Not once more: it did well before.
    pub(super) first: bool,
}

impl Condition {
    pub(super) fn standing(&self, now: Instant) -> Standing {
        match self.ejected {
            _ if self.unhealthy => Standing::Unhealthy,
            Some(ejection) if now < ejection.until => Standing::Ejected,
            Some(_) | None => Standing::Ready,
        }
    }

    /// The part of its weight that it has now, 0 to 1: it rises linearly over `slow_start` after the server came back.
    pub(super) fn part(&self, now: Instant, slow_start: Duration) -> f64 {
        let tried_again = self.ejected.map(|ejection| ejection.until);
        match self.back_since.max(tried_again).map(|since| now.saturating_duration_since(since)) {
            Some(back) if back < slow_start => back.as_secs_f64() / slow_start.as_secs_f64(),
            Some(_) | None => 1.0,
        }
    }

    /// A connection was made. Says whether that ends an ejection.
    pub(super) fn connected(&mut self, now: Instant) -> bool {
        let Some(ejection) = self.ejected.take() else { return false };
        self.back_since = self.back_since.max(Some(ejection.until.min(now)));
        true
    }

    /// No connection could be made. `jitter` of about 1 keeps many gateways from coming back at the same time. Failures
    /// of connections that were begun before an ejection do not prolong it.
    pub(super) fn unreachable(&mut self, now: Instant, jitter: f64) -> Option<Ejected> {
        let times = match self.ejected {
            Some(ejection) if now < ejection.until => return None,
            Some(ejection) => ejection.times.saturating_add(1),
            None => 1,
        };
        let pause = EJECTED_FIRST.saturating_mul(1 << (times - 1).min(5)).min(EJECTED_MAX).mul_f64(jitter);
        self.ejected = Some(Ejection { until: now + pause, times });
        Some(Ejected { pause, first: times == 1 })
    }

    /// A check was done. Says whether the server is healthy from now on, where that has changed.
    pub(super) fn checked(&mut self, well: bool, rise: u32, fall: u32, now: Instant) -> Option<bool> {
        if well != self.unhealthy {
            self.contradictions = 0;
            return None;
        }
        self.contradictions += 1;
        if self.contradictions < if well { rise } else { fall } {
            return None;
        }
        self.contradictions = 0;
        self.unhealthy = !well;
        if well {
            self.back_since = Some(now);
        }
        Some(well)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pause(condition: &mut Condition, now: Instant) -> Option<f64> {
        condition.unreachable(now, 1.0).map(|ejected| ejected.pause.as_secs_f64())
    }

    #[test]
    fn failures_eject_for_twice_as_long_each_time_and_a_connection_ends_it() {
        let mut condition = Condition::default();
        let mut now = Instant::now();
        for (times, expected) in [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0].into_iter().enumerate() {
            let ejected = condition.unreachable(now, 1.0);
            let pause = Duration::from_secs_f64(expected);
            assert_eq!(ejected, Some(Ejected { pause, first: times == 0 }));
            assert_eq!(condition.unreachable(now + pause / 2, 1.0), None, "one outage counts once");
            assert_eq!(condition.standing(now + pause - SECOND / 2), Standing::Ejected);
            now += pause;
            assert_eq!(condition.standing(now), Standing::Ready);
        }
        assert!(condition.connected(now));
        assert!(!condition.connected(now));
        assert_eq!(pause(&mut condition, now), Some(1.0));
    }

    #[test]
    fn the_pause_is_jittered() {
        assert_eq!(Condition::default().unreachable(Instant::now(), 0.9).map(|e| e.pause), Some(SECOND.mul_f64(0.9)));
    }

    #[test]
    fn checks_turn_it_after_so_many_in_a_row() {
        let mut condition = Condition::default();
        let now = Instant::now();
        let mut checked = |well| condition.checked(well, 2, 3, now);
        assert_eq!([false, false, true, false, false].map(&mut checked), [None; 5]);
        assert_eq!(checked(false), Some(false));
        assert_eq!([false, true, false, true].map(&mut checked), [None; 4]);
        assert_eq!(checked(true), Some(true));
        assert_eq!(checked(true), None);
    }

    #[test]
    fn checks_outrank_ejections() {
        let mut condition = Condition::default();
        let now = Instant::now();
        condition.unreachable(now, 1.0);
        condition.checked(false, 1, 1, now);
        assert_eq!(condition.standing(now), Standing::Unhealthy);
        assert_eq!(condition.standing(now + 2 * SECOND), Standing::Unhealthy);
        condition.checked(true, 1, 1, now);
        assert_eq!(condition.standing(now), Standing::Ejected);
    }

    #[test]
    fn a_server_that_comes_back_starts_slowly() {
        let mut condition = Condition::default();
        let now = Instant::now();
        let slow = 10 * SECOND;
        assert_eq!(condition.part(now, slow), 1.0);
        condition.unreachable(now, 1.0);
        let back = now + SECOND;
        assert_eq!(condition.part(back, slow), 0.0);
        assert_eq!(condition.part(back + 5 * SECOND, slow), 0.5);
        condition.connected(back + 5 * SECOND);
        assert_eq!(condition.part(back + 6 * SECOND, slow), 0.6);
        assert_eq!(condition.part(back + 10 * SECOND, slow), 1.0);
        condition.checked(false, 1, 1, back);
        condition.checked(true, 1, 1, back + 20 * SECOND);
        assert_eq!(condition.part(back + 20 * SECOND, slow), 0.0);
        assert_eq!(condition.part(back + 20 * SECOND, Duration::ZERO), 1.0);
    }
}
