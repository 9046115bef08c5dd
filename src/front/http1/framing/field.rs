//! Field lines of heads and trailers (RFC 9112, section 5), and the fields that decide where a body ends (section 6).
use super::word::{self, Class, Word};
use super::{Head, State};

/// A place in a field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// At its first byte: no white space, which would continue the line before it.
    Start,
    /// In its name; whether there is an underscore in it.
    Name { underscore: bool },
    /// In a value that decides nothing here.
    Value,
    /// In the value of Content-Length.
    Length(Place),
    /// In the value of Transfer-Encoding.
    Coding(Place),
    /// In the end of the line.
    Lf,
    /// In the end of the empty line behind the last.
    EndLf,
}

/// A place in a value that white space may stand around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Before,
    Within,
    After,
}

impl Head {
    pub(super) fn field(&mut self, at: Field, byte: u8) -> Option<State> {
        let next = match at {
            Field::Start if byte == b'\r' => Field::EndLf,
            Field::Start => {
                self.word = Word::among(word::NAMES);
                self.name(false, byte)?
            }
            Field::Name { .. } if byte == b':' => self.named(at)?,
            Field::Name { underscore } => self.name(underscore, byte)?,
            Field::Value if byte == b'\r' => Field::Lf,
            Field::Value => Class::Value.has(byte).then_some(Field::Value)?,
            Field::Length(place) => match trim(place, byte)? {
                Trimmed::End => Field::Lf,
                Trimmed::Space(place) => Field::Length(place),
                Trimmed::Byte => self.digit(byte)?,
            },
            Field::Coding(place) => match trim(place, byte)? {
                Trimmed::End => self.word.found().map(|_| Field::Lf)?,
                Trimmed::Space(place) => Field::Coding(place),
                Trimmed::Byte => {
                    self.word.push(byte.to_ascii_lowercase());
                    (!self.word.is_lost()).then_some(Field::Coding(Place::Within))?
                }
            },
            Field::Lf => (byte == b'\n').then_some(Field::Start)?,
            Field::EndLf if byte != b'\n' => return None,
            Field::EndLf if self.trailers => return Some(self.end()),
            Field::EndLf => return self.body(),
        };
        Some(State::Field(next))
    }

    fn name(&mut self, underscore: bool, byte: u8) -> Option<Field> {
        let underscored = byte == b'_';
        self.word.push(if underscored { b'-' } else { byte.to_ascii_lowercase() });
        Class::Token.has(byte).then_some(Field::Name { underscore: underscore || underscored })
    }

    /// The name is whole.
    fn named(&mut self, at: Field) -> Option<Field> {
        let Some(found) = self.word.found() else { return Some(Field::Value) };
        // CGI makes one name of both spellings. Trailers come too late to say any of this (RFC 9110, section 6.5.1).
        if at == (Field::Name { underscore: true }) || self.trailers {
            return None;
        }
        let framed = self.length.is_some() || self.chunked;
        match found {
            0 | 1 if framed => None,
            0 => Some(Field::Length(Place::Before)),
            // Section 6.1: whoever speaks HTTP/1.0 may not know of it.
            1 if self.old => None,
            1 => {
                self.chunked = true;
                self.word = Word::among(word::CODINGS);
                Some(Field::Coding(Place::Before))
            }
            2 => (!std::mem::replace(&mut self.host, true)).then_some(Field::Value),
            _ => {
                self.switches = true;
                Some(Field::Value)
            }
        }
    }

    /// One more digit of a length. A 0 that leads others would be octal to some.
    fn digit(&mut self, byte: u8) -> Option<Field> {
        let digit = char::from(byte).to_digit(10)?;
        let length = match self.length {
            None => 0,
            Some(0) => return None,
            Some(length) => length.checked_mul(10)?,
        };
        self.length = Some(length.checked_add(digit.into())?);
        Some(Field::Length(Place::Within))
    }
}

/// What a byte is to a value that white space may stand around.
enum Trimmed {
    End,
    Space(Place),
    Byte,
}

/// `None` where the value is empty, or goes on behind white space.
fn trim(place: Place, byte: u8) -> Option<Trimmed> {
    match (place, byte) {
        (Place::Before, b'\r') => None,
        (Place::Within | Place::After, b'\r') => Some(Trimmed::End),
        (Place::Before, b' ' | b'\t') => Some(Trimmed::Space(Place::Before)),
        (Place::Within | Place::After, b' ' | b'\t') => Some(Trimmed::Space(Place::After)),
        (Place::Before | Place::Within, _) => Some(Trimmed::Byte),
        (Place::After, _) => None,
    }
}
