//! Backends behind proxy routes: which server is asked, the upgrade, and the relay of its frames.
//!
//! [`Upstreams::open`] connects to a server and upgrades there; only when its 101 has been verified is
//! there a [`Backend`], and only with one can a [`Relay`] be made. The relay forwards the very bytes of
//! both sides and counts them; it adds no frame but its own pings and the Close.
//!
//! [`Lines::send`] passes an ordinary request on, and its answer back, as streams.
mod balance;
mod check;
mod condition;
mod handshake;
mod headers;
mod http;
mod names;
mod pool;
mod proxy_header;
mod relay;
mod server;
mod upkeep;

pub use handshake::{Backend, Forward, Refused, Unopened};
pub use http::{BodyError, Download, Hints, Lines, Ordinary, Unanswered, discard};
pub use pool::{AddressLevel, Affinity, Level, Upstreams, trust};
pub use relay::{Ended, Relay};
pub use server::{Lease, Proxied, Server, Unavailable, Undialed};
