//! One header after the other, each byte judged as soon as it is there.
//!
//! tungstenite's `FrameHeader::parse` is not used here: it wants the header whole, forgets which length format came
//! (so a length that is not minimal passes), and looks at the opcode only after the mask has arrived.
use super::{Fault, Masking, Opcode, Rsv, Rules};
use tungstenite::protocol::frame::coding::{Control as ControlCode, Data, OpCode};

/// The longest header: two bytes, eight of length, four of mask.
const HEAD_MAX: usize = 14;

/// A header that broke no rule.
#[derive(Clone, Copy, Debug)]
pub(in crate::ws) struct Head {
    pub(in crate::ws) opcode: Opcode,
    pub(in crate::ws) fin: bool,
    pub(in crate::ws) rsv1: bool,
    /// The masking key, where the frame is masked.
    pub(in crate::ws) key: Option<[u8; 4]>,
    /// Bytes of payload.
    pub(in crate::ws) length: u64,
    /// Bytes of header.
    pub(in crate::ws) size: usize,
}

/// Where a stream stands between its frames. Owns nothing but a header that was cut by the end of a read.
#[derive(Debug)]
pub(in crate::ws) struct Headers {
    max_message_size: u64,
    /// Announced payload of the current message, its fragments so far summed.
    message_size: u64,
    held: [u8; HEAD_MAX],
    held_bytes: u8,
    masking: Masking,
    rsv: Rsv,
    fragmented: bool,
    closed: bool,
}

impl Headers {
    pub(in crate::ws) fn new(rules: Rules) -> Headers {
        let Rules { masking, max_message_size, rsv } = rules;
        Headers {
            max_message_size,
            message_size: 0,
            held: [0; HEAD_MAX],
            held_bytes: 0,
            masking,
            rsv,
            fragmented: false,
            closed: false,
        }
    }

    pub(in crate::ws) fn max_message_size(&self) -> u64 {
        self.max_message_size
    }

    /// Whether the last data frame did not end its message.
    pub(in crate::ws) fn is_fragmented(&self) -> bool {
        self.fragmented
    }

    /// Header bytes of earlier reads that are held back.
    pub(in crate::ws) fn held(&self) -> &[u8] {
        &self.held[..usize::from(self.held_bytes)]
    }

    /// After a Close: what follows is thrown away.
    pub(in crate::ws) fn close(&mut self) {
        self.closed = true;
    }

    /// The header at `*at`, which moves behind it, and the header's bytes where the `bytes` held of earlier reads
    /// count too. `None` when the input ends before: its rest is held, `*at` is the end.
    ///
    /// After an error nothing has changed: asked again with the same input, it answers the same.
    pub(in crate::ws) fn take(&mut self, bytes: &[u8], at: &mut usize) -> Result<Option<Head>, Fault> {
        if self.closed {
            *at = bytes.len();
            return Ok(None);
        }
        let fresh = &bytes[*at..];
        if self.held_bytes == 0 {
            let Some(head) = self.judge(fresh)? else {
                // Shorter than a header, or `judge` had found one.
                self.hold(fresh);
                *at = bytes.len();
                return Ok(None);
            };
            *at += head.size;
            self.admit(&head);
            return Ok(Some(head));
        }
        let old = usize::from(self.held_bytes);
        let fresh = &fresh[..fresh.len().min(HEAD_MAX - old)];
        self.held[old..old + fresh.len()].copy_from_slice(fresh);
        let Some(head) = self.judge(&self.held[..old + fresh.len()])? else {
            self.held_bytes += fresh.len() as u8;
            *at += fresh.len();
            return Ok(None);
        };
        self.held_bytes = 0;
        *at += head.size - old;
        self.admit(&head);
        Ok(Some(head))
    }

    /// The bytes that `take` has just put in front of those of this read, `count` of them.
    pub(in crate::ws) fn was_held(&self, count: usize) -> &[u8] {
        &self.held[..count]
    }

    fn hold(&mut self, part: &[u8]) {
        self.held[..part.len()].copy_from_slice(part);
        self.held_bytes = part.len() as u8;
    }

    /// Moves the sequence on. Control frames do not touch it: they stand between fragments.
    fn admit(&mut self, head: &Head) {
        match head.opcode {
            Opcode::Text | Opcode::Binary => self.message_size = head.length,
            // `judge` has checked the sum.
            Opcode::Continuation => self.message_size += head.length,
            Opcode::Close | Opcode::Ping | Opcode::Pong => return,
        }
        self.fragmented = !head.fin;
    }

