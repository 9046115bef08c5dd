//! Messages held to their inflated size.
use super::*;
use flate2::{Compress, Compression, FlushCompress};

/// At most 1,000 bytes of a message.
fn limited() -> Limits {
    Limits { max_inflated_size: 1000, ..limits() }
}

/// Compresses messages as a client does; with a new one for each there is no context takeover.
struct Deflater(Compress);

impl Deflater {
    fn new() -> Deflater {
        Deflater(Compress::new(Compression::best(), false))
    }

    fn payload(&mut self, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.len() + 100);
        self.0.compress_vec(message, &mut out, FlushCompress::Sync).unwrap();
        out.truncate(out.len() - 4);
        out
    }
}

/// A frame whose first byte is this.
fn first(byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = masked(Opcode::Binary, payload).to_vec();
    bytes[0] = byte;
    bytes
}

const DEFLATED: u8 = 0xC2;
const BEGINS: u8 = 0x42;
const GOES_ON: u8 = 0x00;
const ENDS: u8 = 0x80;

/// Runs it with the window taken over, and without.
async fn followed(takeover: bool, limits: Limits, ends: impl AsyncFnOnce(Ends)) -> Ended {
    let (client, client_wire) = duplex(1 << 20);
    let (backend, backend_wire) = duplex(1 << 20);
    let link = link_with(Wire::Pipe(client_wire), Wire::Pipe(backend_wire), &limits, (Rsv::Deflate, takeover));
    let handle = link.seat.handle.clone();
    let both = join(link.run(), ends(Ends { client, backend, handle }));
    timeout(LONG, both).await.expect("neither side may hang").0
}

/// The client is closed with this code. The backend gets the first of the frames and not the end of the last: what is
/// missing is cut off, or a Close stands between frames in its place.
async fn refused(takeover: bool, frames: &[Vec<u8>], code: u16) {
    let sent = frames.concat();
    for split in [1, 7, 100, usize::MAX] {
        let ended = followed(takeover, limited(), async |mut ends| {
            for part in sent.chunks(split.min(sent.len())) {
                if ends.client.write_all(part).await.is_err() {
                    break;
                }
                settle().await;
            }
            let said = rest(&mut ends.client).await;
            assert_eq!(said[2..4], code.to_be_bytes(), "{}", String::from_utf8_lossy(&said));
            let got = rest(&mut ends.backend).await;
            let same = got.iter().zip(&sent).take_while(|(got, sent)| got == sent).count();
            let mut borders = (0..frames.len()).map(|n| frames[..n].concat().len());
            let told = got.len() == same + 8 && got[same] == 0x88 && borders.any(|border| border == same);
            assert!(same < sent.len() && (got.len() == same || told), "{got:?} of {sent:?}, split {split}");
            assert!(same >= frames[0].len(), "the first was good");
        })
        .await;
        assert_eq!(ended.close.number, Some(code));
    }
}

