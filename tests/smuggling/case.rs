//! One file of this corpus: comment lines that say why it is here, lines `key: value`, and after lines of `---` what is
//! sent and every message that the backend must receive for it.
//!
//! Line ends of the file are not sent; those that are stand there as `\r\n`. Escapes are `\r \n \t \0 \\ \xHH`, `{a*9}`
//! is nine times `a`, `{websocket}` the fields of a good upgrade, and `{answer}` waits for an answer before going on.
//!
//! Keys: `grammar` is `whole` or `broken`; `answers` the statuses, then `closed` or `open`, where it matters;
//! `backend` the answer to each request, where it is not a good one; `received: cut off` where the backend may get the
//! start of a message, but none to its end.
#![allow(dead_code, clippy::unwrap_used)]
use std::collections::BTreeMap;
use std::path::Path;

/// One case.
pub struct Case {
    pub name: String,
    pub why: String,
    keys: BTreeMap<String, String>,
    /// What is sent, with an answer to be awaited between two of these.
    pub sent: Vec<Vec<u8>>,
    /// The messages of the backend, in order.
    pub received: Vec<String>,
}

const WEBSOCKET: &str = r"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

impl Case {
    /// All cases of a folder of the corpus, by name.
    pub fn all(folder: &str) -> Vec<Case> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/smuggling").join(folder);
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "http")).collect();
        files.sort();
        files.iter().map(|path| Case::read(path)).collect()
    }

    fn read(path: &Path) -> Case {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).unwrap();
        let mut sections = text.split("\n---\n");
        let mut why = String::new();
        let mut keys = BTreeMap::new();
        for line in sections.next().unwrap().lines() {
            match (line.strip_prefix('#'), line.split_once(':')) {
                (Some(comment), _) => why.push_str(comment),
                (None, Some((key, value))) => drop(keys.insert(key.to_owned(), value.trim().to_owned())),
                (None, None) => panic!("{name}: {line}"),
            }
        }
        let sent = sections.next().unwrap_or_else(|| panic!("{name} sends nothing"));
        let sent = sent.replace('\n', "").replace("{websocket}", WEBSOCKET);
        let sent = sent.split("{answer}").map(|part| unescape(&repeat(part))).collect();
        let received = sections.map(|message| message.trim_end().to_owned()).collect();
        Case { name, why, keys, sent, received }
    }

    pub fn key(&self, name: &str) -> Option<&str> {
        self.keys.get(name).map(String::as_str)
    }

    /// Whether the grammar of HTTP/1.1 is kept to the end of what is sent.
    pub fn is_whole(&self) -> bool {
        match self.key("grammar") {
            Some("whole") => true,
            Some("broken") => false,
            other => panic!("{}: grammar: {other:?}", self.name),
        }
    }
}

/// `{text*times}` written out.
fn repeat(text: &str) -> String {
    let Some((before, rest)) = text.split_once('{') else { return text.to_owned() };
    let repeated = rest.split_once('}').and_then(|(inside, after)| {
        let (what, times) = inside.rsplit_once('*')?;
        Some(what.repeat(times.parse().ok()?) + &repeat(after))
    });
    before.to_owned() + &repeated.unwrap_or_else(|| format!("{{{}", repeat(rest)))
}

/// The bytes that a text with escapes stands for.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let (byte, length) = match escape.as_bytes()[0] {
            b'r' => (b'\r', 1),
            b'n' => (b'\n', 1),
            b't' => (b'\t', 1),
            b'0' => (0, 1),
            b'\\' => (b'\\', 1),
            b'x' => (u8::from_str_radix(&escape[1..3], 16).unwrap(), 3),
            other => panic!("no escape: {}", char::from(other)),
        };
        bytes.push(byte);
        rest = &escape[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}
