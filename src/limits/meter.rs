//! What one session is charged, and what it counted.
use super::ClientPermit;
use super::gcra::{Rate, nanos};
use super::shared::Kind;
use crate::config::{FromUpstream, Limits, OnExcess};
use std::time::Duration;
use tokio::time::Instant;

/// The rates of a route in one direction, ready for use.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    pub(super) messages: Option<Rate>,
    pub(super) bytes: Option<Rate>,
    /// Whoever sends too much is not read for a while (`on_excess = "pause"`).
    pauses: bool,
}

impl Rates {
    /// From the route's limits. The burst of bytes is one second's worth, or `max_message_size` where that is larger.
    pub fn new(limits: &Limits) -> Rates {
        Rates {
            messages: limits.messages_per_second.map(|n| Rate::new(n.into(), limits.message_burst.into())),
            bytes: limits.bytes_per_second.map(|n| bytes(n, limits.max_message_size)),
            pauses: limits.on_excess == OnExcess::Pause,
        }
    }

    /// What holds for a backend, the burst likewise; `None`: nothing.
    pub fn from_upstream(limits: &FromUpstream) -> Option<Rates> {
        let FromUpstream { messages_per_second, bytes_per_second, .. } = *limits;
        (messages_per_second.is_some() || bytes_per_second.is_some()).then(|| Rates {
            messages: messages_per_second.map(|n| Rate::new(n.into(), limits.message_burst.into())),
            bytes: bytes_per_second.map(|n| bytes(n, limits.max_message_size)),
            pauses: limits.on_excess == OnExcess::Pause,
        })
    }
}

fn bytes(per_second: u64, max_message_size: u64) -> Rate {
    let burst = if max_message_size == u64::MAX { per_second } else { per_second.max(max_message_size) };
    Rate::new(per_second, burst)
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

    /// How long nothing more may be read, of one that is paused beyond its rates; `None`: more may be.
    pub fn pause(&self, now: Instant) -> Option<Duration> {
        if !self.rates.pauses {
            return None;
        }
        let now = nanos(now);
        let messages = self.rates.messages.as_ref().and_then(|rate| self.permit.bucket(Kind::Messages).wait(rate, now));
        let bytes = self.rates.bytes.as_ref().and_then(|rate| self.permit.bucket(Kind::Bytes).wait(rate, now));
        messages.max(bytes)
    }

    /// Whether it pauses beyond the rates.
    pub fn pauses(&self) -> bool {
        self.rates.pauses
    }

    /// Charges messages and payload bytes. One that is [paused](Self::pause) may owe what is not there: the bytes of
    /// one message beyond its burst, and what its other sockets took at the same time.
    ///
    /// # Errors
    /// How long until the messages are there, else until the bytes are; then the messages are charged all the same.
    pub fn charge(&self, messages: u64, bytes: u64, now: Instant) -> Result<(), Duration> {
        let now = nanos(now);
        // Asked once: with a look for each bucket a message takes nearly twice as long here.
        match self.permit.account() {
            None => self.charge_and(messages, bytes, now, |_, _| ()),
            Some(account) => self.charge_and(messages, bytes, now, |kind, cost| account(kind, cost, now)),
        }
    }

    /// Calls `took` with what each bucket lost.
    fn charge_and(&self, messages: u64, bytes: u64, now: u64, took: impl Fn(Kind, u64)) -> Result<(), Duration> {
        let take = |kind, rate: &Rate, units| {
            let bucket = self.permit.bucket(kind);
            if self.rates.pauses {
                bucket.owe(rate, units, now);
            } else {
                bucket.take(rate, units, now)?;
            }
            took(kind, rate.cost(units));
            Ok(())
        };
        if messages > 0
            && let Some(rate) = &self.rates.messages
        {
            take(Kind::Messages, rate, messages)?;
        }
        if bytes > 0
            && let Some(rate) = &self.rates.bytes
        {
            take(Kind::Bytes, rate, bytes)?;
        }
        Ok(())
    }
}
