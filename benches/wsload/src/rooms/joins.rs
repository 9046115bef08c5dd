//! All join one room at once.
use super::Place;
use super::crowd::{Ear, Group, Tally};
use super::seat::{Heard, Seat};
use crate::proc;
use crate::report::Report;
use std::time::Instant;

/// Members from which on presence is told in numbers.
const CROWD: u64 = 1000;

/// A member that notes what it was told of the others.
struct Joiner {
    seat: Seat,
    /// Members when it joined, itself included.
    count: u64,
    /// Others that it was told of one by one.
    told: u64,
    /// Members, as a push of a crowded room last said.
    crowd: Option<u64>,
}

impl Ear for Joiner {
    fn hear(&mut self, payload: &[u8], tally: &Tally) -> Result<Option<String>, String> {
        match self.seat.hear(payload)? {
            Heard::Joined(count) => {
                self.count = count;
                tally.add();
            }
            Heard::Presence => self.told += 1,
            Heard::Crowd(count) => self.crowd = Some(count),
            other => return Err(format!("not asked for: {other:?}")),
        }
        Ok(None)
    }

    fn join(&self) -> String {
        self.seat.join()
    }
}

/// Measures joins, and with `presence` also the pushes that they cause.
pub async fn run(place: &Place, presence: bool) -> Result<Report, String> {
    let total = place.clients as u64;
    let joiner = |_| Joiner { seat: Seat::new("r".into(), None), count: 0, told: 0, crowd: None };
    let group = Group::open(place, 0..place.clients, joiner).await?;
    group.tally.calm().await?;
    let (cpu0, started) = (proc::cpu(&place.pids), Instant::now());
    group.storm();
    group.tally.reach(total, "answers to join_room").await?;
    let (secs, mut cpu) = (started.elapsed().as_secs_f64(), proc::cpu(&place.pids) - cpu0);
    group.tally.calm().await?;
    if presence {
        cpu = proc::cpu(&place.pids) - cpu0;
    }
    let mut joiners = group.end().await?;
    joiners.sort_by_key(|joiner| joiner.count);
    for (joiner, expected) in joiners.iter().zip(1..) {
        check(joiner, expected, total, presence)?;
    }
    let pushes = joiners.iter().map(|j| j.told).sum();
    Ok(Report::default().count("pushes", pushes).number("last_ms", secs * 1e3, 1).work("joins", total, secs, cpu))
}

/// Every place is taken once, and everyone is told of all that came later.
fn check(joiner: &Joiner, expected: u64, total: u64, presence: bool) -> Result<(), String> {
    let Joiner { count, told, crowd, .. } = joiner;
    if *count != expected {
        return Err(format!("no member was told that it is number {expected}; one was told {count}"));
    }
    let right = match presence {
        false => *told == 0 && crowd.is_none(),
        true if total <= CROWD => *told == total - count && crowd.is_none(),
        true => *crowd == Some(total),
    };
    let wrong = || format!("member {count} of {total} was told of {told} others and a crowd of {crowd:?}");
    right.then_some(()).ok_or_else(wrong)
}
