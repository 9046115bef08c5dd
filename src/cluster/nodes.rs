//! The nodes, and how they know of each other.
//!
//! [`Nodes`] is what every thread may ask; `driver` does it, on the main thread, over a link of its own.
mod driver;
mod lease;
mod letter;

pub use lease::{BEAT, LEAVE, Periods};

use super::link::{Link, Redis, Trouble};
use super::script::{Call, Reply, Script};
use crate::config;
use arc_swap::ArcSwap;
use bytes::Bytes;
use driver::{Command, Driver};
use letter::{CONTENT_BYTES_MAX, Letter};
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// One life of a node: made when its lease begins, and made anew when it has run out, so that what it held before is
/// void. In Redis: 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for NodeId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<NodeId, Self::Err> {
        u64::from_str_radix(text, 16).map(NodeId)
    }
}

/// The nodes that live, this one included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// This node. Another than before where its lease had run out: what it holds is to be announced anew.
    pub own: NodeId,
    /// All of them, in the order of their names.
    pub nodes: Vec<NodeView>,
}

/// A node, as the others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its life.
    pub id: NodeId,
    /// Its name.
    pub name: Arc<str>,
    /// What it says of itself: JSON, for `GET /api/status`.
    pub about: Arc<str>,
}

impl Live {
    /// Whether this node lives.
    pub fn has(&self, node: NodeId) -> bool {
        self.own == node || self.nodes.iter().any(|n| n.id == node)
    }
}

/// The newest list of nodes that live, for every thread to look at.
pub struct LiveNodes {
    version: AtomicU64,
    live: ArcSwap<Live>,
}

impl LiveNodes {
    /// A list.
    pub fn new(live: Live) -> Arc<LiveNodes> {
        Arc::new(LiveNodes { version: AtomicU64::new(1), live: ArcSwap::from_pointee(live) })
    }

    /// Rises when others live than before, or this node lives anew.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The list.
    pub fn now(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Another list holds from now on.
    pub fn set(&self, live: Live) {
        let ids = |live: &Live| (live.own, live.nodes.iter().map(|node| node.id).collect::<Vec<_>>());
        let before = self.live.swap(Arc::new(live));
        if ids(&before) != ids(&self.now()) {
            self.version.fetch_add(1, Ordering::Release);
        }
    }
}

/// What a message between nodes is about: each has one handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A ban was made or lifted.
    Bans,
    /// What a client says of itself.
    Statuses,
    /// What servers ask for.
    Desk,
    /// The node of this id is to stop.
    Drain,
}

impl Topic {
    const ALL: [Topic; 4] = [Topic::Bans, Topic::Statuses, Topic::Desk, Topic::Drain];

    fn word(self) -> &'static str {
        match self {
            Topic::Bans => "bans",
            Topic::Statuses => "statuses",
            Topic::Desk => "desk",
            Topic::Drain => "drain",
        }
    }
}

/// What does something with a message of another node. Called on the main thread; must not wait.
pub type Handler = Box<dyn Fn(Bytes) + Send + Sync>;
/// What answers another node's question, on the main thread.
pub type Answerer = Box<dyn Fn(Bytes) -> std::pin::Pin<Box<dyn Future<Output = Bytes> + Send>> + Send + Sync>;
/// What a node says of itself: JSON of at most 4 KiB. Called on the main thread, with each beat; must not wait.
pub type About = Box<dyn Fn() -> String + Send>;
type OnReached = Arc<dyn Fn() + Send + Sync>;

/// How this node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Redis is reached.
    Reached,
    /// Redis, or a master of a Redis Cluster, has not been reached for more than an instant, or not by every shard for
    /// five of them.
    Away,
    /// Another process has taken this node's name, when this one's lease had run out: others do not know what is held
    /// here, until that one ends.
    Nameless,
}

