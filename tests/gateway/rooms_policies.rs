//! Who may do what: policies by pattern, claims, namespaces, bounds, conflation.
use crate::rooms::session;
use crate::rooms_help::*;
use crate::support::token::good;
use crate::support::*;
use serde_json::{Value, json};

fn policy(pattern: &str, rules: &str) -> String {
    format!("[[rooms.policy]]\nmatch = \"{pattern}\"\n{rules}\n")
}

/// Whether this request is done (`true`) or refused with 4007.
async fn may(client: &mut Client, kind: &str, room: &str) -> bool {
    let answer = client.ask(kind, json!({"room_id": room, "message": 1})).await;
    if answer["type"] == "error" {
        assert_eq!(
            (&answer["payload"]["code"], &answer["payload"]["retryable"]),
            (&json!(4007), &json!(false)),
            "{answer}"
        );
        return false;
    }
    true
}

fn claims(rooms: Option<&[&str]>, publish: Option<&[&str]>) -> Token {
    let mut token = Token::of("alice");
    for (claim, patterns) in [("rooms", rooms), ("publish", publish)] {
        if let Some(patterns) = patterns {
            token = token.with(claim, json!(patterns));
        }
    }
    token
}

#[tokio::test]
async fn claims_say_where_a_client_may_join_and_publish() {
    let both = "join = \"claim\"\npublish = \"claim\"";
    let gateway = rooms(&[policy("private-*", both), policy("wall-*", "publish = \"claim\"")].concat()).await;
    // Claims, then: join private-1, publish there, join wall-1, publish there, the same of an open room.
    type Patterns = Option<&'static [&'static str]>;
    let table: [(Patterns, Patterns, [bool; 6]); 8] = [
        (None, None, [false, false, true, false, true, true]),
        (Some(&["*"]), None, [true, true, true, true, true, true]),
        (Some(&["private-1", "other"]), None, [true, true, true, false, true, true]),
        (Some(&["private-2"]), None, [false, false, true, false, true, true]),
        (Some(&["private-*"]), Some(&["wall-*"]), [true, false, true, true, true, true]),
        (Some(&["private-*"]), Some(&[]), [true, false, true, false, true, true]),
        (Some(&[]), Some(&["*"]), [false, false, true, true, true, true]),
        (None, Some(&["*-1"]), [false, false, true, true, true, true]),
    ];
    for (rooms, publish, wanted) in table {
        let mut alice = session_of(&gateway, "/ws", &claims(rooms, publish)).await;
        let mut found = Vec::new();
        for room in ["private-1", "wall-1", "open"] {
            found.push(may(&mut alice, "join_room", room).await);
            found.push(may(&mut alice, "message", room).await);
        }
        assert_eq!(found, wanted, "rooms: {rooms:?}, publish: {publish:?}");
    }
}

#[tokio::test]
async fn a_claim_has_its_effect_when_the_token_is_refreshed() {
    let gateway = rooms(&policy("private-*", "join = \"claim\"\npublish = \"claim\"")).await;
    let mut watcher = session_of(&gateway, "/ws", &claims(Some(&["private-*"]), None)).await;
    watcher.join("private-1").await;
    let mut alice = session_of(&gateway, "/ws", &claims(Some(&["private-*"]), None)).await;
    alice.join("private-1").await;
    assert!(may(&mut alice, "message", "private-1").await);
    let refresh = async |alice: &mut Client, token: Token| {
        let answer = alice.ask("auth", json!({"token": token.sign()})).await;
        assert_eq!(answer["type"], "auth_response", "{answer}");
    };
    refresh(&mut alice, claims(Some(&["private-*"]), Some(&["private-2"]))).await;
    assert!(!may(&mut alice, "message", "private-1").await);
    refresh(&mut alice, claims(Some(&["nothing"]), None)).await;
    // What it may not join any more it may not stay in either.
    let left = alice.skip_to("room_left").await;
    assert_eq!((&left["payload"]["room_id"], &left["payload"]["code"]), (&json!("private-1"), &json!(4007)), "{left}");
    for (kind, room) in [("message", "private-1"), ("join_room", "private-2"), ("room_members", "private-1")] {
        assert!(!may(&mut alice, kind, room).await, "{kind} {room}");
    }
    assert!(!may(&mut alice, "join_room", "private-1").await);
    refresh(&mut alice, claims(Some(&["private-*"]), None)).await;
    alice.join("private-1").await;
    alice.publish("private-1", json!("back")).await;
    assert_eq!(chat(&mut watcher).await, (1, json!(1)));
    assert_eq!(chat(&mut watcher).await, (2, json!("back")), "what was refused reached nobody");
}

