//! Lanes: order, retries, bounds, the end.
use super::*;
use HookEvent::{Joined, Left, Occupied, Vacated};

/// A time that no test waits for.
fn in_time() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

struct Running {
    hook: Arc<Hook>,
    lanes: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.lanes.abort();
    }
}

fn run(hook: Arc<Hook>) -> Running {
    Running { lanes: tokio::spawn(hook.clone().run()), hook }
}

#[tokio::test]
async fn an_event_says_who_and_where() {
    let application = Application::start(|_, _| say(204, "")).await;
    let mut setup = setup(&application.url);
    setup.config.secret = Some(Secret::new("Jefe"));
    let running = run(setup.hook());
    // Any thread may tell, and not only those of a runtime.
    let hook = running.hook.clone();
    std::thread::spawn(move || {
        hook.tell(Occupied, "default", "lobby", None);
        hook.tell(Joined, "default", "lobby", Some("alice"));
    })
    .join()
    .expect("a thread");
    assert_eq!(running.hook.flush(in_time()).await, 0);
    let all = application.seen();
    let text = |n: usize| String::from_utf8(all[n].raw.clone()).expect("UTF-8");
    let time = all[0].body["timestamp"].as_str().expect("a time");
    let expected = format!(
        r#"{{"event":"occupied","id":"{}","timestamp":"{time}","namespace":"default","room_id":"lobby","attempt":1}}"#,
        all[0].id(),
    );
    assert_eq!(text(0), expected);
    assert_eq!(all[1].body["client_id"], "alice");
    assert_eq!(all[1].header("x-event"), Some("joined"));
    assert_eq!(all[1].header("x-signature"), Signer::new(&Secret::new("Jefe")).sign(&all[1].raw).to_str().ok());
    assert_ne!(all[0].id(), all[1].id());
    assert_eq!((all[0].connection, all[1].connection), (0, 0));
    assert_eq!(told_of(&running.hook, "delivered"), 2);
    assert_eq!(counted(&running.hook, "wsgate_hook_waiting"), 0);
}

/// One of every failure that passes, then it works.
#[tokio::test]
async fn a_room_keeps_its_order_under_failures() {
    let script = |n, _: &Seen| match n {
        0 => say(500, ""),
        1 => Reply::Last(String::new()),
        2 => say(429, ""),
        5 => say(302, ""),
        6 => Reply::Last("HTTP/1.1 2".into()),
        _ => say(200, "whatever"),
    };
    let application = Application::start(script).await;
    let running = run(setup(&application.url).hook());
    let clients = ["a", "b", "c", "d", "e"];
    for client in clients {
        running.hook.tell(Joined, "default", "lobby", Some(client));
    }
    assert_eq!(running.hook.flush(in_time()).await, 0);
    let all = application.seen();
    let order: Vec<_> = all.iter().map(|seen| seen.body["client_id"].as_str().expect("a client")).collect();
    // The request that a kept connection lost (1) was sent again at once, as 2; both are attempt 2.
    assert_eq!(order, ["a", "a", "a", "a", "b", "c", "c", "c", "d", "e"]);
    let attempts: Vec<_> = all.iter().map(|seen| seen.body["attempt"].as_u64().expect("a number")).collect();
    assert_eq!(attempts, [1, 2, 2, 3, 1, 1, 2, 3, 1, 1]);
    for (one, next) in all.iter().zip(&all[1..]) {
        let same = one.body["client_id"] == next.body["client_id"];
        assert_eq!(one.id() == next.id(), same);
        assert!(!same || one.body["timestamp"] == next.body["timestamp"]);
    }
    assert_eq!(told_of(&running.hook, "delivered"), 5);
}

#[tokio::test]
async fn what_is_refused_is_given_up_at_once() {
    let script = |_, seen: &Seen| if seen.body["client_id"] == "a" { say(404, "") } else { say(200, "") };
    let application = Application::start(script).await;
    let running = run(setup(&application.url).hook());
    for client in ["a", "b", "a"] {
        running.hook.tell(Left, "default", "lobby", Some(client));
    }
    assert_eq!(running.hook.flush(in_time()).await, 0);
    assert_eq!(application.seen().len(), 3);
    assert_eq!(told_of(&running.hook, "delivered"), 1);
    assert_eq!(told_of(&running.hook, "given_up"), 2);
}

#[tokio::test]
async fn what_is_too_old_is_given_up() {
    let application = Application::start(|_, _| say(500, "")).await;
    let mut setup = setup(&application.url);
    setup.tuning.age_max = Duration::from_millis(30);
    let running = run(setup.hook());
    for room in ["a", "b", "c"] {
        running.hook.tell(Vacated, "default", room, None);
    }
    assert_eq!(running.hook.flush(in_time()).await, 0);
    assert_eq!(told_of(&running.hook, "given_up"), 3);
}

