//! Mailboxes that are full: nobody misses a message without being told.
use super::*;

/// Messages, their offsets in order, of what a session has seen.
fn texts(seen: &[Value]) -> Vec<&Value> {
    seen.iter().filter(|m| m["type"] == "chat_message").map(|m| &m["payload"]["message"]).collect()
}

/// Has both shards handle everything, until nothing is left.
fn settle(house: &House) {
    while house.shards.iter().map(|rooms| house.handle(rooms, usize::MAX)).sum::<usize>() > 0 {}
}

/// A room whose home is shard 1, with alice on shard 0, whose mailbox is full, and bob on shard 1.
fn one_shard_full(rules: config::Rooms) -> (House, String, Tab, Tab) {
    let house = House::new(2, rules, memory);
    let room = house.room_at(1);
    let (alice, bob) = (house.tab_with_member_only(0, "alice"), house.tab_with_member_only(1, "bob"));
    alice.join(&room, "join");
    bob.join(&room, "join");
    settle(&house);
    house.fill(0);
    (house, room, alice, bob)
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_falls_behind_is_caught_up_from_the_history() {
    let (house, room, mut alice, mut bob) = one_shard_full(rules());
    let (here, there) = (&house.shards[0], &house.shards[1]);
    bob.publish(&room, "one");
    bob.publish(&room, "two");
    house.handle_all(there);
    // She asks again before she knows, and is told to come later.
    alice.join(&room, "too early");
    house.handle_all(there);
    house.empty(0);
    house.handle_all(here);
    // While it catches up, more comes.
    bob.publish(&room, "three");
    settle(&house);
    let seen = house.seen(&mut alice).await;
    assert_eq!(texts(&seen), ["one", "two", "three"], "{seen:?}");
    let error = seen.iter().find(|m| m["type"] == "error").unwrap();
    assert_eq!((&error["payload"]["code"], &error["payload"]["retryable"]), (&json!(4000), &json!(true)));
    bob.publish(&room, "four");
    settle(&house);
    assert_eq!(texts(&house.seen(&mut alice).await), ["four"]);
    assert_eq!(texts(&house.seen(&mut bob).await), ["one", "two", "three", "four"]);
    alice.lose();
    bob.lose();
    settle(&house);
    assert_eq!(house.gauges(), (0, 0));
}

/// Nothing would tell it later who has gone meanwhile.
#[tokio::test(start_paused = true)]
async fn a_shard_that_falls_behind_is_told_who_comes_and_goes() {
    let (house, room, mut alice, mut bob) = one_shard_full(rules());
    house.seen(&mut alice).await;
    bob.publish(&room, "one");
    bob.leave(&room, "leave");
    house.handle_all(&house.shards[1]);
    house.empty(0);
    settle(&house);
    let seen = house.seen(&mut alice).await;
    let offline = seen.iter().find(|m| m["type"] == "presence_update").expect("nobody was told");
    assert_eq!(offline["payload"]["status"], "offline");
    assert_eq!(texts(&seen), ["one"]);
    alice.lose();
    bob.lose();
    settle(&house);
    assert_eq!(house.gauges(), (0, 0));
}

/// What waits in a conflated room is sent in its time, and not a second time.
#[tokio::test(start_paused = true)]
async fn a_shard_of_a_conflated_room_catches_up_with_what_was_sent() {
    let (house, room, mut alice, mut bob) = one_shard_full(rules_with(|r| r.latest_only = Some(LONG)));
    house.seen(&mut alice).await;
    for text in ["one", "two", "three"] {
        bob.publish(&room, text);
    }
    house.handle_all(&house.shards[1]);
    house.empty(0);
    settle(&house);
    assert_eq!(texts(&house.seen(&mut alice).await), ["one"]);
    tokio::time::advance(LONG).await;
    house.shards[1].poll_timers(&mut Context::from_waker(std::task::Waker::noop()));
    settle(&house);
    assert_eq!(texts(&house.seen(&mut alice).await), ["three"]);
    alice.lose();
    bob.lose();
    settle(&house);
    assert_eq!(house.gauges(), (0, 0));
}

/// More than a batch of it, and a mailbox that is full again in between.
#[tokio::test(start_paused = true)]
async fn a_shard_catches_up_as_fast_as_it_can() {
    let (house, room, mut alice, bob) = one_shard_full(rules_with(|r| r.history.messages = 10_000));
    for i in 0..1000 {
        bob.publish(&room, &i.to_string());
    }
    house.handle_all(&house.shards[1]);
    let mut seen = Vec::new();
    for _ in 0..4 {
        house.empty(0);
        house.handle_all(&house.shards[0]);
        house.fill(0);
        house.handle_all(&house.shards[1]);
    }
    house.empty(0);
    settle(&house);
    seen.extend(house.seen(&mut alice).await);
    let wanted: Vec<Value> = (0..1000).map(|i: u32| json!(i.to_string())).collect();
    assert_eq!(texts(&seen), wanted.iter().collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn members_of_a_shard_that_cannot_catch_up_are_told_and_the_others_lose_nothing() {
    let (house, room, mut alice, mut bob) = one_shard_full(rules_with(|r| r.history.messages = 1));
    bob.publish(&room, "one");
    bob.publish(&room, "two");
    house.handle_all(&house.shards[1]);
    house.empty(0);
    settle(&house);
    let seen = house.seen(&mut alice).await;
    let kinds: Vec<&str> = seen.iter().map(|m| m["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["room_joined", "presence_update", "room_left"], "{seen:?}");
    assert_eq!((&seen[2]["payload"]["code"], &seen[2]["payload"]["retryable"]), (&json!(4010), &json!(true)));
    alice.join(&room, "again");
    settle(&house);
    let again = house.seen(&mut alice).await;
    assert_eq!(again[0]["payload"]["position"]["offset"], 2, "{again:?}");
    bob.publish(&room, "three");
    settle(&house);
    assert_eq!(texts(&house.seen(&mut alice).await), ["three"]);
    assert_eq!(texts(&house.seen(&mut bob).await), ["one", "two", "three"]);
    alice.lose();
    bob.lose();
    settle(&house);
    assert_eq!(house.gauges(), (0, 0));
}

/// The mailbox takes nothing at all: others there cannot be told that she has come, and lose their place, as she does.
#[tokio::test(start_paused = true)]
async fn who_joins_where_others_lose_their_place_is_told_the_same() {
    let (house, room, mut alice, mut bob) = one_shard_full(rules());
    house.fill(0);
    let mut carol = house.tab_with_member_only(0, "carol");
    carol.join(&room, "join");
    house.handle_all(&house.shards[1]);
    house.empty(0);
    house.empty(0);
    settle(&house);
    let seen = house.seen(&mut carol).await;
    let kinds: Vec<&str> = seen.iter().map(|m| m["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["room_joined", "room_left"], "{seen:?}");
    for tab in [&mut alice, &mut bob, &mut carol] {
        tab.lose();
    }
    settle(&house);
    assert_eq!(house.gauges(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_is_kicked_from_a_place_that_is_lost_is_told_once() {
    let (house, room, mut alice, mut bob) = one_shard_full(rules());
    house.fill(0);
    house.seen(&mut alice).await;
    bob.request("typing_start", "lost", json!({"room_id": room}));
    house.handle_all(&house.shards[1]);
    let desk = house.desk();
    let mut kick = std::pin::pin!(desk.kick(key(&room).namespace, &room, "alice", crate::close::Code::Administrator));
    assert!(kick.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
    settle(&house);
    assert_eq!(kick.await.found, 1);
    house.empty(0);
    house.empty(0);
    let seen = house.seen(&mut alice).await;
    assert_eq!(seen.iter().filter(|m| m["type"] == "room_left").count(), 1, "{seen:?}");
    alice.lose();
    bob.lose();
    settle(&house);
    assert_eq!(house.gauges(), (0, 0));
}

/// What it asked of the room that is behind is answered when it leaves, or it would never ask for another.
#[tokio::test(start_paused = true)]
async fn a_recovery_that_waits_for_a_shard_to_catch_up_holds_up_no_other() {
    let (house, room, mut alice, mut bob) = one_shard_full(rules());
    let (here, there) = (&house.shards[0], &house.shards[1]);
    house.empty(0);
    bob.join("other", "join");
    settle(&house);
    let since = |room: &str, position: &Value| json!({"room_id": room, "since": position});
    let seen = house.seen(&mut bob).await;
    let of = |name: &str| {
        let joined = seen.iter().find(|m| m["type"] == "room_joined" && m["payload"]["room_id"] == name);
        joined.unwrap()["payload"]["position"].clone()
    };
    let (first, second) = (of(&room), of("other"));
    alice.leave(&room, "leave");
    bob.publish(&room, "missed");
    bob.publish("other", "missed too");
    settle(&house);
    alice.request("join_room", "a", since(&room, &first));
    house.handle_all(there);
    // Before it asks for what it has missed, its shard falls behind.
    house.fill(0);
    bob.publish(&room, "left out");
    house.handle_all(there);
    house.handle_all(here);
    house.handle_all(there);
    alice.request("join_room", "b", since("other", &second));
    alice.leave(&room, "leave");
    house.empty(0);
    settle(&house);
    let seen = house.seen(&mut alice).await;
    assert!(texts(&seen).contains(&&json!("missed too")), "{seen:?}");
    alice.lose();
    bob.lose();
    settle(&house);
}

/// The room that a shard lost is not the one that has its name by the time the home hears of it.
#[tokio::test(start_paused = true)]
async fn a_loss_is_of_the_room_that_was_lost() {
    let house = House::new(2, rules(), memory);
    let room = house.room_at(1);
    let (here, there) = (&house.shards[0], &house.shards[1]);
    let mut alice = house.tab_with_member_only(0, "alice");
    let mut bob = house.tab_with_member_only(0, "bob");
    alice.join(&room, "join");
    house.handle_all(there);
    house.handle_all(here);
    house.fill(0);
    alice.publish(&room, "lost");
    house.handle_all(there);
    // Before the shard hears of it, the room empties and comes to be anew.
    alice.leave(&room, "leave");
    house.handle_all(there);
    house.empty(0);
    bob.join(&room, "join");
    house.handle_all(there);
    house.handle_all(here);
    house.handle_all(there);
    house.handle_all(here);
    bob.publish(&room, "found");
    house.handle_all(there);
    house.handle_all(here);
    let seen = house.seen(&mut bob).await;
    assert!(seen.iter().any(|m| m["payload"]["message"] == "found"), "a member without a membership: {seen:?}");
    alice.lose();
    bob.lose();
    house.handle_all(there);
    assert_eq!(house.gauges(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_never_reads_is_closed_and_holds_up_nobody() {
    with_every_broker(rules(), async |house: &House| {
        let room = house.room_at(1);
        let limits = Limits { max_backlog: 20_000, ..limits() };
        let mut stuck = house.tab_with(0, "stuck", &limits, 4000).await;
        let mut bob = house.tab(0, "bob").await;
        stuck.joined(&room).await;
        bob.joined(&room).await;
        let text = "x".repeat(1000);
        for i in 0..100 {
            bob.request("message", &i.to_string(), json!({"room_id": room, "message": text}));
            bob.answer(&i.to_string()).await;
        }
        bob.until_mark(&room).await;
        let close = stuck.seat.handle.take_order().expect("an order to close");
        assert_eq!(close.number, Some(4010));
        assert!(stuck.seat.handle.peer.borrow().backlog() <= 22_000);
    })
    .await;
}

/// Its task is woken only where the socket takes no more.
#[tokio::test(start_paused = true)]
async fn a_recovery_goes_on_when_the_fan_out_has_written_what_was_queued() {
    let house = House::new(1, rules(), memory);
    let (mut alice, mut bob) = (house.tab_with_member_only(0, "alice"), house.tab_with_member_only(0, "bob"));
    alice.join("busy", "join");
    bob.join("busy", "join");
    bob.join("missed", "join");
    bob.publish("missed", "one");
    bob.publish("missed", "two");
    settle(&house);
    let sent = house.seen(&mut bob).await;
    let sent = sent.iter().find(|m| m["type"] == "message_sent").unwrap();
    for i in 0..20 {
        bob.request("message", &i.to_string(), json!({"room_id": "busy", "message": "x".repeat(1000)}));
    }
    settle(&house);
    let since = json!({"epoch": sent["payload"]["position"]["epoch"], "offset": 0});
    alice.request("join_room", "join", json!({"room_id": "missed", "since": since}));
    settle(&house);
    let seen = house.seen(&mut alice).await;
    assert_eq!(texts(&seen)[20..], ["one", "two"]);
}

/// Until its task has looked, the shard still takes it for a member: what comes then must not follow the gap.
#[tokio::test(start_paused = true)]
async fn nothing_follows_what_a_slow_member_was_not_sent() {
    let house = House::new(1, rules(), memory);
    let (pipe, wire) = duplex(4000);
    let seat = house.shards[0].shard.seat(Wire::Pipe(wire));
    let limits = Limits { max_backlog: 10_000, ..limits() };
    let member = Member::enter(&house.shards[0], &seat.handle, house.enter(&seat, "slow", &limits), None);
    let mut slow = Tab { member: Some(member), seat, pipe };
    let bob = house.tab_with_member_only(0, "bob");
    slow.join("a", "join");
    bob.join("a", "join");
    let publish = |text: &str| {
        bob.request("message", &text[..text.len().min(9)], json!({"room_id": "a", "message": text}));
        settle(&house);
    };
    for i in 0..30 {
        publish(&format!("{i}{}", "x".repeat(1000)));
    }
    publish("after");
    assert_eq!(slow.seat.handle.take_order().unwrap().number, Some(4010));
    slow.member.as_ref().unwrap().say_goodbye(&crate::close::Close::gateway(crate::close::Code::SlowConsumer));
    let (mut seen, handle) = (Vec::new(), slow.seat.handle.clone());
    while seen.last().is_none_or(|last: &Value| last["type"] != "disconnect") {
        let mut next = std::pin::pin!(slow.next());
        let next = std::future::poll_fn(|cx| {
            handle.peer.borrow_mut().flush();
            cx.waker().wake_by_ref();
            next.as_mut().poll(cx)
        });
        seen.push(next.await);
    }
    assert!(!texts(&seen).contains(&&json!("after")), "{seen:?}");
}

impl House {
    /// As [`tab`](Self::tab), without a loop that would write its greeting.
    pub(super) fn tab_with_member_only(&self, shard: usize, client: &str) -> Tab {
        let (pipe, wire) = duplex(PIPE_BYTES);
        let rooms = &self.shards[shard];
        let seat = rooms.shard.seat(Wire::Pipe(wire));
        let limits = limits();
        let enter = self.enter(&seat, client, &limits);
        let member = Member::enter(rooms, &seat.handle, enter, None);
        Tab { member: Some(member), seat, pipe }
    }

    /// Has a shard handle at most so many mails that wait for it now, without its loop.
    pub(super) fn handle(&self, rooms: &Rc<Rooms>, most: usize) -> usize {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let mut handled = 0;
        while handled < most {
            let Ok(mail) = self.inboxes.borrow_mut()[rooms.shard.index].0.try_recv() else { break };
            rooms.handle(mail);
            handled += 1;
            while rooms.home.borrow_mut().poll_event(&mut cx).is_ready() {}
            rooms.poll_timers(&mut cx);
        }
        handled
    }

    pub(super) fn handle_all(&self, rooms: &Rc<Rooms>) {
        while self.handle(rooms, 1) > 0 {}
    }

    /// Has a shard's mailbox take no more deliveries.
    pub(super) fn fill(&self, shard: usize) {
        self.shards[0].shared.post.reserve(shard, 64 << 20);
    }

    pub(super) fn empty(&self, shard: usize) {
        self.shards[0].shared.post.received(shard, 64 << 20);
    }

    /// Everything that was sent to a session since the last call, but for its greeting.
    pub(super) async fn seen(&self, tab: &mut Tab) -> Vec<Value> {
        // A pipe takes only so much in one turn.
        while tab.seat.handle.peer.borrow_mut().flush() != crate::outbox::Flush::Done {
            tokio::task::yield_now().await;
        }
        let mut seen = Vec::new();
        loop {
            let next = timeout(Duration::from_millis(1), tab.next()).await;
            let Ok(message) = next else { return seen };
            if message["type"] != "connection_established" {
                seen.push(message);
            }
        }
    }
}
