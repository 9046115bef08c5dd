//! Presence by client: tabs and lost sockets, statuses, invisibility, questions, lists.
use crate::rooms::session;
use crate::rooms_help::*;
use crate::support::*;
use serde_json::{Value, json};

async fn says(client: &mut Client, status: &str) {
    client.json(json!({"type": "presence_update", "payload": {"status": status}})).await;
}

/// Clients and statuses of the answer to a `presence_query`, with this payload.
async fn query(client: &mut Client, payload: Value) -> Vec<(String, String)> {
    let answer = client.ask("presence_query", payload).await;
    assert_eq!(answer["type"], "presence_update", "{answer}");
    let line = |p: &Value| {
        assert_eq!(p["since"].is_null(), p["status"] == "offline", "{answer}");
        (p["client_id"].as_str().unwrap().to_owned(), p["status"].as_str().unwrap().to_owned())
    };
    answer["payload"]["presences"].as_array().unwrap_or_else(|| panic!("{answer}")).iter().map(line).collect()
}

/// As the functions here give them.
fn lines(lines: &[(&str, &str)]) -> Vec<(String, String)> {
    lines.iter().map(|(client, status)| ((*client).to_owned(), (*status).to_owned())).collect()
}

#[tokio::test]
async fn several_tabs_are_one_online_and_one_offline_however_they_end() {
    let gateway = rooms("").await;
    let mut watcher = session(&gateway, "watcher").await;
    watcher.join("a").await;
    for round in 0..10 {
        let mut tabs = Vec::new();
        for n in 0..5 {
            let mut tab = brittle(&gateway, "alice").await;
            assert_eq!(tab.join("a").await["count"], 2, "tab {n}");
            tabs.push(tab);
        }
        sees_presence(&mut watcher, "alice", "online").await;
        if round % 2 == 0 {
            tabs[0].ask("leave_room", json!({"room_id": "a"})).await;
            tabs[1].close(1000, "").await;
            sees_nothing(&mut watcher).await;
        }
        drop(tabs);
        sees_presence(&mut watcher, "alice", "offline").await;
        sees_nothing(&mut watcher).await;
    }
}

#[tokio::test]
async fn a_tab_that_falls_silent_is_not_the_client_until_the_last_one() {
    let limits = format!("{LIFTED}ping_interval = \"100ms\"\npong_timeout = \"2s\"\n");
    let gateway = Gateway::start(&format!("[server]\nshards = 2\n{PLAIN}{SECRET_AUTH}{ROOMS}{limits}")).await;
    let mut watcher = session(&gateway, "watcher").await;
    watcher.join("a").await;
    // Two that answer no ping, and one that is cut off.
    let mut tabs = Vec::new();
    for _ in 0..2 {
        let mut tab = raw_session(gateway.tcp().await, "alice").await;
        tab.send(request_frame("join_room", json!({"room_id": "a"}), "join")).await;
        tabs.push(tab);
    }
    sees_presence(&mut watcher, "alice", "online").await;
    let mut cut = brittle(&gateway, "alice").await;
    cut.join("a").await;
    drop(cut);
    sees_presence(&mut watcher, "alice", "offline").await;
    sees_nothing(&mut watcher).await;
    for tab in &mut tabs {
        while tab.try_read_frame().await.is_some_and(|frame| frame.close().is_none_or(|(code, _)| code == 4014)) {}
    }
}

