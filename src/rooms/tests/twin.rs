//! Several nodes in one thread: their brokers have one order, one history and one presence, and each hears of what the
//! others do.
use crate::cluster::{Live, LiveNodes, NodeId, nodes::NodeView};
use crate::config::Rules;
use crate::rooms::broker::memory::Memory;
use crate::rooms::broker::{Batch, Broker, Event, Held, Publication, Telling};
use crate::rooms::mail::RoomKey;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// What all nodes share.
#[derive(Clone)]
pub(super) struct Cluster(Rc<RefCell<Central>>);

struct Central {
    /// Gives messages their places, and keeps them.
    memory: Memory,
    rooms: BTreeMap<RoomKey, Room>,
    lines: Vec<Line>,
    live: BTreeMap<NodeId, Arc<LiveNodes>>,
    /// Who has asked by which ticket, by the ticket that the memory knows.
    asked: BTreeMap<u64, (usize, u64)>,
    next_ticket: u64,
}

#[derive(Default)]
struct Room {
    rules: Arc<Rules>,
    /// The lines of those who use it.
    used_by: BTreeSet<usize>,
    held: BTreeMap<(Arc<str>, NodeId), Held>,
}

/// The way to the home of one shard.
struct Line {
    node: NodeId,
    events: VecDeque<Event>,
    waker: Option<Waker>,
    /// Its node was killed: nothing comes over it, and nothing goes.
    cut: bool,
}

/// The broker of a shard.
pub(super) struct Twin {
    cluster: Cluster,
    line: usize,
    node: NodeId,
}

impl Cluster {
    pub(super) fn new(memory: Memory) -> Cluster {
        let (rooms, live, asked) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Cluster(Rc::new(RefCell::new(Central { memory, rooms, lines: Vec::new(), live, asked, next_ticket: 0 })))
    }

    /// A broker for another shard of a node.
    pub(super) fn twin(&self, node: NodeId) -> Twin {
        let lines = &mut self.0.borrow_mut().lines;
        lines.push(Line { node, events: VecDeque::new(), waker: None, cut: false });
        Twin { cluster: self.clone(), line: lines.len() - 1, node }
    }

    /// A node joins the others: the list of those that live.
    pub(super) fn joins(&self, node: NodeId) -> Arc<LiveNodes> {
        let central = &mut *self.0.borrow_mut();
        let live = LiveNodes::new(Live { own: node, nodes: Vec::new() });
        central.live.insert(node, live.clone());
        central.list();
        live
    }

    /// A node is killed. Nobody knows yet.
    pub(super) fn kill(&self, node: NodeId) {
        let central = &mut *self.0.borrow_mut();
        let lines = central.lines.iter_mut().enumerate().filter(|(_, line)| line.node == node);
        let cut: Vec<usize> = lines.map(|(i, line)| (i, line.cut = true).0).collect();
        for room in central.rooms.keys().cloned().collect::<Vec<_>>() {
            cut.iter().for_each(|line| central.shut(*line, &room));
        }
    }

    /// The others learn that a node was killed.
    pub(super) fn gone(&self, node: NodeId) {
        let central = &mut *self.0.borrow_mut();
        central.live.remove(&node);
        central.list();
        central.rooms.values_mut().for_each(|room| room.held.retain(|(_, holder), _| *holder != node));
        central.rooms.retain(|_, room| room.is_of_use());
        for line in 0..central.lines.len() {
            central.push(line, Event::Gone { node });
        }
    }

    /// What was said in a room is lost, and its count.
    pub(super) fn lose(&self, key: &RoomKey) {
        let central = &mut *self.0.borrow_mut();
        central.memory.lose(key);
        let Some(room) = central.rooms.get(key).filter(|room| !room.used_by.is_empty()) else { return };
        central.memory.open(key, &room.rules.clone());
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(event) = central.memory.poll_event(&mut cx) {
            let Event::Opened { room, position } = event else { panic!("{event:?}") };
            central.push_to_all(&room, None, || Event::Lost { room: room.clone(), position: position.clone() });
        }
    }

    /// Has the room of one node told anew what the others hold.
    pub(super) fn repair(&self, key: &RoomKey) {
        let central = &mut *self.0.borrow_mut();
        for line in central.rooms.get(key).map(|room| room.used_by.clone()).unwrap_or_default() {
            central.push_others(line, key);
        }
    }

    /// What a node holds in a room.
    pub(super) fn held(&self, key: &RoomKey, client: &str, node: NodeId) -> Option<Held> {
        self.0.borrow().rooms.get(key)?.held.get(&(client.into(), node)).cloned()
    }

    /// Rooms that are used, or in which something is held, but for those of everyone, which are always.
    pub(super) fn rooms(&self) -> Vec<RoomKey> {
        self.0.borrow().rooms.keys().filter(|key| !key.is_everyone()).cloned().collect()
    }

    /// Rooms of which something is kept, and bytes that are kept of those that nobody uses.
    pub(super) fn kept(&self) -> (usize, usize) {
        self.0.borrow().memory.kept()
    }
}

impl Room {
    fn is_of_use(&self) -> bool {
        !self.used_by.is_empty() || !self.held.is_empty()
    }
}

