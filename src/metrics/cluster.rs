//! How the node stands among the others: asked for by each scrape.
use std::fmt;
use std::sync::OnceLock;

/// A node of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterLevels {
    /// Nodes that live, this one included.
    pub nodes: usize,
    /// Whether Redis is reached.
    pub reached: bool,
    /// Answers of other nodes that were missing, so far.
    pub unanswered: u64,
}

type Read = dyn Fn() -> ClusterLevels + Send + Sync;

/// Who tells.
#[derive(Default)]
pub(super) struct Cluster(OnceLock<Box<Read>>);

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cluster")
    }
}

impl Cluster {
    pub(super) fn set(&self, read: Box<Read>) {
        // The first is the only one.
        let _ = self.0.set(read);
    }

    /// `None` where nobody tells.
    pub(super) fn read(&self) -> Option<ClusterLevels> {
        self.0.get().map(|read| read())
    }
}
