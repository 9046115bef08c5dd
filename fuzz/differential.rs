//! `wsgate::ws` held against tungstenite's `WebSocket`: the same bytes must say the same. Used by the fuzz target and,
//! over the corpus, by `tests/ws_differential.rs`.
use std::io::{self, Read, Write};
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, Message, error::ProtocolError};
use wsgate::ws::{Chunk, Control, Event, Fault, Inflater, Masking, Piece, Reader, Rsv, Rules, Tally, Walker};

/// Both sides' limit. tungstenite reserves what a header announces, so it cannot go without; over 64 KiB so that all
/// three forms of a length are met.
pub const MESSAGE_BYTES_MAX: usize = 96 * 1024;

/// What a stream said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    EmptyFragment,
}

/// Everything that a reader made of a stream. Without a fault it read to a Close or to the end.
#[derive(PartialEq, Eq, Debug)]
pub struct Account {
    pub said: Vec<Said>,
    pub fault: Option<Fault>,
    /// Not told after a fault: how much was read by then depends on the cuts.
    pub payload_bytes: Option<u64>,
}

/// Where a stream is cut into reads: the sizes of the reads, the last of them repeated by its rule.
#[derive(Clone, Copy, Debug)]
pub enum Cuts {
    Whole,
    Every(usize),
    Random(u64),
}

/// A small generator of numbers (xorshift64*), so that a failure can be repeated.
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides
    }
}

impl Cuts {
    fn pieces(self, stream: &[u8]) -> Vec<&[u8]> {
        let mut dice = Dice(1);
        if let Cuts::Random(seed) = self {
            dice = Dice(seed | 1);
        }
        let mut rest = stream;
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let size = match self {
                Cuts::Whole => rest.len(),
                Cuts::Every(size) => size,
                Cuts::Random(_) => 1 + [3, 17, 200, 5000].map(|sides| dice.roll(sides))[dice.roll(4)],
            };
            let (piece, after) = rest.split_at(size.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces
    }
}

/// Rules for a client's stream.
pub fn rules(rsv: Rsv) -> Rules {
    Rules { masking: Masking::Required, max_message_size: MESSAGE_BYTES_MAX as u64, rsv }
}

/// What our reader makes of a stream.
pub fn read(stream: &[u8], cuts: Cuts, deflate: bool) -> Account {
    let mut reader = Reader::new(rules(Rsv::None), deflate);
    let mut inflater = Inflater::new();
    let mut said = Vec::new();
    for piece in cuts.pieces(stream) {
        let mut bytes = piece.to_vec();
        let mut chunk = Chunk::new(&mut bytes);
        loop {
            match reader.next(&mut chunk, &mut inflater) {
                Ok(Some(event)) => said.push(own(event)),
                Ok(None) => break,
                Err(fault) => return Account { said, fault: Some(fault), payload_bytes: None },
            }
        }
        assert!(chunk.rest().is_empty(), "a chunk is used up");
    }
    Account { said, fault: None, payload_bytes: Some(reader.take_payload_bytes()) }
}

fn own(event: Event<'_>) -> Said {
    match event {
        Event::Text(text) => Said::Text(text.to_owned()),
        Event::Binary(bytes) => Said::Binary(bytes.to_vec()),
        Event::Ping(bytes) => Said::Ping(bytes.to_vec()),
        Event::Pong(bytes) => Said::Pong(bytes.to_vec()),
        Event::Close(close) => Said::Close(close.map(|(code, reason)| (code, reason.to_owned()))),
        Event::EmptyFragment => Said::EmptyFragment,
    }
}

/// What the walker makes of a stream: the bytes it forwards, the control frames, the counts, the fault.
#[derive(PartialEq, Eq, Debug)]
pub struct Walk {
    pub forwarded: Vec<u8>,
    pub controls: Vec<(Control, Vec<u8>)>,
    pub tally: Tally,
    pub fault: Option<Fault>,
}

/// Walks a stream and checks that nothing may be injected in the middle of a frame.
pub fn walk(stream: &[u8], cuts: Cuts, rsv: Rsv) -> Walk {
    let mut walker = Walker::new(rules(rsv));
    let mut walk = Walk { forwarded: Vec::new(), controls: Vec::new(), tally: Tally::default(), fault: None };
    'stream: for piece in cuts.pieces(stream) {
        let mut at = 0;
        loop {
            match walker.next(piece, &mut at) {
                Ok(Some(Piece::Data { head, range, tally, .. })) => {
                    assert!(!range.is_empty(), "a run is not empty");
                    walk.forwarded.extend_from_slice(head);
                    walk.forwarded.extend_from_slice(&piece[range]);
                    walk.tally.messages += tally.messages;
                    walk.tally.empty_fragments += tally.empty_fragments;
                    walk.tally.payload += tally.payload;
                }
                Ok(Some(Piece::Control { opcode, raw, payload })) => {
                    walk.forwarded.extend_from_slice(raw);
                    walk.controls.push((opcode, payload.to_vec()));
                    assert!(!walker.in_data_frame(), "a control frame never interrupts a frame");
                }
                Ok(None) => break,
                Err(fault) => {
                    walk.fault = Some(fault);
                    break 'stream;
                }
            }
        }
        assert_eq!(at, piece.len(), "the input is used up");
    }
    assert!(stream.starts_with(&walk.forwarded), "what is forwarded is what came");
    walk
}

