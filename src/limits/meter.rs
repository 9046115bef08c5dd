//! What one session is charged, and what it counted.
use super::ClientPermit;
use super::gcra::{Rate, nanos};
use crate::config::Limits;
use std::time::Duration;
use tokio::time::Instant;

/// The rates of a route, ready for use.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    messages: Option<Rate>,
    bytes: Option<Rate>,
}

impl Rates {
    /// From the route's limits. The burst of bytes is one second's worth, or `max_message_size` where that is larger.
    pub fn new(limits: &Limits) -> Rates {
        let burst_bytes = |per_second: u64| match limits.max_message_size {
            u64::MAX => per_second,
            size => per_second.max(size),
        };
        Rates {
            messages: limits.messages_per_second.map(|n| Rate::new(n.into(), limits.message_burst.into())),
            bytes: limits.bytes_per_second.map(|n| Rate::new(n, burst_bytes(n))),
        }
    }
}

/// Messages and payload bytes of one session, each way.
#[derive(Debug, Default, Clone, Copy)]
pub struct Traffic {
    /// Messages from the client.
    pub messages_in: u64,
    /// Messages to the client.
    pub messages_out: u64,
    /// Payload bytes from the client.
    pub bytes_in: u64,
    /// Payload bytes to the client.
    pub bytes_out: u64,
}

/// Charges the client's buckets.
pub struct Meter {
    permit: ClientPermit,
    rates: Rates,
}

impl Meter {
    /// Charges the buckets of `permit`.
    pub fn new(permit: ClientPermit, rates: Rates) -> Meter {
        Meter { permit, rates }
    }

    /// Charges the buckets of another permit from now on: the client has said who it is.
    pub fn become_client(&mut self, permit: ClientPermit) {
        self.permit = permit;
    }

    /// Charges messages and payload bytes.
    ///
    /// # Errors
    /// How long until the messages are there, else until the bytes are; then the messages are charged all the same.
    pub fn charge(&self, messages: u64, bytes: u64, now: Instant) -> Result<(), Duration> {
        let now = nanos(now);
        if messages > 0
            && let Some(rate) = &self.rates.messages
        {
            self.permit.messages().take(rate, messages, now)?;
        }
        if bytes > 0
            && let Some(rate) = &self.rates.bytes
        {
            self.permit.bytes().take(rate, bytes, now)?;
        }
        Ok(())
    }
}
