//! The ends of a session: who is said to have made them, and what both sides get.
use super::*;
use crate::close::Code;

const QUIET: &str = "ping_interval = 0\nidle_timeout = 0";

#[tokio::test(start_paused = true)]
async fn a_close_of_the_client_is_answered_and_nothing_after_it_counts() {
    House::run(QUIET, async |house: &House| {
        for path in [ECHO, ROOMS] {
            let ended = house
                .session(path, alice(), async |alice: &mut Peer| {
                    if path == ROOMS {
                        alice.expect("connection_established").await;
                    }
                    // All in one write.
                    let mut bytes = masked_frame(Opcode::Text, br#"{"type":"ping"}"#, [0; 4]).to_vec();
                    bytes.extend(masked_frame(Opcode::Close, &[0x10, 0xE1, b'b', b'y', b'e'], [9; 4]));
                    bytes.extend(masked_frame(Opcode::Text, br#"{"type":"ping"}"#, [0; 4]));
                    bytes.extend([0xFF; 100]);
                    alice.pipe.write_all(&bytes).await.unwrap();
                    assert_eq!(alice.frame().await.unwrap().0, 0x81, "what came before it is answered");
                    assert_eq!(alice.closed().await, 4321);
                })
                .await;
            let Close { by, number, reason, .. } = ended.close;
            assert_eq!((by, number, &*reason), (By::Client, Some(4321), "bye"));
            assert_eq!((ended.traffic.messages_in, ended.traffic.bytes_in), (1, 15));
            assert_eq!(ended.traffic.messages_out, 1 + u64::from(path == ROOMS));
            assert_eq!(ended.whole, Duration::ZERO);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_close_without_a_code_is_answered_without_one() {
    House::run(QUIET, async |house: &House| {
        let ended = house
            .session(ECHO, alice(), async |alice: &mut Peer| {
                alice.send(Opcode::Close, b"").await;
                assert_eq!(alice.frame().await, Some((0x88, Vec::new())));
            })
            .await;
        assert_eq!((ended.close.by, ended.close.number), (By::Client, Some(1005)));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn whoever_is_first_has_closed_it() {
    House::run(QUIET, async |house: &House| {
        let (theirs, ours) = duplex(1000);
        let mut talk = house.talk(ROOMS, alice(), Wire::Pipe(ours));
        let mut alice = super::Peer { pipe: theirs, started: Instant::now() };
        // Both at once: the order is there when the client's Close is read.
        talk.seat().handle.order(Close::gateway(Code::Administrator));
        alice.close(1000).await;
        let close = talk.run().await;
        assert_eq!((close.by, close.number), (By::Gateway, Some(4013)));
        end(&house.around.shard, talk.seat(), &close).await;
        drop(talk);
        alice.expect("connection_established").await;
        assert_eq!(alice.expect("disconnect").await["payload"]["reconnect"], false);
        assert_eq!(alice.closed().await, 4013);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_answers_a_close_is_waited_for_two_seconds() {
    House::run("idle_timeout = \"10s\"\nping_interval = 0", async |house: &House| {
        let ended = house.session(ECHO, alice(), async |alice: &mut Peer| assert_eq!(alice.closed().await, 4014)).await;
        assert_eq!((ended.after, ended.whole), (Duration::from_secs(10), Duration::from_secs(12)));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_just_ends_has_no_code() {
    House::run(QUIET, async |house: &House| {
        for path in [ECHO, ROOMS] {
            let ended =
                house.session(path, alice(), async |alice: &mut Peer| alice.pipe.shutdown().await.unwrap()).await;
            assert_eq!((ended.close.by, ended.close.number), (By::Client, None));
            assert_eq!(ended.whole, Duration::ZERO);
        }
    })
    .await;
}

/// The pipe's other end is gone, but what it sent before lies in the pipe.
#[tokio::test(start_paused = true)]
async fn the_last_words_of_a_client_that_is_gone_are_heard() {
    House::run(QUIET, async |house: &House| {
        let (theirs, ours) = duplex(1000);
        let mut alice = super::Peer { pipe: theirs, started: Instant::now() };
        alice.close(4321).await;
        drop(alice);
        let mut talk = house.talk(ROOMS, super::alice(), Wire::Pipe(ours));
        let close = talk.run().await;
        assert_eq!((close.by, close.number), (By::Client, Some(4321)));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_one_session_and_gives_everything_back() {
    House::run(QUIET, async |house: &House| {
        let (theirs, ours) = duplex(1 << 16);
        let mut alice = super::Peer { pipe: theirs, started: Instant::now() };
        let count = Counted::new(house.around.shard.clone(), Service::Rooms);
        let mut talk = house.talk(ROOMS, super::alice(), Wire::Pipe(ours));
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let task = spawn_local(async move {
            let _count = count;
            let run = talk.run();
            tokio::select! {
                _ = run => (),
                _ = gone => panic!("as in a session"),
            }
        });
        alice.expect("connection_established").await;
        alice.say(json!({"type": "join_room", "payload": {"room_id": "a"}})).await;
        alice.expect("room_joined").await;
        assert_eq!((house.metric("wsgate_sessions"), house.metric("wsgate_room_members")), (1, 1));
        go.send(()).unwrap();
        assert!(task.await.unwrap_err().is_panic());
        while house.metric("wsgate_room_members") > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!((house.metric("wsgate_sessions"), house.metric("wsgate_session_panics")), (0, 1));
        assert_eq!((house.metric("wsgate_rooms"), house.around.shard.sessions()), (0, 0));
        assert_eq!(alice.frame().await, None);
        // And the shard goes on.
        let ended = house
            .session(ROOMS, super::alice(), async |alice: &mut Peer| {
                alice.expect("connection_established").await;
                alice.close(1000).await;
            })
            .await;
        assert_eq!(ended.close.number, Some(1000));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_order_wakes_a_session_that_has_nothing_to_do() {
    House::run(QUIET, async |house: &House| {
        let (theirs, ours) = duplex(1000);
        let mut alice = super::Peer { pipe: theirs, started: Instant::now() };
        let mut talk = house.talk(ROOMS, super::alice(), Wire::Pipe(ours));
        let handle = talk.seat().handle.clone();
        let session = spawn_local(async move { talk.run().await });
        alice.expect("connection_established").await;
        alice.at(100).await;
        handle.order(Close::gateway(Code::Administrator));
        assert_eq!(session.await.unwrap().number, Some(4013));
        assert_eq!(alice.seconds(), 100);
    })
    .await;
}
