//! Typing and receipts: what the others in a room are told, and how often.
use crate::rooms::session;
use crate::rooms_help::*;
use crate::support::*;
use serde_json::{Value, json};

/// A gateway, a watcher and a member of the room `a`.
async fn two(config: &str) -> (Gateway, Client, Client) {
    let gateway = rooms(config).await;
    let mut watcher = session(&gateway, "watcher").await;
    watcher.join("a").await;
    let mut alice = session(&gateway, "alice").await;
    alice.join("a").await;
    sees_presence(&mut watcher, "alice", "online").await;
    (gateway, watcher, alice)
}

async fn types(client: &mut Client, kind: &str) {
    client.json(json!({"type": kind, "payload": {"room_id": "a"}})).await;
}

async fn sees_typing(watcher: &mut Client, kind: &str) {
    sees(watcher, kind, json!({"room_id": "a", "client_id": "alice"})).await;
}

#[tokio::test]
async fn typing_is_seen_by_the_others_and_has_no_answer() {
    let (gateway, mut watcher, mut alice) = two("").await;
    let mut tab = session(&gateway, "alice").await;
    tab.join("a").await;
    types(&mut alice, "typing_start").await;
    sees_typing(&mut watcher, "typing_start").await;
    types(&mut alice, "typing_stop").await;
    sees_typing(&mut watcher, "typing_stop").await;
    // Neither of the client's own sessions is told.
    sees_nothing(&mut tab).await;
    assert_eq!(chat(&mut alice).await.1, "mark");
    alice.json(json!({"type": "ping"})).await;
    alice.expect("pong").await;
}

#[tokio::test]
async fn starts_are_coalesced_and_stops_without_a_start_are_none() {
    let (_gateway, mut watcher, mut alice) = two("").await;
    types(&mut alice, "typing_stop").await;
    // More than may be unanswered at once: these have no answer.
    for _ in 0..200 {
        types(&mut alice, "typing_start").await;
    }
    types(&mut alice, "typing_stop").await;
    types(&mut alice, "typing_stop").await;
    served(&mut alice, "a").await;
    sees_typing(&mut watcher, "typing_start").await;
    sees_typing(&mut watcher, "typing_stop").await;
    sees_nothing(&mut watcher).await;
    // A new start is told when the 2 s are over; the stop that follows is told too.
    types(&mut alice, "typing_start").await;
    sees_typing(&mut watcher, "typing_start").await;
    types(&mut alice, "typing_stop").await;
    sees_typing(&mut watcher, "typing_stop").await;
}

#[tokio::test]
async fn a_start_that_nobody_stops_ends_by_itself() {
    let (_gateway, mut watcher, mut alice) = two("typing_expiry = \"1s\"").await;
    types(&mut alice, "typing_start").await;
    sees_typing(&mut watcher, "typing_start").await;
    sees_typing(&mut watcher, "typing_stop").await;
    sees_nothing(&mut watcher).await;
}

#[tokio::test]
async fn who_leaves_or_is_lost_types_no_more() {
    for lost in [false, true] {
        let gateway = rooms("typing_expiry = \"10m\"").await;
        let mut watcher = session(&gateway, "watcher").await;
        watcher.join("a").await;
        let mut alice = brittle(&gateway, "alice").await;
        alice.join("a").await;
        sees_presence(&mut watcher, "alice", "online").await;
        types(&mut alice, "typing_start").await;
        sees_typing(&mut watcher, "typing_start").await;
        if lost {
            drop(alice);
        } else {
            alice.ask("leave_room", json!({"room_id": "a"})).await;
        }
        sees_typing(&mut watcher, "typing_stop").await;
        sees_presence(&mut watcher, "alice", "offline").await;
        sees_nothing(&mut watcher).await;
    }
}

