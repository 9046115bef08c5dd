//! wsgate: a WebSocket gateway.
//!
//! The whole program is two arrows:
//!
//! ```text
//! Request  ->  Admitted | Refusal     admission: a Refusal becomes an HTTP status or a close code
//! Admitted ->  Close                  session: a Close is a code, a reason, an advice, a metric label
//! ```
//!
//! The modules stand in the order in which a connection meets them, and a file uses only what stands
//! below it. A connection is accepted by [`listen`] on the main thread and handed to a [`shard`]; there
//! [`tls`] and [`front`] read its request, [`admission`] judges it, and [`session`] runs it: with
//! [`rooms`] or an echo, or, through [`upstream`], with a backend. What goes out goes through an
//! [`outbox`]; what comes in is read by [`ws`] and held to [`limits`]. [`bans`], and the history of durable rooms, are kept
//! in the [`store`].
pub mod admin;
pub mod admission;
pub mod bans;
pub mod close;
pub mod cluster;
pub mod config;
pub mod dial;
pub mod front;
pub mod gateway;
pub mod health;
pub mod hook;
pub mod identity;
pub mod limits;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod outbox;
pub mod rooms;
pub mod session;
pub mod shard;
pub mod store;
pub mod tls;
pub mod upstream;
pub mod ws;
