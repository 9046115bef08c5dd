//! In which order servers are tried.
//!
//! Each has a weight, in thousandths so that a slow start can rise. A hash is weighted rendezvous hashing: each server
//! draws a number from the key and itself, and the lowest wins. So a server that leaves takes no key but its own with it, and
//! a weight is met exactly, without a ring of points to build and to keep. The hash is fixed: keys stay where they are
//! over a restart, and go to the same server from every gateway. A client that chooses its key chooses its own server, no more.
use crate::config::Balance;
use std::cmp::Ordering;

/// A server that may be chosen.
#[derive(Debug)]
pub(super) struct Choice {
    /// Its place in the pool.
    pub(super) place: usize,
    /// Thousandths, at least 1.
    pub(super) weight: u32,
    /// Connections that it has, and that are being made.
    pub(super) used: usize,
    /// What distinguishes it from others, of every run.
    pub(super) hash: u64,
}

impl Choice {
    /// Which has fewer connections for its weight, were it to get one more.
    fn less_used(&self, other: &Choice) -> Ordering {
        let load = |one: &Choice, other: &Choice| (one.used as u128 + 1) * u128::from(other.weight);
        load(self, other).cmp(&load(other, self))
    }

    /// A number that is lowest among several with a probability in proportion to the weight: the time until the first
    /// event of this rate. `random`: 64 bits.
    fn draw(&self, random: u64) -> f64 {
        // Above 0 and below 1.
        let uniform = ((random >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -uniform.ln() / f64::from(self.weight)
    }
}

/// Whose turn it is, so that each gets its weight's share with the others well mixed in between: all gain their weight, the one with most is
/// chosen and pays the sum.
#[derive(Debug, Default)]
pub(super) struct Turns(Vec<i64>);

impl Turns {
    /// Forgets what was, for so many servers.
    pub(super) fn reset(&mut self, servers: usize) {
        self.0 = vec![0; servers];
    }

    /// Those that are due next first.
    fn order(&mut self, choices: &mut [Choice]) {
        let total: i64 = choices.iter().map(|choice| i64::from(choice.weight)).sum();
        for choice in choices.iter() {
            self.0[choice.place] += i64::from(choice.weight);
        }
        choices.sort_by_key(|choice| -self.0[choice.place]);
        if let Some(first) = choices.first() {
            self.0[first.place] -= total;
        }
    }
}

/// Puts the servers into the order in which they are to be tried. `key`: the hash of what chooses; `None` where there
/// is nothing of the kind, and chance chooses.
pub(super) fn order(balance: Balance, key: Option<u64>, turns: &mut Turns, choices: &mut [Choice]) {
    match balance {
        Balance::RoundRobin => turns.order(choices),
        Balance::LeastConnections => {
            choices.sort_by(Choice::less_used);
            let Some(first) = choices.first() else { return };
            let ties = choices.iter().take_while(|choice| choice.less_used(first).is_eq()).count();
            turns.order(&mut choices[..ties]);
        }
        Balance::RandomTwo => {
            by_draw(choices, |_| rand::random());
            if let [first, second, ..] = choices
                && second.less_used(first).is_lt()
            {
                choices.swap(0, 1);
            }
        }
        Balance::HashClient | Balance::HashIp => match key {
            Some(key) => by_draw(choices, |choice| mix(key ^ choice.hash)),
            None => by_draw(choices, |_| rand::random()),
        },
    }
}

fn by_draw(choices: &mut [Choice], random: impl Fn(&Choice) -> u64) {
    choices.sort_by_cached_key(|choice| Draw(choice.draw(random(choice))));
}

/// A drawn number, never NaN.
#[derive(PartialEq)]
struct Draw(f64);

impl Eq for Draw {}

impl Ord for Draw {
    fn cmp(&self, other: &Draw) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Draw {
    fn partial_cmp(&self, other: &Draw) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// FNV-1a of 64 bits: the same in every run and on every machine.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv)
}

/// Has every bit depend on all (the finalizer of MurmurHash3).
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests;
