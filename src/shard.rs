//! A shard: one thread with a current-thread runtime, its own sessions and scratch buffers.
//!
//! Shards share nothing on the message path. They talk by mailboxes that belong to the services
//! (`rooms` has one); here is what every service needs of its thread: the scratch for reads, the
//! sessions for a restart, and the fan-out that writes what was queued for many peers.
mod fanout;

use crate::close::Close;
use crate::config::{Namespace, Route};
use crate::metrics::{Metrics, ShardMetrics};
use crate::outbox::{Peer, wire::Wire};
use crate::ws::deflate::{Deflater, Inflater};
use crate::ws::frame::Opcode;
use bytes::Bytes;
use slab::Slab;
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes read with one call. What a session cannot use at once it must copy, so this also bounds
/// what one read costs.
const SCRATCH: usize = 64 * 1024;

/// What the sessions of one thread share.
pub struct Shard {
    /// Its place among the shards.
    pub index: usize,
    /// Reads go here; nothing in it outlives the poll that read it.
    pub scratch: RefCell<Vec<u8>>,
    /// For messages of sessions with permessage-deflate.
    pub inflater: RefCell<Inflater>,
    /// For frames to sessions with permessage-deflate.
    pub deflater: RefCell<Deflater>,
    metrics: Arc<Metrics>,
    sessions: RefCell<Slab<Rc<Handle>>>,
    /// The sessions of each client that is known.
    clients: RefCell<HashMap<(Namespace, Arc<str>), Slots>>,
    draining: Cell<Option<(Instant, Duration)>>,
    fanout: fanout::Fanout,
    emptied: Notify,
}

/// Places of one client's sessions, mostly one.
type Slots = SmallVec<[u32; 2]>;

/// A session, as its shard knows it.
pub struct Handle {
    /// The socket and its queue.
    pub peer: RefCell<Peer>,
    /// When a message was last sent to it.
    pub sent_at: Cell<Instant>,
    /// Messages and payload bytes that were queued for it.
    pub sent: Cell<(u64, u64)>,
    /// The client's address, where it has one.
    pub ip: Cell<Option<IpAddr>>,
    /// The number of the server that it is relayed to, 0 for none.
    pub server: Cell<u64>,
    /// Who it is, once that is known.
    about: RefCell<Option<Box<About>>>,
    order: RefCell<Option<Close>>,
    restart_at: Cell<Option<Instant>>,
    marked: Cell<bool>,
    /// What of the backlog the metrics know.
    counted: Cell<usize>,
}

/// Who a session is, for those who look after clients.
#[derive(Debug, Clone)]
pub struct About {
    /// Its client's namespace.
    pub namespace: Namespace,
    /// Its client.
    pub client: Arc<str>,
    /// Its own name.
    pub session_id: uuid::Uuid,
    /// Since when it is known.
    pub since: jiff::Timestamp,
    /// The route it came by.
    pub route: Arc<Route>,
    /// Its place among the members of rooms on this shard, where it has one.
    pub member: Option<u32>,
}

impl Shard {
    /// The state of the shard of this index. Its fan-out must be [run](Self::run_fanout).
    pub fn new(index: usize, metrics: Arc<Metrics>) -> Rc<Shard> {
        Rc::new(Shard {
            index,
            scratch: RefCell::new(vec![0; SCRATCH]),
            inflater: RefCell::new(Inflater::new()),
            deflater: RefCell::new(Deflater::new()),
            metrics,
            sessions: RefCell::new(Slab::new()),
            clients: RefCell::new(HashMap::new()),
            draining: Cell::new(None),
            fanout: fanout::Fanout::default(),
            emptied: Notify::new(),
        })
    }

    /// The shard's counters.
    pub fn metrics(&self) -> &ShardMetrics {
        self.metrics.shard(self.index)
    }

    /// Takes a session in; it is a session of this shard until the seat is dropped.
    pub fn seat(self: &Rc<Self>, wire: Wire) -> Seat {
        let handle = Rc::new(Handle {
            peer: RefCell::new(Peer::new(wire)),
            sent_at: Cell::new(Instant::now()),
            sent: Cell::new((0, 0)),
            ip: Cell::new(None),
            server: Cell::new(0),
            about: RefCell::new(None),
            order: RefCell::new(None),
            restart_at: Cell::new(None),
            marked: Cell::new(false),
            counted: Cell::new(0),
        });
        if let Some((until, window)) = self.draining.get() {
            handle.restart_at.set(Some(spread(until, window)));
        }
        let slot = self.sessions.borrow_mut().insert(handle.clone());
        Seat { shard: self.clone(), slot, handle }
    }

