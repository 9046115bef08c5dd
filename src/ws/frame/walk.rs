//! The relay's way through a stream: count, check, hand out the very bytes.
use super::{Control, Fault, Head, Headers, Opcode, Rules, mask, read_close};
use std::ops::Range;

/// Follows the frames of one direction of a relayed connection. Owns no payload, but for a control frame that is
/// masked or was cut by the end of a read; between two reads at the border of frames it owns no buffer at all.
#[derive(Debug)]
pub struct Walker {
    headers: Headers,
    /// Payload bytes of the current data frame that have not come yet.
    remaining: u64,
    control: Option<Box<Kept>>,
    /// Its mask, turned so that it fits the next byte of payload.
    key: [u8; 4],
    /// The current message began with RSV1.
    deflated: bool,
    by_frame: bool,
}

/// A control frame that cannot be handed out from the input: header and payload as they came, and unmasked.
#[derive(Debug)]
struct Kept {
    opcode: Control,
    key: Option<[u8; 4]>,
    raw: [u8; 6 + 125],
    payload: [u8; 125],
    header_bytes: usize,
    filled: usize,
    whole: usize,
}

/// What the walker found.
#[derive(Debug)]
pub enum Piece<'a> {
    /// A run of bytes of data frames, headers included, to be forwarded as they are. It covers all data frames that
    /// follow each other up to the next control frame or the end of input; with a `head`, the first of them alone.
    Data {
        /// Bytes of a header that an earlier read had cut: to be forwarded before the range.
        head: &'a [u8],
        /// Where the run lies in the input.
        range: Range<usize>,
        /// What the run holds.
        tally: Tally,
        /// The payload, where the walk is [by frame](Walker::by_frame).
        part: Part,
    },
    /// A whole control frame, never in parts.
    Control {
        /// Which.
        opcode: Control,
        /// The frame as it came.
        raw: &'a [u8],
        /// Its payload, unmasked. That of a Close has been checked ([`read_close`] cannot fail).
        payload: &'a [u8],
    },
}

/// What a run of data frames counts for the limits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Messages that ended in the run.
    pub messages: u32,
    /// Empty frames that did not end a message.
    pub empty_fragments: u32,
    /// Payload bytes, as on the wire.
    pub payload: u64,
}

/// How the payload of one piece is read. It ends where the piece does, and is as long as [`Tally::payload`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// The mask that fits its first byte; zeros where it is not masked.
    pub key: [u8; 4],
    /// Whether its message began with RSV1.
    pub deflated: bool,
}

impl Part {
    /// Unmasks bytes of the payload in place; those that follow come next.
    pub fn unmask(&mut self, bytes: &mut [u8]) {
        mask(bytes, &mut self.key);
    }
}

impl Walker {
    /// A walker at the start of a stream.
    pub fn new(rules: Rules) -> Walker {
        Walker {
            headers: Headers::new(rules),
            remaining: 0,
            control: None,
            key: [0; 4],
            deflated: false,
            by_frame: false,
        }
    }

    /// Has each run end with its first frame, so that frames can be judged one by one.
    pub fn by_frame(&mut self) {
        self.by_frame = true;
    }

    /// Walks `bytes` from `*at`, which moves on; the next piece, or `None` when the input is used up (`*at` is its
    /// length). A caller must ask until `None`: only then is the rest kept and the walker without buffer. After a
    /// Close the rest of the stream is ignored.
    ///
    /// # Errors
    /// A broken rule, as soon as the byte that breaks it has come. Data before it has been handed out by then.
    pub fn next<'a>(&'a mut self, bytes: &'a [u8], at: &mut usize) -> Result<Option<Piece<'a>>, Fault> {
        if self.control.as_ref().is_some_and(|kept| kept.filled < kept.whole) {
            return self.go_on_with_control(bytes, at);
        }
        let start = *at;
        let mut held = 0;
        let mut tally = Tally::default();
        let mut part = self.part();
        let mut end = self.skip_payload(bytes, at, &mut tally);
        // A run with held bytes in front is one frame: a header cut by the end of this read would take their place.
        while self.remaining == 0 && *at < bytes.len() && held == 0 && !(self.by_frame && end > start) {
            let held_now = self.headers.held().len();
            let head = match self.headers.take(bytes, at) {
                Ok(Some(head)) => head,
                Ok(None) => break,
                Err(_) if end > start => break,
                Err(fault) => return Err(fault),
            };
            if let Some(control) = head.opcode.control() {
                if end > start {
                    // The run first. A control header moves no state, so it can be taken a second time.
                    *at = end;
                    break;
                }
                return self.take_control(control, &head, held_now, bytes, at);
            }
            held = held_now;
            self.begin(&head);
            part = self.part();
            if head.length == 0 {
                tally.count_end(head.fin, true);
            }
            end = self.skip_payload(bytes, at, &mut tally);
        }
        if end == start {
            self.control = None;
            return Ok(None);
        }
        Ok(Some(Piece::Data { head: self.headers.was_held(held), range: start..end, tally, part }))
    }

