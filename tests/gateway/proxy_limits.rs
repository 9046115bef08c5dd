//! Limits of both directions through a relay, peers that are silent, and compressed messages, with real servers of npm
//! `ws` and PyPI `websockets` behind it.
use crate::support::backend::{Recorder, switch};
use crate::support::raw::frame;
use crate::support::*;
use flate2::{Compress, Compression, FlushCompress};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

const BOTH: [Peer; 2] = [Peer::Node, Peer::Python];

/// A gateway that relays `/live/*` to this port without tokens.
async fn gateway(port: u16, limits: &str) -> Gateway {
    Gateway::start(&format!("{PLAIN}{OPEN}{}[limits]\n{limits}\n", proxy(&[port]))).await
}

#[tokio::test]
async fn a_client_that_is_paused_loses_nothing() {
    for peer in BOTH {
        let Some(mut backend) = Backend::start(peer).await else { continue };
        let limits = "messages_per_second = 100\nmessage_burst = 5\non_excess = \"pause\"\n\
                      ping_interval = \"20ms\"\npong_timeout = \"5s\"";
        let gateway = gateway(backend.port, limits).await;
        let mut client = gateway.open("/live/x").await;
        let texts: Vec<String> = (0..60).map(|n| format!("message {n}")).collect();
        for text in &texts {
            client.text(text).await;
        }
        for text in &texts {
            assert_eq!(&client.next_text().await, text);
        }
        assert_eq!(client.close(1000, "done").await, Some(1000));
        assert_eq!(backend.event("close").await["code"], 1000);
    }
}

#[tokio::test]
async fn all_sockets_of_a_client_are_paused_by_one_rate() {
    let config = format!(
        "{PLAIN}{SECRET_AUTH}{ECHO}[limits]\nmessages_per_second = 1\nmessage_burst = 3\non_excess = \"pause\"\n"
    );
    let gateway = Gateway::start(&config).await;
    let mut one = gateway.open_as("/echo", &token::good("alice")).await;
    let mut two = gateway.open_as("/echo", &token::good("alice")).await;
    let mut other = gateway.open_as("/echo", &token::good("bob")).await;
    for _ in 0..3 {
        one.text("x").await;
        assert_eq!(one.next_text().await, "x");
    }
    two.text("later").await;
    other.text("at once").await;
    assert_eq!(other.next_text().await, "at once");
    assert_eq!(two.next_text().await, "later");
}

#[tokio::test]
async fn a_backend_is_held_to_its_own_limits() {
    for peer in BOTH {
        for (limits, reason, code) in [
            ("max_message_size = \"1KiB\"", "upstream message too large", 1009),
            ("messages_per_second = 1, message_burst = 3", "upstream rate exceeded", 1008),
            ("bytes_per_second = \"1KiB\"", "upstream rate exceeded", 1008),
        ] {
            let Some(mut backend) = Backend::start(peer).await else { continue };
            let gateway = gateway(backend.port, &format!("from_upstream = {{ {limits} }}")).await;
            let mut client = gateway.open("/live/x").await;
            for _ in 0..4 {
                client.send(Message::binary(vec![7; 1025])).await;
            }
            assert_eq!(client.closes_with(4012).await, reason);
            assert_eq!(backend.event("close").await["code"], code, "{reason}");
        }
    }
}

#[tokio::test]
async fn a_backend_that_is_paused_loses_nothing() {
    for peer in BOTH {
        let Some(backend) = Backend::start(peer).await else { continue };
        let limits = "messages_per_second = 0\n\
                      from_upstream = { messages_per_second = 100, message_burst = 1, on_excess = \"pause\" }";
        let gateway = gateway(backend.port, limits).await;
        let mut client = gateway.open("/live/x").await;
        let texts: Vec<String> = (0..40).map(|n| format!("message {n}")).collect();
        for text in &texts {
            client.text(text).await;
        }
        for text in &texts {
            assert_eq!(&client.next_text().await, text);
        }
        assert_eq!(client.close(1000, "").await, Some(1000));
    }
}