    /// Sessions now.
    pub fn sessions(&self) -> usize {
        self.sessions.borrow().len()
    }

    /// The sessions of a client, on whatever service.
    pub fn sessions_of(&self, namespace: Namespace, client: &Arc<str>) -> Vec<Rc<Handle>> {
        let clients = self.clients.borrow();
        let Some(slots) = clients.get(&(namespace, client.clone())) else { return Vec::new() };
        let sessions = self.sessions.borrow();
        slots.iter().filter_map(|slot| sessions.get(*slot as usize).cloned()).collect()
    }

    /// Gives every session, and those still to come, a random moment within `window` to be closed
    /// for a restart.
    pub fn drain(&self, window: Duration) {
        let until = Instant::now() + window;
        self.draining.set(Some((until, window)));
        for (_, handle) in self.sessions.borrow().iter() {
            handle.restart_at.set(Some(spread(until, window)));
            handle.wake();
        }
    }

    /// The sessions that are relayed to the server of this number.
    pub fn sessions_with(&self, server: u64) -> Vec<Rc<Handle>> {
        let sessions = self.sessions.borrow();
        sessions.iter().filter(|(_, handle)| handle.server.get() == server).map(|(_, handle)| handle.clone()).collect()
    }

    /// Returns when there is no session, now or later.
    pub async fn emptied(&self) {
        while self.sessions() > 0 {
            self.emptied.notified().await;
        }
    }

    /// Has the fan-out flush this session's queue, once for all that is queued until then.
    pub fn mark(&self, handle: &Rc<Handle>) {
        if !handle.marked.replace(true) {
            self.fanout.mark(handle.clone());
        }
    }

    /// Writes the queues of marked sessions, in slices of about 1 ms. Never ends.
    pub async fn run_fanout(self: Rc<Self>) {
        self.run_loop("fan-out", |cx| self.fanout.slice(cx, |handle| self.count_backlog(handle))).await;
    }

    /// Has the fan-out depend on no clock.
    #[cfg(test)]
    pub fn unsliced(&self) {
        self.fanout.unsliced();
    }

    /// Turns a loop that all sessions of the shard need. A panic, always a bug, costs what the turn
    /// was about; without the loop every session would hang.
    pub async fn run_loop(&self, name: &'static str, mut turn: impl FnMut(&mut Context<'_>) -> Poll<()>) {
        poll_fn(|cx| {
            catch_unwind(AssertUnwindSafe(|| turn(cx))).unwrap_or_else(|_| {
                self.metrics().panicked();
                tracing::error!(shard = self.index, name, "a loop of the shard has panicked and goes on");
                cx.waker().wake_by_ref();
                Poll::Pending
            })
        })
        .await;
    }

    fn forget(&self, about: &About, slot: u32) {
        let clients = &mut *self.clients.borrow_mut();
        if let Entry::Occupied(mut slots) = clients.entry((about.namespace, about.client.clone())) {
            slots.get_mut().retain(|s| *s != slot);
            if slots.get().is_empty() {
                slots.remove();
            }
        }
        if clients.capacity() > 4 * clients.len().max(256) {
            clients.shrink_to(2 * clients.len());
        }
    }

    /// A compressed frame of this payload, where it is wanted and smaller than the plain one.
    pub fn deflated(&self, wanted: bool, opcode: Opcode, payload: &[u8]) -> Option<Bytes> {
        wanted.then(|| self.deflater.borrow_mut().frame(opcode, payload)).flatten()
    }

    /// Tells the metrics how the backlog of a session has changed. Called after its queue was flushed.
    pub fn count_backlog(&self, handle: &Handle) {
        let backlog = handle.peer.borrow().backlog();
        let counted = handle.counted.replace(backlog);
        if backlog > counted {
            self.metrics().backlog_grew((backlog - counted) as u64);
        } else if backlog < counted {
            self.metrics().backlog_shrank((counted - backlog) as u64);
        }
    }
}

fn spread(until: Instant, window: Duration) -> Instant {
    until - window.mul_f64(rand::random::<f64>())
}

impl Handle {
    /// Queues a frame that holds a message of so many bytes.
    pub fn send(&self, frame: Bytes, payload: usize, now: Instant) {
        let (messages, bytes) = self.sent.get();
        self.sent.set((messages + 1, bytes + payload as u64));
        self.sent_at.set(now);
        self.peer.borrow_mut().push(frame);
    }

    /// Who it is, once that is known.
    pub fn about(&self) -> Option<About> {
        self.about.borrow().as_deref().cloned()
    }

