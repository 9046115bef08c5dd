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
}

/// A frame whose payload has not come whole.
#[derive(Debug)]
struct Open {
    opcode: Opcode,
    key: Option<[u8; 4]>,
    remaining: u64,
}

/// An event, and where its bytes lie.
enum Found {
    EmptyFragment,
    Message(Place),
    Control(Control, Place),
}

enum Place {
    Chunk(Range<usize>),
    Kept,
    Inflated,
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
        let Some(found) = self.advance(chunk, inflater)? else { return Ok(None) };
        let (control, place) = match found {
            Found::EmptyFragment => return Ok(Some(Event::EmptyFragment)),
            Found::Message(place) => (None, place),
            Found::Control(control, place) => (Some(control), place),
        };
        let bytes: &'a [u8] = match place {
            Place::Chunk(range) => &chunk.bytes[range],
            Place::Kept if control.is_some() => &self.control,
            Place::Kept => &self.message,
            Place::Inflated => inflater.output(),
        };
        Ok(Some(match control {
            None if self.text => Event::Text(simdutf8::basic::from_utf8(bytes).map_err(|_| Fault::NotUtf8)?),
            None => Event::Binary(bytes),
            Some(Control::Ping) => Event::Ping(bytes),
            Some(Control::Pong) => Event::Pong(bytes),
            Some(Control::Close) => {
                self.headers.close();
                Event::Close(read_close(bytes)?)
            }
        }))
    }

    /// Payload bytes seen since the last call, deflated as on the wire, of data and control frames.
    pub fn take_payload_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.payload_bytes)
    }

    /// Gives back what only the last event needed.
    fn release(&mut self, inflater: &mut Inflater) {
        let control_open = self.frame.as_ref().map(|open| open.opcode.control().is_some());
        if control_open != Some(true) {
            self.control = Vec::new();
        }
        if control_open != Some(false) && !self.headers.is_fragmented() {
            self.message = Vec::new();
        }
        inflater.release();
    }

    /// Goes on to the end of a message or control frame.
    fn advance(&mut self, chunk: &mut Chunk<'_>, inflater: &mut Inflater) -> Result<Option<Found>, Fault> {
        loop {
            if self.frame.is_none() {
                let Some(head) = self.headers.take(chunk.bytes, &mut chunk.at)? else { return Ok(None) };
                if let Some(found) = self.open(&head, chunk, inflater)? {
                    return Ok(Some(found));
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
                return Ok(Some(Found::Control(control, Place::Kept)));
            }
            if !self.headers.is_fragmented() {
                return Ok(Some(Found::Message(self.end_message(inflater)?)));
            }
        }
    }

    /// Starts a frame. One that lies whole in the chunk and needs no other is an event at once.
    fn open(&mut self, head: &Head, chunk: &mut Chunk<'_>, inflater: &mut Inflater) -> Result<Option<Found>, Fault> {
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
            let run = self.take_run(&mut open, chunk);
            return Ok(Some(Found::Control(control, Place::Chunk(run))));
        }
        if whole && head.fin && head.opcode != Opcode::Continuation {
            let run = self.take_run(&mut open, chunk);
            if self.deflated {
                inflater.inflate(&chunk.bytes[run], self.headers.max_message_size())?;
                return Ok(Some(Found::Message(Place::Inflated)));
            }
            return Ok(Some(Found::Message(Place::Chunk(run))));
        }
        if head.length == 0 && !head.fin {
            return Ok(Some(Found::EmptyFragment));
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

    fn end_message(&mut self, inflater: &mut Inflater) -> Result<Place, Fault> {
        if !self.deflated {
            return Ok(Place::Kept);
        }
        let message = std::mem::take(&mut self.message);
        inflater.inflate(&message, self.headers.max_message_size())?;
        Ok(Place::Inflated)
    }
}

#[cfg(test)]
mod tests;
