//! One thread's way to Redis. Nothing here waits: calls are taken, and what comes of them is reported.
//!
//! For every master there is one connection (RESP3), over which calls are pipelined in their order and messages of
//! sharded channels come back. A connection that fails is made anew with a growing pause, and its subscriptions are
//! gone: [`Report::Up`] says that they are to be made again.
mod connection;
mod masters;
mod redis;
mod resting;
mod seek;
mod upkeep;
mod wire;

pub use redis::{Redis, Shards};

use super::script::{Call, Reply, Script};
use super::slots::{Slots, slot_of};
use crate::config::RedisServer;
use crate::metrics::RedisCall;
use bytes::Bytes;
use connection::{Connection, Heard, Sent};
use masters::{Masters, State};
use redis::{Fault, said};
use resting::{Resting, TRIED_FOR};
use seek::Seeking;
use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use upkeep::Refusal;

/// Most bytes of calls that are not answered.
const CALLS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How often connections are looked after.
const BEAT: Duration = Duration::from_millis(500);
/// How long connecting to a master may take, all that comes before the first call included.
const ENTERED_WITHIN: Duration = Duration::from_secs(3);
/// The pause before the first try to reach Redis again; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest. A connection that lived for so long was a good one, and the next pause is short again.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The way to Redis.
pub struct Link {
    redis: Arc<Redis>,
    scripts: &'static [&'static Script],
    /// Whose counters are used; none: those of threads that are no shard.
    shard: Option<usize>,
    masters: Masters,
    /// Whether a shard has told that it reaches all masters.
    reached: bool,
    /// Whether slots may move: then calls are kept until they are answered.
    cluster: bool,
    seeking: Option<Seeking>,
    /// When masters are sought next.
    seek_at: Option<Instant>,
    /// When they were sought last.
    sought_at: Option<Instant>,
    /// Who is asked first: the server that Redis itself has named.
    hint: Option<RedisServer>,
    pause: Duration,
    resting: Resting,
    /// Slots in which Redis has unsubscribed something.
    unsubscribed: BTreeSet<u16>,
    reports: VecDeque<Report>,
    /// Of all calls that are not answered.
    bytes: usize,
    calls: u64,
    /// Why Redis is not reached.
    fault: Option<String>,
    /// Whose turn it is to be read first.
    turn: usize,
    beat_at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Of the task that polls.
    waker: Waker,
}

