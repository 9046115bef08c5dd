//! permessage-deflate (RFC 7692), in rooms and echo always without context takeover in both directions: one compressor and
//! one inflater serve all sockets of a shard, and one deflated frame serves all members of a room. What a relay passes
//! on is only followed for its [inflated size](InflatedSize), in whatever way its peers have agreed on.
mod inflated;
mod offer;

pub use inflated::InflatedSize;
pub use offer::negotiate;

use super::frame::{Fault, Opcode, header, whole};
use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What a compressed message ends with and is sent without (RFC 7692, section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// The tail, and an empty final block: the inflater reaches the stream's end only if the message ended with a block.
const TAIL_AND_END: [u8; 6] = [0x00, 0x00, 0xFF, 0xFF, 0x03, 0x00];

/// A scratch buffer over this is not kept for the next message.
const SCRATCH_BYTES_MAX: usize = 64 * 1024;

/// The least room that an inflater grows by.
const GROWTH_BYTES_MIN: usize = 4 * 1024;

/// Final blocks inside one message, each of which starts the inflater anew (RFC 7692, section 7.2.3.4 allows them).
/// Honest senders need one; the bound keeps two bytes of input from costing a reset each.
const FINAL_BLOCKS_MAX: usize = 16;

/// Inflates messages, one after the other. One for each shard; takes its memory with the first message.
#[derive(Debug, Default)]
pub struct Inflater {
    stream: Option<Decompress>,
    output: Vec<u8>,
}

impl Inflater {
    /// An inflater without memory yet.
    pub fn new() -> Inflater {
        Inflater::default()
    }

    /// The last message.
    pub(super) fn output(&self) -> &[u8] {
        &self.output
    }

    /// The last message is not needed any more: a large buffer goes.
    pub(super) fn release(&mut self) {
        self.output.clear();
        if self.output.capacity() > SCRATCH_BYTES_MAX {
            self.output = Vec::new();
        }
    }

    /// Inflates a whole message into [`Inflater::output`], at most `max` bytes of it.
    pub(super) fn inflate(&mut self, payload: &[u8], max: u64) -> Result<(), Fault> {
        self.release();
        if payload.is_empty() {
            // Not what section 7.2.3.6 asks for (one zero byte), but it cannot mean anything else.
            return Ok(());
        }
        let stream = self.stream.get_or_insert_with(|| Decompress::new(false));
        stream.reset(false);
        let mut rest = payload;
        let mut final_blocks = 0;
        while !rest.is_empty() {
            let (used, status) = inflate_part(stream, rest, &mut self.output, max)?;
            rest = &rest[used..];
            if status == Status::StreamEnd {
                final_blocks += 1;
                if rest.is_empty() {
                    return Ok(());
                }
                if final_blocks > FINAL_BLOCKS_MAX {
                    return Err(Fault::InvalidData);
                }
                stream.reset(false);
            }
        }
        let (used, status) = inflate_part(stream, &TAIL_AND_END, &mut self.output, max)?;
        if used == TAIL_AND_END.len() && status == Status::StreamEnd { Ok(()) } else { Err(Fault::InvalidData) }
    }
}

/// Inflates until the input is used up and all its output is there, or a stream ends. Says how much was used.
fn inflate_part(
    stream: &mut Decompress,
    input: &[u8],
    output: &mut Vec<u8>,
    max: u64,
) -> Result<(usize, Status), Fault> {
    let mut used = 0;
    loop {
        if output.len() == output.capacity() {
            // One byte over the limit is room enough to see that it is passed.
            let left = max.saturating_add(1).saturating_sub(output.len() as u64);
            let growth = output.len().max(GROWTH_BYTES_MIN) as u64;
            output.reserve_exact(growth.min(left) as usize);
        }
        let before = (stream.total_in(), output.len());
        let status =
            stream.decompress_vec(&input[used..], output, FlushDecompress::Sync).map_err(|_| Fault::InvalidData)?;
        used += (stream.total_in() - before.0) as usize;
        if output.len() as u64 > max {
            return Err(Fault::TooLarge);
        }
        let full = output.len() == output.capacity();
        if status == Status::StreamEnd || (used == input.len() && !full) {
            return Ok((used, status));
        }
        if !full && before == (stream.total_in(), output.len()) {
            return Err(Fault::InvalidData);
        }
    }
}

/// Deflates messages, one after the other. One for each shard; takes its memory with the first message.
#[derive(Debug, Default)]
pub struct Deflater {
    stream: Option<Compress>,
    output: Vec<u8>,
}

impl Deflater {
    /// A deflater without memory yet.
    pub fn new() -> Deflater {
        Deflater::default()
    }

    /// A whole unmasked frame with RSV1; `None` where it would not be smaller than the plain one, or the compressor
    /// failed: then the plain one is to be sent.
    pub fn frame(&mut self, opcode: Opcode, payload: &[u8]) -> Option<Bytes> {
        self.output.clear();
        if self.output.capacity() > SCRATCH_BYTES_MAX {
            self.output = Vec::new();
        }
        self.output.reserve(payload.len() + TAIL.len());
        let stream = self.stream.get_or_insert_with(|| Compress::new(Compression::default(), false));
        stream.reset();
        stream.compress_vec(payload, &mut self.output, FlushCompress::Sync).ok()?;
        // A buffer that is full may have more to come; either way it is no gain.
        if self.output.len() == self.output.capacity() || stream.total_in() != payload.len() as u64 {
            return None;
        }
        let deflated = self.output.strip_suffix(&TAIL)?;
        let (_, plain_header) = header(opcode as u8, true, false, payload.len());
        let (_, deflated_header) = header(opcode as u8, true, true, deflated.len());
        let smaller = deflated_header + deflated.len() < plain_header + payload.len();
        smaller.then(|| whole(opcode, true, deflated))
    }
}

#[cfg(test)]
mod tests;