/// The gateway's own pings; those of peers pass, and so do their pongs.
#[tokio::test]
async fn pings_of_the_gateway_go_to_both_sides_and_their_pongs_to_neither() {
    for peer in BOTH {
        let Some(mut backend) = Backend::start(peer).await else { continue };
        let gateway = gateway(backend.port, "ping_interval = \"50ms\"\npong_timeout = \"20s\"").await;
        let mut raw = gateway.raw_ws("/live/x").await;
        let ping = raw.read_frame().await;
        assert_eq!((ping.first, ping.payload.len()), (0x89, 8));
        if peer == Peer::Node {
            let pinged = backend.event("ping").await;
            assert_eq!(pinged["payload"].as_str().unwrap().len(), 16, "{pinged}");
        }
        raw.send(frame(0x8a, &ping.payload)).await;
        raw.send(frame(0x8a, b"unasked")).await;
        raw.send(frame(0x89, b"of the client")).await;
        if peer == Peer::Node {
            assert_eq!(backend.event("pong").await["payload"], hex(b"unasked"));
        }
        // The backend answers both pings: of its pongs only that of the client's comes here.
        loop {
            let frame = raw.read_frame().await;
            match frame.first {
                0x89 => assert_eq!(frame.payload, ping.payload),
                _ => break assert_eq!((frame.first, frame.payload.as_slice()), (0x8a, &b"of the client"[..])),
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed_and_the_backend_told() {
    for peer in BOTH {
        let Some(mut backend) = Backend::start(peer).await else { continue };
        let gateway = gateway(backend.port, "ping_interval = \"100ms\"\npong_timeout = \"200ms\"").await;
        let mut raw = gateway.raw_ws("/live/x").await;
        assert_eq!(raw.expect_close(4014).await, "heartbeat lost");
        assert_eq!(backend.event("close").await["code"], 1001);
    }
}

/// A process that is stopped keeps its connections, and says nothing.
#[tokio::test]
async fn a_backend_that_is_frozen_is_4012() {
    for peer in BOTH {
        let Some(mut backend) = Backend::start(peer).await else { continue };
        let gateway = gateway(backend.port, "ping_interval = \"100ms\"\npong_timeout = \"300ms\"").await;
        let mut client = gateway.open("/live/x").await;
        backend.event("open").await;
        backend.signal("STOP");
        assert_eq!(client.closes_with(4012).await, "upstream does not answer");
        backend.signal("CONT");
        assert_eq!(backend.event("close").await["code"], 1001);
    }
}

/// The client does not read, until all that lies between it and the backend is full.
#[tokio::test]
async fn a_client_that_takes_nothing_is_found() {
    let Some(mut backend) = Backend::start(Peer::Node).await else { return };
    let limits = "ping_interval = \"1s\"\npong_timeout = \"500ms\"\nmessages_per_second = 0\nbytes_per_second = 0\n\
                  max_message_size = \"16MiB\"";
    let gateway = gateway(backend.port, limits).await;
    let message = frame(0x82, &vec![5; 8 << 20]);
    let mut raw = gateway.raw_ws("/live/x").await;
    for _ in 0..4 {
        raw.send(&message).await;
    }
    assert_eq!(backend.event("close").await["code"], 1001);
    gateway.wait_for_log(|line| line.contains("client takes nothing") && line.contains("4014")).await;
}

/// Compresses as a client does.
struct Deflater {
    stream: Compress,
    takeover: bool,
}

impl Deflater {
    fn new(takeover: bool) -> Deflater {
        Deflater { stream: Compress::new(Compression::best(), false), takeover }
    }

    fn payload(&mut self, message: &[u8]) -> Vec<u8> {
        if !self.takeover {
            self.stream.reset();
        }
        let mut out = Vec::with_capacity(message.len() + 100);
        self.stream.compress_vec(message, &mut out, FlushCompress::Sync).unwrap();
        out.truncate(out.len() - 4);
        out
    }
}

/// An upgrade with deflate, the window taken over by the client or not, as the offer has it.
async fn deflating(gateway: &Gateway, takeover: bool) -> RawWs {
    let offer = match takeover {
        true => "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover",
        false => "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover",
    };
    let mut raw = gateway.raw().await;
    let head = raw.upgrade("/live/x", &[offer]).await;
    let answer = head.header("sec-websocket-extensions").expect("no extension was negotiated");
    assert_eq!(answer.contains("client_no_context_takeover"), !takeover, "{answer}");
    raw
}

#[tokio::test]
async fn a_bomb_never_reaches_a_backend_whole() {
    for peer in BOTH {
        for takeover in [false, true] {
            let Some(mut backend) = Backend::start(peer).await else { continue };
            let limits = "max_inflated_size = \"1MiB\"\nping_interval = 0";
            let gateway = gateway(backend.port, limits).await;
            let mut deflater = Deflater::new(takeover);
            let mut raw = deflating(&gateway, takeover).await;
            // Good ones come back, of the limit's size too; the second refers to the first where it may.
            for message in [&b"Hello, hello, hello"[..], b"Hello, hello, hello", &vec![b'x'; 1 << 20]] {
                raw.send(frame(0xc2, &deflater.payload(message))).await;
                let back = raw.read_frame().await;
                assert_eq!(inflate(&back), message, "{peer:?}");
            }
            let bomb = deflater.payload(&vec![0; 64 << 20]);
            assert!(bomb.len() < 64 << 10, "{}", bomb.len());
            raw.send(frame(0xc2, &bomb)).await;
            assert_eq!(raw.expect_close(4005).await, "message too large");
            let close = backend.event("close").await;
            assert!(matches!(close["code"].as_u64(), Some(1001 | 1006)), "{close}");
            assert_eq!(close["sizes"], json!([19, 19, 1 << 20]));
        }
    }
}

/// What a backend sent, which takes no window over.
fn inflate(frame: &raw::Frame) -> Vec<u8> {
    if frame.first & 0x40 == 0 {
        return frame.payload.clone();
    }
    let mut plain = Vec::with_capacity(2 << 20);
    let tail = [frame.payload.as_slice(), &[0, 0, 0xff, 0xff]].concat();
    flate2::Decompress::new(false).decompress_vec(&tail, &mut plain, flate2::FlushDecompress::Sync).unwrap();
    plain
}

#[tokio::test]
async fn a_bomb_in_fragments_is_cut_and_broken_data_is_1007() {
    for peer in BOTH {
        for takeover in [false, true] {
            let Some(mut backend) = Backend::start(peer).await else { continue };
            let gateway = gateway(backend.port, "max_inflated_size = \"64KiB\"").await;
            let bomb = Deflater::new(takeover).payload(&vec![0; 8 << 20]);
            let mut raw = deflating(&gateway, takeover).await;
            raw.send(frame(0x42, &bomb[..10])).await;
            raw.send(frame(0x89, b"between")).await;
            raw.send(frame(0x00, b"")).await;
            raw.send(frame(0x80, &bomb[10..])).await;
            loop {
                let frame = raw.read_frame().await;
                if frame.first == 0x88 {
                    break assert_eq!(frame.close().map(|(code, _)| code), Some(4005));
                }
            }
            let close = backend.event("close").await;
            assert!(matches!(close["code"].as_u64(), Some(1001 | 1006)) && close["sizes"] == json!([]), "{close}");
            let mut raw = deflating(&gateway, takeover).await;
            raw.send(frame(0xc1, &[0xff; 40])).await;
            raw.expect_close(1007).await;
            let close = backend.event("close").await;
            assert!(close["code"] == 1001 && close["sizes"] == json!([]), "{close}");
        }
    }
}

/// The answer to an upgrade that takes the deflate which was offered.
fn switch_with_deflate(head: &str) -> Vec<u8> {
    let mut answer = switch(head);
    answer.truncate(answer.len() - 2);
    [&answer[..], b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"].concat()
}

#[tokio::test]
async fn compressed_messages_that_are_measured_pass_byte_for_byte() {
    let backend = Recorder::start(switch_with_deflate).await;
    let gateway = gateway(backend.port, "max_inflated_size = \"1MiB\"\nping_interval = 0").await;
    let mut raw = gateway.raw().await;
    raw.upgrade("/live/x", &["Sec-WebSocket-Extensions: permessage-deflate"]).await;
    let mut deflater = Deflater::new(true);
    let long = deflater.payload(&b"some words that come again, ".repeat(1000));
    let sent = [
        frame(0xc1, &deflater.payload(b"Hello")),
        frame(0x42, &long[..7]),
        frame(0x89, b"ping"),
        frame(0x80, &long[7..]),
        frame(0x82, &[7; 300]),
        frame(0xc2, &deflater.payload(&vec![3; 1 << 20])),
    ];
    // The window of `long` was made first.
    let sent = [&sent[1..4], &sent[..1], &sent[4..]].concat().concat();
    for byte in &sent[..30] {
        raw.send([*byte]).await;
    }
    raw.send(&sent[30..]).await;
    backend.gets(&sent).await;
}
