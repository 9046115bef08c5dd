//! A room, as its home holds it: who is in it, on which shards and on which other nodes, and where its order stands.
mod client;
mod elsewhere;

pub use client::{Member, Seat};

use super::broker::Message;
use super::desk::DeskAsk;
use super::mail::{Cursor, Position, Request, SessionRef};
use super::protocol::Status;
use super::statuses::Said;
use super::typing::Typing;
use crate::cluster::NodeId;
use crate::config::Rules;
use crate::limits::RoomPermit;
use client::Client;
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use tokio::time::Instant;

/// A room.
pub struct Room {
    /// What holds for it.
    pub rules: Arc<Rules>,
    /// Where its order stands; `None` until the broker has opened it.
    pub position: Option<Position>,
    /// What waits for that.
    pub(super) waiting: VecDeque<Waiting>,
    /// Sessions whose joins wait for the broker, with what they asked after that.
    pub joining: HashMap<SessionRef, (Request, Vec<Request>)>,
    /// The application was told that somebody is in it, by whatever node.
    pub occupied: bool,
    /// Members that recover on a shard which is behind: what they asked waits until it has caught up.
    pub held: Vec<(SessionRef, Arc<str>, Cursor)>,
    /// What servers asked and the broker has yet to answer.
    pub asked_by_servers: usize,
    /// Who types.
    pub typing: Typing,
    /// How far each client has read.
    pub receipts: HashMap<Arc<str>, u64>,
    /// When a conflated room was last sent a message, and its offset; and the newest since then.
    pub conflated: (Option<(Instant, u64)>, Option<Message>),
    clients: BTreeMap<Arc<str>, Client>,
    shards: Vec<Presence>,
    /// Sessions that take compressed frames.
    deflating: usize,
    /// Clients that are invisible, and their sessions on all nodes.
    hidden: (usize, usize),
    /// Sessions on other nodes.
    elsewhere: usize,
    /// The other nodes that hold something here, and of how many clients.
    nodes: BTreeMap<NodeId, usize>,
}

/// What waits until a room is open.
pub(super) enum Waiting {
    /// A member's, or one who would be one.
    Request(Request),
    /// A server's.
    Desk(DeskAsk),
}

#[derive(Clone, Copy, Default)]
struct Presence {
    sessions: u32,
    behind: Option<Behind>,
}

/// Deliveries to a shard have been left out.
#[derive(Clone, Copy)]
struct Behind {
    /// Names this.
    loss: u64,
    /// Its members are told that they have lost their place: they need nothing more.
    for_good: bool,
}

/// A session that joins.
pub struct Newcomer<'a> {
    /// Its client.
    pub client: &'a Arc<str>,
    /// The session.
    pub session: SessionRef,
    /// Whether it takes compressed frames.
    pub deflate: bool,
    /// What its client has said of itself.
    pub said: Option<Arc<Said>>,
    /// Names its recovery, where there is one.
    pub recovers: Option<u64>,
}

/// What a change of sessions meant for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Its first session came, or its last one left; whether others see it.
    Client {
        /// It is not invisible.
        visible: bool,
    },
    /// One of several sessions.
    Session,
    /// Nothing: it was so before.
    Nothing,
}

/// How others see a client before and after something: as what it is shown ("offline" where it is invisible); `None`:
/// it is not in the room.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Before.
    pub before: Option<Status>,
    /// From now on.
    pub after: Option<Status>,
}

impl Shown {
    /// What it meant that a session came, or went.
    fn change(&self) -> Change {
        match (&self.before, &self.after) {
            (None, Some(status)) | (Some(status), None) => Change::Client { visible: *status != Status::Offline },
            (None, None) | (Some(_), Some(_)) => Change::Session,
        }
    }
}

impl Room {
    /// An empty room that the broker has yet to open.
    pub fn new(shards: usize, rules: Arc<Rules>) -> Room {
        Room {
            rules,
            position: None,
            waiting: VecDeque::new(),
            joining: HashMap::new(),
            occupied: false,
            held: Vec::new(),
            asked_by_servers: 0,
            typing: Typing::default(),
            receipts: HashMap::new(),
            conflated: (None, None),
            clients: BTreeMap::new(),
            shards: vec![Presence::default(); shards],
            deflating: 0,
            hidden: (0, 0),
            elsewhere: 0,
            nodes: BTreeMap::new(),
        }
    }

    /// Clients in the room, on whatever node.
    pub fn count(&self) -> usize {
        self.clients.len()
    }

    /// Clients in the room that this one sees; itself it always does.
    pub fn count_for(&self, client: &str) -> usize {
        let itself = usize::from(self.clients.get(client).is_some_and(Client::is_hidden));
        self.clients.len() - self.hidden.0 + itself
    }

    /// Sessions in the room, on all nodes.
    pub fn sessions(&self) -> usize {
        self.shards.iter().map(|s| s.sessions as usize).sum::<usize>() + self.elsewhere
    }

