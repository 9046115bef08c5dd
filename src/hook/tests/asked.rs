//! Verdicts, and what a question looks like.
use super::*;

#[tokio::test]
async fn a_question_carries_all_that_is_known() {
    let application = Application::start(|_, _| say(204, "")).await;
    let mut setup = setup(&application.url);
    setup.config.secret = Some(Secret::new("Jefe"));
    let hook = setup.hook();
    let message = RawValue::from_string(r#"{ "n": 1.00, "ä": "\u00e4" }"#.into()).expect("JSON");
    let session = uuid::Uuid::now_v7();
    let whole = Question {
        session_id: Some(session),
        room: Some("lobby"),
        message_id: Some("a\"1"),
        message: Some(&message),
        ip: Some([203, 0, 113, 9].into()),
        ..question(HookEvent::Publish)
    };
    assert!(matches!(hook.asker(0).ask(whole).await, Verdict::Allowed));
    let all = application.seen();
    let seen = &all[0];
    let host = application.url.strip_prefix("http://").and_then(|u| u.split('/').next());
    assert!(seen.head.starts_with("POST /hook?from=wsgate HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!(seen.header("host"), host);
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("x-event"), Some("publish"));
    assert_eq!(seen.header("user-agent"), Some(concat!("wsgate/", env!("CARGO_PKG_VERSION"))));
    let signature = Signer::new(&Secret::new("Jefe")).sign(&seen.raw);
    assert_eq!(seen.header("x-signature"), signature.to_str().ok());
    let id = uuid::Uuid::parse_str(seen.id()).expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
    let time = seen.body["timestamp"].as_str().expect("a time");
    assert!(time.parse::<jiff::Timestamp>().is_ok() && time.len() == "2026-11-25T00:15:13.019Z".len(), "{time}");
    let text = String::from_utf8(seen.raw.clone()).expect("UTF-8");
    let expected = format!(
        r#"{{"event":"publish","id":"{id}","timestamp":"{time}","namespace":"default","client_id":"alice","session_id":"{session}","room_id":"lobby","message_id":"a\"1","message":{},"ip":"203.0.113.9"}}"#,
        message.get(),
    );
    assert_eq!(text, expected);
}

#[tokio::test]
async fn what_is_not_known_is_left_out() {
    let application = Application::start(|_, _| say(200, "")).await;
    let hook = setup(&application.url).hook();
    hook.asker(0).ask(question(HookEvent::Connect)).await;
    let all = application.seen();
    assert_eq!(all[0].header("x-signature"), None);
    let members = all[0].body.as_object().expect("an object").keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(members, "client_id event id namespace timestamp");
}

/// The verdict in words.
async fn verdict(event: HookEvent, status: u16, body: &'static str) -> String {
    let application = Application::start(move |_, _| say(status, body)).await;
    let hook = setup(&application.url).hook();
    let (words, outcome) = match hook.asker(0).ask(question(event)).await {
        Verdict::Allowed => ("allowed".to_owned(), "allowed"),
        Verdict::Changed(message) => (format!("changed {}", message.get()), "changed"),
        Verdict::Refused { reason } => (format!("refused {}", reason.unwrap_or_default()), "refused"),
        Verdict::Failed => ("failed".to_owned(), "failed"),
    };
    assert_eq!(asked_of(&hook, body::name(event), outcome), 1, "{status} {body}");
    words
}

#[tokio::test]
async fn every_verdict() {
    use HookEvent::{Connect, Join, Publish};
    for event in [Connect, Join, Publish] {
        for (status, body, expected) in [
            (200, "", "allowed"),
            (204, "", "allowed"),
            (201, "{}", "allowed"),
            (200, r#" {"allow":true,"reason":"fine","other":[{}]} "#, "allowed"),
            (200, r#"{"allow":false}"#, "refused "),
            (200, r#"{"allow":false,"reason":"no\r\n\u0000more","message":1}"#, "refused no   more"),
            (403, "", "refused "),
            (403, r#"{"reason":"closed today"}"#, "refused closed today"),
            (403, r#"{"allow":true,"reason":"all the same"}"#, "refused all the same"),
            (404, "<h1>Not found</h1>", "refused "),
            (400, "[]", "refused "),
            (499, "", "refused "),
        ] {
            assert_eq!(verdict(event, status, body).await, expected, "{event:?} {status} {body}");
        }
    }
    assert_eq!(verdict(Publish, 200, r#"{"message": {"a": 1.00} }"#).await, r#"changed {"a": 1.00}"#);
    assert_eq!(verdict(Publish, 200, r#"{"message":null}"#).await, "changed null");
    assert_eq!(verdict(Join, 200, r#"{"message":"x"}"#).await, "allowed");
}

#[tokio::test]
async fn what_it_is_not_asked_about_is_allowed() {
    let application = Application::start(|_, _| say(403, "")).await;
    let mut setup = setup(&application.url);
    setup.config.events = vec![HookEvent::Join, HookEvent::Left];
    let asker = setup.hook().asker(0);
    for event in [HookEvent::Connect, HookEvent::Publish, HookEvent::Left, HookEvent::Joined] {
        assert!(matches!(asker.ask(question(event)).await, Verdict::Allowed), "{event:?}");
    }
    assert!(application.seen().is_empty());
    assert!(matches!(asker.ask(question(HookEvent::Join)).await, Verdict::Refused { reason: None }));
}

#[tokio::test]
async fn a_connection_is_kept() {
    let application = Application::start(|_, _| say(200, "{}")).await;
    let asker = setup(&application.url).hook().asker(0);
    for _ in 0..5 {
        assert!(matches!(asker.ask(question(HookEvent::Join)).await, Verdict::Allowed));
    }
    assert!(application.seen().iter().all(|seen| seen.connection == 0));
    let seen = application.seen();
    assert!((1..5).all(|i| seen[i].id() != seen[i - 1].id()));
}

#[tokio::test]
async fn a_name_is_looked_up() {
    let application = Application::start(|_, _| say(200, "")).await;
    let url = application.url.replace("127.0.0.1", "localhost");
    let asker = setup(&url).hook().asker(0);
    assert!(matches!(asker.ask(question(HookEvent::Join)).await, Verdict::Allowed));
    assert!(application.seen()[0].header("host").is_some_and(|h| h.starts_with("localhost:")));
}

#[tokio::test]
async fn three_hundred_are_asked_and_no_more_than_256_at_once() {
    let (gate, open) = watch::channel(false);
    let application = Application::start(move |_, _| Reply::Held(open.clone())).await;
    let hook = setup(&application.url).hook();
    let asker = hook.asker(0);
    let asked = futures_util::future::join_all((0..300).map(|_| asker.ask(question(HookEvent::Join))));
    let opened = async {
        while application.seen().len() < 256 {
            tokio::task::yield_now().await;
        }
        // As many turns again for those that should wait.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(application.seen().len(), 256);
        gate.send_replace(true);
    };
    let (verdicts, ()) = tokio::join!(asked, opened);
    assert!(verdicts.iter().all(|v| matches!(v, Verdict::Allowed)));
    assert_eq!(asked_of(&hook, "join", "allowed"), 300);
    assert_eq!(application.shared.most_at_once.load(Relaxed), 256);
    assert!(asker.idle.borrow().len() <= IDLE_LINES_MAX);
}

/// What is asked from one runtime does not need another.
#[test]
fn each_shard_has_connections_of_its_own() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (url, urls) = std::sync::mpsc::sync_channel(1);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let application = std::thread::spawn(move || {
        runtime().block_on(async {
            let application = Application::start(|_, _| say(200, "")).await;
            url.send(application.url.clone()).expect("a test");
            let _ = stopped.await;
            application.seen().iter().map(|seen| seen.connection).collect::<Vec<_>>()
        })
    });
    let hook = setup(&urls.recv().expect("an url")).hook();
    for _ in 0..3 {
        let hook = hook.clone();
        let shard = std::thread::spawn(move || {
            let asker = hook.asker(0);
            runtime().block_on(async {
                for _ in 0..2 {
                    assert!(matches!(asker.ask(question(HookEvent::Join)).await, Verdict::Allowed));
                }
            });
        });
        shard.join().expect("a shard");
    }
    drop(stop);
    assert_eq!(application.join().expect("an application"), [0, 0, 1, 1, 2, 2]);
}
