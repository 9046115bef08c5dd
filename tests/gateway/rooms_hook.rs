//! An application that is asked and told: an HTTP server of the test's own.
use crate::rooms::session;
use crate::support::*;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What an application answers to an event: status and body.
type Answer = fn(&Value) -> (u16, String);

/// An application, and what it heard: the value of `X-Signature`, and the body.
#[derive(Clone)]
struct Application {
    port: u16,
    heard: Arc<Mutex<Vec<(String, String)>>>,
}

impl Application {
    async fn start(answer: Answer) -> Application {
        Application::listen(answer, None).await
    }

    /// Over TLS, where this is given.
    async fn listen(answer: Answer, tls: Option<TlsAcceptor>) -> Application {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let application = Application { port: listener.local_addr().unwrap().port(), heard: Arc::default() };
        let heard = application.heard.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (heard, tls) = (heard.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, answer, heard).await,
                        Some(tls) => serve(tls.accept(stream).await.ok()?, answer, heard).await,
                    }
                });
            }
        });
        application
    }

    fn events(&self) -> Vec<Value> {
        self.heard.lock().unwrap().iter().map(|(_, body)| serde_json::from_str(body).unwrap()).collect()
    }

    /// Waits until so many events of these kinds were heard: their kinds, rooms and clients.
    async fn hears(&self, kinds: &[&str], count: usize) -> Vec<Value> {
        eventually(|| async {
            let events: Vec<Value> =
                self.events().into_iter().filter(|e| kinds.contains(&e["event"].as_str().unwrap())).collect();
            (events.len() >= count).then_some(events)
        })
        .await
    }
}

async fn serve(stream: impl client::Pipe, answer: Answer, heard: Arc<Mutex<Vec<(String, String)>>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut signature) = (0, String::new());
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap(),
                "x-signature" => signature = value.to_owned(),
                _ => (),
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let body = String::from_utf8(body).unwrap();
        let (status, text) = answer(&serde_json::from_str(&body).unwrap());
        heard.lock().unwrap().push((signature, body));
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", text.len());
        stream.write_all(format!("{head}{text}").as_bytes()).await.ok()?;
    }
}

async fn gateway(port: u16, more: &str) -> Gateway {
    let hook = format!("[rooms.hook]\nurl = \"http://127.0.0.1:{port}/hook\"\nsecret_env = \"HOOK_SECRET\"\n{more}\n");
    let setup = gateway::Setup::new().environment("HOOK_SECRET", "a secret of the application");
    setup.start(&format!("[server]\nshards = 2\ndrain = \"0s\"\n{PLAIN}{SECRET_AUTH}{ROOMS}{ADMIN}{hook}")).await
}

const ALL: &str = r#"events = ["connect", "join", "publish", "occupied", "vacated", "joined", "left"]"#;

/// Refuses mallory, the room "closed", and the word "no"; makes "change me" another.
fn judge(event: &Value) -> (u16, String) {
    let answer = match event["event"].as_str().unwrap() {
        "connect" if event["client_id"] == "mallory" => json!({"allow": false, "reason": "not you"}),
        "join" if event["room_id"] == "closed" => return (403, String::new()),
        "publish" if event["message"] == "no" => json!({"allow": false, "reason": "watch your tongue"}),
        "publish" if event["message"] == "change me" => json!({"message": {"changed": 1.50}}),
        _ => json!({}),
    };
    (200, answer.to_string())
}

#[tokio::test]
async fn an_application_refuses_and_changes() {
    let application = Application::start(judge).await;
    let gateway = gateway(application.port, ALL).await;
    let mut mallory = gateway.open_as("/ws", &token::good("mallory")).await;
    assert_eq!(mallory.expect("disconnect").await["payload"]["code"], 4013);
    assert_eq!(mallory.closes_with(4013).await, "not you");
    let mut alice = session(&gateway, "alice").await;
    alice.refused("join_room", json!({"room_id": "closed"}), 4007).await;
    alice.join("open").await;
    let refused = alice.refused("message", json!({"room_id": "open", "message": "no"}), 4007).await;
    assert_eq!(refused["payload"]["message"], "watch your tongue");
    alice.publish("open", json!("change me")).await;
    let chat = alice.skip_to("chat_message").await;
    assert_eq!(chat["payload"]["message"], json!({"changed": 1.5}));
    alice.publish("open", json!("as it is")).await;
    assert_eq!(alice.skip_to("chat_message").await["payload"]["message"], "as it is");
    let asked = application.hears(&["publish"], 3).await;
    assert_eq!((&asked[0]["room_id"], &asked[0]["client_id"]), (&json!("open"), &json!("alice")));
}

