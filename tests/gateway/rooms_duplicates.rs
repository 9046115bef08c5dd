//! A message that is sent a second time is delivered once, and its sender is told its first place.
use crate::rooms::session;
use crate::rooms_help::*;
use crate::support::*;
use serde_json::{Value, json};

/// Publishes under this name, and gives the payload of `message_sent`.
async fn send(client: &mut Client, room: &str, id: &str, message: Value) -> Value {
    let payload = json!({"room_id": room, "message": message});
    client.json(json!({"type": "message", "payload": payload, "metadata": {"message_id": id}})).await;
    loop {
        let answer = client.next_json().await;
        if answer["metadata"]["correlation_id"] == id {
            assert_eq!(
                (&answer["type"], &answer["payload"]["message_id"]),
                (&json!("message_sent"), &json!(id)),
                "{answer}"
            );
            return answer["payload"].clone();
        }
    }
}

/// How a socket ends while it sends.
#[derive(Clone, Copy)]
enum Cut {
    /// In the middle of the frame.
    Within,
    /// After the frame: it was read or not.
    After,
    /// When the message was delivered: the answer was lost.
    Delivered,
}

#[tokio::test]
async fn what_was_cut_off_and_is_sent_again_is_delivered_once() {
    let gateway = rooms("").await;
    let mut watcher = session(&gateway, "watcher").await;
    watcher.join("a").await;
    for round in 0..24 {
        let cut = [Cut::Within, Cut::After, Cut::Delivered][round % 3];
        let id = format!("m-{round}");
        let payload = json!({"room_id": "a", "message": round});
        let tcp = gateway.tcp().await;
        tcp.set_zero_linger().unwrap();
        let mut lost = raw_session(tcp, "alice").await;
        let frame = request_frame("message", payload, &id);
        let sent = if matches!(cut, Cut::Within) { &frame[..frame.len() - 1] } else { &frame[..] };
        lost.send([&request_frame("join_room", json!({"room_id": "a"}), "join"), sent].concat()).await;
        let first = match cut {
            Cut::Delivered => Some(chat(&mut watcher).await),
            _ => None,
        };
        drop(lost);
        let mut alice = session(&gateway, "alice").await;
        alice.join("a").await;
        let again = send(&mut alice, "a", &id, json!(round)).await;
        assert_eq!(send(&mut alice, "a", &id, json!("changed")).await["duplicate"], true);
        match cut {
            Cut::Within => assert_eq!(again["duplicate"], false, "{again}"),
            Cut::After => (),
            Cut::Delivered => assert_eq!(again["duplicate"], true, "{again}"),
        }
        let (offset, message) = match first {
            Some(first) => first,
            None => chat(&mut watcher).await,
        };
        assert_eq!((&again["position"]["offset"], &message), (&json!(offset), &json!(round)));
        alice.publish("a", json!("end")).await;
        assert_eq!(chat(&mut watcher).await, (offset + 1, json!("end")), "twice");
        alice.close(1000, "").await;
    }
}

#[tokio::test]
async fn a_busy_room_does_not_forget() {
    let gateway = rooms("").await;
    let mut alice = session(&gateway, "alice").await;
    let mut bob = session(&gateway, "bob").await;
    let mut watcher = session(&gateway, "watcher").await;
    for client in [&mut alice, &mut bob, &mut watcher] {
        client.join("a").await;
    }
    let first = send(&mut alice, "a", "once", json!("once")).await;
    assert_eq!((&first["duplicate"], &first["recipients"]), (&json!(false), &json!(3)), "{first}");
    // More than the history holds, and more than is remembered of one client.
    for n in 0..200 {
        send(&mut bob, "a", &format!("other-{n}"), json!(n)).await;
    }
    let again = send(&mut alice, "a", "once", json!("once")).await;
    assert_eq!((&again["position"], &again["duplicate"]), (&first["position"], &json!(true)), "{again}");
    let mut tab = session(&gateway, "alice").await;
    tab.join("a").await;
    let again = send(&mut tab, "a", "once", json!("once")).await;
    assert_eq!((&again["position"], &again["duplicate"]), (&first["position"], &json!(true)), "{again}");
    alice.publish("a", json!("end")).await;
    let mut seen = Vec::new();
    while seen.last() != Some(&json!("end")) {
        seen.push(chat(&mut watcher).await.1);
    }
    assert_eq!(seen.len(), 202);
}

