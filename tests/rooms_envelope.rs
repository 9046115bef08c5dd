//! The envelope against another reader of JSON, over the corpus and over seeded mutations of it: what the fuzz target does,
//! as a plain test.
#![allow(missing_docs, clippy::unwrap_used)]
#[path = "../fuzz/envelope.rs"]
mod envelope;

use std::panic::catch_unwind;

const MUTATIONS: usize = 20_000;

fn corpus() -> Vec<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/envelope_corpus");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let mut texts: Vec<_> =
        files.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect();
    texts.sort();
    assert!(texts.len() >= 50, "found {} files in {folder}", texts.len());
    texts
}

/// Says which text it was, so that it can be put into the corpus.
fn check_named(name: &str, text: &str) {
    assert!(catch_unwind(|| envelope::check(text)).is_ok(), "{name}: {text:?}");
}

/// A small generator of numbers (xorshift64*), so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides
    }
}

#[test]
fn the_corpus_is_read_as_the_other_reader_reads_it() {
    for (name, text) in corpus() {
        check_named(&name, &text);
        for (end, _) in text.char_indices() {
            check_named(&name, &text[..end]);
        }
    }
}

/// Pieces that make other JSON of JSON.
const PIECES: [&str; 28] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
    "\\",
    "null",
    "true",
    "0",
    "-",
    ".5",
    "e9",
    " ",
    "{}",
    "[]",
    "[[]]",
    "\"x\"",
    "\\u0061",
    "\\ud83d",
    "\"type\":\"y\",",
    "\"payload\":{},",
    "\"message\":1,",
    "\"room_id\":\"r\",",
    "\"message_id\":\"n\",",
    "\"since\":{\"epoch\":\"\",\"offset\":0},",
    "\u{1f600}",
];

#[test]
fn mutations_are_read_as_the_other_reader_reads_them() {
    let corpus = corpus();
    let small: Vec<_> = corpus.iter().filter(|(_, text)| text.len() < 1000).collect();
    let mut dice = Dice(0x5EED);
    let mut taken = 0;
    for round in 0..MUTATIONS {
        let (name, text) = small[dice.roll(small.len())];
        let mut text: Vec<char> = text.chars().collect();
        for _ in 0..=dice.roll(3) {
            mutate(&mut text, &small[dice.roll(small.len())].1, &mut dice);
        }
        let text: String = text.into_iter().collect();
        check_named(&format!("mutation {round} of {name}"), &text);
        taken += usize::from(wsgate::rooms::protocol::read(&text).is_ok());
    }
    assert!(taken > MUTATIONS / 20 && taken < MUTATIONS * 19 / 20, "{taken} of {MUTATIONS} were read");
}

fn mutate(text: &mut Vec<char>, other: &str, dice: &mut Dice) {
    let at = dice.roll(text.len() + 1);
    let to = (at + dice.roll(8)).min(text.len());
    match dice.roll(6) {
        0 if at < text.len() => text[at] = char::from(dice.roll(128) as u8),
        1 => drop(text.drain(at..to)),
        2 => {
            let copied: Vec<char> = text[at..to].to_vec();
            text.splice(to..to, copied);
        }
        3 => {
            let other: Vec<char> = other.chars().collect();
            let start = dice.roll(other.len() + 1);
            let end = (start + dice.roll(60)).min(other.len());
            text.splice(at..at, other[start..end].iter().copied());
        }
        _ => {
            let piece = PIECES[dice.roll(PIECES.len())];
            text.splice(at..at, piece.chars());
        }
    }
}