/// By `https://`, where the system trusts whoever signed its certificate.
#[tokio::test]
async fn an_application_is_asked_and_told_over_tls() {
    let authority = tls::Authority::new("public");
    let server = Arc::new(tls::server(&authority.sign("localhost", 4000), None));
    let application = Application::listen(judge, Some(TlsAcceptor::from(server))).await;
    let hook = format!("[rooms.hook]\nurl = \"https://localhost:{}/hook\"\n{ALL}\n", application.port);
    for trusted in [true, false] {
        let roots = if trusted { authority.pem() } else { tls::Authority::new("another").pem() };
        let setup = gateway::Setup::new().file("roots.pem", roots).environment("SSL_CERT_FILE", "roots.pem");
        let gateway = setup.start(&format!("{PLAIN}{SECRET_AUTH}{ROOMS}{hook}")).await;
        if trusted {
            let mut alice = session(&gateway, "alice").await;
            alice.refused("join_room", json!({"room_id": "closed"}), 4007).await;
            alice.join("open").await;
            application.hears(&["joined"], 1).await;
        } else {
            gateway.open_as("/ws", &token::good("alice")).await.closes_with(4012).await;
        }
    }
}

/// What a client sends without waiting keeps its order, however long each is asked about.
#[tokio::test]
async fn order_is_kept_while_an_application_is_asked() {
    let application = Application::start(judge).await;
    let gateway = gateway(application.port, "events = [\"join\", \"publish\"]").await;
    let mut alice = session(&gateway, "alice").await;
    alice.json(json!({"type": "join_room", "payload": {"room_id": "a"}})).await;
    for n in 0..50 {
        alice.json(json!({"type": "message", "payload": {"room_id": "a", "message": n}})).await;
    }
    alice.json(json!({"type": "leave_room", "payload": {"room_id": "a"}})).await;
    for n in 0..50 {
        assert_eq!(alice.skip_to("chat_message").await["payload"]["message"], n);
    }
    alice.skip_to("room_left").await;
}

#[tokio::test]
async fn an_application_is_told_in_order_and_by_client() {
    let application = Application::start(judge).await;
    let mut gateway = gateway(application.port, ALL).await;
    let mut alice = session(&gateway, "alice").await;
    let mut tab = session(&gateway, "alice").await;
    let mut bob = session(&gateway, "bob").await;
    alice.join("a").await;
    tab.join("a").await;
    bob.join("a").await;
    alice.ask("leave_room", json!({"room_id": "a"})).await;
    bob.ask("leave_room", json!({"room_id": "a"})).await;
    // The last one goes with the gateway: that too is told.
    gateway.stop().await;
    let told = application.hears(&["occupied", "vacated", "joined", "left"], 6).await;
    let told: Vec<(&str, &Value)> = told.iter().map(|e| (e["event"].as_str().unwrap(), &e["client_id"])).collect();
    let (alice, bob, nobody) = (json!("alice"), json!("bob"), Value::Null);
    let wanted = [
        ("occupied", &nobody),
        ("joined", &alice),
        ("joined", &bob),
        ("left", &bob),
        ("left", &alice),
        ("vacated", &nobody),
    ];
    assert_eq!(told, wanted);
    let signatures: Vec<String> = application.heard.lock().unwrap().iter().map(|(s, _)| s.clone()).collect();
    assert!(signatures.iter().all(|s| s.starts_with("sha256=") && s.len() == 71), "{signatures:?}");
}

#[tokio::test]
async fn without_an_application_it_is_as_the_configuration_says() {
    let port = backend::unused_port().await;
    let denying = gateway(port, "events = [\"join\", \"publish\"]\non_failure = \"deny\"").await;
    let mut alice = session(&denying, "alice").await;
    alice.refused("join_room", json!({"room_id": "a"}), 4000).await;
    let allowing = gateway(port, "events = [\"connect\", \"join\", \"publish\"]\non_failure = \"allow\"").await;
    let mut alice = session(&allowing, "alice").await;
    alice.join("a").await;
    alice.publish("a", json!("x")).await;
    let strict = gateway(port, "events = [\"connect\"]").await;
    let mut alice = strict.open_as("/ws", &token::good("alice")).await;
    alice.expect("disconnect").await;
    alice.closes_with(4012).await;
}
