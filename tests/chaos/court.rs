//! What all clients share: the ledger, where the nodes are, what is going on, and whether anything was wrong.
use crate::ledger::Ledger;
use crate::{Dice, Verdict};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Whatever they like.
    Chaos,
    /// Only what they have begun: those that are there stay in their rooms, those that are away stay away.
    Rest,
    /// They leave, for good.
    Leaving,
}

pub struct Court {
    ledger: Mutex<Ledger>,
    tally: Mutex<Tally>,
    /// Where a node listens that is said to live.
    addresses: Mutex<Vec<Option<String>>>,
    phase: watch::Sender<Phase>,
    fault: watch::Sender<Option<String>>,
}

/// How often things happened: a run that does not come to something proves nothing of it.
#[derive(Default)]
struct Tally {
    counts: BTreeMap<&'static str, u64>,
    accepted: Option<Instant>,
    longest_without: Duration,
}

impl Court {
    pub fn new(ledger: Ledger, nodes: usize) -> Court {
        Court {
            ledger: Mutex::new(ledger),
            tally: Mutex::default(),
            addresses: Mutex::new(vec![None; nodes]),
            phase: watch::channel(Phase::Chaos).0,
            fault: watch::channel(None).0,
        }
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    pub fn count(&self, what: &'static str) {
        *self.tally.lock().unwrap().counts.entry(what).or_default() += 1;
    }

    /// A publish has its place.
    pub fn accepted(&self) {
        let mut tally = self.tally.lock().unwrap();
        let now = Instant::now();
        if let Some(before) = tally.accepted.replace(now) {
            tally.longest_without = tally.longest_without.max(now - before);
        }
    }

    /// Nobody publishes from now on: the time until somebody does is nobody's fault.
    pub fn silent(&self) {
        self.tally.lock().unwrap().accepted = None;
    }

    pub fn counts(&self) -> (BTreeMap<&'static str, u64>, Duration) {
        let tally = self.tally.lock().unwrap();
        (tally.counts.clone(), tally.longest_without)
    }

    pub fn is_at(&self, node: usize, address: Option<String>) {
        self.addresses.lock().unwrap()[node] = address;
    }

    /// Some node that is said to live, with its number.
    pub fn some_node(&self, dice: &mut Dice) -> Option<(usize, String)> {
        let addresses = self.addresses.lock().unwrap();
        let living: Vec<_> = addresses.iter().enumerate().filter_map(|(n, a)| Some((n, a.clone()?))).collect();
        dice.pick(&living)
    }

    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Something is wrong; the first thing counts.
    pub fn fail(&self, what: String) {
        self.fault.send_if_modified(|fault| {
            let first = fault.is_none();
            fault.get_or_insert(what);
            first
        });
    }

    /// Ends when something is wrong.
    pub async fn failed(&self) -> String {
        let mut fault = self.fault.subscribe();
        let found = fault.wait_for(Option::is_some).await.unwrap();
        found.clone().unwrap()
    }

    pub fn verdict(&self) -> Verdict {
        self.fault.borrow().clone().map_or(Ok(()), Err)
    }
}