    fn begin(&mut self, head: &Head) {
        self.remaining = head.length;
        self.key = head.key.unwrap_or_default();
        if head.opcode != Opcode::Continuation {
            self.deflated = head.rsv1;
        }
    }

    fn part(&self) -> Part {
        Part { key: self.key, deflated: self.deflated }
    }

    /// Whether a data frame has been handed out in part: now nothing may be injected.
    pub fn in_data_frame(&self) -> bool {
        self.remaining > 0
    }

    /// Payload bytes of the current data frame that are still to come: where the next place for an injection is.
    pub fn frame_rest(&self) -> u64 {
        self.remaining
    }

    /// Whether the stream stands inside a message or between its fragments.
    pub fn in_message(&self) -> bool {
        self.remaining > 0 || self.headers.is_fragmented()
    }

    /// Passes over what has come of the current frame's payload; says where the run ends now.
    fn skip_payload(&mut self, bytes: &[u8], at: &mut usize, tally: &mut Tally) -> usize {
        if self.remaining > 0 {
            let run = self.remaining.min((bytes.len() - *at) as u64);
            *at += run as usize;
            tally.payload += run;
            self.remaining -= run;
            self.key.rotate_left((run % 4) as usize);
            if self.remaining == 0 {
                tally.count_end(!self.headers.is_fragmented(), false);
            }
        }
        *at
    }

    fn take_control<'a>(
        &'a mut self,
        opcode: Control,
        head: &Head,
        held: usize,
        bytes: &'a [u8],
        at: &mut usize,
    ) -> Result<Option<Piece<'a>>, Fault> {
        let length = head.length as usize;
        if held == 0 && head.key.is_none() && bytes.len() - *at >= length {
            let raw = &bytes[*at - head.size..*at + length];
            let payload = &bytes[*at..*at + length];
            *at += length;
            judge_close(&mut self.headers, opcode, payload)?;
            return Ok(Some(Piece::Control { opcode, raw, payload }));
        }
        let mut kept = self.control.take().unwrap_or_else(|| Box::new(Kept::EMPTY));
        kept.start(opcode, head);
        kept.take(self.headers.was_held(held));
        kept.take(&bytes[*at - (head.size - held)..*at]);
        self.control = Some(kept);
        self.go_on_with_control(bytes, at)
    }

    fn go_on_with_control<'a>(&'a mut self, bytes: &'a [u8], at: &mut usize) -> Result<Option<Piece<'a>>, Fault> {
        let Some(kept) = self.control.as_deref_mut() else { return Ok(None) };
        let run = (kept.whole - kept.filled).min(bytes.len() - *at);
        kept.take(&bytes[*at..*at + run]);
        *at += run;
        if kept.filled < kept.whole {
            return Ok(None);
        }
        let (opcode, raw, payload) = kept.finish();
        judge_close(&mut self.headers, opcode, payload)?;
        Ok(Some(Piece::Control { opcode, raw, payload }))
    }
}

fn judge_close(headers: &mut Headers, opcode: Control, payload: &[u8]) -> Result<(), Fault> {
    if opcode == Control::Close {
        headers.close();
        read_close(payload)?;
    }
    Ok(())
}

impl Tally {
    fn count_end(&mut self, fin: bool, empty: bool) {
        self.messages += u32::from(fin);
        self.empty_fragments += u32::from(!fin && empty);
    }
}

impl Kept {
    const EMPTY: Kept = Kept {
        opcode: Control::Ping,
        key: None,
        raw: [0; 131],
        payload: [0; 125],
        header_bytes: 0,
        filled: 0,
        whole: 0,
    };

    fn start(&mut self, opcode: Control, head: &Head) {
        self.opcode = opcode;
        self.key = head.key;
        self.header_bytes = head.size;
        self.filled = 0;
        self.whole = head.size + head.length as usize;
    }

    fn take(&mut self, part: &[u8]) {
        self.raw[self.filled..self.filled + part.len()].copy_from_slice(part);
        self.filled += part.len();
    }

    fn finish(&mut self) -> (Control, &[u8], &[u8]) {
        let raw = &self.raw[..self.whole];
        let payload = &mut self.payload[..self.whole - self.header_bytes];
        payload.copy_from_slice(&raw[self.header_bytes..]);
        if let Some(mut key) = self.key {
            mask(payload, &mut key);
        }
        (self.opcode, raw, payload)
    }
}
