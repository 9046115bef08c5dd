//! Messages put together from frames (RFC 6455, sections 5.4 and 8.1; RFC 7692, section 6.2).
use super::deflate::Inflater;
use super::frame::{Control, Fault, Head, Headers, Opcode, Rsv, Rules, mask, read_close};
use std::ops::Range;

/// What one read brought. Payloads are unmasked in it, in place, as the reader comes to them.
#[derive(Debug)]
pub struct Chunk<'b> {
    bytes: &'b mut [u8],
    at: usize,
}

impl<'b> Chunk<'b> {
    /// A chunk that nothing was read from yet.
    pub fn new(bytes: &'b mut [u8]) -> Chunk<'b> {
        Chunk { bytes, at: 0 }
    }

    /// What the reader has not come to: raw as it arrived, fit for a later chunk.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }
}

/// What a stream said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A Ping and its payload, which the Pong repeats.
    Ping(&'a [u8]),
    /// A Pong and its payload.
    Pong(&'a [u8]),
    /// A Close with code and reason, if it had them. Nothing follows it.
    Close(Option<(u16, &'a str)>),
    /// An empty frame that does not end its message: counted by the limits.
    EmptyFragment,
}

/// Reads the messages of one stream. Between messages it owns no buffer.
#[derive(Debug)]
pub struct Reader {
    headers: Headers,
    frame: Option<Open>,
    /// What has come of a message that did not lie whole in one chunk; deflated as it came.
    message: Vec<u8>,
    /// How much of `message` is known to be UTF-8.
    checked: usize,
    /// What has come of a control frame that did not lie whole in one chunk.
    control: Vec<u8>,
    payload_bytes: u64,
    text: bool,
    deflated: bool,
    lent: Place,
}

/// A frame whose payload has not come whole.
#[derive(Debug)]
struct Open {
    opcode: Opcode,
    key: Option<[u8; 4]>,
    remaining: u64,
}

/// Where the bytes of an event lie.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    Chunk(Range<usize>),
    Message,
    Control,
    Inflated,
}

#[derive(Clone, Copy)]
enum Kind {
    Message,
    Control(Control),
    EmptyFragment,
}

impl Reader {
    /// A reader at the start of a stream. `deflate` says whether permessage-deflate was negotiated; `rules.rsv` is
    /// not looked at.
    pub fn new(rules: Rules, deflate: bool) -> Reader {
        let rsv = if deflate { Rsv::Deflate } else { Rsv::None };
        Reader {
            headers: Headers::new(Rules { rsv, ..rules }),
            frame: None,
            message: Vec::new(),
            checked: 0,
            control: Vec::new(),
            payload_bytes: 0,
            text: false,
            deflated: false,
            lent: Place::Nowhere,
        }
    }

    /// The next event of the chunk, or `None` when it is used up (the unfinished rest is kept inside). Ask until
    /// `None`: buffers that held an event are released by the next call.
    ///
    /// # Errors
    /// A broken rule, as soon as the byte that breaks it has come; after it the reader is of no use.
    pub fn next<'a>(
        &'a mut self,
        chunk: &'a mut Chunk<'_>,
        inflater: &'a mut Inflater,
    ) -> Result<Option<Event<'a>>, Fault> {
        self.release(inflater);
        let Some(kind) = self.advance(chunk, inflater)? else { return Ok(None) };
        let bytes: &'a [u8] = match &self.lent {
            Place::Nowhere => &[],
            Place::Chunk(range) => &chunk.bytes[range.clone()],
            Place::Message => &self.message,
            Place::Control => &self.control,
            Place::Inflated => inflater.output(),
        };
        Ok(Some(match kind {
            Kind::EmptyFragment => Event::EmptyFragment,
            Kind::Message if self.text => Event::Text(simdutf8::basic::from_utf8(bytes).map_err(|_| Fault::NotUtf8)?),
            Kind::Message => Event::Binary(bytes),
            Kind::Control(Control::Ping) => Event::Ping(bytes),
            Kind::Control(Control::Pong) => Event::Pong(bytes),
            Kind::Control(Control::Close) => {
                self.headers.close();
                Event::Close(read_close(bytes)?)
            }
        }))
    }

