//! Slots that lie elsewhere than was thought: their calls wait, and are sent again in their order.
use super::connection::Sent;
use super::masters::Masters;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long a slot rests before its calls are tried again.
pub const REST: Duration = Duration::from_millis(100);
/// How long a call is tried.
pub const TRIED_FOR: Duration = Duration::from_secs(3);

/// A slot at rest.
pub struct Slot {
    /// By their number, so that what comes back refused stands before what was called later.
    pub calls: BTreeMap<u64, Sent>,
    /// Calls whose answers are still to come: until then nothing is sent again, or it would overtake them.
    pub on_their_way: usize,
    since: Instant,
}

/// All slots at rest.
#[derive(Default)]
pub struct Resting {
    slots: BTreeMap<u16, Slot>,
    /// When they are tried again.
    pub due: Option<Instant>,
}

impl Resting {
    /// Has a slot rest that does not yet.
    pub fn begin(&mut self, slot: u16, masters: &Masters) -> &mut Slot {
        let now = Instant::now();
        self.due.get_or_insert(now + REST);
        let rest = || Slot { calls: BTreeMap::new(), on_their_way: masters.on_their_way(slot), since: now };
        self.slots.entry(slot).or_insert_with(rest)
    }

    pub fn get_mut(&mut self, slot: u16) -> Option<&mut Slot> {
        // Mostly none rests.
        if self.slots.is_empty() { None } else { self.slots.get_mut(&slot) }
    }

    /// An answer of this slot has come.
    pub fn answered(&mut self, slot: u16) {
        if let Some(slot) = self.get_mut(slot) {
            slot.on_their_way = slot.on_their_way.saturating_sub(1);
        }
    }

    pub fn slots(&self) -> impl Iterator<Item = u16> {
        self.slots.keys().copied()
    }

    /// Ends a slot's rest.
    pub fn end(&mut self, slot: u16) -> Option<Slot> {
        let ended = self.slots.remove(&slot);
        if self.slots.is_empty() {
            self.due = None;
        }
        ended
    }
}

impl Slot {
    /// Whether it has rested for longer than a call is tried.
    pub fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) > TRIED_FOR
    }
}
