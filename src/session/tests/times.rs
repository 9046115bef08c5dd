//! What a session does by itself, and when.
use super::*;
use crate::admission::token::sign;

fn token(house: &House, client: &str, seconds: u64) -> String {
    let auth = &house.around.gate.config().auth;
    sign(auth, client, Duration::from_secs(seconds), &[], SystemTime::now()).unwrap()
}

fn auth(house: &House, client: &str, seconds: u64) -> Value {
    json!({"type": "auth", "payload": {"token": token(house, client, seconds)}})
}

#[tokio::test(start_paused = true)]
async fn messages_of_either_side_keep_a_session_from_being_idle() {
    House::run("idle_timeout = \"10s\"\nping_interval = 0", async |house: &House| {
        let ended = house
            .session(ROOMS, alice(), async |alice: &mut Peer| {
                alice.expect("connection_established").await;
                alice.say(json!({"type": "join_room", "payload": {"room_id": "a"}})).await;
                alice.expect("room_joined").await;
                alice.at(6).await;
                alice.say(json!({"type": "ping"})).await;
                alice.expect("pong").await;
                alice.at(14).await;
                // Of bob she only hears.
                let bob = house.session(ROOMS, bob(), async |bob: &mut Peer| {
                    bob.expect("connection_established").await;
                    bob.say(json!({"type": "join_room", "payload": {"room_id": "a"}})).await;
                    bob.expect("room_joined").await;
                    bob.close(1000).await;
                    assert_eq!(bob.closed().await, 1000);
                });
                assert_eq!(bob.await.close.number, Some(1000));
                alice.expect("presence_update").await;
                alice.expect("presence_update").await;
                // A frame that is no message is none.
                alice.at(20).await;
                alice.send(Opcode::Ping, b"x").await;
                assert_eq!(alice.frame().await, Some((0x8A, b"x".to_vec())));
                assert_eq!(alice.expect("disconnect").await["payload"]["code"], 4014);
                assert_eq!(alice.seconds(), 24);
                assert_eq!(alice.frame().await.unwrap().0, 0x88);
            })
            .await;
        assert_eq!((ended.close.number, ended.close.by, &*ended.close.reason), (Some(4014), By::Gateway, "idle"));
        assert_eq!(ended.after, Duration::from_secs(24));
    })
    .await;
}

fn bob() -> Who {
    let identity = Identity { client: "bob".into(), expires_at: Some(u64::MAX / 2), claims: Arc::default() };
    Who::Client(identity, ClientPermit::alone())
}

