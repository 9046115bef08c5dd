//! The relay, with real servers of npm `ws` and PyPI `websockets` behind it.
use crate::support::backend::{Recorder, switch, unused_port};
use crate::support::raw::{frame, header, upgrade_head};
use crate::support::*;
use tokio_tungstenite::tungstenite::{Error, Message};

const BOTH: [Peer; 2] = [Peer::Node, Peer::Python];

/// A gateway that relays `/live/*` to these ports without tokens; more of the configuration may follow.
async fn gateway(ports: &[u16], limits: &str) -> Gateway {
    Gateway::start(&format!("{PLAIN}{OPEN}{}[limits]\n{limits}\n", proxy(ports))).await
}

#[tokio::test]
async fn messages_of_every_kind_pass_both_ways() {
    for peer in BOTH {
        let Some(mut backend) = Backend::start(peer).await else { continue };
        let gateway = gateway(&[backend.port], "").await;
        let mut client = gateway.open("/live/a/b?x=1&y=%20z").await;
        let open = backend.event("open").await;
        assert_eq!(open["path"], "/live/a/b?x=1&y=%20z");
        client.text("gr\u{fc}\u{df} dich \u{1f600}").await;
        assert_eq!(client.next_text().await, "gr\u{fc}\u{df} dich \u{1f600}");
        client.text("").await;
        assert_eq!(client.next_text().await, "");
        client.send(Message::binary(vec![0, 255, 128])).await;
        assert_eq!(client.next_binary().await, [0, 255, 128]);
        client.send(Message::Ping("between".into())).await;
        assert_eq!(client.next_pong().await, b"between");
        assert_eq!(client.close(1000, "done").await, Some(1000));
        let close = backend.event("close").await;
        assert_eq!((&close["code"], &close["reason"]), (&1000.into(), &"done".into()), "{close}");
    }
}

#[tokio::test]
async fn large_messages_arrive_intact() {
    for peer in BOTH {
        let Some(backend) = Backend::start(peer).await else { continue };
        let gateway = gateway(&[backend.port], "max_message_size = \"16MiB\"\nbytes_per_second = 0").await;
        let mut client = gateway.open("/live/large").await;
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        for size in [65_535, 65_536, 1 << 20, 8 << 20] {
            let payload: Vec<u8> = std::iter::repeat_with(&mut noise).take(size).collect();
            client.send(Message::binary(payload.clone())).await;
            assert!(client.next_binary().await == payload, "{size} bytes differ ({peer:?})");
        }
    }
}

