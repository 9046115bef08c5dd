//! The grammar of requests over HTTP/1.1 (RFC 9112), narrower than most parsers take it: what two of them might read
//! differently is no request here. A machine over the bytes as they come, which keeps none of them.
mod chunk;
mod field;
mod line;
mod word;

use chunk::Chunk;
use field::Field;
use line::Line;
use word::{Class, Word};

/// Follows the messages of one connection: where each head and each body ends.
pub(super) struct Walker {
    state: State,
    head: Head,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a request line (RFC 9112, section 3).
    Line(Line),
    /// In a field line of the head or of the trailers (section 5).
    Field(Field),
    /// In a body of which so many bytes are to come, at least one (section 6.2).
    Length(u64),
    /// In a chunked body (section 7.1).
    Chunk(Chunk),
    /// Behind a request that asked for something else than HTTP.
    Opaque,
}

/// How far bytes were followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walked {
    /// To their end, and no message ends in them.
    Open,
    /// Up to here, where a message ends.
    Ended(usize),
    /// Up to this byte, which breaks the grammar.
    Broken(usize),
}

/// What a message has said so far.
#[derive(Debug)]
struct Head {
    /// The method, version, name or value that is being read.
    word: Word,
    method: Method,
    /// HTTP/1.0.
    old: bool,
    host: bool,
    length: Option<u64>,
    chunked: bool,
    /// There is an Upgrade, or the method is CONNECT.
    switches: bool,
    /// The head and the chunks are over: field lines are trailers.
    trailers: bool,
}

/// Methods that have targets of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Connect,
    Options,
    Other,
}

/// Whether a request with this method and target keeps the grammar, by whatever version it came.
pub(in crate::front) fn is_request_line(method: &str, target: &str) -> bool {
    let mut walker = Walker::new();
    let parts = [method, " ", target, " HTTP/1.1\r\n"];
    parts.iter().all(|part| walker.walk(part.as_bytes()) == Walked::Open) && walker.state == State::Field(Field::Start)
}

impl Walker {
    pub(super) fn new() -> Walker {
        Walker { state: State::Line(Line::Start), head: Head::new() }
    }

    /// Follows these bytes up to the end of a message. It is asked nothing more where they break the grammar.
    ///
    /// Behind a request with an Upgrade, or a CONNECT, everything passes: what follows is no HTTP where the answer is
    /// yes, and must never be read as a request where it is no.
    pub(super) fn walk(&mut self, bytes: &[u8]) -> Walked {
        let mut at = 0;
        loop {
            at += self.pass(&bytes[at..]);
            if at > 0 && self.state == State::Line(Line::Start) {
                return Walked::Ended(at);
            }
            let Some(byte) = bytes.get(at) else { return Walked::Open };
            match self.step(*byte) {
                Some(state) => self.state = state,
                None => return Walked::Broken(at),
            }
            at += 1;
        }
    }

    /// Whether it is in a head, not in a body.
    pub(super) fn is_in_head(&self) -> bool {
        match self.state {
            State::Line(_) => true,
            State::Field(_) => !self.head.trailers,
            State::Length(_) | State::Chunk(_) | State::Opaque => false,
        }
    }

    /// How many bytes there are at the start that change nothing.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        match &mut self.state {
            State::Line(Line::Path) => Class::Path.span(bytes),
            State::Line(Line::Query) => Class::Query.span(bytes),
            State::Field(Field::Value) => Class::Value.span(bytes),
            State::Field(Field::Name { .. }) if self.head.word.is_lost() => Class::Token.span(bytes),
            State::Length(left) | State::Chunk(Chunk::Data(left)) => {
                let passed = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= passed as u64;
                if *left == 0 {
                    self.state = match self.state {
                        State::Chunk(_) => State::Chunk(Chunk::DataCr),
                        State::Line(_) | State::Field(_) | State::Length(_) | State::Opaque => self.head.end(),
                    };
                }
                passed
            }
            State::Opaque => bytes.len(),
            State::Line(_) | State::Field(_) | State::Chunk(_) => 0,
        }
    }

    /// Where a byte leads; `None` where it must not stand.
    fn step(&mut self, byte: u8) -> Option<State> {
        match self.state {
            State::Line(line) => self.head.line(line, byte),
            State::Field(field) => self.head.field(field, byte),
            State::Chunk(chunk) => self.head.chunk(chunk, byte),
            State::Length(_) | State::Opaque => Some(self.state),
        }
    }
}

impl Head {
    fn new() -> Head {
        Head {
            word: Word::among(word::METHODS),
            method: Method::Other,
            old: false,
            host: false,
            length: None,
            chunked: false,
            switches: false,
            trailers: false,
        }
    }

    /// The head is over: what follows it. Exactly one Host, but for HTTP/1.0 (RFC 9112, section 3.2).
    fn body(&mut self) -> Option<State> {
        if !self.host && !self.old {
            return None;
        }
        Some(match self.length {
            _ if self.chunked => State::Chunk(Chunk::START),
            Some(length @ 1..) => State::Length(length),
            Some(0) | None => self.end(),
        })
    }

    /// The message is over: what follows it.
    fn end(&mut self) -> State {
        if self.switches {
            return State::Opaque;
        }
        *self = Head::new();
        State::Line(Line::Start)
    }
}

#[cfg(test)]
mod tests;