    /// Payload bytes seen since the last call, as on the wire, of data and control frames.
    pub fn take_payload_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.payload_bytes)
    }

    fn release(&mut self, inflater: &mut Inflater) {
        match std::mem::replace(&mut self.lent, Place::Nowhere) {
            Place::Nowhere | Place::Chunk(_) => {}
            Place::Message => self.message = Vec::new(),
            Place::Control => self.control = Vec::new(),
            Place::Inflated => inflater.release(),
        }
    }

    /// Goes on to the end of a message or control frame; leaves its place in `lent`.
    fn advance(&mut self, chunk: &mut Chunk<'_>, inflater: &mut Inflater) -> Result<Option<Kind>, Fault> {
        loop {
            if self.frame.is_none() {
                let Some(head) = self.headers.take(chunk.bytes, &mut chunk.at)? else { return Ok(None) };
                if let Some(kind) = self.open(&head, chunk, inflater)? {
                    return Ok(Some(kind));
                }
            }
            let Some(mut open) = self.frame.take() else { continue };
            let run = self.take_run(&mut open, chunk);
            let (opcode, remaining) = (open.opcode, open.remaining);
            let control = opcode.control();
            match control {
                Some(_) => self.control.extend_from_slice(&chunk.bytes[run]),
                None => self.append(&chunk.bytes[run], remaining)?,
            }
            if remaining > 0 {
                self.frame = Some(open);
                return Ok(None);
            }
            if let Some(control) = control {
                self.lent = Place::Control;
                return Ok(Some(Kind::Control(control)));
            }
            if !self.headers.is_fragmented() {
                return self.end_message(inflater).map(Some);
            }
        }
    }

    /// Starts a frame. One that lies whole in the chunk and needs no other is an event at once.
    fn open(&mut self, head: &Head, chunk: &mut Chunk<'_>, inflater: &mut Inflater) -> Result<Option<Kind>, Fault> {
        let control = head.opcode.control();
        if control.is_none() && head.opcode != Opcode::Continuation {
            self.text = head.opcode == Opcode::Text;
            self.deflated = head.rsv1;
            self.checked = 0;
        }
        let mut open = Open { opcode: head.opcode, key: head.key, remaining: head.length };
        let whole = head.length <= (chunk.bytes.len() - chunk.at) as u64;
        if let Some(control) = control
            && whole
        {
            self.lent = Place::Chunk(self.take_run(&mut open, chunk));
            return Ok(Some(Kind::Control(control)));
        }
        if whole && head.fin && head.opcode != Opcode::Continuation {
            let run = self.take_run(&mut open, chunk);
            self.lent = Place::Chunk(run.clone());
            if self.deflated {
                inflater.inflate(&chunk.bytes[run], self.headers.max_message_size())?;
                self.lent = Place::Inflated;
            }
            return Ok(Some(Kind::Message));
        }
        if head.length == 0 && !head.fin {
            return Ok(Some(Kind::EmptyFragment));
        }
        self.frame = Some(open);
        Ok(None)
    }

    /// Unmasks what the chunk has of the frame and moves behind it.
    fn take_run(&mut self, open: &mut Open, chunk: &mut Chunk<'_>) -> Range<usize> {
        let available = (chunk.bytes.len() - chunk.at) as u64;
        let run = open.remaining.min(available);
        let range = chunk.at..chunk.at + run as usize;
        if let Some(key) = &mut open.key {
            mask(&mut chunk.bytes[range.clone()], key);
        }
        chunk.at = range.end;
        open.remaining -= run;
        self.payload_bytes += run;
        range
    }

    /// Adds a part of a data frame, of which `remaining` bytes are still to come.
    fn append(&mut self, part: &[u8], remaining: u64) -> Result<(), Fault> {
        let spare = self.message.capacity() - self.message.len();
        if spare < part.len() {
            // At most doubled, so that a header alone takes no memory; and no more than was announced.
            let double = self.message.len();
            let ahead = if self.headers.is_fragmented() { double } else { remaining.min(double as u64) as usize };
            self.message.reserve_exact(part.len() + ahead);
        }
        self.message.extend_from_slice(part);
        if !self.text || self.deflated {
            return Ok(());
        }
        match simdutf8::compat::from_utf8(&self.message[self.checked..]) {
            Ok(text) => self.checked += text.len(),
            // A character cut in two: its up to three bytes are looked at again.
            Err(cut) if cut.error_len().is_none() => self.checked += cut.valid_up_to(),
            Err(_) => return Err(Fault::NotUtf8),
        }
        Ok(())
    }

    fn end_message(&mut self, inflater: &mut Inflater) -> Result<Kind, Fault> {
        self.lent = Place::Message;
        if self.deflated {
            let message = std::mem::take(&mut self.message);
            inflater.inflate(&message, self.headers.max_message_size())?;
            self.lent = Place::Inflated;
        }
        Ok(Kind::Message)
    }
}

#[cfg(test)]
mod tests;
