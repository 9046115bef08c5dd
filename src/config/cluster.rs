//! `[cluster]`.
use super::secret::Secret;
use std::path::PathBuf;
use std::sync::Arc;

/// Several nodes that share their rooms over Redis.
#[derive(Debug)]
pub struct Cluster {
    /// Where Redis is looked for, at least one. What answers there says by itself whether it is a master, a node of a
    /// Redis Cluster (HELLO's `mode`), or a Sentinel, which is asked for the master of the name below.
    pub servers: Vec<RedisServer>,
    /// The name of the master that Sentinels are asked for: the path of the URLs; `None`: these are no Sentinels.
    pub sentinel_master: Option<Arc<str>>,
    /// Whether the connections are under TLS (`rediss://`), those to servers that others name too.
    pub tls: bool,
    /// Certificates of the authorities that Redis' must chain to; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The ACL user; `None`: Redis' default user.
    pub user: Option<Arc<str>>,
    /// Its password.
    pub password: Option<Secret>,
    /// What all keys and channels begin with: without braces.
    pub prefix: Arc<str>,
    /// The name of this node, which no other has.
    pub node: Arc<str>,
    /// Whether a client's rates of messages and handshakes count over all nodes.
    pub shared_limits: bool,
}

/// A host and port of the file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RedisServer {
    /// A name, or an address without brackets.
    pub host: Arc<str>,
    /// The port.
    pub port: u16,
}
