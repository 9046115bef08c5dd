//! A room that is used here, as far as it is known how it stands in Redis.
use super::presence::Scan;
use crate::config::Rules;
use crate::rooms::broker::Held;
use crate::rooms::mail::{Position, RoomKey};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What a node has seen of a room's count. Whoever finds that less stands there, or another message at a place that was
/// told, knows that the count is broken.
pub struct Seen {
    /// Names the count.
    pub epoch: Arc<str>,
    /// The highest offset.
    pub offset: u64,
    /// The offset of the message that was told last.
    pub told: u64,
    /// When that one got its place, in milliseconds; 0: not known.
    pub at: u64,
    /// Whether that is to be looked at in the stream: Redis may be another one since.
    pub looks: bool,
}

/// How far a room's messages have been told.
pub struct Count {
    /// Names the count.
    pub epoch: Arc<str>,
    /// The last message that was told.
    pub told: u64,
    /// When it got its place, in milliseconds; 0: not known.
    pub told_at: u64,
    /// The last message that there is, as scripts have answered: not below `told`.
    pub last: u64,
    /// The last message that came too early, as whoever pushes it says: it is looked for, and nothing else is made of it.
    pub early: u64,
}

/// How a message that came stands to those that were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It is the next.
    Next,
    /// It was told.
    Old,
    /// Others are missing before it.
    Early,
    /// It is of another count.
    Foreign,
}

/// Whether it is being asked how the room stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Syncing {
    #[default]
    No,
    /// It waits for its turn.
    Queued,
    /// Redis was asked.
    Asked,
    /// Redis was asked, and is to be asked again: what it answers may be of before the subscription.
    AskedAgain,
}

/// A room that is used here.
pub struct Room {
    pub key: RoomKey,
    pub rules: Arc<Rules>,
    /// Its channel, which is the beginning of its keys.
    pub channel: Bytes,
    pub slot: u16,
    /// Tells it from rooms that had its place before.
    pub generation: u64,
    /// `None`: it is not open yet.
    pub count: Option<Count>,
    /// The home was not told yet that it is open.
    pub is_new: bool,
    pub subscribed: bool,
    pub syncing: Syncing,
    /// Names what reads the messages that are missing; what another one brings is of no use any more.
    pub filling: Option<u64>,
    /// It is looked at again at the next tick.
    pub suspect: bool,
    /// The presence's version that is known here.
    pub version: u64,
    /// Who is there is being read.
    pub scan: Option<Box<Scan>>,
    /// What this node holds.
    pub held: HashMap<Arc<str>, Held>,
    /// Redis may have something else, and is to be asked.
    pub is_uncertain: bool,
    /// The clients of which Redis does not know it yet.
    pub dirty: HashSet<Arc<str>>,
}

impl Count {
    /// A count of which everything up to this message was told, or needs not be.
    pub fn from(epoch: &str, offset: u64, at: u64) -> Count {
        Count { epoch: epoch.into(), told: offset, told_at: at, last: offset, early: 0 }
    }

    /// The place of the last message that was told.
    pub fn position(&self) -> Position {
        self.at(self.told)
    }

    /// A place of this count.
    pub fn at(&self, offset: u64) -> Position {
        Position { epoch: self.epoch.clone(), offset }
    }

    /// Looks at a message that came.
    pub fn arrival(&self, epoch: &str, offset: u64) -> Arrival {
        if *self.epoch != *epoch {
            Arrival::Foreign
        } else if offset == self.told + 1 {
            Arrival::Next
        } else if offset <= self.told {
            Arrival::Old
        } else {
            Arrival::Early
        }
    }

    /// The next message is told.
    pub fn tells(&mut self, at: u64) -> Position {
        self.told += 1;
        self.told_at = at;
        self.last = self.last.max(self.told);
        self.position()
    }

    /// Whether there are messages that were not told.
    pub fn lacks(&self) -> bool {
        self.told < self.last.max(self.early)
    }
}

impl Room {
    /// A room that is to be opened.
    pub fn new(key: &RoomKey, rules: &Arc<Rules>, channel: &Bytes, slot: u16, generation: u64) -> Room {
        Room {
            key: key.clone(),
            rules: rules.clone(),
            channel: channel.clone(),
            slot,
            generation,
            count: None,
            is_new: true,
            subscribed: false,
            syncing: Syncing::No,
            filling: None,
            suspect: false,
            version: 0,
            scan: None,
            held: HashMap::new(),
            is_uncertain: false,
            dirty: HashSet::new(),
        }
    }

    /// What is known of its count, if it is open.
    pub fn seen(&self) -> Option<Seen> {
        let Count { epoch, told, told_at, last, early: _ } = self.count.as_ref()?;
        let looks = self.syncing != Syncing::No;
        Some(Seen { epoch: epoch.clone(), offset: *last, told: *told, at: *told_at, looks })
    }
}

impl Syncing {
    /// Whether Redis has been asked.
    pub fn is_asked(self) -> bool {
        match self {
            Syncing::Asked | Syncing::AskedAgain => true,
            Syncing::No | Syncing::Queued => false,
        }
    }
}
