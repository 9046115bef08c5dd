//! Clients that were written for the server before: they must work unchanged.
use crate::support::token::good;
use crate::support::*;
use serde_json::json;

/// What those clients do, to the letter: `auth` by message with fields of the top level, then a room.
struct OlderClient {
    socket: Client,
    id: String,
}

impl OlderClient {
    async fn open(gateway: &Gateway, token: &str) -> OlderClient {
        let mut socket = gateway.open("/ws").await;
        let auth = json!({"type": "auth", "payload": {"token": token}, "timestamp": "2025-01-01T00:00:00.000Z", "clientId": null});
        socket.json(auth).await;
        let established = socket.skip_to("connection_established").await;
        let id = established["payload"]["client_id"].as_str().unwrap().to_owned();
        OlderClient { socket, id }
    }

    async fn say(&mut self, kind: &str, payload: serde_json::Value) {
        let message = json!({"type": kind, "payload": payload, "timestamp": token::now() * 1000, "clientId": self.id});
        self.socket.json(message).await;
    }

    /// What it shows: sender, message, room.
    async fn shows(&mut self) -> (String, serde_json::Value, String) {
        let chat = self.socket.skip_to("chat_message").await;
        let payload = &chat["payload"];
        let text = |field: &str| payload[field].as_str().unwrap_or_else(|| panic!("no {field}: {chat}")).to_owned();
        (text("sender_id"), payload["message"].clone(), text("room_id"))
    }
}

#[tokio::test]
async fn older_clients_talk_to_each_other() {
    let gateway = Gateway::start(&format!("{PLAIN}{SECRET_AUTH}{ROOMS}")).await;
    let mut alice = OlderClient::open(&gateway, &good("alice")).await;
    let mut bob = OlderClient::open(&gateway, &good("bob")).await;
    assert_eq!((alice.id.as_str(), bob.id.as_str()), ("alice", "bob"));
    for client in [&mut alice, &mut bob] {
        client.say("join_room", json!({"room_id": "general"})).await;
        client.socket.skip_to("room_joined").await;
    }
    alice.say("message", json!({"room_id": "general", "message": "hello"})).await;
    let shown = ("alice".to_owned(), json!("hello"), "general".to_owned());
    assert_eq!(alice.shows().await, shown);
    assert_eq!(bob.shows().await, shown);
    bob.say("message", json!({"room_id": "general", "message": {"text": "hi", "mood": 1}})).await;
    assert_eq!(alice.shows().await, ("bob".to_owned(), json!({"text": "hi", "mood": 1}), "general".to_owned()));
    bob.say("ping", json!({})).await;
    bob.socket.skip_to("pong").await;
}

#[tokio::test]
async fn a_browser_of_an_allowed_origin_does_the_same_over_tls() {
    let origins = "[origins]\nallow = [\"https://app.example.com\"]\nmissing = \"deny\"\n";
    let gateway = Gateway::start(&format!("{TLS}{SECRET_AUTH}{ROOMS}{origins}")).await;
    let headers = [("Origin", "https://app.example.com"), ("User-Agent", "Mozilla/5.0"), ("Cookie", "theme=dark")];
    let mut socket = Client::open(gateway.tls(0).await, "/ws", &headers).await;
    socket.json(json!({"type": "auth", "payload": {"token": good("alice")}, "timestamp": 1, "clientId": null})).await;
    assert_eq!(socket.skip_to("connection_established").await["payload"]["client_id"], "alice");
}

#[tokio::test]
async fn a_bad_token_closes_with_4002() {
    let gateway = Gateway::start(&format!("{PLAIN}{SECRET_AUTH}{ROOMS}")).await;
    let mut socket = gateway.open("/ws").await;
    socket.json(json!({"type": "auth", "payload": {"token": "x"}, "timestamp": 1, "clientId": null})).await;
    socket.closes_with(4002).await;
}
