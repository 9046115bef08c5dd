//! Steps that the tests of rooms share.
use crate::rooms::greeted;
use crate::support::token::good;
use crate::support::*;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

/// Limits of which no test is about.
pub const LIFTED: &str = "[limits]\nmessages_per_second = 0\nbytes_per_second = 0\nconnections_per_client = 0\nconnections_per_ip = 0\n\
     handshakes_per_second = 0\n";

/// `/ws` on two shards, with these keys of `[rooms]`.
pub async fn rooms(rooms: &str) -> Gateway {
    Gateway::start(&format!("[server]\nshards = 2\n{PLAIN}{SECRET_AUTH}{ROOMS}{LIFTED}[rooms]\n{rooms}\n")).await
}

/// A session whose connection is reset when it is dropped.
pub async fn brittle(gateway: &Gateway, client: &str) -> Client {
    let tcp = gateway.tcp().await;
    tcp.set_zero_linger().unwrap();
    let bearer = format!("Bearer {}", good(client));
    greeted(Client::open(tcp, "/ws", &[("Authorization", &bearer)]).await, client).await
}

/// A session with the claims of this token.
pub async fn session_of(gateway: &Gateway, path: &str, token: &Token) -> Client {
    let mut client = gateway.open_as(path, &token.sign()).await;
    client.expect("connection_established").await;
    client
}

/// A connection that takes little of what it has not read.
pub async fn narrow_tcp(gateway: &Gateway) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    within(socket.connect(gateway.address(0).parse().unwrap())).await.unwrap()
}

/// A session over this connection that reads only what the test reads.
pub async fn raw_session(stream: impl client::Pipe + 'static, client: &str) -> RawWs {
    let mut raw = RawWs::over(stream);
    raw.upgrade("/ws", &[&format!("Authorization: Bearer {}", good(client))]).await;
    raw
}

/// The frame of a request.
pub fn request_frame(kind: &str, payload: Value, id: &str) -> Vec<u8> {
    let text = json!({"type": kind, "payload": payload, "metadata": {"message_id": id}}).to_string();
    raw::frame(0x81, text.as_bytes())
}

/// Joins from a position on, and gives the payload of `room_joined`, before which no message may come.
pub async fn join_since(client: &mut Client, room: &str, since: &Value) -> Value {
    let payload = json!({"room_id": room, "since": since});
    client.json(json!({"type": "join_room", "payload": payload, "metadata": {"message_id": "join"}})).await;
    loop {
        let message = client.next_json().await;
        if message["metadata"]["correlation_id"] == "join" {
            assert_eq!(message["type"], "room_joined", "{message}");
            return message["payload"].clone();
        }
        assert_ne!(message["type"], "chat_message", "before its time: {message}");
    }
}

/// The text of the next `chat_message`.
pub async fn chat_text(client: &mut Client) -> String {
    loop {
        let text = client.next_text().await;
        if text.starts_with(r#"{"type":"chat_message""#) {
            return text;
        }
    }
}

/// Offset and message of the next `chat_message`.
pub async fn chat(client: &mut Client) -> (u64, Value) {
    let chat = client.skip_to("chat_message").await;
    (chat["payload"]["position"]["offset"].as_u64().unwrap(), chat["payload"]["message"].clone())
}

/// The next message has to be a push of this type, with this payload.
pub async fn sees(watcher: &mut Client, kind: &str, payload: Value) {
    let push = watcher.next_json().await;
    assert_eq!((&push["type"], &push["payload"]), (&json!(kind), &payload));
    assert!(push["metadata"].get("correlation_id").is_none(), "a push has none: {push}");
}

/// The next message has to be the presence of this client in the room `a`.
pub async fn sees_presence(watcher: &mut Client, client: &str, status: &str) {
    sees(watcher, "presence_update", json!({"room_id": "a", "client_id": client, "status": status})).await;
}

/// Nothing of the room `a` is on its way to a member: the next that it gets is about its own message. Gives the payload
/// of that one's `message_sent`.
pub async fn sees_nothing(watcher: &mut Client) -> Value {
    watcher.json(json!({"type": "message", "payload": {"room_id": "a", "message": "mark"}})).await;
    let mut seen = [watcher.next_json().await, watcher.next_json().await];
    seen.sort_by_key(|message| message["type"].to_string());
    assert!(seen[0]["type"] == "chat_message" && seen[1]["type"] == "message_sent", "{} {}", seen[0], seen[1]);
    assert_eq!(seen[0]["payload"]["message"], "mark", "{}", seen[0]);
    seen[1]["payload"].clone()
}

/// A request that has no answer has been served when this returns: one that is asked after it is answered.
pub async fn served(client: &mut Client, room: &str) {
    let answer = client.ask("room_members", json!({"room_id": room, "limit": 1})).await;
    assert_eq!(answer["type"], "room_members", "{answer}");
}

/// Clients and statuses, as `room_members` lists them from here on, and the count.
pub async fn members(client: &mut Client, room: &str) -> (Vec<(String, String)>, u64) {
    let page = client.ask("room_members", json!({"room_id": room})).await;
    let line = |m: &Value| (m["client_id"].as_str().unwrap().into(), m["status"].as_str().unwrap().into());
    let lines = page["payload"]["members"].as_array().unwrap_or_else(|| panic!("{page}")).iter().map(line).collect();
    (lines, page["payload"]["count"].as_u64().unwrap())
}
