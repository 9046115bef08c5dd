//! The calls of the admin interface, and what clients see of them.
use crate::rooms::session;
use crate::support::raw::Head;
use crate::support::token::good;
use crate::support::*;
use serde_json::{Value, json};

const NO_LIMITS: &str = "[limits]\nmessages_per_second = 0\nhandshakes_per_second = 0\nconnections_per_client = 0\n";

async fn gateway() -> Gateway {
    Gateway::start(&format!("{PLAIN}{SECRET_AUTH}{ROOMS}{ECHO}{ADMIN}{NO_LIMITS}")).await
}

/// A call with a body of this text, of the type `application/json`; without one where it is empty.
async fn raw_call(gateway: &Gateway, method: &str, path: &str, body: &str) -> (Head, String) {
    let tcp = within(tokio::net::TcpStream::connect(gateway.admin())).await.unwrap();
    let mut raw = RawWs::over(tcp);
    let typed = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", gateway.admin());
    raw.send(format!("{head}{typed}Content-Length: {length}\r\n\r\n{body}")).await;
    let head = raw.read_head().await;
    let body = String::from_utf8(raw.read_body(&head).await).unwrap();
    (head, body)
}

pub async fn call(gateway: &Gateway, method: &str, path: &str, body: Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (head, answer) = raw_call(gateway, method, path, &body).await;
    (head.status, serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: {answer}")))
}

/// The answer of a call that succeeds.
pub async fn done(gateway: &Gateway, method: &str, path: &str, body: Value) -> Value {
    let (status, answer) = call(gateway, method, path, body).await;
    assert_eq!(status, 200, "{method} {path}: {answer}");
    answer
}

/// Publishes, and has to be told a place.
async fn publish(gateway: &Gateway, room: &str, message: Value) -> Value {
    done(gateway, "POST", "/api/publish", json!({"room_id": room, "message": message})).await
}

pub async fn get(gateway: &Gateway, path: &str) -> Value {
    done(gateway, "GET", path, Value::Null).await
}

/// Nothing of this type has come before the answer to a ping.
pub async fn sees_none(client: &mut Client, kind: &str) {
    client.json(json!({"type": "ping", "payload": {}})).await;
    loop {
        let message = client.next_json().await;
        assert_ne!(message["type"], kind, "{message}");
        if message["type"] == "pong" {
            return;
        }
    }
}

#[tokio::test]
async fn a_server_publishes_to_every_member() {
    let gateway = gateway().await;
    let mut alice = session(&gateway, "alice").await;
    let mut bob = session(&gateway, "bob").await;
    let mut carol = session(&gateway, "carol").await;
    alice.join("tea").await;
    bob.join("tea").await;
    carol.join("coffee").await;
    let body =
        r#"{"room_id":"tea","sender_id":"system","message_id":"m-1","message": {"n":1.10,  "b":12345678901234567890}}"#;
    let (head, answer) = raw_call(&gateway, "POST", "/api/publish", body).await;
    assert_eq!(head.status, 200, "{answer}");
    let sent: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((&sent["duplicate"], &sent["recipients"]), (&json!(false), &json!(2)), "{sent}");
    assert_eq!(sent["position"]["offset"], 1);
    for client in [&mut alice, &mut bob] {
        let text = loop {
            let text = client.next_text().await;
            if text.contains("chat_message") {
                break text;
            }
        };
        assert!(text.contains(r#"{"n":1.10,  "b":12345678901234567890}"#), "byte for byte: {text}");
        let chat: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(chat["payload"]["sender_id"], "system");
        assert_eq!(chat["payload"]["position"], sent["position"]);
        assert_eq!(chat["metadata"]["message_id"], "m-1");
    }
    sees_none(&mut carol, "chat_message").await;
    let (head, again) = raw_call(&gateway, "POST", "/api/publish", body).await;
    let again: Value = serde_json::from_str(&again).unwrap();
    assert_eq!((head.status, &again["duplicate"], &again["position"]), (200, &json!(true), &sent["position"]));
    sees_none(&mut alice, "chat_message").await;
}

#[tokio::test]
async fn a_message_of_nobody_has_no_sender() {
    let gateway = gateway().await;
    let mut alice = session(&gateway, "alice").await;
    alice.join("tea").await;
    publish(&gateway, "tea", json!("hi")).await;
    let chat = alice.skip_to("chat_message").await;
    assert_eq!((&chat["payload"]["sender_id"], &chat["payload"]["message"]), (&Value::Null, &json!("hi")), "{chat}");
}

#[tokio::test]
async fn a_list_is_published_in_its_order() {
    let gateway = gateway().await;
    let mut alice = session(&gateway, "alice").await;
    alice.join("tea").await;
    let mut items: Vec<Value> = (0..1000).map(|i| json!({"room_id": "tea", "message": i})).collect();
    items[500] = json!({"room_id": "not a name", "message": 500});
    let (status, answer) = call(&gateway, "POST", "/api/publish", items.into()).await;
    assert_eq!(status, 207, "{answer}");
    let answers = answer.as_array().unwrap();
    assert_eq!(answers.len(), 1000);
    let mut offset = 0;
    for (i, item) in answers.iter().enumerate() {
        if i == 500 {
            assert_eq!((&item["status"], &item["error"]["code"]), (&json!(400), &json!(4006)), "{item}");
            continue;
        }
        offset += 1;
        assert_eq!((&item["status"], &item["position"]["offset"]), (&json!(200), &json!(offset)), "{item}");
    }
    for i in (0..1000).filter(|i| *i != 500) {
        assert_eq!(alice.skip_to("chat_message").await["payload"]["message"], i);
    }
}

#[tokio::test]
async fn rooms_are_listed_by_pages() {
    let gateway = gateway().await;
    let mut alice = session(&gateway, "alice").await;
    let mut bob = session(&gateway, "bob").await;
    for room in ["chat/a", "chat/b", "chat/c", "other"] {
        alice.join(room).await;
    }
    bob.join("chat/b").await;
    publish(&gateway, "chat/b", json!(1)).await;
    let all = get(&gateway, "/api/rooms").await;
    let expected = json!({"rooms": [
        {"room_id": "chat/a", "members": 1, "offset": 0},
        {"room_id": "chat/b", "members": 2, "offset": 1},
        {"room_id": "chat/c", "members": 1, "offset": 0},
        {"room_id": "other", "members": 1, "offset": 0},
    ]});
    assert_eq!(all, expected);
    assert_eq!(get(&gateway, "/api/rooms?prefix=chat/&after=chat/c").await, json!({"rooms": []}));
    let first = get(&gateway, "/api/rooms?prefix=chat%2F&limit=2").await;
    assert_eq!((first["rooms"].as_array().unwrap().len(), &first["next"]), (2, &json!("chat/b")), "{first}");
    let last = get(&gateway, "/api/rooms?prefix=chat%2F&limit=2&after=chat%2Fb").await;
    assert_eq!((&last["rooms"][0]["room_id"], last.get("next")), (&json!("chat/c"), None), "{last}");
}

#[tokio::test]
async fn a_room_shows_its_members_by_pages() {
    let gateway = gateway().await;
    let mut clients = Vec::new();
    for name in ["alice", "bob", "bob", "carol"] {
        let mut client = session(&gateway, name).await;
        client.join("chat/tea").await;
        clients.push(client);
    }
    let position = publish(&gateway, "chat/tea", json!(1)).await["position"].clone();
    let room = get(&gateway, "/api/rooms/chat%2Ftea").await;
    assert_eq!((&room["room_id"], &room["count"]), (&json!("chat/tea"), &json!(3)), "{room}");
    assert_eq!((&room["position"], room.get("next")), (&position, None), "{room}");
    let names: Vec<&str> =
        room["members"].as_array().unwrap().iter().map(|m| m["client_id"].as_str().unwrap()).collect();
    assert_eq!(names, ["alice", "bob", "carol"]);
    assert_eq!(room["members"][0]["status"], "online");
    assert!(room["members"][0]["since"].as_str().unwrap().ends_with('Z'), "{room}");
    let page = get(&gateway, "/api/rooms/chat%2Ftea?limit=1&after=alice").await;
    assert_eq!((&page["members"][0]["client_id"], &page["next"]), (&json!("bob"), &json!("bob")), "{page}");
    let (status, answer) = call(&gateway, "GET", "/api/rooms/nowhere", Value::Null).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!(4007)));
}

#[tokio::test]
async fn history_is_what_was_sent() {
    let gateway = gateway().await;
    let mut alice = session(&gateway, "alice").await;
    alice.join("tea").await;
    let mut seen = Vec::new();
    for i in 0..5 {
        publish(&gateway, "tea", json!({"i": i, "text": "ä\"\n"})).await;
        seen.push(alice.skip_to("chat_message").await);
    }
    let all = get(&gateway, "/api/rooms/tea/history").await;
    assert_eq!(all["messages"], Value::Array(seen.clone()));
    assert_eq!((&all["room_id"], &all["lost"]), (&json!("tea"), &json!(false)), "{all}");
    assert_eq!(all["position"], seen[4]["payload"]["position"]);
    let some = get(&gateway, "/api/rooms/tea/history?since=2&limit=2").await;
    assert_eq!(some["messages"], json!([seen[2], seen[3]]));
    let last = get(&gateway, "/api/rooms/tea/history?limit=2").await;
    assert_eq!(last["messages"], json!([seen[3], seen[4]]), "without a beginning, the last ones");
    let none = get(&gateway, "/api/rooms/tea/history?since=5").await;
    assert_eq!((&none["messages"], &none["lost"]), (&json!([]), &json!(false)));
    assert_eq!(call(&gateway, "GET", "/api/rooms/nowhere/history", Value::Null).await.0, 404);
}

#[tokio::test]
async fn history_says_what_it_has_lost() {
    let rooms = "[rooms.history]\nmessages = 2\n";
    let gateway = Gateway::start(&format!("{PLAIN}{SECRET_AUTH}{ROOMS}{ADMIN}{NO_LIMITS}{rooms}")).await;
    for i in 0..4 {
        publish(&gateway, "tea", json!(i)).await;
    }
    let history = get(&gateway, "/api/rooms/tea/history?since=0").await;
    assert_eq!((history["messages"].as_array().unwrap().len(), &history["lost"]), (2, &json!(true)), "{history}");
    assert_eq!(get(&gateway, "/api/rooms/tea/history?since=2").await["lost"], false);
}

#[tokio::test]
async fn a_kick_ends_one_membership_of_all_sessions() {
    let gateway = gateway().await;
    let mut alice = session(&gateway, "alice").await;
    let mut bobs = [session(&gateway, "bob").await, session(&gateway, "bob").await];
    alice.join("tea").await;
    for bob in &mut bobs {
        bob.join("tea").await;
        bob.join("coffee").await;
    }
    let kicked = done(&gateway, "POST", "/api/rooms/tea/kick", json!({"client_id": "bob"})).await;
    assert_eq!(kicked, json!({"sessions": 2}));
    for bob in &mut bobs {
        let left = bob.skip_to("room_left").await;
        assert_eq!((&left["payload"]["room_id"], &left["payload"]["code"]), (&json!("tea"), &json!(4013)), "{left}");
        bob.publish("coffee", json!("still there")).await;
    }
    let gone = loop {
        let update = alice.skip_to("presence_update").await;
        if update["payload"]["status"] == "offline" {
            break update;
        }
    };
    assert_eq!(gone["payload"]["client_id"], "bob", "{gone}");
    let again = done(&gateway, "POST", "/api/rooms/tea/kick", json!({"client_id": "bob"})).await;
    assert_eq!(again, json!({"sessions": 0}));
}

#[tokio::test]
async fn sessions_of_a_client_are_shown_and_closed_on_every_service() {
    let gateway = gateway().await;
    let mut room = session(&gateway, "bob").await;
    room.join("tea").await;
    let mut echo = gateway.open_as("/echo", &good("bob")).await;
    let mut other = session(&gateway, "alice").await;
    let shown = eventually(|| async {
        let shown = get(&gateway, "/api/clients/bob").await;
        (shown["sessions"].as_array().unwrap().len() == 2).then_some(shown)
    })
    .await;
    let of = |route: &str| shown["sessions"].as_array().unwrap().iter().find(|s| s["route"] == route).unwrap().clone();
    assert_eq!((&of("/ws")["rooms"], &of("/ws")["status"]), (&json!(["tea"]), &json!("online")), "{shown}");
    assert_eq!((&of("/echo")["rooms"], of("/echo").get("status")), (&json!([]), None), "{shown}");
    assert_ne!(of("/ws")["session_id"], of("/echo")["session_id"]);
    assert!(of("/echo")["since"].as_str().unwrap().ends_with('Z'), "{shown}");
    let closed = done(&gateway, "DELETE", "/api/clients/bob", json!({"reason": "rude\nwords"})).await;
    assert_eq!(closed, json!({"sessions": 2}));
    let told = room.skip_to("disconnect").await;
    assert_eq!((&told["payload"]["code"], &told["payload"]["reconnect"]), (&json!(4013), &json!(false)), "{told}");
    assert_eq!(room.closes_with(4013).await, "disconnected by an administrator: rude words");
    echo.closes_with(4013).await;
    sees_none(&mut other, "disconnect").await;
    assert_eq!(get(&gateway, "/api/clients/nobody").await, json!({"client_id": "nobody", "sessions": []}));
    assert_eq!(done(&gateway, "DELETE", "/api/clients/nobody", Value::Null).await, json!({"sessions": 0}));
}

#[tokio::test]
async fn an_application_notifies_clients_or_everyone() {
    let gateway = gateway().await;
    let mut alice = session(&gateway, "alice").await;
    let mut bobs = [session(&gateway, "bob").await, session(&gateway, "bob").await];
    let payload = json!({"title": "hello", "body": "ä\"\n"});
    let body = json!({"client_ids": ["bob", "nobody", "bob"], "type": "notification", "payload": payload});
    assert_eq!(done(&gateway, "POST", "/api/notify", body).await, json!({"sessions": 2}));
    for bob in &mut bobs {
        let pushed = bob.skip_to("notification").await;
        assert_eq!(pushed["payload"], payload);
        assert!(pushed["metadata"]["message_id"].is_string() && pushed["metadata"]["timestamp"].is_string());
        assert!(pushed["metadata"].get("correlation_id").is_none(), "{pushed}");
    }
    sees_none(&mut alice, "notification").await;
    let body = json!({"everyone": true, "type": "shop:closing"});
    assert_eq!(done(&gateway, "POST", "/api/notify", body).await, json!({"sessions": 3}));
    for client in bobs.iter_mut().chain([&mut alice]) {
        assert_eq!(client.skip_to("shop:closing").await["payload"], json!({}));
    }
}

#[tokio::test]
async fn a_ban_closes_every_session_and_is_listed() {
    let gateway = gateway().await;
    let mut bob = session(&gateway, "bob").await;
    let mut echo = gateway.open_as("/echo", &good("bob")).await;
    let mut alice = session(&gateway, "alice").await;
    eventually(|| async {
        (get(&gateway, "/api/clients/bob").await["sessions"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    let banned = done(&gateway, "PUT", "/api/bans/bob", json!({"reason": "spam", "seconds": 3600})).await;
    assert_eq!(banned, json!({"sessions": 2}));
    bob.closes_with(4009).await;
    echo.closes_with(4009).await;
    sees_none(&mut alice, "disconnect").await;
    let bans = get(&gateway, "/api/bans").await;
    let ban = &bans["bans"][0];
    assert_eq!(
        (&ban["client_id"], &ban["reason"], ban.get("room_id")),
        (&json!("bob"), &json!("spam"), None),
        "{bans}"
    );
    assert!(ban["until"].is_string() && ban["since"].is_string(), "{bans}");
    assert_eq!(done(&gateway, "DELETE", "/api/bans/bob", Value::Null).await, json!({"lifted": true}));
    assert_eq!(get(&gateway, "/api/bans").await, json!({"bans": []}));
}

/// Whenever the ban of a caller that is gone is there, the sessions end too.
#[tokio::test]
async fn a_ban_is_carried_out_also_where_nobody_waits() {
    let gateway = gateway().await;
    let (mut bob, mut eve) = (session(&gateway, "bob").await, session(&gateway, "eve").await);
    eve.join("tea").await;
    for (number, client, body) in [(1, "bob", "{}"), (2, "eve", r#"{"room_id":"tea"}"#)] {
        let head = format!("PUT /api/bans/{client} HTTP/1.1\r\nHost: {}\r\n", gateway.admin());
        let more = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        // A caller that is gone before its call was read has asked for nothing.
        eventually(|| async {
            let mut raw = RawWs::over(within(tokio::net::TcpStream::connect(gateway.admin())).await.unwrap());
            raw.send(format!("{head}{more}{body}")).await;
            drop(raw);
            (get(&gateway, "/api/bans").await["bans"].as_array().unwrap().len() == number).then_some(())
        })
        .await;
    }
    bob.closes_with(4009).await;
    assert_eq!(eve.skip_to("room_left").await["payload"]["code"], 4009);
}

#[tokio::test]
async fn a_ban_from_a_room_ends_the_membership_there() {
    let gateway = gateway().await;
    let mut bob = session(&gateway, "bob").await;
    bob.join("tea").await;
    bob.join("coffee").await;
    let banned = done(&gateway, "PUT", "/api/bans/bob", json!({"room_id": "tea"})).await;
    assert_eq!(banned, json!({"sessions": 1}));
    let left = bob.skip_to("room_left").await;
    assert_eq!((&left["payload"]["room_id"], &left["payload"]["code"]), (&json!("tea"), &json!(4009)), "{left}");
    bob.publish("coffee", json!(1)).await;
    assert_eq!(done(&gateway, "DELETE", "/api/bans/bob", Value::Null).await, json!({"lifted": false}), "another ban");
    assert_eq!(done(&gateway, "DELETE", "/api/bans/bob?room_id=tea", Value::Null).await, json!({"lifted": true}));
}

#[tokio::test]
async fn who_is_banned_stays_out_until_the_ban_is_lifted() {
    let gateway = gateway().await;
    done(&gateway, "PUT", "/api/bans/bob", json!({})).await;
    for path in ["/ws", "/echo"] {
        gateway.open_as(path, &good("bob")).await.closes_with(4009).await;
    }
    session(&gateway, "alice").await;
    done(&gateway, "DELETE", "/api/bans/bob", Value::Null).await;
    session(&gateway, "bob").await;
}

#[tokio::test]
async fn who_is_banned_from_a_room_joins_others_until_the_ban_is_lifted() {
    let gateway = gateway().await;
    let mut bob = session(&gateway, "bob").await;
    done(&gateway, "PUT", "/api/bans/bob", json!({"room_id": "tea"})).await;
    bob.refused("join_room", json!({"room_id": "tea"}), 4009).await;
    bob.join("coffee").await;
    done(&gateway, "DELETE", "/api/bans/bob?room_id=tea", Value::Null).await;
    bob.join("tea").await;
}

#[tokio::test]
async fn namespaces_do_not_see_each_other() {
    let other = "[[route]]\npath = \"/other\"\nservice = \"rooms\"\nnamespace = \"other\"\n";
    let gateway = Gateway::start(&format!("{PLAIN}{SECRET_AUTH}{ROOMS}{other}{ADMIN}{NO_LIMITS}")).await;
    let mut here = session(&gateway, "bob").await;
    here.join("tea").await;
    let mut there = gateway.open_as("/other", &good("bob")).await;
    there.expect("connection_established").await;
    there.join("tea").await;
    let body = json!({"room_id": "tea", "message": 1, "namespace": "other"});
    assert_eq!(done(&gateway, "POST", "/api/publish", body).await["recipients"], 1);
    there.skip_to("chat_message").await;
    sees_none(&mut here, "chat_message").await;
    assert_eq!(get(&gateway, "/api/rooms?namespace=other").await["rooms"][0]["offset"], 1);
    assert_eq!(get(&gateway, "/api/rooms").await["rooms"][0]["offset"], 0);
    let body = json!({"everyone": true, "type": "n"});
    assert_eq!(done(&gateway, "POST", "/api/notify?namespace=other", body).await, json!({"sessions": 1}));
    assert_eq!(done(&gateway, "DELETE", "/api/clients/bob?namespace=other", Value::Null).await, json!({"sessions": 1}));
    there.closes_with(4013).await;
    sees_none(&mut here, "n").await;
}

#[tokio::test]
async fn a_ban_outlives_a_kill() {
    let folder = Folder::new();
    let store = format!("[rooms.store]\npath = {:?}\n", folder.path().join("store"));
    let config = format!("{PLAIN}{SECRET_AUTH}{ROOMS}{ADMIN}{store}");
    let mut gateway = Gateway::start(&config).await;
    done(&gateway, "PUT", "/api/bans/J%C3%BCrgen", json!({"room_id": "tea", "reason": "spam"})).await;
    done(&gateway, "PUT", "/api/bans/bob", json!({})).await;
    done(&gateway, "DELETE", "/api/bans/bob", Value::Null).await;
    let before = get(&gateway, "/api/bans").await;
    assert_eq!((before["bans"].as_array().unwrap().len(), &before["bans"][0]["client_id"]), (1, &json!("Jürgen")));
    gateway.signal("KILL");
    gateway.exit().await;
    let gateway = Gateway::start(&config).await;
    assert_eq!(get(&gateway, "/api/bans").await, before);
}

#[tokio::test]
async fn a_drain_is_as_sigterm() {
    let config = format!("[server]\ndrain = \"500ms\"\n{PLAIN}{OPEN}{ECHO}{ADMIN}{NO_LIMITS}");
    let mut gateway = Gateway::start(&config).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(gateway.open("/echo").await);
    }
    let (status, answer) = call(&gateway, "POST", "/api/drain", Value::Null).await;
    assert_eq!((status, answer), (202, json!({"phase": "draining", "window_seconds": 0.5})));
    for client in &mut clients {
        client.closes_with(1012).await;
    }
    assert_eq!(gateway.exit().await.code(), Some(0));
}

#[tokio::test]
async fn the_status_counts_what_is_open() {
    let gateway = gateway().await;
    let _room = session(&gateway, "alice").await;
    let mut echo = gateway.open_as("/echo", &good("alice")).await;
    echo.text("x").await;
    echo.next_text().await;
    let status = get(&gateway, "/api/status").await;
    assert_eq!((&status["connections"], &status["phase"]), (&json!(2), &json!("ready")), "{status}");
    assert_eq!(status["sessions"], json!({"rooms": 1, "echo": 1, "proxy": 0}));
    assert_eq!((&status["upstreams"], &status["nodes"]), (&json!([]), &json!([])));
    assert!(status["shards"].as_u64().unwrap() >= 1 && status["version"].is_string(), "{status}");
}

/// A page of another site cannot even make a simple request.
#[tokio::test]
async fn the_calls_are_not_on_the_public_listener_nor_for_pages() {
    let gateway = gateway().await;
    for path in ["/api/status", "/api/drain", "/api/publish"] {
        let mut raw = gateway.raw().await;
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert_eq!(raw.read_head().await.status, 404, "{path}");
    }
    let mut raw = RawWs::over(within(tokio::net::TcpStream::connect(gateway.admin())).await.unwrap());
    let head = format!("POST /api/drain HTTP/1.1\r\nHost: {}\r\nOrigin: https://evil.test\r\n", gateway.admin());
    raw.send(format!("{head}Content-Type: text/plain\r\nContent-Length: 0\r\n\r\n")).await;
    assert_eq!(raw.read_head().await.status, 403);
    assert_eq!(gateway.admin_get("/readyz").await.0, 200, "it goes on");
}
