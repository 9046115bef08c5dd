//! Finds what must not be shown when a source line is.
//!
//! This looks at the raw text, since a file whose syntax is broken must not show its secrets
//! either. It would rather hide too much.
use super::report::Place;
use super::schema;

const WORDS: [&str; 7] = ["secret", "token", "passw", "credential", "authorization", "key", "hmac"];
const PEM_START: &str = "-----BEGIN";
const PEM_END: &str = "-----END";

/// Places that hold, or may hold, a secret.
pub(super) fn secrets(text: &str) -> Vec<Place> {
    let mut found = assigned(text);
    found.extend(credentials(text));
    found.extend(text.match_indices(PEM_START).map(|(i, _)| {
        let end = text[i..].find(PEM_END).map_or(text.len(), |n| i + n);
        i..end
    }));
    found
}

/// Values of keys that sound like secrets and are not among the keys of the gateway, whose values
/// are names of files and variables.
fn assigned(text: &str) -> Vec<Place> {
    let bytes = text.as_bytes();
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let mut found = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        if !is_name(bytes[i]) {
            i += 1;
            continue;
        }
        let start = i;
        i = skip(bytes, i, is_name);
        let key = text[start..i].to_ascii_lowercase();
        let is_listed = schema::is_known(&key);
        let is_suspect = !is_listed && WORDS.iter().any(|w| key.contains(w));
        if !is_suspect && !matches!(&*key, "secret_env" | "redis_password_env") {
            continue;
        }
        let quote = skip(bytes, i, |b| matches!(b, b'"' | b'\''));
        let sign = skip(bytes, quote, |b| matches!(b, b' ' | b'\t'));
        if !bytes.get(sign).is_some_and(|b| matches!(b, b'=' | b':')) {
            continue;
        }
        let value = skip(bytes, sign + 1, |b| b.is_ascii_whitespace());
        let end = value_end(bytes, value);
        if is_suspect || !is_variable(text[value..end].trim_matches(['"', '\''])) {
            found.push(value..end);
        }
        i = end.max(i);
    }
    found
}

/// Whether `name` looks like the name of an environment variable, not like a secret.
pub(super) fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// User names and passwords in URLs.
fn credentials(text: &str) -> impl Iterator<Item = Place> {
    text.match_indices("://").filter_map(|(i, sign)| {
        let start = i + sign.len();
        let rest = &text[start..];
        // Spaces and single quotes may stand in a password.
        let url = &rest[..rest.find(['"', '\n']).unwrap_or(rest.len())];
        url.rfind('@').map(|at| start..start + at)
    })
}

fn skip(bytes: &[u8], from: usize, wanted: impl Fn(u8) -> bool) -> usize {
    bytes[from..].iter().position(|b| !wanted(*b)).map_or(bytes.len(), |n| from + n)
}

/// Where the value that starts at `from` ends; a broken one ends with its line or the text.
fn value_end(bytes: &[u8], from: usize) -> usize {
    let rest = &bytes[from..];
    match rest.first() {
        Some(b'"' | b'\'') => {
            let end = string_end(bytes, from);
            let after = skip(bytes, end, |b| matches!(b, b' ' | b'\t' | b'\r'));
            // A quote within a secret ends its string too early: the rest of the line is the rest of it.
            match bytes.get(after) {
                None | Some(b',' | b'}' | b']' | b'#' | b'\n') => end,
                Some(_) => skip(bytes, after, |b| b != b'\n'),
            }
        }
        Some(b'[' | b'{') => {
            let mut depth = 0usize;
            let mut i = from;
            while i < bytes.len() {
                match bytes[i] {
                    b'"' | b'\'' => {
                        i = string_end(bytes, i);
                        continue;
                    }
                    b'[' | b'{' => depth += 1,
                    b']' | b'}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                i += 1;
                if depth == 0 {
                    break;
                }
            }
            i
        }
        _ => skip(bytes, from, |b| b != b'\n'),
    }
}

fn string_end(bytes: &[u8], from: usize) -> usize {
    let quote = bytes[from];
    if bytes[from..].starts_with(&[quote; 3]) {
        let body = from + 3;
        return bytes[body..].windows(3).position(|w| w == [quote; 3]).map_or(bytes.len(), |n| body + n + 3);
    }
    // One without its closing quote may go on in the next line, where a parser would not look for it.
    let mut i = from + 1;
    while i < bytes.len() && bytes[i] != quote {
        i += if bytes[i] == b'\\' && quote == b'"' { 2 } else { 1 };
    }
    (i + 1).min(bytes.len())
}
