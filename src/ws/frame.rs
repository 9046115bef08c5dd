//! Frames: what a stream must obey, and headers judged byte by byte (RFC 6455, section 5).
mod encode;
mod head;
mod walk;

pub(super) use encode::whole;
pub use encode::{frame, frame_with, header, masked_frame, payload};
pub(super) use head::{Head, Headers};
pub use walk::{Part, Piece, Tally, Walker};

use tungstenite::protocol::frame::coding::CloseCode;

/// Whether the frames of a stream carry a mask (RFC 6455, section 5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Masking {
    /// Frames of a client: each must be masked.
    Required,
    /// Frames of a server: none may be masked.
    Forbidden,
}

/// Which reserved bits are allowed (RFC 6455, section 5.2). Control frames never carry one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rsv {
    /// None: no extension was negotiated.
    None,
    /// RSV1, on the first frame of a data message alone: permessage-deflate (RFC 7692, section 6).
    Deflate,
    /// Any, on data frames: for a relay between peers that negotiated extensions unknown to it.
    Any,
}

/// What the frames of one stream must obey.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Whether the frames are masked.
    pub masking: Masking,
    /// The largest message in bytes of payload, its fragments summed; `u64::MAX` for no limit.
    pub max_message_size: u64,
    /// Which reserved bits are allowed.
    pub rsv: Rsv,
}

/// Why a stream cannot go on. The stream is to be closed with [`Fault::code`]; nothing more is read from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A rule of RFC 6455 was broken; the words say which.
    Protocol(&'static str),
    /// Text, or the reason of a Close, is not UTF-8 (RFC 6455, section 8.1).
    NotUtf8,
    /// A message over `max_message_size`.
    TooLarge,
    /// Compressed data that does not inflate (RFC 7692, section 7.2.2).
    InvalidData,
}

impl Fault {
    /// The close code: 1002, 1007 or 4005.
    pub fn code(self) -> crate::close::Code {
        match self {
            Fault::Protocol(_) => crate::close::Code::Protocol,
            Fault::NotUtf8 | Fault::InvalidData => crate::close::Code::NotUtf8,
            Fault::TooLarge => crate::close::Code::TooLarge,
        }
    }

    /// Words for a close reason or a log line.
    pub fn message(self) -> &'static str {
        match self {
            Fault::Protocol(words) => words,
            Fault::NotUtf8 => "text is not UTF-8",
            Fault::TooLarge => "message too large",
            Fault::InvalidData => "compressed data is broken",
        }
    }
}

/// The opcodes of RFC 6455, section 5.2. tungstenite's has room for reserved ones, which end here at the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Opcode {
    /// Goes on with a fragmented message.
    Continuation = 0,
    /// A text message, or its first fragment.
    Text = 1,
    /// A binary message, or its first fragment.
    Binary = 2,
    /// Ends the connection.
    Close = 8,
    /// Asks for a Pong.
    Ping = 9,
    /// Answers a Ping.
    Pong = 10,
}

/// The opcodes of control frames (RFC 6455, section 5.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// Ends the connection.
    Close,
    /// Asks for a Pong.
    Ping,
    /// Answers a Ping.
    Pong,
}

impl Opcode {
    /// The control opcode, or `None` for data frames.
    pub fn control(self) -> Option<Control> {
        match self {
            Opcode::Continuation | Opcode::Text | Opcode::Binary => None,
            Opcode::Close => Some(Control::Close),
            Opcode::Ping => Some(Control::Ping),
            Opcode::Pong => Some(Control::Pong),
        }
    }
}

/// Reads the payload of a Close frame: `None` when empty, else code and reason (RFC 6455, sections 5.5.1 and 7.4).
///
/// # Errors
/// [`Fault::Protocol`] for one byte alone or a code that may not stand on the wire; [`Fault::NotUtf8`] for the reason.
pub fn read_close(payload: &[u8]) -> Result<Option<(u16, &str)>, Fault> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Fault::Protocol("close code cut short")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    // 1014 (bad gateway) came to IANA's registry after tungstenite's table.
    if code != 1014 && !CloseCode::from(code).is_allowed() {
        return Err(Fault::Protocol("close code not allowed"));
    }
    let reason = simdutf8::basic::from_utf8(reason).map_err(|_| Fault::NotUtf8)?;
    Ok(Some((code, reason)))
}

/// Masks or unmasks in place and turns `key` so that it fits the byte after `bytes` (RFC 6455, section 5.3).
pub(super) fn mask(bytes: &mut [u8], key: &mut [u8; 4]) {
    let [a, b, c, d] = *key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c, d]) {
        *byte ^= key;
    }
    key.rotate_left(rest.len() % 4);
}

#[cfg(test)]
mod tests;
