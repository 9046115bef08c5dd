//! What the application is told: events in lanes, each sent one after the other until it is taken.
use super::answer::refuses;
use super::body::{self, Body};
use super::line::{self, Failure, Line};
use super::{Hook, Seldom, Tuning};
use crate::config::HookEvent;
use crate::metrics::{Metrics, ToldOutcome};
use jiff::Timestamp;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

/// Rooms share lanes by the hash of their name, so that a room keeps its order and most others their pace.
const LANES: usize = 8;

/// An event that waits.
struct Told {
    event: HookEvent,
    id: Uuid,
    timestamp: Timestamp,
    namespace: Box<str>,
    room: Box<str>,
    client: Option<Box<str>>,
    since: Instant,
}

/// The queues.
pub(super) struct Lanes {
    tuning: Tuning,
    lanes: Vec<Lane>,
    /// The other ends, until [`run`] takes them.
    ends: Mutex<Vec<mpsc::Receiver<Told>>>,
    /// Events in all lanes, with those that are being sent.
    waiting: AtomicUsize,
    /// Woken when none waits.
    quiet: Notify,
    /// Whether the process ends.
    ending: watch::Sender<bool>,
    dropped: Seldom,
    given_up: Seldom,
}

pub(super) struct Lane {
    queue: mpsc::Sender<Told>,
    /// Of the events in the lane, with the one that is being sent.
    bytes: AtomicUsize,
}

impl Told {
    fn bytes(&self) -> usize {
        size_of::<Told>() + self.namespace.len() + self.room.len() + self.client.as_ref().map_or(0, |c| c.len())
    }

    fn body(&self, attempt: u32) -> Body<'_> {
        Body {
            event: body::name(self.event),
            id: self.id.to_string(),
            timestamp: body::rfc3339(self.timestamp),
            namespace: &self.namespace,
            client_id: self.client.as_deref(),
            session_id: None,
            room_id: Some(&self.room),
            message_id: None,
            message: None,
            ip: None,
            attempt: Some(attempt),
        }
    }
}

impl Lanes {
    pub(super) fn new(tuning: Tuning) -> Lanes {
        let (queues, ends): (Vec<_>, Vec<_>) = (0..LANES).map(|_| mpsc::channel(tuning.lane_events)).unzip();
        Lanes {
            tuning,
            lanes: queues.into_iter().map(|queue| Lane { queue, bytes: AtomicUsize::new(0) }).collect(),
            ends: Mutex::new(ends),
            waiting: AtomicUsize::new(0),
            quiet: Notify::new(),
            ending: watch::Sender::new(false),
            dropped: Seldom::new(),
            given_up: Seldom::new(),
        }
    }

    pub(super) fn lane_of(&self, namespace: &str, room: &str) -> &Lane {
        let mut hasher = DefaultHasher::new();
        (namespace, room).hash(&mut hasher);
        &self.lanes[(hasher.finish() % LANES as u64) as usize]
    }

    /// Takes out what was told so far and nobody sends.
    #[cfg(test)]
    pub(super) fn take(&self) -> Vec<(HookEvent, Option<Box<str>>)> {
        let mut ends = self.ends.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let told = ends.iter_mut().flat_map(|end| std::iter::from_fn(|| end.try_recv().ok()));
        told.map(|told| (told.event, told.client)).collect()
    }

    pub(super) fn push(&self, metrics: &Metrics, event: HookEvent, namespace: &str, room: &str, client: Option<&str>) {
        let told = Told {
            event,
            id: Uuid::now_v7(),
            timestamp: Timestamp::now(),
            namespace: namespace.into(),
            room: room.into(),
            client: client.map(Into::into),
            since: Instant::now(),
        };
        let lane = self.lane_of(namespace, room);
        let bytes = told.bytes();
        // Counted before it is queued: the lane may be done with it before this returns.
        let queued = lane.bytes.fetch_add(bytes, SeqCst) + bytes;
        self.waiting.fetch_add(1, SeqCst);
        metrics.elsewhere().hook_waits();
        if queued > self.tuning.lane_bytes || lane.queue.try_send(told).is_err() {
            self.done(metrics, lane, bytes, ToldOutcome::Dropped);
            if self.dropped.may_log() {
                tracing::warn!(event = body::name(event), "too many events wait for the hook: new ones are dropped");
            }
        }
    }

