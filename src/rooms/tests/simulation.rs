//! Clients that do whatever they like, from one seed, and a model beside the rooms that knows what they must see.
//!
//! Everything happens in one thread on a paused clock: which shard handles how much of its mail, whose socket is read,
//! when time passes. `WSGATE_SIM_SEED` and `WSGATE_SIM_STEPS` repeat a run or lengthen it; `WSGATE_SIM_TRACE` prints
//! all that happens.
mod acting;
mod answers;
mod checks;
mod clients;
mod model;
mod nodes;
mod pushes;
mod session;
mod view;
mod world;

use super::*;
use clients::Client;
use model::Model;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use session::Session;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use world::World;

type Seconds = Duration;
type Instant = tokio::time::Instant;

/// The seed and the steps of a run where nothing else is said.
const SEED: u64 = 2;
const STEPS: usize = 3000;
/// Steps from one look at everything to the next.
const QUIET_EVERY: usize = 250;
/// What is told of the time before a failure.
const LINES_KEPT: usize = 60;

/// One run.
struct Sim {
    step: usize,
    dice: Dice,
    world: World,
    clients: Vec<Client>,
    sessions: BTreeMap<u32, Session>,
    next_session: u32,
    /// Names requests.
    asked: usize,
    model: Model,
    /// What servers have asked.
    desk: Vec<acting::Call>,
    /// A mailbox was full since everything was last at rest.
    was_full: bool,
    /// Time that has passed since then.
    restless: Seconds,
    log: Log,
    /// What has happened how often: a run that does not come to something proves nothing of it.
    tally: BTreeMap<&'static str, usize>,
}

/// All that is random.
struct Dice(StdRng);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n.max(1))
    }

    fn between(&mut self, least: usize, most: usize) -> usize {
        self.0.random_range(least..=most)
    }

    fn percent(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())])
    }
}

/// What has happened, and how to have it happen again.
struct Log {
    about: String,
    trace: bool,
    lines: VecDeque<String>,
    /// Two runs from one seed have the same.
    digest: DefaultHasher,
}

impl Log {
    fn line(&mut self, line: String) {
        line.hash(&mut self.digest);
        if self.trace {
            eprintln!("{line}");
        }
        if self.lines.len() == LINES_KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in &self.lines {
                eprintln!("{line}");
            }
            eprintln!("simulation FAILED: {}", self.about);
        }
    }
}

impl Sim {
    fn new(seed: u64, broker: &str, steps: usize) -> Sim {
        let about = format!("WSGATE_SIM_SEED={seed} WSGATE_SIM_STEPS={steps}, broker {broker}");
        eprintln!("simulation: {about}");
        let world = World::new(broker.ends_with("delayed"), broker.starts_with("nodes"));
        let model = Model::new(world.rooms.clone());
        let trace = std::env::var_os("WSGATE_SIM_TRACE").is_some();
        Sim {
            step: 0,
            dice: Dice(StdRng::seed_from_u64(seed)),
            world,
            clients: clients::all(),
            sessions: BTreeMap::new(),
            next_session: 0,
            asked: 0,
            model,
            desk: Vec::new(),
            was_full: false,
            restless: Seconds::ZERO,
            log: Log { about, trace, lines: VecDeque::new(), digest: DefaultHasher::new() },
            tally: BTreeMap::new(),
        }
    }

    async fn run(&mut self, steps: usize) {
        self.many_connect();
        for step in 0..steps {
            self.step = step;
            self.act().await;
            if self.world.nodes.is_some() && self.dice.percent(2) {
                self.something_fails();
            }
            self.nudge();
            if step % QUIET_EVERY == QUIET_EVERY - 1 {
                self.come_to_rest().await;
                self.check_everything();
            }
        }
        self.end().await;
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number: {text}")))
}

/// The digest of what happened, and how often each thing did.
async fn run(seed: u64, broker: &str, steps: usize) -> (u64, BTreeMap<&'static str, usize>) {
    let mut sim = Sim::new(seed, broker, steps);
    // A budget would have pipes and timers stop in the middle of what is one turn here.
    tokio::task::unconstrained(sim.run(steps)).await;
    (sim.log.digest.finish(), std::mem::take(&mut sim.tally))
}

async fn with_broker(broker: &str) {
    let steps = number("WSGATE_SIM_STEPS").map_or(STEPS, |n| n as usize);
    let seed = number("WSGATE_SIM_SEED").unwrap_or(SEED);
    let started = std::time::Instant::now();
    let (_, tally) = run(seed, broker, steps).await;
    eprintln!("{} ms, {tally:?}", started.elapsed().as_millis());
    // Another seed, or a short run, may well not come to everything.
    if seed == SEED && steps >= STEPS {
        let nodes = broker.starts_with("nodes").then_some(nodes::MUST_HAPPEN);
        for what in checks::MUST_HAPPEN.into_iter().chain(nodes.into_iter().flatten()) {
            assert!(tally.contains_key(what), "{what} has not happened once with the broker {broker}: {tally:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_clients_do_the_rooms_keep_their_word() {
    with_broker("memory").await;
}

#[tokio::test(start_paused = true)]
async fn whatever_clients_do_the_rooms_keep_their_word_with_a_broker_far_away() {
    with_broker("delayed").await;
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_nodes_the_rooms_keep_their_word() {
    with_broker("nodes").await;
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_nodes_the_rooms_keep_their_word_where_news_come_late() {
    with_broker("nodes, delayed").await;
}

/// Else a failure could not be looked into.
#[tokio::test(start_paused = true)]
async fn the_same_seed_has_the_same_things_happen() {
    for broker in ["memory", "delayed", "nodes", "nodes, delayed"] {
        assert_eq!(run(7, broker, 400).await, run(7, broker, 400).await, "{broker}");
    }
}
