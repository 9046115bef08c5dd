//! What a link does by itself: seeks masters, looks after connections, tries again what was refused.
use super::masters::{Entering, Moved, State, add};
use super::redis::Fault;
use super::resting::REST;
use super::seek::{Found, seek};
use super::{BEAT, ENTERED_WITHIN, Link, PAUSE_MAX, Report};
use crate::cluster::slots::Slots;
use crate::config::RedisServer;
use std::task::{Context, Poll};
use tokio::time::{Instant, sleep_until, timeout};

impl Link {
    /// Gets on with seeking masters. Whether there was something to do.
    pub(super) fn poll_seeking(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(seeking) = &mut self.seeking else { return false };
        let Poll::Ready(found) = seeking.as_mut().poll(cx) else { return false };
        self.seeking = None;
        match found {
            Ok(found) => self.settle(found),
            Err(fault) => {
                self.complain(fault);
                self.seek_later();
            }
        }
        true
    }

    /// These are the masters now.
    fn settle(&mut self, found: Found) {
        self.cluster = found.cluster;
        let (redis, scripts) = (&self.redis, self.scripts);
        let Moved { mut reached, unreached } = self.masters.set(found, |server| {
            let (redis, server) = (redis.clone(), server.clone());
            let entering = async move {
                let entered = timeout(ENTERED_WITHIN, redis.enter(&server, scripts)).await;
                entered.unwrap_or(Err(Fault::Wrong("it does not answer")))
            };
            Box::pin(entering) as Entering
        });
        let mut anew = Slots::default();
        for slot in std::mem::take(&mut self.unsubscribed) {
            if self.masters.reaches(slot) && !reached.contains(slot) {
                add(&mut anew, slot);
            }
        }
        reached.0.append(&mut anew.0);
        self.leave(unreached);
        if !reached.0.is_empty() {
            self.reports.push_back(Report::Up(reached));
        }
        self.await_astray();
        self.forget_idle();
        // A cluster may serve the others meanwhile (`cluster-require-full-coverage no`), and nothing tells when it has all.
        if !self.masters.cover_all() {
            self.seek_later();
        }
    }

    /// Slots that have another master now rest until what is on its way to the one before is answered.
    pub(super) fn await_astray(&mut self) {
        for slot in self.masters.astray() {
            self.resting.begin(slot, &self.masters);
        }
        self.resting.due = self.resting.due.map(|_| Instant::now());
    }

    /// Says why no master is reached, once for each reason, and for all shards by the main thread.
    pub(super) fn complain(&mut self, fault: String) {
        if self.fault.as_ref() != Some(&fault) {
            match self.shard {
                None => tracing::warn!(target: "wsgate::cluster", fault, "Redis is not reached"),
                Some(shard) => tracing::debug!(target: "wsgate::cluster", shard, fault, "Redis is not reached"),
            }
            self.fault = Some(fault);
        }
    }

    fn forget_idle(&mut self) {
        for _ in 0..self.masters.forget_idle() {
            self.redis.counters(self.shard).redis_left();
        }
    }

    /// Has the masters sought at once, or after a rest where that was done just now: something lies elsewhere. `hint`: a
    /// server that knows.
    pub(super) fn seek_soon(&mut self, hint: Option<RedisServer>) {
        self.hint = hint.or(self.hint.take());
        let at = self.sought_at.map_or_else(Instant::now, |at| at + REST);
        self.seek_at = Some(self.seek_at.map_or(at, |planned| planned.min(at)));
    }

