//! The messages of protocol.md: what clients send, read once, and what they are sent.
pub mod push;
mod request;

pub use request::{Fault, NESTED_MAX, Names, Payload, Request, is_nested_deeper, read};

/// A client's status.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Status {
    /// It is there.
    #[default]
    Online,
    /// It has no session in the room, or is shown as if.
    Offline,
    /// It is there, and shown as if it were not.
    Invisible,
    /// "away", "busy", or its own words: 1 to 64 bytes.
    Text(std::sync::Arc<str>),
}

impl Status {
    /// As on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Status::Online => "online",
            Status::Offline => "offline",
            Status::Invisible => "invisible",
            Status::Text(text) => text,
        }
    }
}

/// From what [`Status::as_str`] gave.
impl From<&str> for Status {
    fn from(text: &str) -> Status {
        match text {
            "online" => Status::Online,
            "offline" => Status::Offline,
            "invisible" => Status::Invisible,
            text => Status::Text(text.into()),
        }
    }
}

/// Whether a client may say this of itself: 1 to 64 bytes without controls.
pub fn is_status(text: &str) -> bool {
    (1..=64).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The longest name of a room, a client or a message, in bytes.
pub const NAME_MAX: usize = 128;

/// Whether a room may have this name: 1 to 128 bytes of letters, digits and `-_.:/@`.
pub fn is_room_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/@".contains(&b);
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(allowed)
}
