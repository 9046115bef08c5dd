//! What one session has asked, and what it has been made to believe.
use super::*;
use std::collections::BTreeSet;

/// Something asked that is to be answered, or may be refused.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: String,
    pub(super) what: What,
    /// `None`: no room, or all.
    pub(super) room: Option<usize>,
    /// What was asked later of the same room was answered: this one may only be refused.
    passed: bool,
}

#[derive(Clone, PartialEq)]
pub(super) enum What {
    Join {
        since: Option<Position>,
    },
    Leave,
    /// With the number of the message.
    Publish(usize),
    Members,
    Presences,
    /// With the status; answered only where it is refused.
    Status(&'static str),
    /// Typing or a receipt; the same.
    Silent,
}

/// Without what differs from one run of a seed to the next.
impl std::fmt::Debug for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            What::Join { since } => write!(f, "join since {:?}", since.as_ref().map(|since| since.offset)),
            What::Leave => f.write_str("leave"),
            What::Publish(message) => write!(f, "publish {message}"),
            What::Members => f.write_str("members"),
            What::Presences => f.write_str("presences"),
            What::Status(status) => write!(f, "status {status}"),
            What::Silent => f.write_str("silent"),
        }
    }
}

impl Asked {
    pub(super) fn new(id: String, what: What, room: Option<usize>) -> Asked {
        Asked { id, what, room, passed: false }
    }

    fn is_answered(&self) -> bool {
        !matches!(self.what, What::Silent | What::Status(_))
    }
}

/// When something was told: between these two.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) from: Instant,
    pub(super) to: Instant,
}

#[derive(Default)]
pub(super) struct View {
    pub(super) rooms: BTreeMap<usize, Seen>,
    asked: Vec<Asked>,
    /// The last message to everyone, once one has come.
    pub(super) everyone: Option<Position>,
    /// The last answer to a question after presences.
    pub(super) presences: Option<Value>,
}

/// A room that the session is in.
pub(super) struct Seen {
    pub(super) epoch: Arc<str>,
    /// The offset of the next message.
    pub(super) next: u64,
    pub(super) conflated: bool,
    /// Nothing has come since it joined.
    pub(super) fresh: bool,
    /// It may still be fed from the history, and be overtaken.
    pub(super) recovers: bool,
    /// The others, by what the session has been told since it asked for the members.
    pub(super) believed: Option<BTreeMap<String, String>>,
    /// When each client's last start was told.
    pub(super) started: BTreeMap<String, Span>,
    pub(super) typing: BTreeSet<String>,
    pub(super) receipts: BTreeMap<String, u64>,
}

impl Seen {
    pub(super) fn new(position: &Position, conflated: bool) -> Seen {
        Seen {
            epoch: position.epoch.clone(),
            next: position.offset + 1,
            conflated,
            fresh: true,
            recovers: false,
            believed: None,
            started: BTreeMap::new(),
            typing: BTreeSet::new(),
            receipts: BTreeMap::new(),
        }
    }

    /// A message of the room: the next one, and none else.
    pub(super) fn message(&mut self, position: &Position) {
        assert_eq!(position.epoch, self.epoch, "a message of another epoch");
        if self.conflated {
            // What waits when one joins comes after, and is the room's last message.
            let waited = u64::from(std::mem::take(&mut self.fresh));
            assert!(position.offset + waited >= self.next, "offset {} where {} was next", position.offset, self.next);
        } else {
            assert_eq!(position.offset, self.next, "a message is missing, or comes twice");
        }
        self.next = position.offset + 1;
    }

    /// Another is shown to be there, or not.
    pub(super) fn presence(&mut self, client: &str, status: &str) {
        let Some(believed) = &mut self.believed else { return };
        let before = match status {
            "offline" => believed.remove(client),
            status => believed.insert(client.into(), status.into()),
        };
        let before = before.as_deref().unwrap_or("offline");
        assert_ne!(before, status, "{client} is told to be {status} a second time");
    }

    /// Another types or has stopped.
    pub(super) fn types(&mut self, client: &str, start: bool, span: Span) {
        if !start {
            self.typing.remove(client);
            return;
        }
        self.typing.insert(client.into());
        if let Some(before) = self.started.insert(client.into(), span) {
            let apart = span.to.duration_since(before.from);
            assert!(apart >= Seconds::from_secs(2), "two starts of {client} within {apart:?}");
        }
    }

    /// Another has read so far.
    pub(super) fn receipt(&mut self, client: &str, offset: u64) {
        let before = self.receipts.insert(client.into(), offset).unwrap_or_default();
        assert!(offset > before, "a receipt of {client} goes from {before} to {offset}");
    }
}

impl View {
    /// Something is on its way to the gateway.
    pub(super) fn asks(&mut self, asked: Asked) {
        self.asked.push(asked);
    }

    /// The request that an answer is for. `success`: it was done, and so was nothing of the room that was asked later.
    pub(super) fn answered(&mut self, id: &str, success: bool) -> Asked {
        let place = self.asked.iter().position(|asked| asked.id == id);
        let asked = self.asked.remove(place.unwrap_or_else(|| panic!("an answer to nothing: {id}")));
        if success {
            assert!(!asked.passed, "answers to {id} and to what followed it come in the wrong order");
            let publish = matches!(asked.what, What::Publish(_));
            let before = self.asked[..place.unwrap_or_default()].iter_mut();
            let same = |a: &&mut Asked| a.room == asked.room && matches!(a.what, What::Publish(_)) == publish;
            before.filter(same).for_each(|earlier| earlier.passed = asked.what != What::Presences);
        }
        asked
    }

    /// Requests without an answer; those that need none are forgotten.
    pub(super) fn unanswered(&mut self) -> &[Asked] {
        self.asked.retain(Asked::is_answered);
        &self.asked
    }

    /// Something of this name is asked of another room, and its refusal would not say which is meant.
    pub(super) fn is_taken(&self, id: &str, room: usize) -> bool {
        self.asked.iter().any(|asked| asked.id == id && asked.room != Some(room))
    }

    pub(super) fn is_asking_for(&self, room: usize) -> bool {
        self.asked.iter().any(|asked| asked.room == Some(room) && matches!(asked.what, What::Join { .. } | What::Leave))
    }
}
