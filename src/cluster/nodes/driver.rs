//! Does what [`Nodes`] are asked for, and keeps the lease: on the main thread.
use super::super::link::{Link, Report, Shards, Trouble};
use super::super::script::{Call, Reply};
use super::super::slots::{SLOTS, Slots, slot_of};
use super::lease::{ABOUT_BYTES_MAX, Leases, Own, Periods};
use super::{About, Live, NodeId, Nodes, Standing, letter::Letter, publish};
use crate::config;
use bytes::Bytes;
use slab::Slab;
use std::future::{poll_fn, ready};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// Calls without an answer.
const CALLS_MAX: usize = 16 * 1024;
/// Questions of others that are being answered; further ones are not.
const ANSWERING_MAX: usize = 64;
/// Time for such an answer: nobody waits longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A shard that does not reach Redis, where the main thread does, is waited for so many times as long: it tries every 2 s.
const SHARDS_INSTANTS: u32 = 5;
/// Beats that follow from what was read, or heard, are no more than so many in a period.
const BEATS_MAX: u32 = 20;

/// What is asked for by other threads.
pub(super) enum Command {
    /// To call Redis.
    Call(Call, oneshot::Sender<Result<Reply, Trouble>>),
    /// To renew the lease soon.
    Beat,
    /// To give the lease up.
    Leave(oneshot::Sender<()>),
}

/// Who waits for the answer of a call.
enum Waiting {
    Caller(oneshot::Sender<Result<Reply, Trouble>>),
    Beat,
    Leave(oneshot::Sender<()>),
    Nobody,
}

/// An answer of this node's to another one's question.
struct Answer {
    to: NodeId,
    number: u64,
    content: Bytes,
}

pub(super) struct Driver {
    link: Link,
    shards: watch::Receiver<Shards>,
    commands: mpsc::Receiver<Command>,
    waiting: Slab<Waiting>,
    answering: JoinSet<Option<Answer>>,
    about: About,
    periods: Periods,
    leases: Leases,
    /// The hash of the leases, and the channel of all nodes.
    keys: [Box<[u8]>; 2],
    /// What the last beat has shown; `None` before the first one.
    own: Option<Own>,
    /// A beat was answered since this was last looked at.
    fresh: bool,
    /// Why the last beat was not answered.
    trouble: Option<Trouble>,
    /// A beat is on its way.
    beating: bool,
    beat_at: Instant,
    next_beat: Instant,
    /// The lease was given up.
    left: bool,
    /// The link may have something to write.
    unflushed: bool,
    away: Away,
}

/// Which slots are not reached.
struct Away {
    slots: Box<[bool]>,
    /// Since when there are any.
    since: Option<Instant>,
    /// Since when a shard does not reach all of them.
    shards_since: Option<Instant>,
}

impl Away {
    fn mark(&mut self, slots: &Slots, away: bool) {
        for (first, last) in &slots.0 {
            if let Some(marks) = self.slots.get_mut(usize::from(*first)..=usize::from(*last)) {
                marks.fill(away);
            }
        }
        let any = self.slots.contains(&true);
        self.since = any.then(|| self.since.unwrap_or_else(Instant::now));
    }

    /// When it is to be said.
    fn said_at(&self, instant: Duration) -> Option<Instant> {
        let shards = self.shards_since.map(|since| since + SHARDS_INSTANTS * instant);
        self.since.map(|since| since + instant).into_iter().chain(shards).min()
    }
}

impl Driver {
    pub(super) fn new(
        config: &config::Cluster,
        link: Link,
        shards: watch::Receiver<Shards>,
        about: About,
        periods: Periods,
        commands: mpsc::Receiver<Command>,
    ) -> Driver {
        let channel = format!("{}:{{nodes}}", config.prefix);
        let now = Instant::now();
        Driver {
            link,
            shards,
            commands,
            waiting: Slab::new(),
            answering: JoinSet::new(),
            about,
            periods,
            leases: Leases::new(config.node.clone(), periods),
            keys: [format!("{channel}:l").into_bytes().into(), channel.into_bytes().into()],
            own: None,
            fresh: false,
            unflushed: false,
            trouble: None,
            beating: false,
            beat_at: now,
            // With the first connection.
            next_beat: now + periods.start,
            left: false,
            away: Away { slots: vec![true; usize::from(SLOTS)].into(), since: Some(now), shards_since: None },
        }
    }

    pub(super) fn channel(&self) -> &[u8] {
        &self.keys[1]
    }

