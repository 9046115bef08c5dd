//! One thread's way to Redis. Nothing here waits: calls are taken, and what comes of them is reported.
//!
//! For every master there is one connection (RESP3), over which calls are pipelined in their order and messages of
//! sharded channels come back. A connection that fails is made anew with a growing pause, and its subscriptions are
//! gone: [`Report::Up`] says that they are to be made again.
use super::script::{Call, Reply, Script};
use super::slots::Slots;
use crate::config;
use bytes::Bytes;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The way to Redis.
pub struct Link {}

/// What has happened.
#[derive(Debug)]
pub enum Report {
    /// A call is answered. The answers of calls of one slot come in the order of the calls.
    Answered {
        /// What [`Link::call`] was given.
        ticket: u64,
        /// The answer.
        answer: Result<Reply, Trouble>,
    },
    /// A message came over a sharded channel.
    Pushed {
        /// The channel.
        channel: Bytes,
        /// The message.
        payload: Bytes,
    },
    /// The master of these slots is reached, for the first time, anew, or another one than before: nothing is subscribed
    /// there, and pushes may have been lost.
    Up(Slots),
    /// The master of these slots is not reached: calls are answered with [`Trouble::Away`] at once, those on their way
    /// as well.
    Down(Slots),
}

/// Why a call has no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Redis is not reached. Where the call was on its way it may have been carried out.
    Away,
    /// Too much is on its way already: not sent.
    Full,
    /// Redis refused it: its error, without what was sent. Not carried out.
    Refused(Box<str>),
}

impl Link {
    /// A way to this Redis, over whose connections these scripts are loaded. Nothing is connected before the first poll.
    pub fn new(_config: &Arc<config::Cluster>, _scripts: &'static [&'static Script]) -> Link {
        Link {}
    }

    /// Sends a call, at the latest with the next [`flush`](Self::flush). Answered by [`Report::Answered`], whatever happens.
    pub fn call(&mut self, _ticket: u64, _call: Call) {}

    /// Subscribes to a sharded channel: pushes come from what is published after calls that were made before this. Lost
    /// with the connection; where Redis is away it does nothing.
    pub fn subscribe(&mut self, _channel: &[u8]) {}

    /// Undoes that.
    pub fn unsubscribe(&mut self, _channel: &[u8]) {}

    /// Whether the master of this slot is reached.
    pub fn reaches(&self, _slot: u16) -> bool {
        false
    }

    /// Writes what was gathered since the last time. Called when there is nothing else to do.
    pub fn flush(&mut self) {}

    /// The next report. Wakes when there may be another, also where that takes time alone.
    pub fn poll_report(&mut self, _cx: &mut Context<'_>) -> Poll<Report> {
        Poll::Pending
    }
}
