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

pub use mail::Position;
pub use member::{Auth, Enter, Member, Visitor};

use crate::config;
use crate::shard::Shard;
use broker::{Broker, memory::Memory};
use home::Home;
use local::Local;
use mail::{Mail, Post};
use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;

/// What every shard's part of the rooms needs to know of the others.
#[derive(Clone)]
pub struct Shared {
    post: Post,
    hasher: RandomState,
    rules: Arc<config::Rooms>,
    rooms: mail::RoomCount,
}

/// The other end of a shard's mailbox, to be handed to its [`Rooms`].
pub struct Inbox(UnboundedReceiver<Mail>);

/// The rooms, as one shard holds them: those whose home it is, and the local members of all.
pub struct Rooms {
    shared: Shared,
    shard: Rc<Shard>,
    local: RefCell<Local>,
    home: RefCell<Home>,
}

/// How long the loop handles mail before other tasks have their turn.
const SLICE: Duration = Duration::from_millis(1);
/// Sessions served between two looks at the clock.
const WORK_PER_LOOK: usize = 64;
/// Mail taken out of the mailbox at once.
const MAILS_PER_BATCH: usize = 256;
/// Events of the broker for each mail: a publish makes two, so that none pile up.
const EVENTS_PER_MAIL: usize = 4;

impl Shared {
    /// The mailboxes of `shards` shards.
    pub fn new(shards: usize, rules: Arc<config::Rooms>) -> (Shared, Vec<Inbox>) {
        let (post, inboxes) = Post::new(shards);
        (
            Shared { post, hasher: RandomState::new(), rules, rooms: mail::RoomCount::default() },
            inboxes.into_iter().map(Inbox).collect(),
        )
    }

    fn home_of(&self, room: &mail::RoomKey) -> usize {
        (self.hasher.hash_one(room) % self.post.shards() as u64) as usize
    }
}

impl Rooms {
    /// The rooms of one shard, to be [run](Self::run).
    pub fn new(shared: Shared, shard: Rc<Shard>) -> Rc<Rooms> {
        Self::with_broker(shared, shard, Box::new(Memory::default()))
    }

    /// As [`new`](Self::new), with another broker.
    pub fn with_broker(shared: Shared, shard: Rc<Shard>, broker: Box<dyn Broker>) -> Rc<Rooms> {
        Rc::new(Rooms {
            local: RefCell::new(Local::new()),
            home: RefCell::new(Home::new(shared.clone(), shard.clone(), broker)),
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
        let mut work = 0;
        loop {
            let mut idle = true;
            for _ in 0..EVENTS_PER_MAIL {
                if self.home.borrow_mut().poll_event(cx).is_pending() {
                    break;
                }
                work += 1;
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
                work += self.handle(mail);
                idle = false;
            }
            if idle {
                return Poll::Pending;
            }
            if work >= WORK_PER_LOOK {
                work = 0;
                if started.elapsed() > SLICE {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Says how many sessions it was about.
    fn handle(&self, mail: Mail) -> usize {
        match mail {
            Mail::Request(request) => self.home.borrow_mut().request(request),
            Mail::Lost { room, shard, loss } => self.home.borrow_mut().lost(&room, shard, loss),
            Mail::Answer { to, ticket, answer } => local::answer(self, to, ticket, answer),
            Mail::Deliver { to, frame, bytes } => {
                self.shared.post.received(self.shard.index, bytes);
                return self.local.borrow().deliver(&self.shard, &to, &frame).max(1);
            }
            Mail::Behind { room, loss } => local::fell_behind(self, &room, loss),
            // Its reply is dropped: not there yet.
            Mail::Desk(_) => (),
        }
        1
    }
}

#[cfg(test)]
mod tests;
