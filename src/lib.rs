//! wsgate: a WebSocket gateway.
pub mod tls;

pub mod admission;

pub mod close;
pub mod config;
pub mod identity;
