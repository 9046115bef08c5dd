//! Many clients at once, each a task that reads, and what all of them have had so far.
use super::Place;
use super::seat::text_frame;
use crate::conn::{Conn, Opening};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Clients that are opened, and join, at a time where that is not what is measured.
const WAVE: usize = 64;
/// A crowded room is told of its members at most once a second.
const CALM: Duration = Duration::from_millis(1500);

/// What a client does with what it hears.
pub trait Ear: Send + 'static {
    /// Hears a message; may answer with a request, or find a fault, which ends the run.
    fn hear(&mut self, payload: &[u8], tally: &Tally) -> Result<Option<String>, String>;
    /// The request to join.
    fn join(&self) -> String;
    /// The first request after that, where it begins to publish by itself.
    fn begin(&self) -> Option<String> {
        None
    }
}

/// What a group has had of the thing that is awaited now. Every wait has a bound.
pub struct Tally {
    within: Duration,
    started: Instant,
    had: AtomicU64,
    goal: AtomicU64,
    reached: Notify,
    last_heard_us: AtomicU64,
    fault: Mutex<Option<String>>,
}

impl Tally {
    fn new(within: Duration) -> Tally {
        Tally {
            within,
            started: Instant::now(),
            had: AtomicU64::new(0),
            goal: AtomicU64::new(0),
            reached: Notify::new(),
            last_heard_us: AtomicU64::new(0),
            fault: Mutex::new(None),
        }
    }

    /// One more.
    pub fn add(&self) {
        if self.had.fetch_add(1, Relaxed) + 1 == self.goal.load(Relaxed) {
            self.reached.notify_one();
        }
    }

    fn fail(&self, fault: String) {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
        self.reached.notify_one();
    }

    fn sound(&self) -> Result<(), String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }

    /// Waits until there have been `goal`, and no more; then counting begins anew.
    pub async fn reach(&self, goal: u64, what: &str) -> Result<(), String> {
        self.goal.store(goal, Relaxed);
        let deadline = tokio::time::Instant::now() + self.within;
        loop {
            self.sound()?;
            let had = self.had.load(Relaxed);
            if had > goal {
                return Err(format!("{had} {what} instead of {goal}"));
            }
            if had == goal {
                self.had.store(0, Relaxed);
                return Ok(());
            }
            if tokio::time::timeout_at(deadline, self.reached.notified()).await.is_err() {
                let had = self.had.load(Relaxed);
                return Err(format!("only {had} of {goal} {what} after {} s", self.within.as_secs_f64()));
            }
        }
    }

    /// Waits until nobody has heard anything for longer than the pause between two presence pushes.
    pub async fn calm(&self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            self.sound()?;
            let last = self.started + Duration::from_micros(self.last_heard_us.load(Relaxed));
            let left = CALM.saturating_sub(last.max(began).elapsed());
            if left.is_zero() {
                return Ok(());
            }
            if began.elapsed() > self.within {
                return Err(format!("pushes have not ended after {} s", self.within.as_secs_f64()));
            }
            tokio::time::sleep(left).await;
        }
    }
}

/// Clients with a connection and a task each.
pub struct Group<E> {
    /// What they have had.
    pub tally: Arc<Tally>,
    speakers: Vec<UnboundedSender<String>>,
    tasks: JoinSet<Option<E>>,
    joins: Vec<String>,
    begins: Vec<Option<String>>,
}

