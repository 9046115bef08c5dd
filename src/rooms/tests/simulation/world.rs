//! The gateway of a run: shards that do as much as they are told to, and what lies between them.
use super::nodes::{NODES, Nodes};
use super::*;
use crate::config::{Duplicates, History, Policy, Rules};
use crate::rooms::broker::{Batch, Event, Publication};
use crate::rooms::mail::{Ask, Mail};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Wake, Waker};

pub(super) const SHARDS: usize = 4;
/// What is remembered of each client to know a message that is sent a second time.
pub(super) const DUPLICATES: Duplicates = Duplicates { age: Seconds::from_secs(90), per_client: 12 };
/// A mailbox that is full for messages, and one that is full for everything.
pub(super) const FULL: [usize; 2] = [64 << 20, 128 << 20];

/// Kinds of rooms: what their names begin with, how many there are, and messages, age in seconds and bytes of their
/// history.
const KINDS: [(&str, usize, usize, u64, usize); 8] = [
    ("big", 2, 100, 120, 1 << 20),
    ("bytes", 1, 100, 120, 4000),
    ("deep", 1, 1000, 600, 4 << 20),
    ("late", 1, 100, 120, 1 << 20),
    ("none", 1, 0, 30, 1 << 20),
    ("rare", 4, 20, 40, 1 << 20),
    ("small", 2, 6, 20, 1 << 20),
    ("tiny", 2, 20, 60, 1 << 20),
];

/// A room, as its configuration has it.
#[derive(Clone)]
pub(super) struct RoomRules {
    pub(super) name: String,
    pub(super) history: History,
    pub(super) conflated: bool,
}

pub(super) struct World {
    /// The nodes, each with as many of the shards; mostly there is one.
    pub(super) houses: Vec<House>,
    pub(super) rooms: Vec<RoomRules>,
    /// What the nodes share, where there are several.
    pub(super) nodes: Option<Nodes>,
    /// What waits for each shard, taken out of its mailbox.
    mails: Vec<VecDeque<Mail>>,
    flags: Vec<Arc<Flag>>,
    fanouts: Vec<Fanout>,
    /// What the brokers keep.
    kept: Vec<Rc<RefCell<Memory>>>,
    /// Bytes that each mailbox holds besides.
    full: [usize; SHARDS],
}

type Fanout = Pin<Box<dyn Future<Output = ()>>>;

/// Whether something that waits is to be looked at.
#[derive(Default)]
pub(super) struct Flag(AtomicBool);

impl Flag {
    pub(super) fn raise(&self) {
        self.0.store(true, Relaxed);
    }

    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Relaxed)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.raise();
    }
}

/// A broker that can be looked into while a shard has it.
struct Open(Rc<RefCell<Memory>>);

impl Broker for Open {
    fn open(&mut self, room: &RoomKey, rules: &Arc<Rules>) {
        self.0.borrow_mut().open(room, rules);
    }

    fn shut(&mut self, room: &RoomKey) {
        self.0.borrow_mut().shut(room);
    }

    fn publish(&mut self, ticket: u64, room: &RoomKey, publication: Publication) {
        self.0.borrow_mut().publish(ticket, room, publication);
    }

    fn read(&mut self, ticket: u64, room: &RoomKey, after: u64, batch: Batch) {
        self.0.borrow_mut().read(ticket, room, after, batch);
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.0.borrow_mut().poll_event(cx)
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) {
        self.0.borrow_mut().poll_timers(cx);
    }
}

fn policies() -> Vec<Policy> {
    let policy = |&(kind, _, messages, age, bytes): &(&str, usize, usize, u64, usize)| {
        let rules = Rules {
            history: History { messages, age: Seconds::from_secs(age), bytes },
            max_members: if kind == "tiny" { 5 } else { 10_000 },
            latest_only: (kind == "late").then_some(Seconds::from_secs(1)),
            ..Rules::default()
        };
        Policy { pattern: format!("{kind}-*"), rules: Arc::new(rules) }
    };
    KINDS.iter().map(policy).collect()
}

