//! wsgate: a WebSocket gateway.
pub mod admin;
pub mod admission {
    //! admit(): every check in order.
}
pub mod close;
pub mod config;
pub mod health;
pub mod identity;
pub mod logging;
pub mod metrics;
pub mod notify;
