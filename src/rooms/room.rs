//! A room, as its home holds it: who is in it, on which shards, and where its order stands.
use super::mail::{Position, Request, SessionRef};
use jiff::Timestamp;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A room.
pub struct Room {
    /// Where its order stands; `None` until the broker has opened it.
    pub position: Option<Position>,
    /// Requests that wait for that.
    pub waiting: Vec<Request>,
    clients: BTreeMap<Arc<str>, Client>,
    shards: Vec<Presence>,
    /// Sessions that take compressed frames.
    deflating: usize,
}

#[derive(Clone, Copy, Default)]
struct Presence {
    sessions: u32,
    /// Names the loss that its members have yet to be told of.
    behind: Option<u64>,
}

struct Client {
    sessions: SmallVec<[(SessionRef, bool); 1]>,
    since: Timestamp,
}

/// What a change of sessions meant for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Its first session came, or its last one left.
    Client,
    /// One of several sessions.
    Session,
    /// Nothing: it was so before.
    Nothing,
}

/// One line of the list of members.
pub struct Member {
    /// The client.
    pub client: Arc<str>,
    /// When its first session came.
    pub since: Timestamp,
    /// Its status.
    pub status: super::protocol::Status,
}

impl Room {
    /// An empty room that the broker has yet to open.
    pub fn new(shards: usize) -> Room {
        Room {
            position: None,
            waiting: Vec::new(),
            clients: BTreeMap::new(),
            shards: vec![Presence::default(); shards],
            deflating: 0,
        }
    }

    /// Clients in the room.
    pub fn count(&self) -> usize {
        self.clients.len()
    }

    /// Sessions in the room.
    pub fn sessions(&self) -> usize {
        self.shards.iter().map(|s| s.sessions as usize).sum()
    }

    /// Whether the client has a session here.
    pub fn has_client(&self, client: &str) -> bool {
        self.clients.contains_key(client)
    }

    /// Whether this very session is in the room.
    pub fn has_session(&self, client: &str, session: SessionRef) -> bool {
        self.clients.get(client).is_some_and(|c| c.sessions.iter().any(|(s, _)| *s == session))
    }

    /// Whether some member takes compressed frames.
    pub fn wants_deflate(&self) -> bool {
        self.deflating > 0
    }

    /// Takes a session in.
    pub fn join(&mut self, client: &Arc<str>, session: SessionRef, deflate: bool) -> Change {
        if self.has_session(client, session) {
            return Change::Nothing;
        }
        let new = || Client { sessions: SmallVec::new(), since: Timestamp::now() };
        let entry = self.clients.entry(client.clone()).or_insert_with(new);
        entry.sessions.push((session, deflate));
        self.deflating += usize::from(deflate);
        self.shards[usize::from(session.shard)].sessions += 1;
        if entry.sessions.len() == 1 { Change::Client } else { Change::Session }
    }

    /// Lets a session out.
    pub fn leave(&mut self, client: &str, session: SessionRef) -> Change {
        let Some(entry) = self.clients.get_mut(client) else { return Change::Nothing };
        let Some(place) = entry.sessions.iter().position(|(s, _)| *s == session) else { return Change::Nothing };
        let (_, deflate) = entry.sessions.swap_remove(place);
        self.deflating -= usize::from(deflate);
        self.shards[usize::from(session.shard)].sessions -= 1;
        if !entry.sessions.is_empty() {
            return Change::Session;
        }
        self.clients.remove(client);
        Change::Client
    }

    /// Lets out every session of a shard; the clients that have none left.
    pub fn leave_shard(&mut self, shard: u16) -> Vec<Arc<str>> {
        let mut gone = Vec::new();
        self.clients.retain(|name, client| {
            client.sessions.retain(|(s, deflate)| {
                self.deflating -= usize::from(s.shard == shard && *deflate);
                s.shard != shard
            });
            if client.sessions.is_empty() {
                gone.push(name.clone());
            }
            !client.sessions.is_empty()
        });
        self.shards[usize::from(shard)] = Presence::default();
        gone
    }

    /// Shards that have members and get every delivery.
    pub fn shards(&self) -> impl Iterator<Item = usize> + '_ {
        self.shards.iter().enumerate().filter(|(_, s)| s.sessions > 0 && s.behind.is_none()).map(|(i, _)| i)
    }

    /// Whether deliveries to this shard have been left out: the name of that loss.
    pub fn behind(&self, shard: u16) -> Option<u64> {
        self.shards[usize::from(shard)].behind
    }

    /// A delivery to this shard was left out: it gets none until its members have been told.
    pub fn fell_behind(&mut self, shard: usize, loss: u64) {
        self.shards[shard].behind = Some(loss);
    }

    /// At most `limit` members after `after`, and whether there are more.
    pub fn page(&self, limit: usize, after: Option<&str>) -> (Vec<Member>, bool) {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let mut rest = self.clients.range::<str, _>((from, Unbounded));
        let page = rest.by_ref().take(limit).map(|(client, c)| Member {
            client: client.clone(),
            since: c.since,
            status: super::protocol::Status::Online,
        });
        (page.collect(), rest.next().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(shard: u16, slot: u32) -> SessionRef {
        SessionRef { shard, slot, generation: 0 }
    }

    #[test]
    fn clients_are_counted_and_not_sessions() {
        let (mut room, alice) = (Room::new(2), Arc::from("alice"));
        assert_eq!(room.join(&alice, session(0, 1), false), Change::Client);
        assert_eq!(room.join(&alice, session(1, 1), false), Change::Session);
        assert_eq!(room.join(&alice, session(1, 1), false), Change::Nothing);
        assert_eq!((room.count(), room.sessions()), (1, 2));
        assert_eq!(room.leave("alice", session(0, 1)), Change::Session);
        assert_eq!(room.leave("alice", session(0, 1)), Change::Nothing);
        assert_eq!(room.leave("alice", session(1, 1)), Change::Client);
        assert_eq!((room.count(), room.sessions()), (0, 0));
    }

    #[test]
    fn pages_go_on_where_the_last_ended() {
        let mut room = Room::new(1);
        for i in 0..5 {
            room.join(&format!("c{i}").into(), session(0, i), false);
        }
        let (first, more) = room.page(3, None);
        assert_eq!((first.len(), more), (3, true));
        let (second, more) = room.page(3, Some(&first[2].client));
        assert_eq!((&*second[0].client, second.len(), more), ("c3", 2, false));
    }

    #[test]
    fn a_shard_that_fell_behind_gets_nothing_until_its_members_left() {
        let (mut room, alice) = (Room::new(2), Arc::from("alice"));
        room.join(&alice, session(0, 1), false);
        room.join(&Arc::from("bob"), session(1, 1), false);
        room.fell_behind(1, 7);
        assert_eq!(room.behind(1), Some(7));
        assert_eq!(room.shards().collect::<Vec<_>>(), [0]);
        assert_eq!(room.leave_shard(1), [Arc::from("bob")]);
        assert_eq!(room.behind(1), None);
    }
}
