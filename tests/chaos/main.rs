//! Gateways that share their rooms over Redis, clients that do whatever they like, and faults, all from one seed; beside
//! them a ledger that knows what every client must see.
//!
//! `WSGATE_CHAOS_SEED` chooses the faults and what clients do (not when the machine does it), `WSGATE_CHAOS_SECONDS` how
//! long a run takes; a failure prints its seed, and where the logs of the nodes and of the clients are kept.
#![allow(missing_docs, clippy::unwrap_used)]
#[path = "../support/mod.rs"]
#[allow(unused_imports)]
mod support;

mod checks;
mod court;
mod device;
mod faults;
mod ledger;
mod nodes;
mod run;
mod view;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// All that is random.
pub struct Dice(StdRng);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(StdRng::seed_from_u64(seed))
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n.max(1))
    }

    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        self.0.random_range(least..=most)
    }

    pub fn percent(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())].clone())
    }
}

/// Whether something is as it must be, and if not, what is wrong.
pub type Verdict<T = ()> = Result<T, String>;
