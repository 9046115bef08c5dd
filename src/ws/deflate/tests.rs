#![allow(clippy::unwrap_used)]
use super::*;
use crate::ws::{Chunk, Event, Masking, Reader, Rsv, Rules};

const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

fn inflated(payload: &[u8], max: u64) -> Result<Vec<u8>, Fault> {
    let mut inflater = Inflater::new();
    inflater.inflate(payload, max).map(|()| inflater.output().to_vec())
}

fn rules(max_message_size: u64) -> Rules {
    Rules { masking: Masking::Forbidden, max_message_size, rsv: Rsv::None }
}

#[test]
fn examples_of_the_rfc() {
    // RFC 7692, sections 7.2.3.1 to 7.2.3.6.
    let hello = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
    assert_eq!(inflated(&hello, 5).unwrap(), b"Hello");
    let stored = [0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00];
    assert_eq!(inflated(&stored, 5).unwrap(), b"Hello");
    let final_block = [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00];
    assert_eq!(inflated(&final_block, 5).unwrap(), b"Hello");
    let two_blocks = [0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00];
    assert_eq!(inflated(&two_blocks, 5).unwrap(), b"Hello");
    assert_eq!(inflated(&[0x00], 0).unwrap(), b"");
    assert_eq!(inflated(&[], 0).unwrap(), b"");
}

#[test]
fn broken_data_is_refused() {
    let hello = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
    assert_eq!(inflated(&[0xFF; 30], u64::MAX), Err(Fault::InvalidData));
    assert_eq!(inflated(&hello[..4], u64::MAX), Err(Fault::InvalidData));
    assert_eq!(inflated(&[0x00, 0x50, 0x00, 0xAF, 0xFF, 1, 2], u64::MAX), Err(Fault::InvalidData));
    // Two bytes a final block: each of them would start the inflater anew.
    assert_eq!(inflated(&[0x03, 0x00].repeat(10_000), u64::MAX), Err(Fault::InvalidData));
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let mut deflater = Deflater::new();
    let frame = deflater.frame(Opcode::Binary, &vec![0; 50_000_000]).unwrap();
    let payload = &frame[4..];
    assert!(payload.len() < 60_000);
    let mut inflater = Inflater::new();
    assert_eq!(inflater.inflate(payload, 100_000), Err(Fault::TooLarge));
    assert!(inflater.output.capacity() <= 100_001, "{}", inflater.output.capacity());
    inflater.release();
    assert_eq!(inflater.output.capacity(), 0);
    assert_eq!(inflated(payload, 49_999_999), Err(Fault::TooLarge));
    assert_eq!(inflated(payload, 50_000_000).unwrap().len(), 50_000_000);
}

#[test]
fn deflated_frames_come_back() {
    let mut deflater = Deflater::new();
    let mut inflater = Inflater::new();
    for len in [40, 126, 1000, 5000, 65_536, 300_000] {
        let text: String = (0..).map(|i| format!("message {i}, ")).take(len / 10).collect();
        let frame = deflater.frame(Opcode::Text, text.as_bytes()).unwrap();
        assert!(frame.len() < text.len());
        assert_eq!(frame[0], 0xC1);
        for cut in [0, 1, 5, frame.len() / 2, frame.len()] {
            let mut reader = Reader::new(rules(text.len() as u64), true);
            let (mut front, mut back) = (frame[..cut].to_vec(), frame[cut..].to_vec());
            let mut seen = 0;
            for bytes in [&mut front, &mut back] {
                let mut chunk = Chunk::new(bytes);
                while let Some(event) = reader.next(&mut chunk, &mut inflater).unwrap() {
                    assert_eq!(event, Event::Text(&text));
                    seen += 1;
                }
            }
            assert_eq!(seen, 1);
            let too_small = Reader::new(rules(text.len() as u64 - 1), true)
                .next(&mut Chunk::new(&mut frame.to_vec()), &mut inflater)
                .map(|event| event.is_some());
            assert_eq!(too_small, Err(Fault::TooLarge));
        }
    }
}

#[test]
fn what_does_not_shrink_is_not_deflated() {
    let mut deflater = Deflater::new();
    assert_eq!(deflater.frame(Opcode::Text, b""), None);
    assert_eq!(deflater.frame(Opcode::Text, b"short"), None);
    let mut state = 1u64;
    let mut roll = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let noise: Vec<u8> = (0..10_000).map(|_| roll()).collect();
    assert_eq!(deflater.frame(Opcode::Binary, &noise), None);
    assert!(deflater.frame(Opcode::Binary, &[0; 100]).is_some());
}

#[test]
fn messages_do_not_depend_on_each_other() {
    let mut deflater = Deflater::new();
    let text = br#"{"type":"chat_message","payload":{"message":"again and again and again"}}"#;
    let first = deflater.frame(Opcode::Text, text).unwrap();
    deflater.frame(Opcode::Binary, &[7; 5000]).unwrap();
    assert_eq!(deflater.frame(Opcode::Text, text).unwrap(), first);
    let mut inflater = Inflater::new();
    assert_eq!(inflater.inflate(&[0xFF; 30], 100), Err(Fault::InvalidData));
    inflater.inflate(&first[2..], 100).unwrap();
    assert_eq!(inflater.output(), text);
}

#[test]
fn broken_deflated_text_is_not_utf8() {
    let mut frame = Deflater::new().frame(Opcode::Binary, &[0xFF; 100]).unwrap().to_vec();
    frame[0] = 0xC1;
    let mut inflater = Inflater::new();
    let mut reader = Reader::new(rules(u64::MAX), true);
    assert_eq!(reader.next(&mut Chunk::new(&mut frame), &mut inflater), Err(Fault::NotUtf8));
}

#[test]
fn offers_that_are_taken() {
    for offer in [
        "permessage-deflate",
        " permessage-deflate ; client_max_window_bits ",
        "permessage-deflate; client_max_window_bits=8",
        "permessage-deflate; client_max_window_bits=\"15\"; server_no_context_takeover",
        "permessage-deflate;client_no_context_takeover;server_no_context_takeover",
        "x-unknown; q=\"a, permessage-deflate; server_max_window_bits=9\", permessage-deflate",
        "permessage-deflate; server_max_window_bits=10, permessage-deflate",
        "permessage-deflate; unheard_of, permessage-deflate; client_max_window_bits",
    ] {
        assert_eq!(negotiate([offer].into_iter()), Some(ANSWER), "{offer}");
    }
    let with_window = format!("{ANSWER}; server_max_window_bits=15");
    let offer = "permessage-deflate; server_max_window_bits=15";
    assert_eq!(negotiate([offer].into_iter()), Some(with_window.as_str()));
    assert_eq!(negotiate(["x-webkit-deflate-frame", "permessage-deflate"].into_iter()), Some(ANSWER));
}

#[test]
fn offers_that_are_declined() {
    for offer in [
        "",
        "x-webkit-deflate-frame",
        "permessage-deflates",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=14",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=08",
        "permessage-deflate; client_max_window_bits=",
        "permessage-deflate; client_max_window_bits; client_max_window_bits=15",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; unheard_of",
        "permessage-deflate;",
        "\"permessage-deflate",
    ] {
        assert_eq!(negotiate([offer].into_iter()), None, "{offer}");
    }
}