#[tokio::test]
async fn where_only_servers_publish_no_token_helps() {
    let gateway = rooms(&policy("news", "publish = \"none\"")).await;
    let mut alice = session_of(&gateway, "/ws", &claims(Some(&["*"]), Some(&["*"])).with("broadcast", true)).await;
    alice.join("news").await;
    let error = alice.refused("message", json!({"room_id": "news", "message": 1}), 4007).await;
    assert_eq!(error["payload"]["retryable"], false, "{error}");
    // Typing and receipts are no messages.
    let mut watcher = session(&gateway, "watcher").await;
    watcher.join("news").await;
    alice.json(json!({"type": "typing_start", "payload": {"room_id": "news"}})).await;
    sees(&mut watcher, "typing_start", json!({"room_id": "news", "client_id": "alice"})).await;
    alice.join("other").await;
    alice.publish("other", json!(1)).await;
}

#[tokio::test]
async fn where_rooms_are_declared_there_are_no_others() {
    let declared = [
        "create = \"declared\"\n".to_owned(),
        policy("lobby", ""),
        policy("team-*", ""),
        policy("free-*", "create = \"join\""),
    ];
    let gateway = rooms(&declared.concat()).await;
    let mut alice = session(&gateway, "alice").await;
    for (room, exists) in
        [("lobby", true), ("team-1", false), ("team-*", false), ("lobby2", false), ("x", false), ("free-1", true)]
    {
        if room.contains('*') {
            alice.refused("join_room", json!({"room_id": room}), 4006).await;
        } else {
            assert_eq!(may(&mut alice, "join_room", room).await, exists, "{room}");
        }
        if !exists {
            assert!(room.contains('*') || !may(&mut alice, "message", room).await, "{room}");
        }
    }
    // A refused join leaves nothing behind.
    let gateway = rooms("create = \"declared\"\nmax_rooms_per_client = 1\n[[rooms.policy]]\nmatch = \"lobby\"\n").await;
    let mut alice = session(&gateway, "alice").await;
    for _ in 0..3 {
        assert!(!may(&mut alice, "join_room", "x").await);
    }
    alice.join("lobby").await;
}

#[tokio::test]
async fn the_first_policy_that_matches_wins_and_the_rest_is_as_for_all_rooms() {
    let policies = [
        "max_members = 3\nhistory = { messages = 4 }\n".to_owned(),
        policy("a-b-*", "max_members = 1"),
        policy("a-*", "max_members = 2\nhistory = { messages = 2 }"),
        policy("*-z", "history = { messages = 1 }"),
    ];
    let gateway = rooms(&policies.concat()).await;
    for (room, places, kept) in [("a-b-c", 1, 4), ("a-c", 2, 2), ("a-z", 2, 2), ("b-z", 3, 1), ("other", 3, 4)] {
        let mut inside = Vec::new();
        for n in 0..places {
            let mut one = session(&gateway, &format!("c{n}")).await;
            one.join(room).await;
            inside.push(one);
        }
        let mut late = session(&gateway, "late").await;
        let error = late.refused("join_room", json!({"room_id": room}), 4008).await;
        assert_eq!(error["payload"]["retryable"], true, "{room}");
        // Another tab of one who is inside is no other client.
        session(&gateway, "c0").await.join(room).await;
        let epoch = inside[0].publish(room, json!(1)).await["position"]["epoch"].clone();
        for n in 2..=10 {
            inside[0].publish(room, json!(n)).await;
        }
        for (offset, recovered) in [(10 - kept, true), (10 - kept - 1, false)] {
            let mut tab = session(&gateway, "c0").await;
            let joined = join_since(&mut tab, room, &json!({"epoch": epoch, "offset": offset})).await;
            assert_eq!(joined["recovered"], recovered, "{room}, since {offset}");
        }
    }
}

