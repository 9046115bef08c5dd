//! The request line: method, target and version, with one space between them (RFC 9112, section 3).
use super::word::{self, Class, Word};
use super::{Field, Head, Method, State};

/// The longest method, in bytes.
const METHOD_MAX: u8 = 32;

/// A place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// Before it. One empty line may go first (section 2.2).
    Start,
    /// In the end of that empty line.
    EmptyLf,
    /// Behind that empty line.
    AfterEmpty,
    Method,
    /// Before the target.
    Target,
    /// Behind `*`.
    Star,
    Scheme,
    /// Before the host of an absolute target, or of a CONNECT.
    Authority,
    /// In it.
    InAuthority,
    Path,
    /// Behind the `%` of an escape.
    Escape,
    /// Behind its first digit; whether that is 0.
    EscapeLow(bool),
    Query,
    Version,
    Lf,
}

impl Head {
    pub(super) fn line(&mut self, at: Line, byte: u8) -> Option<State> {
        let next = match at {
            Line::Start if byte == b'\r' => Line::EmptyLf,
            Line::EmptyLf => (byte == b'\n').then_some(Line::AfterEmpty)?,
            Line::Start | Line::AfterEmpty | Line::Method => self.method(byte)?,
            Line::Target => self.target(byte)?,
            Line::Star => (byte == b' ').then(|| self.version())?,
            Line::Scheme => {
                self.word.push(byte.to_ascii_lowercase());
                match self.word.found() {
                    Some(_) => Line::Authority,
                    None => (!self.word.is_lost()).then_some(Line::Scheme)?,
                }
            }
            Line::Authority => Class::Authority.has(byte).then_some(Line::InAuthority)?,
            Line::InAuthority => match byte {
                b' ' => self.version(),
                b'/' if self.method != Method::Connect => Line::Path,
                _ => Class::Authority.has(byte).then_some(Line::InAuthority)?,
            },
            Line::Path => match byte {
                b' ' => self.version(),
                b'?' => Line::Query,
                b'%' => Line::Escape,
                _ => Class::Path.has(byte).then_some(Line::Path)?,
            },
            Line::Escape => byte.is_ascii_hexdigit().then_some(Line::EscapeLow(byte == b'0'))?,
            // A NUL ends a path for some.
            Line::EscapeLow(zero) => (byte.is_ascii_hexdigit() && !(zero && byte == b'0')).then_some(Line::Path)?,
            Line::Query if byte == b' ' => self.version(),
            Line::Query => Class::Query.has(byte).then_some(Line::Query)?,
            Line::Version => match (self.word.found(), byte) {
                (Some(version), b'\r') => {
                    self.old = version == 0;
                    Line::Lf
                }
                (Some(_), _) => return None,
                (None, _) => {
                    self.word.push(byte);
                    (!self.word.is_lost()).then_some(Line::Version)?
                }
            },
            Line::Lf => return (byte == b'\n').then_some(State::Field(Field::Start)),
        };
        Some(State::Line(next))
    }

    /// Methods are case-sensitive (RFC 9110, section 9.1), but not to everybody: none has small letters here.
    fn method(&mut self, byte: u8) -> Option<Line> {
        match byte {
            b'A'..=b'Z' | b'-' if self.word.len() < METHOD_MAX => {
                self.word.push(byte);
                Some(Line::Method)
            }
            b' ' if self.word.len() > 0 => {
                self.method = match self.word.found() {
                    Some(0) => Method::Connect,
                    Some(_) => Method::Options,
                    None => Method::Other,
                };
                self.switches = self.method == Method::Connect;
                self.word = Word::among(word::SCHEMES);
                Some(Line::Target)
            }
            _ => None,
        }
    }

    /// The four forms of section 3.2. Whether an absolute target and the Host agree is admission's to judge.
    fn target(&mut self, byte: u8) -> Option<Line> {
        match (self.method, byte) {
            (Method::Connect, _) => Class::Authority.has(byte).then_some(Line::InAuthority),
            (Method::Options, b'*') => Some(Line::Star),
            (Method::Options | Method::Other, b'/') => Some(Line::Path),
            (Method::Options | Method::Other, _) => {
                self.word.push(byte.to_ascii_lowercase());
                (!self.word.is_lost()).then_some(Line::Scheme)
            }
        }
    }

    fn version(&mut self) -> Line {
        self.word = Word::among(word::VERSIONS);
        Line::Version
    }
}