/// Ends of input and zeros without end behind it: a frame that we refused by its first bytes becomes whole, so that
/// tungstenite has to judge it.
struct Input<'a> {
    bytes: &'a [u8],
    zeros_left: usize,
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.bytes.is_empty() {
            return self.bytes.read(buffer);
        }
        let zeros = self.zeros_left.min(buffer.len());
        buffer[..zeros].fill(0);
        self.zeros_left -= zeros;
        Ok(zeros)
    }
}

impl Write for Input<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite makes of a stream: what was said up to a Close, and the error that it ended with before one.
pub fn ask_tungstenite(stream: &[u8], zeros: usize, most: usize) -> (Vec<Said>, Option<Error>) {
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let input = Input { bytes: stream, zeros_left: zeros };
    let mut socket = WebSocket::from_raw_socket(input, Role::Server, Some(config));
    let mut said = Vec::new();
    while said.len() < most {
        said.push(match socket.read() {
            Ok(Message::Text(text)) => Said::Text(text.as_str().to_owned()),
            Ok(Message::Binary(bytes)) => Said::Binary(bytes.to_vec()),
            Ok(Message::Ping(bytes)) => Said::Ping(bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Said::Pong(bytes.to_vec()),
            Ok(Message::Close(close)) => {
                said.push(Said::Close(close.map(|close| (close.code.into(), close.reason.as_str().to_owned()))));
                return (said, None);
            }
            Ok(Message::Frame(_)) => unreachable!("read() gives no raw frames"),
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => return (said, None),
            Err(error) => return (said, Some(error)),
        });
    }
    (said, None)
}

/// Where we refuse what tungstenite takes. Nothing else may differ:
/// - a length that is not minimal, of a control frame too (RFC 6455, section 5.2);
/// - a close code that may not stand on the wire: tungstenite hands out a Close with 1002 of its own.
fn is_stricter(fault: Fault, theirs: &Said) -> bool {
    match fault {
        Fault::Protocol("length not minimal") => true,
        Fault::Protocol("control frame over 125 bytes") => match theirs {
            Said::Ping(payload) | Said::Pong(payload) => payload.len() <= 125,
            Said::Close(_) => true,
            Said::Text(_) | Said::Binary(_) | Said::EmptyFragment => false,
        },
        Fault::Protocol("close code not allowed") => *theirs == violation(),
        Fault::Protocol(_) | Fault::NotUtf8 | Fault::TooLarge | Fault::InvalidData => false,
    }
}

fn violation() -> Said {
    Said::Close(Some((1002, "Protocol violation".to_owned())))
}

/// Panics where our reader and tungstenite differ over `stream`, where our reader's or walker's answer depends on how
/// the stream is cut into reads, or where reader and walker differ.
pub fn compare(stream: &[u8], seed: u64) {
    let account = read(stream, Cuts::Whole, false);
    let cuts = [Cuts::Random(seed), Cuts::Random(!seed), Cuts::Every(if stream.len() < 1024 { 1 } else { 7 })];
    for cuts in cuts {
        assert_eq!(account, read(stream, cuts, false), "{cuts:?}");
        assert_eq!(read(stream, Cuts::Whole, true), read(stream, cuts, true), "deflate, {cuts:?}");
        for rsv in [Rsv::None, Rsv::Deflate, Rsv::Any] {
            assert_eq!(walk(stream, Cuts::Whole, rsv), walk(stream, cuts, rsv), "{rsv:?}, {cuts:?}");
        }
    }
    compare_with_walk(&account, &walk(stream, Cuts::Whole, Rsv::None));
    compare_with_tungstenite(stream, &account);
}

fn compare_with_walk(account: &Account, walk: &Walk) {
    if account.fault == Some(Fault::NotUtf8) {
        // The relay leaves text to the backend, so the walker goes on.
        return;
    }
    assert_eq!(account.fault, walk.fault);
    let mut tally = Tally::default();
    let mut controls = Vec::new();
    for said in &account.said {
        match said {
            Said::Text(_) | Said::Binary(_) => tally.messages += 1,
            Said::EmptyFragment => tally.empty_fragments += 1,
            Said::Ping(payload) => controls.push((Control::Ping, payload.clone())),
            Said::Pong(payload) => controls.push((Control::Pong, payload.clone())),
            Said::Close(None) => controls.push((Control::Close, Vec::new())),
            Said::Close(Some((code, reason))) => {
                controls.push((Control::Close, [&code.to_be_bytes(), reason.as_bytes()].concat()));
            }
        }
    }
    assert_eq!(controls, walk.controls);
    assert_eq!((tally.messages, tally.empty_fragments), (walk.tally.messages, walk.tally.empty_fragments));
    let control_bytes: usize = controls.iter().map(|(_, payload)| payload.len()).sum();
    if let Some(bytes) = account.payload_bytes {
        // Only a control frame that is still on its way is not in the walk.
        let in_controls_at_most = walk.tally.payload + control_bytes as u64 + 125;
        assert!((walk.tally.payload..=in_controls_at_most).contains(&bytes));
    }
}

fn compare_with_tungstenite(stream: &[u8], account: &Account) {
    let ours: Vec<&Said> = account.said.iter().filter(|said| **said != Said::EmptyFragment).collect();
    let Some(fault) = account.fault else {
        let (mut theirs, error) = ask_tungstenite(stream, 0, usize::MAX);
        assert!(error.is_none(), "tungstenite alone refuses: {error:?}");
        if let Some(Said::Close(Some((1014, _)))) = ours.last()
            && theirs.last() == Some(&violation())
        {
            // tungstenite does not know 1014, which is in IANA's registry.
            theirs.pop();
            assert_eq!(ours[..ours.len() - 1], theirs.iter().collect::<Vec<_>>());
            return;
        }
        assert_eq!(ours, theirs.iter().collect::<Vec<_>>());
        return;
    };
    let (theirs, error) = ask_tungstenite(stream, MESSAGE_BYTES_MAX + 16, ours.len() + 1);
    assert!(theirs.len() >= ours.len(), "tungstenite refuses earlier: {error:?}, we {fault:?}");
    let (same, next) = theirs.split_at(ours.len());
    assert_eq!(ours, same.iter().collect::<Vec<_>>());
    match (next.first(), error) {
        (Some(next), _) => assert!(is_stricter(fault, next), "we alone refuse {next:?}: {fault:?}"),
        (None, Some(error)) => {
            let utf8 = matches!(error, Error::Utf8(_));
            assert!(fault != Fault::NotUtf8 || utf8, "we {fault:?}, tungstenite {error:?}");
        }
        (None, None) => panic!("tungstenite waits for more where we refuse: {fault:?}"),
    }
}
