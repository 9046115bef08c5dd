//! What other nodes hold in the rooms here, and what they tell.
use super::{Due, Home};
use crate::cluster::{LiveNodes, NodeId};
use crate::config::{HookEvent, Namespace};
use crate::rooms::broker::{Held, Telling};
use crate::rooms::mail::{Except, Mail, Position, RoomKey};
use crate::rooms::protocol::push;
use crate::rooms::room::Shown;
use crate::rooms::typing::TELL_EVERY;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Clients that are looked at before others have their turn.
const CLIENTS_AT_ONCE: usize = 256;

/// When a room of everyone that could not be opened is tried again.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// What is left to do of the broker's last event. Its next one waits for that.
pub(super) struct Elsewhere {
    /// The nodes that live, where there may be others.
    pub(super) live: Option<Arc<LiveNodes>>,
    work: VecDeque<Work>,
    /// The rooms of everyone that are to be opened again: each once.
    unopened: BTreeSet<RoomKey>,
}

type Holders = Vec<crate::rooms::broker::Elsewhere>;

enum Work {
    /// What nodes hold of these clients is so from now on, as far as it is not: from this place in the list on.
    /// `whole`: and nothing else, then.
    Hold { room: RoomKey, holders: Holders, at: usize, whole: bool },
    /// Some of what is held of the clients after this one is held no more.
    Sweep { room: RoomKey, after: Option<Arc<str>>, gone: Gone },
}

enum Gone {
    /// What a node holds that lives no more.
    Node(NodeId),
    /// All but these, in order.
    AllBut(Holders),
}

impl Gone {
    fn is_it(&self, node: NodeId, client: &Arc<str>) -> bool {
        match self {
            Gone::Node(dead) => *dead == node,
            Gone::AllBut(kept) => kept.binary_search_by(|(n, c, _)| (c, n).cmp(&(client, &node))).is_err(),
        }
    }
}

impl Elsewhere {
    pub(super) fn new(live: Option<Arc<LiveNodes>>) -> Elsewhere {
        Elsewhere { live, work: VecDeque::new(), unopened: BTreeSet::new() }
    }

    pub(super) fn is_waited_for(&self) -> bool {
        !self.work.is_empty()
    }
}

impl Home {
    /// Has the rooms of everyone here that are at home here opened, where other nodes may send to them.
    pub(super) fn open_everyone(&mut self) {
        if self.elsewhere.live.is_none() {
            return;
        }
        for index in 0..self.shared.namespaces.len() {
            let namespace = Namespace { index: index as u16 };
            let key = RoomKey::everyone(namespace);
            if self.shared.home_of(&key) == self.shard.index {
                let _ = self.enter(&key, true);
            }
        }
    }

    /// It could not be opened now.
    pub(super) fn open_everyone_later(&mut self, key: &RoomKey) {
        if self.elsewhere.live.is_some() && self.elsewhere.unopened.insert(key.clone()) {
            self.schedule.enter(Instant::now() + OPEN_AGAIN, Due::Everyone(key.clone()));
        }
    }

    /// It is time to try it.
    pub(super) fn open_everyone_again(&mut self, key: &RoomKey) {
        self.elsewhere.unopened.remove(key);
        let _ = self.enter(key, true);
    }

    /// What other nodes hold in a room has changed.
    pub(super) fn others(&mut self, room: RoomKey, mut holders: Holders, whole: bool) {
        if whole {
            holders.sort_unstable_by(|(n, c, _), (node, client, _)| (c, n).cmp(&(client, node)));
        }
        self.elsewhere.work.push_back(Work::Hold { room, holders, at: 0, whole });
        self.work_elsewhere();
    }

    /// A node lives no more.
    pub(super) fn gone(&mut self, node: NodeId) {
        let rooms = self.rooms.iter().filter(|(_, room)| room.is_held(node)).map(|(key, _)| key.clone());
        let mut rooms: Vec<RoomKey> = rooms.collect();
        // A run of a test shall follow from its seed.
        rooms.sort_unstable();
        let sweep = |room| Work::Sweep { room, after: None, gone: Gone::Node(node) };
        self.elsewhere.work.extend(rooms.into_iter().map(sweep));
    }

    /// Does a piece of what is left to do.
    pub(super) fn work_elsewhere(&mut self) {
        let left = match self.elsewhere.work.pop_front() {
            None => None,
            Some(Work::Hold { room, holders, at, whole }) => self.hold_some(room, holders, at, whole),
            Some(Work::Sweep { room, after, gone }) => self.sweep_some(room, after.as_ref(), gone),
        };
        if let Some(left) = left {
            self.elsewhere.work.push_front(left);
        }
    }