/// What has happened.
#[derive(Debug)]
pub enum Report {
    /// A call is answered. Calls of one slot are carried out and answered in their order; only while a slot moves from
    /// one master to another, those over the same keys are, and others may be before them.
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
    /// A way to this Redis, over whose connections these scripts are loaded, and which is counted by this shard. Nothing
    /// is connected before the first poll.
    pub fn new(redis: &Arc<Redis>, scripts: &'static [&'static Script], shard: Option<usize>) -> Link {
        if shard.is_some() {
            redis.shard_changed(|shards| shards.all += 1);
        }
        Link {
            redis: redis.clone(),
            scripts,
            shard,
            masters: Masters::new(),
            reached: false,
            cluster: false,
            seeking: None,
            seek_at: None,
            sought_at: None,
            hint: None,
            pause: PAUSE_MIN,
            resting: Resting::default(),
            unsubscribed: BTreeSet::new(),
            reports: VecDeque::new(),
            bytes: 0,
            calls: 0,
            fault: None,
            turn: 0,
            beat_at: None,
            timer: None,
            waker: Waker::noop().clone(),
        }
    }

    /// Sends a call, at the latest with the next [`flush`](Self::flush). Answered by [`Report::Answered`], whatever happens.
    pub fn call(&mut self, ticket: u64, call: Call) {
        let Call { slot, bytes } = call;
        let length = bytes.len();
        self.calls += 1;
        self.bytes += length;
        let (number, kept) = (self.calls, self.cluster);
        let mut sent = Sent { ticket, slot, length, number, kept, again: None, refused: None };
        if self.bytes > CALLS_BYTES_MAX {
            return self.answer_at_once(&sent, Trouble::Full);
        }
        if let Some(resting) = self.resting.get_mut(slot) {
            sent.again = Some(bytes);
            resting.calls.insert(sent.number, sent);
            return;
        }
        match self.masters.connection(slot) {
            Some(connection) => {
                let cx = &mut Context::from_waker(&self.waker);
                connection.send(sent, bytes, cx);
            }
            None => self.answer_at_once(&sent, Trouble::Away),
        }
    }

    /// Subscribes to a sharded channel: pushes come from what is published after calls that were made before this. Lost
    /// with the connection; where Redis is away it does nothing.
    pub fn subscribe(&mut self, channel: &[u8]) {
        let Call { slot, bytes } = Call::command(channel, &[b"SSUBSCRIBE", channel]);
        if let Some(connection) = self.masters.connection(slot) {
            connection.subscribe(slot, bytes);
        }
    }

    /// Undoes that.
    pub fn unsubscribe(&mut self, channel: &[u8]) {
        let Call { slot, bytes } = Call::command(channel, &[b"SUNSUBSCRIBE", channel]);
        if let Some(connection) = self.masters.connection(slot) {
            connection.unsubscribe(channel, bytes, self.cluster);
        }
    }

    /// Whether the master of this slot is reached.
    pub fn reaches(&self, slot: u16) -> bool {
        self.masters.reaches(slot)
    }

    /// Writes what was gathered since the last time. Called when there is nothing else to do.
    pub fn flush(&mut self) {
        // The waker of the last poll, so that a socket which is full still wakes whoever polls.
        let cx = &mut Context::from_waker(&self.waker);
        for (_, master) in self.masters.iter_mut() {
            if let State::Ready(connection) = &mut master.state {
                connection.flush(cx);
            }
        }
    }

    /// The next report. Wakes when there may be another, also where that takes time alone.
    pub fn poll_report(&mut self, cx: &mut Context<'_>) -> Poll<Report> {
        if !self.waker.will_wake(cx.waker()) {
            self.waker = cx.waker().clone();
        }
        loop {
            if let Some(report) = self.reports.pop_front() {
                return Poll::Ready(report);
            }
            let worked = self.poll_connections(cx) || self.poll_seeking(cx) || self.poll_time(cx);
            if !worked {
                return Poll::Pending;
            }
        }
    }

    /// Reads one thing from a connection, or gets on with making one. Whether there was something to do.
    fn poll_connections(&mut self, cx: &mut Context<'_>) -> bool {
        let places = self.masters.places();
        for step in 0..places {
            let place = (self.turn + step) % places;
            let Some(master) = self.masters.get_mut(place) else { continue };
            match &mut master.state {
                State::Ready(connection) => match connection.poll_heard(cx) {
                    Poll::Ready(Ok(heard)) => self.hear(place, heard),
                    Poll::Ready(Err(fault)) => self.lose(place, &fault),
                    Poll::Pending => continue,
                },
                State::Entering(entering) => match entering.as_mut().poll(cx) {
                    Poll::Ready(Ok(talk)) => self.reach(place, Connection::new(talk)),
                    Poll::Ready(Err(fault)) => self.lose(place, &fault),
                    Poll::Pending => continue,
                },
                State::Lost => continue,
            }
            self.turn = place + 1;
            return true;
        }
        false
    }

    fn hear(&mut self, place: usize, heard: Heard) {
        match heard {
            Heard::Pushed { channel, payload } => self.reports.push_back(Report::Pushed { channel, payload }),
            Heard::Answered(sent, answer) => {
                self.resting.answered(sent.slot);
                match answer {
                    Ok(reply) => self.answer(&sent, Ok(reply)),
                    Err(error) => self.refuse(place, sent, &error),
                }
            }
            Heard::Unsubscribed(channel) => {
                self.unsubscribed.insert(slot_of(&channel));
                self.seek_soon(None);
            }
            Heard::Unsubscribable(slot, error) => match Refusal::of(&error) {
                Refusal::Moved(server) => {
                    self.unsubscribed.insert(slot);
                    self.seek_soon(server);
                }
                Refusal::Moving | Refusal::Unfit | Refusal::Final => self.lose(place, &Fault::Refused(said(&error))),
            },
        }
    }

    /// What comes of a call that Redis has not carried out.
    fn refuse(&mut self, place: usize, mut sent: Sent, error: &str) {
        match Refusal::of(error) {
            Refusal::Unfit => {
                self.answer(&sent, Err(Trouble::Away));
                return self.lose(place, &Fault::Refused(said(error)));
            }
            Refusal::Moved(server) => self.seek_soon(server),
            Refusal::Moving => {}
            Refusal::Final => return self.answer(&sent, Err(Trouble::Refused(said(error)))),
        }
        let now = Instant::now();
        let tried = now.duration_since(*sent.refused.get_or_insert(now));
        if sent.again.is_none() || tried > TRIED_FOR {
            return self.answer(&sent, Err(Trouble::Refused(said(error))));
        }
        let resting = self.resting.begin(sent.slot, &self.masters);
        resting.calls.insert(sent.number, sent);
    }

    /// A master can be called.
    fn reach(&mut self, place: usize, connection: Connection) {
        let Some(master) = self.masters.get_mut(place) else { return };
        master.state = State::Ready(Box::new(connection));
        self.redis.counters(self.shard).redis_connected();
        let RedisServer { host, port } = &master.server;
        match self.shard {
            None => tracing::info!(target: "wsgate::cluster", %host, port, "Redis is reached"),
            Some(shard) => tracing::debug!(target: "wsgate::cluster", shard, %host, port, "Redis is reached"),
        }
        let slots = master.slots.clone();
        self.look_around();
        self.fault = None;
        self.masters.assign(place);
        if !slots.0.is_empty() {
            self.reports.push_back(Report::Up(slots));
        }
        self.await_astray();
    }

    /// A master cannot be called any more, or could not be entered.
    fn lose(&mut self, place: usize, fault: &Fault) {
        let slots = self.masters.reached_by(place);
        let Some(master) = self.masters.get_mut(place) else { return };
        let RedisServer { host, port } = master.server.clone();
        match std::mem::replace(&mut master.state, State::Lost) {
            State::Ready(connection) => {
                tracing::warn!(target: "wsgate::cluster", shard = self.shard, %host, port, %fault, "Redis is lost");
                self.redis.counters(self.shard).redis_lost();
                if connection.since.elapsed() >= PAUSE_MAX {
                    self.pause = PAUSE_MIN;
                }
                self.give_up(&slots);
                for sent in connection.into_calls() {
                    self.resting.answered(sent.slot);
                    self.answer(&sent, Err(Trouble::Away));
                }
                self.leave(slots);
            }
            State::Entering(_) | State::Lost => {
                let unreached = self.masters.assign(place);
                self.leave(unreached);
                self.complain(format!("{host}:{port}: {fault}"));
            }
        }
        self.seek_later();
    }

    /// These slots are not reached any more.
    fn leave(&mut self, slots: Slots) {
        self.give_up(&slots);
        if !slots.0.is_empty() {
            self.reports.push_back(Report::Down(slots));
        }
    }

    /// Answers the calls that wait for these slots.
    fn give_up(&mut self, slots: &Slots) {
        let given_up: Vec<u16> = self.resting.slots().filter(|slot| slots.contains(*slot)).collect();
        for slot in given_up {
            let calls = self.resting.end(slot).map(|slot| slot.calls).unwrap_or_default();
            calls.values().for_each(|sent| self.answer(sent, Err(Trouble::Away)));
        }
    }

    /// Outside of a poll: nobody else would notice.
    fn answer_at_once(&mut self, sent: &Sent, trouble: Trouble) {
        self.answer(sent, Err(trouble));
        self.waker.wake_by_ref();
    }

    fn answer(&mut self, sent: &Sent, answer: Result<Reply, Trouble>) {
        self.bytes -= sent.length;
        let outcome = match &answer {
            Ok(_) => RedisCall::Answered,
            Err(Trouble::Away) => RedisCall::Away,
            Err(Trouble::Full) => RedisCall::Full,
            Err(Trouble::Refused(_)) => RedisCall::Refused,
        };
        self.redis.counters(self.shard).redis_called(outcome);
        self.reports.push_back(Report::Answered { ticket: sent.ticket, answer });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.shard.is_some() {
            let reached = usize::from(self.reached);
            self.redis
                .shard_changed(|shards| (shards.all, shards.reaching) = (shards.all - 1, shards.reaching - reached));
        }
        for (_, master) in self.masters.iter_mut() {
            if let State::Ready(_) = master.state {
                self.redis.counters(self.shard).redis_left();
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