#[tokio::test]
async fn what_finds_no_room_is_dropped() {
    let application = Application::start(|_, _| say(200, "")).await;
    let mut setup = setup(&application.url);
    setup.tuning.lane_events = 3;
    let hook = setup.hook();
    for client in ["a", "b", "c", "d", "e"] {
        hook.tell(Joined, "default", "lobby", Some(client));
    }
    assert_eq!(told_of(&hook, "dropped"), 2);
    assert_eq!(counted(&hook, "wsgate_hook_waiting"), 3);
    let running = run(hook);
    assert_eq!(running.hook.flush(in_time()).await, 0);
    running.hook.tell(Joined, "default", "lobby", Some("f"));
    assert_eq!(running.hook.flush(in_time()).await, 0);
    let all = application.seen();
    let order: Vec<_> = all.iter().map(|seen| seen.body["client_id"].as_str().expect("a client")).collect();
    assert_eq!(order, ["a", "b", "c", "f"]);
}

#[tokio::test]
async fn bytes_are_bounded_too() {
    let mut setup = setup("http://localhost/");
    setup.tuning.lane_bytes = 1000;
    let hook = setup.hook();
    let room = "r".repeat(128);
    for _ in 0..20 {
        hook.tell(Occupied, "default", &room, None);
    }
    let waiting = counted(&hook, "wsgate_hook_waiting");
    assert!((2..8).contains(&waiting), "{waiting}");
    assert_eq!(told_of(&hook, "dropped"), 20 - waiting);
}

#[tokio::test]
async fn a_slow_room_does_not_stop_all() {
    let (gate, open) = watch::channel(false);
    let script = move |_, seen: &Seen| {
        if seen.body["room_id"] == "slow" { Reply::Held(open.clone()) } else { say(200, "") }
    };
    let application = Application::start(script).await;
    let running = run(setup(&application.url).hook());
    let lanes = &running.hook.lanes;
    let other = (0..)
        .map(|n| format!("room-{n}"))
        .find(|room| !std::ptr::eq(lanes.lane_of("default", room), lanes.lane_of("default", "slow")));
    running.hook.tell(Occupied, "default", "slow", None);
    while application.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    for _ in 0..50 {
        running.hook.tell(Occupied, "default", other.as_deref().expect("a room"), None);
    }
    while told_of(&running.hook, "delivered") < 50 {
        tokio::task::yield_now().await;
    }
    gate.send_replace(true);
    assert_eq!(running.hook.flush(in_time()).await, 0);
    assert_eq!(told_of(&running.hook, "delivered"), 51);
}

/// The pauses before it may be long.
#[tokio::test]
async fn the_end_cuts_a_pause_short() {
    let script = |n, _: &Seen| if n < 3 { say(503, "") } else { say(200, "") };
    let application = Application::start(script).await;
    let mut setup = setup(&application.url);
    setup.tuning.first_pause = Duration::from_secs(3600);
    setup.tuning.longest_pause = Duration::from_secs(3600);
    let running = run(setup.hook());
    running.hook.tell(Occupied, "default", "lobby", None);
    // The failure is logged, and the pause begins in the same turn.
    while running.hook.failures.next_ms.load(Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(running.hook.flush(in_time()).await, 0);
    assert_eq!(told_of(&running.hook, "delivered"), 1);
}

#[tokio::test]
async fn the_end_does_not_wait_for_ever() {
    let running = run(setup(&deserted().await).hook());
    for room in ["a", "b", "c"] {
        running.hook.tell(Occupied, "default", room, None);
    }
    assert_eq!(running.hook.flush(Instant::now() + Duration::from_millis(20)).await, 3);
    assert_eq!(setup("http://localhost/").hook().flush(Instant::now()).await, 0);
}

#[tokio::test]
async fn a_taken_event_needs_no_body() {
    let script = |n, _: &Seen| match n {
        0 => say(200, &" ".repeat(2 << 20)),
        1 => Reply::Endless("10\r\n                \r\n"),
        2 => Reply::Silent("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n".into()),
        _ => say(200, ""),
    };
    let application = Application::start(script).await;
    let mut setup = setup(&application.url);
    setup.config.timeout = Duration::from_millis(500);
    let running = run(setup.hook());
    for _ in 0..4 {
        running.hook.tell(Occupied, "default", "lobby", None);
    }
    assert_eq!(running.hook.flush(in_time()).await, 0);
    assert_eq!(application.seen().len(), 4);
    assert_eq!(told_of(&running.hook, "delivered"), 4);
}

#[tokio::test]
async fn nothing_is_told_that_was_not_asked_for() {
    let mut setup = setup("http://localhost/");
    setup.config.events = vec![HookEvent::Publish, Joined];
    let hook = setup.hook();
    for event in [Occupied, Vacated, Left, HookEvent::Publish, HookEvent::Connect] {
        hook.tell(event, "default", "lobby", None);
    }
    assert_eq!(counted(&hook, "wsgate_hook_waiting"), 0);
    hook.tell(Joined, "default", "lobby", Some("alice"));
    assert_eq!(counted(&hook, "wsgate_hook_waiting"), 1);
}

#[test]
fn pauses_double_up_to_a_bound() {
    let hook = Hook::new(&setup("http://localhost/").config, Metrics::new(1)).expect("a hook");
    for (attempt, longest_ms) in [(1, 200), (2, 400), (3, 800), (8, 25_600), (9, 30_000), (u32::MAX, 30_000)] {
        let longest = Duration::from_millis(longest_ms);
        for _ in 0..50 {
            let pause = hook.lanes.pause_after(attempt);
            assert!(pause <= longest && pause >= longest / 2, "{attempt}: {pause:?}");
        }
    }
}
