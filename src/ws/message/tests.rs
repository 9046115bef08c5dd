#![allow(clippy::unwrap_used)]
use super::*;
use crate::ws::{Masking, masked_frame};

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
const RULES: Rules = Rules { masking: Masking::Required, max_message_size: u64::MAX, rsv: Rsv::None };

/// What was said before the stream ended or broke, as text for comparing.
fn said(reader: &mut Reader, stream: &[u8]) -> (Vec<String>, Option<Fault>) {
    let mut bytes = stream.to_vec();
    let mut chunk = Chunk::new(&mut bytes);
    let mut inflater = Inflater::new();
    let mut said = Vec::new();
    loop {
        match reader.next(&mut chunk, &mut inflater) {
            Ok(Some(event)) => said.push(format!("{event:?}")),
            Ok(None) => return (said, None),
            Err(fault) => return (said, Some(fault)),
        }
    }
}

fn unfinished(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut frame = masked_frame(opcode, payload, KEY).to_vec();
    frame[0] &= 0x7F;
    frame
}

fn text(payload: &[u8]) -> Vec<u8> {
    masked_frame(Opcode::Text, payload, KEY).to_vec()
}

fn owns_nothing(reader: &Reader) -> bool {
    reader.message.capacity() == 0 && reader.control.capacity() == 0
}

#[test]
fn events_of_a_stream_are_the_same_at_every_cut() {
    let stream = [
        &text("zwölf".as_bytes())[..],
        &unfinished(Opcode::Binary, b"one "),
        &masked_frame(Opcode::Ping, b"beat", KEY),
        &unfinished(Opcode::Continuation, b""),
        &masked_frame(Opcode::Continuation, &[b'2'; 130], KEY),
        &text(b""),
        &masked_frame(Opcode::Pong, b"", KEY),
        &masked_frame(Opcode::Close, b"\x03\xE9gone", KEY),
        b"ignored",
    ]
    .concat();
    let (whole, fault) = said(&mut Reader::new(RULES, false), &stream);
    assert_eq!((whole.len(), fault), (7, None));
    assert_eq!(whole[0], "Text(\"zwölf\")");
    assert_eq!(whole[1], format!("Ping({:?})", b"beat"));
    assert_eq!(whole[2], "EmptyFragment");
    assert_eq!(whole[6], "Close(Some((1001, \"gone\")))");
    for cut in 0..=stream.len() {
        let mut reader = Reader::new(RULES, false);
        let (mut parts, _) = said(&mut reader, &stream[..cut]);
        parts.extend(said(&mut reader, &stream[cut..]).0);
        assert_eq!(parts, whole, "cut at {cut}");
        assert!(owns_nothing(&reader));
        assert_eq!(reader.take_payload_bytes(), 6 + 4 + 4 + 130 + 6);
        assert_eq!(reader.take_payload_bytes(), 0);
    }
    let mut reader = Reader::new(RULES, false);
    let bytewise: Vec<String> = stream.iter().flat_map(|byte| said(&mut reader, &[*byte]).0).collect();
    assert_eq!(bytewise, whole);
}

