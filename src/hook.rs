//! An application that is asked, before a client connects, joins or publishes, and told, afterwards, who came and
//! went (`[rooms.hook]`; README.md, "Hooks"): the HTTP side. Who calls it knows rooms, this knows none.
mod answer;
mod body;
mod lanes;
mod line;

use crate::config::{self, HookEvent};
use crate::dial::origin::Origin;
use crate::metrics::{Asked, AskedOutcome, Metrics};
use answer::judge;
use body::{Body, Signer};
use lanes::Lanes;
use line::{Failure, Line};
use serde_json::value::RawValue;
use std::cell::RefCell;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

/// Most connections that a shard keeps open while nothing is asked.
const IDLE_LINES_MAX: usize = 64;
/// How often the same trouble is logged at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The application of `[rooms.hook]`. Shared by all threads.
pub struct Hook {
    wire: Wire,
    metrics: Arc<Metrics>,
    events: Vec<HookEvent>,
    deny_on_failure: bool,
    asked_at_once: usize,
    failures: Seldom,
    lanes: Lanes,
}

/// What every request to the application needs.
struct Wire {
    target: Origin,
    signer: Option<Signer>,
    /// For one request, all of it.
    timeout: Duration,
}

/// What an asked event comes to.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It may happen; also where the application could not be asked, with `on_failure = "allow"`.
    Allowed,
    /// A publish may happen, with this message in place of the client's: any JSON, at most 1 MiB with the rest of the
    /// answer. Whoever publishes it holds it to the limits of messages.
    Changed(Box<RawValue>),
    /// The application said no.
    Refused {
        /// Its words: 1 to 123 bytes, without control characters.
        reason: Option<String>,
    },
    /// The application could not be asked, with `on_failure = "deny"`.
    Failed,
}

/// What the application is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// One of those that are asked about; for any other the verdict is [`Verdict::Allowed`].
    pub event: HookEvent,
    /// The namespace of the route.
    pub namespace: &'a str,
    /// The client's name.
    pub client: &'a str,
    /// The session, where there is one yet.
    pub session_id: Option<uuid::Uuid>,
    /// The room of a join or publish.
    pub room: Option<&'a str>,
    /// The client's own name for the message.
    pub message_id: Option<&'a str>,
    /// The message, as it came.
    pub message: Option<&'a RawValue>,
    /// The client's address, where it is known.
    pub ip: Option<IpAddr>,
}

/// Bounds and times, which tests make small.
#[derive(Debug, Clone, Copy)]
struct Tuning {
    /// Most questions that one shard has with the application.
    asked_at_once: usize,
    /// Most events in a lane.
    lane_events: usize,
    /// Most bytes of the events in a lane.
    lane_bytes: usize,
    /// The pause after a first failure; it doubles with each further one.
    first_pause: Duration,
    /// The longest pause.
    longest_pause: Duration,
    /// The longest pause while the process ends.
    last_pause: Duration,
    /// The age at which an event is given up.
    age_max: Duration,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            asked_at_once: 256,
            lane_events: 8192,
            lane_bytes: 4 << 20,
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(30),
            last_pause: Duration::from_secs(1),
            age_max: Duration::from_secs(600),
        }
    }
}

impl Hook {
    /// Makes the hook; nothing is connected yet. What it tells waits until [`Hook::run`] runs.
    ///
    /// # Errors
    /// Where `url` is no URL of a server, or is `https://` and the system has no certificate authorities.
    pub fn new(config: &config::Hook, metrics: Arc<Metrics>) -> Result<Arc<Hook>, String> {
        Hook::tuned(config, metrics, Tuning::default())
    }

    fn tuned(config: &config::Hook, metrics: Arc<Metrics>, tuning: Tuning) -> Result<Arc<Hook>, String> {
        let target = Origin::new(&config.url).map_err(|error| format!("the url of [rooms.hook]: {error}"))?;
        Ok(Arc::new(Hook {
            wire: Wire { target, signer: config.secret.as_ref().map(Signer::new), timeout: config.timeout },
            metrics,
            events: config.events.clone(),
            deny_on_failure: config.deny_on_failure,
            asked_at_once: tuning.asked_at_once,
            failures: Seldom::new(),
            lanes: Lanes::new(tuning),
        }))
    }

    /// Whether the application is asked about this event.
    pub fn asks(&self, event: HookEvent) -> bool {
        asked(event).is_some() && self.events.contains(&event)
    }

    /// Whether the application is told of this event.
    pub fn tells(&self, event: HookEvent) -> bool {
        asked(event).is_none() && self.events.contains(&event)
    }

    /// What the sessions of a shard ask with. Make one for each shard, and use it on that shard's runtime alone: its
    /// connections live there. `shard` is the block of metrics that counts.
    pub fn asker(self: &Arc<Hook>, shard: usize) -> Asker {
        Asker { hook: self.clone(), shard, places: Semaphore::new(self.asked_at_once), idle: RefCell::default() }
    }

    /// Tells the application, later and in the order of calls for each room. Never waits; any thread may call.
    /// Nothing happens where the application is not told of such events. `client` is `None` for `occupied` and
    /// `vacated`. Where 8,192 events or 4 MiB wait already in the room's lane, the event is dropped and counted.
    pub fn tell(&self, event: HookEvent, namespace: &str, room: &str, client: Option<&str>) {
        if self.tells(event) {
            self.lanes.push(&self.metrics, event, namespace, room, client);
        }
    }