    pub(super) fn live(&self) -> Live {
        Live { own: self.leases.id(), nodes: self.leases.nodes() }
    }

    /// Returns when the lease stands.
    pub(super) async fn join(&mut self, nodes: &Arc<Nodes>) -> Result<(), String> {
        let mut deadline = Instant::now() + self.periods.start;
        let mut waits = false;
        loop {
            let ended = timeout_at(deadline, self.turn(nodes)).await.is_err();
            if std::mem::take(&mut self.fresh) {
                deadline = Instant::now() + self.periods.start;
            }
            match &self.own {
                Some(Own::New | Own::Renewed) => return Ok(()),
                _ if ended => return Err(self.not_reached()),
                Some(Own::Taken { moved: true }) => {
                    let name = self.leases.name();
                    return Err(format!("[cluster] node = \"{name}\": another node that lives has this name"));
                }
                Some(Own::Taken { moved: false }) if !waits => {
                    waits = true;
                    let name = self.leases.name();
                    tracing::info!(name, "another node had this name: waiting for its lease to run out");
                }
                Some(Own::Taken { moved: false }) | None => (),
            }
        }
    }

    fn not_reached(&self) -> String {
        let waited = self.periods.start.as_secs_f64();
        match &self.trouble {
            Some(Trouble::Refused(why)) => format!("Redis refuses what a node has to ask of it: {why}"),
            Some(Trouble::Away | Trouble::Full) | None => format!("[cluster]: Redis was not reached within {waited} s"),
        }
    }

    pub(super) async fn run(mut self, nodes: Arc<Nodes>) {
        loop {
            self.turn(&nodes).await;
        }
    }

    /// The next thing that happens. Nothing is lost where this is given up.
    async fn turn(&mut self, nodes: &Arc<Nodes>) {
        consume_budget().await;
        let time = self.next_time(*nodes.standing.borrow());
        tokio::select! {
            biased;
            report = poll_fn(|cx| self.link.poll_report(cx)) => self.report(nodes, report),
            Some(command) = self.commands.recv() => self.command(command),
            Some(answer) = self.answering.join_next() => {
                if let Ok(Some(Answer { to, number, content })) = answer {
                    self.send(&Letter::Answer { from: self.leases.id(), to, number, content });
                }
            }
            Ok(()) = self.shards.changed() => {
                let cut_off = self.shards.borrow_and_update().are_cut_off();
                self.away.shards_since = cut_off.then(|| self.away.shards_since.unwrap_or_else(Instant::now));
            }
            () = ready(()), if self.unflushed => {
                self.link.flush();
                self.unflushed = false;
                return;
            }
            () = sleep_until(time) => self.beat(),
        }
        self.unflushed = true;
        self.stand(nodes);
    }

    /// When there is something to do by time alone.
    fn next_time(&self, standing: Standing) -> Instant {
        let away = self.away.said_at(self.periods.instant).filter(|_| standing != Standing::Away);
        let beat = (!self.beating && !self.left).then_some(self.next_beat);
        away.into_iter().chain(beat).min().unwrap_or_else(|| Instant::now() + self.periods.beat)
    }

