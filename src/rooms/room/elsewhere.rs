//! What other nodes hold in a room.
use super::{Room, Shown};
use crate::cluster::NodeId;
use crate::rooms::broker::Held;
use std::collections::btree_map::Entry;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

/// A node that holds something of a client.
pub type Holder = (NodeId, Arc<str>);

impl Room {
    /// What another node holds of a client is this from now on; `None`: nothing. How others see the client by that, and
    /// whether what this node holds has changed too ([`held`](Self::held)): what the client said there holds here.
    pub fn hold(&mut self, node: NodeId, client: &Arc<str>, held: Option<Held>) -> (Shown, bool) {
        let known = self.clients.get(client).and_then(|entry| entry.held_by(node));
        if known == held.as_ref() {
            return (Shown::default(), false);
        }
        match (known.is_some(), held.is_some()) {
            (false, true) => *self.nodes.entry(node).or_default() += 1,
            (true, false) => {
                if let Entry::Occupied(mut clients) = self.nodes.entry(node) {
                    *clients.get_mut() -= 1;
                    if *clients.get() == 0 {
                        clients.remove();
                    }
                }
            }
            (true, true) | (false, false) => (),
        }
        self.clients.entry(client.clone()).or_default();
        let mut learns = false;
        let shown = self.change(client, |entry| learns = entry.hold(node, held));
        (shown, learns)
    }

    /// What this node holds of a client.
    pub fn held(&self, client: &str) -> Option<Held> {
        self.clients.get(client)?.held()
    }

    /// The other nodes that hold something here, in order.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.keys().copied()
    }

    /// Whether this node holds something here.
    pub fn is_held(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node)
    }

    /// Looks at no more than `most` clients after this one, in the order of their names: which nodes hold them; and the
    /// last of them where there are more.
    pub fn holders(&self, after: Option<&Arc<str>>, most: usize) -> (Vec<Holder>, Option<Arc<str>>) {
        let from = after.map_or(Unbounded, |after| Excluded(&**after));
        let mut rest = self.clients.range::<str, _>((from, Unbounded));
        let (mut holders, mut last) = (Vec::new(), None);
        for (client, entry) in rest.by_ref().take(most) {
            holders.extend(entry.elsewhere().iter().map(|(node, _)| (*node, client.clone())));
            last = Some(client);
        }
        let more = rest.next().is_some();
        (holders, last.filter(|_| more).cloned())
    }
}
