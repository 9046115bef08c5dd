//! The nodes, and how they know of each other.
use super::link::Trouble;
use super::script::{Call, Reply};
use arc_swap::ArcSwap;
use bytes::Bytes;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

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

    /// Rises when the list changes.
    pub fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }

    /// The list.
    pub fn now(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Another list holds from now on.
    pub fn set(&self, live: Live) {
        self.live.store(Arc::new(live));
        self.version.fetch_add(1, std::sync::atomic::Ordering::Release);
    }
}

/// What a message between nodes is about: each has one handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A ban was made or lifted.
    Bans,
    /// What a client says of itself.
    Statuses,
    /// Something is asked, and answered (see [`Nodes::ask_all`]).
    Desk,
}

/// What does something with a message of another node. Called on the main thread; must not wait.
pub type Handler = Box<dyn Fn(Bytes) + Send + Sync>;
/// What answers another node's question, on the main thread.
pub type Answerer = Box<dyn Fn(Bytes) -> std::pin::Pin<Box<dyn Future<Output = Bytes> + Send>> + Send + Sync>;

/// The node's place among the others: for every thread to ask.
pub struct Nodes {
    live: Arc<LiveNodes>,
}

impl Nodes {
    /// The nodes that live.
    pub fn live(&self) -> &Arc<LiveNodes> {
        &self.live
    }

    /// Whether Redis is reached.
    pub fn reaches_redis(&self) -> bool {
        false
    }

    /// Calls Redis, over the main thread's link.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn call(&self, _call: Call) -> Result<Reply, Trouble> {
        Err(Trouble::Away)
    }

    /// Has messages about this handled, from now on.
    pub fn handle(&self, _topic: Topic, _handler: Handler) {}

    /// Has questions of other nodes answered, from now on.
    pub fn answer(&self, _answerer: Answerer) {}

    /// Called whenever Redis is reached again, and pushes may have been lost.
    pub fn on_reached(&self, _handler: Box<dyn Fn() + Send + Sync>) {}

    /// Tells all other nodes. Where it returns, Redis has taken it.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn tell_all(&self, _topic: Topic, _payload: Bytes) -> Result<(), Trouble> {
        Err(Trouble::Away)
    }

    /// Asks all other nodes that live, and waits at most so long. The answers that came, and the names of those from
    /// whom none came.
    pub async fn ask_all(&self, _question: Bytes, _wait: Duration) -> (Vec<Bytes>, Vec<Arc<str>>) {
        (Vec::new(), Vec::new())
    }
}
