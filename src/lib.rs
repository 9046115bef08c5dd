//! wsgate: a WebSocket gateway.
pub mod admin;
pub mod notify;
pub mod logging;
pub mod tls;
pub mod admission;
pub mod rooms;
pub mod upstream;
pub mod health;
pub mod shard;
pub mod outbox;
pub mod ws;
pub mod limits;
pub mod metrics;
pub mod close;
pub mod identity;
pub mod config;
