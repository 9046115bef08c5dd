//! History that survives a restart, and a kill -9 at any moment.
use crate::rooms::session;
use crate::support::*;
use serde_json::{Value, json};
use std::path::PathBuf;

/// A gateway whose rooms `d-*` are kept in this folder.
async fn gateway(store: &Folder) -> Gateway {
    let limits = "[limits]\nmessages_per_second = 0\nbytes_per_second = 0\n";
    let rooms = format!(
        "[rooms.store]\npath = \"{}\"\n[[rooms.policy]]\nmatch = \"d-*\"\ndurable = true\nhistory = {{ messages = 1000, age = \"1h\" }}\n",
        store.path().display()
    );
    Gateway::start(&format!("[server]\nshards = 2\ndrain = \"0s\"\n{PLAIN}{SECRET_AUTH}{ROOMS}{ADMIN}{limits}{rooms}"))
        .await
}

/// Publishes under this name without waiting for the answer.
async fn post(client: &mut Client, room: &str, id: &str) {
    let payload = json!({"room_id": room, "message": {"text": id}});
    client.json(json!({"type": "message", "payload": payload, "metadata": {"message_id": id}})).await;
}

async fn sent(client: &mut Client) -> Value {
    client.skip_to("message_sent").await["payload"].clone()
}

/// Joins with everything since the beginning of this epoch missed: what is recovered, as it was sent.
async fn recovered(gateway: &Gateway, room: &str, epoch: &Value) -> (Client, Vec<String>) {
    let mut client = session(gateway, "late").await;
    let since = json!({"epoch": epoch, "offset": 0});
    let joined = client.ask("join_room", json!({"room_id": room, "since": since})).await;
    assert_eq!(joined["payload"]["recovered"], true, "{joined}");
    let last = joined["payload"]["position"]["offset"].as_u64().unwrap();
    let mut texts = Vec::new();
    for _ in 0..last {
        texts.push(client.next_text().await);
    }
    (client, texts)
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill_at_any_moment() {
    let store = Folder::new();
    let mut acknowledged: Vec<String> = Vec::new();
    let mut epoch = Value::Null;
    for life in 0..5 {
        let mut gateway = gateway(&store).await;
        let mut alice = session(&gateway, "alice").await;
        let joined = alice.join("d-1").await;
        if life > 0 {
            assert_eq!(joined["position"]["epoch"], epoch, "one unbroken count");
        }
        epoch = joined["position"]["epoch"].clone();
        // What was asked for and not acknowledged may be there, and is sent again.
        for n in 0..40 {
            post(&mut alice, "d-1", &format!("{life}-{n}")).await;
        }
        for n in 0..10 + 5 * life {
            let answer = sent(&mut alice).await;
            assert_eq!(answer["message_id"], format!("{life}-{n}"));
            acknowledged.push(format!("{life}-{n}"));
        }
        gateway.signal("KILL");
        gateway.exit().await;
        let gateway = self::gateway(&store).await;
        let mut alice = session(&gateway, "alice").await;
        alice.join("d-1").await;
        for n in 0..40 {
            post(&mut alice, "d-1", &format!("{life}-{n}")).await;
            let known = acknowledged.contains(&format!("{life}-{n}"));
            let answer = sent(&mut alice).await;
            assert!(answer["duplicate"] == true || !known, "doubled by a kill: {answer}");
            if !known {
                acknowledged.push(format!("{life}-{n}"));
            }
        }
        let (_, texts) = recovered(&gateway, "d-1", &epoch).await;
        let ids: Vec<String> = texts.iter().map(|t| id_of(t)).collect();
        assert_eq!(ids, acknowledged, "each once, in the order in which it was acknowledged");
    }
}

fn id_of(text: &str) -> String {
    let message: Value = serde_json::from_str(text).unwrap();
    message["metadata"]["message_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_is_recovered_after_a_restart_is_what_was_sent() {
    let store = Folder::new();
    let mut first = gateway(&store).await;
    let mut alice = session(&first, "alice").await;
    let joined = alice.join("d-1").await;
    let mut live = Vec::new();
    for n in 0..20 {
        alice
            .text(&format!(
                r#"{{"type":"message","payload":{{"room_id":"d-1","message": {{ "n":{n}.10,"ü":"\u00fc" }} }}}}"#
            ))
            .await;
        let mut texts = [alice.next_text().await, alice.next_text().await];
        texts.sort_by_key(|t| t.contains("message_sent"));
        live.push(texts[0].clone());
    }
    let plain = alice.join("other").await;
    alice.publish("other", json!("x")).await;
    // In order this time.
    first.stop().await;
    let second = gateway(&store).await;
    let (mut late, texts) = recovered(&second, "d-1", &joined["position"]["epoch"]).await;
    assert_eq!(texts, live);
    let position = late.publish("d-1", json!("next")).await["position"].clone();
    assert_eq!(position["offset"], 21);
    // A room that is not durable has begun anew.
    let other = late.join("other").await;
    assert_eq!(other["position"]["offset"], 0);
    assert_ne!(other["position"]["epoch"], plain["position"]["epoch"]);
    assert!(!second.log().contains("WARN wsgate::store"), "{}", second.log());
}

/// The end of the file is torn off while nobody looks.
#[tokio::test]
async fn a_damaged_store_is_reported_and_no_new_one_is_made_of_it() {
    let store = Folder::new();
    let mut first = gateway(&store).await;
    let mut alice = session(&first, "alice").await;
    alice.join("d-1").await;
    alice.publish("d-1", json!("x")).await;
    first.stop().await;
    let file: PathBuf = store.path().join("wsgate.redb");
    std::fs::write(&file, "no database").unwrap();
    let folder = Folder::new();
    folder.write("jwt-secret", SECRET);
    let policy = "[[rooms.policy]]\nmatch = \"d-*\"\ndurable = true\n";
    let rooms = format!("[rooms.store]\npath = \"{}\"\n{policy}", store.path().display());
    folder.write("gateway.toml", format!("{PLAIN}{SECRET_AUTH}{ROOMS}{rooms}"));
    let output = gateway::wsgate(&folder, &["serve", "--config", "gateway.toml"]);
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("wsgate.redb"), "{words}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "no database");
}