#[tokio::test]
async fn namespaces_never_see_each_other() {
    let route = |name: &str| format!("[[route]]\npath = \"/{name}\"\nservice = \"rooms\"\nnamespace = \"{name}\"\n");
    let config = [PLAIN, SECRET_AUTH, &route("one"), &route("two"), LIFTED, "[rooms]\nmax_rooms_per_client = 2\n"];
    let gateway = Gateway::start(&config.concat()).await;
    let speaker = Token::of("alice").with("broadcast", true);
    let mut one = session_of(&gateway, "/one", &speaker).await;
    let mut two = session_of(&gateway, "/two", &Token::of("bob")).await;
    let mut namesake = session_of(&gateway, "/two", &Token::of("alice")).await;
    for client in [&mut one, &mut two] {
        assert_eq!(client.join("a").await["count"], 1);
    }
    assert_eq!(namesake.join("a").await["count"], 2);
    sees_presence(&mut two, "alice", "online").await;
    // Presence, statuses, typing, receipts, messages and messages to all stay where they are.
    one.json(json!({"type": "presence_update", "payload": {"status": "invisible"}})).await;
    one.json(json!({"type": "typing_start", "payload": {"room_id": "a"}})).await;
    one.publish("a", json!("in one")).await;
    one.json(json!({"type": "read_receipt", "payload": {"room_id": "a", "offset": 1}})).await;
    assert_eq!(one.ask("message", json!({"message": "to all"})).await["type"], "message_sent");
    served(&mut one, "a").await;
    sees_nothing(&mut two).await;
    let (found, count) = members(&mut two, "a").await;
    let online = |client: &str| (client.to_owned(), "online".to_owned());
    assert_eq!((found, count), (vec![online("alice"), online("bob")], 2));
    let asked = json!({"client_ids": ["alice", "bob"]});
    let answer = one.ask("presence_query", asked).await;
    let found = answer["payload"]["presences"].as_array().unwrap();
    let status = |client: &str| found.iter().find(|p| p["client_id"] == client).unwrap()["status"].clone();
    assert_eq!((status("alice"), status("bob")), (json!("invisible"), json!("offline")), "{answer}");
    two.publish("a", json!("in two")).await;
    assert_eq!(chat(&mut two).await, (2, json!("in two")), "a count of its own");
    assert_eq!(chat(&mut namesake).await, (1, json!("mark")));
    assert_eq!(chat(&mut namesake).await, (2, json!("in two")));
    one.ask("leave_room", json!({"room_id": "a"})).await;
    drop(one);
    sees_nothing(&mut two).await;
    // Nor do the rooms of a namesake count.
    let mut one = session_of(&gateway, "/one", &Token::of("alice")).await;
    one.join("x").await;
    one.join("y").await;
    namesake.join("x").await;
    namesake.refused("join_room", json!({"room_id": "y"}), 4008).await;
}