impl Central {
    fn list(&mut self) {
        let view = |id: &NodeId| NodeView { id: *id, name: id.to_string().into(), about: "{}".into() };
        let nodes: Vec<NodeView> = self.live.keys().map(view).collect();
        for (own, live) in &self.live {
            live.set(Live { own: *own, nodes: nodes.clone() });
        }
    }

    fn push(&mut self, line: usize, event: Event) {
        let line = &mut self.lines[line];
        if !line.cut {
            line.events.push_back(event);
            line.waker.take().inspect(Waker::wake_by_ref);
        }
    }

    /// To all who use the room, but those of one node.
    fn push_to_all(&mut self, room: &RoomKey, but: Option<NodeId>, event: impl Fn() -> Event) {
        for line in self.rooms.get(room).map(|room| room.used_by.clone()).unwrap_or_default() {
            if but != Some(self.lines[line].node) {
                self.push(line, event());
            }
        }
    }

    fn push_others(&mut self, line: usize, key: &RoomKey) {
        let (node, room) = (self.lines[line].node, &self.rooms[key]);
        let others = room.held.iter().filter(|((_, holder), _)| *holder != node);
        let clients = others.map(|((client, holder), held)| (*holder, client.clone(), Some(held.clone()))).collect();
        self.push(line, Event::Others { room: key.clone(), clients, whole: true });
    }

    /// What comes of a call.
    fn tell(&mut self, asks: usize) {
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(event) = self.memory.poll_event(&mut cx) {
            match event {
                Event::Delivered { room, message } => {
                    let delivered = || Event::Delivered { room: room.clone(), message: message.clone() };
                    self.push_to_all(&room, None, delivered);
                }
                Event::Accepted { ticket, position, duplicate } => {
                    let Some((line, ticket)) = self.asked.remove(&ticket) else { continue };
                    self.push(line, Event::Accepted { ticket, position, duplicate });
                }
                Event::Refused { ticket } => {
                    let Some((line, ticket)) = self.asked.remove(&ticket) else { continue };
                    self.push(line, Event::Refused { ticket });
                }
                Event::Read { ticket, messages, oldest } => {
                    let Some((line, ticket)) = self.asked.remove(&ticket) else { continue };
                    self.push(line, Event::Read { ticket, messages, oldest });
                }
                opened => self.push(asks, opened),
            }
        }
    }

    fn ticket(&mut self, line: usize, ticket: u64) -> u64 {
        self.next_ticket += 1;
        self.asked.insert(self.next_ticket, (line, ticket));
        self.next_ticket
    }

    fn shut(&mut self, line: usize, key: &RoomKey) {
        let Some(room) = self.rooms.get_mut(key) else { return };
        if room.used_by.remove(&line) && room.used_by.is_empty() {
            self.memory.shut(key);
        }
        if !room.is_of_use() {
            self.rooms.remove(key);
        }
    }
}

impl Twin {
    /// Nothing comes of a call of a node that was killed.
    fn call(&self, call: impl FnOnce(&mut Central)) {
        let central = &mut *self.cluster.0.borrow_mut();
        if !central.lines[self.line].cut {
            call(central);
            central.tell(self.line);
        }
    }
}

impl Broker for Twin {
    fn open(&mut self, key: &RoomKey, rules: &Arc<Rules>) {
        self.call(|central| {
            let room = central.rooms.entry(key.clone()).or_default();
            room.rules = rules.clone();
            room.used_by.insert(self.line);
            central.push_others(self.line, key);
            central.memory.open(key, rules);
        });
    }

    fn shut(&mut self, key: &RoomKey) {
        self.call(|central| {
            let held =
                central.rooms.get(key).map(|room| room.held.keys().filter(|(_, node)| *node == self.node).count());
            assert_eq!(held, Some(0), "what is held in a room that is shut");
            central.shut(self.line, key);
        });
    }

    fn publish(&mut self, ticket: u64, room: &RoomKey, publication: Publication) {
        self.call(|central| {
            let ticket = central.ticket(self.line, ticket);
            central.memory.publish(ticket, room, publication);
        });
    }

    fn read(&mut self, ticket: u64, room: &RoomKey, after: u64, batch: Batch) {
        self.call(|central| {
            let ticket = central.ticket(self.line, ticket);
            central.memory.read(ticket, room, after, batch);
        });
    }

    fn holds(&mut self, key: &RoomKey, client: &Arc<str>, held: Option<Held>) {
        self.call(|central| {
            let room = central.rooms.get_mut(key).expect("a room that is open");
            let place = (client.clone(), self.node);
            match held.clone() {
                Some(held) => drop(room.held.insert(place, held)),
                None => drop(room.held.remove(&place)),
            }
            let clients = || vec![(self.node, client.clone(), held.clone())];
            let others = || Event::Others { room: key.clone(), clients: clients(), whole: false };
            central.push_to_all(key, Some(self.node), others);
        });
    }

    fn tell(&mut self, room: &RoomKey, telling: Telling) {
        self.call(|central| {
            let told = || Event::Told { room: room.clone(), telling: telling.clone() };
            central.push_to_all(room, Some(self.node), told);
        });
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let line = &mut self.cluster.0.borrow_mut().lines[self.line];
        line.waker = Some(cx.waker().clone());
        line.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) {
        self.cluster.0.borrow_mut().memory.poll_timers(cx);
    }
}
