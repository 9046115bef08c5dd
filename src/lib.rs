//! wsgate: a WebSocket gateway.
pub mod upstream;
pub mod admission {
    //! admit(): every check in order.
}
pub mod rooms;
pub mod shard;
pub mod outbox;
pub mod ws;
pub mod limits;
pub mod metrics;
pub mod close;
pub mod identity;
pub mod config;
