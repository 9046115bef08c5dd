//! Mailboxes that are full: nobody misses a message without being told.
use super::*;

#[tokio::test(start_paused = true)]
async fn members_of_a_shard_that_falls_behind_are_told_and_the_others_lose_nothing() {
    let house = House::new(2, rules(), || Box::new(Memory::default()));
    let room = house.room_at(1);
    let (here, there) = (&house.shards[0], &house.shards[1]);
    let mut alice = house.tab_with_member_only(0, "alice");
    let mut bob = house.tab_with_member_only(1, "bob");
    alice.join(&room, "join");
    bob.join(&room, "join");
    house.handle_all(there);
    house.handle_all(here);
    house.fill(0);
    bob.publish(&room, "one");
    bob.publish(&room, "two");
    house.handle_all(there);
    // She asks again before she knows, and is told to come later.
    alice.join(&room, "too early");
    house.handle_all(there);
    house.empty(0);
    house.handle_all(here);
    let seen = house.seen(&mut alice).await;
    let kinds: Vec<&str> = seen.iter().map(|m| m["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["room_joined", "presence_update", "room_left", "error"], "{seen:?}");
    assert_eq!(seen[2]["payload"]["code"], 4010);
    assert_eq!((&seen[3]["payload"]["code"], &seen[3]["payload"]["retryable"]), (&json!(4000), &json!(true)));
    alice.join(&room, "again");
    house.handle_all(there);
    house.handle_all(here);
    let again = house.seen(&mut alice).await;
    assert_eq!(again[0]["payload"]["position"]["offset"], 2, "{again:?}");
    bob.publish(&room, "three");
    house.handle_all(there);
    house.handle_all(here);
    let seen = house.seen(&mut alice).await;
    assert_eq!(seen[0]["payload"]["message"], "three", "{seen:?}");
    let seen = house.seen(&mut bob).await;
    let texts: Vec<&Value> =
        seen.iter().filter(|m| m["type"] == "chat_message").map(|m| &m["payload"]["message"]).collect();
    assert_eq!(texts, ["one", "two", "three"]);
    alice.lose();
    bob.lose();
    house.handle_all(there);
    house.handle_all(here);
    assert_eq!(house.gauges(), (0, 0));
}

/// The room that a shard lost is not the one that has its name by the time the home hears of it.
#[tokio::test(start_paused = true)]
async fn a_loss_is_of_the_room_that_was_lost() {
    let house = House::new(2, rules(), || Box::new(Memory::default()));
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

impl House {
    /// As [`tab`](Self::tab), without a loop that would write its greeting.
    pub(super) fn tab_with_member_only(&self, shard: usize, client: &str) -> Tab {
        let (pipe, wire) = duplex(PIPE_BYTES);
        let rooms = &self.shards[shard];
        let seat = rooms.shard.seat(Wire::Pipe(wire));
        let identity = Identity { client: client.into(), expires_at: Some(1), claims: Arc::default() };
        let enter = Enter { identity, namespace: Namespace { index: 0 }, limits: &limits(), deflate: false };
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
        }
        handled
    }

    pub(super) fn handle_all(&self, rooms: &Rc<Rooms>) {
        while self.handle(rooms, 1) > 0 {}
    }

    /// Has a shard's mailbox take no more deliveries.
    fn fill(&self, shard: usize) {
        self.shards[0].shared.post.reserve(shard, 64 << 20);
    }

    fn empty(&self, shard: usize) {
        self.shards[0].shared.post.received(shard, 64 << 20);
    }

    /// Everything that was sent to a session since the last call, but for its greeting.
    pub(super) async fn seen(&self, tab: &mut Tab) -> Vec<Value> {
        assert_eq!(tab.seat.handle.peer.borrow_mut().flush(), crate::outbox::Flush::Done);
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
