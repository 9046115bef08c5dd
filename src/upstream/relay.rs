//! The relay: the frames of both sides, walked and counted, and forwarded byte for byte.
use super::handshake::Backend;
use crate::close::Close;
use crate::config::Route;
use crate::limits::deadlines::Deadlines;
use crate::limits::meter::{Meter, Traffic};
use crate::shard::Seat;
use bytes::Bytes;
use std::sync::Arc;

/// A client and a backend that have both upgraded.
pub struct Relay {
    /// The client.
    pub seat: Seat,
    /// The backend.
    pub backend: Backend,
    /// Frames that the client sent right behind its request head.
    pub early: Bytes,
    /// Charges the client.
    pub meter: Meter,
    /// The route, with its limits.
    pub route: Arc<Route>,
    /// The client's deadlines.
    pub deadlines: Deadlines,
}

/// How a relayed session ended.
#[derive(Debug)]
pub struct Ended {
    /// Who closed it, with which code, and why.
    pub close: Close,
    /// What was forwarded.
    pub traffic: Traffic,
}

impl Relay {
    /// Relays until either side, or the gateway, closes. Both sockets are closed when it is done.
    pub async fn run(self) -> Ended {
        unimplemented!()
    }
}
