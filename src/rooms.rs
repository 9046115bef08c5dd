//! Rooms: the second half of the gateway where it hosts them itself (protocol.md).
//!
//! A room has a home shard, by a hash of its namespace and name. Requests go there, because the home
//! alone knows the room's order; answers and deliveries come back to the shards that have members.
//! Nothing here knows of HTTP, TLS or tokens: a member is made from an identity and its claims.
pub mod broker;
mod crowd;
pub mod desk;
mod home;
mod local;
mod mail;
mod member;
pub mod protocol;
mod room;
mod schedule;
mod statuses;
mod typing;

pub use mail::Position;
pub use member::{Auth, Enter, Member, Visitor};

use crate::bans::Bans;
use crate::cluster::{Link, Nodes, Redis, Script};
use crate::config;
use crate::config::Namespace;
use crate::hook::{Asker, Hook};
use crate::shard::Shard;
use crate::store::Store;
use broker::Broker;
use broker::memory::{Durable, Memory};
use broker::redis as over_redis;
use desk::DeskAsk;
use home::Home;
use local::Local;
use mail::{Mail, Post};
use schedule::Schedule;
use statuses::{Said, Sharing, Statuses};
use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;

/// What the rooms are made of.
pub struct Parts {
    /// The rules.
    pub rules: Arc<config::Rooms>,
    /// The names of the namespaces, by their indexes.
    pub namespaces: Arc<[Arc<str>]>,
    /// Who may not come in.
    pub bans: Arc<Bans>,
    /// The application that is asked and told.
    pub hook: Option<Arc<Hook>>,
    /// Where the history of durable rooms is kept; there where a policy asks for it.
    pub store: Option<Store>,
    /// The other nodes, where there may be some: then order and history are Redis'.
    pub cluster: Option<Clustered>,
}

/// Rooms that several nodes share.
#[derive(Clone)]
pub struct Clustered {
    /// What the file says of it.
    pub config: Arc<config::Cluster>,
    /// Where Redis is.
    pub redis: Arc<Redis>,
    /// The nodes.
    pub nodes: Arc<Nodes>,
}

/// What every shard's part of the rooms needs to know of the others.
#[derive(Clone)]
pub struct Shared {
    post: Post,
    hasher: RandomState,
    rules: Arc<config::Rooms>,
    rooms: mail::RoomCount,
    statuses: Statuses,
    /// Where there are other nodes.
    sharing: Option<Arc<Sharing>>,
    namespaces: Arc<[Arc<str>]>,
    bans: Arc<Bans>,
    hook: Option<Arc<Hook>>,
    store: Option<Store>,
    cluster: Option<Clustered>,
}

/// The other end of a shard's mailbox, to be handed to its [`Rooms`].
pub struct Inbox(UnboundedReceiver<Mail>);

/// The rooms, as one shard holds them: those whose home it is, and the local members of all.
pub struct Rooms {
    shared: Shared,
    shard: Rc<Shard>,
    local: RefCell<Local>,
    home: RefCell<Home>,
    /// Clients whose new status is to be told then.
    schedule: RefCell<Schedule<(Namespace, Arc<str>)>>,
    /// How long the loop handles mail before other tasks have their turn.
    slice: Cell<Duration>,
    /// Asks the application.
    asker: Option<Rc<Asker>>,
}

impl Parts {
    /// Rules and nothing else.
    pub fn alone(rules: config::Rooms) -> Parts {
        let namespaces = [Arc::from("default")].into();
        Parts { rules: Arc::new(rules), namespaces, bans: Bans::in_memory(), hook: None, store: None, cluster: None }
    }
}

/// What Redis is asked for statuses.
pub const STATUS_SCRIPTS: [&Script; 2] = [&statuses::SAY, &statuses::READ];
/// As long as this, but for tests that must not depend on the clock.
const SLICE: Duration = Duration::from_millis(1);
/// Mail taken out of the mailbox at once.
const MAILS_PER_BATCH: usize = 256;
/// Events of the broker for each mail: a publish makes two, so that none pile up.
const EVENTS_PER_MAIL: usize = 4;