    fn done(&self, metrics: &Metrics, lane: &Lane, bytes: usize, outcome: ToldOutcome) {
        lane.bytes.fetch_sub(bytes, SeqCst);
        metrics.elsewhere().told(outcome);
        if self.waiting.fetch_sub(1, SeqCst) == 1 {
            self.quiet.notify_waiters();
        }
    }

    pub(super) async fn flush(&self, deadline: Instant) -> usize {
        self.ending.send_replace(true);
        loop {
            let mut quiet = std::pin::pin!(self.quiet.notified());
            // Before the count is read, so that the last event cannot slip between.
            quiet.as_mut().enable();
            let left = self.waiting.load(SeqCst);
            if left == 0 || timeout_at(deadline, quiet).await.is_err() {
                return self.waiting.load(SeqCst);
            }
        }
    }

    /// With a random part, so that lanes that failed together do not come back together.
    pub(super) fn pause_after(&self, attempt: u32) -> Duration {
        let doubled = self.tuning.first_pause.saturating_mul(1 << (attempt - 1).min(16));
        let longest = if *self.ending.borrow() { self.tuning.last_pause } else { self.tuning.longest_pause };
        doubled.min(longest).mul_f64(rand::random_range(0.5..=1.0))
    }
}

/// Runs all lanes. They live as long as this future.
pub(super) async fn run(hook: Arc<Hook>) {
    let ends = std::mem::take(&mut *hook.lanes.ends.lock().unwrap_or_else(PoisonError::into_inner));
    let mut lanes = JoinSet::new();
    for (place, end) in ends.into_iter().enumerate() {
        lanes.spawn(run_lane(hook.clone(), place, end));
    }
    // A lane holds the hook, and so its own queue: it ends only by a panic.
    while let Some(ended) = lanes.join_next().await {
        if ended.is_err() {
            tracing::error!("a lane of the hook has died: what it would be told is dropped");
        }
    }
}

async fn run_lane(hook: Arc<Hook>, place: usize, mut events: mpsc::Receiver<Told>) {
    let mut line = None;
    while let Some(told) = events.recv().await {
        let outcome = deliver(&hook, &told, &mut line).await;
        hook.lanes.done(&hook.metrics, &hook.lanes.lanes[place], told.bytes(), outcome);
    }
}

/// Tries until it is taken, refused for good, or too old.
async fn deliver(hook: &Hook, told: &Told, line: &mut Option<Line>) -> ToldOutcome {
    let mut ending = hook.lanes.ending.subscribe();
    let mut attempt = 1;
    while told.since.elapsed() < hook.lanes.tuning.age_max {
        let Err(failure) = attempt_to_tell(hook, told, attempt, line).await else { return ToldOutcome::Delivered };
        let event = body::name(told.event);
        if matches!(failure, Failure::Status(status) if refuses(status)) {
            if hook.lanes.given_up.may_log() {
                tracing::warn!(event, %failure, "the hook refuses to be told");
            }
            return ToldOutcome::GivenUp;
        }
        if hook.failures.may_log() {
            tracing::warn!(event, %failure, attempt, "the hook cannot be told, and will be later");
        }
        // The end of the process cuts a long pause short.
        tokio::select! {
            () = sleep(hook.lanes.pause_after(attempt)) => (),
            _ = ending.changed() => (),
        }
        attempt = attempt.saturating_add(1);
    }
    if hook.lanes.given_up.may_log() {
        tracing::warn!(event = body::name(told.event), "the hook could not be told in time: the event is given up");
    }
    ToldOutcome::GivenUp
}

async fn attempt_to_tell(hook: &Hook, told: &Told, attempt: u32, line: &mut Option<Line>) -> Result<(), Failure> {
    let wire = &hook.wire;
    let post = wire.post(told.event, &told.body(attempt));
    let (answer, kept) = line::exchange(&wire.target, line.take(), &post, Instant::now() + wire.timeout).await?;
    *line = kept;
    if answer.status.is_success() { Ok(()) } else { Err(Failure::Status(answer.status)) }
}
