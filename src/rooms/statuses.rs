//! What clients say of themselves: "away", "busy", "invisible", or their own words. It is by client, over all sessions
//! of a process, and outlives a reconnect, so that nobody who is invisible shows for a moment.
//!
//! The table is locked when a session begins and when a status changes, never for a message. Only clients that have
//! said something are in it.
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

/// What a client has said of itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    /// Its status.
    pub status: Status,
    /// Since when.
    pub since: Timestamp,
    /// Rises with every change of this client.
    pub version: u64,
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
            let said = Arc::new(Said { status, since: Timestamp::now(), version: 1 });
            table.clients.insert(key, Slot { said: said.clone(), told_at: now, next: None, idle_since: None });
            return Change::Now(said);
        };
        let newest = slot.next.as_ref().unwrap_or(&slot.said);
        if newest.status == status {
            return Change::Nothing;
        }
        let said = Arc::new(Said { status, since: Timestamp::now(), version: newest.version + 1 });
        if slot.next.replace(said).is_some() {
            return Change::Nothing;
        }
        let free_at = slot.told_at + TELL_EVERY;
        if now < free_at { Change::Later(free_at) } else { slot.tell(now).map_or(Change::Nothing, Change::Now) }
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
        assert_eq!(said.map(|s| (s.status.clone(), s.version)), Some((text("lunch"), 3)));
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
        assert_eq!(seen, Some((Status::Invisible, 2)));
        let told = statuses.due(HERE, &alice, start + TELL_EVERY).map(|s| (s.status.clone(), s.version));
        assert_eq!(told, seen);
    }

    #[test]
    fn forgotten_some_time_after_the_last_session() {
        let (statuses, alice, start) = (Statuses::default(), Arc::from("alice"), Instant::now());
        let Change::Now(held) = statuses.change(HERE, &alice, Status::Invisible, start) else { panic!() };
        let at = |s| start + Duration::from_secs(s);
        statuses.sweep(at(10_000));
        assert_eq!(statuses.len(), 1);
        drop(held);
        statuses.sweep(at(10_010));
        statuses.sweep(at(10_600));
        assert_eq!(statuses.of(HERE, &alice).map(|s| s.status.clone()), Some(Status::Invisible));
        statuses.sweep(at(10_610));
        assert_eq!(statuses.len(), 0);
    }
}