impl World {
    pub(super) fn new(far: bool, nodes: bool) -> World {
        let rules = config::Rooms {
            policies: policies(),
            max_rooms_per_client: 6,
            broadcast_to_all: true,
            duplicates: DUPLICATES,
            ..config::Rooms::default()
        };
        let kept = RefCell::new(Vec::new());
        let mut nodes = nodes.then(|| Nodes::new(far, rules.clone()));
        let houses = match &mut nodes {
            Some(nodes) => (0..NODES).map(|place| nodes.start(place)).collect(),
            None => vec![House::new(SHARDS, rules.clone(), || {
                let memory = Rc::new(RefCell::new(Memory::new(DUPLICATES, None)));
                kept.borrow_mut().push(memory.clone());
                if far { Box::new(Delayed::over(Open(memory))) } else { Box::new(Open(memory)) }
            })],
        };
        let mut world = World {
            rooms: rooms(&houses[0], &rules),
            houses: Vec::new(),
            nodes,
            mails: (0..SHARDS).map(|_| VecDeque::new()).collect(),
            flags: (0..SHARDS).map(|_| Arc::default()).collect(),
            fanouts: (0..SHARDS).map(|_| -> Fanout { Box::pin(std::future::pending()) }).collect(),
            kept: kept.into_inner(),
            full: [0; SHARDS],
        };
        houses.into_iter().for_each(|house| world.adds(house));
        world
    }

    /// A house takes the next of the shards.
    fn adds(&mut self, house: House) {
        let first = self.houses.iter().map(|house| house.shards.len()).sum::<usize>();
        self.houses.push(house);
        self.begins(self.houses.len() - 1, first);
    }

    /// The shards of a house begin, the first of which has this number among all.
    pub(super) fn begins(&mut self, house: usize, first: usize) {
        for (i, rooms) in self.houses[house].shards.iter().enumerate() {
            // What happens must follow from the seed, and not from how fast the machine is.
            rooms.slice.set(Duration::MAX);
            rooms.shard.unsliced();
            self.fanouts[first + i] = Box::pin(rooms.shard.clone().run_fanout());
            (self.mails[first + i], self.flags[first + i], self.full[first + i]) = Default::default();
        }
        self.collect();
    }

    /// The shards of each house.
    pub(super) fn shards_each(&self) -> usize {
        SHARDS / self.houses.len()
    }

    /// The house of a shard, and which it is there.
    pub(super) fn at(&self, shard: usize) -> (&House, usize) {
        (&self.houses[shard / self.shards_each()], shard % self.shards_each())
    }

    fn rooms(&self, shard: usize) -> &Rc<Rooms> {
        let (house, shard) = self.at(shard);
        &house.shards[shard]
    }

    /// Has a shard do what one turn of its loop does for one mail. Whether there was anything.
    pub(super) fn turn(&mut self, shard: usize) -> bool {
        let flag = &self.flags[shard];
        flag.take();
        let waker = Waker::from(flag.clone());
        let mut cx = Context::from_waker(&waker);
        let rooms = self.rooms(shard);
        let mut worked = false;
        for _ in 0..EVENTS_PER_MAIL {
            if rooms.home.borrow_mut().poll_event(&mut cx).is_pending() {
                break;
            }
            worked = true;
        }
        let rooms = rooms.clone();
        if let Some(mail) = self.mails[shard].pop_front() {
            rooms.handle(mail);
            worked = true;
        }
        rooms.poll_timers(&mut cx);
        let woken = self.flags[shard].take();
        self.collect();
        worked || woken
    }

