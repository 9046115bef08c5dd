#![allow(clippy::unwrap_used)]
use super::*;
use crate::close::By;
use crate::config::{IpLimits, OnExcess};
use crate::limits::Limiter;
use crate::limits::meter::Rates;
use crate::metrics::Metrics;
use crate::outbox::wire::Socket;
use crate::shard::{Handle, Shard};
use futures_util::future::join;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tokio::time::{advance, timeout};

const KEY: [u8; 4] = [1, 2, 3, 4];
/// What a test that goes wrong waits, on a clock that may be paused.
const LONG: Duration = Duration::from_secs(3600);

fn limits() -> Limits {
    Limits {
        max_message_size: 100_000,
        messages_per_second: None,
        message_burst: 1,
        bytes_per_second: None,
        on_excess: OnExcess::Close,
        connections_per_client: None,
        idle_timeout: None,
        ping_interval: None,
        pong_timeout: None,
        max_backlog: 1 << 20,
        compression: false,
    }
}

fn link(client: Wire, backend: Wire, limits: &Limits, rsv: Rsv) -> Link {
    let limiter = Limiter::new(9, IpLimits { connections: None, handshakes_per_second: None });
    let permit = limiter.enter_client(0, &"alice".into(), None).ok().unwrap();
    let seat = Shard::new(0, Metrics::new(1)).seat(client);
    let meter = Meter::new(permit, Rates::new(limits));
    Link::new(seat, backend, rsv, meter, limits, Deadlines::new(limits, Instant::now()))
}

/// The other ends of a relay's two connections.
struct Ends {
    client: DuplexStream,
    backend: DuplexStream,
    handle: Rc<Handle>,
}

/// A relay between two pipes, run beside what `ends` does.
async fn relayed(limits: Limits, rsv: Rsv, ends: impl AsyncFnOnce(Ends)) -> Ended {
    let (client, client_wire) = duplex(1 << 20);
    let (backend, backend_wire) = duplex(1 << 20);
    let link = link(Wire::Pipe(client_wire), Wire::Pipe(backend_wire), &limits, rsv);
    let handle = link.seat.handle.clone();
    let both = join(link.run(), ends(Ends { client, backend, handle }));
    timeout(LONG, both).await.expect("neither side may hang").0
}

async fn relayed_plainly(ends: impl AsyncFnOnce(Ends)) -> Ended {
    relayed(limits(), Rsv::None, ends).await
}

fn masked(opcode: Opcode, payload: &[u8]) -> Bytes {
    masked_frame(opcode, payload, KEY)
}

