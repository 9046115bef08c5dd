//! Every way in which an application cannot be asked.
use super::*;

/// Short, for the replies that never come.
const SHORT: Duration = Duration::from_millis(100);

async fn fails(what: &str, timeout: Option<Duration>, script: impl Fn() -> Reply + Send + Sync + 'static) {
    let application = Application::start(move |_, _| script()).await;
    fails_at(what, timeout, &application.url).await;
    // On a new connection nothing is sent twice.
    assert_eq!(application.seen().len(), 2, "{what}");
}

/// Asks once with each `on_failure`.
async fn fails_at(what: &str, timeout: Option<Duration>, url: &str) {
    for deny in [true, false] {
        let mut setup = setup(url);
        setup.config.deny_on_failure = deny;
        setup.config.timeout = timeout.unwrap_or(setup.config.timeout);
        let hook = setup.hook();
        let asker = hook.asker(0);
        match asker.ask(question(HookEvent::Publish)).await {
            Verdict::Failed => assert!(deny, "{what}"),
            Verdict::Allowed => assert!(!deny, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(asked_of(&hook, "publish", "failed"), 1, "{what}");
    }
}

#[tokio::test]
async fn statuses_that_decide_nothing() {
    for status in [500, 502, 503, 599, 408, 425, 429, 300, 301, 302, 304, 307] {
        let redirect = format!("HTTP/1.1 {status} Any\r\nlocation: /else\r\ncontent-length: 0\r\n\r\n");
        fails(&status.to_string(), None, move || Reply::Say(redirect.clone())).await;
    }
    fails("101", None, || Reply::Say("HTTP/1.1 101 Any\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n".into())).await;
}

#[tokio::test]
async fn bodies_that_are_no_answer() {
    for body in ["no", "[true]", "true", "null", "{\"allow\":0}", "{\"allow\":true", "{} {}", "{\"message\":01}"] {
        fails(body, None, move || say(200, body)).await;
    }
}

#[tokio::test]
async fn answers_that_break_off() {
    let broken = [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}",
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
    ];
    for text in broken {
        fails(text, None, move || Reply::Last(text.into())).await;
    }
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n", "a".repeat(64 << 10));
    fails("a long head", None, move || Reply::Say(long.clone())).await;
    let many = format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "a: b\r\n".repeat(101));
    fails("many headers", None, move || Reply::Say(many.clone())).await;
}

#[tokio::test]
async fn answers_that_do_not_come() {
    for text in ["", "HTTP/1.1 ", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{"] {
        fails(text, Some(SHORT), move || Reply::Silent(text.into())).await;
    }
}

#[tokio::test]
async fn answers_that_are_too_large_or_never_end() {
    fails("endless", None, || Reply::Endless("10\r\n                \r\n")).await;
    let padded = |bytes: usize| say(200, &format!("{{}}{}", " ".repeat(bytes - 2)));
    fails("one byte too many", None, move || padded(line::ANSWER_BYTES_MAX + 1)).await;
    fails("2^60", None, || Reply::Silent(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 1u64 << 60))).await;
    let application = Application::start(move |_, _| padded(line::ANSWER_BYTES_MAX)).await;
    let asker = setup(&application.url).hook().asker(0);
    assert!(matches!(asker.ask(question(HookEvent::Join)).await, Verdict::Allowed));
}

/// The status has decided, and the rest is not waited for longer than the time, nor read without a bound.
#[tokio::test]
async fn a_refusal_needs_no_body() {
    let replies: [fn() -> Reply; 3] = [
        || Reply::Silent("HTTP/1.1 403 No\r\ntransfer-encoding: chunked\r\n\r\n".into()),
        || Reply::Last("HTTP/1.1 403 No\r\ncontent-length: 10\r\n\r\n{}".into()),
        || say(403, &" ".repeat(2 << 20)),
    ];
    for reply in replies {
        let application = Application::start(move |_, _| reply()).await;
        let mut setup = setup(&application.url);
        setup.config.timeout = SHORT * 10;
        let asker = setup.hook().asker(0);
        assert!(matches!(asker.ask(question(HookEvent::Join)).await, Verdict::Refused { reason: None }));
        assert!(asker.idle.borrow().is_empty());
    }
}

#[tokio::test]
async fn nobody_is_there() {
    fails_at("nobody listens", None, &deserted().await).await;
    // Names that never resolve (RFC 6761).
    fails_at("no such name", Some(SHORT * 10), "http://nobody.invalid/").await;
}