/// Calls that wait for the main thread to take them.
const COMMANDS_MAX: usize = 1024;
/// Questions of this node at one time.
const QUESTIONS_MAX: usize = 64;
/// Bytes of all the answers to one question; further answers count as missing.
const ANSWERS_BYTES_MAX: usize = 64 << 20;

/// The node's place among the others: for every thread to ask.
pub struct Nodes {
    live: Arc<LiveNodes>,
    channel: Box<[u8]>,
    commands: mpsc::Sender<Command>,
    standing: watch::Sender<Standing>,
    handlers: [OnceLock<Handler>; Topic::ALL.len()],
    answerer: OnceLock<Answerer>,
    on_reached: Mutex<Vec<OnReached>>,
    questions: Mutex<HashMap<u64, Question>>,
    asked: AtomicU64,
    unanswered: AtomicU64,
}

/// A question whose answers come in.
struct Question {
    wanted: Vec<NodeId>,
    answers: Vec<Bytes>,
    bytes: usize,
    /// Dropped with the last answer.
    waits: Option<oneshot::Sender<()>>,
}

/// Takes a question off the list, also where nobody waits for its answers any more.
struct Asked<'a> {
    nodes: &'a Nodes,
    number: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.nodes.questions().remove(&self.number);
    }
}

impl Nodes {
    /// Takes this node's place among the others. The future is what does it from then on, to be run on the main
    /// thread. `scripts` are those of all [calls](Self::call), with [`BEAT`] and [`LEAVE`].
    ///
    /// # Errors
    /// That Redis is not reached, for 30 s; or that another node that lives has this one's name: one that does not
    /// is waited for until its lease has run out.
    pub async fn join(
        config: &config::Cluster,
        redis: &Arc<Redis>,
        scripts: &'static [&'static Script],
        about: About,
    ) -> Result<(Arc<Nodes>, impl Future<Output = ()> + use<>), String> {
        Self::join_with(config, redis, scripts, about, Periods::default()).await
    }

    /// The same with other periods, for tests.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub async fn join_with(
        config: &config::Cluster,
        redis: &Arc<Redis>,
        scripts: &'static [&'static Script],
        about: About,
        periods: Periods,
    ) -> Result<(Arc<Nodes>, impl Future<Output = ()> + use<>), String> {
        let (commands, taken) = mpsc::channel(COMMANDS_MAX);
        let mut driver = Driver::new(config, Link::new(redis, scripts, None), redis.shards(), about, periods, taken);
        let nodes = Arc::new(Nodes {
            live: LiveNodes::new(driver.live()),
            channel: driver.channel().into(),
            commands,
            standing: watch::Sender::new(Standing::Away),
            handlers: Default::default(),
            answerer: OnceLock::new(),
            on_reached: Mutex::default(),
            questions: Mutex::default(),
            asked: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
        });
        driver.join(&nodes).await?;
        Ok((nodes.clone(), driver.run(nodes)))
    }

    /// What this node says of itself has changed in more than its numbers.
    pub fn about_changed(&self) {
        // Or with the next beat.
        let _ = self.commands.try_send(Command::Beat);
    }

    /// Gives the place up: others know at once that what was held here is void. Waits for that at most so long.
    pub async fn leave(&self, wait: Duration) {
        let (reply, left) = oneshot::channel();
        if self.commands.try_send(Command::Leave(reply)).is_err() || timeout(wait, left).await.is_err() {
            tracing::warn!("the other nodes could not be told that this one ends: they will see its lease run out");
        }
    }

    /// The nodes that live.
    pub fn live(&self) -> &Arc<LiveNodes> {
        &self.live
    }

    /// How this node stands, to be looked at and waited for.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Whether Redis is reached.
    pub fn reaches_redis(&self) -> bool {
        *self.standing.borrow() != Standing::Away
    }

    /// Answers that were missing, of all questions so far.
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Calls Redis, over the main thread's link.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn call(&self, call: Call) -> Result<Reply, Trouble> {
        let (reply, answer) = oneshot::channel();
        match self.commands.try_send(Command::Call(call, reply)) {
            Ok(()) => answer.await.unwrap_or(Err(Trouble::Away)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Trouble::Full),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Trouble::Away),
        }
    }

    /// Has messages about this handled, from now on. Only the first handler counts.
    pub fn handle(&self, topic: Topic, handler: Handler) {
        let _ = self.handlers[topic as usize].set(handler);
    }

    /// Has questions of other nodes answered, from now on. Only the first answerer counts.
    pub fn answer(&self, answerer: Answerer) {
        let _ = self.answerer.set(answerer);
    }

    /// Called whenever a master is reached, anew or for other slots: pushes may have been lost. On the main thread; must not wait.
    pub fn on_reached(&self, handler: Box<dyn Fn() + Send + Sync>) {
        self.on_reached.lock().unwrap_or_else(PoisonError::into_inner).push(handler.into());
    }

    /// Tells all other nodes. Where it returns, Redis has taken it.
    ///
    /// # Errors
    /// [`Trouble`]; [`Full`](Trouble::Full) also for more than 8 MiB.
    pub async fn tell_all(&self, topic: Topic, payload: Bytes) -> Result<(), Trouble> {
        self.publish(&Letter::Tell { from: self.live.now().own, topic, content: payload }).await
    }

    /// Asks all other nodes that live, and waits at most so long. The answers that came, and the names of those from
    /// whom none came.
    pub async fn ask_all(&self, question: Bytes, wait: Duration) -> (Vec<Bytes>, Vec<Arc<str>>) {
        let live = self.live.now();
        let others: Vec<&NodeView> = live.nodes.iter().filter(|node| node.id != live.own).collect();
        if others.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let (waits, answered) = oneshot::channel();
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let asked = Asked { nodes: self, number };
        let wanted: Vec<NodeId> = others.iter().map(|node| node.id).collect();
        let may_ask = self.questions().len() < QUESTIONS_MAX;
        if may_ask {
            let question = Question { wanted, answers: Vec::new(), bytes: 0, waits: Some(waits) };
            self.questions().insert(number, question);
        }
        let letter = Letter::Ask { from: live.own, number, content: question };
        let asking = async {
            if may_ask && self.publish(&letter).await.is_ok() {
                let _ = answered.await;
            }
        };
        let _ = timeout(wait, asking).await;
        let (answers, missing) = match self.questions().remove(&asked.number) {
            Some(question) => (question.answers, question.wanted),
            None => (Vec::new(), others.iter().map(|node| node.id).collect()),
        };
        self.unanswered.fetch_add(missing.len() as u64, Ordering::Relaxed);
        let names = others.iter().filter(|node| missing.contains(&node.id)).map(|node| node.name.clone());
        (answers, names.collect())
    }

    async fn publish(&self, letter: &Letter) -> Result<(), Trouble> {
        self.call(publish(&self.channel, letter).ok_or(Trouble::Full)?).await.map(drop)
    }

    fn questions(&self) -> MutexGuard<'_, HashMap<u64, Question>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer to a question of this node.
    fn answered(&self, from: NodeId, number: u64, content: Bytes) {
        let mut questions = self.questions();
        let Some(question) = questions.get_mut(&number) else { return };
        let Some(place) = question.wanted.iter().position(|wanted| *wanted == from) else { return };
        if question.bytes + content.len() > ANSWERS_BYTES_MAX {
            return;
        }
        question.wanted.swap_remove(place);
        question.bytes += content.len();
        question.answers.push(content);
        if question.wanted.is_empty() {
            question.waits = None;
        }
    }
}

/// `None` where the letter is too large.
fn publish(channel: &[u8], letter: &Letter) -> Option<Call> {
    let letter = letter.encode();
    // Its head has a few words.
    (letter.len() <= CONTENT_BYTES_MAX).then(|| Call::command(channel, &[b"SPUBLISH", channel, &letter]))
}
