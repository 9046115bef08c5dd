//! Who is typing in a room, and what of it the others are told.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A client's start is told at most once in this time.
pub const TELL_EVERY: Duration = Duration::from_secs(2);

/// The clients that type, or have just stopped.
#[derive(Default)]
pub struct Typing {
    clients: BTreeMap<Arc<str>, Typist>,
}

struct Typist {
    /// When its last start was told.
    told_at: Instant,
    /// The others believe that it types.
    shown: bool,
    /// It types until then; `None`: it has stopped.
    until: Option<Instant>,
    /// Its last start came from here, and not from another node.
    from_here: bool,
    /// When it is looked at next: one time is enough, however often it starts and stops.
    look_at: Option<Instant>,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Tell the others that it has begun, or has stopped.
    pub tell: Option<bool>,
    /// Look at it again then ([`Typing::due`]).
    pub look_at: Option<Instant>,
}

impl Typing {
    /// A client types, for `expiry` from now on. `from_here`: it said so to this node.
    pub fn start(&mut self, client: &Arc<str>, now: Instant, expiry: Duration, from_here: bool) -> Outcome {
        let until = now + expiry;
        let Some(typist) = self.clients.get_mut(client) else {
            let typist = Typist { told_at: now, shown: true, until: Some(until), from_here, look_at: Some(until) };
            self.clients.insert(client.clone(), typist);
            return Outcome { tell: Some(true), look_at: Some(until) };
        };
        (typist.until, typist.from_here) = (Some(until), from_here);
        let free_at = typist.told_at + TELL_EVERY;
        if now >= free_at {
            typist.told_at = now;
            typist.shown = true;
            return Outcome { tell: Some(true), look_at: typist.look_at(until) };
        }
        let look_at = if typist.shown { None } else { typist.look_at(free_at) };
        Outcome { tell: None, look_at }
    }

    /// Whether the client's last start came from here.
    pub fn is_from_here(&self, client: &str) -> bool {
        self.clients.get(client).is_some_and(|typist| typist.from_here)
    }

    /// A client has stopped, or has left.
    pub fn stop(&mut self, client: &str) -> Outcome {
        let Some(typist) = self.clients.get_mut(client) else { return Outcome::default() };
        typist.until = None;
        let shown = std::mem::take(&mut typist.shown);
        // Until then it is remembered, so that starting and stopping is no way round the bound.
        let free_at = typist.told_at + TELL_EVERY;
        Outcome { tell: shown.then_some(false), look_at: typist.look_at(free_at) }
    }

    /// Looks at a client whose time may have come.
    pub fn due(&mut self, client: &Arc<str>, now: Instant) -> Outcome {
        let Some(typist) = self.clients.get_mut(client) else { return Outcome::default() };
        // Another time was set since, and comes by itself.
        if typist.look_at.is_none_or(|at| at > now) {
            return Outcome::default();
        }
        typist.look_at = None;
        let free_at = typist.told_at + TELL_EVERY;
        match typist.until {
            Some(until) if until <= now => self.stop(client),
            Some(until) if !typist.shown && free_at <= now => {
                typist.told_at = now;
                typist.shown = true;
                Outcome { tell: Some(true), look_at: typist.look_at(until) }
            }
            Some(until) => {
                let at = if typist.shown { until } else { free_at };
                Outcome { tell: None, look_at: typist.look_at(at) }
            }
            None if free_at <= now => {
                self.clients.remove(client);
                Outcome::default()
            }
            None => Outcome { tell: None, look_at: typist.look_at(free_at) },
        }
    }
}

impl Typist {
    /// Has it looked at by this time; nothing where that is so already.
    fn look_at(&mut self, at: Instant) -> Option<Instant> {
        if self.look_at.is_some_and(|known| known <= at) {
            return None;
        }
        self.look_at = Some(at);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRY: Duration = Duration::from_secs(5);

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_start_is_told_once_in_two_seconds_and_ends_by_itself() {
        let (mut typing, alice, start) = (Typing::default(), Arc::from("alice"), Instant::now());
        assert_eq!(typing.start(&alice, start, EXPIRY, true).tell, Some(true));
        for ms in [10, 1000, 1999] {
            assert_eq!(typing.start(&alice, after(start, ms), EXPIRY, true), Outcome::default());
        }
        assert_eq!(typing.start(&alice, after(start, 2000), EXPIRY, true).tell, Some(true));
        // It was to be looked at when the first start expired; the last one has moved that.
        let outcome = typing.due(&alice, after(start, 5000));
        assert_eq!(outcome, Outcome { tell: None, look_at: Some(after(start, 7000)) });
        assert_eq!(typing.due(&alice, after(start, 7000)).tell, Some(false));
        assert_eq!(typing.stop("alice").tell, None);
        typing.due(&alice, after(start, 9000));
        assert!(typing.clients.is_empty());
    }

    #[test]
    fn starting_and_stopping_sets_one_time() {
        let (mut typing, alice, start) = (Typing::default(), Arc::from("alice"), Instant::now());
        let mut due = std::collections::BTreeSet::new();
        let (mut times, mut told) = (0, 0);
        for ms in (0..60_000).step_by(10) {
            let now = after(start, ms);
            let mut outcomes =
                vec![if ms % 20 == 0 { typing.start(&alice, now, EXPIRY, true) } else { typing.stop("alice") }];
            while due.first().is_some_and(|at| *at <= now) {
                due.pop_first();
                outcomes.push(typing.due(&alice, now));
            }
            for outcome in outcomes {
                told += u32::from(outcome.tell == Some(true));
                times += u32::from(outcome.look_at.is_some());
                due.extend(outcome.look_at);
            }
            // Times that an earlier one has replaced come too, and go.
            assert!(due.len() <= 4, "{}", due.len());
        }
        assert!((29..=31).contains(&told) && times < 200, "{told} starts told, {times} times set");
    }

    #[test]
    fn starting_anew_at_once_is_told_when_the_time_has_come() {
        let (mut typing, alice, start) = (Typing::default(), Arc::from("alice"), Instant::now());
        typing.start(&alice, start, EXPIRY, true);
        assert_eq!(typing.stop("alice").tell, Some(false));
        assert_eq!(typing.stop("alice").tell, None);
        let again = typing.start(&alice, after(start, 500), EXPIRY, true);
        // The stop has set that time.
        assert_eq!(again, Outcome::default());
        let due = typing.due(&alice, after(start, 2000));
        assert_eq!(due, Outcome { tell: Some(true), look_at: Some(after(start, 5500)) });
        assert_eq!(typing.stop("bob"), Outcome::default());
    }
}
