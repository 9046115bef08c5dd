//! The signals that the gateway hears.
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that people and service managers send.
pub(super) struct Signals {
    pub(super) stop: Stop,
    pub(super) reload: Signal,
}

/// The two that stop the gateway.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Signals> {
        Ok(Signals {
            stop: Stop { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? },
            reload: signal(SignalKind::hangup())?,
        })
    }
}

impl Stop {
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => (),
            _ = self.interrupt.recv() => (),
        }
    }
}