    fn hold_some(&mut self, room: RoomKey, holders: Holders, at: usize, whole: bool) -> Option<Work> {
        let end = holders.len().min(at + CLIENTS_AT_ONCE);
        for (node, client, held) in &holders[at..end] {
            self.hold(&room, *node, client, held.clone());
        }
        if end < holders.len() {
            return Some(Work::Hold { room, holders, at: end, whole });
        }
        if whole {
            return Some(Work::Sweep { room, after: None, gone: Gone::AllBut(holders) });
        }
        self.others_came_or_went(&room);
        None
    }

    fn sweep_some(&mut self, key: RoomKey, after: Option<&Arc<str>>, gone: Gone) -> Option<Work> {
        let (holders, next) = self.rooms.get(&key)?.holders(after, CLIENTS_AT_ONCE);
        let speaks = match gone {
            Gone::Node(dead) => self.speaks_for(dead, &key),
            Gone::AllBut(_) => false,
        };
        for (node, client) in holders.into_iter().filter(|(node, client)| gone.is_it(*node, client)) {
            let shown = self.hold(&key, node, &client, None);
            if speaks && shown.before.is_some() && shown.after.is_none() {
                self.tell_hook(HookEvent::Left, &key, Some(&client));
            }
        }
        if next.is_some() {
            return Some(Work::Sweep { room: key, after: next, gone });
        }
        if speaks {
            self.tell_vacated(&key);
        }
        self.others_came_or_went(&key);
        None
    }

    fn hold(&mut self, key: &RoomKey, node: NodeId, client: &Arc<str>, held: Option<Held>) -> Shown {
        let Some(room) = self.rooms.get_mut(key) else { return Shown::default() };
        let (shown, learns) = room.hold(node, client, held);
        if learns {
            self.holds(key, client);
        }
        self.shows(key, client, &shown);
        shown
    }

    /// Their own node tells the application.
    fn others_came_or_went(&mut self, key: &RoomKey) {
        if let Some(room) = self.rooms.get_mut(key) {
            room.occupied = room.count() > 0;
        }
    }

    /// Whether it is for this node to tell the application who went with another: the first does that of those that
    /// live and have members in the room.
    fn speaks_for(&self, dead: NodeId, key: &RoomKey) -> bool {
        let live = self.elsewhere.live.as_ref().map(|live| live.now());
        let lives = |node: &NodeId| *node != dead && live.as_ref().is_none_or(|live| live.has(*node));
        let Some(room) = self.rooms.get(key) else { return false };
        let own = live.as_ref().map(|live| live.own).filter(|_| room.has_members_here());
        room.nodes().find(lives).is_none_or(|first| own.is_some_and(|own| own < first))
    }

    /// Another node tells what its members do.
    pub(super) fn told(&mut self, key: &RoomKey, telling: Telling) {
        let expiry = self.shared.rules.typing_expiry + TELL_EVERY;
        let Some(room) = self.rooms.get_mut(key) else { return };
        match telling {
            Telling::Typing { client, start: true } => {
                // It would show one that is not there.
                if room.has_client(&client) && !room.is_hidden(&client) {
                    // Its node tells of every start that comes so late, and of the end: this is for a node that dies.
                    let outcome = room.typing.start(&client, Instant::now(), expiry, false);
                    self.tell_typing(key, &client, outcome, true);
                }
            }
            Telling::Typing { client, start: false } => self.stops_typing(key, &client, true),
            Telling::Receipt { client, offset } => {
                let has_come = room.position.as_ref().is_some_and(|position| offset <= position.offset);
                // One that is of another epoch would stand in the way of those to come.
                if has_come && room.has_client(&client) && room.read_up_to(&client, offset) && !room.is_hidden(&client)
                {
                    self.push(key, &push::read_receipt(&key.name, &client, offset), Except::None);
                }
            }
        }
    }

    /// Tells the other nodes that have members in the room.
    pub(super) fn tell_nodes(&mut self, key: &RoomKey, telling: Telling) {
        if self.rooms.get(key).is_some_and(|room| room.nodes().next().is_some()) {
            self.broker.tell(key, telling);
        }
    }

    /// Messages of a room are lost: who is in it must come again, from the position of now.
    pub(super) fn lost_its_place(&mut self, key: &RoomKey, position: Position) {
        let Some(room) = self.rooms.get_mut(key) else { return };
        let Some(before) = &room.position else { return };
        let another_epoch = before.epoch != position.epoch;
        room.position = Some(position);
        if key.is_everyone() {
            let namespace = &**self.shared.namespace(key.namespace);
            return tracing::warn!(namespace, "messages to everyone were lost");
        }
        room.conflated = (None, None);
        if another_epoch {
            room.receipts.clear();
        }
        // Those shards that were told to end all memberships of it will do that anyway.
        for shard in room.shards_to_tell().collect::<Vec<_>>() {
            self.next_number += 1;
            let loss = self.next_number;
            room.fell_behind(shard, loss, true);
            self.shared.post.send(shard, Mail::Overtaken { room: key.clone(), loss });
        }
    }
}
