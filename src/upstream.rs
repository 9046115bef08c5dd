//! Backends behind proxy routes: which server is asked, the upgrade, and the relay of its frames.
//!
//! [`Upstreams::open`] connects to a server and upgrades there; only when its 101 has been verified is
//! there a [`Backend`], and only with one can a [`Relay`] be made. The relay forwards the very bytes of
//! both sides and counts them; it adds no frame but its own pings and the Close.
//!
//! [`Lines::send`] passes an ordinary request on, and its answer back, as streams.
mod handshake;
mod headers;
mod http;
mod pool;
mod relay;
mod server;

pub use handshake::{Backend, Forward, Unopened};
pub use http::{BodyError, Download, Hints, Lines, Ordinary, Unanswered};
pub use pool::{Affinity, Upstreams};
pub use relay::{Ended, Relay};
pub use server::{Lease, Proxied, Server, Undialed};
