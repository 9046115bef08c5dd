//! What a client remembers over its sessions.
use super::*;

const CLIENTS: usize = 160;

pub(super) struct Client {
    pub(super) name: String,
    /// What it has said of itself, as far as the gateway has read it.
    pub(super) said: &'static str,
    /// It must say that again: a node to which it was said has been killed.
    pub(super) unsure: bool,
    /// It is known to be invisible since then.
    pub(super) hidden_since: Option<Instant>,
    /// When it last had a session.
    pub(super) there: Instant,
    /// The last message that it has seen of each room.
    pub(super) seen: BTreeMap<usize, Position>,
    /// What it sent, and knows nothing of, by the numbers of messages.
    pub(super) unacknowledged: Vec<usize>,
    pub(super) acknowledged: VecDeque<usize>,
    /// Rooms it likes.
    pub(super) rooms: Vec<usize>,
}

pub(super) fn all() -> Vec<Client> {
    let client = |i: usize| Client {
        name: format!("c{i:03}"),
        said: "online",
        unsure: false,
        hidden_since: None,
        there: Instant::now(),
        seen: BTreeMap::new(),
        unacknowledged: Vec::new(),
        acknowledged: VecDeque::new(),
        // One large room is everybody's; the others have few members, so that they empty now and then.
        rooms: vec![0, 1 + i % 3, 4 + i % 5, 4 + (i / 5) % 5, 9 + i % 5],
    };
    (0..CLIENTS).map(client).collect()
}

impl Client {
    pub(super) fn answered(&mut self, message: usize) {
        self.unacknowledged.retain(|m| *m != message);
        self.acknowledged.push_back(message);
        if self.acknowledged.len() > 20 {
            self.acknowledged.pop_front();
        }
    }
}
