//! One order for all: offsets that rise by one, whoever publishes on whatever shard.
use super::*;
use crate::rooms::broker::{Batch, Event, Message, Position, Publication};
use std::collections::VecDeque;
use std::future::poll_fn;

/// Offset and text of every `chat_message` among these, and where the membership they belong to began.
fn chats(messages: &[Value]) -> Vec<(u64, String)> {
    let chats = messages.iter().filter(|m| m["type"] == "chat_message");
    let payload = chats.map(|m| &m["payload"]);
    payload.map(|p| (p["position"]["offset"].as_u64().unwrap(), p["message"].to_string())).collect()
}

#[tokio::test(start_paused = true)]
async fn every_member_sees_the_same_from_its_join_on() {
    with_every_broker(rules(), async |house: &House| {
        let room = house.room_at(1);
        let mut tabs = Vec::new();
        let mut starts = Vec::new();
        for i in 0..9 {
            let mut tab = house.tab(i % 3, &format!("client-{i}")).await;
            // Those before publish while it joins.
            for (n, other) in tabs.iter().enumerate() {
                let other: &Tab = other;
                other.publish(&room, &format!("{i}-{n}"));
            }
            starts.push(tab.joined(&room).await["position"]["offset"].as_u64().unwrap());
            tabs.push(tab);
        }
        let mut whole = None;
        for (tab, start) in tabs.iter_mut().zip(starts) {
            let mut seen = Vec::new();
            while chats(&seen).len() as u64 + start < 36 {
                seen.push(tab.next().await);
            }
            let seen = chats(&seen);
            let offsets: Vec<u64> = seen.iter().map(|(offset, _)| *offset).collect();
            assert_eq!(offsets, (start + 1..=36).collect::<Vec<_>>());
            let whole = whole.get_or_insert_with(|| seen.clone());
            assert_eq!(seen, whole[start as usize..]);
        }
    })
    .await;
}

/// Rooms that empty and fill again while their last messages are still on the way.
#[tokio::test(start_paused = true)]
async fn a_position_at_a_join_belongs_to_what_follows_it() {
    with_every_broker(rules(), async |house: &House| {
        let room = house.room_at(1);
        let mut alice = house.tab(0, "alice").await;
        let mut bob = house.tab(2, "bob").await;
        // Turns of the shards before the second client asks.
        for turns in 0..60 {
            alice.join(&room, "first");
            alice.answer("first").await;
            alice.publish(&room, &format!("last words {turns}"));
            alice.leave(&room, "leave");
            alice.join(&room, "again");
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            let at_bob = bob.joined(&room).await["position"].clone();
            let (again, _) = alice.answer("again").await;
            let at_alice = again["payload"]["position"].clone();
            assert_eq!(at_alice, at_bob);
            let text = format!("x {turns}");
            alice.publish(&room, &text);
            let chat = loop {
                let message = bob.next().await;
                if message["type"] == "chat_message" {
                    break message;
                }
            };
            assert_eq!(chat["payload"]["message"], text, "{chat}");
            assert_eq!(chat["payload"]["position"]["epoch"], at_bob["epoch"]);
            assert_eq!(chat["payload"]["position"]["offset"], at_bob["offset"].as_u64().unwrap() + 1);
            for tab in [&mut alice, &mut bob] {
                tab.leave(&room, "end");
                tab.answer("end").await;
            }
        }
        alice.lose();
        bob.lose();
        house.emptied().await;
    })
    .await;
}

/// A broker that says what it is told to say.
#[derive(Clone, Default)]
struct Scripted(Rc<RefCell<VecDeque<Event>>>);

impl Broker for Scripted {
    fn open(&mut self, _: &RoomKey, _: &Arc<config::Rules>) {}

    fn shut(&mut self, _: &RoomKey) {}

    fn publish(&mut self, _: u64, _: &RoomKey, _: Publication) {}

    fn read(&mut self, _: u64, _: &RoomKey, _: u64, _: Batch) {}

    fn poll_timers(&mut self, _: &mut Context<'_>) {}

    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<Event> {
        self.0.borrow_mut().pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// What an earlier room of the same name was sent comes when the next one is not open yet.
#[tokio::test(start_paused = true)]
async fn a_room_is_used_only_when_it_is_open() {
    let broker = Scripted::default();
    let house = House::new(2, rules(), || Box::new(broker.clone()));
    let room = house.room_at(1);
    let at = |epoch: &str, offset| Position { epoch: epoch.into(), offset };
    let opened = |position| Event::Opened { room: key(&room), position };
    let delivered = |position| {
        let message = serde_json::value::RawValue::from_string("\"late\"".into()).unwrap();
        let sender = Some("alice".into());
        let publication = Publication { sender, message_id: "late".into(), named: true, message };
        let message = Message::new(&room, position, jiff::Timestamp::now(), &publication);
        Event::Delivered { room: key(&room), message }
    };
    let say = |event| broker.0.borrow_mut().push_back(event);
    let handle = || {
        for rooms in [&house.shards[1], &house.shards[0]] {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            while rooms.home.borrow_mut().poll_event(&mut cx).is_ready() {}
            house.handle_all(rooms);
        }
    };
    let (alice, mut bob) = (house.tab_with_member_only(0, "alice"), house.tab_with_member_only(0, "bob"));
    alice.join(&room, "join");
    handle();
    say(opened(at("old", 0)));
    alice.publish(&room, "late");
    alice.leave(&room, "leave");
    handle();
    bob.join(&room, "first");
    handle();
    say(delivered(at("old", 1)));
    handle();
    bob.join(&room, "second");
    handle();
    assert!(house.seen(&mut bob).await.is_empty());
    say(opened(at("new", 0)));
    say(delivered(at("new", 1)));
    handle();
    let seen = house.seen(&mut bob).await;
    let epochs: Vec<&Value> = seen.iter().map(|m| &m["payload"]["position"]["epoch"]).collect();
    assert_eq!(epochs, ["new"; 3], "{seen:?}");
    let ids: Vec<&Value> = seen[..2].iter().map(|m| &m["metadata"]["correlation_id"]).collect();
    assert_eq!(ids, ["first", "second"]);
}

/// The loop hands the thread on within a batch: a turn takes its time, whatever waits in the mailbox.
#[tokio::test(start_paused = true)]
async fn a_batch_of_large_deliveries_is_taken_in_slices() {
    let house = House::new(1, rules_with(|r| r.max_members = 10_000), memory);
    let rooms = &house.shards[0];
    let tabs: Vec<Tab> = (0..2000).map(|i| house.tab_with_member_only(0, &format!("client-{i}"))).collect();
    for tab in &tabs {
        tab.join("a", "join");
    }
    house.handle_all(rooms);
    let inbox = house.inboxes.borrow_mut().pop().unwrap();
    for i in 0..200 {
        tabs[0].publish("a", &format!("x{i}"));
    }
    let last = tabs[1999].seat.handle.clone();
    let before = last.sent.get().0;
    LocalSet::new()
        .run_until(async {
            let task = spawn_local(rooms.clone().run(inbox));
            // Beside it on the same list of tasks, so that the two take turns.
            let mut turns = 0;
            let turns = spawn_local(poll_fn(move |cx| {
                if last.sent.get().0 - before >= 200 {
                    return Poll::Ready(turns);
                }
                turns += 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }));
            let turns = turns.await.unwrap();
            task.abort();
            assert!(turns > 10, "400,000 deliveries in {turns} turns");
        })
        .await;
}