#[tokio::test(start_paused = true)]
async fn good_messages_pass_as_they_are() {
    for takeover in [false, true] {
        let mut deflater = Deflater::new();
        let mut payload = |message: &[u8]| {
            if !takeover {
                deflater = Deflater::new();
            }
            deflater.payload(message)
        };
        let words: Vec<u8> = (1..1000_u32).map(|n| (n.wrapping_mul(n).wrapping_mul(0x9E37_79B9) >> 24) as u8).collect();
        // Compressed in the order in which they are sent.
        let [zeros, long, again] = [&[0; 1000][..], &words, &words].map(&mut payload);
        // Where that is allowed, the last refers to the one before it.
        assert_eq!(again.len() < long.len() / 2, takeover, "{} {}", again.len(), long.len());
        let sent = [
            first(DEFLATED, &zeros),
            first(0x82, &[3; 1000]),
            first(BEGINS, &long[..5]),
            first(0x89, b"ping"),
            first(GOES_ON, b""),
            first(GOES_ON, &long[5..6]),
            first(ENDS, &long[6..]),
            first(DEFLATED, &[0x00]),
            first(DEFLATED, b""),
            first(DEFLATED, &again),
            first(0x88, b""),
        ];
        let sent = sent.concat();
        for split in 1..sent.len() {
            let ended = followed(takeover, limited(), async |mut ends| {
                ends.client.write_all(&sent[..split]).await.unwrap();
                settle().await;
                ends.client.write_all(&sent[split..]).await.unwrap();
                expect(&mut ends.backend, &sent).await;
            })
            .await;
            assert_eq!((ended.close.by, ended.traffic.messages_in), (By::Client, 6), "{:?}", ended.close);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_bomb_does_not_reach_the_backend_whole() {
    for takeover in [false, true] {
        for message in [vec![0; 1001], vec![0; 30_000_000], vec![b'a'; 5000]] {
            let mut deflater = Deflater::new();
            let fine = first(DEFLATED, &deflater.payload(b"fine"));
            if !takeover {
                deflater = Deflater::new();
            }
            let bomb = deflater.payload(&message);
            let (one, two) = bomb.split_at(bomb.len() / 2);
            refused(takeover, &[fine.clone(), first(DEFLATED, &bomb)], 4005).await;
            let parts = [first(BEGINS, one), first(0x89, b"between"), first(ENDS, two)];
            refused(takeover, &[&[fine][..], &parts].concat(), 4005).await;
        }
        refused(takeover, &[vec![], first(0x82, &[1; 1001])], 4005).await;
        refused(takeover, &[first(0x02, &[1; 999]), first(GOES_ON, &[1; 1]), first(ENDS, &[1; 1])], 4005).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_inflate_is_1007() {
    for takeover in [false, true] {
        refused(takeover, &[first(0x82, b"fine"), first(DEFLATED, &[0xFF; 30])], 1007).await;
        // Each final block would start the inflater anew.
        refused(takeover, &[vec![], first(DEFLATED, &[0x03, 0x00].repeat(100))], 1007).await;
    }
    refused(false, &[vec![], first(DEFLATED, &Deflater::new().payload(b"cut off")[..4])], 1007).await;
    // The window is not taken over: the second message refers to nothing.
    let mut deflater = Deflater::new();
    let words = b"words that come again, ".repeat(3);
    let frames = [deflater.payload(&words), deflater.payload(&words)].map(|payload| first(DEFLATED, &payload));
    refused(false, &frames, 1007).await;
}

#[tokio::test(start_paused = true)]
async fn final_blocks_end_no_stream() {
    // RFC 7692, sections 7.2.3.4 and 7.2.3.5: a final block and one more, and two blocks.
    let final_block = [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00];
    let two_blocks = [0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00];
    for takeover in [false, true] {
        let payloads = [&final_block[..], &two_blocks, &final_block[..7], &two_blocks];
        let sent = payloads.map(|payload| first(DEFLATED, payload)).concat();
        for split in 1..sent.len() {
            let limits = Limits { max_inflated_size: 5, ..limits() };
            let ended = followed(takeover, limits, async |mut ends| {
                ends.client.write_all(&sent[..split]).await.unwrap();
                settle().await;
                ends.client.write_all(&sent[split..]).await.unwrap();
                expect(&mut ends.backend, &sent).await;
            })
            .await;
            assert_eq!(ended.traffic.messages_in, 4, "{:?}", ended.close);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_deflate_the_header_tells_the_size() {
    for (extensions, head) in [(Rsv::None, 0x82), (Rsv::Any, 0x82), (Rsv::Any, 0xC2)] {
        let ended = relayed(limited(), extensions, async |mut ends| {
            let length = if head == 0x82 { 1001 } else { 10 };
            ends.client.write_all(&first(head, &vec![0; length])[..4]).await.unwrap();
            assert!(rest(&mut ends.client).await.len() > 4);
            assert_eq!(read_masked(&mut ends.backend).await, (0x88, close(1001, "")));
        })
        .await;
        // An extension that nobody here knows may do anything to a message.
        let code = if head == 0x82 { 4005 } else { 1002 };
        assert_eq!(ended.close.number, Some(code));
    }
}