    /// What was told so far, in the order of each room, where nothing sends it: then it is forgotten.
    #[cfg(test)]
    pub fn take_told(&self) -> Vec<(HookEvent, Option<Box<str>>)> {
        self.lanes.take()
    }

    /// Sends what is told, on the runtime that runs this; never ends by itself. A second call does nothing.
    pub async fn run(self: Arc<Hook>) {
        lanes::run(self).await;
    }

    /// Waits until everything that was told is delivered or given up, at most until `deadline`, with short pauses
    /// between attempts from now on. For the end of the process, when nothing more is told; [`Hook::run`] must run
    /// meanwhile. Returns how many events still wait.
    pub async fn flush(&self, deadline: Instant) -> usize {
        let left = self.lanes.flush(deadline.into()).await;
        if left > 0 {
            tracing::warn!(events = left, "the hook was not told of all events in time");
        }
        left
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("events", &self.events).finish_non_exhaustive()
    }
}

/// Asks, on one shard. Keeps its connections between questions.
pub struct Asker {
    hook: Arc<Hook>,
    shard: usize,
    places: Semaphore,
    /// The most recently used last.
    idle: RefCell<Vec<Line>>,
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").field("shard", &self.shard).finish_non_exhaustive()
    }
}

impl Asker {
    /// Whether the application is asked about this event.
    pub fn asks(&self, event: HookEvent) -> bool {
        self.hook.asks(event)
    }

    /// Asks the application; takes at most the hook's `timeout`. Where 256 questions of this shard are with it
    /// already, waits for a place as part of that time. A question is sent once; only where a connection that was kept
    /// turns out to be closed, without a byte of an answer, it is sent a second time with the same `id`.
    /// [`Verdict::Allowed`] where it is not asked about such events. May be dropped at any time.
    pub async fn ask(&self, question: Question<'_>) -> Verdict {
        let Some(asked) = asked(question.event).filter(|_| self.hook.asks(question.event)) else {
            return Verdict::Allowed;
        };
        let verdict = self.put(&question).await;
        let outcome = match &verdict {
            Ok(Verdict::Allowed) => AskedOutcome::Allowed,
            Ok(Verdict::Changed(_)) => AskedOutcome::Changed,
            Ok(Verdict::Refused { .. }) => AskedOutcome::Refused,
            Ok(Verdict::Failed) | Err(_) => AskedOutcome::Failed,
        };
        self.hook.metrics.shard(self.shard).asked(asked, outcome);
        verdict.unwrap_or_else(|failure| {
            if self.hook.failures.may_log() {
                let event = body::name(question.event);
                tracing::warn!(event, %failure, denied = self.hook.deny_on_failure, "the hook cannot be asked");
            }
            if self.hook.deny_on_failure { Verdict::Failed } else { Verdict::Allowed }
        })
    }

    async fn put(&self, question: &Question<'_>) -> Result<Verdict, Failure> {
        let wire = &self.hook.wire;
        let deadline = tokio::time::Instant::now() + wire.timeout;
        let Ok(Ok(_place)) = timeout_at(deadline, self.places.acquire()).await else {
            return Err(Failure::Crowded);
        };
        let post = wire.post(question.event, &Body::of_question(question));
        let kept = self.idle.borrow_mut().pop();
        let (answer, line) = line::exchange(&wire.target, kept, &post, deadline).await?;
        if let Some(line) = line {
            self.keep(line);
        }
        judge(question.event, answer)
    }

    fn keep(&self, line: Line) {
        let mut idle = self.idle.borrow_mut();
        // The oldest stand first: where one was kept too long, so were those before it.
        let stale = idle.iter().rposition(Line::is_stale).map_or(0, |last| last + 1);
        idle.drain(..stale);
        if idle.len() < IDLE_LINES_MAX {
            idle.push(line);
        }
    }
}

impl Wire {
    fn post(&self, event: HookEvent, body: &Body<'_>) -> line::Post {
        let body = body.encode();
        let signature = self.signer.as_ref().map(|signer| signer.sign(&body));
        line::Post { event: body::name(event), body: body.into(), signature }
    }
}

/// The label of an event that is asked about; `None` for those that are told.
fn asked(event: HookEvent) -> Option<Asked> {
    match event {
        HookEvent::Connect => Some(Asked::Connect),
        HookEvent::Join => Some(Asked::Join),
        HookEvent::Publish => Some(Asked::Publish),
        HookEvent::Occupied | HookEvent::Vacated | HookEvent::Joined | HookEvent::Left => None,
    }
}

/// Lets one line in [`LOG_EVERY`] into the log.
struct Seldom {
    began: Instant,
    /// When the next one may go, in milliseconds after `began`.
    next_ms: AtomicU64,
}

impl Seldom {
    fn new() -> Seldom {
        Seldom { began: Instant::now(), next_ms: AtomicU64::new(0) }
    }

    fn may_log(&self) -> bool {
        let now = self.began.elapsed().as_millis() as u64;
        let next = self.next_ms.load(Relaxed);
        now >= next && self.next_ms.compare_exchange(next, now + LOG_EVERY.as_millis() as u64, Relaxed, Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests;