fn close(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// Reads exactly these bytes.
async fn expect(stream: &mut DuplexStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(read, bytes);
}

/// Reads to the end.
async fn rest(stream: &mut DuplexStream) -> Vec<u8> {
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.unwrap();
    read
}

/// Reads a masked frame with a payload of less than 126 bytes: the first byte, and the payload.
async fn read_masked(stream: &mut DuplexStream) -> (u8, Vec<u8>) {
    let mut head = [0; 6];
    stream.read_exact(&mut head).await.unwrap();
    let mut payload = vec![0; (head[1] & 0x7F).into()];
    stream.read_exact(&mut payload).await.unwrap();
    payload.iter_mut().zip(head[2..].iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    (head[0], payload)
}

/// Lets the relay do what it can.
async fn settle() {
    for _ in 0..10 {
        yield_now().await;
    }
}

/// Frames of every shape: 4 messages, 1 empty fragment.
fn stream(wrap: impl Fn(Opcode, &[u8]) -> Bytes) -> Vec<u8> {
    let mut first = wrap(Opcode::Text, b"frag").to_vec();
    first[0] &= 0x7F;
    let mut empty = wrap(Opcode::Continuation, b"").to_vec();
    empty[0] &= 0x7F;
    [
        wrap(Opcode::Text, b"hello").to_vec(),
        first,
        wrap(Opcode::Ping, b"between").to_vec(),
        empty,
        wrap(Opcode::Continuation, b"ment").to_vec(),
        wrap(Opcode::Pong, b"unasked").to_vec(),
        wrap(Opcode::Binary, &[7; 130]).to_vec(),
        wrap(Opcode::Text, b"").to_vec(),
    ]
    .concat()
}

#[tokio::test(start_paused = true)]
async fn bytes_are_the_same_wherever_they_are_split() {
    let (up, down) = (stream(masked), stream(frame));
    for split in 0..up.len() {
        let ended = relayed_plainly(async |mut ends| {
            let down_split = split.min(down.len());
            ends.client.write_all(&up[..split]).await.unwrap();
            ends.backend.write_all(&down[..down_split]).await.unwrap();
            settle().await;
            ends.client.write_all(&up[split..]).await.unwrap();
            ends.backend.write_all(&down[down_split..]).await.unwrap();
            expect(&mut ends.backend, &up).await;
            expect(&mut ends.client, &down).await;
            ends.client.write_all(&masked(Opcode::Close, b"")).await.unwrap();
            expect(&mut ends.backend, &masked(Opcode::Close, b"")).await;
            ends.backend.write_all(&frame(Opcode::Close, b"")).await.unwrap();
            assert_eq!(rest(&mut ends.client).await, frame(Opcode::Close, b""));
        })
        .await;
        let traffic = ended.traffic;
        assert_eq!((traffic.messages_in, traffic.messages_out), (4, 4));
        assert_eq!((traffic.bytes_in, traffic.bytes_out), (157, 157));
        assert_eq!(ended.close, Close::from_peer(By::Client, None, ""));
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_with_the_heads_is_forwarded_first() {
    let (mut client, client_wire) = duplex(1 << 20);
    let (mut backend, backend_wire) = duplex(1 << 20);
    let mut link = link(Wire::Pipe(client_wire), Wire::Pipe(backend_wire), &limits(), Rsv::None);
    let (up, down) = (stream(masked), stream(frame));
    link.forward_early(&up[..9], &down[..30]);
    let ends = async {
        client.write_all(&up[9..]).await.unwrap();
        backend.write_all(&down[30..]).await.unwrap();
        expect(&mut backend, &up).await;
        expect(&mut client, &down).await;
        drop(client);
    };
    let (ended, ()) = join(link.run(), ends).await;
    assert_eq!((ended.traffic.messages_in, ended.traffic.messages_out), (4, 4));
    assert_eq!((ended.close.by, ended.close.number), (By::Client, None));
}

#[tokio::test(start_paused = true)]
async fn reserved_bits_pass_where_they_were_negotiated() {
    let mut deflated = frame(Opcode::Text, b"x").to_vec();
    deflated[0] |= 0x40;
    let deflated = &deflated;
    relayed(limits(), Rsv::Deflate, async |mut ends| {
        ends.backend.write_all(deflated).await.unwrap();
        expect(&mut ends.client, deflated).await;
    })
    .await;
    let ended = relayed_plainly(async |mut ends| {
        ends.backend.write_all(deflated).await.unwrap();
        let told = rest(&mut ends.client).await;
        assert_eq!(told, frame(Opcode::Close, &close(4012, "upstream protocol error")));
        assert_eq!(read_masked(&mut ends.backend).await, (0x88, close(1002, "")));
    })
    .await;
    assert_eq!((ended.close.by, ended.close.number), (By::Gateway, Some(4012)));
}

fn with_pings() -> Limits {
    let (ping_interval, pong_timeout) = (Some(Duration::from_secs(30)), Some(Duration::from_secs(10)));
    Limits { ping_interval, pong_timeout, ..limits() }
}

/// Reads the gateway's ping to the client; its payload.
async fn client_ping(client: &mut DuplexStream) -> Vec<u8> {
    let mut ping = [0; 10];
    client.read_exact(&mut ping).await.unwrap();
    assert_eq!(ping[..2], [0x89, 8]);
    ping[2..].to_vec()
}

#[tokio::test(start_paused = true)]
async fn own_pongs_are_swallowed_and_a_silent_client_is_closed() {
    let start = Instant::now();
    let ended = relayed(with_pings(), Rsv::None, async |mut ends| {
        let nonce = client_ping(&mut ends.client).await;
        assert_eq!(start.elapsed().as_secs(), 30);
        let (first, to_backend) = read_masked(&mut ends.backend).await;
        assert_eq!((first, &to_backend), (0x89, &nonce));
        ends.client.write_all(&masked(Opcode::Pong, &nonce)).await.unwrap();
        ends.backend.write_all(&frame(Opcode::Pong, &nonce)).await.unwrap();
        ends.client.write_all(&masked(Opcode::Pong, b"foreign!")).await.unwrap();
        ends.backend.write_all(&frame(Opcode::Pong, b"foreign?")).await.unwrap();
        expect(&mut ends.backend, &masked(Opcode::Pong, b"foreign!")).await;
        expect(&mut ends.client, &frame(Opcode::Pong, b"foreign?")).await;
        client_ping(&mut ends.client).await;
        assert_eq!(start.elapsed().as_secs(), 60);
        read_masked(&mut ends.backend).await;
        ends.backend.write_all(&frame(Opcode::Pong, &nonce)).await.unwrap();
        let told = rest(&mut ends.client).await;
        assert_eq!(told, frame(Opcode::Close, &close(4014, "heartbeat lost")));
        assert_eq!(read_masked(&mut ends.backend).await, (0x88, close(1001, "")));
        assert_eq!(start.elapsed().as_secs(), 70);
    })
    .await;
    assert_eq!((ended.close.by, ended.close.number), (By::Gateway, Some(4014)));
    assert_eq!(ended.traffic.bytes_in, 8, "the pong that was asked for is no traffic");
}

#[tokio::test(start_paused = true)]
async fn a_silent_backend_is_unavailable() {
    let ended = relayed(with_pings(), Rsv::None, async |mut ends| {
        let nonce = client_ping(&mut ends.client).await;
        ends.client.write_all(&masked(Opcode::Pong, &nonce)).await.unwrap();
        let told = rest(&mut ends.client).await;
        assert_eq!(told, frame(Opcode::Close, &close(4012, "upstream does not answer")));
        read_masked(&mut ends.backend).await;
        assert_eq!(read_masked(&mut ends.backend).await, (0x88, close(1001, "")));
    })
    .await;
    assert_eq!(ended.close.number, Some(4012));
}

#[tokio::test(start_paused = true)]
async fn a_ping_waits_for_the_end_of_a_frame() {
    relayed(with_pings(), Rsv::None, async |mut ends| {
        let whole = frame(Opcode::Binary, &[9; 300]);
        ends.backend.write_all(&whole[..100]).await.unwrap();
        expect(&mut ends.client, &whole[..100]).await;
        advance(Duration::from_secs(31)).await;
        // The backend goes on with the frame and a part of the next one, in one write.
        let next = frame(Opcode::Binary, &[8; 300]);
        ends.backend.write_all(&[&whole[100..], &next[..50]].concat()).await.unwrap();
        expect(&mut ends.client, &whole[100..]).await;
        client_ping(&mut ends.client).await;
        expect(&mut ends.client, &next[..50]).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn silence_that_the_gateway_makes_is_no_fault() {
    let (mut client, client_wire) = duplex(1 << 20);
    let (mut backend, backend_wire) = duplex(50);
    let limits = Limits { max_backlog: 100, ..with_pings() };
    let link = link(Wire::Pipe(client_wire), Wire::Pipe(backend_wire), &limits, Rsv::None);
    let message = masked(Opcode::Binary, &[5; 90_000]);
    let ends = async {
        client.write_all(&[&message[..], &message, &message].concat()).await.unwrap();
        for _ in 0..20 {
            advance(Duration::from_secs(5)).await;
            backend.write_all(&frame(Opcode::Text, b"alive")).await.unwrap();
            settle().await;
        }
        for _ in 0..3 {
            expect(&mut backend, &message).await;
        }
        drop(client);
    };
    let (ended, ()) = join(link.run(), ends).await;
    assert_eq!((ended.close.by, ended.close.number), (By::Client, None));
    assert_eq!(ended.traffic.messages_in, 3);
}

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
        assert_eq!(rest(&mut client).await, frame(Opcode::Close, &close(1012, "service restart")));
        assert!(start.elapsed().as_secs() <= 10);
    };
    assert_eq!(join(link.run(), ends).await.0.close.number, Some(1012));
}

/// Both ends of a TCP connection with small buffers.
async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let far = listener.accept().await.unwrap().0;
    for stream in [&near, &far] {
        socket2::SockRef::from(stream).set_send_buffer_size(16 * 1024).unwrap();
        socket2::SockRef::from(stream).set_recv_buffer_size(16 * 1024).unwrap();
    }
    (near, far)
}

async fn tcp_link(limits: &Limits) -> (TcpStream, TcpStream, Link) {
    let ((client, client_far), (backend, backend_far)) = (tcp().await, tcp().await);
    let wire = |far| Wire::Plain(Socket::Tcp(far));
    (client, backend, link(wire(client_far), wire(backend_far), limits, Rsv::None))
}

/// Writes until nothing is taken for a while; how much was.
async fn fill(stream: &mut TcpStream, mut bytes: &[u8]) -> usize {
    let all = bytes.len();
    while !bytes.is_empty() {
        let Ok(written) = timeout(Duration::from_millis(300), stream.write(bytes)).await else { break };
        bytes = &bytes[written.unwrap()..];
    }
    all - bytes.len()
}

#[tokio::test]
async fn a_side_that_does_not_read_holds_up_the_other_and_nothing_is_lost() {
    let (up, down) = (masked(Opcode::Binary, &[3; 70_000]), frame(Opcode::Binary, &[4; 70_000]));
    let (up, down) = (up.repeat(100), down.repeat(100));
    let (mut client, mut backend, link) = tcp_link(&limits()).await;
    let ends = async {
        let filled_up = fill(&mut client, &up).await;
        assert!(filled_up < 1_500_000, "{filled_up} bytes were taken");
        let filled_down = fill(&mut backend, &down).await;
        assert!(filled_down < 1_500_000, "{filled_down} bytes were taken");
        let (mut read_up, mut read_down) = (vec![0; up.len()], vec![0; down.len()]);
        let (mut client_read, mut client_write) = client.split();
        let (mut backend_read, mut backend_write) = backend.split();
        let first = join(client_write.write_all(&up[filled_up..]), backend_read.read_exact(&mut read_up));
        let second = join(backend_write.write_all(&down[filled_down..]), client_read.read_exact(&mut read_down));
        let ((wrote_up, got_up), (wrote_down, got_down)) = join(first, second).await;
        wrote_up.and(wrote_down).unwrap();
        got_up.and(got_down).unwrap();
        assert!(read_up == up && read_down == down);
        drop(client);
    };
    let (ended, ()) = timeout(Duration::from_secs(60), join(link.run(), ends)).await.unwrap();
    assert_eq!((ended.traffic.messages_in, ended.traffic.messages_out), (100, 100));
}

#[tokio::test]
async fn an_order_reaches_a_session_whose_client_does_not_read() {
    let (client, mut backend, link) = tcp_link(&limits()).await;
    let handle = link.seat.handle.clone();
    let ends = async {
        fill(&mut backend, &frame(Opcode::Binary, &[4; 70_000]).repeat(100)).await;
        handle.order(Close::gateway(Code::Administrator));
        let mut told = Vec::new();
        backend.read_to_end(&mut told).await.ok();
        assert_eq!(told[..2], [0x88, 0x82]);
        drop(client);
    };
    let (ended, ()) = timeout(Duration::from_secs(10), join(link.run(), ends)).await.unwrap();
    assert_eq!(ended.close.number, Some(4013));
}

#[tokio::test]
async fn the_last_words_of_a_backend_that_is_gone_are_heard() {
    let (mut client, mut backend, link) = tcp_link(&limits()).await;
    let ends = async {
        backend.write_all(&frame(Opcode::Close, &close(4321, "gone"))).await.unwrap();
        drop(backend);
        // Two writes to a closed socket: the second one fails.
        for _ in 0..2 {
            client.write_all(&masked(Opcode::Text, b"x")).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        assert_eq!(told, frame(Opcode::Close, &close(4321, "gone")));
        drop(client);
    };
    let (ended, ()) = join(link.run(), ends).await;
    assert_eq!(ended.close, Close::from_peer(By::Upstream, Some(4321), "gone"));
}

#[tokio::test]
async fn a_relay_is_small() {
    let (_client, _backend, link) = tcp_link(&limits()).await;
    let size = size_of_val(&link.run());
    println!("a relay's future takes {size} bytes");
    assert!(size <= 1536, "{size} bytes");
}
