//! A member that does not read costs only itself.
use crate::crowds::resident_mib;
use crate::rooms::session;
use crate::rooms_help::*;
use crate::support::*;
use serde_json::{Value, json};

const READERS: usize = 500;
const MESSAGES: u64 = 300;

/// The offset of a frame with a `chat_message`, without a reader of JSON: there are 150,000 of them.
fn offset_of(frame: &raw::Frame) -> Option<u64> {
    let text = std::str::from_utf8(&frame.payload).ok()?;
    let (_, rest) = text.strip_prefix(r#"{"type":"chat_message""#)?.split_once(r#""offset":"#).unwrap();
    Some(rest[..rest.find('}').unwrap()].parse().unwrap())
}

/// Reads every message of the room in order, from this one on.
async fn reads_all(mut reader: RawWs, from: u64, to: u64) -> RawWs {
    let mut next = from;
    while next <= to {
        if let Some(offset) = offset_of(&reader.read_frame().await) {
            assert_eq!(offset, next);
            next += 1;
        }
    }
    reader
}

async fn joined(stream: impl client::Pipe + 'static, name: &str) -> RawWs {
    let mut raw = raw_session(stream, name).await;
    raw.send(request_frame("join_room", json!({"room_id": "a"}), "join")).await;
    while !raw.read_frame().await.payload.starts_with(br#"{"type":"room_joined""#) {}
    raw
}

#[tokio::test]
async fn one_of_500_that_stops_is_closed_and_the_others_miss_nothing() {
    let limits = format!("{LIFTED}max_message_size = \"32KiB\"\nmax_backlog = \"64KiB\"\nping_interval = 0\n");
    let rooms = "[rooms]\npresence = false\n";
    // The kernel holds less for a Unix socket than for TCP: less has to be sent before the gateway's own bound is met.
    let unix = listener("unix:rooms.sock", "");
    let config = format!("[server]\nshards = 2\n{PLAIN}{unix}{SECRET_AUTH}{ROOMS}{limits}{rooms}");
    let gateway = Gateway::start(&config).await;
    let mut stopped = joined(gateway.unix(1).await, "stopped").await;
    let mut publisher = session(&gateway, "publisher").await;
    publisher.join("a").await;
    let mut readers = Vec::new();
    for n in 0..READERS {
        let reader = joined(gateway.tcp().await, &format!("reader-{n}")).await;
        readers.push(tokio::spawn(reads_all(reader, 1, MESSAGES)));
    }
    let before = resident_mib(&gateway);
    let mut most = before;
    let text = "x".repeat(2000);
    for n in 1..=MESSAGES {
        publisher.publish("a", json!([n, text])).await;
        if n % 20 == 0 {
            most = most.max(resident_mib(&gateway));
        }
    }
    let mut still = Vec::new();
    for reader in readers {
        still.push(within(reader).await.unwrap());
    }
    most = most.max(resident_mib(&gateway));
    // 600 KB went to each of them.
    assert!(most < before + 40, "from {before} MiB to {most} MiB");
    let line = gateway.wait_for_log(|l| l.contains("\"stopped\"") && l.contains("session ended")).await;
    assert!(line.contains("4010"), "{line}");
    // What it has not read of its socket is in order, and the end is a Close with 4010 or, where that had no place, none.
    let mut next = 1;
    let mut end = None;
    while let Some(frame) = stopped.try_read_whole_frame().await {
        match offset_of(&frame) {
            Some(offset) => {
                assert_eq!(offset, next);
                next += 1;
            }
            None => end = frame.close().map(|(code, _)| code).or(end),
        }
    }
    assert!(next < MESSAGES, "it stopped, and was sent everything");
    assert!(end.is_none_or(|code| code == 4010), "{end:?}");
    // The room goes on, without it.
    let sent = publisher.publish("a", json!("on")).await;
    assert_eq!(sent["recipients"], READERS + 1);
    let reader = still.pop().unwrap();
    within(reads_all(reader, MESSAGES + 1, MESSAGES + 1)).await;
    // It comes back where it stopped.
    let since = json!({"epoch": sent["position"]["epoch"], "offset": MESSAGES - 20});
    let mut back = session(&gateway, "stopped").await;
    assert_eq!(join_since(&mut back, "a", &since).await["recovered"], true);
    for offset in MESSAGES - 19..=MESSAGES + 1 {
        assert_eq!(chat(&mut back).await.0, offset);
    }
}

/// Several that stop, each in a room of its own with others: no room waits for another's.
#[tokio::test]
async fn a_member_that_stops_in_many_rooms_leaves_them_all() {
    let limits = format!("{LIFTED}max_message_size = \"32KiB\"\nmax_backlog = \"64KiB\"\nping_interval = 0\n");
    let gateway = Gateway::start(&format!("[server]\nshards = 2\n{PLAIN}{SECRET_AUTH}{ROOMS}{limits}")).await;
    let mut publisher = session(&gateway, "publisher").await;
    let mut stopped = raw_session(narrow_tcp(&gateway).await, "stopped").await;
    let wanted = |room: &str, status: &str| json!({"room_id": room, "client_id": "stopped", "status": status});
    let names: Vec<String> = (0..20).map(|n| format!("room-{n}")).collect();
    for room in &names {
        publisher.join(room).await;
        stopped.send(request_frame("join_room", json!({"room_id": room}), "join")).await;
        assert_eq!(publisher.expect("presence_update").await["payload"], wanted(room, "online"));
    }
    // It reads nothing until it is out of all rooms, each of which tells so once.
    let text = "x".repeat(20_000);
    let mut left: Vec<Value> = Vec::new();
    for n in 0.. {
        let room = &names[n % names.len()];
        publisher.json(json!({"type": "message", "payload": {"room_id": room, "message": text}})).await;
        let mut answered = 0;
        while answered < 2 || (!left.is_empty() && left.len() < names.len()) {
            let message = publisher.next_json().await;
            match message["type"].as_str().unwrap() {
                "presence_update" => left.push(message["payload"].clone()),
                _ => answered += 1,
            }
        }
        if !left.is_empty() {
            break;
        }
    }
    left.sort_by_key(ToString::to_string);
    let mut expected: Vec<Value> = names.iter().map(|room| wanted(room, "offline")).collect();
    expected.sort_by_key(ToString::to_string);
    assert_eq!(left, expected);
    for room in &names {
        assert_eq!(members(&mut publisher, room).await.1, 1);
    }
}