impl Shared {
    /// The mailboxes of `shards` shards.
    pub fn new(shards: usize, parts: Parts) -> (Shared, Vec<Inbox>) {
        let Parts { rules, namespaces, bans, hook, store, cluster } = parts;
        let (post, inboxes) = Post::new(shards);
        (
            Shared {
                post,
                hasher: RandomState::new(),
                rules,
                rooms: mail::RoomCount::default(),
                statuses: Statuses::default(),
                sharing: cluster.as_ref().map(|c| Sharing::new(c.nodes.clone(), c.config.prefix.clone())),
                namespaces,
                bans,
                hook,
                store,
                cluster,
            },
            inboxes.into_iter().map(Inbox).collect(),
        )
    }

    fn home_of(&self, room: &mail::RoomKey) -> usize {
        if room.is_everyone() {
            return usize::from(room.namespace.index) % self.post.shards();
        }
        (self.hasher.hash_one(room) % self.post.shards() as u64) as usize
    }

    fn namespace(&self, namespace: Namespace) -> &Arc<str> {
        &self.namespaces[usize::from(namespace.index)]
    }

    /// Every session of a client tells the rooms that it is in, on all nodes.
    fn tell_status(&self, namespace: Namespace, client: &Arc<str>, said: &Arc<Said>) {
        self.sharing.iter().for_each(|sharing| sharing.tell(namespace, client, said));
        self.post_status(namespace, client, said);
    }

    /// The sessions here do.
    fn post_status(&self, namespace: Namespace, client: &Arc<str>, said: &Arc<Said>) {
        for shard in 0..self.post.shards() {
            self.post.send(shard, Mail::Status { namespace, client: client.clone(), said: said.clone() });
        }
    }

    /// Forgets what is of no use any more. Called now and then.
    pub fn sweep(&self) {
        self.statuses.sweep(tokio::time::Instant::now());
    }
}

impl Rooms {
    /// The rooms of one shard, to be [run](Self::run).
    pub fn new(shared: Shared, shard: Rc<Shard>) -> Rc<Rooms> {
        let broker: Box<dyn Broker> = match &shared.cluster {
            Some(Clustered { config, redis, nodes }) => Box::new(over_redis::Redis::new(over_redis::Parts {
                link: Link::new(redis, &over_redis::SCRIPTS, Some(shard.index)),
                live: nodes.live().clone(),
                prefix: config.prefix.clone(),
                namespaces: shared.namespaces.clone(),
                duplicates: shared.rules.duplicates,
                message_bytes: shared.rules.max_message_size,
                shard: shard.clone(),
            })),
            None => {
                let durable = shared.store.as_ref().map(|store| Durable::new(store, shared.namespaces.clone()));
                Box::new(Memory::new(shared.rules.duplicates, durable))
            }
        };
        Self::with_broker(shared, shard, broker)
    }

    /// As [`new`](Self::new), with another broker.
    pub fn with_broker(shared: Shared, shard: Rc<Shard>, broker: Box<dyn Broker>) -> Rc<Rooms> {
        Rc::new(Rooms {
            local: RefCell::new(Local::new()),
            home: RefCell::new(Home::new(shared.clone(), shard.clone(), broker)),
            schedule: RefCell::default(),
            slice: Cell::new(SLICE),
            asker: shared.hook.as_ref().map(|hook| Rc::new(hook.asker(shard.index))),
            shared,
            shard,
        })
    }

    /// Handles mail and the broker's events, in slices. Ends when every sender is gone.
    pub async fn run(self: Rc<Self>, mut inbox: Inbox) {
        let mut batch = Vec::new();
        self.shard.run_loop("rooms", |cx| self.slice(cx, &mut inbox, &mut batch)).await;
    }

