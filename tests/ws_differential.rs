//! `ws` against tungstenite over the corpus and over seeded mutations of it: what the fuzz target does, as a plain test.
#[path = "../fuzz/differential.rs"]
mod differential;

use differential::{Cuts, Dice, MESSAGE_BYTES_MAX, Said, compare, read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use wsgate::ws::{Opcode, masked_frame};

const MUTATIONS: usize = 6000;
const STORIES: usize = 3000;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ws_corpus");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the corpus is there")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .map(|path| (path.display().to_string(), std::fs::read(&path).expect("a readable file")))
        .collect();
    files.sort();
    assert!(files.len() >= 100, "found {} files in {folder}", files.len());
    files
}

/// Says which stream it was, in a form that can be put into the corpus.
fn compare_named(name: &str, stream: &[u8], seed: u64) {
    if catch_unwind(AssertUnwindSafe(|| compare(stream, seed))).is_err() {
        let shown = &stream[..stream.len().min(400)];
        panic!("{name}, seed {seed}, {} bytes: {shown:02x?}", stream.len());
    }
}

#[test]
fn corpus_reads_as_tungstenite_reads_it() {
    for (name, stream) in corpus() {
        compare_named(&name, &stream, stream.len() as u64);
    }
}

#[test]
fn small_streams_read_the_same_at_every_cut() {
    for (name, stream) in corpus() {
        if stream.len() > 400 {
            continue;
        }
        for deflate in [false, true] {
            let whole = read(&stream, Cuts::Whole, deflate);
            for size in 1..=stream.len() {
                assert_eq!(whole, read(&stream, Cuts::Every(size), deflate), "{name}, reads of {size}");
            }
        }
    }
}

#[test]
fn mutations_read_as_tungstenite_reads_them() {
    let corpus = corpus();
    let small: Vec<_> = corpus.iter().filter(|(_, stream)| stream.len() < 2000).collect();
    let mut dice = Dice(0x5EED);
    for round in 0..MUTATIONS {
        let (name, stream) = small[dice.roll(small.len())];
        let mut stream = stream.clone();
        for _ in 0..=dice.roll(3) {
            mutate(&mut stream, &small[dice.roll(small.len())].1, &mut dice);
        }
        compare_named(&format!("mutation {round} of {name}"), &stream, round as u64);
    }
}

fn mutate(stream: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.roll(stream.len() + 1);
    match dice.roll(6) {
        0 if at < stream.len() => stream[at] ^= 1 << dice.roll(8),
        1 if at < stream.len() => stream[at] = [0, 1, 0x7D, 0x7E, 0x7F, 0x80, 0xFE, 0xFF][dice.roll(8)],
        2 if at < stream.len() => drop(stream.remove(at)),
        3 => stream.insert(at, dice.roll(256) as u8),
        4 => stream.truncate(at),
        _ => stream.extend_from_slice(other),
    }
}

/// Streams that are right, or wrong in one place far from the start, which mutation of bytes seldom makes.
#[test]
fn stories_read_as_tungstenite_reads_them() {
    let mut dice = Dice(0x57081);
    let mut messages = 0;
    for round in 0..STORIES {
        let stream = story(&mut dice);
        compare_named(&format!("story {round}"), &stream, round as u64);
        let said = read(&stream, Cuts::Whole, false).said;
        messages += said.iter().filter(|said| matches!(said, Said::Text(_) | Said::Binary(_))).count();
    }
    assert!(messages > 5 * STORIES, "only {messages} messages in {STORIES} stories");
}

fn story(dice: &mut Dice) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..dice.roll(30) {
        let opcode = [Opcode::Text, Opcode::Binary, Opcode::Ping, Opcode::Pong][dice.roll(4)];
        let size = [4, 30, 200, 125, MESSAGE_BYTES_MAX / 8][[0, 1, 2, 1, 0, 0, 1, 2, 1, 4][dice.roll(10)]];
        let mut payload = words(dice.roll(size), dice);
        if opcode.control().is_some() {
            payload.truncate(125);
            stream.extend(masked(opcode, true, &payload, dice));
            continue;
        }
        if dice.roll(60) == 0 && !payload.is_empty() {
            let at = dice.roll(payload.len());
            payload[at] = 0x80 | dice.roll(128) as u8;
        }
        fragment(&mut stream, opcode, &payload, dice);
    }
    if dice.roll(3) == 0 {
        stream.extend(masked(Opcode::Close, true, &[0x03, 0xE8 + dice.roll(16) as u8, b'x'], dice));
    }
    stream
}

fn fragment(stream: &mut Vec<u8>, mut opcode: Opcode, mut payload: &[u8], dice: &mut Dice) {
    while dice.roll(3) == 0 {
        let (part, rest) = payload.split_at(dice.roll(payload.len() + 1));
        stream.extend(masked(opcode, false, part, dice));
        if dice.roll(3) == 0 {
            stream.extend(masked(Opcode::Ping, true, b"between", dice));
        }
        opcode = Opcode::Continuation;
        payload = rest;
    }
    stream.extend(masked(opcode, true, payload, dice));
}

fn masked(opcode: Opcode, fin: bool, payload: &[u8], dice: &mut Dice) -> Vec<u8> {
    let key = std::array::from_fn(|_| dice.roll(256) as u8);
    let mut frame = masked_frame(opcode, payload, key).to_vec();
    if !fin {
        frame[0] &= 0x7F;
    }
    frame
}

fn words(size: usize, dice: &mut Dice) -> Vec<u8> {
    let letters = ["a", "ß", "€", "😀", " ", "wort", "{}"];
    let mut words = String::new();
    while words.len() < size {
        words.push_str(letters[dice.roll(letters.len())]);
    }
    words.into_bytes()
}