#[tokio::test]
async fn statuses_are_told_to_the_rooms_one_is_in_the_newest_every_two_seconds() {
    let gateway = rooms("").await;
    let mut watcher = session(&gateway, "watcher").await;
    let mut alice = session(&gateway, "alice").await;
    let mut tab = session(&gateway, "alice").await;
    for room in ["a", "b"] {
        watcher.join(room).await;
        alice.join(room).await;
        watcher.expect("presence_update").await;
    }
    tab.join("b").await;
    let told = async |watcher: &mut Client, status: &str| {
        let mut rooms = Vec::new();
        for _ in 0..2 {
            let push = watcher.expect("presence_update").await;
            assert_eq!((&push["payload"]["client_id"], &push["payload"]["status"]), (&json!("alice"), &json!(status)));
            rooms.push(push["payload"]["room_id"].as_str().unwrap().to_owned());
        }
        rooms.sort();
        assert_eq!(rooms, ["a", "b"]);
    };
    for status in ["away", "busy", "busy", "at lunch \u{1f371}"] {
        says(&mut alice, status).await;
    }
    told(&mut watcher, "away").await;
    assert_eq!(members(&mut watcher, "a").await.0, lines(&[("alice", "away"), ("watcher", "online")]));
    told(&mut watcher, "at lunch \u{1f371}").await;
    let listed = lines(&[("alice", "at lunch \u{1f371}"), ("watcher", "online")]);
    assert_eq!(members(&mut watcher, "b").await.0, listed);
    assert_eq!(query(&mut watcher, json!({"room_id": "a"})).await, listed);
    // The same again is no news, and a client's own sessions are not told: the next that they get is a message.
    says(&mut tab, "at lunch \u{1f371}").await;
    served(&mut tab, "b").await;
    sees_nothing(&mut watcher).await;
    alice.expect("chat_message").await;
    // It is of the client: a session that comes later has it, in a room where it is the first one.
    let mut late = session(&gateway, "alice").await;
    late.join("c").await;
    assert_eq!(members(&mut late, "c").await.0, lines(&[("alice", "at lunch \u{1f371}")]));
}

/// Whether anything shows of alice, who is in the room `a`.
async fn is_hidden(watcher: &mut Client) {
    assert_eq!(members(watcher, "a").await, (lines(&[("watcher", "online")]), 1));
    assert_eq!(query(watcher, json!({"room_id": "a"})).await, lines(&[("watcher", "online")]));
    let asked = json!({"client_ids": ["alice", "watcher"]});
    let mut found = query(watcher, asked).await;
    found.sort();
    assert_eq!(found, lines(&[("alice", "offline"), ("watcher", "online")]));
    let again = watcher.ask("join_room", json!({"room_id": "a"})).await;
    assert_eq!(again["payload"]["count"], 1, "{again}");
}

#[tokio::test]
async fn who_is_invisible_is_hidden_everywhere_and_after_a_reconnect_too() {
    let gateway = rooms("").await;
    let mut watcher = session(&gateway, "watcher").await;
    watcher.join("a").await;
    let mut alice = brittle(&gateway, "alice").await;
    alice.join("a").await;
    sees_presence(&mut watcher, "alice", "online").await;
    alice.json(json!({"type": "typing_start", "payload": {"room_id": "a"}})).await;
    sees(&mut watcher, "typing_start", json!({"room_id": "a", "client_id": "alice"})).await;
    says(&mut alice, "invisible").await;
    sees(&mut watcher, "typing_stop", json!({"room_id": "a", "client_id": "alice"})).await;
    sees_presence(&mut watcher, "alice", "offline").await;
    is_hidden(&mut watcher).await;
    assert_eq!(members(&mut alice, "a").await, (lines(&[("alice", "invisible"), ("watcher", "online")]), 2));
    // Of what it does only its messages are seen.
    alice.json(json!({"type": "typing_start", "payload": {"room_id": "a"}})).await;
    alice.json(json!({"type": "typing_stop", "payload": {"room_id": "a"}})).await;
    alice.publish("a", json!("psst")).await;
    assert_eq!(watcher.expect("chat_message").await["payload"]["sender_id"], "alice");
    alice.json(json!({"type": "read_receipt", "payload": {"room_id": "a", "offset": 1}})).await;
    served(&mut alice, "a").await;
    assert_eq!(sees_nothing(&mut watcher).await["recipients"], 1, "itself, as far as it knows");
    // Cut off, and back: none of it shows.
    drop(alice);
    let mut alice = session(&gateway, "alice").await;
    assert_eq!(alice.join("a").await["count"], 2);
    sees_nothing(&mut watcher).await;
    is_hidden(&mut watcher).await;
    says(&mut alice, "online").await;
    sees_presence(&mut watcher, "alice", "online").await;
    assert_eq!(members(&mut watcher, "a").await.1, 2);
}

