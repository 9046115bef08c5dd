//! How the servers of upstreams do: asked for by each scrape.
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

type Read = dyn Fn() -> Vec<ServerLevels> + Send + Sync;

/// Who tells.
#[derive(Default)]
pub(super) struct Servers(OnceLock<Box<Read>>);

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Servers")
    }
}

impl Servers {
    pub(super) fn set(&self, read: Box<Read>) {
        // The first is the only one.
        let _ = self.0.set(read);
    }

    /// All of them; none where nobody tells.
    pub(super) fn read(&self) -> Vec<ServerLevels> {
        self.0.get().map(|read| read()).unwrap_or_default()
    }
}
