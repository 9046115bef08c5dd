//! Which nodes live, as far as rooms must know.
use crate::cluster::{LiveNodes, NodeId};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A node that rooms show before it is on the list of those that live may be new; if it is not on it after this time it is
/// one of the past.
const NEW_FOR: Duration = Duration::from_secs(5);
/// What a node held is taken out when it has been dead for so long.
const REMOVED_AFTER: Duration = Duration::from_secs(60);
/// Nodes that are remembered to be dead. One that is forgotten is a new one for a while, where it is found again.
const DEAD_MAX: usize = 1024;

/// The nodes.
pub struct Lives {
    nodes: Arc<LiveNodes>,
    version: u64,
    own: NodeId,
    /// Those that live, or may do so, with the time at which they were found in a room and not on the list.
    known: HashMap<NodeId, Option<Instant>>,
    /// Those that do not, and since when.
    dead: HashMap<NodeId, Instant>,
    /// When what dead nodes held is looked for.
    cleaned_at: Option<Instant>,
}

/// What has changed.
#[derive(Default)]
pub struct Changes {
    /// These live no more.
    pub gone: Vec<NodeId>,
    /// All rooms are to be looked at anew: this node is another one, or one that was dead lives.
    pub anew: bool,
}

impl Lives {
    /// As the list has them.
    pub fn new(nodes: Arc<LiveNodes>) -> Lives {
        let (version, now) = (nodes.version(), nodes.now());
        let known = now.nodes.iter().map(|node| (node.id, None)).collect();
        Lives { nodes, version, own: now.own, known, dead: HashMap::new(), cleaned_at: None }
    }

    /// This node.
    pub fn own(&self) -> NodeId {
        self.own
    }

    /// What is found of a node in a room: whether it counts. Nodes that nobody has heard of count for a while.
    pub fn counts(&mut self, node: NodeId) -> bool {
        if self.dead.contains_key(&node) {
            return false;
        }
        if self.known.len() < 4 * DEAD_MAX {
            self.known.entry(node).or_insert_with(|| Some(Instant::now()));
        }
        self.known.contains_key(&node)
    }

    /// Whether what is found of a node is to be taken out.
    pub fn is_long_dead(&self, node: NodeId) -> bool {
        self.dead.get(&node).is_some_and(|since| since.elapsed() >= REMOVED_AFTER)
    }

    /// Looks at the list again. Where Redis is not reached it is not kept up, and no node is too old to be new.
    pub fn look(&mut self, reached: bool) -> Changes {
        let (mut changes, now) = (Changes::default(), Instant::now());
        if !reached {
            self.known.values_mut().flatten().for_each(|since| *since = now);
        }
        if self.nodes.version() != self.version {
            self.version = self.nodes.version();
            let live = self.nodes.now();
            if live.own != self.own {
                // What it held goes at once.
                let long_ago = now.checked_sub(REMOVED_AFTER).unwrap_or(now);
                self.bury(self.own, long_ago);
                self.own = live.own;
                changes.anew = true;
            }
            for node in &live.nodes {
                changes.anew |= self.dead.remove(&node.id).is_some();
                self.known.insert(node.id, None);
            }
            let dead = self.known.iter().filter(|(node, since)| since.is_none() && !live.has(**node));
            changes.gone.extend(dead.map(|(node, _)| *node));
        }
        let strangers = self.known.iter().filter(|(_, since)| since.is_some_and(|since| since + NEW_FOR <= now));
        changes.gone.extend(strangers.map(|(node, _)| *node));
        for node in &changes.gone {
            self.bury(*node, now);
            self.cleaned_at = Some(now + REMOVED_AFTER);
        }
        changes
    }

    /// Whether it is time to look through all rooms for what dead nodes held. Once.
    pub fn cleans(&mut self) -> bool {
        let due = self.cleaned_at.is_some_and(|at| at <= Instant::now());
        if due {
            self.cleaned_at = None;
        }
        due
    }

    fn bury(&mut self, node: NodeId, since: Instant) {
        self.known.remove(&node);
        if self.dead.len() >= DEAD_MAX
            && let Some((oldest, _)) = self.dead.iter().min_by_key(|(_, since)| **since)
        {
            let oldest = *oldest;
            self.dead.remove(&oldest);
        }
        self.dead.insert(node, since);
    }
}
