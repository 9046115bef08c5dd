//! A room, as its home holds it: who is in it, on which shards, and where its order stands.
use super::broker::Message;
use super::desk::DeskAsk;
use super::mail::{Cursor, Position, Request, SessionRef};
use super::protocol::Status;
use super::statuses::Said;
use super::typing::Typing;
use crate::config::Rules;
use crate::limits::RoomPermit;
use jiff::Timestamp;
use smallvec::SmallVec;
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
    /// The application was told that somebody is in it.
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
    /// Clients that are invisible, and their sessions.
    hidden: (usize, usize),
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

struct Client {
    sessions: SmallVec<[Seat; 1]>,
    since: Timestamp,
    said: Option<Arc<Said>>,
    _permit: RoomPermit,
}

/// A session in the room.
pub struct Seat {
    session: SessionRef,
    deflate: bool,
    /// It recovers: names this, so that what was asked before it joined anew is known.
    pub recovers: Option<u64>,
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

/// One line of the list of members.
#[derive(Debug, Clone)]
pub struct Member {
    /// The client.
    pub client: Arc<str>,
    /// When its first session came.
    pub since: Timestamp,
    /// What it has said of itself, or that it is online.
    pub status: Status,
    /// Since when that holds here.
    pub status_since: Timestamp,
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
        }
    }

    /// Clients in the room.
    pub fn count(&self) -> usize {
        self.clients.len()
    }

    /// Clients in the room that this one sees; itself it always does.
    pub fn count_for(&self, client: &str) -> usize {
        let itself = usize::from(self.clients.get(client).is_some_and(Client::is_hidden));
        self.clients.len() - self.hidden.0 + itself
    }

    /// Sessions in the room.
    pub fn sessions(&self) -> usize {
        self.shards.iter().map(|s| s.sessions as usize).sum()
    }

    /// Sessions in the room of clients that this one sees.
    pub fn sessions_for(&self, client: &str) -> usize {
        let own = self.clients.get(client).filter(|c| c.is_hidden()).map_or(0, |c| c.sessions.len());
        self.sessions() - self.hidden.1 + own
    }

    /// Whether the room is of no use to anybody now.
    pub fn is_unused(&self) -> bool {
        self.clients.is_empty()
            && self.position.is_some()
            && self.waiting.is_empty()
            && self.joining.is_empty()
            && self.asked_by_servers == 0
    }

    /// Whether what is asked must wait: the room is not open yet, or others wait for that.
    pub fn is_waited_for(&self) -> bool {
        self.position.is_none() || !self.waiting.is_empty()
    }

    /// Lets out everybody.
    pub fn leave_all(&mut self) -> Vec<(SessionRef, Change)> {
        let sessions = |(name, c): (&Arc<str>, &Client)| c.sessions.iter().map(|s| (name.clone(), s.session)).collect();
        let sessions: Vec<Vec<(Arc<str>, SessionRef)>> = self.clients.iter().map(sessions).collect();
        let leave = |(client, session): (Arc<str>, SessionRef)| (session, self.leave(&client, session));
        sessions.into_iter().flatten().map(leave).collect()
    }

    /// Whether the client has a session here.
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

    /// Whether a client that is here is invisible.
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

    /// What others are shown of a client that is here.
    pub fn shown(&self, client: &str) -> Option<Status> {
        self.clients.get(client).map(Client::shown)
    }

    /// Whether some member takes compressed frames.
    pub fn wants_deflate(&self) -> bool {
        self.deflating > 0
    }

    /// Takes a session in. `permit` is called for its client's first one; none: it is in too many rooms.
    pub fn join(&mut self, new: Newcomer<'_>, permit: impl FnOnce() -> Option<RoomPermit>) -> Option<Change> {
        let Newcomer { client, session, deflate, said, recovers } = new;
        if let Some(seat) = self.seat(client, session) {
            seat.recovers = recovers;
            return Some(Change::Nothing);
        }
        let known = self.clients.contains_key(client);
        if !known {
            let new = Client { sessions: SmallVec::new(), since: Timestamp::now(), said: None, _permit: permit()? };
            self.clients.insert(client.clone(), new);
        }
        // Where it has other sessions here, the others in the room are to be told: see `say`.
        if let Some(said) = said.filter(|_| !known) {
            self.say(client, said);
        }
        let entry = self.clients.get_mut(client)?;
        entry.sessions.push(Seat { session, deflate, recovers });
        let hidden = entry.is_hidden();
        self.hidden.1 += usize::from(hidden);
        self.deflating += usize::from(deflate);
        self.shards[usize::from(session.shard)].sessions += 1;
        Some(if known { Change::Session } else { Change::Client { visible: !hidden } })
    }

    /// Lets a session out.
    pub fn leave(&mut self, client: &str, session: SessionRef) -> Change {
        let Some(entry) = self.clients.get_mut(client) else { return Change::Nothing };
        let Some(place) = entry.sessions.iter().position(|s| s.session == session) else { return Change::Nothing };
        let seat = entry.sessions.swap_remove(place);
        let (hidden, last) = (entry.is_hidden(), entry.sessions.is_empty());
        self.hidden.1 -= usize::from(hidden);
        self.deflating -= usize::from(seat.deflate);
        self.shards[usize::from(session.shard)].sessions -= 1;
        if !last {
            return Change::Session;
        }
        self.hidden.0 -= usize::from(hidden);
        self.clients.remove(client);
        Change::Client { visible: !hidden }
    }

    /// The sessions of a client.
    pub fn sessions_of(&self, client: &str) -> Vec<SessionRef> {
        self.clients.get(client).map_or_else(Vec::new, |c| c.sessions.iter().map(|s| s.session).collect())
    }

    /// Lets out every session of a shard; what that meant for each client.
    pub fn leave_shard(&mut self, shard: u16) -> Vec<(Arc<str>, Change)> {
        let here = |c: &Client| c.sessions.iter().filter(|s| s.session.shard == shard).map(|s| s.session).collect();
        let sessions: Vec<(Arc<str>, Vec<SessionRef>)> =
            self.clients.iter().map(|(client, c)| (client.clone(), here(c))).collect();
        let mut changes = Vec::new();
        for (client, sessions) in sessions {
            for session in sessions {
                changes.push((client.clone(), self.leave(&client, session)));
            }
        }
        self.shards[usize::from(shard)] = Presence::default();
        changes
    }

    /// A client has said something of itself: how it was shown to others before, and is from now on. `None` where that
    /// is the same.
    pub fn say(&mut self, client: &str, said: Arc<Said>) -> Option<(Status, Status)> {
        let entry = self.clients.get_mut(client)?;
        if entry.said.as_ref().is_some_and(|known| *known >= said) {
            return None;
        }
        let (was_hidden, before) = (entry.is_hidden(), entry.shown());
        entry.said = Some(said);
        let (hidden, after, sessions) = (entry.is_hidden(), entry.shown(), entry.sessions.len());
        match (was_hidden, hidden) {
            (false, true) => self.hidden = (self.hidden.0 + 1, self.hidden.1 + sessions),
            (true, false) => self.hidden = (self.hidden.0 - 1, self.hidden.1 - sessions),
            _ => (),
        }
        (before != after).then_some((before, after))
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

    /// Those of these clients that are here, as `viewer` sees them.
    pub fn those_of(&self, clients: &[Box<str>], viewer: &str) -> Vec<Member> {
        let here = clients.iter().filter_map(|client| self.clients.get_key_value(&**client));
        here.filter(|(name, c)| c.is_seen_by(name, Some(viewer))).map(|(name, c)| c.line(name)).collect()
    }
}

impl Client {
    fn is_hidden(&self) -> bool {
        self.said.as_ref().is_some_and(|said| said.status == Status::Invisible)
    }

    fn is_seen_by(&self, name: &str, viewer: Option<&str>) -> bool {
        !self.is_hidden() || viewer.is_none_or(|viewer| viewer == name)
    }

    fn status(&self) -> Status {
        self.said.as_ref().map_or(Status::Online, |said| said.status.clone())
    }

    /// What others are shown.
    fn shown(&self) -> Status {
        match self.status() {
            Status::Invisible => Status::Offline,
            status => status,
        }
    }

    fn line(&self, client: &Arc<str>) -> Member {
        let status_since = self.said.as_ref().map_or(self.since, |said| said.since.max(self.since));
        Member { client: client.clone(), since: self.since, status: self.status(), status_since }
    }
}

#[cfg(test)]
mod tests;
