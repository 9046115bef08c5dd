//! Chunked bodies (RFC 9112, section 7.1).
use super::{Field, Head, State};

/// Digits of a chunk's size: what a signed 64-bit number holds.
const DIGITS_MAX: u8 = 15;

/// The longest extensions of one chunk, in bytes. They mean nothing here (section 7.1.1).
const EXTENSIONS_MAX: u8 = 128;

/// A place in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// In a size, of which so many digits have come.
    Size {
        size: u64,
        digits: u8,
    },
    /// In the extensions behind the size, of which so many bytes may come.
    Extensions {
        size: u64,
        left: u8,
    },
    /// In the end of the line.
    SizeLf(u64),
    /// In the data, of which so many bytes are to come, at least one.
    Data(u64),
    /// In the line end behind the data.
    DataCr,
    DataLf,
}

impl Chunk {
    /// Before a chunk.
    pub(super) const START: Chunk = Chunk::Size { size: 0, digits: 0 };
}

impl Head {
    pub(super) fn chunk(&mut self, at: Chunk, byte: u8) -> Option<State> {
        let next = match (at, byte) {
            (Chunk::Size { size, digits: 1.. } | Chunk::Extensions { size, .. }, b'\r') => Chunk::SizeLf(size),
            (Chunk::Size { size, digits: 1.. }, b';') => Chunk::Extensions { size, left: EXTENSIONS_MAX },
            (Chunk::Size { size, digits: digits @ ..DIGITS_MAX }, _) => {
                let digit = char::from(byte).to_digit(16)?;
                Chunk::Size { size: size * 16 + u64::from(digit), digits: digits + 1 }
            }
            (Chunk::Extensions { size, left: left @ 1.. }, b' '..=b'~' | b'\t') => {
                Chunk::Extensions { size, left: left - 1 }
            }
            (Chunk::SizeLf(0), b'\n') => {
                self.trailers = true;
                return Some(State::Field(Field::Start));
            }
            (Chunk::SizeLf(size), b'\n') => Chunk::Data(size),
            (Chunk::DataCr, b'\r') => Chunk::DataLf,
            (Chunk::DataLf, b'\n') => Chunk::START,
            _ => return None,
        };
        Some(State::Chunk(next))
    }
}
