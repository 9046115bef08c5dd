//! Who is told of an end, and what.
use super::*;

#[tokio::test(start_paused = true)]
async fn closes_of_the_client_pass() {
    let ended = relayed_plainly(async |mut ends| {
        let bye = masked(Opcode::Close, &close(1000, "bye"));
        ends.client.write_all(&bye).await.unwrap();
        expect(&mut ends.backend, &bye).await;
        // The backend may still have something to say.
        ends.backend.write_all(&frame(Opcode::Text, b"last")).await.unwrap();
        ends.backend.write_all(&frame(Opcode::Close, &close(1000, "bye"))).await.unwrap();
        expect(&mut ends.client, &frame(Opcode::Text, b"last")).await;
        assert_eq!(rest(&mut ends.client).await, frame(Opcode::Close, &close(1000, "bye")));
        assert!(rest(&mut ends.backend).await.is_empty());
    })
    .await;
    assert_eq!(ended.close, Close::from_peer(By::Client, Some(1000), "bye"));
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_not_answered_is_answered_by_the_gateway() {
    let start = Instant::now();
    let ended = relayed_plainly(async |mut ends| {
        ends.client.write_all(&masked(Opcode::Close, &close(3000, "x"))).await.unwrap();
        assert_eq!(rest(&mut ends.client).await, frame(Opcode::Close, &close(3000, "x")));
        assert_eq!(start.elapsed().as_secs(), 2);
    })
    .await;
    assert_eq!(ended.close, Close::from_peer(By::Client, Some(3000), "x"));
    // The backend's end of TCP is as good as its time.
    let start = Instant::now();
    relayed_plainly(async |mut ends| {
        ends.client.write_all(&masked(Opcode::Close, b"")).await.unwrap();
        read_masked(&mut ends.backend).await;
        drop(ends.backend);
        assert_eq!(rest(&mut ends.client).await, frame(Opcode::Close, b""));
        assert_eq!(start.elapsed().as_secs(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn closes_of_the_backend_pass() {
    let ended = relayed_plainly(async |mut ends| {
        ends.backend.write_all(&frame(Opcode::Close, &close(4321, "own code"))).await.unwrap();
        expect(&mut ends.client, &frame(Opcode::Close, &close(4321, "own code"))).await;
        ends.client.write_all(&masked(Opcode::Close, &close(4321, ""))).await.unwrap();
        assert_eq!(rest(&mut ends.backend).await, masked(Opcode::Close, &close(4321, "")));
        assert!(rest(&mut ends.client).await.is_empty());
    })
    .await;
    assert_eq!(ended.close, Close::from_peer(By::Upstream, Some(4321), "own code"));
    // A client that does not answer, or leaves, is answered for.
    for leaves in [false, true] {
        relayed_plainly(async |mut ends| {
            ends.backend.write_all(&frame(Opcode::Close, &close(1001, "a"))).await.unwrap();
            expect(&mut ends.client, &frame(Opcode::Close, &close(1001, "a"))).await;
            let kept = (!leaves).then_some(ends.client);
            assert_eq!(read_masked(&mut ends.backend).await, (0x88, close(1001, "a")));
            drop(kept);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_told_to_the_other_side() {
    let ended = relayed_plainly(async |mut ends| {
        drop(ends.backend);
        let told = rest(&mut ends.client).await;
        let reason = "upstream connection lost: ended without a close";
        assert_eq!(told, frame(Opcode::Close, &close(4012, reason)));
    })
    .await;
    assert_eq!((ended.close.by, ended.close.number), (By::Upstream, Some(4012)));
    let ended = relayed_plainly(async |mut ends| {
        drop(ends.client);
        assert_eq!(read_masked(&mut ends.backend).await, (0x88, close(1001, "")));
    })
    .await;
    assert_eq!((ended.close.by, ended.close.number), (By::Client, None));
    // Inside of a frame nothing can be told.
    let half = &frame(Opcode::Binary, &[1; 100])[..50];
    relayed_plainly(async |mut ends| {
        ends.backend.write_all(half).await.unwrap();
        drop(ends.backend);
        assert_eq!(rest(&mut ends.client).await, half);
    })
    .await;
    let half = &masked(Opcode::Binary, &[1; 100])[..50];
    relayed_plainly(async |mut ends| {
        ends.client.write_all(half).await.unwrap();
        drop(ends.client);
        assert_eq!(rest(&mut ends.backend).await, half);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_message_is_too_large_from_its_header_alone() {
    let ended = relayed_plainly(async |mut ends| {
        let mut head = vec![0x82, 0xFF];
        head.extend_from_slice(&(1u64 << 62).to_be_bytes());
        ends.client.write_all(&head).await.unwrap();
        assert_eq!(rest(&mut ends.client).await, frame(Opcode::Close, &close(4005, "message too large")));
        assert_eq!(read_masked(&mut ends.backend).await, (0x88, close(1001, "")));
    })
    .await;
    assert_eq!(ended.close.number, Some(4005));
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_client_have_their_codes() {
    let cases: [(&[u8], u16); 4] = [
        (&frame(Opcode::Text, b"not masked"), 1002),
        (&masked(Opcode::Ping, &[0; 126]), 1002),
        (&masked(Opcode::Close, &close(1005, "")), 1002),
        (&masked(Opcode::Close, &[3, 232, 0xFF]), 1007),
    ];
    for (bytes, code) in cases {
        let ended = relayed_plainly(async |mut ends| {
            ends.client.write_all(&masked(Opcode::Text, b"fine")).await.unwrap();
            ends.client.write_all(bytes).await.unwrap();
            expect(&mut ends.backend, &masked(Opcode::Text, b"fine")).await;
            assert_eq!(rest(&mut ends.client).await[2..4], code.to_be_bytes());
            assert_eq!(read_masked(&mut ends.backend).await, (0x88, close(1001, "")));
        })
        .await;
        assert_eq!((ended.close.by, ended.close.number), (By::Gateway, Some(code)));
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_messages_close_with_a_wait() {
    let limits = Limits { messages_per_second: Some(10), message_burst: 3, ..limits() };
    let ended = relayed(limits, Rsv::None, async |mut ends| {
        for opcode in [Opcode::Text, Opcode::Ping, Opcode::Binary, Opcode::Text] {
            ends.client.write_all(&masked(opcode, b"m")).await.unwrap();
            settle().await;
        }
        let told = rest(&mut ends.client).await;
        assert_eq!(told[2..4], 4004u16.to_be_bytes());
        assert!(told.ends_with(b" (retry_after_ms=100)"));
        for first in [0x81, 0x89, 0x82] {
            assert_eq!(read_masked(&mut ends.backend).await, (first, b"m".to_vec()));
        }
        assert_eq!(read_masked(&mut ends.backend).await, (0x88, close(1001, "")));
    })
    .await;
    assert_eq!((ended.close.number, ended.traffic.messages_in), (Some(4004), 2));
}

#[tokio::test(start_paused = true)]
async fn an_order_waits_for_the_end_of_the_backends_frame() {
    let ended = relayed_plainly(async |mut ends| {
        let whole = frame(Opcode::Binary, &[1; 300]);
        ends.backend.write_all(&whole[..100]).await.unwrap();
        settle().await;
        ends.handle.order(Close::gateway(Code::Administrator));
        settle().await;
        ends.backend.write_all(&[&whole[100..], &whole].concat()).await.unwrap();
        expect(&mut ends.client, &whole).await;
        let told = rest(&mut ends.client).await;
        assert_eq!(told, frame(Opcode::Close, &close(4013, Code::Administrator.message())));
        assert_eq!(read_masked(&mut ends.backend).await, (0x88, close(1001, "")));
    })
    .await;
    assert_eq!(ended.close.number, Some(4013));
    let start = Instant::now();
    relayed_plainly(async |mut ends| {
        let half = &frame(Opcode::Binary, &[1; 300])[..100];
        ends.backend.write_all(half).await.unwrap();
        settle().await;
        ends.handle.order(Close::gateway(Code::Administrator));
        assert_eq!(rest(&mut ends.client).await, half);
        assert_eq!(start.elapsed().as_secs(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_waits_for_the_rest_of_a_frame_is_not_told() {
    relayed_plainly(async |mut ends| {
        let half = &masked(Opcode::Binary, &[1; 300])[..100];
        ends.client.write_all(half).await.unwrap();
        settle().await;
        ends.handle.order(Close::gateway(Code::Administrator));
        assert_eq!(rest(&mut ends.backend).await, half);
        assert_eq!(rest(&mut ends.client).await[2..4], 4013u16.to_be_bytes());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn times_of_the_client_end_the_session() {
    let idle = Limits { idle_timeout: Some(Duration::from_secs(60)), ..limits() };
    let start = Instant::now();
    let ended = relayed(idle, Rsv::None, async |mut ends| {
        advance(Duration::from_secs(40)).await;
        ends.backend.write_all(&frame(Opcode::Text, b"x")).await.unwrap();
        settle().await;
        advance(Duration::from_secs(40)).await;
        ends.client.write_all(&masked(Opcode::Text, b"x")).await.unwrap();
        expect(&mut ends.client, &frame(Opcode::Text, b"x")).await;
        assert_eq!(rest(&mut ends.client).await, frame(Opcode::Close, &close(4014, "idle")));
        assert_eq!(start.elapsed().as_secs(), 140);
    })
    .await;
    assert_eq!(ended.close.number, Some(4014));

    let (mut client, client_wire) = duplex(1000);
    let (_backend, backend_wire) = duplex(1000);
    let mut expiring = link(Wire::Pipe(client_wire), Wire::Pipe(backend_wire), &limits(), Rsv::None);
    expiring.up.times.expire_at(Some(Instant::now() + Duration::from_secs(5)));
    let ends = async { assert_eq!(rest(&mut client).await, frame(Opcode::Close, &close(4002, "token expired"))) };
    assert_eq!(join(expiring.run(), ends).await.0.close.number, Some(4002));

    let (mut client, client_wire) = duplex(1000);
    let (_backend, backend_wire) = duplex(1000);
    let link = link(Wire::Pipe(client_wire), Wire::Pipe(backend_wire), &limits(), Rsv::None);
    let shard = link.seat.shard.clone();
    let start = Instant::now();
    let ends = async {
        settle().await;
        shard.drain(Duration::from_secs(10));
        let told = String::from_utf8_lossy(&rest(&mut client).await[4..]).into_owned();
        assert!(told.starts_with("service restart (retry_after_ms="), "{told}");
        assert!(start.elapsed().as_secs() <= 10);
    };
    assert_eq!(join(link.run(), ends).await.0.close.number, Some(1012));
}

#[tokio::test(start_paused = true)]
async fn pings_of_a_backend_keep_no_client_from_being_idle() {
    let idle = Limits { idle_timeout: Some(Duration::from_secs(60)), ..limits() };
    let start = Instant::now();
    let ended = relayed(idle, Rsv::None, async |mut ends| {
        for _ in 0..2 {
            advance(Duration::from_secs(25)).await;
            ends.backend.write_all(&frame(Opcode::Ping, b"")).await.unwrap();
            settle().await;
            expect(&mut ends.client, &frame(Opcode::Ping, b"")).await;
        }
        assert_eq!(rest(&mut ends.client).await, frame(Opcode::Close, &close(4014, "idle")));
        assert_eq!(start.elapsed().as_secs(), 60);
    })
    .await;
    assert_eq!(ended.close.number, Some(4014));
}
