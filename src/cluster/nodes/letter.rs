//! What nodes send each other: a line of words, then the content.
use super::{NodeId, Topic};
use bytes::Bytes;

/// Bytes of a message, a question or an answer: what the admin interface takes of a body, and as much again.
pub(super) const CONTENT_BYTES_MAX: usize = 8 << 20;

/// A message between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Letter {
    /// The list of leases has changed: scripts say so.
    Look,
    /// To all.
    Tell { from: NodeId, topic: Topic, content: Bytes },
    /// A question to all.
    Ask { from: NodeId, number: u64, content: Bytes },
    /// The answer to a question of `to`.
    Answer { from: NodeId, to: NodeId, number: u64, content: Bytes },
}

impl Letter {
    pub(super) fn encode(&self) -> Vec<u8> {
        let nothing = Bytes::new();
        let (head, content) = match self {
            Letter::Look => ("look\n".to_owned(), &nothing),
            Letter::Tell { from, topic, content } => (format!("{} {from}\n", topic.word()), content),
            Letter::Ask { from, number, content } => (format!("ask {from} {number}\n"), content),
            Letter::Answer { from, to, number, content } => (format!("answer {from} {to} {number}\n"), content),
        };
        [head.as_bytes(), content].concat()
    }

    /// `None` where it is none: another version may send others.
    pub(super) fn decode(letter: &Bytes) -> Option<Letter> {
        let head = letter.iter().take(128).position(|b| *b == b'\n')?;
        let content = letter.slice(head + 1..);
        if content.len() > CONTENT_BYTES_MAX {
            return None;
        }
        let words: Vec<&str> = std::str::from_utf8(&letter[..head]).ok()?.split(' ').collect();
        Some(match words[..] {
            ["look"] => Letter::Look,
            ["ask", from, number] => Letter::Ask { from: from.parse().ok()?, number: number.parse().ok()?, content },
            ["answer", from, to, number] => {
                Letter::Answer { from: from.parse().ok()?, to: to.parse().ok()?, number: number.parse().ok()?, content }
            }
            [word, from] => {
                let topic = Topic::ALL.into_iter().find(|topic| topic.word() == word)?;
                Letter::Tell { from: from.parse().ok()?, topic, content }
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_as_they_were_written() {
        let (from, to, content) = (NodeId(1), NodeId(u64::MAX), Bytes::from_static(b"\n a\0b"));
        let mut letters = vec![
            Letter::Look,
            Letter::Ask { from, number: u64::MAX, content: content.clone() },
            Letter::Answer { from, to, number: 7, content: content.clone() },
        ];
        letters.extend(Topic::ALL.map(|topic| Letter::Tell { from, topic, content: content.clone() }));
        for letter in letters {
            assert_eq!(Letter::decode(&letter.encode().into()), Some(letter));
        }
    }

    #[test]
    fn anything_else_is_none() {
        for letter in ["", "look", "\n", "ask 1\n", "ask x 1\n", "ask 1 -1\n", "bans\n", "bans 1 2\n", "else 1\n"] {
            assert_eq!(Letter::decode(&letter.into()), None, "{letter:?}");
        }
        let long = [b"bans 1\n".as_slice(), &vec![0; CONTENT_BYTES_MAX + 1]].concat();
        assert_eq!(Letter::decode(&long.into()), None);
    }
}