impl<E: Ear> Group<E> {
    /// Opens the clients with these numbers; none has joined yet.
    pub async fn open(place: &Place, numbers: Range<usize>, ear: impl Fn(usize) -> E) -> Result<Group<E>, String> {
        let targets = place.targets()?;
        let opening = Opening {
            headers: place.headers.clone(),
            init_until: (!place.floor).then(|| "connection_established".into()),
            spread: place.spread,
            ..Opening::default()
        };
        let tally = Arc::new(Tally::new(place.within()));
        let mut group =
            Group { tally, speakers: Vec::new(), tasks: JoinSet::new(), joins: Vec::new(), begins: Vec::new() };
        for first in (numbers.start..numbers.end).step_by(WAVE) {
            let mut wave = JoinSet::new();
            for i in first..numbers.end.min(first + WAVE) {
                let (target, opening) = (targets[i % targets.len()].clone(), opening.clone());
                let within = place.within();
                wave.spawn(async move {
                    let opened = timeout(within, Conn::open(&target, i, &opening)).await;
                    let late = || format!("connection {i}: not open after {} s", within.as_secs_f64());
                    opened.map_err(|_| late())?.map(|conn| (i, conn))
                });
            }
            while let Some(opened) = wave.join_next().await {
                let (i, conn) = opened.map_err(|e| e.to_string())??;
                group.add(i, conn, ear(i));
            }
            group.tally.sound()?;
        }
        Ok(group)
    }

    fn add(&mut self, i: usize, conn: Conn, ear: E) {
        let (speaker, orders) = unbounded_channel();
        self.speakers.push(speaker);
        self.joins.push(ear.join());
        self.begins.push(ear.begin());
        let tally = self.tally.clone();
        self.tasks.spawn(async move {
            let attended = attend(conn, ear, &tally, orders).await;
            attended.map_err(|e| tally.fail(format!("client {i}: {e}"))).ok()
        });
    }

    /// Lets all join, a wave after the other.
    pub async fn join(&mut self) -> Result<(), String> {
        for first in (0..self.joins.len()).step_by(WAVE) {
            let wave = first..self.joins.len().min(first + WAVE);
            let size = wave.len();
            wave.for_each(|k| self.order(k, self.joins[k].clone()));
            self.tally.reach(size as u64, "answers to join_room").await?;
        }
        Ok(())
    }

    /// Lets all ask to join at once.
    pub fn storm(&self) {
        (0..self.joins.len()).for_each(|k| self.order(k, self.joins[k].clone()));
    }

    /// Lets all begin to publish.
    pub fn begin(&self) {
        self.begins.iter().enumerate().for_each(|(k, text)| text.iter().for_each(|text| self.order(k, text.clone())));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.joins.len()
    }

    /// Lets a client, the k-th that was opened, send a text. One that has failed is told of by `Tally`.
    pub fn order(&self, k: usize, text: String) {
        self.speakers[k].send(text).ok();
    }

    /// Ends all: the connections are dropped without a Close. Nothing may have been too much or wrong.
    pub async fn end(mut self) -> Result<Vec<E>, String> {
        self.speakers.clear();
        let mut ears = Vec::with_capacity(self.joins.len());
        while let Some(ended) =
            timeout(self.tally.within, self.tasks.join_next()).await.map_err(|_| "a client hangs")?
        {
            ears.extend(ended.map_err(|e| e.to_string())?);
        }
        self.tally.sound()?;
        match self.tally.had.load(Relaxed) {
            0 => Ok(ears),
            more => Err(format!("{more} messages more than were due")),
        }
    }
}

/// Reads, and sends what is ordered or answered, until there are no more orders.
async fn attend<E: Ear>(
    mut conn: Conn,
    mut ear: E,
    tally: &Tally,
    mut orders: UnboundedReceiver<String>,
) -> Result<E, String> {
    loop {
        let (mut say, mut wrong) = (Vec::new(), None);
        let hear = |payload: &[u8]| match ear.hear(payload, tally) {
            Ok(answer) => say.extend(answer),
            Err(e) => wrong = wrong.take().or(Some(e)),
        };
        // Orders first: at the end nobody hears how the others leave. What is read when one comes is
        // kept for the next turn.
        let ordered = tokio::select! {
            biased;
            order = orders.recv() => Some(order),
            read = conn.read_messages(hear) => read.map(|_| None)?,
        };
        if let Some(fault) = wrong {
            return Err(fault);
        }
        match ordered {
            None => tally.last_heard_us.store(tally.started.elapsed().as_micros() as u64, Relaxed),
            Some(Some(order)) => say.push(order),
            Some(None) => return Ok(ear),
        }
        for text in say {
            conn.write(&text_frame(&text)).await?;
        }
    }
}
