//! `Sec-WebSocket-Extensions`: which offer is taken, and the answer (RFC 7692, sections 5 and 7.1).

const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const ANSWER_WITH_WINDOW: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15";

/// The answer to the first acceptable offer of permessage-deflate among the values of `Sec-WebSocket-Extensions`;
/// `None` to answer without the extension.
///
/// An offer with an unknown, doubled or invalid parameter is declined (RFC 7692, section 7.1), and so is one that
/// demands a window under 15 bits: one deflated frame serves all members of a room, so all have one window.
pub fn negotiate<'a>(offers: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    offers.flat_map(|value| split_unquoted(value, b',')).find_map(answer)
}

fn answer(offer: &str) -> Option<&'static str> {
    let mut parts = split_unquoted(offer, b';').map(str::trim);
    if parts.next()? != "permessage-deflate" {
        return None;
    }
    let mut seen = [false; 4];
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(unquote(value.trim_start()))),
            None => (part, None),
        };
        let bits = value.map(window_bits);
        let slot = match (name, bits) {
            ("server_no_context_takeover", None) => 0,
            ("client_no_context_takeover", None) => 1,
            ("server_max_window_bits", Some(Some(15))) => 2,
            ("client_max_window_bits", None | Some(Some(_))) => 3,
            (_, _) => return None,
        };
        if std::mem::replace(&mut seen[slot], true) {
            return None;
        }
    }
    Some(if seen[2] { ANSWER_WITH_WINDOW } else { ANSWER })
}

/// 8 to 15, in decimal without leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    match value {
        "8" => Some(8),
        "9" => Some(9),
        "10" => Some(10),
        "11" => Some(11),
        "12" => Some(12),
        "13" => Some(13),
        "14" => Some(14),
        "15" => Some(15),
        _ => None,
    }
}

/// A value may be quoted (RFC 6455, section 9.1). What is quoted must be a token, so no escape can help it.
fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// The parts between separators that stand outside of quotes.
fn split_unquoted(value: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    value.split(move |c: char| {
        let split = !quoted && c == separator as char;
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && c == '\\' && !escaped;
        split
    })
}
