//! What Redis is asked, and what it answers.
use super::slots::slot_of;
use bytes::Bytes;
use std::sync::OnceLock;

/// A Lua script, which every connection loads before its first call.
pub struct Script {
    /// Its text.
    pub source: &'static str,
    sha: OnceLock<String>,
}

impl Script {
    /// A script of this text.
    pub const fn new(source: &'static str) -> Script {
        Script { source, sha: OnceLock::new() }
    }

    /// The SHA-1 of its text in hexadecimal digits: what EVALSHA names it by.
    pub fn sha(&self) -> &str {
        self.sha.get_or_init(|| {
            let digest =
                aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, self.source.as_bytes());
            digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
        })
    }
}

/// A command, encoded, with the slot of its keys.
#[derive(Debug, Clone)]
pub struct Call {
    /// Where its keys lie in a Redis Cluster.
    pub slot: u16,
    /// As it goes over the wire.
    pub bytes: Vec<u8>,
}

impl Call {
    /// A script over these keys, all of which have one slot; there is at least one.
    pub fn script(script: &Script, keys: &[&[u8]], args: &[&[u8]]) -> Call {
        let count = keys.len().to_string();
        let mut bytes = Vec::with_capacity(96 + words_bytes(keys) + words_bytes(args));
        begin(&mut bytes, 3 + keys.len() + args.len());
        for word in [b"EVALSHA", script.sha().as_bytes(), count.as_bytes()].into_iter().chain(keys.iter().copied()) {
            push(&mut bytes, word);
        }
        args.iter().for_each(|word| push(&mut bytes, word));
        Call { slot: keys.first().map_or(0, |key| slot_of(key)), bytes }
    }

    /// A command whose keys, or channel, have the slot of `key`.
    pub fn command(key: &[u8], words: &[&[u8]]) -> Call {
        let mut bytes = Vec::with_capacity(16 + words_bytes(words));
        begin(&mut bytes, words.len());
        words.iter().for_each(|word| push(&mut bytes, word));
        Call { slot: slot_of(key), bytes }
    }
}

fn words_bytes(words: &[&[u8]]) -> usize {
    words.iter().map(|word| word.len() + 16).sum()
}

fn begin(bytes: &mut Vec<u8>, words: usize) {
    bytes.extend_from_slice(format!("*{words}\r\n").as_bytes());
}

fn push(bytes: &mut Vec<u8>, word: &[u8]) {
    bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
    bytes.extend_from_slice(word);
    bytes.extend_from_slice(b"\r\n");
}

/// What Redis answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Nothing.
    Nil,
    /// A whole number.
    Int(i64),
    /// Bytes, of whatever kind of string.
    Text(Bytes),
    /// Several; a map is its keys and values in turn.
    List(Vec<Reply>),
}

impl Reply {
    /// The number, also where it is written in digits.
    pub fn int(&self) -> Option<i64> {
        match self {
            Reply::Int(n) => Some(*n),
            Reply::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            Reply::Nil | Reply::List(_) => None,
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> Option<&Bytes> {
        if let Reply::Text(bytes) = self { Some(bytes) } else { None }
    }

    /// The bytes as UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// The items.
    pub fn list(&self) -> Option<&[Reply]> {
        if let Reply::List(items) = self { Some(items) } else { None }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_call_is_encoded_and_has_the_slot_of_its_first_key() {
        static SCRIPT: Script = Script::new("return 1");
        assert_eq!(SCRIPT.sha(), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        let call = Call::script(&SCRIPT, &[b"w:{a}:m"], &[b"x"]);
        let text = String::from_utf8(call.bytes).unwrap();
        let sha = SCRIPT.sha();
        assert_eq!(text, format!("*5\r\n$7\r\nEVALSHA\r\n$40\r\n{sha}\r\n$1\r\n1\r\n$7\r\nw:{{a}}:m\r\n$1\r\nx\r\n"));
        assert_eq!(call.slot, slot_of(b"a"));
        assert_eq!(Call::command(b"k", &[b"GET", b"k"]).bytes, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    }
}
