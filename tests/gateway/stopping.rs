//! SIGTERM and SIGINT: every session is told, and the gateway ends with 0.
use crate::rooms::session;
use crate::support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

fn config(drain: &str) -> String {
    let limits = "[limits]\nhandshakes_per_second = 0\nconnections_per_client = 0\n";
    let open = "[[route]]\npath = \"/open\"\nservice = \"echo\"\nauth = { required = false }\n";
    format!("[server]\ndrain = \"{drain}\"\n{PLAIN}{SECRET_AUTH}{ROOMS}{open}{limits}{ADMIN}")
}

#[tokio::test]
async fn every_socket_is_closed_with_1012_and_the_exit_is_0() {
    for signal in ["TERM", "INT"] {
        let mut gateway = Gateway::start(&config("500ms")).await;
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(gateway.open("/open").await);
        }
        gateway.signal(signal);
        for client in &mut clients {
            client.closes_with(1012).await;
        }
        let status = gateway.exit().await;
        assert_eq!(status.code(), Some(0), "{signal}: {status}");
    }
}

#[tokio::test]
async fn rooms_say_disconnect_first() {
    let mut gateway = Gateway::start(&config("200ms")).await;
    let mut clients = Vec::new();
    for i in 0..10 {
        let mut client = session(&gateway, &format!("client-{i}")).await;
        client.join(&format!("room-{i}")).await;
        clients.push(client);
    }
    gateway.signal("TERM");
    for client in &mut clients {
        let disconnect = client.expect("disconnect").await;
        assert_eq!(disconnect["payload"]["code"], 1012, "{disconnect}");
        assert_eq!(disconnect["payload"]["reconnect"], true, "{disconnect}");
        match client.next().await {
            Some(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), 1012),
            other => panic!("a Close was expected: {other:?}"),
        }
    }
    assert!(gateway.exit().await.success());
}

#[tokio::test]
async fn a_gateway_without_sockets_stops() {
    let mut gateway = Gateway::start(&config("30s")).await;
    assert!(gateway.stop().await.success());
}

#[tokio::test]
async fn a_client_that_never_answers_does_not_hold_up_the_end() {
    let mut gateway = Gateway::start(&config("200ms")).await;
    let silent = gateway.raw_ws("/open").await;
    let half = gateway.raw().await;
    assert!(gateway.stop().await.success());
    drop((silent, half));
}

#[tokio::test]
async fn while_it_drains_it_is_not_ready_and_takes_nobody_new() {
    let gateway = Gateway::start(&config("10m")).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(gateway.open("/open").await);
    }
    assert_eq!(gateway.admin_get("/readyz").await.0, 200);
    gateway.signal("TERM");
    eventually(|| async { (gateway.admin_get("/readyz").await.0 == 503).then_some(()) }).await;
    let refused = match tokio::net::TcpStream::connect(gateway.address(0)).await {
        Err(_) => true,
        Ok(tcp) => {
            let mut raw = RawWs::over(tcp);
            raw.try_send(raw::upgrade_head("/open", &[])).await;
            raw.try_read_head().await.is_none_or(|head| head.status == 503)
        }
    };
    assert!(refused, "a new socket was opened while draining");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut gateway = Gateway::start(&config("10m")).await;
    let _clients = [gateway.open("/open").await, gateway.open("/open").await];
    gateway.signal("TERM");
    eventually(|| async { (gateway.admin_get("/readyz").await.0 == 503).then_some(()) }).await;
    gateway.signal("TERM");
    gateway.exit().await;
}

#[tokio::test]
async fn a_unix_socket_is_removed_at_the_end() {
    let folder = Folder::new();
    let path = folder.path().join("http.sock");
    let config = listener(&format!("unix:{}", path.display()), "") + OPEN + ECHO;
    let mut gateway = Gateway::start(&config).await;
    assert!(path.exists());
    assert!(gateway.stop().await.success());
    assert!(!path.exists(), "the socket file was left behind");
}

/// Let in, but its backend has not answered yet: it becomes a session, which is closed like the others.
#[tokio::test]
async fn an_upgrade_under_way_is_finished_and_closed_with_1012() {
    let backend = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = backend.local_addr().unwrap().port();
    let config = format!("[server]\ndrain = \"100ms\"\n{PLAIN}{OPEN}{}", proxy(&[port]));
    let mut gateway = Gateway::start(&config).await;
    let mut client = gateway.raw().await;
    client.send(raw::upgrade_head("/live/x", &[])).await;
    let (mut socket, _) = within(backend.accept()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(within(socket.read_buf(&mut head)).await.unwrap() > 0, "no request came");
    }
    gateway.signal("TERM");
    gateway.wait_for_log(|line| line.contains("stopping")).await;
    socket.write_all(&backend::switch(&String::from_utf8(head).unwrap())).await.unwrap();
    assert_eq!(client.read_head().await.status, 101);
    client.expect_close(1012).await;
    assert!(gateway.exit().await.success());
}

/// Rooms have their homes on all shards, whichever of them has sessions: none ends before the last session has.
#[tokio::test]
async fn rooms_are_in_use_until_the_last_session_of_all_shards_has_ended() {
    // So long that a shard which answers nothing is noticed before this session's own turn to be closed comes.
    let head = "[server]\nshards = 4\ndrain = \"300s\"\n[limits]\nmessages_per_second = 0\n";
    let mut gateway = Gateway::start(&format!("{head}{PLAIN}{SECRET_AUTH}{ROOMS}")).await;
    let mut alice = crate::rooms::session(&gateway, "alice").await;
    let mut rooms: Vec<String> = (0..16).map(|i| format!("room-{i}")).collect();
    for room in &rooms {
        alice.join(room).await;
    }
    gateway.signal("TERM");
    gateway.wait_for_log(|log| log.contains("stopping")).await;
    // Some of these are asked when the other shards have long heard that they are to end.
    for _ in 0..20 {
        rooms.rotate_left(3);
        for room in &rooms {
            if !alice.try_send(text("message", room)).await {
                return;
            }
        }
        let mut sent = 0;
        while sent < rooms.len() {
            let Some(message) = alice.next().await else { return };
            // Its turn to be closed has come: that is no failure.
            let Ok(text) = message.into_text() else { return };
            sent += usize::from(text.contains("\"message_sent\""));
            if text.contains("\"disconnect\"") {
                return;
            }
        }
        tokio::task::yield_now().await;
    }
    alice.close(1000, "").await;
    assert!(gateway.exit().await.success());
}

fn text(kind: &str, room: &str) -> tokio_tungstenite::tungstenite::Message {
    let payload = serde_json::json!({"room_id": room, "message": "x"});
    tokio_tungstenite::tungstenite::Message::text(serde_json::json!({"type": kind, "payload": payload}).to_string())
}