#[tokio::test]
async fn typing_is_of_its_room_and_of_its_members() {
    let (gateway, mut watcher, mut alice) = two("").await;
    let mut other = session(&gateway, "other").await;
    other.join("b").await;
    for kind in ["typing_start", "typing_stop"] {
        other.refused(kind, json!({"room_id": "a"}), 4007).await;
    }
    other.refused("read_receipt", json!({"room_id": "a", "offset": 0}), 4007).await;
    types(&mut alice, "typing_start").await;
    sees_typing(&mut watcher, "typing_start").await;
    // One session that leaves is not the client that leaves.
    let mut tab = session(&gateway, "alice").await;
    tab.join("a").await;
    tab.ask("leave_room", json!({"room_id": "a"})).await;
    sees_nothing(&mut watcher).await;
    other.publish("b", json!("own")).await;
    assert_eq!(chat(&mut other).await.1, "own", "nothing of another room came before");
}

/// The receipt of alice for this offset.
async fn reads(alice: &mut Client, offset: u64) {
    alice.json(json!({"type": "read_receipt", "payload": {"room_id": "a", "offset": offset}})).await;
}

async fn sees_receipt(watcher: &mut Client, offset: u64) {
    sees(watcher, "read_receipt", json!({"room_id": "a", "client_id": "alice", "offset": offset})).await;
}

#[tokio::test]
async fn receipts_go_only_forward_and_not_beyond_the_last_message() {
    let (gateway, mut watcher, mut alice) = two("").await;
    for n in 1..=5 {
        alice.publish("a", json!(n)).await;
        assert_eq!(chat(&mut watcher).await.0, n);
        assert_eq!(chat(&mut alice).await.0, n);
    }
    reads(&mut alice, 0).await;
    for offset in [2, 1, 2, 4, 3, 4, 0] {
        reads(&mut alice, offset).await;
    }
    for beyond in [6, u64::MAX] {
        let error = alice.refused("read_receipt", json!({"room_id": "a", "offset": beyond}), 4006).await;
        assert!(error["payload"]["message"].as_str().unwrap().contains("payload.offset"), "{error}");
    }
    sees_receipt(&mut watcher, 2).await;
    sees_receipt(&mut watcher, 4).await;
    // By client and not by session: another tab does not begin anew.
    let mut tab = session(&gateway, "alice").await;
    tab.join("a").await;
    reads(&mut tab, 3).await;
    reads(&mut tab, 5).await;
    served(&mut tab, "a").await;
    sees_receipt(&mut watcher, 5).await;
    sees_nothing(&mut watcher).await;
    // A receipt has no answer: the next that the reader gets is what was asked after it.
    reads(&mut tab, 5).await;
    tab.json(json!({"type": "room_members", "payload": {"room_id": "a"}})).await;
    assert_eq!(chat(&mut tab).await.1, "mark");
    tab.expect("room_members").await;
}

#[tokio::test]
async fn other_makers_clients_type() {
    for peer in [Peer::Node, Peer::Python] {
        if peer.command("client").is_none() {
            continue;
        }
        // One for each: a client that starts again within 2 s, and stops, is told to nobody, and who has just left
        // the room is still told to those in it.
        let gateway = rooms("").await;
        let url = format!("ws://{}/ws", gateway.address(0));
        let mut watcher = session(&gateway, "watcher").await;
        watcher.join("peers").await;
        let name = format!("{peer:?}");
        let (url, token) = (url.clone(), token::good(&name));
        let client = tokio::spawn(async move { peer.client(&url, "typing", &[("WSGATE_TEST_TOKEN", &token)]).await });
        watcher.expect("presence_update").await;
        let theirs = json!({"room_id": "peers", "client_id": name});
        sees(&mut watcher, "typing_start", theirs.clone()).await;
        for kind in ["typing_start", "typing_stop"] {
            watcher.json(json!({"type": kind, "payload": {"room_id": "peers"}})).await;
        }
        sees(&mut watcher, "typing_stop", theirs).await;
        let result: Value = within(client).await.unwrap().unwrap();
        let ours = json!({"room_id": "peers", "client_id": "watcher"});
        assert_eq!((&result["started"], &result["stopped"]), (&ours, &ours), "{peer:?}");
    }
}
