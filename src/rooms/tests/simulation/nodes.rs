//! Several nodes that share their rooms: they are killed and come anew, and what they share is lost.
use super::world::{DUPLICATES, SHARDS};
use super::*;
use crate::cluster::NodeId;
use crate::rooms::mail::Mail;
use crate::rooms::tests::twin::Cluster;
use std::collections::BTreeSet;

pub(super) const NODES: usize = 2;
/// What the others hold is told anew, a room is lost, a node is killed, and the others learn that: of a hundred such
/// things.
const REPAIRED: usize = 30;
const LOST: usize = 60;
const KILLED: usize = 75;

/// A run that is long enough comes to all of these.
pub(super) const MUST_HAPPEN: [&str; 3] = ["nodes gone", "nodes killed", "rooms lost"];

/// What nodes share.
pub(super) struct Nodes {
    pub(super) cluster: Cluster,
    far: bool,
    rules: config::Rooms,
    /// So that a room has the same home on all.
    hasher: RandomState,
    started: u64,
    /// By the place of their houses.
    ids: [NodeId; NODES],
    /// Killed, and the others do not know.
    unheard: Vec<NodeId>,
    /// What clients have said of themselves, as far as it was told to anybody.
    said: BTreeMap<(Namespace, Arc<str>), Said>,
    /// Of whom that is new.
    news: Vec<(Namespace, Arc<str>)>,
}

fn copy(said: &Said) -> Said {
    Said { status: said.status.clone(), ..*said }
}

impl Nodes {
    pub(super) fn new(far: bool, rules: config::Rooms) -> Nodes {
        Nodes {
            cluster: Cluster::new(Memory::new(DUPLICATES, None)),
            far,
            rules,
            hasher: RandomState::new(),
            started: 0,
            ids: [NodeId(0); NODES],
            unheard: Vec::new(),
            said: BTreeMap::new(),
            news: Vec::new(),
        }
    }

    /// Another node starts, and learns what clients have said of themselves.
    pub(super) fn start(&mut self, place: usize) -> House {
        self.started += 1;
        let node = NodeId(self.started);
        self.ids[place] = node;
        let parts = Parts::alone(self.rules.clone());
        let house = House::of(SHARDS / NODES, parts, Some(self.hasher.clone()), || {
            let twin = self.cluster.twin(node);
            if self.far { Box::new(Delayed::over(twin)) } else { Box::new(twin) }
        });
        house.joins(&self.cluster, node);
        self.said.iter().for_each(|((namespace, client), said)| house.learns(*namespace, client, copy(said)));
        house
    }

    /// Sees what clients have said of themselves among the mail of a shard.
    pub(super) fn hears(&mut self, mails: &[Mail]) {
        for mail in mails {
            let Mail::Status { namespace, client, said } = mail else { continue };
            let of = (*namespace, client.clone());
            if self.said.get(&of) < Some(&**said) {
                self.said.insert(of.clone(), copy(said));
                self.news.push(of);
            }
        }
    }

    /// Tells all nodes what is new. Whether there was anything.
    pub(super) fn tells(&mut self, houses: &[House]) -> bool {
        let news = std::mem::take(&mut self.news);
        for of in &news {
            houses.iter().for_each(|house| house.learns(of.0, &of.1, copy(&self.said[of])));
        }
        !news.is_empty()
    }
}

impl Sim {
    /// Nodes that have sessions of a client remind the others of what it has said.
    pub(super) fn nodes_remind_each_other(&mut self) {
        let Some(nodes) = &self.world.nodes else { return };
        let live: BTreeSet<&str> =
            self.sessions.values().filter(|s| s.is_live()).map(|s| &*self.clients[s.client].name).collect();
        for (of, said) in nodes.said.iter().filter(|((_, client), _)| live.contains(&**client)) {
            self.world.houses.iter().for_each(|house| house.learns(of.0, &of.1, copy(said)));
        }
    }
}

impl House {
    fn learns(&self, namespace: Namespace, client: &Arc<str>, said: Said) {
        let shared = &self.shards[0].shared;
        if let Some(said) = shared.statuses.learn(namespace, client, said, Instant::now()) {
            shared.post_status(namespace, client, &said);
        }
    }
}

impl Sim {
    /// One thing happens to nodes.
    pub(super) fn something_fails(&mut self) {
        let (room, dice) = (self.dice.below(self.model.rooms.len()), self.dice.below(100));
        let key = key(&self.model.rooms[room].name);
        let Some(nodes) = &mut self.world.nodes else { return };
        match dice {
            0..REPAIRED => nodes.cluster.repair(&key),
            REPAIRED..LOST => {
                self.log.line(format!("{} room {room} is lost", self.step));
                nodes.cluster.lose(&key);
                self.model.lost(room);
                self.somebody_may_lose_its_place();
                self.count("rooms lost");
            }
            LOST..KILLED => self.a_node_is_killed(),
            _ => self.a_dead_node_is_noticed(),
        }
    }

    fn a_node_is_killed(&mut self) {
        let node = self.dice.below(NODES);
        let each = self.world.shards_each();
        self.log.line(format!("{} node {node} is killed", self.step));
        let shards = node * each..(node + 1) * each;
        let sessions = self.sessions.iter().filter(|(_, s)| shards.contains(&s.shard));
        let clients: Vec<usize> = sessions.clone().map(|(_, s)| s.client).collect();
        for number in sessions.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.cut(number);
        }
        let Some(nodes) = &mut self.world.nodes else { return };
        let id = nodes.ids[node];
        nodes.cluster.kill(id);
        nodes.unheard.push(id);
        let house = nodes.start(node);
        self.world.houses[node] = house;
        self.world.begins(node, node * each);
        for client in clients {
            // The last that it said may have been lost with the node.
            self.clients[client].unsure = true;
            self.clients[client].hidden_since = None;
            if self.dice.percent(70) {
                self.connects(client);
            }
        }
        self.count("nodes killed");
    }

    fn a_dead_node_is_noticed(&mut self) {
        let Some(nodes) = &mut self.world.nodes else { return };
        if let Some(id) = nodes.unheard.pop() {
            self.log.line(format!("{} {id} is gone", self.step));
            nodes.cluster.gone(id);
            self.count("nodes gone");
        }
    }

    /// Whatever has happened to nodes is known to all, and who does not know whether it was heard says again what it is.
    pub(super) fn nodes_come_to_rest(&mut self) {
        while self.world.nodes.as_ref().is_some_and(|nodes| !nodes.unheard.is_empty()) {
            self.a_dead_node_is_noticed();
        }
        for client in 0..self.clients.len() {
            let live = self.sessions.iter().find(|(_, s)| s.client == client && s.can_ask()).map(|(number, _)| *number);
            if let Some(number) = live.filter(|_| self.clients[client].unsure) {
                let said = self.clients[client].said;
                self.says(number, said);
            }
        }
    }
}
