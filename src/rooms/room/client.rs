//! A client in a room: its sessions here, and what other nodes hold of it.
use crate::cluster::NodeId;
use crate::limits::RoomPermit;
use crate::rooms::broker::Held;
use crate::rooms::mail::SessionRef;
use crate::rooms::protocol::Status;
use crate::rooms::statuses::Said;
use jiff::Timestamp;
use smallvec::SmallVec;
use std::sync::Arc;

type Holders = SmallVec<[(NodeId, Held); 1]>;

#[derive(Default)]
pub(super) struct Client {
    /// Its sessions here.
    pub(super) sessions: SmallVec<[Seat; 1]>,
    /// When the first of these came.
    pub(super) since: Timestamp,
    /// The newest that it has said of itself, to whatever node. It never becomes older while the client is in the room.
    pub(super) said: Option<Arc<Said>>,
    /// While it has sessions here.
    pub(super) permit: Option<RoomPermit>,
    /// What other nodes hold of it. Boxed, since most clients are on one node alone.
    elsewhere: Option<Box<Holders>>,
}

/// A session in the room.
pub struct Seat {
    pub(super) session: SessionRef,
    pub(super) deflate: bool,
    /// It recovers: names this, so that what was asked before it joined anew is known.
    pub recovers: Option<u64>,
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

impl Client {
    pub(super) fn is_here(&self) -> bool {
        !self.sessions.is_empty()
    }

    pub(super) fn elsewhere(&self) -> &[(NodeId, Held)] {
        self.elsewhere.as_deref().map_or(&[], |held| held)
    }

    pub(super) fn is_nowhere(&self) -> bool {
        self.sessions.is_empty() && self.elsewhere.is_none()
    }

    /// What this node holds of it.
    pub(super) fn held(&self) -> Option<Held> {
        let sessions = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
        self.is_here().then(|| Held { sessions, since: self.since, said: self.said.clone() })
    }

    /// What another node holds of it.
    pub(super) fn held_by(&self, node: NodeId) -> Option<&Held> {
        self.elsewhere().iter().find(|(holder, _)| *holder == node).map(|(_, held)| held)
    }

    /// What another node holds is this from now on. Whether what is held here has changed by that: the client has said
    /// something there which was not known here.
    pub(super) fn hold(&mut self, node: NodeId, held: Option<Held>) -> bool {
        let news = held.as_ref().and_then(|held| held.said.clone()).filter(|said| self.said.as_ref() < Some(said));
        let learns = self.is_here() && news.is_some();
        self.said = news.or(self.said.take());
        let mut elsewhere = self.elsewhere.take().unwrap_or_default();
        elsewhere.retain(|(holder, _)| *holder != node);
        elsewhere.extend(held.map(|held| (node, held)));
        self.elsewhere = (!elsewhere.is_empty()).then_some(elsewhere);
        learns
    }

    pub(super) fn sessions_elsewhere(&self) -> usize {
        self.elsewhere().iter().map(|(_, held)| held.sessions as usize).sum()
    }

    /// Its sessions on all nodes.
    pub(super) fn sessions(&self) -> usize {
        self.sessions.len() + self.sessions_elsewhere()
    }

    /// When its first session came, on whatever node.
    fn since(&self) -> Timestamp {
        let here = self.is_here().then_some(self.since);
        self.elsewhere().iter().map(|(_, held)| held.since).chain(here).min().unwrap_or_default()
    }

    pub(super) fn is_hidden(&self) -> bool {
        self.said.as_ref().is_some_and(|said| said.status == Status::Invisible)
    }

    pub(super) fn is_seen_by(&self, name: &str, viewer: Option<&str>) -> bool {
        !self.is_hidden() || viewer.is_none_or(|viewer| viewer == name)
    }

    fn status(&self) -> Status {
        self.said.as_ref().map_or(Status::Online, |said| said.status.clone())
    }

    /// What others are shown.
    pub(super) fn shown(&self) -> Status {
        match self.status() {
            Status::Invisible => Status::Offline,
            status => status,
        }
    }

    pub(super) fn line(&self, client: &Arc<str>) -> Member {
        let since = self.since();
        let status_since = self.said.as_ref().map_or(since, |said| said.since.max(since));
        Member { client: client.clone(), since, status: self.status(), status_since }
    }
}
