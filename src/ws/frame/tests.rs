#![allow(clippy::unwrap_used)]
use super::*;

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

fn rules() -> Rules {
    Rules { masking: Masking::Required, max_message_size: u64::MAX, rsv: Rsv::None }
}

/// What the walker says of a stream given whole: the first fault, or `None`.
fn fault_under(rules: Rules, stream: &[u8]) -> Option<Fault> {
    let mut walker = Walker::new(rules);
    let mut at = 0;
    loop {
        match walker.next(stream, &mut at) {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(fault) => return Some(fault),
        }
    }
}

/// The fault must come with the last byte of `stream` and not before it.
#[track_caller]
fn assert_fault_at_last_byte(rules: Rules, stream: &[u8], fault: Fault) {
    assert_eq!(fault_under(rules, &stream[..stream.len() - 1]), None, "before the last byte of {stream:02x?}");
    assert_eq!(fault_under(rules, stream), Some(fault), "{stream:02x?}");
    let mut walker = Walker::new(rules);
    let mut seen = None;
    for byte in stream {
        assert_eq!(seen, None);
        let mut at = 0;
        while seen.is_none() {
            match walker.next(std::slice::from_ref(byte), &mut at) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(fault) => seen = Some(fault),
            }
        }
    }
    assert_eq!(seen, Some(fault), "byte by byte");
}

#[test]
fn each_rule_speaks_with_the_byte_that_breaks_it() {
    let protocol = Fault::Protocol;
    let cases: &[(&[u8], Fault)] = &[
        (&[0x83], protocol("reserved opcode")),
        (&[0x87], protocol("reserved opcode")),
        (&[0x8B], protocol("reserved opcode")),
        (&[0x8F], protocol("reserved opcode")),
        (&[0xC1], protocol("reserved bits set")),
        (&[0xA1], protocol("reserved bits set")),
        (&[0x91], protocol("reserved bits set")),
        (&[0xC9], protocol("reserved bits set")),
        (&[0x08], protocol("fragmented control frame")),
        (&[0x09], protocol("fragmented control frame")),
        (&[0x0A], protocol("fragmented control frame")),
        (&[0x80], protocol("continuation of no message")),
        (&[0x00], protocol("continuation of no message")),
        (&[0x81, 0x05], protocol("frame without a mask")),
        (&[0x88, 0xFE], protocol("control frame over 125 bytes")),
        (&[0x89, 0xFE], protocol("control frame over 125 bytes")),
        (&[0x8A, 0xFF], protocol("control frame over 125 bytes")),
        (&[0x88, 0x81], protocol("close code cut short")),
        (&[0x82, 0xFE, 0x00, 0x7D], protocol("length not minimal")),
        (&[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], protocol("length not minimal")),
        (&[0x82, 0xFF, 0x80], protocol("length with the top bit set")),
        (&[0x01, 0x80, 0, 0, 0, 0, 0x81], protocol("new message inside a message")),
        (&[0x02, 0x80, 0, 0, 0, 0, 0x02], protocol("new message inside a message")),
        (&[0x81, 0x80, 0, 0, 0, 0, 0x80], protocol("continuation of no message")),
    ];
    for (stream, fault) in cases {
        assert_fault_at_last_byte(rules(), stream, *fault);
    }
}

#[test]
fn lengths_at_the_borders_of_their_forms_pass() {
    for stream in [
        &[0x82, 0xFD][..],
        &[0x82, 0xFE, 0x00, 0x7E],
        &[0x82, 0xFE, 0xFF, 0xFF],
        &[0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0],
        &[0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0x89, 0xFD],
    ] {
        assert_eq!(fault_under(rules(), stream), None, "{stream:02x?}");
    }
}

#[test]
fn frames_of_a_server_carry_no_mask() {
    let rules = Rules { masking: Masking::Forbidden, ..rules() };
    assert_fault_at_last_byte(rules, &[0x81, 0x85], Fault::Protocol("frame with a mask"));
    assert_eq!(fault_under(rules, &frame(Opcode::Text, b"fine")), None);
}

#[test]
fn reserved_bits_follow_the_extensions() {
    let deflate = Rules { rsv: Rsv::Deflate, ..rules() };
    assert_eq!(fault_under(deflate, &[0xC1]), None);
    assert_eq!(fault_under(deflate, &[0x42]), None);
    let set = Fault::Protocol("reserved bits set");
    for stream in [&[0xE1][..], &[0xA2], &[0xC9], &[0xC8], &[0x41, 0x80, 0, 0, 0, 0, 0xC0]] {
        assert_fault_at_last_byte(deflate, stream, set);
    }
    let any = Rules { rsv: Rsv::Any, ..rules() };
    assert_eq!(fault_under(any, &[0x71, 0x80, 0, 0, 0, 0, 0xF0, 0x80, 0, 0, 0, 0]), None);
    assert_fault_at_last_byte(any, &[0xC9], set);
    assert_fault_at_last_byte(any, &[0x98], set);
}

