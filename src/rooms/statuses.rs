//! What clients say of themselves: "away", "busy", "invisible", or their own words. It is by client, over all sessions
//! of a process, and by `sharing` of all nodes, and outlives a reconnect, so that nobody who is invisible shows for a
//! moment.
//!
//! The table is locked when a session begins and when a status changes, never for a message. Only clients that have
//! said something are in it.
mod sharing;

pub(super) use sharing::Sharing;
pub use sharing::{READ, SAY};

use super::protocol::Status;
use crate::config::Namespace;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A client's status is told to others at most once in this time.
pub const TELL_EVERY: Duration = Duration::from_secs(2);
/// How long the status of a client without sessions is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Clients in the table.
const CLIENTS_MAX: usize = 262_144;

/// What a client has said of itself. The greater is the newer, on every node: hence the order of the fields.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    /// Rises with every change of this client: microseconds since 1970, or one more than before where that is more. So
    /// it is newer than what another node still knows where this one has forgotten the client.
    pub version: u64,
    /// Since when.
    pub since: Timestamp,
    /// Its status.
    pub status: Status,
}

impl Said {
    /// Said now, after that.
    fn now(status: Status, before: Option<&Said>) -> Arc<Said> {
        let since = Timestamp::now();
        let clock = u64::try_from(since.as_microsecond()).unwrap_or_default();
        let version = clock.max(before.map_or(0, |said| said.version.saturating_add(1)));
        Arc::new(Said { version, since, status })
    }
}

/// The table.
#[derive(Clone, Default)]
pub struct Statuses(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    clients: HashMap<(Namespace, Arc<str>), Slot>,
}

struct Slot {
    said: Arc<Said>,
    told_at: Instant,
    /// To be told when the time has come.
    next: Option<Arc<Said>>,
    /// When it was first found without sessions.
    idle_since: Option<Instant>,
}

/// What comes of a change.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// It was so before, or will be told with one that waits.
    Nothing,
    /// It is to be told now.
    Now(Arc<Said>),
    /// It is to be asked for ([`Statuses::due`]) at this time.
    Later(Instant),
    /// The table is full.
    Full,
}

impl Statuses {
    /// A client changes its status.
    pub fn change(&self, namespace: Namespace, client: &Arc<str>, status: Status, now: Instant) -> Change {
        let table = &mut *self.lock();
        let full = table.clients.len() >= CLIENTS_MAX;
        let key = (namespace, client.clone());
        let Some(slot) = table.clients.get_mut(&key) else {
            if status == Status::Online {
                return Change::Nothing;
            }
            if full {
                return Change::Full;
            }
            let said = Said::now(status, None);
            table.clients.insert(key, Slot { said: said.clone(), told_at: now, next: None, idle_since: None });
            return Change::Now(said);
        };
        let newest = slot.next.as_ref().unwrap_or(&slot.said);
        if newest.status == status {
            return Change::Nothing;
        }
        let said = Said::now(status, Some(newest));
        if slot.next.replace(said).is_some() {
            return Change::Nothing;
        }
        let free_at = slot.told_at + TELL_EVERY;
        if now < free_at { Change::Later(free_at) } else { slot.tell(now).map_or(Change::Nothing, Change::Now) }
    }

    /// Another node tells what a client has said, or that it remembers it. What its sessions here are to be told; `None`:
    /// they know it, or better.
    pub fn learn(&self, namespace: Namespace, client: &Arc<str>, said: Said, now: Instant) -> Option<Arc<Said>> {
        let table = &mut *self.lock();
        let full = table.clients.len() >= CLIENTS_MAX;
        let (key, said) = ((namespace, client.clone()), Arc::new(said));
        if let Some(slot) = table.clients.get_mut(&key) {
            // Some node may have sessions of it.
            slot.idle_since = None;
            if slot.said >= said {
                return None;
            }
            // What waits to be told stays where it is newer still.
            slot.next.take_if(|next| *next < said);
            slot.said = said.clone();
        } else if said.status != Status::Online && !full {
            table.clients.insert(key, Slot { said: said.clone(), told_at: now, next: None, idle_since: None });
        }
        Some(said)
    }

