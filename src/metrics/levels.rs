//! What a scrape asks others for: they know it anyway, and nothing is counted twice.
use std::fmt;
use std::sync::OnceLock;

/// How a server of the configuration does, with all its addresses. Its labels come from the configuration: no peer can
/// make a new series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLevels {
    /// Its upstream's name.
    pub upstream: String,
    /// As it is configured.
    pub server: String,
    /// Whether it is chosen now.
    pub healthy: bool,
    /// Sessions and requests that use it.
    pub used: usize,
    /// Connections that could not be made.
    pub connect_failures: u64,
    /// Times that it was left alone for a while because of that.
    pub ejections: u64,
}

/// How the node stands among the others of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterLevels {
    /// Nodes that live, this one included.
    pub nodes: usize,
    /// Whether Redis is reached.
    pub reached: bool,
    /// Answers of other nodes that were missing, so far.
    pub unanswered: u64,
}

/// Who is asked, where somebody is.
pub(super) struct Source<T>(OnceLock<Box<dyn Fn() -> T + Send + Sync>>);

impl<T> Default for Source<T> {
    fn default() -> Self {
        Source(OnceLock::new())
    }
}

impl<T> fmt::Debug for Source<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl<T> Source<T> {
    /// Has this asked from now on. The first is the only one.
    pub fn set(&self, read: impl Fn() -> T + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(read));
    }

    /// What there is now; `None` where nobody is asked.
    pub fn read(&self) -> Option<T> {
        self.0.get().map(|read| read())
    }
}
