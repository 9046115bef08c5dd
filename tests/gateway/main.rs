//! The real binary on free ports, as its users meet it: one file for each theme.
#![allow(missing_docs, clippy::unwrap_used)]
#[path = "../support/mod.rs"]
mod support;

mod admin_api;
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
mod rooms_durable;
mod rooms_errors;
mod rooms_hook;
mod running;
mod smuggling;
mod stopping;
mod tls;
mod tokens;
mod wire;
