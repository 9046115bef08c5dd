//! The wire: RFC 6455 and permessage-deflate (RFC 7692) over byte streams that somebody else reads and writes.
//!
//! [`frame::Walker`] follows the frames of a stream without owning them: the relay counts, checks and forwards the very
//! bytes. [`message::Reader`] puts messages together: rooms and echo read those. Both judge a header with the same
//! code, byte for byte as it arrives, so a limit or a rule speaks before anything is buffered.
//!
//! tungstenite gives the encoding of headers, the opcodes, the close codes and the accept key. Its `WebSocket` copies
//! every payload into each connection and knows no reserved bits; it is the other side of the differential test
//! (`tests/ws_differential.rs`, `fuzz/`).
pub mod deflate;
pub mod frame;
pub mod message;

pub use deflate::{Deflater, InflatedSize, Inflater, negotiate};
pub use frame::{Control, Fault, Masking, Opcode, Part, Piece, Rsv, Rules, Tally, Walker};
pub use frame::{frame, frame_with, header, masked_frame, read_close};
pub use message::{Chunk, Event, Reader};

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key` (RFC 6455, section 4.2.2, point 5.4).
pub fn accept_key(key: &[u8]) -> String {
    tungstenite::handshake::derive_accept_key(key)
}

#[cfg(test)]
mod tests {
    #[test]
    fn accept_key_of_the_rfc() {
        assert_eq!(super::accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
