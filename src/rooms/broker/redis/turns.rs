//! What is done by time.
use super::room::Syncing;
use super::{Asked, At, Redis, scripts};
use crate::cluster::nodes::Standing;
use crate::rooms::broker::Event;
use crate::rooms::schedule::poll_until;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// What is done by time is done so often.
const TICK: Duration = Duration::from_millis(500);
/// Rooms that are checked in one tick: 500 a second.
pub const CHECKS_PER_TICK: usize = 250;
/// Places that are looked at for rooms in one tick.
const PLACES_PER_TICK: usize = 8192;
/// A room is checked at most so often.
const CHECKED_EVERY: Duration = Duration::from_secs(10);
/// Rooms that are wanted so soon after the start wait for Redis to be reached: those of everyone are, and who comes as
/// soon as the node serves is to hear what is said there.
const STARTING: Duration = Duration::from_secs(5);
/// The log is told of what is wrong with Redis at most so often.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// What waits for its time.
#[derive(Default)]
pub struct Turns {
    timer: Option<Pin<Box<Sleep>>>,
    next: Option<Instant>,
    /// Where messages are missing, unless they have come by the next tick.
    suspects: Vec<At>,
    /// Rooms to be asked for again how they stand.
    again: Vec<At>,
    /// The next place to be checked, and when the round began.
    checked: usize,
    round_began: Option<Instant>,
    /// In this round what dead nodes held is looked for.
    cleans: bool,
    told: Option<Instant>,
    /// Whether rooms wait for Redis to be reached for the first time: until then.
    starting: Option<Instant>,
}

impl Turns {
    /// From the start on.
    pub fn start() -> Turns {
        Turns { starting: Some(Instant::now() + STARTING), ..Turns::default() }
    }

    /// Whether rooms wait for Redis to be reached for the first time.
    pub fn is_starting(&self) -> bool {
        self.starting.is_some()
    }

    /// Has a room asked for again at the next tick.
    pub fn try_again(&mut self, at: At) {
        self.again.push(at);
    }

    /// Something came that no node and no script says.
    pub fn complain(&mut self, what: &'static str) {
        if self.may_tell() {
            tracing::warn!("{what} of Redis was not understood");
        }
    }

    /// Redis refused a call.
    pub fn warn(&mut self, error: &str) {
        if self.may_tell() {
            tracing::warn!("Redis refused a call: {error}");
        }
    }

    fn may_tell(&mut self) -> bool {
        let may = self.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY);
        if may {
            self.told = Some(Instant::now());
        }
        may
    }
}

impl Redis {
    /// A message that has its place has not come yet.
    pub(super) fn suspect(&mut self, at: At) {
        if let Some(room) = self.room(at)
            && !std::mem::replace(&mut room.suspect, true)
        {
            self.turns.suspects.push(at);
        }
    }

    /// Does what is due. Ready never.
    pub(super) fn turn(&mut self, cx: &mut Context<'_>) {
        let now = Instant::now();
        let next = *self.turns.next.get_or_insert(now + TICK);
        if poll_until(&mut self.turns.timer, next, cx).is_pending() {
            return;
        }
        self.turns.next = Some(now + TICK);
        // Wakes for the next one.
        let _: Poll<()> = poll_until(&mut self.turns.timer, now + TICK, cx);
        self.end_start(now);
        self.look_at_nodes();
        for at in std::mem::take(&mut self.turns.suspects) {
            if let Some(room) = self.room(at) {
                room.suspect = false;
                self.fill(at);
            }
        }
        for at in std::mem::take(&mut self.turns.again) {
            self.queue_sync(at);
        }
        self.clear_leftovers();
        self.check_some(now);
        self.ask_some();
    }

    /// Rooms that waited for Redis in vain are not opened.
    fn end_start(&mut self, now: Instant) {
        if self.turns.starting.is_none_or(|until| now < until) {
            return;
        }
        self.turns.starting = None;
        for at in self.places(|room| room.is_new && room.syncing == Syncing::No) {
            self.not_synced(at, false);
        }
    }

    fn look_at_nodes(&mut self) {
        // The list comes by another link than rooms do.
        let kept_up = *self.standing.borrow() != Standing::Away;
        let reached = kept_up && self.link.reaches(self.nodes_slot);
        let changes = self.lives.look(reached);
        self.events.extend(changes.gone.into_iter().map(|node| Event::Gone { node }));
        if changes.anew {
            self.places(|_| true).into_iter().for_each(|at| self.queue_sync(at));
        }
    }

    /// Goes round all rooms.
    fn check_some(&mut self, now: Instant) {
        if self.turns.checked == 0 {
            if self.turns.round_began.is_some_and(|began| now < began + CHECKED_EVERY) {
                return;
            }
            self.turns.round_began = Some(now);
            self.turns.cleans = self.lives.cleans();
        }
        let (mut checks, last) = (0, self.turns.checked + PLACES_PER_TICK);
        while checks < CHECKS_PER_TICK && self.turns.checked < last {
            let place = self.turns.checked;
            if place >= self.rooms.capacity() {
                self.turns.checked = 0;
                return;
            }
            self.turns.checked += 1;
            let keeping = self.keeping();
            let Some(room) = self.rooms.get(place) else { continue };
            if room.count.is_none() || !self.link.reaches(room.slot) {
                continue;
            }
            let at = At { place, generation: room.generation };
            checks += 1;
            if self.turns.cleans {
                self.queue_sync(at);
            } else {
                let call = scripts::check(&room.channel, &room.rules.history, &keeping);
                self.call(Asked::Check { at }, call);
            }
        }
    }
}