#[tokio::test]
async fn two_servers_take_turns() {
    for peer in BOTH {
        let (Some(mut one), Some(mut two)) = (Backend::start(peer).await, Backend::start(peer).await) else { continue };
        let gateway = gateway(&[one.port, two.port], "").await;
        let mut clients = Vec::new();
        for n in 0..6 {
            clients.push(gateway.open(&format!("/live/{n}")).await);
        }
        let mut paths = [Vec::new(), Vec::new()];
        for (backend, paths) in [&mut one, &mut two].into_iter().zip(&mut paths) {
            for _ in 0..3 {
                paths.push(backend.event("open").await["path"].as_str().unwrap().to_owned());
            }
        }
        paths.sort();
        assert_eq!(paths, [["/live/0", "/live/2", "/live/4"], ["/live/1", "/live/3", "/live/5"]]);
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_passed_over() {
    let Some(mut backend) = Backend::start(Peer::Node).await else { return };
    let gateway = gateway(&[unused_port().await, backend.port], "").await;
    for _ in 0..4 {
        let mut client = gateway.open("/live/x").await;
        backend.event("open").await;
        client.text("up").await;
        assert_eq!(client.next_text().await, "up");
    }
}

#[tokio::test]
async fn the_subprotocol_is_the_backend_s_choice() {
    for peer in BOTH {
        let Some(backend) = Backend::start(peer).await else { continue };
        let gateway = gateway(&[backend.port], "").await;
        let offered = [("Sec-WebSocket-Protocol", "chat.v1, chat.v2")];
        assert_eq!(gateway.open_with("/live/x", &offered).await.protocol(), Some("chat.v2"));
        let offered = [("Sec-WebSocket-Protocol", "chat.v1, chat.v3")];
        assert_eq!(gateway.open_with("/live/x", &offered).await.protocol(), Some("chat.v1"));
        assert_eq!(gateway.open("/live/x").await.protocol(), None);
    }
}

#[tokio::test]
async fn permessage_deflate_is_negotiated_end_to_end() {
    for peer in BOTH {
        let Some(mut backend) = Backend::start(peer).await else { continue };
        let gateway = gateway(&[backend.port], "").await;
        let mut raw = gateway.raw().await;
        let head = raw.upgrade("/live/x", &["Sec-WebSocket-Extensions: permessage-deflate"]).await;
        let extensions = head.header("sec-websocket-extensions").expect("no extension was negotiated");
        assert!(extensions.starts_with("permessage-deflate"), "{extensions}");
        assert!(backend.event("open").await["extensions"].as_str().unwrap().contains("permessage-deflate"));
        // "Hello" as in RFC 7692, 7.2.3.1.
        raw.send(frame(0xc1, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00])).await;
        let back = raw.read_frame().await;
        assert_eq!(back.first, 0xc1, "{back:?}");
        let mut plain = Vec::new();
        let mut inflater = flate2::Decompress::new(false);
        let tail = [back.payload.as_slice(), &[0, 0, 0xff, 0xff]].concat();
        plain.reserve(100);
        inflater.decompress_vec(&tail, &mut plain, flate2::FlushDecompress::Sync).unwrap();
        assert_eq!(plain, b"Hello");
        let mut raw = gateway.raw().await;
        assert_eq!(raw.upgrade("/live/x", &[]).await.header("sec-websocket-extensions"), None);
        raw.send(header(0xc1, 7)).await;
        raw.expect_close(1002).await;
    }
}

#[tokio::test]
async fn a_backend_s_refusal_is_passed_on_as_it_is() {
    for peer in BOTH {
        let Some(backend) = Backend::start(peer).await else { continue };
        let gateway = gateway(&[backend.port], "").await;
        for status in [403, 401, 404, 503] {
            let mut raw = gateway.raw().await;
            raw.send(upgrade_head(&format!("/live/refuse-{status}"), &[])).await;
            let head = raw.read_head().await;
            assert_eq!(head.status, status, "{head:?}");
            assert_eq!(head.header("x-reason"), Some("told so"), "{head:?}");
            assert_eq!(raw.read_body(&head).await, b"not here");
        }
    }
}

#[tokio::test]
async fn closes_pass_both_ways_with_code_and_reason() {
    for peer in BOTH {
        let Some(mut backend) = Backend::start(peer).await else { continue };
        let gateway = gateway(&[backend.port], "").await;
        for (code, reason) in [(1000, ""), (1001, "away"), (3000, "x"), (4321, "my own")] {
            let mut client = gateway.open("/live/x").await;
            assert_eq!(client.close(code, reason).await, Some(code));
            let close = backend.event("close").await;
            assert_eq!((&close["code"], &close["reason"]), (&code.into(), &reason.into()), "{close}");
        }
        for (code, reason) in [(1000, ""), (1011, "broken"), (4567, "why not")] {
            let mut client = gateway.open("/live/x").await;
            client.text(&format!("close {code} {reason}")).await;
            assert_eq!(client.closed().await, (code, reason.to_owned()));
            assert_eq!(backend.event("close").await["code"], code);
        }
    }
}

#[tokio::test]
async fn a_close_without_a_code_stays_without_one() {
    let Some(mut backend) = Backend::start(Peer::Node).await else { return };
    let gateway = gateway(&[backend.port], "").await;
    let mut raw = gateway.raw_ws("/live/x").await;
    raw.send(frame(0x88, b"")).await;
    assert_eq!(raw.read_frame().await, raw::Frame { first: 0x88, payload: Vec::new() });
    assert_eq!(backend.event("close").await["code"], 1005, "what ws says where there was none");
}

#[tokio::test]
async fn a_backend_that_vanishes_is_4012() {
    for peer in BOTH {
        let Some(mut backend) = Backend::start(peer).await else { continue };
        let gateway = gateway(&[backend.port], "").await;
        let mut client = gateway.open("/live/x").await;
        backend.event("open").await;
        backend.kill().await;
        client.closes_with(4012).await;
    }
}

#[tokio::test]
async fn a_client_that_vanishes_closes_the_backend_with_1001() {
    for peer in BOTH {
        let Some(mut backend) = Backend::start(peer).await else { continue };
        let gateway = gateway(&[backend.port], "").await;
        let client = gateway.open("/live/x").await;
        backend.event("open").await;
        drop(client);
        assert_eq!(backend.event("close").await["code"], 1001);
    }
}

#[tokio::test]
async fn no_backend_at_all_is_4012_or_a_status() {
    let port = unused_port().await;
    let gateway = gateway(&[port], "").await;
    gateway.open("/live/x").await.closes_with(4012).await;
    let auth = "[auth]\nrequired = false\nsources = []\non_reject = \"http\"\n";
    let by_status = Gateway::start(&format!("{PLAIN}{auth}{}", proxy(&[port]))).await;
    let error = Client::try_open(by_status.tcp().await, "/live/x", &[]).await.err().map(|e| *e);
    assert!(matches!(&error, Some(Error::Http(r)) if r.status() == 502), "{error:?}");
}

#[tokio::test]
async fn limits_hold_for_what_a_client_sends_and_not_for_the_backend() {
    let Some(mut backend) = Backend::start(Peer::Node).await else { return };
    let gateway =
        gateway(&[backend.port], "max_message_size = \"1KiB\"\nmessages_per_second = 1\nmessage_burst = 5").await;
    let mut raw = gateway.raw_ws("/live/x").await;
    raw.send(header(0x82, 1 << 62)).await;
    raw.expect_close(4005).await;
    let close = backend.event("close").await;
    assert!(matches!(close["code"].as_u64(), Some(1001 | 1006 | 4005)), "{close}");
    let mut client = gateway.open("/live/x").await;
    for _ in 0..1000 {
        if !client.try_send(Message::text("x")).await {
            break;
        }
    }
    client.closes_with(4004).await;
}

#[tokio::test]
async fn violations_never_reach_the_backend_whole() {
    let backend = Recorder::start(switch).await;
    let gateway = gateway(&[backend.port], "").await;
    for (bytes, code) in [
        (vec![0x81, 0x05], 1002),
        (header(0x83, 5), 1002),
        (header(0xa1, 5), 1002),
        (header(0x09, 0), 1002),
        (header(0x89, 126), 1002),
        (header(0x80, 3), 1002),
        (vec![0x81, 0xfe, 0, 5, 0, 0, 0, 0], 1002),
        (frame(0x88, &[3]), 1002),
        // Text is the backend's to judge: the relay reads no payload. The reason of a Close it must read.
        (frame(0x88, &[0x03, 0xe8, 0xff]), 1007),
    ] {
        let mut raw = gateway.raw_ws("/live/x").await;
        raw.send(&bytes).await;
        raw.expect_close(code).await;
    }
}

#[tokio::test]
async fn frames_are_forwarded_byte_for_byte_with_their_masks() {
    let backend = Recorder::start(switch).await;
    let gateway = gateway(&[backend.port], "ping_interval = \"0s\"").await;
    let mut raw = gateway.raw_ws("/live/x").await;
    let sent = [
        frame(0x01, b"frag"),
        frame(0x89, b"ping"),
        frame(0x00, b""),
        frame(0x80, b"ments"),
        frame(0x8a, b"pong"),
        frame(0x82, &[7; 300]),
    ]
    .concat();
    for byte in &sent[..20] {
        raw.send([*byte]).await;
    }
    raw.send(&sent[20..]).await;
    backend.gets(&sent).await;
}

#[tokio::test]
async fn broken_frames_of_a_backend_close_the_client() {
    let backend = Recorder::start(|head| [switch(head).as_slice(), &[0x83, 1, b'x']].concat()).await;
    let gateway = gateway(&[backend.port], "").await;
    let mut raw = gateway.raw_ws("/live/x").await;
    let close = raw.read_frame().await.close().expect("no Close");
    assert!(matches!(close.0, 1002 | 1011 | 4012), "{close:?}");
}

#[tokio::test]
async fn frames_that_come_with_the_backend_s_head_are_not_lost() {
    let backend = Recorder::start(|head| [switch(head).as_slice(), &[0x81, 2, b'h', b'i']].concat()).await;
    let gateway = gateway(&[backend.port], "").await;
    let mut raw = gateway.raw_ws("/live/x").await;
    assert_eq!(raw.read_frame().await, raw::Frame { first: 0x81, payload: b"hi".to_vec() });
}

#[tokio::test]
async fn codes_that_must_not_go_on_the_wire_are_not_passed_on() {
    for code in [1005_u16, 1006, 1015] {
        let [high, low] = code.to_be_bytes();
        assert_eq!(high, 3);
        let answer: fn(&str) -> Vec<u8> = match low {
            0xed => |head| [switch(head).as_slice(), &[0x88, 2, 3, 0xed]].concat(),
            0xee => |head| [switch(head).as_slice(), &[0x88, 2, 3, 0xee]].concat(),
            _ => |head| [switch(head).as_slice(), &[0x88, 2, 3, 0xf7]].concat(),
        };
        let backend = Recorder::start(answer).await;
        let gateway = gateway(&[backend.port], "").await;
        let mut raw = gateway.raw_ws("/live/x").await;
        let frame = raw.read_frame().await;
        let (passed, _) = frame.close().unwrap_or((1005, String::new()));
        assert!(frame.payload.is_empty() || !matches!(passed, 1005 | 1006 | 1015), "{frame:?}");
    }
}
