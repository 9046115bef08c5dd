//! Requests faster than they are answered.
use super::*;
use crate::rooms::broker::{Event, Publication, RoomKey};
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
    fn open(&mut self, room: &RoomKey) {
        self.0.memory.borrow_mut().open(room);
    }

    fn shut(&mut self, room: &RoomKey) {
        self.0.memory.borrow_mut().shut(room);
    }

    fn publish(&mut self, ticket: u64, room: &RoomKey, publication: Publication) {
        self.0.waiting.borrow_mut().push_back((ticket, room.clone(), publication));
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
                let (mut sent, mut chats, mut let_go) = (0, 0, 0);
                // More is let go whenever all that was is answered: one by one, then some, then all.
                while chats < 300 {
                    if chats == let_go {
                        alice.at(alice.seconds() + 1).await;
                        assert!(broker.0.waiting.borrow().len() <= 64);
                        assert_eq!(broker.0.waiting.borrow().len(), 64.min(300 - let_go));
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
                assert_eq!(sent, 300);
                alice.close(1000).await;
                assert_eq!(alice.closed().await, 1000);
            })
            .await;
    })
    .await;
}