#[tokio::test]
async fn a_room_that_was_empty_in_between_does_not_forget() {
    let gateway = rooms("[[rooms.policy]]\nmatch = \"without-history\"\nhistory = { messages = 0, age = 0 }\n").await;
    for room in ["a", "without-history"] {
        let mut alice = session(&gateway, "alice").await;
        alice.join(room).await;
        let first = send(&mut alice, room, "once", json!(1)).await;
        assert_eq!(alice.ask("leave_room", json!({"room_id": room})).await["type"], "room_left");
        alice.join(room).await;
        let again = send(&mut alice, room, "once", json!(1)).await;
        assert_eq!((&again["position"], &again["duplicate"]), (&first["position"], &json!(true)), "{room}: {again}");
        assert_eq!(alice.publish(room, json!(2)).await["position"]["offset"], 2, "{room}");
    }
}

#[tokio::test]
async fn a_name_is_of_one_client_and_one_room() {
    let gateway = rooms("").await;
    let mut alice = session(&gateway, "alice").await;
    let mut bob = session(&gateway, "bob").await;
    for room in ["a", "b"] {
        alice.join(room).await;
        bob.join(room).await;
    }
    let mut places = Vec::new();
    for client in [&mut alice, &mut bob] {
        for room in ["a", "b"] {
            let sent = send(client, room, "same", json!(1)).await;
            assert_eq!(sent["duplicate"], false, "{sent}");
            places.push((room, sent["position"]["offset"].as_u64().unwrap()));
        }
    }
    assert_eq!(places, [("a", 1), ("b", 1), ("a", 2), ("b", 2)]);
}

#[tokio::test]
async fn a_message_without_a_name_is_never_a_duplicate() {
    let gateway = rooms("").await;
    let mut alice = session(&gateway, "alice").await;
    alice.join("a").await;
    let text = r#"{"type":"message","payload":{"room_id":"a","message":"same"}}"#;
    let null = r#"{"type":"message","payload":{"room_id":"a","message":"same"},"metadata":{"message_id":null}}"#;
    for offset in 1..=6 {
        alice.text(if offset % 2 == 0 { text } else { null }).await;
        let mut ids = Vec::new();
        for _ in 0..2 {
            let message = alice.next_json().await;
            assert_eq!(message["payload"]["position"]["offset"], offset, "{message}");
            ids.push(message["metadata"]["message_id"].clone());
        }
        assert_ne!(ids[0], ids[1], "the answer has a name of its own");
    }
}

#[tokio::test]
async fn names_are_remembered_within_their_bounds() {
    for (duplicates, remembered) in [
        ("duplicates = { per_client = 3 }", [false, false, true, true, true]),
        ("duplicates = { per_client = 0 }", [false; 5]),
        ("duplicates = { age = 0 }", [false; 5]),
    ] {
        let gateway = rooms(duplicates).await;
        let mut alice = session(&gateway, "alice").await;
        alice.join("a").await;
        for n in 0..5 {
            assert_eq!(send(&mut alice, "a", &n.to_string(), json!(n)).await["duplicate"], false);
        }
        let mut found = [false; 5];
        // The newest first: one that is not known any more is remembered anew, and pushes out another.
        for n in (0..5).rev() {
            found[n] = send(&mut alice, "a", &n.to_string(), json!(n)).await["duplicate"] == true;
        }
        assert_eq!(found, remembered, "{duplicates}");
    }
}

#[tokio::test]
async fn names_are_forgotten_when_they_are_old() {
    let gateway = rooms("duplicates = { age = \"300ms\" }").await;
    let mut alice = session(&gateway, "alice").await;
    alice.join("a").await;
    let first = send(&mut alice, "a", "once", json!(1)).await["position"]["offset"].as_u64().unwrap();
    let mut offset = first;
    while offset == first {
        let again = send(&mut alice, "a", "once", json!(1)).await;
        offset = again["position"]["offset"].as_u64().unwrap();
        assert_eq!(again["duplicate"], offset == first, "{again}");
    }
    assert_eq!(offset, 2);
}

#[tokio::test]
async fn a_message_to_all_is_delivered_once_too() {
    let gateway = rooms("broadcast_to_all = true").await;
    let mut watcher = session(&gateway, "watcher").await;
    let mut first = None;
    for round in 0..4 {
        let mut alice = brittle(&gateway, "alice").await;
        let payload = json!({"message": "hear"});
        alice.json(json!({"type": "message", "payload": payload, "metadata": {"message_id": "once"}})).await;
        let sent = alice.skip_to("message_sent").await["payload"].clone();
        let position = first.get_or_insert(sent["position"].clone());
        assert_eq!((&sent["position"], &sent["duplicate"]), (&*position, &json!(round > 0)), "{sent}");
        assert!(sent["room_id"].is_null(), "{sent}");
    }
    let mut bob = session(&gateway, "bob").await;
    assert_eq!(bob.ask("message", json!({"message": "end"})).await["type"], "message_sent");
    assert_eq!(chat(&mut watcher).await, (1, json!("hear")));
    assert_eq!(chat(&mut watcher).await, (2, json!("end")));
}
