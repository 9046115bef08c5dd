//! Requests faster than they are answered.
use super::*;
use crate::config::Rules;
use crate::rooms::broker::{Batch, Event, Publication, RoomKey};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// A broker that gives places only as they are let go.
#[derive(Clone, Default)]
struct Gated(Rc<State>);

#[derive(Default)]
struct State {
    memory: RefCell<Memory>,
    waiting: RefCell<VecDeque<(u64, RoomKey, Publication)>>,
    free: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl Gated {
    fn let_go(&self, count: usize) {
        self.0.free.set(self.0.free.get() + count);
        if let Some(waker) = self.0.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Broker for Gated {
    fn open(&mut self, room: &RoomKey, rules: &Arc<Rules>) {
        self.0.memory.borrow_mut().open(room, rules);
    }

    fn shut(&mut self, room: &RoomKey) {
        self.0.memory.borrow_mut().shut(room);
    }

    fn publish(&mut self, ticket: u64, room: &RoomKey, publication: Publication) {
        self.0.waiting.borrow_mut().push_back((ticket, room.clone(), publication));
    }

    fn read(&mut self, ticket: u64, room: &RoomKey, after: u64, batch: Batch) {
        self.0.memory.borrow_mut().read(ticket, room, after, batch);
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) {
        self.0.memory.borrow_mut().poll_timers(cx);
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        while self.0.free.get() > 0
            && let Some((ticket, room, publication)) = self.0.waiting.borrow_mut().pop_front()
        {
            self.0.free.set(self.0.free.get() - 1);
            self.0.memory.borrow_mut().publish(ticket, &room, publication);
        }
        *self.0.waker.borrow_mut() = Some(cx.waker().clone());
        self.0.memory.borrow_mut().poll_event(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_is_read_no_further_at_64_unanswered_and_then_goes_on() {
    let limits = "ping_interval = 0\nidle_timeout = 0\nmessages_per_second = 0\nbytes_per_second = 0";
    let broker = Gated::default();
    House::with(limits, Box::new(broker.clone()), async |house: &House| {
        house
            .session(ROOMS, alice(), async |alice: &mut Peer| {
                alice.expect("connection_established").await;
                alice.say(json!({"type": "join_room", "payload": {"room_id": "a"}})).await;
                alice.expect("room_joined").await;
                // In one write, cut within frames by reads of 64 KiB.
                let mut bytes = Vec::new();
                for n in 0..300 {
                    let message = json!({"type": "message", "payload": {"room_id": "a", "message": "x".repeat(1000)},
                        "metadata": {"message_id": n.to_string()}});
                    bytes.extend(masked_frame(Opcode::Text, message.to_string().as_bytes(), [n as u8; 4]));
                }
                alice.pipe.write_all(&bytes).await.unwrap();
                let (mut sent, mut chats, mut let_go, mut rested) = (0, 0, 0, false);
                // More is let go whenever all that was is answered: one by one, then some, then all.
                while chats < 300 {
                    if chats == let_go {
                        alice.at(alice.seconds() + 1).await;
                        // It rests at 64 until half of them are answered, and then goes on to 64 again.
                        let waiting = broker.0.waiting.borrow().len();
                        assert!((33.min(300 - let_go)..=64).contains(&waiting), "{waiting} wait, {let_go} were let go");
                        rested |= waiting == 64;
                        let more = if let_go < 10 { 1 } else { 37.min(300 - let_go) };
                        let_go += more;
                        broker.let_go(more);
                    }
                    let message = alice.next().await;
                    match message["type"].as_str().unwrap() {
                        "message_sent" => {
                            assert_eq!(message["payload"]["message_id"], sent.to_string());
                            sent += 1;
                        }
                        "chat_message" => {
                            assert_eq!(message["metadata"]["message_id"], chats.to_string());
                            chats += 1;
                            assert_eq!(message["payload"]["position"]["offset"], chats);
                        }
                        _ => panic!("{message}"),
                    }
                }
                assert!(rested);
                assert_eq!(sent, 300);
                alice.close(1000).await;
                assert_eq!(alice.closed().await, 1000);
            })
            .await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_rejected_is_answered_and_never_delivered() {
    let limits =
        "ping_interval = 0\nidle_timeout = 0\nmessages_per_second = 1\nmessage_burst = 3\non_excess = \"reject\"";
    House::run(limits, async |house: &House| {
        let ended = house
            .session(ROOMS, alice(), async |alice: &mut Peer| {
                let message = |id: &str| {
                    json!({"type": "message", "payload": {"room_id": "a", "message": id}, "metadata": {"message_id": id}})
                };
                alice.expect("connection_established").await;
                alice.say(json!({"type": "join_room", "payload": {"room_id": "a"}})).await;
                alice.expect("room_joined").await;
                for id in ["one", "two"] {
                    alice.say(message(id)).await;
                    alice.expect("message_sent").await;
                    assert_eq!(alice.expect("chat_message").await["payload"]["message"], id);
                }
                alice.say(message("dropped")).await;
                let error = alice.expect("error").await;
                assert_eq!((&error["payload"]["code"], &error["payload"]["retryable"]), (&json!(4004), &json!(true)));
                assert_eq!(error["metadata"]["correlation_id"], "dropped");
                let wait = error["payload"]["retry_after_ms"].as_u64().unwrap();
                assert!((1..=1000).contains(&wait));
                alice.send(Opcode::Binary, b"dropped too").await;
                let error = alice.expect("error").await;
                assert_eq!(error["payload"]["code"], 4004);
                assert!(error["metadata"].get("correlation_id").is_none());
                alice.send(Opcode::Ping, b"and this").await;
                tokio::time::sleep(Duration::from_millis(wait)).await;
                alice.say(message("three")).await;
                alice.expect("message_sent").await;
                let chat = alice.expect("chat_message").await;
                assert_eq!((&chat["payload"]["message"], &chat["payload"]["position"]["offset"]), (&json!("three"), &json!(3)));
                alice.close(1000).await;
                assert_eq!(alice.closed().await, 1000);
            })
            .await;
        assert_eq!(ended.traffic.messages_in, 6, "what was rejected has come all the same");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_slow_client_is_in_the_metrics_until_it_is_gone() {
    House::run("ping_interval = 0\nidle_timeout = 0\nmessages_per_second = 0", async |house: &House| {
        let backlog = || house.metric("wsgate_backlog_bytes");
        let (theirs, ours) = duplex(1000);
        let mut slow = Peer { pipe: theirs, started: Instant::now() };
        let mut talk = house.talk(ROOMS, alice(), Wire::Pipe(ours));
        let session = async {
            let close = talk.run().await;
            end(&house.around.shard, talk.seat(), &close).await;
            drop(talk);
        };
        let client = async {
            for _ in 0..20 {
                slow.say(json!({"type": "ping"})).await;
            }
            while backlog() < 2000 {
                tokio::task::yield_now().await;
            }
            slow.expect("connection_established").await;
            for _ in 0..20 {
                slow.expect("pong").await;
            }
            while backlog() > 0 {
                tokio::task::yield_now().await;
            }
            for _ in 0..20 {
                slow.say(json!({"type": "ping"})).await;
            }
            while backlog() < 2000 {
                tokio::task::yield_now().await;
            }
            drop(slow);
        };
        join(session, client).await;
        assert_eq!(backlog(), 0);
    })
    .await;
}