    /// Reads the header in front of `bytes`; `None` when they end too early without a fault so far.
    fn judge(&self, bytes: &[u8]) -> Result<Option<Head>, Fault> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let opcode = self.judge_first(first)?;
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        let masked = second & 0x80 != 0;
        match self.masking {
            Masking::Required if !masked => return Err(Fault::Protocol("frame without a mask")),
            Masking::Forbidden if masked => return Err(Fault::Protocol("frame with a mask")),
            Masking::Required | Masking::Forbidden => {}
        }
        let short = second & 0x7F;
        if opcode.control().is_some() && short > 125 {
            return Err(Fault::Protocol("control frame over 125 bytes"));
        }
        if opcode == Opcode::Close && short == 1 {
            return Err(Fault::Protocol("close code cut short"));
        }
        let Some((length, mut size)) = read_length(short, &bytes[2..])? else { return Ok(None) };
        self.judge_size(opcode, length)?;
        let mut key = None;
        if masked {
            let Some(raw) = bytes[size..].first_chunk() else { return Ok(None) };
            key = Some(*raw);
            size += raw.len();
        }
        Ok(Some(Head { opcode, fin: first & 0x80 != 0, rsv1: first & 0x40 != 0, key, length, size }))
    }

    fn judge_first(&self, first: u8) -> Result<Opcode, Fault> {
        let opcode = match OpCode::from(first & 0x0F) {
            OpCode::Data(Data::Continue) => Opcode::Continuation,
            OpCode::Data(Data::Text) => Opcode::Text,
            OpCode::Data(Data::Binary) => Opcode::Binary,
            OpCode::Control(ControlCode::Close) => Opcode::Close,
            OpCode::Control(ControlCode::Ping) => Opcode::Ping,
            OpCode::Control(ControlCode::Pong) => Opcode::Pong,
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(ControlCode::Reserved(_)) => {
                return Err(Fault::Protocol("reserved opcode"));
            }
        };
        let control = opcode.control().is_some();
        let allowed = match self.rsv {
            Rsv::Deflate if matches!(opcode, Opcode::Text | Opcode::Binary) => 0x40,
            Rsv::Any if !control => 0x70,
            Rsv::None | Rsv::Deflate | Rsv::Any => 0,
        };
        if first & 0x70 & !allowed != 0 {
            return Err(Fault::Protocol("reserved bits set"));
        }
        if control && first & 0x80 == 0 {
            return Err(Fault::Protocol("fragmented control frame"));
        }
        match opcode {
            Opcode::Continuation if !self.fragmented => Err(Fault::Protocol("continuation of no message")),
            Opcode::Text | Opcode::Binary if self.fragmented => Err(Fault::Protocol("new message inside a message")),
            Opcode::Continuation | Opcode::Text | Opcode::Binary => Ok(opcode),
            Opcode::Close | Opcode::Ping | Opcode::Pong => Ok(opcode),
        }
    }

    fn judge_size(&self, opcode: Opcode, length: u64) -> Result<(), Fault> {
        let sum = match opcode {
            Opcode::Text | Opcode::Binary => Some(length),
            Opcode::Continuation => self.message_size.checked_add(length),
            Opcode::Close | Opcode::Ping | Opcode::Pong => return Ok(()),
        };
        match sum {
            Some(sum) if sum <= self.max_message_size => Ok(()),
            Some(_) | None => Err(Fault::TooLarge),
        }
    }
}

/// The payload's length from the second byte and what follows it, and where the length ends in the header.
fn read_length(short: u8, rest: &[u8]) -> Result<Option<(u64, usize)>, Fault> {
    const NOT_MINIMAL: Fault = Fault::Protocol("length not minimal");
    match short {
        126 => {
            let Some(raw) = rest.first_chunk() else { return Ok(None) };
            let length = u64::from(u16::from_be_bytes(*raw));
            if length < 126 { Err(NOT_MINIMAL) } else { Ok(Some((length, 4))) }
        }
        127 => {
            if rest.first().is_some_and(|high| high & 0x80 != 0) {
                return Err(Fault::Protocol("length with the top bit set"));
            }
            let Some(raw) = rest.first_chunk() else { return Ok(None) };
            let length = u64::from_be_bytes(*raw);
            if length <= 0xFFFF { Err(NOT_MINIMAL) } else { Ok(Some((length, 10))) }
        }
        short => Ok(Some((u64::from(short), 2))),
    }
}