    /// Sessions in the room of clients that this one sees.
    pub fn sessions_for(&self, client: &str) -> usize {
        let own = self.clients.get(client).filter(|c| c.is_hidden()).map_or(0, Client::sessions);
        self.sessions() - self.hidden.1 + own
    }

    /// Whether anybody is in the room on this node.
    pub fn has_members_here(&self) -> bool {
        self.shards.iter().any(|s| s.sessions > 0)
    }

    /// Whether the room is of no use to anybody here now.
    pub fn is_unused(&self) -> bool {
        !self.has_members_here()
            && self.position.is_some()
            && self.waiting.is_empty()
            && self.joining.is_empty()
            && self.asked_by_servers == 0
    }

    /// Whether what is asked must wait: the room is not open yet, or others wait for that.
    pub fn is_waited_for(&self) -> bool {
        self.position.is_none() || !self.waiting.is_empty()
    }

    /// Lets out everybody who is here.
    pub fn leave_all(&mut self) -> Vec<(SessionRef, Change)> {
        let sessions = |(name, c): (&Arc<str>, &Client)| c.sessions.iter().map(|s| (name.clone(), s.session)).collect();
        let sessions: Vec<Vec<(Arc<str>, SessionRef)>> = self.clients.iter().map(sessions).collect();
        let leave = |(client, session): (Arc<str>, SessionRef)| (session, self.leave(&client, session));
        sessions.into_iter().flatten().map(leave).collect()
    }

    /// Whether the client is in the room, on whatever node.
    pub fn has_client(&self, client: &str) -> bool {
        self.clients.contains_key(client)
    }

    /// Whether this very session is in the room.
    pub fn has_session(&self, client: &str, session: SessionRef) -> bool {
        self.clients.get(client).is_some_and(|c| c.sessions.iter().any(|s| s.session == session))
    }

    /// A session's place.
    pub fn seat(&mut self, client: &str, session: SessionRef) -> Option<&mut Seat> {
        self.clients.get_mut(client)?.sessions.iter_mut().find(|s| s.session == session)
    }

    /// Whether a client that is in the room is invisible.
    pub fn is_hidden(&self, client: &str) -> bool {
        self.clients.get(client).is_some_and(Client::is_hidden)
    }

    /// The offset of the last message that members were sent.
    pub fn sent(&self) -> u64 {
        match self.conflated {
            (Some((_, offset)), _) => offset,
            _ => self.position.as_ref().map_or(0, |position| position.offset),
        }
    }

    /// What others are shown of a client that is in the room.
    pub fn shown(&self, client: &str) -> Option<Status> {
        self.clients.get(client).map(Client::shown)
    }

    /// Whether some member takes compressed frames.
    pub fn wants_deflate(&self) -> bool {
        self.deflating > 0
    }

    /// Takes a session in. `permit` is called for its client's first one here; none: it is in too many rooms.
    pub fn join(&mut self, new: Newcomer<'_>, permit: impl FnOnce() -> Option<RoomPermit>) -> Option<Change> {
        let Newcomer { client, session, deflate, said, recovers } = new;
        if let Some(seat) = self.seat(client, session) {
            seat.recovers = recovers;
            return Some(Change::Nothing);
        }
        let known = self.clients.get(client);
        let first_here = if known.is_some_and(Client::is_here) { None } else { Some(permit()?) };
        // Where it is in the room already, the others are to be told: see `say`.
        let said = said.filter(|_| known.is_none());
        self.clients.entry(client.clone()).or_default();
        let shown = self.change(client, |entry| {
            if first_here.is_some() {
                (entry.permit, entry.since) = (first_here, Timestamp::now());
            }
            if said.is_some() {
                entry.said = said;
            }
            entry.sessions.push(Seat { session, deflate, recovers });
        });
        self.deflating += usize::from(deflate);
        self.shards[usize::from(session.shard)].sessions += 1;
        Some(shown.change())
    }

    /// Lets a session out.
    pub fn leave(&mut self, client: &str, session: SessionRef) -> Change {
        let Some(entry) = self.clients.get(client) else { return Change::Nothing };
        let Some(place) = entry.sessions.iter().position(|s| s.session == session) else { return Change::Nothing };
        self.deflating -= usize::from(entry.sessions[place].deflate);
        self.shards[usize::from(session.shard)].sessions -= 1;
        let shown = self.change(client, |entry| {
            entry.sessions.swap_remove(place);
            if entry.sessions.is_empty() {
                entry.permit = None;
            }
        });
        shown.change()
    }