#[test]
fn a_message_whole_in_its_chunk_takes_no_memory() {
    let mut bytes = [text(b"here"), masked_frame(Opcode::Ping, b"p", KEY).to_vec()].concat();
    let range = bytes.as_ptr_range();
    let mut reader = Reader::new(RULES, false);
    let mut inflater = Inflater::new();
    let mut chunk = Chunk::new(&mut bytes);
    for _ in 0..2 {
        match reader.next(&mut chunk, &mut inflater).unwrap().unwrap() {
            Event::Text(text) => assert!(range.contains(&text.as_ptr())),
            Event::Ping(payload) => assert!(range.contains(&payload.as_ptr())),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(chunk.rest(), b"");
    assert!(owns_nothing(&reader));
}

#[test]
fn an_announced_length_takes_no_memory() {
    let mut reader = Reader::new(RULES, false);
    let header = [0x82, 0xFF, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    assert_eq!(said(&mut reader, &header), (Vec::new(), None));
    assert!(owns_nothing(&reader));
    assert_eq!(said(&mut reader, &[0; 1000]), (Vec::new(), None));
    assert!(reader.message.capacity() <= 1000, "{}", reader.message.capacity());
    for round in 2..100 {
        said(&mut reader, &[0; 1000]);
        assert!(reader.message.capacity() <= 2000 * round);
    }
    // A small rest is not rounded up either.
    let mut reader = Reader::new(RULES, false);
    said(&mut reader, &text(&[b'x'; 1100])[..1000]);
    said(&mut reader, &[0; 1]);
    assert!(reader.message.capacity() <= 1100, "{}", reader.message.capacity());
}

#[test]
fn memory_is_given_back_after_each_message() {
    let mut reader = Reader::new(RULES, false);
    let frame = masked_frame(Opcode::Binary, &[1; 5000], KEY);
    assert_eq!(said(&mut reader, &frame[..4000]).0.len(), 0);
    assert!(reader.message.capacity() >= 3992);
    assert_eq!(said(&mut reader, &frame[4000..]).0.len(), 1);
    assert!(owns_nothing(&reader));
    let ping = masked_frame(Opcode::Ping, &[1; 100], KEY);
    said(&mut reader, &ping[..50]);
    assert!(!owns_nothing(&reader));
    assert_eq!(said(&mut reader, &ping[50..]).0.len(), 1);
    assert!(owns_nothing(&reader));
    assert!(size_of::<Reader>() <= 192, "{}", size_of::<Reader>());
}

#[test]
fn broken_text_is_seen_with_the_byte_that_breaks_it() {
    for (good, bad) in [
        (&b"abc"[..], 0x80),
        (b"\xC3", 0x20),
        (b"\xED", 0xA0),
        (b"\xF4", 0x90),
        (b"\xE0", 0x9F),
        (b"\xE2\x82", 0x41),
        (b"\xF0\x9F\x98", 0xFF),
        (b"", 0xC0),
        (b"", 0xF5),
    ] {
        // In the middle of a frame that is far from whole, in a fragment, and byte by byte.
        let mut frame = vec![0x81, 0xFE, 0x10, 0x00, 0, 0, 0, 0];
        frame.extend_from_slice(good);
        assert_eq!(said(&mut Reader::new(RULES, false), &frame).1, None);
        frame.push(bad);
        assert_eq!(said(&mut Reader::new(RULES, false), &frame).1, Some(Fault::NotUtf8), "{good:02x?} {bad:02x}");
        let mut reader = Reader::new(RULES, false);
        let faults: Vec<_> = frame.iter().map(|byte| said(&mut reader, &[*byte]).1).collect();
        assert_eq!(faults.iter().position(Option::is_some), Some(frame.len() - 1));
        let fragments = [unfinished(Opcode::Text, good), unfinished(Opcode::Continuation, &[bad])].concat();
        assert_eq!(said(&mut Reader::new(RULES, false), &fragments).1, Some(Fault::NotUtf8));
    }
}

#[test]
fn a_character_may_be_cut_by_fragments_but_not_by_the_end() {
    let euro = [unfinished(Opcode::Text, b"\xE2"), unfinished(Opcode::Continuation, b"\x82")].concat();
    let whole = [&euro[..], &masked_frame(Opcode::Continuation, b"\xAC", KEY)].concat();
    assert_eq!(said(&mut Reader::new(RULES, false), &whole), (vec!["Text(\"€\")".to_owned()], None));
    let cut = [&euro[..], &masked_frame(Opcode::Continuation, b"", KEY)].concat();
    assert_eq!(said(&mut Reader::new(RULES, false), &cut).1, Some(Fault::NotUtf8));
    assert_eq!(said(&mut Reader::new(RULES, false), &text(b"\xE2\x82")).1, Some(Fault::NotUtf8));
}

#[test]
fn many_small_fragments_do_not_copy_the_message_over_and_over() {
    let mut reader = Reader::new(RULES, false);
    said(&mut reader, &unfinished(Opcode::Binary, &[0]));
    let mut moves = 0;
    let mut capacity = reader.message.capacity();
    for _ in 0..65_536 {
        said(&mut reader, &unfinished(Opcode::Continuation, &[0]));
        if reader.message.capacity() != capacity {
            capacity = reader.message.capacity();
            moves += 1;
        }
    }
    assert!(moves <= 20, "{moves}");
}

#[test]
fn a_client_role_reads_what_a_server_sends() {
    let rules = Rules { masking: Masking::Forbidden, ..RULES };
    let stream = crate::ws::frame(Opcode::Text, b"plain");
    assert_eq!(said(&mut Reader::new(rules, false), &stream), (vec!["Text(\"plain\")".to_owned()], None));
}
