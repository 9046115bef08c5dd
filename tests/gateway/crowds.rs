//! Many at once: several shards, large rooms, members that do not read, members that compress.
use crate::rooms::session;
use crate::support::token::good;
use crate::support::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NO_RATES: &str = "[limits]\nmessages_per_second = 0\nbytes_per_second = 0\nconnections_per_client = 0\nconnections_per_ip = 0\n\
     handshakes_per_second = 0\nmax_message_size = \"2MiB\"\nmax_backlog = \"4MiB\"\n";

async fn gateway(shards: usize, more: &str) -> Gateway {
    let server = format!("[server]\nshards = {shards}\n");
    Gateway::start(&format!("{server}{PLAIN}{SECRET_AUTH}{ROOMS}{ADMIN}{NO_RATES}{more}")).await
}

/// The value of a metric without labels.
pub async fn metric(gateway: &Gateway, name: &str) -> u64 {
    let (_, text) = gateway.admin_get("/metrics").await;
    let line = text.lines().find(|l| l.split(' ').next() == Some(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Sends without waiting for answers.
async fn post(client: &mut Client, kind: &str, id: &str, payload: Value) {
    client.json(json!({"type": kind, "payload": payload, "metadata": {"message_id": id}})).await;
}

/// Joins, publishes and leaves without waiting, a few times over; then checks everything that came.
async fn come_and_go(mut client: Client, name: String) -> Vec<(String, u64, String)> {
    const ROUNDS: usize = 8;
    const MESSAGES: usize = 6;
    for round in 0..ROUNDS {
        post(&mut client, "join_room", "join", json!({"room_id": "a"})).await;
        for n in 0..MESSAGES {
            let text = format!("{name}-{round}-{n}");
            post(&mut client, "message", &text, json!({"room_id": "a", "message": text})).await;
        }
        post(&mut client, "leave_room", "leave", json!({"room_id": "a"})).await;
    }
    let mut seen = Vec::new();
    let mut position: Option<(String, u64)> = None;
    let mut left = 0;
    let (mut joined, mut sent) = (0, 0);
    while left < ROUNDS || sent < ROUNDS * MESSAGES {
        let message = client.next_json().await;
        let payload = &message["payload"];
        let place = |at: &Value| (at["epoch"].as_str().unwrap().to_owned(), at["offset"].as_u64().unwrap());
        match message["type"].as_str().unwrap() {
            "room_joined" => {
                assert_eq!((position.replace(place(&payload["position"])), joined), (None, left), "{message}");
                joined += 1;
            }
            "room_left" => {
                assert!(position.take().is_some(), "{message}");
                left += 1;
            }
            "chat_message" => {
                let known = position.as_mut().unwrap_or_else(|| panic!("outside of a membership: {message}"));
                let (epoch, offset) = place(&payload["position"]);
                assert_eq!((&epoch, offset), (&known.0, known.1 + 1), "{message}");
                known.1 = offset;
                seen.push((epoch, offset, payload["message"].as_str().unwrap().to_owned()));
            }
            "message_sent" => sent += 1,
            "presence_update" => assert_ne!(payload["client_id"], name, "{message}"),
            _ => panic!("{message}"),
        }
    }
    seen
}

#[tokio::test]
async fn whoever_comes_and_goes_on_whatever_shard_sees_one_order_without_a_gap() {
    let gateway = gateway(4, "").await;
    let mut keeper = session(&gateway, "keeper").await;
    keeper.join("a").await;
    let mut clients = Vec::new();
    for i in 0..12 {
        let name = format!("client-{i}");
        let client = session(&gateway, &name).await;
        clients.push(tokio::spawn(come_and_go(client, name)));
    }
    let mut order = Vec::new();
    while order.len() < 12 * 8 * 6 {
        let chat = keeper.skip_to("chat_message").await;
        let at = &chat["payload"]["position"];
        assert_eq!(at["offset"], order.len() + 1, "{chat}");
        order.push(chat["payload"]["message"].as_str().unwrap().to_owned());
    }
    for client in clients {
        for (_, offset, message) in within(client).await.unwrap() {
            assert_eq!(order[offset as usize - 1], message);
        }
    }
    keeper.close(1000, "").await;
    eventually(|| async {
        let left = (metric(&gateway, "wsgate_rooms").await, metric(&gateway, "wsgate_room_members").await);
        (left == (0, 0)).then_some(())
    })
    .await;
}

/// Sockets that are lost at any moment of a join.
#[tokio::test]
async fn no_ghost_is_left_of_sessions_that_die_while_they_join() {
    let gateway = gateway(4, "").await;
    for i in 0..200 {
        let mut client = session(&gateway, &format!("client-{}", i % 7)).await;
        for n in 0..i % 5 {
            post(&mut client, "join_room", "join", json!({"room_id": format!("room-{n}")})).await;
            post(&mut client, "leave_room", "leave", json!({"room_id": format!("room-{n}")})).await;
            post(&mut client, "join_room", "join", json!({"room_id": format!("room-{n}")})).await;
        }
        drop(client);
    }
    eventually(|| async {
        let left = (metric(&gateway, "wsgate_rooms").await, metric(&gateway, "wsgate_room_members").await);
        (left == (0, 0)).then_some(())
    })
    .await;
}

pub fn resident_mib(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn one_of_300_that_never_reads_costs_the_others_nothing() {
    const MESSAGES: u64 = 110;
    let limits = NO_RATES.replace("4MiB", "128KiB").replace("2MiB", "128KiB");
    let config = format!("[server]\nshards = 2\n{PLAIN}{SECRET_AUTH}{ROOMS}{limits}[rooms]\npresence = false\n");
    let gateway = Gateway::start(&config).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let tcp = within(socket.connect(gateway.address(0).parse().unwrap())).await.unwrap();
    let bearer = format!("Bearer {}", good("stuck"));
    let mut stuck = Client::open(tcp, "/ws", &[("Authorization", &bearer)]).await;
    stuck.join("a").await;
    let mut readers = Vec::new();
    let mut publisher = session(&gateway, "publisher").await;
    publisher.join("a").await;
    for i in 0..300 {
        let mut reader = session(&gateway, &format!("reader-{i}")).await;
        reader.join("a").await;
        readers.push(tokio::spawn(async move {
            for offset in 1..=MESSAGES {
                let chat = reader.skip_to("chat_message").await;
                assert_eq!(chat["payload"]["position"]["offset"], offset);
            }
        }));
    }
    let before = resident_mib(&gateway);
    let text = "x".repeat(30_000);
    for _ in 0..MESSAGES {
        publisher.publish("a", json!(text)).await;
    }
    let after = resident_mib(&gateway);
    for reader in readers {
        within(reader).await.unwrap();
    }
    // 3 MB went to each of them.
    assert!(after < before + 100, "from {before} MiB to {after} MiB");
    let line = gateway.wait_for_log(|l| l.contains("\"stuck\"") && l.contains("session ended")).await;
    assert!(line.contains("4010"), "{line}");
}

/// Every size around the borders of frames and of what is compressed.
fn texts() -> Vec<String> {
    let mut texts: Vec<String> = [0, 1, 20, 100, 126, 200, 300, 1000, 65_000, 66_000, 300_000]
        .iter()
        .map(|length| "compressible ".chars().cycle().take(*length).collect())
        .collect();
    texts.push("\u{1f600}\u{e9}\u{20ac} \"\\/\n\u{1}".repeat(200));
    // Nothing that deflate makes smaller.
    texts.push((0..400).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect());
    texts
}

#[tokio::test]
async fn members_with_and_without_compression_read_the_same() {
    let gateway = gateway(2, "").await;
    let mut publisher = session(&gateway, "publisher").await;
    publisher.join("peers").await;
    let url = format!("ws://{}/ws", gateway.address(0));
    let mut peers = Vec::new();
    for peer in [Peer::Node, Peer::Python] {
        if peer.command("client").is_none() {
            continue;
        }
        let name = format!("{peer:?}");
        let (url, token) = (url.clone(), good(&name));
        peers.push(tokio::spawn(async move {
            peer.client(&url, "listen", &[("WSGATE_TEST_TOKEN", &token)]).await.unwrap()
        }));
        assert_eq!(publisher.skip_to("presence_update").await["payload"]["client_id"], name);
    }
    let texts = texts();
    for text in &texts {
        publisher.publish("peers", json!(text)).await;
        assert_eq!(publisher.skip_to("chat_message").await["payload"]["message"], json!(text));
    }
    publisher.publish("peers", Value::Null).await;
    for peer in peers {
        let heard = within(peer).await.unwrap();
        assert!(heard["extensions"].to_string().contains("permessage-deflate"), "{}", heard["extensions"]);
        let sum = |text: &String| text.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let expected: Vec<_> = texts.iter().map(|text| json!([text.len(), sum(text)])).collect();
        assert_eq!(heard["texts"], json!(expected));
        assert_eq!(heard["close"], 1000);
    }
}

#[tokio::test]
async fn nesting_without_end_is_refused_where_it_is_read_and_no_matter_elsewhere() {
    let gateway = gateway(1, "").await;
    let mut alice = session(&gateway, "alice").await;
    alice.join("a").await;
    let deep = "[".repeat(500_000) + &"]".repeat(500_000);
    let open = "[".repeat(1 << 20);
    for broken in [
        format!(r#"{{"type":"message","payload":{{"room_id":"a","message":{deep}}}}}"#),
        format!(r#"{{"type":"message","payload":{{"room_id":"a","message":{open}"#),
        format!(r#"{{"type":"message","payload":{deep}}}"#),
        format!(r#"{{"type":{deep}}}"#),
        format!(r#"{{"type":"join_room","payload":{{"room_id":{deep}}}}}"#),
        format!(r#"{{"type":"presence_query","payload":{{"client_ids":{deep}}}}}"#),
        open,
    ] {
        alice.text(&broken).await;
        assert_eq!(alice.expect("error").await["payload"]["code"], 4006);
    }
    alice.text(&format!(r#"{{"type":"ping","else":{deep},"payload":{{"else":{deep}}}}}"#)).await;
    alice.expect("pong").await;
}

/// Frames that are larger than what TLS takes at once, to a client that reads them late.
#[tokio::test]
async fn large_frames_reach_a_late_reader_over_tls() {
    let limits = NO_RATES.replace("4MiB", "64MiB");
    let gateway = Gateway::start(&format!("{TLS}{PLAIN}{SECRET_AUTH}{ROOMS}{limits}compression = false\n")).await;
    let plain = within(tokio::net::TcpStream::connect(gateway.address(1))).await.unwrap();
    let as_client = |name: &str| format!("Bearer {}", good(name));
    let mut publisher = Client::open(plain, "/ws", &[("Authorization", &as_client("publisher"))]).await;
    let mut late = Client::open(gateway.tls(0).await, "/ws", &[("Authorization", &as_client("late"))]).await;
    late.join("a").await;
    publisher.join("a").await;
    let text = |n: u8| char::from(b'a' + n).to_string().repeat(1_000_000 + usize::from(n));
    for n in 0..20 {
        publisher.publish("a", json!(text(n))).await;
    }
    for n in 0..20 {
        assert_eq!(late.skip_to("chat_message").await["payload"]["message"], json!(text(n)));
    }
    assert_eq!(late.close(1000, "").await, Some(1000));
}

/// A stream through the relay, both ways at once, with a backend that holds back what is not read.
#[tokio::test]
async fn a_long_stream_through_a_relay_takes_little_memory() {
    const MESSAGES: usize = 48;
    const SIZE: usize = 1 << 20;
    for (kind, listeners) in [(Peer::Python, TLS), (Peer::Node, PLAIN)] {
        let Some(backend) = Backend::start(kind).await else { continue };
        let limits = NO_RATES.replace("max_message_size = \"2MiB\"", "max_message_size = 0");
        let gateway = Gateway::start(&format!("{listeners}{OPEN}{}{limits}{ADMIN}", proxy(&[backend.port]))).await;
        let mut stream: Box<dyn client::Pipe> = match listeners {
            TLS => Box::new(gateway.tls(0).await),
            _ => Box::new(gateway.tcp().await),
        };
        within(stream.write_all(raw::upgrade_head("/live/x", &[]).as_bytes())).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(stream.read_u8()).await.unwrap());
        }
        let (mut reader, mut writer) = tokio::io::split(stream);
        let sending = tokio::spawn(async move {
            // Zeros, but for the first byte: the message's number.
            let mut frame = raw::frame(0x82, &[0; SIZE]);
            for n in 0..MESSAGES {
                frame[14] = n as u8 ^ raw::MASK[0];
                within(writer.write_all(&frame)).await.unwrap();
                within(writer.flush()).await.unwrap();
            }
            writer
        });
        let before = resident_mib(&gateway);
        let mut most = before;
        let zeros = vec![0; SIZE];
        for n in 0..MESSAGES {
            let mut message = vec![0; SIZE + 10];
            within(reader.read_exact(&mut message)).await.unwrap();
            assert_eq!(message[..10], [0x82, 127, 0, 0, 0, 0, 0, 0x10, 0, 0]);
            assert_eq!(usize::from(message[10]), n);
            assert!(message[11..] == zeros[1..], "message {n}");
            most = most.max(resident_mib(&gateway));
        }
        assert!(most < before + 30, "{kind:?}: from {before} MiB to {most} MiB");
        let mut writer = within(sending).await.unwrap();
        within(writer.write_all(&raw::frame(0x88, &1000u16.to_be_bytes()))).await.unwrap();
        let line = gateway.wait_for_log(|l| l.contains("session ended")).await;
        let bytes = MESSAGES * SIZE;
        assert!(line.contains(&format!("messages_in={MESSAGES} messages_out={MESSAGES}")), "{line}");
        assert!(line.contains(&format!("bytes_in={bytes} bytes_out={bytes}")), "{line}");
        let (_, metrics) = gateway.admin_get("/metrics").await;
        let counted = metrics.lines().filter(|l| l.contains("bytes") && l.contains("proxy"));
        assert_eq!(counted.filter(|l| l.ends_with(&format!(" {bytes}"))).count(), 2, "{metrics}");
    }
}
