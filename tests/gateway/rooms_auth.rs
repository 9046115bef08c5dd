//! `auth` in rooms: as the first message, as a refresh; expiry.
use crate::support::token::good;
use crate::support::*;
use serde_json::json;

async fn gateway(auth: &str) -> Gateway {
    Gateway::start(&format!("{PLAIN}{ROOMS}{SECRET_AUTH}{auth}\n")).await
}

#[tokio::test]
async fn the_token_may_come_as_the_first_message() {
    let gateway = gateway("").await;
    let mut client = gateway.open("/ws").await;
    client
        .json(json!({"type": "auth", "payload": {"token": good("alice")}, "metadata": {"message_id": "first"}}))
        .await;
    let response = client.expect("auth_response").await;
    assert_eq!(response["payload"]["client_id"], "alice");
    assert!(!response["payload"]["expires_at"].is_null(), "{response}");
    assert_eq!(response["metadata"]["correlation_id"], "first");
    assert_eq!(client.expect("connection_established").await["payload"]["client_id"], "alice");
    client.join("a").await;
}

#[tokio::test]
async fn anything_else_as_the_first_message_is_4001() {
    let gateway = gateway("").await;
    for first in
        [r#"{"type":"ping"}"#, r#"{"type":"join_room","payload":{"room_id":"a"}}"#, "{", "", r#"{"type":"nothing"}"#]
    {
        let mut client = gateway.open("/ws").await;
        client.text(first).await;
        assert_eq!(client.expect("disconnect").await["payload"]["code"], 4001);
        client.closes_with(4001).await;
    }
}

#[tokio::test]
async fn no_first_message_in_time_is_4001() {
    let gateway = gateway("message_timeout = \"200ms\"").await;
    gateway.open("/ws").await.closes_with(4001).await;
    let mut pinging = gateway.raw_ws("/ws").await;
    pinging.try_send(raw::frame(0x89, b"a ping is no message")).await;
    assert_eq!(pinging.read_frame().await.first, 0x8a);
    loop {
        let frame = pinging.read_frame().await;
        if let Some((code, reason)) = frame.close() {
            break assert_eq!(code, 4001, "{reason}");
        }
    }
}

#[tokio::test]
async fn a_bad_token_as_the_first_message_is_4002() {
    let gateway = gateway("").await;
    for token in ["", "a.b.c", &Token::of("alice").expires_in(-999).sign()] {
        let mut client = gateway.open("/ws").await;
        client.json(json!({"type": "auth", "payload": {"token": token}})).await;
        assert_eq!(client.expect("disconnect").await["payload"]["code"], 4002);
        let reason = client.closes_with(4002).await;
        assert!(!reason.contains("eyJ"), "{reason}");
    }
}

#[tokio::test]
async fn a_bad_token_of_the_upgrade_cannot_be_mended_by_a_message() {
    let gateway = gateway("").await;
    gateway.open_as("/ws", "a.b.c").await.closes_with(4002).await;
}

#[tokio::test]
async fn without_the_source_message_a_token_has_to_come_with_the_upgrade() {
    let gateway = gateway("sources = [\"header\"]").await;
    gateway.open("/ws").await.closes_with(4001).await;
}

#[tokio::test]
async fn a_token_that_expires_closes_unless_it_was_refreshed() {
    let gateway = gateway("leeway = \"0s\"").await;
    let short = |client: &str| Token::of(client).expires_in(4).sign();
    let mut left = gateway.open_as("/ws", &short("left")).await;
    let mut kept = gateway.open_as("/ws", &short("kept")).await;
    let mut first = gateway.open("/ws").await;
    first.json(json!({"type": "auth", "payload": {"token": short("first")}})).await;
    for client in [&mut left, &mut kept, &mut first] {
        client.skip_to("connection_established").await;
    }
    let answer = kept.ask("auth", json!({"token": good("kept")})).await;
    assert_eq!(answer["type"], "auth_response", "{answer}");
    assert_eq!(answer["payload"]["client_id"], "kept");
    left.closes_with(4002).await;
    first.closes_with(4002).await;
    assert_eq!(kept.ask("ping", json!({})).await["type"], "pong");
    kept.join("a").await;
}

#[tokio::test]
async fn the_gateway_says_disconnect_before_it_closes() {
    let gateway = gateway("leeway = \"0s\"").await;
    let mut client = gateway.open_as("/ws", &Token::of("alice").expires_in(3).sign()).await;
    client.expect("connection_established").await;
    let disconnect = client.expect("disconnect").await;
    assert_eq!(disconnect["payload"]["code"], 4002, "{disconnect}");
    assert!(disconnect["payload"]["reason"].is_string(), "{disconnect}");
    assert!(disconnect["payload"]["reconnect"].is_boolean(), "{disconnect}");
    client.closes_with(4002).await;
}

#[tokio::test]
async fn expiry_closes_on_every_service() {
    let gateway = Gateway::start(&format!("{PLAIN}{ECHO}{SECRET_AUTH}leeway = \"0s\"\n")).await;
    let mut client = gateway.open_as("/echo", &Token::of("alice").expires_in(3).sign()).await;
    client.text("still good").await;
    client.next_text().await;
    client.closes_with(4002).await;
}

#[tokio::test]
async fn expiry_can_be_ignored() {
    let gateway = gateway("leeway = \"0s\"\non_expiry = \"ignore\"").await;
    let mut ignored = gateway.open_as("/ws", &Token::of("alice").expires_in(2).sign()).await;
    ignored.expect("connection_established").await;
    // A token that expires later is the clock: when a fresh handshake with it is refused, the first has expired too.
    let later = Token::of("bob").expires_in(3).sign();
    eventually(|| async {
        let mut probe = gateway.open_as("/ws", &later).await;
        match probe.next().await {
            Some(message) if message.is_close() => Some(()),
            _ => None,
        }
    })
    .await;
    assert_eq!(ignored.ask("ping", json!({})).await["type"], "pong");
}

#[tokio::test]
async fn a_refused_refresh_is_an_error_and_changes_nothing() {
    let gateway = gateway("").await;
    let mut client = gateway.open_as("/ws", &good("alice")).await;
    client.expect("connection_established").await;
    for token in [good("bob"), "a.b.c".to_owned(), Token::of("alice").expires_in(-999).sign()] {
        let error = client.refused("auth", json!({"token": token}), 4002).await;
        assert!(!error.to_string().contains(&token), "the token was repeated");
    }
    client.join("a").await;
    client.publish("a", json!(1)).await;
    assert_eq!(client.skip_to("chat_message").await["payload"]["sender_id"], "alice");
}

#[tokio::test]
async fn who_was_let_in_without_a_token_is_anonymous_for_good() {
    let gateway = gateway("required = false\nsources = [\"header\"]").await;
    let mut client = gateway.open("/ws").await;
    let established = client.expect("connection_established").await;
    assert!(established["payload"]["client_id"].as_str().unwrap().starts_with("anon-"), "{established}");
    assert!(established["payload"].get("expires_at").is_none(), "{established}");
    client.refused("auth", json!({"token": good("alice")}), 4002).await;
    client.join("a").await;
}
