//! wsgate: a WebSocket gateway.
pub mod admission {
    //! admit(): every check in order.
}
pub mod close;
pub mod config;
pub mod identity;
pub mod ws;