    /// What is not like everybody, of clients that have sessions here.
    fn held(&self) -> Vec<(Namespace, Arc<str>, Arc<Said>)> {
        let held = |said: &Arc<Said>| Arc::strong_count(said) > 1 && said.status != Status::Online;
        let table = self.lock();
        let slots = table.clients.iter().filter(|(_, slot)| held(&slot.said));
        slots.map(|((namespace, client), slot)| (*namespace, client.clone(), slot.said.clone())).collect()
    }

    /// The change that was to be told later.
    pub fn due(&self, namespace: Namespace, client: &Arc<str>, now: Instant) -> Option<Arc<Said>> {
        let table = &mut *self.lock();
        table.clients.get_mut(&(namespace, client.clone()))?.tell(now)
    }

    /// What the client has said, as those shall see it who have not seen it yet: who wants to be invisible is so to
    /// them at once, whenever the others are told. Whoever holds it keeps it from being forgotten.
    pub fn of(&self, namespace: Namespace, client: &Arc<str>) -> Option<Arc<Said>> {
        let table = self.lock();
        if table.clients.is_empty() {
            return None;
        }
        let slot = table.clients.get(&(namespace, client.clone()))?;
        let hides = slot.next.as_ref().filter(|next| next.status == Status::Invisible);
        Some(hides.unwrap_or(&slot.said).clone())
    }

    /// Forgets clients that are online like everybody, and those that have no sessions any more. Called now and then.
    pub fn sweep(&self, now: Instant) {
        let clients = &mut self.lock().clients;
        clients.retain(|(_, client), slot| {
            if slot.next.is_some() || now < slot.told_at + TELL_EVERY {
                return true;
            }
            if Arc::strong_count(&slot.said) > 1 {
                slot.idle_since = None;
                return true;
            }
            let idle_since = *slot.idle_since.get_or_insert(now);
            // A client without a token never comes back under its name.
            let comes_back = !client.starts_with("anon-");
            comes_back && slot.said.status != Status::Online && now < idle_since + REMEMBERED
        });
        if clients.capacity() > 4 * clients.len().max(64) {
            clients.shrink_to(2 * clients.len());
        }
    }