    fn stand(&self, nodes: &Nodes) {
        let standing = match self.away.said_at(self.periods.instant) {
            Some(at) if Instant::now() < at => return,
            Some(_) => Standing::Away,
            None if matches!(self.own, Some(Own::Taken { .. })) => Standing::Nameless,
            None => Standing::Reached,
        };
        nodes.standing.send_if_modified(|before| std::mem::replace(before, standing) != standing);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Call(_, reply) if self.waiting.len() >= CALLS_MAX => drop(reply.send(Err(Trouble::Full))),
            Command::Call(call, reply) => self.call(call, Waiting::Caller(reply)),
            Command::Beat => self.beat_soon(),
            Command::Leave(reply) => {
                self.left = true;
                let leave = self.leases.leave(&self.keys());
                self.call(leave, Waiting::Leave(reply));
            }
        }
    }

    fn keys(&self) -> [&[u8]; 2] {
        [&self.keys[0], &self.keys[1]]
    }

    fn call(&mut self, call: Call, waiting: Waiting) {
        let ticket = self.waiting.insert(waiting);
        self.link.call(ticket as u64, call);
    }

    fn send(&mut self, letter: &Letter) {
        match publish(self.channel(), letter) {
            Some(call) => self.call(call, Waiting::Nobody),
            None => tracing::warn!("an answer to another node is too large to be sent"),
        }
    }

    fn beat(&mut self) {
        let now = Instant::now();
        if self.beating || self.left || now < self.next_beat {
            return;
        }
        let mut about = (self.about)();
        if about.len() > ABOUT_BYTES_MAX {
            about = "{}".into();
        }
        let beat = self.leases.beat(&self.keys(), &about);
        self.call(beat, Waiting::Beat);
        let joined = matches!(self.own, Some(Own::New | Own::Renewed));
        (self.beating, self.beat_at) = (true, now);
        self.next_beat = now + if joined { self.periods.beat } else { self.periods.beat / 4 };
    }

    /// Another beat, soon.
    fn beat_soon(&mut self) {
        self.next_beat = self.next_beat.min(self.beat_at + self.periods.beat / BEATS_MAX);
    }

    fn report(&mut self, nodes: &Arc<Nodes>, report: Report) {
        match report {
            Report::Answered { ticket, answer } => {
                let Some(waiting) = usize::try_from(ticket).ok().and_then(|ticket| self.waiting.try_remove(ticket))
                else {
                    return;
                };
                match waiting {
                    Waiting::Caller(reply) => drop(reply.send(answer)),
                    Waiting::Leave(reply) => drop(reply.send(())),
                    Waiting::Beat => self.beaten(nodes, answer),
                    Waiting::Nobody => (),
                }
            }
            Report::Pushed { channel, payload } if *channel == *self.keys[1] => self.pushed(nodes, &payload),
            Report::Pushed { .. } => (),
            Report::Up(slots) => {
                self.away.mark(&slots, false);
                let channel = &self.keys[1];
                if slots.contains(slot_of(channel)) {
                    self.link.subscribe(channel);
                    self.next_beat = Instant::now();
                }
                let handlers = nodes.on_reached.lock().unwrap_or_else(PoisonError::into_inner).clone();
                handlers.iter().for_each(|handler| handler());
            }
            Report::Down(slots) => self.away.mark(&slots, true),
        }
    }

    fn beaten(&mut self, nodes: &Nodes, answer: Result<Reply, Trouble>) {
        self.beating = false;
        let now = Instant::now();
        let reply = match answer {
            Ok(reply) => reply,
            Err(trouble) => {
                if let Trouble::Refused(why) = &trouble
                    && self.trouble.as_ref() != Some(&trouble)
                {
                    tracing::error!(%why, "Redis refuses to renew this node's lease");
                }
                self.trouble = Some(trouble);
                // Or when it is reached again.
                self.next_beat = self.next_beat.max(now + self.periods.beat / 4);
                return;
            }
        };
        self.trouble = None;
        let Some(own) = self.leases.read(now.into_std(), &reply) else {
            return tracing::error!("the list of nodes in Redis cannot be read");
        };
        let lived = matches!(self.own, Some(Own::New | Own::Renewed));
        match own {
            Own::New if lived => tracing::warn!("this node's lease had run out: it begins anew"),
            Own::Taken { .. } if lived => {
                tracing::error!(name = %self.leases.name(), "this node's lease had run out, and another has taken its name");
            }
            Own::New | Own::Renewed | Own::Taken { .. } => (),
        }
        (self.own, self.fresh) = (Some(own), true);
        nodes.live.set(self.live());
        if self.leases.any_lapsed() {
            self.beat_soon();
        }
    }

    fn pushed(&mut self, nodes: &Arc<Nodes>, payload: &Bytes) {
        let own = self.leases.id();
        match Letter::decode(payload) {
            Some(Letter::Look) => self.beat_soon(),
            Some(Letter::Tell { from, topic, content }) if from != own => {
                if let Some(handler) = nodes.handlers[topic as usize].get() {
                    handler(content);
                }
            }
            Some(Letter::Ask { from, number, content }) if from != own => {
                let Some(answerer) = nodes.answerer.get().filter(|_| self.answering.len() < ANSWERING_MAX) else {
                    return;
                };
                let answer = answerer(content);
                self.answering.spawn(async move {
                    let content = timeout(ANSWER_TIMEOUT, answer).await.ok()?;
                    Some(Answer { to: from, number, content })
                });
            }
            Some(Letter::Answer { from, to, number, content }) if to == own => nodes.answered(from, number, content),
            Some(Letter::Tell { .. } | Letter::Ask { .. } | Letter::Answer { .. }) | None => (),
        }
    }
}