    /// Writes what was queued for the members on a shard.
    pub(super) fn write_out(&mut self, shard: usize) {
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(flag.clone());
        loop {
            let polled = self.fanouts[shard].as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending(), "a fan-out has ended");
            if !flag.take() {
                return;
            }
        }
    }

    /// Takes what was posted out of the mailboxes. Called after everything that posts.
    pub(super) fn collect(&mut self) {
        let mut mails = self.mails.iter_mut();
        for house in &self.houses {
            for (inbox, mails) in house.inboxes.borrow_mut().iter_mut().zip(&mut mails) {
                let new = mails.len();
                while let Ok(mail) = inbox.0.try_recv() {
                    mails.push_back(mail);
                }
                let new = &mut mails.make_contiguous()[new..];
                in_order_of_rooms(new);
                if let Some(nodes) = &mut self.nodes {
                    nodes.hears(new);
                }
            }
        }
        if self.nodes.as_mut().is_some_and(|nodes| nodes.tells(&self.houses)) {
            self.collect();
        }
    }

    /// Has a mailbox take no more messages, or no more of anything, or everything again.
    pub(super) fn fill(&mut self, shard: usize, bytes: usize) {
        let held = std::mem::replace(&mut self.full[shard], bytes);
        let (house, shard) = self.at(shard);
        let post = &house.shards[0].shared.post;
        post.received(shard, held);
        post.reserve(shard, bytes);
    }

    pub(super) fn fill_none(&mut self) {
        (0..SHARDS).for_each(|shard| self.fill(shard, 0));
    }

    /// No byte of a delivery is counted that does not wait any more.
    pub(super) fn check_mailboxes(&self) {
        for (house, shard) in (0..SHARDS).map(|shard| self.at(shard)) {
            let post = &house.shards[0].shared.post;
            post.reserve(shard, FULL[0] - 1);
            assert!(post.has_room(shard), "an empty mailbox holds bytes");
            post.received(shard, FULL[0] - 1);
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.full.iter().any(|bytes| *bytes > 0)
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.mails.iter().all(VecDeque::is_empty)
    }

    /// Rooms of which brokers keep something, and bytes on their shelves.
    pub(super) fn kept(&self) -> (usize, usize) {
        if let Some(nodes) = &self.nodes {
            return nodes.cluster.kept();
        }
        let each = self.kept.iter().map(|memory| memory.borrow().kept());
        each.fold((0, 0), |(rooms, bytes), (r, b)| (rooms + r, bytes + b))
    }
}

/// What a session tells its rooms when it ends goes out in the order of a hash map. Any order will do, but a seed shall
/// give one.
fn in_order_of_rooms(mails: &mut [Mail]) {
    fn told(mail: &Mail) -> Option<&crate::rooms::mail::Request> {
        match mail {
            Mail::Request(r) if matches!(r.ask, Ask::Gone | Ask::Status(_) | Ask::Presences { .. }) => Some(r),
            _ => None,
        }
    }
    for run in mails.chunk_by_mut(|a, b| told(a).zip(told(b)).is_some_and(|(a, b)| a.from == b.from)) {
        run.sort_by(|a, b| told(a).map(|r| &r.room).cmp(&told(b).map(|r| &r.room)));
    }
}

/// The rooms of a run, dealt out over the shards; which room lies where does not depend on what its name hashes to.
fn rooms(house: &House, rules: &config::Rooms) -> Vec<RoomRules> {
    let kinds = KINDS.iter().flat_map(|kind| std::iter::repeat_n(kind.0, kind.1));
    let named = kinds.enumerate().map(|(i, kind)| {
        let home = i % house.shards.len();
        let at_home = |name: &String| house.shards[0].shared.home_of(&key(name)) == home;
        let names = (0..10_000).map(|n| format!("{kind}-{i:02}-{n:04}"));
        let name = names.into_iter().find(at_home).unwrap();
        let rules = rules.rules_of(&name);
        RoomRules { history: rules.history, conflated: rules.latest_only.is_some(), name }
    });
    named.collect()
}
