//! Recovery: who was cut off gets what it missed, all of it and in order, or is told that it cannot.
use crate::crowds::resident_mib;
use crate::rooms::session;
use crate::rooms_help::*;
use crate::support::*;
use serde_json::{Value, json};

/// The body of a message; several of them are such that a parser of JSON would change them.
fn body(n: usize) -> String {
    match n % 5 {
        0 => format!("{n}"),
        1 => format!(r#"{{"n": {n},  "price":1.10, "big":123456789012345678901234567890}}"#),
        2 => format!(r#""caf\u00e9 {n} \/""#),
        3 => format!("[{n}, {{\"b\":1,\"a\":2,\"b\":3}}, 1.0e400]"),
        _ => format!("\"{}\u{1f600}\"", "x".repeat(n * 40)),
    }
}

/// Publishes this message and waits for its place.
async fn publish_text(publisher: &mut Client, room: &str, body: &str) {
    publisher.text(&format!(r#"{{"type":"message","payload":{{"room_id":"{room}","message":{body}}}}}"#)).await;
    while !publisher.next_text().await.contains(r#""type":"message_sent""#) {}
}

#[tokio::test]
async fn what_was_missed_comes_as_others_got_it_and_then_what_is_live() {
    let gateway = rooms("").await;
    let mut watcher = session(&gateway, "watcher").await;
    watcher.join("a").await;
    let mut publisher = session(&gateway, "publisher").await;
    publisher.join("a").await;
    sees_presence(&mut watcher, "publisher", "online").await;
    let mut alice = brittle(&gateway, "alice").await;
    let epoch = alice.join("a").await["position"]["epoch"].clone();
    sees_presence(&mut watcher, "alice", "online").await;
    let mut live = Vec::new();
    for n in 0..11 {
        publish_text(&mut publisher, "a", &body(n)).await;
        live.push(chat_text(&mut watcher).await);
    }
    for seen in &live[..10] {
        assert_eq!(chat_text(&mut alice).await, *seen);
    }
    drop(alice);
    sees_presence(&mut watcher, "alice", "offline").await;
    for n in 11..60 {
        publish_text(&mut publisher, "a", &body(n)).await;
        live.push(chat_text(&mut watcher).await);
    }
    let going_on = tokio::spawn(async move {
        for n in 60..90 {
            publish_text(&mut publisher, "a", &body(n)).await;
        }
        publisher
    });
    let mut alice = session(&gateway, "alice").await;
    let joined = join_since(&mut alice, "a", &json!({"epoch": epoch, "offset": 10})).await;
    assert_eq!((&joined["recovered"], &joined["position"]["epoch"]), (&json!(true), &epoch), "{joined}");
    assert!(joined["position"]["offset"].as_u64().unwrap() >= 60, "{joined}");
    assert!(joined.get("conflated").is_none(), "{joined}");
    for offset in 10..90 {
        if offset >= live.len() {
            live.push(chat_text(&mut watcher).await);
        }
        assert_eq!(chat_text(&mut alice).await, live[offset]);
    }
    let mut publisher = within(going_on).await.unwrap();
    publish_text(&mut publisher, "a", "\"live\"").await;
    assert_eq!(chat(&mut alice).await, (91, json!("live")), "none twice");
}

/// How many of a room's `last` messages a late session recovers. Of those that it does not recover it gets none.
async fn recoverable(gateway: &Gateway, publisher: &mut Client, room: &str, epoch: &Value, last: u64) -> u64 {
    for offset in (0..last).rev() {
        let mut late = session(gateway, "late").await;
        let joined = join_since(&mut late, room, &json!({"epoch": epoch, "offset": offset})).await;
        assert_eq!(joined["position"], json!({"epoch": epoch, "offset": last}), "{room}");
        if joined["recovered"] == false {
            publisher.publish(room, json!("mark")).await;
            assert_eq!(chat(&mut late).await, (last + 1, json!("mark")), "{room}: half recovered");
            return last - offset - 1;
        }
        assert_eq!(joined["recovered"], true);
        for missed in offset + 1..=last {
            assert_eq!(chat(&mut late).await.0, missed, "{room}");
        }
    }
    last
}

#[tokio::test]
async fn beyond_the_bounds_of_the_history_nothing_is_recovered() {
    let policies = "[[rooms.policy]]\nmatch = \"few-*\"\nhistory = { messages = 5 }\n\
                    [[rooms.policy]]\nmatch = \"small-*\"\nhistory = { bytes = \"4KiB\" }\n\
                    [[rooms.policy]]\nmatch = \"none-*\"\nhistory = { messages = 0 }\n";
    let gateway = rooms(policies).await;
    let mut publisher = session(&gateway, "publisher").await;
    for (room, kept) in [("few-1", 5..=5), ("small-1", 3..=5), ("none-1", 0..=0), ("other", 12..=12)] {
        let epoch = publisher.join(room).await["position"]["epoch"].clone();
        for n in 0..12 {
            publisher.publish(room, json!([n, "x".repeat(700)])).await;
        }
        let found = recoverable(&gateway, &mut publisher, room, &epoch, 12).await;
        assert!(kept.contains(&found), "{room}: {found} were recovered");
    }
}

#[tokio::test]
async fn what_is_too_old_is_not_recovered() {
    let gateway = rooms("[[rooms.policy]]\nmatch = \"old-*\"\nhistory = { age = \"300ms\" }\n").await;
    let mut publisher = session(&gateway, "publisher").await;
    let mut epochs = Vec::new();
    for room in ["old-1", "other"] {
        epochs.push(publisher.join(room).await["position"]["epoch"].clone());
        publisher.publish(room, json!("missed")).await;
    }
    let gateway = &gateway;
    let mut late = eventually(|| async {
        let mut late = session(gateway, "late").await;
        let joined = join_since(&mut late, "old-1", &json!({"epoch": epochs[0], "offset": 0})).await;
        (joined["recovered"] == false).then_some(late)
    })
    .await;
    publisher.publish("old-1", json!("mark")).await;
    assert_eq!(chat(&mut late).await, (2, json!("mark")));
    let joined = join_since(&mut late, "other", &json!({"epoch": epochs[1], "offset": 0})).await;
    assert_eq!(joined["recovered"], true, "another room's history is not as short");
    assert_eq!(chat(&mut late).await, (1, json!("missed")));
}

#[tokio::test]
async fn a_place_that_the_room_never_had_is_not_recovered() {
    let gateway = rooms("").await;
    let mut publisher = session(&gateway, "publisher").await;
    let epoch = publisher.join("a").await["position"]["epoch"].clone();
    let mut last = 0;
    for (epoch, beyond) in [
        (json!("0123456789ab"), 0),
        (json!(""), 0),
        (json!("x".repeat(1000)), 0),
        (epoch.clone(), 2),
        (epoch, 9_007_199_254_740_993),
        (json!("another"), u64::MAX / 2),
    ] {
        publisher.publish("a", json!("before")).await;
        last += 1;
        let since = json!({"epoch": epoch, "offset": last + beyond});
        let mut late = session(&gateway, "late").await;
        let joined = join_since(&mut late, "a", &since).await;
        assert_eq!((&joined["recovered"], &joined["position"]["offset"]), (&json!(false), &json!(last)), "{since}");
        publisher.publish("a", json!("mark")).await;
        last += 1;
        assert_eq!(chat(&mut late).await, (last, json!("mark")), "{since}");
    }
}

#[tokio::test]
async fn a_room_that_all_have_left_keeps_its_place_and_its_history() {
    let gateway = rooms("").await;
    let mut alice = brittle(&gateway, "alice").await;
    let mut bob = session(&gateway, "bob").await;
    let start = alice.join("a").await["position"].clone();
    bob.join("a").await;
    for n in 1..=20 {
        alice.publish("a", json!(n)).await;
    }
    drop(alice);
    bob.skip_to("presence_update").await;
    assert_eq!(bob.ask("leave_room", json!({"room_id": "a"})).await["type"], "room_left");
    let joined = join_since(&mut bob, "a", &json!({"epoch": start["epoch"], "offset": 4})).await;
    assert_eq!((&joined["recovered"], &joined["count"]), (&json!(true), &json!(1)), "{joined}");
    assert_eq!(joined["position"], json!({"epoch": start["epoch"], "offset": 20}));
    for n in 5..=20 {
        assert_eq!(chat(&mut bob).await, (n, json!(n)));
    }
    assert_eq!(bob.publish("a", json!("on")).await["position"], json!({"epoch": start["epoch"], "offset": 21}));
}

#[tokio::test]
async fn a_member_that_joins_again_gets_what_it_asks_for_and_no_live_message_twice() {
    let gateway = rooms("").await;
    let mut alice = session(&gateway, "alice").await;
    let epoch = alice.join("a").await["position"]["epoch"].clone();
    for n in 1..=8 {
        alice.json(json!({"type": "message", "payload": {"room_id": "a", "message": n}})).await;
        assert_eq!(chat(&mut alice).await, (n, json!(n)));
    }
    let joined = join_since(&mut alice, "a", &json!({"epoch": epoch, "offset": 3})).await;
    assert_eq!((&joined["recovered"], &joined["count"]), (&json!(true), &json!(1)), "{joined}");
    for n in 4..=8 {
        assert_eq!(chat(&mut alice).await, (n, json!(n)));
    }
    alice.json(json!({"type": "message", "payload": {"room_id": "a", "message": "live"}})).await;
    assert_eq!(chat(&mut alice).await, (9, json!("live")));
    let joined = join_since(&mut alice, "a", &json!({"epoch": epoch, "offset": 9})).await;
    assert_eq!(joined["recovered"], true, "nothing was missed");
    alice.json(json!({"type": "message", "payload": {"room_id": "a", "message": "more"}})).await;
    assert_eq!(chat(&mut alice).await, (10, json!("more")));
}

/// Two joins that are on their way at once: the second one's promise holds too.
#[tokio::test]
async fn the_last_of_two_joins_counts() {
    let gateway = rooms("").await;
    let mut publisher = session(&gateway, "publisher").await;
    for round in 0..30 {
        let room = format!("room-{round}");
        let epoch = publisher.join(&room).await["position"]["epoch"].clone();
        for n in 1..=9 {
            publisher.publish(&room, json!(n)).await;
        }
        let mut raw = raw_session(gateway.tcp().await, "late").await;
        let join = |offset: u64| {
            let since = json!({"epoch": epoch, "offset": offset});
            request_frame("join_room", json!({"room_id": room, "since": since}), &format!("since-{offset}"))
        };
        raw.send([join(6), join(2)].concat()).await;
        publisher.publish(&room, json!(10)).await;
        let mut offsets = Vec::new();
        loop {
            let message: Value = serde_json::from_slice(&raw.read_frame().await.payload).unwrap();
            match message["type"].as_str().unwrap() {
                "room_joined" => {
                    assert_eq!(message["payload"]["recovered"], true, "{message}");
                    if message["metadata"]["correlation_id"] == "since-2" {
                        offsets = vec![2];
                    }
                }
                "chat_message" => offsets.push(message["payload"]["position"]["offset"].as_u64().unwrap()),
                _ => {}
            }
            if offsets.first() == Some(&2) && offsets.last() == Some(&10) {
                break;
            }
        }
        assert_eq!(offsets, (2..=10).collect::<Vec<_>>(), "round {round}");
    }
}

#[tokio::test]
async fn several_rooms_are_recovered_each_in_its_order() {
    let gateway = rooms("").await;
    let mut publisher = session(&gateway, "publisher").await;
    let mut since = Vec::new();
    for i in 0..5 {
        since.push(publisher.join(&format!("room-{i}")).await["position"].clone());
    }
    for n in 1..=40 {
        for i in 0..5 {
            publisher.publish(&format!("room-{i}"), json!("x".repeat(n * 100))).await;
        }
    }
    let mut late = session(&gateway, "late").await;
    for (i, since) in since.iter().enumerate() {
        late.json(json!({"type": "join_room", "payload": {"room_id": format!("room-{i}"), "since": since}})).await;
    }
    let mut next = [1; 5];
    while next.iter().sum::<usize>() < 5 * 41 {
        let chat = late.skip_to("chat_message").await;
        let room: usize = chat["payload"]["room_id"].as_str().unwrap()[5..].parse().unwrap();
        assert_eq!(chat["payload"]["position"]["offset"], next[room], "{room}");
        next[room] += 1;
    }
}

/// A member that recovers is sent at most 256 messages and about 64 KiB at once: every number around that comes whole.
#[tokio::test]
async fn any_number_of_missed_messages_is_recovered() {
    let gateway = rooms("history = { messages = 1000 }").await;
    let mut publisher = session(&gateway, "publisher").await;
    let epoch = publisher.join("a").await["position"]["epoch"].clone();
    for n in 1..=520 {
        publisher.publish("a", json!(n)).await;
    }
    for missed in (0..3).chain(220..=262).chain([520]) {
        let mut late = session(&gateway, "late").await;
        let joined = join_since(&mut late, "a", &json!({"epoch": epoch, "offset": 520 - missed})).await;
        assert_eq!(joined["recovered"], true, "{missed}");
        for n in 520 - missed + 1..=520 {
            assert_eq!(chat(&mut late).await, (n, json!(n)), "{missed}");
        }
    }
}

const LARGE: usize = 64 << 10;

/// A gateway for messages of 64 KiB, with this backlog and this many of them in the history.
async fn for_large_messages(backlog: &str, history: usize) -> Gateway {
    let limits = format!("{LIFTED}max_message_size = \"70KiB\"\n{backlog}\ncompression = false\n");
    let rooms = format!("[rooms]\nhistory = {{ messages = {history}, bytes = \"128MiB\" }}\n");
    Gateway::start(&format!("[server]\nshards = 2\n{PLAIN}{SECRET_AUTH}{ROOMS}{limits}{rooms}")).await
}

fn large(n: usize) -> String {
    format!("{n}{}", "-".repeat(LARGE - n.to_string().len()))
}

/// The offset and the body of a frame with a `chat_message`, where it is one.
fn chat_of(frame: &raw::Frame) -> Option<(u64, String)> {
    let message: Value = serde_json::from_slice(&frame.payload).unwrap();
    let body = message["payload"]["message"].as_str().map(str::to_owned);
    (message["type"] == "chat_message")
        .then(|| (message["payload"]["position"]["offset"].as_u64().unwrap(), body.unwrap()))
}

/// With a backlog that holds one message.
#[tokio::test]
async fn a_slow_client_recovers_64_mib() {
    const MISSED: usize = 1000;
    let gateway = for_large_messages("max_backlog = \"71KiB\"", 2000).await;
    let mut publisher = session(&gateway, "publisher").await;
    let since = publisher.join("a").await["position"].clone();
    for n in 1..=MISSED {
        publisher.publish("a", json!(large(n))).await;
    }
    let before = resident_mib(&gateway);
    let mut most = before;
    let mut late = raw_session(narrow_tcp(&gateway).await, "late").await;
    late.send(request_frame("join_room", json!({"room_id": "a", "since": since}), "join")).await;
    let mut published = MISSED;
    let mut read = 0;
    while read < published {
        let frame = late.read_frame().await;
        assert_ne!(frame.first, 0x88, "closed after {read} messages: {:?}", frame.close());
        let Some((offset, body)) = chat_of(&frame) else { continue };
        read += 1;
        assert_eq!(offset, read as u64);
        assert!(if read <= MISSED { body == large(read) } else { body == format!("live {read}") }, "{offset}");
        // After each 200 KiB it reads no further before something live was published.
        if read % 3 == 0 && read <= MISSED {
            published += 1;
            publisher.publish("a", json!(format!("live {published}"))).await;
            most = most.max(resident_mib(&gateway));
        }
    }
    assert_eq!(published, MISSED + MISSED / 3);
    assert!(most < before + 16, "the history once more? from {before} MiB to {most} MiB");
}

#[tokio::test]
async fn who_is_overtaken_while_it_recovers_loses_its_place_and_is_told() {
    const HISTORY: usize = 150;
    let gateway = for_large_messages("", HISTORY).await;
    let mut publisher = session(&gateway, "publisher").await;
    let since = publisher.join("a").await["position"].clone();
    for n in 1..=HISTORY {
        publisher.publish("a", json!(large(n))).await;
    }
    let mut late = raw_session(narrow_tcp(&gateway).await, "late").await;
    late.send(request_frame("join_room", json!({"room_id": "a", "since": since}), "join")).await;
    let mut seen = vec![publisher.skip_to("presence_update").await["payload"]["status"].clone()];
    // It reads nothing, until the last message that it has missed is gone.
    for n in HISTORY + 1..=2 * HISTORY {
        publisher.json(json!({"type": "message", "payload": {"room_id": "a", "message": large(n)}})).await;
        let mut answered = false;
        while !answered {
            let message = publisher.next_json().await;
            answered = message["type"] == "message_sent";
            seen.extend(message["payload"].get("status").cloned());
        }
    }
    let mut read = 0;
    let left = loop {
        let frame = late.read_frame().await;
        let message: Value = serde_json::from_slice(&frame.payload).unwrap();
        match message["type"].as_str().unwrap() {
            "chat_message" => {
                read += 1;
                assert_eq!(chat_of(&frame), Some((read, large(read as usize))));
            }
            "room_left" => break message,
            _ => {}
        }
    };
    assert!(read < HISTORY as u64, "{read} messages fit into the socket: the test needs more of them");
    let payload = &left["payload"];
    assert_eq!(
        (&payload["room_id"], &payload["code"], &payload["retryable"]),
        (&json!("a"), &json!(4010), &json!(true))
    );
    assert!(payload["reason"].is_string() && left["metadata"].get("correlation_id").is_none(), "{left}");
    if seen.len() < 2 {
        seen.push(publisher.skip_to("presence_update").await["payload"]["status"].clone());
    }
    assert_eq!(seen, ["online", "offline"]);
    // The connection stays, and the room can be joined again.
    let since = json!({"epoch": since["epoch"], "offset": read});
    late.send(request_frame("join_room", json!({"room_id": "a", "since": since}), "again")).await;
    let joined: Value = serde_json::from_slice(&late.read_frame().await.payload).unwrap();
    assert_eq!((&joined["type"], &joined["payload"]["recovered"]), (&json!("room_joined"), &json!(false)), "{joined}");
    publisher.publish("a", json!("live")).await;
    assert_eq!(chat_of(&late.read_frame().await), Some((2 * HISTORY as u64 + 1, "live".to_owned())));
}

/// Clients nobody here wrote: cut off without a Close in the midst of a room, they come back with `since`.
#[tokio::test]
async fn other_makers_clients_recover() {
    let gateway = rooms("").await;
    let url = format!("ws://{}/ws", gateway.address(0));
    let mut publisher = session(&gateway, "publisher").await;
    publisher.join("peers").await;
    let mut signaller = session(&gateway, "signaller").await;
    signaller.join("signal").await;
    for peer in [Peer::Node, Peer::Python] {
        if peer.command("client").is_none() {
            continue;
        }
        let name = format!("{peer:?}");
        let (url, token) = (url.clone(), token::good(&name));
        let client = tokio::spawn(async move { peer.client(&url, "recover", &[("WSGATE_TEST_TOKEN", &token)]).await });
        let comes = async |publisher: &mut Client, room: &str, status: &str| {
            let wanted = json!({"room_id": room, "client_id": name, "status": status});
            while publisher.skip_to("presence_update").await["payload"] != wanted {}
        };
        comes(&mut publisher, "peers", "online").await;
        publisher.publish("peers", json!("seen")).await;
        comes(&mut publisher, "peers", "offline").await;
        let mut missed = Vec::new();
        for n in 0..50 {
            missed.push(json!({"n": n, "text": "\u{e9}\u{1f600}".repeat(n * 10)}));
            publisher.publish("peers", missed[n].clone()).await;
        }
        publisher.publish("peers", Value::Null).await;
        // It is back, and waits to be told that it has missed all of them.
        comes(&mut signaller, "signal", "online").await;
        signaller.publish("signal", json!("go")).await;
        let result = within(client).await.unwrap().unwrap();
        assert_eq!(result["recovered"], true, "{peer:?}: {result}");
        let messages = result["messages"].as_array().unwrap();
        let (places, bodies): (Vec<_>, Vec<_>) =
            messages.iter().map(|m| (m[0].as_u64().unwrap(), m[1].clone())).unzip();
        assert!(places.windows(2).all(|w| w[1] == w[0] + 1), "{places:?}");
        assert_eq!(bodies, missed);
    }
}