/// No answer tells a client that it is invisible now: it can only say so and go on.
#[tokio::test]
async fn who_says_invisible_and_joins_at_once_is_not_seen_for_a_moment() {
    let gateway = rooms("").await;
    let mut watcher = session(&gateway, "watcher").await;
    watcher.join("a").await;
    for round in 0..20 {
        let client = format!("client-{round}");
        let mut raw = raw_session(gateway.tcp().await, &client).await;
        let status = request_frame("presence_update", json!({"status": "invisible"}), "status");
        let room = json!({"room_id": "a"});
        // There is one message for each round so far.
        let requests = [
            status,
            request_frame("join_room", room.clone(), "join"),
            request_frame("typing_start", room.clone(), "typing"),
            request_frame("read_receipt", json!({"room_id": "a", "offset": round}), "receipt"),
            request_frame("room_members", room, "members"),
        ];
        raw.send(requests.concat()).await;
        loop {
            let message: Value = serde_json::from_slice(&raw.read_frame().await.payload).unwrap();
            if message["type"] == "room_members" {
                break;
            }
        }
        sees_nothing(&mut watcher).await;
    }
}

#[tokio::test]
async fn a_question_is_answered_by_the_rooms_that_are_shared() {
    let gateway = rooms("").await;
    let mut clients = Vec::new();
    for name in ["alice", "bob", "carol", "dave"] {
        clients.push(session(&gateway, name).await);
    }
    let [alice, bob, carol, dave] = &mut clients[..] else { unreachable!() };
    for room in ["a", "b", "c"] {
        alice.join(room).await;
        bob.join(room).await;
    }
    carol.join("c").await;
    dave.join("elsewhere").await;
    let all = json!({"client_ids": ["bob", "carol", "dave", "nobody", "alice", "bob"]});
    let mut found = query(alice, all.clone()).await;
    found.sort();
    let offline = [("dave", "offline"), ("nobody", "offline")];
    assert_eq!(found, lines(&[("alice", "online"), ("bob", "online"), ("carol", "online"), offline[0], offline[1]]));
    let mut found = query(dave, all).await;
    found.sort();
    let none = [("alice", "offline"), ("bob", "offline"), ("carol", "offline"), ("dave", "online"), offline[1]];
    assert_eq!(found, lines(&none));
    assert_eq!(
        query(carol, json!({"room_id": "c"})).await,
        lines(&[("alice", "online"), ("bob", "online"), ("carol", "online")])
    );
    for room in ["a", "nowhere"] {
        carol.refused("presence_query", json!({"room_id": room}), 4007).await;
    }
    // A session that is in no room asks too.
    let mut guest = session(&gateway, "guest").await;
    assert_eq!(query(&mut guest, json!({"client_ids": ["alice"]})).await, lines(&[("alice", "offline")]));
}

#[tokio::test]
async fn pages_of_members_are_in_order_and_skip_who_is_invisible() {
    let gateway = rooms("").await;
    let mut sessions = Vec::new();
    for i in [3, 1, 8, 0, 2, 7, 4, 6, 5] {
        let name = format!("c{i}");
        let mut one = session(&gateway, &name).await;
        if i % 4 == 2 {
            says(&mut one, "invisible").await;
        }
        one.join("a").await;
        sessions.push((name, one));
    }
    let (_, viewer) = &mut sessions[0];
    for (payload, names, next) in [
        (json!({}), vec!["c0", "c1", "c3", "c4", "c5", "c7", "c8"], None),
        (json!({"limit": 3}), vec!["c0", "c1", "c3"], Some("c3")),
        (json!({"limit": 3, "after": "c3"}), vec!["c4", "c5", "c7"], Some("c7")),
        (json!({"limit": 3, "after": "c7"}), vec!["c8"], None),
        (json!({"limit": 1, "after": "c50"}), vec!["c7"], Some("c7")),
        (json!({"limit": 2, "after": "c6"}), vec!["c7", "c8"], None),
        (json!({"limit": 5, "after": "c8"}), vec![], None),
        (json!({"limit": 100_000, "after": null}), vec!["c0", "c1", "c3", "c4", "c5", "c7", "c8"], None),
    ] {
        let mut asked = payload.clone();
        asked["room_id"] = json!("a");
        let page = viewer.ask("room_members", asked).await["payload"].clone();
        let found: Vec<_> = page["members"].as_array().unwrap().iter().map(|m| m["client_id"].clone()).collect();
        assert_eq!(found, names, "{payload}");
        assert_eq!((page["count"].as_u64(), page["next"].as_str()), (Some(7), next), "{payload}");
    }
}