#[test]
fn size_is_judged_by_the_header_and_summed_over_fragments() {
    let limit = |max_message_size| Rules { max_message_size, ..rules() };
    assert_eq!(fault_under(limit(5), &masked_frame(Opcode::Text, b"12345", KEY)), None);
    assert_fault_at_last_byte(limit(5), &[0x81, 0x86], Fault::TooLarge);
    assert_fault_at_last_byte(limit(1000), &[0x82, 0xFF, 0x40, 0, 0, 0, 0, 0, 0, 0], Fault::TooLarge);
    let first = [0x02, 0x83, 0, 0, 0, 0, 1, 2, 3];
    assert_eq!(fault_under(limit(5), &[&first[..], &[0x80, 0x82]].concat()), None);
    assert_fault_at_last_byte(limit(5), &[&first[..], &[0x80, 0x83]].concat(), Fault::TooLarge);
    // A control frame is no part of the message, and a new message starts from nothing.
    let ping = masked_frame(Opcode::Ping, &[0; 100], KEY);
    let stream = [&first[..], &ping, &[0x80, 0x82, 0, 0, 0, 0, 4, 5], &[0x82, 0x85]].concat();
    assert_eq!(fault_under(limit(5), &stream), None);
}

#[test]
fn sums_of_fragments_do_not_wrap() {
    let mut headers = Headers::new(rules());
    let huge = [0x02, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
    let next = [&[0x00], &huge[1..]].concat();
    headers.take(&huge, &mut 0).unwrap().unwrap();
    headers.take(&next, &mut 0).unwrap().unwrap();
    assert_eq!(headers.take(&next, &mut 0).unwrap_err(), Fault::TooLarge);
}

#[test]
fn close_payloads() {
    assert_eq!(read_close(b""), Ok(None));
    assert_eq!(read_close(&[3]), Err(Fault::Protocol("close code cut short")));
    assert_eq!(read_close(&[0x03, 0xE8, b'o', b'k']), Ok(Some((1000, "ok"))));
    assert_eq!(read_close(&[0x03, 0xE8, 0xFF]), Err(Fault::NotUtf8));
    let valid = |code: u16| read_close(&code.to_be_bytes()).is_ok();
    for code in 0..=u16::MAX {
        let expected = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        assert_eq!(valid(code), expected, "{code}");
    }
}

#[test]
fn nothing_follows_a_close() {
    let close = masked_frame(Opcode::Close, &1000u16.to_be_bytes(), KEY);
    let stream = [&close[..], b"\xFF\xFF rubbish"].concat();
    let mut walker = Walker::new(rules());
    let mut at = 0;
    assert!(matches!(walker.next(&stream, &mut at), Ok(Some(Piece::Control { opcode: Control::Close, .. }))));
    assert!(matches!(walker.next(&stream, &mut at), Ok(None)));
    assert_eq!(at, stream.len());
    assert!(matches!(walker.next(&stream, &mut 0), Ok(None)));
}

#[test]
fn a_run_covers_all_data_frames_up_to_a_control_frame() {
    let text = masked_frame(Opcode::Text, b"text", KEY);
    let mut first = masked_frame(Opcode::Binary, b"", KEY).to_vec();
    first[0] &= 0x7F;
    let ping = masked_frame(Opcode::Ping, b"beat", KEY);
    let last = masked_frame(Opcode::Continuation, b"end", KEY);
    let stream = [&text[..], &text, &first, &ping, &last, &text[..7]].concat();
    let mut walker = Walker::new(rules());
    let mut at = 0;
    let run_end = text.len() * 2 + first.len();
    let Ok(Some(Piece::Data { head: [], range, tally, .. })) = walker.next(&stream, &mut at) else { panic!() };
    assert_eq!((range, tally), (0..run_end, Tally { messages: 2, empty_fragments: 1, payload: 8 }));
    assert!(walker.in_message() && !walker.in_data_frame());
    let Ok(Some(Piece::Control { opcode, raw, payload })) = walker.next(&stream, &mut at) else { panic!() };
    assert_eq!((opcode, raw, payload), (Control::Ping, &ping[..], &b"beat"[..]));
    let Ok(Some(Piece::Data { head: [], range, tally, .. })) = walker.next(&stream, &mut at) else { panic!() };
    assert_eq!(
        (range, tally),
        (run_end + ping.len()..stream.len(), Tally { messages: 1, empty_fragments: 0, payload: 4 })
    );
    assert!(walker.in_message() && walker.in_data_frame());
    assert!(matches!(walker.next(&stream, &mut at), Ok(None)));
    let Ok(Some(Piece::Data { head: [], range, tally, .. })) = walker.next(&text[7..], &mut 0) else { panic!() };
    assert_eq!((range, tally), (0..text.len() - 7, Tally { messages: 1, empty_fragments: 0, payload: 3 }));
    assert!(!walker.in_message() && !walker.in_data_frame());
}

#[test]
fn a_cut_header_is_held_back_and_a_cut_control_frame_too() {
    let text = masked_frame(Opcode::Text, &[b'x'; 300], KEY);
    let mut walker = Walker::new(rules());
    assert!(matches!(walker.next(&text[..5], &mut 0), Ok(None)));
    assert!(!walker.in_data_frame(), "nothing was handed out: something may be injected");
    // The end of the read cuts the next header as well: it must not take the place of the held one.
    let stream = [&text[5..], &text[..3]].concat();
    let mut at = 0;
    let Ok(Some(Piece::Data { head, range, .. })) = walker.next(&stream, &mut at) else { panic!() };
    assert_eq!((head, range), (&text[..5], 0..text.len() - 5));
    assert!(matches!(walker.next(&stream, &mut at), Ok(None)));
    let Ok(Some(Piece::Data { head, range, .. })) = walker.next(&text[3..], &mut 0) else { panic!() };
    assert_eq!((head, range), (&text[..3], 0..text.len() - 3));

    let ping = masked_frame(Opcode::Ping, &[7; 125], KEY);
    for cut in 1..ping.len() {
        assert!(matches!(walker.next(&ping[..cut], &mut 0), Ok(None)));
        let Ok(Some(Piece::Control { raw, payload, .. })) = walker.next(&ping[cut..], &mut 0) else { panic!() };
        assert_eq!((raw, payload), (&ping[..], &[7; 125][..]));
    }
}

#[test]
fn data_before_a_fault_is_handed_out_first() {
    let stream = [&masked_frame(Opcode::Text, b"good", KEY)[..], &[0x83]].concat();
    let mut walker = Walker::new(rules());
    let mut at = 0;
    let Ok(Some(Piece::Data { range, .. })) = walker.next(&stream, &mut at) else { panic!() };
    assert_eq!(range, 0..stream.len() - 1);
    assert!(walker.next(&stream, &mut at).is_err());
}

#[test]
fn a_walker_is_small() {
    assert!(size_of::<Walker>() <= 64, "{}", size_of::<Walker>());
}

#[test]
fn masks_at_every_length_and_turn() {
    for len in 0..70 {
        let plain: Vec<u8> = (0..len).collect();
        let expected: Vec<u8> = plain.iter().enumerate().map(|(i, byte)| byte ^ KEY[i % 4]).collect();
        for cut in 0..=plain.len() {
            let mut bytes = plain.clone();
            let mut key = KEY;
            let (front, back) = bytes.split_at_mut(cut);
            mask(front, &mut key);
            mask(back, &mut key);
            assert_eq!(bytes, expected, "{len} cut at {cut}");
        }
    }
}

#[test]
fn frames_take_the_shortest_header() {
    for (len, size) in [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)] {
        let payload = vec![b'x'; len];
        let whole = frame(Opcode::Binary, &payload);
        assert_eq!(whole.len(), len + size);
        assert_eq!(&whole[size..], payload);
        assert_eq!(header(2, true, false, len).1, size);
        assert_eq!(frame_with(Opcode::Binary, 10, |bytes| bytes.extend_from_slice(&payload)), whole);
        let read = fault_under(Rules { masking: Masking::Forbidden, ..rules() }, &whole);
        assert_eq!(read, None);
        assert_eq!(masked_frame(Opcode::Binary, &payload, KEY).len(), len + size + 4);
    }
    assert_eq!(header(1, false, true, 3), ([0x41, 3, 0, 0, 0, 0, 0, 0, 0, 0], 2));
    // RFC 6455, section 5.7.
    assert_eq!(frame(Opcode::Text, b"Hello")[..], *b"\x81\x05Hello");
    let masked = [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
    assert_eq!(masked_frame(Opcode::Text, b"Hello", KEY)[..], masked);
}