#[tokio::test]
async fn the_rooms_of_a_client_are_counted_over_its_sockets() {
    let gateway = rooms("max_rooms_per_client = 3").await;
    let mut one = session(&gateway, "alice").await;
    let mut two = session(&gateway, "alice").await;
    let mut other = session(&gateway, "bob").await;
    for room in ["a", "b"] {
        one.join(room).await;
        two.join(room).await;
    }
    two.join("c").await;
    for client in [&mut one, &mut two] {
        client.refused("join_room", json!({"room_id": "d"}), 4008).await;
    }
    one.join("c").await;
    for room in ["d", "e", "f"] {
        other.join(room).await;
    }
    // A room counts until the last session has left it.
    one.ask("leave_room", json!({"room_id": "a"})).await;
    one.refused("join_room", json!({"room_id": "d"}), 4008).await;
    two.ask("leave_room", json!({"room_id": "a"})).await;
    one.join("d").await;
    two.refused("join_room", json!({"room_id": "e"}), 4008).await;
    // So does one of a socket that is gone: the place is free some time after that.
    drop(one);
    let two = tokio::sync::Mutex::new(two);
    eventually(|| async {
        (two.lock().await.ask("join_room", json!({"room_id": "e"})).await["type"] == "room_joined").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_conflated_room_sends_the_newest_and_recovers_nothing() {
    let gateway = rooms(&policy("prices-*", "latest_only = \"500ms\"")).await;
    let mut watchers = Vec::new();
    for n in 0..3 {
        let mut watcher = session(&gateway, &format!("watcher-{n}")).await;
        let joined = watcher.join("prices-eur").await;
        assert_eq!((&joined["conflated"], joined.get("recovered")), (&json!(true), None), "{joined}");
        watchers.push(watcher);
    }
    let mut publisher = session(&gateway, "publisher").await;
    let start = publisher.join("prices-eur").await["position"].clone();
    let started = std::time::Instant::now();
    for n in 1..=50 {
        let sent = publisher.publish("prices-eur", json!(n)).await;
        assert_eq!(sent["position"]["offset"], n);
    }
    for watcher in &mut watchers {
        let mut offsets: Vec<u64> = Vec::new();
        while offsets.last() != Some(&50) {
            let (offset, message) = chat(watcher).await;
            assert_eq!(message, json!(offset));
            assert!(offsets.last().is_none_or(|last| *last < offset), "{offset} after {offsets:?}");
            offsets.push(offset);
        }
        assert_eq!(offsets[0], 1, "the first one waits for nothing");
        let intervals = started.elapsed().as_millis() as usize / 500;
        assert!(offsets.len() <= intervals + 1, "{offsets:?} in {intervals} intervals");
    }
    let joined = join_since(&mut watchers[0], "prices-eur", &start).await;
    assert_eq!((&joined["recovered"], &joined["conflated"]), (&json!(false), &json!(true)), "{joined}");
    let current = joined["position"].clone();
    let joined = join_since(&mut watchers[0], "prices-eur", &current).await;
    assert_eq!(joined["recovered"], false, "in a conflated room nothing is promised");
    // Another room is not conflated.
    publisher.join("other").await;
    watchers[1].join("other").await;
    for n in 1..=5 {
        publisher.publish("other", json!(n)).await;
    }
    for n in 1..=5 {
        assert_eq!(chat(&mut watchers[1]).await, (n, json!(n)));
    }
}

#[tokio::test]
async fn an_anonymous_client_has_no_claims() {
    let config = [
        PLAIN,
        SECRET_AUTH,
        "required = false\n",
        ROOMS,
        LIFTED,
        "[rooms]\n",
        &policy("private-*", "join = \"claim\""),
    ];
    let gateway = Gateway::start(&config.concat()).await;
    let mut guest: Client = gateway.open("/ws").await;
    guest.expect("connection_established").await;
    assert!(!may(&mut guest, "join_room", "private-1").await);
    guest.join("open").await;
    let mut known = gateway.open_as("/ws", &good("alice")).await;
    known.expect("connection_established").await;
    let answer: Value = known.refused("join_room", json!({"room_id": "private-1"}), 4007).await;
    assert!(answer["payload"]["message"].is_string());
}
