//! `[rooms]`, valid.
use super::{pattern, secret::Secret};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// `[rooms]`.
#[derive(Debug, Clone)]
pub struct Rooms {
    /// What holds for rooms that no policy matches.
    pub rules: Arc<Rules>,
    /// `[[rooms.policy]]`, in the order of the file: the first match wins.
    pub policies: Vec<Policy>,
    /// Most rooms that one client may be in, over all its sessions on a route.
    pub max_rooms_per_client: usize,
    /// Most rooms with members in the process.
    pub max_rooms: usize,
    /// Whether any client may send to all (`false`: only one whose token says `broadcast: true`).
    pub broadcast_to_all: bool,
    /// Whether presence is pushed.
    pub presence: bool,
    /// What is remembered to know a message that is sent a second time.
    pub duplicates: Duplicates,
    /// When a `typing_start` that nobody stops ends by itself.
    pub typing_expiry: Duration,
    /// The folder of the store: `rooms.store.path`, else `STATE_DIRECTORY`, else `data` beside the file.
    pub store: PathBuf,
    /// `[rooms.hook]`.
    pub hook: Option<Hook>,
    /// The largest message that a server may publish: the largest `max_message_size` of the routes to rooms, and
    /// 1 MiB where that is no limit.
    pub max_message_size: usize,
}

/// What holds for a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Who may join.
    pub join: Permission,
    /// Which members may publish.
    pub publish: Permission,
    /// Whether the room exists from its first member (`create = "join"`), or only where it is declared by a policy
    /// whose pattern stands for one name.
    pub create: Create,
    /// Most clients in the room.
    pub max_members: usize,
    /// What is kept for recovery.
    pub history: History,
    /// Whether that survives a restart.
    pub durable: bool,
    /// Conflation: at most one message in this time to each session, the newest.
    pub latest_only: Option<Duration>,
}

/// `[[rooms.policy]]`.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The names it holds for ([`pattern::fits`]).
    pub pattern: String,
    /// What the policy says, and for what it does not say the defaults of `[rooms]`.
    pub rules: Arc<Rules>,
}

/// Who may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Any client.
    Any,
    /// A client whose token lists a pattern that fits.
    Claim,
    /// None; of `publish` only: servers publish.
    None,
}

/// When a room exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// From its first member.
    Join,
    /// Where a policy names it.
    Declared,
}

/// Bounds of a room's history. A message is kept while it is within all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// Most messages; 0: none are kept.
    pub messages: usize,
    /// The greatest age; also how long an empty room keeps its epoch and offset.
    pub age: Duration,
    /// Most bytes of all messages together, as they are sent.
    pub bytes: usize,
}

/// `rooms.duplicates`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duplicates {
    /// How long a `message_id` is remembered; 0: not at all.
    pub age: Duration,
    /// How many of one client in one room; 0: none.
    pub per_client: usize,
}

/// `[rooms.hook]`.
#[derive(Debug, Clone)]
pub struct Hook {
    /// Where it is asked and told: `http://HOST[:PORT]/PATH`.
    pub url: String,
    /// What it is asked or told.
    pub events: Vec<HookEvent>,
    /// Time for an answer.
    pub timeout: Duration,
    /// Whether what cannot be asked is refused.
    pub deny_on_failure: bool,
    /// Signs the bodies.
    pub secret: Option<Secret>,
}

/// An event that an application is asked about (the first three) or told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HookEvent {
    /// A client's session begins.
    Connect,
    /// A session joins a room.
    Join,
    /// A member publishes.
    Publish,
    /// A room has its first member.
    Occupied,
    /// A room has lost its last member.
    Vacated,
    /// A client's first session is in a room.
    Joined,
    /// A client's last session has left a room.
    Left,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            join: Permission::Any,
            publish: Permission::Any,
            create: Create::Join,
            max_members: 10_000,
            history: History { messages: 100, age: Duration::from_secs(600), bytes: 4 << 20 },
            durable: false,
            latest_only: None,
        }
    }
}

impl Default for Rooms {
    fn default() -> Rooms {
        Rooms {
            rules: Arc::default(),
            policies: Vec::new(),
            max_rooms_per_client: 100,
            max_rooms: 100_000,
            broadcast_to_all: false,
            presence: true,
            duplicates: Duplicates { age: Duration::from_secs(300), per_client: 128 },
            typing_expiry: Duration::from_secs(5),
            store: PathBuf::from("data"),
            hook: None,
            max_message_size: 64 << 10,
        }
    }
}

impl Rooms {
    /// The rules of a room.
    pub fn rules_of(&self, room: &str) -> &Arc<Rules> {
        let policy = self.policies.iter().find(|p| pattern::fits(&p.pattern, room));
        policy.map_or(&self.rules, |p| &p.rules)
    }

    /// Whether a room of this name may come to be.
    pub fn may_exist(&self, room: &str) -> bool {
        self.rules_of(room).create == Create::Join
            || self.policies.iter().any(|p| pattern::is_plain(&p.pattern) && p.pattern == room)
    }
}
