//! The messages of protocol.md: what clients send, read once, and what they are sent.
pub mod push;
mod request;

pub use request::{Fault, Payload, Request, read};

/// A client's status, as pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It has a session in the room.
    Online,
    /// It has none any more.
    Offline,
}

impl Status {
    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Online => "online",
            Status::Offline => "offline",
        }
    }
}

/// The longest name of a room, a client or a message, in bytes.
pub const NAME_MAX: usize = 128;

/// Whether a room may have this name: 1 to 128 bytes of letters, digits and `-_.:/@`.
pub fn is_room_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/@".contains(&b);
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(allowed)
}
