//! How large the messages of a stream are once inflated: they are followed piece by piece, and nothing of them is kept.
use super::{FINAL_BLOCKS_MAX, Inflater, TAIL, TAIL_AND_END};
use crate::ws::frame::{Fault, Part};
use flate2::{Decompress, FlushDecompress, Status};

/// Bytes that are unmasked, and that are inflated, at once.
const INPUT_BYTES: usize = 4 * 1024;
const OUTPUT_BYTES: usize = 16 * 1024;

/// Holds the messages of one stream to a size. What is not compressed counts as it is.
///
/// With context takeover an inflater (some 48 KiB) is kept from the first compressed message on, without it that of the
/// shard is borrowed for the time of a message. A window under 32 KiB needs no care: what it can hold, a larger one can.
pub struct InflatedSize {
    max: u64,
    takeover: bool,
    stream: Option<Decompress>,
    /// Of the current message, so far.
    size: u64,
    final_blocks: usize,
    /// The last byte so far ended a final block.
    at_end: bool,
    in_message: bool,
    /// Nothing has come of the current message. No bytes at all are no block (RFC 7692, section 7.2.3.6, has one), but
    /// cannot mean anything else than an empty message.
    empty: bool,
}

impl InflatedSize {
    /// `max`: bytes of one message. `takeover`: messages may refer to those before them (RFC 7692, section 7.1.1.2).
    pub fn new(max: u64, takeover: bool) -> InflatedSize {
        InflatedSize {
            max,
            takeover,
            stream: None,
            size: 0,
            final_blocks: 0,
            at_end: false,
            in_message: false,
            empty: true,
        }
    }

    /// Follows the next piece of a message, masked as it came; `last`: the message ends with it.
    ///
    /// # Errors
    /// [`Fault::TooLarge`] over `max`; [`Fault::InvalidData`] for what does not inflate. With context takeover a message
    /// that ends inside of a block is noticed by the next one, if at all.
    pub fn follow(&mut self, payload: &[u8], part: Part, last: bool, spare: &mut Inflater) -> Result<(), Fault> {
        if !std::mem::replace(&mut self.in_message, !last) {
            self.size = 0;
            self.final_blocks = 0;
            self.empty = true;
        }
        self.empty &= payload.is_empty();
        if part.deflated {
            return self.inflate(payload, part, last, spare);
        }
        self.size += payload.len() as u64;
        if self.size > self.max { Err(Fault::TooLarge) } else { Ok(()) }
    }

    fn inflate(&mut self, payload: &[u8], mut part: Part, last: bool, spare: &mut Inflater) -> Result<(), Fault> {
        let mut stream = self.stream.take().unwrap_or_else(|| {
            let mut stream = spare.stream.take().unwrap_or_else(|| Decompress::new(false));
            stream.reset(false);
            self.at_end = false;
            stream
        });
        let mut input = [0; INPUT_BYTES];
        for masked in payload.chunks(INPUT_BYTES) {
            let input = &mut input[..masked.len()];
            input.copy_from_slice(masked);
            part.unmask(input);
            self.inflate_all(&mut stream, input)?;
        }
        if !last || self.takeover {
            if last && !self.at_end && !self.empty {
                self.inflate_all(&mut stream, &TAIL)?;
            }
            self.stream = Some(stream);
            return Ok(());
        }
        if !self.at_end && !self.empty {
            self.inflate_all(&mut stream, &TAIL_AND_END)?;
            if !self.at_end {
                return Err(Fault::InvalidData);
            }
        }
        spare.stream.get_or_insert(stream);
        Ok(())
    }

    /// Inflates the whole input. Behind a final block the stream begins anew, without what was before.
    fn inflate_all(&mut self, stream: &mut Decompress, input: &[u8]) -> Result<(), Fault> {
        let mut output = [0; OUTPUT_BYTES];
        let mut used = 0;
        loop {
            if self.at_end && used < input.len() {
                self.final_blocks += 1;
                if self.final_blocks > FINAL_BLOCKS_MAX {
                    return Err(Fault::InvalidData);
                }
                stream.reset(false);
                self.at_end = false;
            }
            let before = (stream.total_in(), stream.total_out());
            let status = stream
                .decompress(&input[used..], &mut output, FlushDecompress::Sync)
                .map_err(|_| Fault::InvalidData)?;
            let (took, gave) = ((stream.total_in() - before.0) as usize, (stream.total_out() - before.1) as usize);
            used += took;
            self.size += gave as u64;
            self.at_end = status == Status::StreamEnd;
            if self.size > self.max {
                return Err(Fault::TooLarge);
            }
            // A buffer that is full may have more behind it.
            if used == input.len() && (self.at_end || gave < output.len()) {
                return Ok(());
            }
            if took == 0 && gave == 0 {
                return Err(Fault::InvalidData);
            }
        }
    }
}
