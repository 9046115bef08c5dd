//! What several nodes share: the way to Redis, and who they are.
//!
//! [`link`] is one thread's way to Redis, whatever stands behind it: one server, a master that Sentinels
//! name, or a Redis Cluster. A shard has one for its rooms, the main thread one for [`nodes`]: the leases by which nodes
//! know that others live, what they ask each other, and calls of whoever needs Redis off the shards.
//!
//! Only this module names the crate `redis-protocol`.
pub mod link;
pub mod nodes;
pub mod rates;
pub mod script;
pub mod slots;

pub use link::{Link, Redis, Report, Trouble};
pub use nodes::{Live, LiveNodes, NodeId, Nodes};
pub use script::{Call, Reply, Script};