    /// One slice; `batch` is mail that was taken out of the mailbox, the first of it last.
    fn slice(&self, cx: &mut Context<'_>, inbox: &mut Inbox, batch: &mut Vec<Mail>) -> Poll<()> {
        let started = Instant::now();
        self.poll_timers(cx);
        loop {
            let mut idle = true;
            for _ in 0..EVENTS_PER_MAIL {
                if self.home.borrow_mut().poll_event(cx).is_pending() {
                    break;
                }
                idle = false;
            }
            if batch.is_empty() {
                match inbox.0.poll_recv_many(cx, batch, MAILS_PER_BATCH) {
                    Poll::Ready(0) => return Poll::Ready(()),
                    Poll::Ready(_) => batch.reverse(),
                    Poll::Pending => (),
                }
            }
            if let Some(mail) = batch.pop() {
                self.handle(mail);
                idle = false;
            }
            if idle {
                // What was handled may have set them.
                self.poll_timers(cx);
                return Poll::Pending;
            }
            if started.elapsed() > self.slice.get() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Returns when every shard has handled what this one has posted so far. A shard that has ended handles nothing.
    pub async fn settle(&self) {
        let (post, mut handled) = (&self.shared.post, Vec::new());
        for shard in 0..post.shards() {
            let (reply, answer) = tokio::sync::oneshot::channel();
            post.send(shard, Mail::Desk(DeskAsk::Settle(reply)));
            handled.push(answer);
        }
        for answer in handled {
            let _ = answer.await;
        }
    }

    fn poll_timers(&self, cx: &mut Context<'_>) {
        self.home.borrow_mut().poll_timers(cx);
        while let Poll::Ready((namespace, client)) = self.schedule.borrow_mut().poll_due(cx) {
            if let Some(said) = self.shared.statuses.due(namespace, &client, tokio::time::Instant::now()) {
                self.shared.tell_status(namespace, &client, &said);
            }
        }
    }

    fn handle(&self, mail: Mail) {
        match mail {
            Mail::Request(request) => self.home.borrow_mut().request(request),
            Mail::Lost { room, shard, loss } => self.home.borrow_mut().lost(&room, shard, loss),
            Mail::CatchUp { room, shard, loss, after } => self.home.borrow_mut().catch_up(room, shard, loss, after),
            Mail::Answer { to, ticket, answer } => local::answer(self, to, ticket, answer),
            Mail::Deliver { to, frame, kind, bytes } => {
                self.shared.post.received(self.shard.index, bytes);
                self.local.borrow_mut().deliver(&self.shard, &to, &frame, &kind);
            }
            Mail::Feed { to, room, feed } => local::feed(self, to, &room, feed),
            Mail::Expelled { to, room, code } => local::expelled(self, to, &room, code),
            Mail::Behind { room, loss } => local::fell_behind(self, room, loss),
            Mail::Overtaken { room, loss } => local::overtaken(self, &room, loss),
            Mail::Status { namespace, client, said } => local::status(self, namespace, &client, &said),
            Mail::StatusLater { at, namespace, client } => {
                self.schedule.borrow_mut().enter(at, (namespace, client));
            }
            Mail::Desk(ask) => self.desk(ask),
        }
    }

    fn desk(&self, ask: DeskAsk) {
        match ask {
            DeskAsk::Settle(reply) => drop(reply.send(())),
            DeskAsk::Rooms { namespace, prefix, after, limit, reply } => {
                let _ = reply.send(self.home.borrow().list(namespace, &prefix, after.as_ref(), limit));
            }
            DeskAsk::Notify { namespace, clients, text, reply } => {
                let _ = reply.send(local::notify(self, namespace, clients.as_deref(), &text));
            }
            DeskAsk::Sessions { namespace, client, reply } => {
                let _ = reply.send(local::sessions(self, namespace, &client));
            }
            DeskAsk::Disconnect { namespace, client, close, reply } => {
                let sessions = self.shard.sessions_of(namespace, &client);
                sessions.iter().for_each(|session| session.order(close.clone()));
                let _ = reply.send(sessions.len());
            }
            ask => self.home.borrow_mut().desk(ask),
        }
    }
}

#[cfg(test)]
mod tests;
