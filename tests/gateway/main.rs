//! The real binary on free ports, as its users meet it: one file for each theme.
#![allow(missing_docs, clippy::unwrap_used)]
#[path = "../support/mod.rs"]
mod support;

mod admission;
mod closing;
mod crowds;
mod descriptors;
mod heads;
mod limits;
mod notify;
mod observing;
mod older_client;
mod origins;
mod peers;
mod presence;
mod proxy;
mod proxy_headers;
mod rooms;
mod rooms_auth;
mod rooms_duplicates;
mod rooms_errors;
mod rooms_fields;
mod rooms_help;
mod rooms_policies;
mod rooms_presence;
mod rooms_recovery;
mod rooms_slow;
mod rooms_typing;
mod running;
mod smuggling;
mod stopping;
mod tls;
mod tokens;
mod wire;