    /// Clients in the table.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.lock().clients.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// What waits is told now, where it comes to something else than was told last.
    fn tell(&mut self, now: Instant) -> Option<Arc<Said>> {
        let next = self.next.take()?;
        let told_already = next.status == self.said.status;
        self.said = next;
        self.idle_since = None;
        if told_already {
            return None;
        }
        self.told_at = now;
        Some(self.said.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HERE: Namespace = Namespace { index: 0 };

    fn text(text: &str) -> Status {
        Status::Text(text.into())
    }

    #[test]
    fn told_at_most_every_two_seconds_and_then_the_newest() {
        let (statuses, alice, start) = (Statuses::default(), Arc::from("alice"), Instant::now());
        assert_eq!(statuses.change(HERE, &alice, Status::Online, start), Change::Nothing);
        assert!(matches!(statuses.change(HERE, &alice, text("away"), start), Change::Now(_)));
        assert_eq!(statuses.change(HERE, &alice, text("away"), start), Change::Nothing);
        let later = Change::Later(start + TELL_EVERY);
        assert_eq!(statuses.change(HERE, &alice, text("busy"), start), later);
        assert_eq!(statuses.change(HERE, &alice, text("lunch"), start), Change::Nothing);
        let said = statuses.due(HERE, &alice, start + TELL_EVERY);
        assert_eq!(said.map(|s| s.status.clone()), Some(text("lunch")));
        assert_eq!(statuses.due(HERE, &alice, start + TELL_EVERY), None);
        // What comes to the same in the end is not told.
        let now = start + TELL_EVERY;
        assert!(matches!(statuses.change(HERE, &alice, text("a"), now), Change::Later(_)));
        assert_eq!(statuses.change(HERE, &alice, text("lunch"), now), Change::Nothing);
        assert_eq!(statuses.due(HERE, &alice, now + TELL_EVERY), None);
    }

    #[test]
    fn who_wants_to_be_invisible_is_so_at_once_to_those_who_have_not_seen_it() {
        let (statuses, alice, start) = (Statuses::default(), Arc::from("alice"), Instant::now());
        statuses.change(HERE, &alice, text("away"), start);
        assert!(matches!(statuses.change(HERE, &alice, Status::Invisible, start), Change::Later(_)));
        let seen = statuses.of(HERE, &alice).map(|s| (s.status.clone(), s.version));
        assert_eq!(seen.as_ref().map(|(status, _)| status), Some(&Status::Invisible));
        let told = statuses.due(HERE, &alice, start + TELL_EVERY).map(|s| (s.status.clone(), s.version));
        assert_eq!(told, seen);
    }

    #[test]
    fn the_newer_wins_whichever_node_it_was_said_to() {
        let (here, there, alice, start) =
            (Statuses::default(), Statuses::default(), Arc::from("alice"), Instant::now());
        let learn = |at: &Statuses, said: &Said| {
            let said = Said { status: said.status.clone(), ..*said };
            at.learn(HERE, &alice, said, start).map(|said| said.status.clone())
        };
        let Change::Now(away) = here.change(HERE, &alice, text("away"), start) else { panic!() };
        assert_eq!(learn(&there, &away), Some(text("away")));
        assert_eq!(learn(&there, &away), None);
        // What waits here to be told is older than what is said there then, and newer than what was said before.
        assert!(matches!(here.change(HERE, &alice, text("busy"), start), Change::Later(_)));
        let between = Said { version: away.version + 1, since: away.since, status: text("between") };
        assert_eq!(learn(&here, &between), Some(text("between")));
        let busy = here.due(HERE, &alice, start + TELL_EVERY).unwrap();
        assert!(busy.status == text("busy") && *busy > between);
        assert!(matches!(here.change(HERE, &alice, text("lunch"), start + TELL_EVERY), Change::Later(_)));
        let back = Said { version: busy.version + 1_000_000, since: busy.since, status: Status::Online };
        assert_eq!(learn(&here, &back), Some(Status::Online));
        assert_eq!(here.due(HERE, &alice, start + 2 * TELL_EVERY), None);
        // Of equal counts the later one, and then any, but the same everywhere.
        let tie = |status| Said { status, ..back };
        assert_eq!(learn(&here, &tie(text("b"))), Some(text("b")));
        assert_eq!(learn(&here, &tie(text("a"))), None);
    }

    /// Whoever has forgotten it must not count from the beginning.
    #[test]
    fn what_is_said_anew_is_newer_than_what_was_forgotten() {
        let (alice, start) = (Arc::from("alice"), Instant::now());
        let say = |status| match Statuses::default().change(HERE, &alice, status, start) {
            Change::Now(said) => said,
            change => panic!("{change:?}"),
        };
        let before = say(text("a"));
        assert!(before < say(text("a")));
    }

    #[test]
    fn what_is_learnt_is_bounded_and_needs_no_place_where_it_is_nothing_special() {
        let (statuses, now) = (Statuses::default(), Instant::now());
        let said = |status| Said { version: 1, since: Timestamp::UNIX_EPOCH, status };
        for i in 0..CLIENTS_MAX + 9 {
            assert!(statuses.learn(HERE, &Arc::from(format!("c{i}")), said(text("away")), now).is_some());
        }
        assert_eq!(statuses.len(), CLIENTS_MAX);
        let statuses = Statuses::default();
        statuses.learn(HERE, &Arc::from("alice"), said(Status::Online), now);
        assert_eq!(statuses.len(), 0);
    }

    #[test]
    fn forgotten_some_time_after_the_last_session() {
        let (statuses, alice, start) = (Statuses::default(), Arc::from("alice"), Instant::now());
        let Change::Now(held) = statuses.change(HERE, &alice, Status::Invisible, start) else { panic!() };
        let at = |s| start + Duration::from_secs(s);
        statuses.sweep(at(10_000));
        assert_eq!(statuses.len(), 1);
        drop(held);
        statuses.sweep(at(10_001));
        let said = statuses.of(HERE, &alice).unwrap();
        statuses.learn(HERE, &alice, Said { status: Status::Invisible, ..*said }, at(10_009));
        drop(said);
        statuses.sweep(at(10_010));
        statuses.sweep(at(10_600));
        assert_eq!(statuses.of(HERE, &alice).map(|s| s.status.clone()), Some(Status::Invisible));
        statuses.sweep(at(10_610));
        assert_eq!(statuses.len(), 0);
    }
}
