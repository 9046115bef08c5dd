//! Names that calls carry: of rooms, clients and namespaces, percent-encoded where they stand in a path.
use super::answer::Fault;
use crate::config::Namespace;
use crate::identity::{CLIENT_BYTES_MAX, is_client};
use crate::rooms::protocol::{NAME_MAX, is_room_name};
use std::sync::Arc;

/// The namespace of a route that names none.
const DEFAULT: &str = "default";

/// Undoes percent-encoding (RFC 3986, 2.1). `None` where an escape is broken, where a character stands bare that an
/// address cannot hold, and where the bytes are not UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || (rest.next()? as char).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            b if b.is_ascii_graphic() => b,
            _ => return None,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The room of a path's segment.
pub(super) fn room_of(segment: &str) -> Result<String, Fault> {
    let name = decode(segment).ok_or_else(|| Fault::bad("the room in the path is not percent-encoded UTF-8"))?;
    room(&name, "the room in the path")?;
    Ok(name)
}

/// The client of a path's segment.
pub(super) fn client_of(segment: &str) -> Result<String, Fault> {
    let name = decode(segment).ok_or_else(|| Fault::bad("the client in the path is not percent-encoded UTF-8"))?;
    client(&name, "the client in the path")?;
    Ok(name)
}

/// Refuses what is no name of a room; `what` tells which.
pub(super) fn room(name: &str, what: &str) -> Result<(), Fault> {
    if is_room_name(name) {
        return Ok(());
    }
    Err(Fault::bad(format!("{what} must be 1 to {NAME_MAX} bytes of letters, digits and -_.:/@")))
}

/// Refuses what is no name of a client; `what` tells which.
pub(super) fn client(name: &str, what: &str) -> Result<(), Fault> {
    if is_client(name) {
        return Ok(());
    }
    Err(Fault::bad(format!("{what} must be 1 to {CLIENT_BYTES_MAX} bytes without control characters")))
}

/// The namespace of this name among those of the configuration. Without a name: the one that is called "default",
/// else the only one.
pub(super) fn namespace(all: &[Arc<str>], name: Option<&str>) -> Result<Namespace, Fault> {
    let place = |wanted: &str| all.iter().position(|n| **n == *wanted);
    let place = match name {
        Some(name) => place(name).ok_or(Fault::Missing("no such namespace"))?,
        None => place(DEFAULT)
            .or((all.len() == 1).then_some(0))
            .ok_or_else(|| Fault::bad("\"namespace\" is missing, and none of several is called \"default\""))?,
    };
    // There are no more namespaces than routes, of which a configuration holds 1,024.
    Ok(Namespace { index: place as u16 })
}

/// Words of a caller that go to clients and logs: control characters become spaces, and what is longer is cut to `max`
/// bytes at the end of a character.
pub(super) fn words(text: &str, max: usize) -> String {
    let mut words = text.replace(char::is_control, " ");
    let mut end = max.min(words.len());
    while !words.is_char_boundary(end) {
        end -= 1;
    }
    words.truncate(end);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_or_refused() {
        for (text, name) in [("a", "a"), ("a%2fb", "a/b"), ("%C3%A4%20", "ä "), ("%2541", "%41"), ("+", "+"), ("", "")]
        {
            assert_eq!(decode(text).as_deref(), Some(name), "{text}");
        }
        for text in ["%", "%4", "%4g", "%g4", "%+4", "a%", "%ff", "%c3", "ä", "a b", "a\u{7f}"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_checked_once_they_are_decoded() {
        assert_eq!(room_of("chat%2Ftea").as_deref(), Ok("chat/tea"));
        for segment in ["", "a%20b", "a%00", "%C3%A4", "%2", &"a".repeat(129)] {
            assert!(room_of(segment).is_err(), "{segment}");
        }
        assert_eq!(client_of("J%C3%BCrgen%20O%27Neill").as_deref(), Ok("Jürgen O'Neill"));
        assert!(client_of(&"a".repeat(128)).is_ok());
        for segment in ["", "a%0A", "a%C2%85", "%FF", &"a".repeat(129), &"%C3%A4".repeat(65)] {
            assert!(client_of(segment).is_err(), "{segment}");
        }
    }

    #[test]
    fn a_namespace_is_named_or_is_the_obvious_one() {
        let all = |names: &[&str]| names.iter().map(|n| Arc::from(*n)).collect::<Vec<Arc<str>>>();
        let found = |names: &[&str], name| namespace(&all(names), name).map(|n| n.index);
        assert_eq!(found(&["a", "default"], None), Ok(1));
        assert_eq!(found(&["a"], None), Ok(0));
        assert_eq!(found(&["a", "b"], Some("b")), Ok(1));
        assert!(matches!(found(&["a", "b"], None), Err(Fault::BadRequest(_))));
        assert!(matches!(found(&["a", "default"], Some("c")), Err(Fault::Missing(_))));
    }

    #[test]
    fn words_hold_no_controls_and_are_cut_between_characters() {
        assert_eq!(words("a\nb\u{1b}[1m", 100), "a b [1m");
        assert_eq!(words("äää", 5), "ää");
        assert_eq!(words("", 5), "");
    }
}