    /// Has the masters sought after a pause, which grows: something is not reached.
    pub(super) fn seek_later(&mut self) {
        if self.seek_at.is_none() {
            self.seek_at = Some(Instant::now() + self.pause.mul_f64(rand::random_range(0.5..1.0)));
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
    }

    /// Does what is due by time. Whether something was.
    pub(super) fn poll_time(&mut self, cx: &mut Context<'_>) -> bool {
        let now = || Instant::now();
        let beat_at = *self.beat_at.get_or_insert_with(|| {
            self.seek_at = Some(now());
            now() + BEAT
        });
        let due = [self.seek_at.filter(|_| self.seeking.is_none()), self.resting.due].into_iter().flatten();
        let due = due.fold(beat_at, Instant::min);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        if timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        let now = now();
        if self.seeking.is_none() && self.seek_at.is_some_and(|at| at <= now) {
            self.begin_seeking(now);
        }
        if self.resting.due.is_some_and(|at| at <= now) {
            self.try_again(now);
        }
        if beat_at <= now {
            self.beat_at = Some(now + BEAT);
            self.beat(cx);
        }
        true
    }

    fn begin_seeking(&mut self, now: Instant) {
        self.seek_at = None;
        self.sought_at = Some(now);
        let mut servers: Vec<RedisServer> = self.hint.take().into_iter().collect();
        // Only a cluster's are asked for others: a master of before may be one that others have replaced.
        let known = self.masters.servers().filter(|_| self.cluster);
        for server in self.redis.servers.iter().chain(known) {
            if !servers.contains(server) {
                servers.push(server.clone());
            }
        }
        self.seeking = Some(Box::pin(seek(self.redis.clone(), servers)));
    }

    fn beat(&mut self, cx: &mut Context<'_>) {
        let silent = self.masters.iter_mut().filter_map(|(place, master)| match &mut master.state {
            State::Ready(connection) => Some((place, connection.beat(cx).err()?)),
            State::Entering(_) | State::Lost => None,
        });
        let silent: Vec<(usize, Fault)> = silent.collect();
        silent.iter().for_each(|(place, fault)| self.lose(*place, fault));
        self.forget_idle();
        self.look_around();
    }

    /// Whether a shard reaches all masters is told where it has changed.
    pub(super) fn look_around(&mut self) {
        let reaches = self.shard.is_some() && self.masters.are_reached();
        match (std::mem::replace(&mut self.reached, reaches), reaches) {
            (false, true) => self.redis.shard_changed(|shards| shards.reaching += 1),
            (true, false) => self.redis.shard_changed(|shards| shards.reaching -= 1),
            (false, false) | (true, true) => {}
        }
    }

    /// Sends the calls of slots at rest, where none of theirs is on its way any more.
    fn try_again(&mut self, now: Instant) {
        self.resting.due = Some(now + REST);
        let slots: Vec<u16> = self.resting.slots().collect();
        for slot in slots {
            let Some(resting) = self.resting.get_mut(slot) else { continue };
            let (is_over, overtakes) = (resting.is_over(now), resting.on_their_way > 0);
            // The master of before would only refuse again what another is to get.
            let is_sought = self.seeking.is_some() || self.seek_at.is_some_and(|at| at <= now + REST);
            if !is_over && (is_sought && self.cluster || self.masters.is_entering(slot)) {
                continue;
            }
            match self.masters.connection(slot) {
                Some(connection) if !overtakes => {
                    let calls = self.resting.end(slot).map(|slot| slot.calls).unwrap_or_default();
                    let cx = &mut Context::from_waker(&self.waker);
                    for mut sent in calls.into_values() {
                        let bytes = sent.again.take().unwrap_or_default();
                        connection.send(sent, bytes, cx);
                    }
                    connection.flush(cx);
                }
                Some(_) => {}
                None if is_over => self.give_up(&Slots(vec![(slot, slot)])),
                None => {}
            }
        }
    }
}

/// What an error of Redis means for a call, which was not carried out.
pub(super) enum Refusal {
    /// The slot lies elsewhere: there.
    Moved(Option<RedisServer>),
    /// The slot is on its way to another master.
    Moving,
    /// The server can serve nobody now.
    Unfit,
    /// It is the call's own.
    Final,
}

impl Refusal {
    pub(super) fn of(error: &str) -> Refusal {
        let mut words = error.split(' ');
        match words.next().unwrap_or_default() {
            "MOVED" => Refusal::Moved(words.nth(1).and_then(server_of)),
            "ASK" | "TRYAGAIN" => Refusal::Moving,
            "NOSCRIPT" | "READONLY" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" => Refusal::Unfit,
            _ => Refusal::Final,
        }
    }
}

fn server_of(address: &str) -> Option<RedisServer> {
    let (host, port) = address.rsplit_once(':')?;
    let is_host = !host.is_empty() && host.len() <= 255;
    Some(RedisServer { host: host.into(), port: port.parse().ok().filter(|_| is_host)? })
}