    /// It has this place among the members of rooms, or none any more.
    pub fn set_member(&self, place: Option<u32>) {
        if let Some(about) = self.about.borrow_mut().as_mut() {
            about.member = place;
        }
    }

    /// Its place among the members of rooms.
    pub fn member(&self) -> Option<u32> {
        self.about.borrow().as_ref()?.member
    }

    /// Tells the session to close. The first order counts.
    pub fn order(&self, close: Close) {
        self.order.borrow_mut().get_or_insert(close);
        self.wake();
    }

    /// The order, if there is one.
    pub fn take_order(&self) -> Option<Close> {
        self.order.borrow_mut().take()
    }

    /// When the session is to be closed for a restart, told once.
    pub fn take_restart(&self) -> Option<Instant> {
        self.restart_at.take()
    }

    /// Has the session's task look at what has changed.
    pub fn wake(&self) {
        self.peer.borrow_mut().wake_session();
    }
}

/// A session's place on its shard, given back by Drop.
pub struct Seat {
    /// The shard.
    pub shard: Rc<Shard>,
    /// The session.
    pub handle: Rc<Handle>,
    slot: usize,
}

impl Seat {
    /// The session's client is known from now on.
    pub fn name(&self, route: &Arc<Route>, client: &Arc<str>) {
        let (namespace, client) = (route.namespace, client.clone());
        self.shard.clients.borrow_mut().entry((namespace, client.clone())).or_default().push(self.slot as u32);
        let (session_id, since) = (uuid::Uuid::now_v7(), jiff::Timestamp::now());
        let about = About { namespace, client, session_id, since, route: route.clone(), member: None };
        *self.handle.about.borrow_mut() = Some(Box::new(about));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(about) = self.handle.about.borrow_mut().take() {
            self.shard.forget(&about, self.slot as u32);
        }
        // Others may hold the session a little longer; nothing is sent to it any more.
        self.handle.peer.borrow_mut().give_up();
        self.shard.count_backlog(&self.handle);
        self.shard.sessions.borrow_mut().remove(self.slot);
        if self.shard.sessions() == 0 {
            self.shard.emptied.notify_one();
        }
    }
}

/// How many connections a shard has, known to the thread that hands them out.
#[derive(Clone, Default)]
pub struct Load(Arc<AtomicUsize>);

impl Load {
    /// One connection more, until the permit is dropped.
    pub fn add(&self) -> LoadPermit {
        self.0.fetch_add(1, Relaxed);
        LoadPermit(self.0.clone())
    }

    /// Connections now.
    pub fn now(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// A connection's share of a shard's load.
pub struct LoadPermit(Arc<AtomicUsize>);

impl Drop for LoadPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A connection's place on its shard, among the counters until the last holder is gone.
pub struct Place {
    shard: Rc<Shard>,
    _load: LoadPermit,
}

impl Place {
    /// The connection has come to this shard.
    pub fn new(shard: Rc<Shard>, load: LoadPermit) -> Place {
        shard.metrics().connection_opened();
        Place { shard, _load: load }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shard.metrics().connection_closed();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_loop_that_panics_goes_on() {
        let metrics = Metrics::new(1);
        let shard = Shard::new(0, metrics.clone());
        let mut turns = 0;
        let turn = |_: &mut Context<'_>| {
            turns += 1;
            assert!(turns > 3, "a bug");
            Poll::Ready(())
        };
        shard.run_loop("test", turn).await;
        assert_eq!(turns, 4);
        assert!(metrics.encode().contains("\nwsgate_session_panics_total 3\n"), "{}", metrics.encode());
    }

    #[tokio::test]
    async fn a_session_that_is_gone_has_no_backlog_whoever_still_holds_it() {
        let metrics = Metrics::new(1);
        let shard = Shard::new(0, metrics.clone());
        let (_theirs, ours) = tokio::io::duplex(10);
        let seat = shard.seat(Wire::Pipe(ours));
        let handle = seat.handle.clone();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut write = || {
            handle.send(Bytes::from_static(&[0; 100]), 98, Instant::now());
            shard.mark(&handle);
            assert!(shard.fanout.slice(&mut cx, |handle| shard.count_backlog(handle)).is_pending());
            let text = metrics.encode();
            text.lines().find_map(|l| l.strip_prefix("wsgate_backlog_bytes ")).unwrap().to_owned()
        };
        assert_eq!(write(), "90");
        assert_eq!(write(), "190");
        drop(seat);
        assert_eq!(write(), "0");
    }
}
