//! What is held to rates and sizes, in both directions.
use super::*;

/// 10 messages a second, 3 at once; who sends more is not read.
fn pausing() -> Limits {
    Limits { messages_per_second: Some(10), message_burst: 3, on_excess: OnExcess::Pause, ..limits() }
}

fn from_upstream(on_excess: OnExcess) -> Limits {
    let (messages_per_second, message_burst) = (Some(10), 3);
    let from_upstream = FromUpstream { messages_per_second, message_burst, on_excess, ..FromUpstream::UNLIMITED };
    Limits { from_upstream, ..limits() }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_paused_loses_nothing() {
    for split in [1, 2, 3, 5, 8, 13, 30, usize::MAX] {
        let start = Instant::now();
        let ended = relayed(pausing(), Rsv::None, async |mut ends| {
            let bye = masked(Opcode::Close, &close(1000, "bye"));
            let sent = [stream(masked), bye.to_vec()].concat();
            for part in sent.chunks(split.min(sent.len())) {
                ends.client.write_all(part).await.unwrap();
                settle().await;
            }
            // Four messages, an empty fragment, a ping and a pong: three at once, and four that wait 100 ms each. So does
            // the Close, which is not seen before it is read.
            expect(&mut ends.backend, &sent).await;
            assert!((500..510).contains(&start.elapsed().as_millis()), "{:?}, split {split}", start.elapsed());
            ends.backend.write_all(&frame(Opcode::Close, &close(1000, "bye"))).await.unwrap();
            rest(&mut ends.client).await;
        })
        .await;
        assert_eq!(ended.close, Close::from_peer(By::Client, Some(1000), "bye"));
        assert_eq!((ended.traffic.messages_in, ended.traffic.bytes_in), (4, 157));
    }
}

#[tokio::test(start_paused = true)]
async fn messages_come_one_by_one_as_the_rate_allows() {
    relayed(pausing(), Rsv::None, async |mut ends| {
        let message = masked(Opcode::Text, b"m");
        ends.client.write_all(&message.repeat(20)).await.unwrap();
        let start = Instant::now();
        for n in 0..20_u64 {
            expect(&mut ends.backend, &message).await;
            let due = 100 * n.saturating_sub(2);
            assert!((due..due + 10).contains(&(start.elapsed().as_millis() as u64)), "{n}: {:?}", start.elapsed());
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn bytes_beyond_any_burst_are_paused_too() {
    // One read is larger than all that may come in a second.
    let (bytes_per_second, max_message_size) = (Some(1000), u64::MAX);
    let limits = Limits { bytes_per_second, max_message_size, on_excess: OnExcess::Pause, ..limits() };
    let start = Instant::now();
    relayed(limits, Rsv::None, async |mut ends| {
        let message = masked(Opcode::Binary, &[7; 100_000]);
        let writing = async {
            ends.client.write_all(&message).await.unwrap();
            ends.client.write_all(&masked(Opcode::Text, b"x")).await.unwrap();
        };
        join(writing, expect(&mut ends.backend, &message)).await;
        expect(&mut ends.backend, &masked(Opcode::Text, b"x")).await;
        assert!((99..101).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn silence_of_a_client_that_is_paused_is_no_fault() {
    let limits = Limits { message_burst: 1, messages_per_second: Some(1), ..pausing() };
    let limits = Limits {
        idle_timeout: Some(Duration::from_millis(700)),
        ping_interval: Some(Duration::from_millis(300)),
        pong_timeout: Some(Duration::from_millis(100)),
        ..limits
    };
    let ended = relayed(limits, Rsv::None, async |mut ends| {
        let message = masked(Opcode::Text, b"m");
        ends.client.write_all(&message.repeat(5)).await.unwrap();
        for _ in 0..5 {
            loop {
                let (first, payload) = read_masked(&mut ends.backend).await;
                if first == 0x81 {
                    break;
                }
                ends.backend.write_all(&frame(Opcode::Pong, &payload)).await.unwrap();
            }
        }
    })
    .await;
    assert_eq!(ended.traffic.messages_in, 5, "{:?}", ended.close);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_paused_is_told_of_an_end_at_once() {
    let slow = Limits { message_burst: 1, messages_per_second: Some(1), ..pausing() };
    let ended = relayed(slow.clone(), Rsv::None, async |mut ends| {
        ends.client.write_all(&masked(Opcode::Text, b"m").repeat(50)).await.unwrap();
        expect(&mut ends.backend, &masked(Opcode::Text, b"m")).await;
        let start = Instant::now();
        ends.handle.order(Close::gateway(Code::Administrator));
        assert_eq!(ends.client.read_u16().await.unwrap() >> 8, 0x88);
        assert_eq!(read_masked(&mut ends.backend).await, (0x88, close(1001, "")));
        assert_eq!(start.elapsed().as_secs(), 0);
    })
    .await;
    assert_eq!(ended.close.number, Some(4013));
    // The backend goes: the client's Close is seen after 1 s, when the client is read again.
    let ended = relayed(slow, Rsv::None, async |mut ends| {
        let bye = masked(Opcode::Close, &close(1000, ""));
        let message = masked(Opcode::Text, b"m");
        ends.client.write_all(&[&message[..], &bye].concat()).await.unwrap();
        expect(&mut ends.backend, &message).await;
        ends.backend.write_all(&frame(Opcode::Close, &close(1000, "first"))).await.unwrap();
        expect(&mut ends.backend, &bye).await;
    })
    .await;
    assert_eq!(ended.close, Close::from_peer(By::Upstream, Some(1000), "first"));
}

#[tokio::test(start_paused = true)]
async fn a_close_never_stands_inside_a_frame_that_is_cut_off() {
    let limits = Limits { bytes_per_second: Some(100), max_message_size: u64::MAX, ..limits() };
    let ended = relayed(limits, Rsv::None, async |mut ends| {
        let whole = masked(Opcode::Binary, &[1; 110]);
        ends.client.write_all(&whole[..100]).await.unwrap();
        settle().await;
        // It would end the frame, but is beyond the rate: a Close would be taken for the end of the payload.
        ends.client.write_all(&whole[100..]).await.unwrap();
        assert_eq!(rest(&mut ends.backend).await, &whole[..100]);
        assert_eq!(rest(&mut ends.client).await[2..4], 4004u16.to_be_bytes());
    })
    .await;
    assert_eq!(ended.close.number, Some(4004));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_sends_too_much_is_closed() {
    let message = frame(Opcode::Text, b"m");
    let ended = relayed(from_upstream(OnExcess::Close), Rsv::None, async |mut ends| {
        ends.backend.write_all(&message.repeat(4)).await.unwrap();
        expect(&mut ends.client, &message.repeat(3)).await;
        let told = rest(&mut ends.client).await;
        assert_eq!(told, frame(Opcode::Close, &close(4012, "upstream rate exceeded")));
        assert_eq!(read_masked(&mut ends.backend).await, (0x88, close(1008, "")));
    })
    .await;
    assert_eq!((ended.close.by, ended.close.number, ended.traffic.messages_out), (By::Gateway, Some(4012), 3));
    // What the client got the beginning of, it gets whole, so that it can be told.
    let bytes_per_second = Some(100);
    let from_upstream = FromUpstream { bytes_per_second, ..FromUpstream::UNLIMITED };
    relayed(Limits { from_upstream, ..limits() }, Rsv::None, async |mut ends| {
        let whole = frame(Opcode::Binary, &[1; 300]);
        for part in whole.chunks(100) {
            ends.backend.write_all(part).await.unwrap();
            settle().await;
        }
        expect(&mut ends.client, &whole).await;
        let told = rest(&mut ends.client).await;
        assert_eq!(told, frame(Opcode::Close, &close(4012, "upstream rate exceeded")));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_message_of_the_backend_is_too_large_from_its_header_alone() {
    let from_upstream = FromUpstream { max_message_size: 100, ..FromUpstream::UNLIMITED };
    let ended = relayed(Limits { from_upstream, ..limits() }, Rsv::None, async |mut ends| {
        let fine = frame(Opcode::Binary, &[1; 100]);
        ends.backend.write_all(&fine).await.unwrap();
        ends.backend.write_all(&frame(Opcode::Binary, &[1; 126])[..4]).await.unwrap();
        expect(&mut ends.client, &fine).await;
        let told = rest(&mut ends.client).await;
        assert_eq!(told, frame(Opcode::Close, &close(4012, "upstream message too large")));
        assert_eq!(read_masked(&mut ends.backend).await, (0x88, close(1009, "")));
    })
    .await;
    assert_eq!((ended.close.by, ended.close.number), (By::Gateway, Some(4012)));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_paused_loses_nothing() {
    let start = Instant::now();
    let ended = relayed(from_upstream(OnExcess::Pause), Rsv::None, async |mut ends| {
        let sent = stream(frame);
        ends.backend.write_all(&sent).await.unwrap();
        // The client's Close is answered behind all that.
        ends.client.write_all(&masked(Opcode::Close, &close(1000, ""))).await.unwrap();
        ends.backend.write_all(&frame(Opcode::Close, &close(1000, ""))).await.unwrap();
        expect(&mut ends.client, &sent).await;
        assert!((400..410).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        assert_eq!(rest(&mut ends.client).await, frame(Opcode::Close, &close(1000, "")));
    })
    .await;
    assert_eq!(ended.close, Close::from_peer(By::Client, Some(1000), ""));
    assert_eq!(ended.traffic.messages_out, 4);
}

#[tokio::test(start_paused = true)]
async fn a_close_waits_for_the_end_of_a_frame_whose_backend_is_paused() {
    let from_upstream =
        FromUpstream { bytes_per_second: Some(10), on_excess: OnExcess::Pause, ..FromUpstream::UNLIMITED };
    relayed(Limits { from_upstream, ..limits() }, Rsv::None, async |mut ends| {
        let whole = frame(Opcode::Binary, &[1; 300]);
        ends.backend.write_all(&whole[..100]).await.unwrap();
        expect(&mut ends.client, &whole[..100]).await;
        ends.backend.write_all(&[&whole[100..], &whole].concat()).await.unwrap();
        settle().await;
        ends.handle.order(Close::gateway(Code::Administrator));
        expect(&mut ends.client, &whole[100..]).await;
        let told = rest(&mut ends.client).await;
        assert_eq!(told, frame(Opcode::Close, &close(4013, Code::Administrator.message())));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_pong_is_free_once_for_each_ping() {
    let limits = Limits { messages_per_second: Some(10), message_burst: 3, ..with_pings() };
    let ended = relayed(limits, Rsv::None, async |mut ends| {
        let pong = masked(Opcode::Pong, &client_ping(&mut ends.client).await);
        read_masked(&mut ends.backend).await;
        for _ in 0..5 {
            ends.client.write_all(&pong).await.unwrap();
            settle().await;
        }
        // The first is swallowed; what was not asked for is nothing of the gateway's, and the last is too much.
        expect(&mut ends.backend, &pong.repeat(3)).await;
        assert_eq!(rest(&mut ends.client).await[2..4], 4004u16.to_be_bytes());
    })
    .await;
    assert_eq!(ended.close.number, Some(4004));
}

#[tokio::test(start_paused = true)]
async fn a_client_is_not_idle_while_its_backend_is_paused() {
    let (messages_per_second, on_excess) = (Some(1), OnExcess::Pause);
    let from_upstream = FromUpstream { messages_per_second, message_burst: 1, on_excess, ..FromUpstream::UNLIMITED };
    let limits = Limits { from_upstream, idle_timeout: Some(Duration::from_millis(700)), ..limits() };
    let ended = relayed(limits, Rsv::None, async |mut ends| {
        let messages = frame(Opcode::Text, b"m").repeat(5);
        ends.backend.write_all(&messages).await.unwrap();
        expect(&mut ends.client, &messages).await;
        assert_eq!(rest(&mut ends.client).await, frame(Opcode::Close, &close(4014, "idle")));
    })
    .await;
    assert_eq!(ended.traffic.messages_out, 5);
}
