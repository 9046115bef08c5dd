//! admit(): every check in order.
pub mod origin;
pub mod token;
