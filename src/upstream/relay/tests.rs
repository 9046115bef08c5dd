#![allow(clippy::unwrap_used)]
mod closing;
mod inflated;
mod limits;
mod pressure;

use super::*;
use crate::close::By;
use crate::config::{FromUpstream, IpLimits, OnExcess};
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
        from_upstream: FromUpstream::UNLIMITED,
        max_inflated_size: u64::MAX,
        compression: false,
    }
}

fn link(client: Wire, backend: Wire, limits: &Limits, rsv: Rsv) -> Link {
    link_with(client, backend, limits, (rsv, true))
}

fn link_with(client: Wire, backend: Wire, limits: &Limits, extensions: (Rsv, bool)) -> Link {
    let limiter = Limiter::new(9, IpLimits { connections: None, handshakes_per_second: None });
    let permit = limiter.enter_client(0, &"alice".into(), None).ok().unwrap();
    let seat = Shard::new(0, Metrics::new(1)).seat(client);
    let meter = Meter::new(permit, Rates::new(limits));
    Link::new(seat, backend, extensions, meter, limits, Deadlines::new(limits, Instant::now()))
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