#[tokio::test]
async fn a_kept_connection_may_have_been_closed() {
    let application = Application::start(|_, _| Reply::Last(http(200, ""))).await;
    let asker = setup(&application.url).hook().asker(0);
    for _ in 0..20 {
        assert!(matches!(asker.ask(question(HookEvent::Join)).await, Verdict::Allowed));
    }
    assert_eq!(application.seen().len(), 20);
}

#[tokio::test]
async fn a_question_that_a_kept_connection_lost_is_sent_once_more() {
    // The second request is taken, and the connection closed without a byte.
    let script = |n, _: &Seen| if n == 1 { Reply::Last(String::new()) } else { say(200, "") };
    let application = Application::start(script).await;
    let hook = setup(&application.url).hook();
    let asker = hook.asker(0);
    for _ in 0..2 {
        assert!(matches!(asker.ask(question(HookEvent::Join)).await, Verdict::Allowed));
    }
    let all = application.seen();
    assert_eq!(all.iter().map(|seen| seen.connection).collect::<Vec<_>>(), [0, 0, 1]);
    assert_ne!(all[0].id(), all[1].id());
    assert_eq!(all[1].raw, all[2].raw);
    assert_eq!(asked_of(&hook, "join", "allowed"), 2);
}

#[tokio::test]
async fn once_more_is_not_twice_more() {
    let script = |n, _: &Seen| if n == 0 { say(200, "") } else { Reply::Last(String::new()) };
    let application = Application::start(script).await;
    let asker = setup(&application.url).hook().asker(0);
    assert!(matches!(asker.ask(question(HookEvent::Join)).await, Verdict::Allowed));
    assert!(matches!(asker.ask(question(HookEvent::Join)).await, Verdict::Failed));
    assert_eq!(application.seen().len(), 3);
}

#[tokio::test]
async fn a_question_that_was_half_answered_is_not_sent_again() {
    let script = |n, _: &Seen| if n == 1 { Reply::Last("H".into()) } else { say(200, "") };
    let application = Application::start(script).await;
    let asker = setup(&application.url).hook().asker(0);
    assert!(matches!(asker.ask(question(HookEvent::Join)).await, Verdict::Allowed));
    assert!(matches!(asker.ask(question(HookEvent::Join)).await, Verdict::Failed));
    assert_eq!(application.seen().len(), 2);
}

#[tokio::test]
async fn bytes_after_an_answer_end_the_connection() {
    let script = |_, _: &Seen| Reply::Say(http(200, "") + &http(403, ""));
    let application = Application::start(script).await;
    let asker = setup(&application.url).hook().asker(0);
    for _ in 0..3 {
        assert!(matches!(asker.ask(question(HookEvent::Join)).await, Verdict::Allowed));
    }
}

#[tokio::test]
async fn waiting_for_a_place_is_part_of_the_time() {
    let application = Application::start(|_, _| Reply::Silent(String::new())).await;
    let mut setup = setup(&application.url);
    setup.tuning.asked_at_once = 1;
    setup.config.timeout = SHORT;
    let hook = setup.hook();
    let asker = hook.asker(0);
    let both = tokio::join!(asker.ask(question(HookEvent::Join)), asker.ask(question(HookEvent::Join)));
    assert!(matches!(both, (Verdict::Failed, Verdict::Failed)));
    assert_eq!(asked_of(&hook, "join", "failed"), 2);
    // The one that waited was asked for what time was left, or not at all.
    assert!((1..=2).contains(&application.seen().len()));
}

#[tokio::test]
async fn a_question_that_is_dropped_gives_its_place_back() {
    let script = |n, _: &Seen| if n == 0 { Reply::Silent(String::new()) } else { say(200, "") };
    let application = Application::start(script).await;
    let mut setup = setup(&application.url);
    setup.tuning.asked_at_once = 1;
    let asker = setup.hook().asker(0);
    tokio::select! {
        _ = asker.ask(question(HookEvent::Join)) => panic!("an answer"),
        () = async { while application.seen().is_empty() { tokio::task::yield_now().await; } } => (),
    }
    assert!(matches!(asker.ask(question(HookEvent::Join)).await, Verdict::Allowed));
    assert_eq!(application.seen()[1].connection, 1);
}