#[tokio::test(start_paused = true)]
async fn pings_come_after_silence_and_want_an_answer() {
    House::run("ping_interval = \"10s\"\npong_timeout = \"3s\"", async |house: &House| {
        for path in [ECHO, ROOMS] {
            let ended = house
                .session(path, alice(), async |alice: &mut Peer| {
                    if path == ROOMS {
                        alice.expect("connection_established").await;
                    }
                    for seconds in [10, 20] {
                        assert_eq!(alice.frame().await.unwrap().0, 0x89);
                        assert_eq!(alice.seconds(), seconds);
                        alice.send(Opcode::Pong, b"").await;
                    }
                    alice.at(25).await;
                    alice.send(Opcode::Pong, b"unasked").await;
                    assert_eq!(alice.frame().await.unwrap().0, 0x89);
                    assert_eq!(alice.seconds(), 35);
                    alice.at(37).await;
                    alice.send(Opcode::Pong, b"").await;
                    assert_eq!(alice.frame().await.unwrap().0, 0x89);
                    assert_eq!(alice.seconds(), 47);
                })
                .await;
            assert_eq!((ended.close.number, &*ended.close.reason), (Some(4014), "heartbeat lost"));
            assert_eq!(ended.after, Duration::from_secs(50));
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_token_ends_a_session_when_it_ends_itself() {
    House::run("ping_interval = 0\nidle_timeout = 0", async |house: &House| {
        for (fresh, until) in [(None, 20), (Some(5), 5), (Some(300), 300)] {
            let ended = house
                .session(ROOMS, Who::Visitor, async |alice: &mut Peer| {
                    alice.at(1).await;
                    alice.say(auth(house, "alice", 20)).await;
                    alice.expect("auth_response").await;
                    alice.expect("connection_established").await;
                    if let Some(seconds) = fresh {
                        alice.say(auth(house, "bob", 1000)).await;
                        assert_eq!(alice.expect("error").await["payload"]["code"], 4002);
                        alice.say(auth(house, "alice", seconds)).await;
                        alice.expect("auth_response").await;
                    }
                    assert_eq!(alice.expect("disconnect").await["payload"]["code"], 4002);
                })
                .await;
            assert_eq!((ended.close.number, &*ended.close.reason), (Some(4002), "token expired"));
            // `exp` is in whole seconds, and the system's clock does not stand still.
            let whole = Duration::from_secs(1 + until);
            assert!((whole - Duration::from_secs(2)..=whole).contains(&ended.after), "{until}: {:?}", ended.after);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_visitor_has_its_time_and_a_client_none() {
    House::run("ping_interval = 0\nidle_timeout = 0", async |house: &House| {
        let ended = house
            .session(ROOMS, Who::Visitor, async |visitor: &mut Peer| {
                visitor.at(9).await;
                visitor.send(Opcode::Ping, b"").await;
                assert_eq!(visitor.frame().await.unwrap().0, 0x8A);
                visitor.expect("disconnect").await;
                assert_eq!(visitor.closed().await, 4001);
            })
            .await;
        assert_eq!((ended.close.number, ended.after), (Some(4001), Duration::from_secs(10)));
        assert_eq!(house.around.shard.sessions(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_wakes_a_session_that_has_nothing_to_do() {
    House::run("ping_interval = 0\nidle_timeout = 0", async |house: &House| {
        let ended = house
            .session(ROOMS, alice(), async |alice: &mut Peer| {
                alice.expect("connection_established").await;
                alice.at(100).await;
                house.around.shard.drain(Duration::from_secs(5));
                let disconnect = alice.expect("disconnect").await;
                assert_eq!(
                    (&disconnect["payload"]["code"], &disconnect["payload"]["reconnect"]),
                    (&json!(1012), &json!(true))
                );
                assert!(disconnect["payload"]["retry_after_ms"].as_u64().is_some_and(|ms| ms >= 50));
                alice.close(1012).await;
                assert_eq!(alice.closed().await, 1012);
            })
            .await;
        assert_eq!((ended.close.number, ended.close.by), (Some(1012), By::Gateway));
        assert!((100..=105).contains(&ended.after.as_secs()));
    })
    .await;
}

/// A ping that stands behind a queue cannot be answered yet; a client that takes what is queued is alive.
#[tokio::test(start_paused = true)]
async fn a_slow_client_is_not_dead_and_a_stuck_one_is() {
    let limits = "ping_interval = \"10s\"\npong_timeout = \"12s\"\nidle_timeout = 0\nmessages_per_second = 0";
    House::run(limits, async |house: &House| {
        let (theirs, ours) = duplex(1000);
        let mut slow = Peer { pipe: theirs, started: Instant::now() };
        let mut talk = house.talk(ROOMS, alice(), Wire::Pipe(ours));
        let handle = talk.seat().handle.clone();
        let client = async {
            for _ in 0..50 {
                slow.say(json!({"type": "ping"})).await;
            }
            // 100 bytes a second, of some 10,000.
            let mut heard = Vec::new();
            while !heard.ends_with(&[0x89, 0]) {
                let mut part = [0; 100];
                let count = slow.pipe.read(&mut part).await.unwrap();
                heard.extend_from_slice(&part[..count]);
                tokio::time::advance(Duration::from_secs(1)).await;
            }
            assert!(slow.seconds() > 60, "{}", slow.seconds());
            slow.send(Opcode::Pong, b"").await;
            for _ in 0..50 {
                slow.say(json!({"type": "ping"})).await;
            }
            while handle.peer.borrow().backlog() < 5000 {
                tokio::task::yield_now().await;
            }
            // 10 to the ping, 12 for its pong.
            for _ in 0..23 {
                tokio::time::advance(Duration::from_secs(1)).await;
                tokio::task::yield_now().await;
            }
        };
        let (close, ()) = join(talk.run(), client).await;
        assert_eq!((close.number, &*close.reason), (Some(4014), "heartbeat lost"));
    })
    .await;
}

/// Paused by its rate, a client is neither idle nor dead, loses nothing, and can be closed.
#[tokio::test(start_paused = true)]
async fn a_client_that_sends_too_much_is_read_later() {
    let limits = "messages_per_second = 1\nmessage_burst = 2\non_excess = \"pause\"\nidle_timeout = \"900ms\"\n\
                  ping_interval = \"500ms\"\npong_timeout = \"300ms\"";
    House::run(limits, async |house: &House| {
        for path in [PAUSING, ROOMS] {
            let ended = house
                .session(path, alice(), async |alice: &mut Peer| {
                    let text = json!({"type": "ping"}).to_string();
                    let sent = masked_frame(Opcode::Text, text.as_bytes(), [1, 2, 3, 4]).repeat(6);
                    let bye = masked_frame(Opcode::Close, &1000u16.to_be_bytes(), [1, 2, 3, 4]);
                    alice.pipe.write_all(&[&sent[..], &bye].concat()).await.unwrap();
                    if path == ROOMS {
                        alice.expect("connection_established").await;
                    }
                    for seconds in [0, 0, 1, 2, 3, 4] {
                        while alice.frame().await.unwrap().0 != 0x81 {}
                        assert_eq!(alice.seconds(), seconds);
                    }
                })
                .await;
            assert_eq!((ended.close.number, ended.close.by), (Some(1000), By::Client), "{}", ended.close.reason);
            assert_eq!((ended.traffic.messages_in, ended.after.as_secs()), (6, 5));
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_read_later_can_be_closed_meanwhile() {
    let limits = "messages_per_second = 1\nmessage_burst = 1\non_excess = \"pause\"\nping_interval = 0";
    for path in [PAUSING, ROOMS] {
        House::run(limits, async |house: &House| {
            let ended = house
                .session(path, alice(), async |alice: &mut Peer| {
                    for _ in 0..50 {
                        alice.send(Opcode::Ping, b"").await;
                    }
                    while alice.frame().await.unwrap().0 != 0x8A {}
                    house.around.shard.drain(Duration::from_secs(2));
                    while alice.frame().await.unwrap().0 != 0x88 {}
                })
                .await;
            assert_eq!(ended.close.number, Some(1012));
            assert!(ended.after <= Duration::from_secs(2), "{:?}", ended.after);
        })
        .await;
    }
}