    /// Changes what is known of a client, and forgets it where that is nothing.
    fn change(&mut self, client: &str, change: impl FnOnce(&mut Client)) -> Shown {
        let Some(entry) = self.clients.get_mut(client) else { return Shown::default() };
        let shown = |entry: &Client| (!entry.is_nowhere()).then(|| entry.shown());
        let hidden = |entry: &Client| if entry.is_hidden() { (1, entry.sessions()) } else { (0, 0) };
        let (before, was_hidden, were_elsewhere) = (shown(entry), hidden(entry), entry.sessions_elsewhere());
        change(entry);
        let (after, hidden) = (shown(entry), if entry.is_nowhere() { (0, 0) } else { hidden(entry) });
        self.hidden = (self.hidden.0 + hidden.0 - was_hidden.0, self.hidden.1 + hidden.1 - was_hidden.1);
        self.elsewhere = self.elsewhere + entry.sessions_elsewhere() - were_elsewhere;
        if entry.is_nowhere() {
            self.clients.remove(client);
        }
        Shown { before, after }
    }

    /// The sessions of a client here.
    pub fn sessions_of(&self, client: &str) -> Vec<SessionRef> {
        self.clients.get(client).map_or_else(Vec::new, |c| c.sessions.iter().map(|s| s.session).collect())
    }

    /// Lets out every session of a shard; what that meant for each client.
    pub fn leave_shard(&mut self, shard: u16) -> Vec<(Arc<str>, Change)> {
        let here = |c: &Client| c.sessions.iter().filter(|s| s.session.shard == shard).map(|s| s.session).collect();
        let sessions: Vec<(Arc<str>, Vec<SessionRef>)> =
            self.clients.iter().filter(|(_, c)| c.is_here()).map(|(client, c)| (client.clone(), here(c))).collect();
        let mut changes = Vec::new();
        for (client, sessions) in sessions {
            for session in sessions {
                changes.push((client.clone(), self.leave(&client, session)));
            }
        }
        self.shards[usize::from(shard)] = Presence::default();
        changes
    }

    /// A client that is here has said something of itself. `None`: that is known, or older than what is.
    pub fn say(&mut self, client: &str, said: Arc<Said>) -> Option<Shown> {
        let entry = self.clients.get(client).filter(|entry| entry.is_here())?;
        let news = entry.said.as_ref() < Some(&said);
        news.then(|| self.change(client, |entry| entry.said = Some(said)))
    }

    /// Remembers how far a client has read. False where it had read as far before.
    pub fn read_up_to(&mut self, client: &Arc<str>, offset: u64) -> bool {
        // Who has left is remembered, so that its receipts go only forward, as long as there is room.
        let bound = 2 * self.clients.len().max(1000);
        if self.receipts.len() >= bound && !self.receipts.contains_key(client) {
            self.receipts.retain(|client, _| self.clients.contains_key(client));
        }
        let known = self.receipts.entry(client.clone()).or_default();
        let forward = offset > *known;
        *known = offset.max(*known);
        forward
    }

    /// Shards that have members and get every message.
    pub fn shards(&self) -> impl Iterator<Item = usize> + '_ {
        self.shards.iter().enumerate().filter(|(_, s)| s.sessions > 0 && s.behind.is_none()).map(|(i, _)| i)
    }

    /// Shards that get what is no message, and cannot be had again: those too that catch up.
    pub fn shards_to_tell(&self) -> impl Iterator<Item = usize> + '_ {
        let told = |s: &Presence| s.sessions > 0 && !s.behind.is_some_and(|behind| behind.for_good);
        self.shards.iter().enumerate().filter(move |(_, s)| told(s)).map(|(i, _)| i)
    }

    /// Whether deliveries to this shard have been left out: the name of that loss.
    pub fn behind(&self, shard: u16) -> Option<u64> {
        self.shards[usize::from(shard)].behind.map(|behind| behind.loss)
    }

    /// A delivery to this shard was left out: it gets no message until it has caught up, or its members have been told.
    pub fn fell_behind(&mut self, shard: usize, loss: u64, for_good: bool) {
        self.shards[shard].behind = Some(Behind { loss, for_good });
    }

    /// The shard has all deliveries again.
    pub fn caught_up(&mut self, shard: u16) {
        self.shards[usize::from(shard)].behind = None;
    }

    /// At most `limit` members after `after`, and whether there are more. `viewer`: who asks, and does not see others
    /// that are invisible; `None` sees all.
    pub fn page(&self, limit: usize, after: Option<&str>, viewer: Option<&str>) -> (Vec<Member>, bool) {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let mut rest = self.clients.range::<str, _>((from, Unbounded)).filter(|(name, c)| c.is_seen_by(name, viewer));
        let page = rest.by_ref().take(limit).map(|(client, c)| c.line(client));
        (page.collect(), rest.next().is_some())
    }

    /// Those of these clients that are in the room, as `viewer` sees them.
    pub fn those_of(&self, clients: &[Box<str>], viewer: &str) -> Vec<Member> {
        let known = clients.iter().filter_map(|client| self.clients.get_key_value(&**client));
        known.filter(|(name, c)| c.is_seen_by(name, Some(viewer))).map(|(name, c)| c.line(name)).collect()
    }
}

#[cfg(test)]
mod tests;
