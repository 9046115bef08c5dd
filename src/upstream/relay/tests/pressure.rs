//! Sides that take less than they are sent, and what a relay takes itself.
use super::*;

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

/// Ends that take 40 bytes and then no more.
fn narrow(limits: &Limits) -> (DuplexStream, DuplexStream, Link) {
    let ((client, client_wire), (backend, backend_wire)) = (duplex(40), duplex(40));
    (client, backend, link(Wire::Pipe(client_wire), Wire::Pipe(backend_wire), limits, Rsv::None))
}

/// Lets time pass, in steps of a second.
async fn pass(seconds: u64) {
    for _ in 0..seconds {
        advance(Duration::from_secs(1)).await;
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_dead_and_one_that_takes_little_is_slow() {
    let (mut client, mut backend, link) = narrow(&with_pings());
    let message = frame(Opcode::Binary, &[5; 1000]);
    let ends = async {
        backend.write_all(&message[..38]).await.unwrap();
        settle().await;
        backend.write_all(&message[38..]).await.unwrap();
        for _ in 0..20 {
            client.read_exact(&mut [0; 10]).await.unwrap();
            pass(8).await;
            // Pongs and pings of the backend keep it alive itself.
            backend.write_all(&frame(Opcode::Pong, b"")).await.unwrap();
        }
        let start = Instant::now();
        for _ in 0..6 {
            pass(8).await;
            backend.write_all(&frame(Opcode::Pong, b"")).await.ok();
        }
        assert_eq!(start.elapsed().as_secs(), 48);
        drop((client, backend));
    };
    let (ended, ()) = join(link.run(), ends).await;
    assert_eq!((ended.close.number, &*ended.close.reason), (Some(4014), "client takes nothing"));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_takes_nothing_is_unavailable() {
    let (mut client, backend, link) = narrow(&with_pings());
    let message = masked(Opcode::Binary, &[5; 1000]);
    let ends = async {
        client.write_all(&message[..38]).await.unwrap();
        settle().await;
        client.write_all(&message[38..]).await.unwrap();
        for _ in 0..6 {
            pass(8).await;
            client.write_all(&masked(Opcode::Pong, b"")).await.ok();
        }
        drop((client, backend));
    };
    let (ended, ()) = join(link.run(), ends).await;
    assert_eq!((ended.close.number, &*ended.close.reason), (Some(4012), "upstream takes nothing"));
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

#[tokio::test(start_paused = true)]
async fn a_slow_client_gets_all_that_its_backend_said_before_it_closed() {
    let (mut client, client_wire) = duplex(1000);
    let (mut backend, backend_wire) = duplex(1 << 20);
    let link = link(Wire::Pipe(client_wire), Wire::Pipe(backend_wire), &limits(), Rsv::None);
    let said = [frame(Opcode::Binary, &[5; 20_000]), frame(Opcode::Close, &close(1000, "all"))].concat();
    let ends = async {
        backend.write_all(&said).await.unwrap();
        let mut got = Vec::new();
        while got.len() < said.len() {
            pass(1).await;
            let mut part = [0; 1000];
            let count = client.read(&mut part).await.unwrap();
            assert!(count > 0, "cut off after {} bytes", got.len());
            got.extend_from_slice(&part[..count]);
        }
        assert!(got == said);
        client.write_all(&masked(Opcode::Close, &close(1000, ""))).await.unwrap();
        expect(&mut backend, &masked(Opcode::Close, &close(1000, ""))).await;
    };
    let (ended, ()) = join(link.run(), ends).await;
    assert_eq!(ended.close, Close::from_peer(By::Upstream, Some(1000), "all"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_last_words_is_given_up() {
    let (client, client_wire) = duplex(1000);
    let (mut backend, backend_wire) = duplex(1 << 20);
    let link = link(Wire::Pipe(client_wire), Wire::Pipe(backend_wire), &limits(), Rsv::None);
    let ends = async {
        backend.write_all(&frame(Opcode::Binary, &[5; 20_000])).await.unwrap();
        backend.write_all(&frame(Opcode::Close, &close(1000, ""))).await.unwrap();
        pass(29).await;
        assert!(timeout(Duration::ZERO, backend.read_u8()).await.is_err(), "it was given up too early");
        pass(4).await;
        assert_eq!(read_masked(&mut backend).await, (0x88, close(1000, "")));
        drop(client);
    };
    join(link.run(), ends).await;
}

/// Ends that have both sent more than the other takes.
async fn jammed(limits: &Limits) -> (DuplexStream, DuplexStream, Link) {
    let (mut client, mut backend, mut link) = narrow(limits);
    client.write_all(&masked(Opcode::Binary, &[5; 20])).await.unwrap();
    backend.write_all(&frame(Opcode::Binary, &[6; 20])).await.unwrap();
    link.forward_early(&masked(Opcode::Binary, &[5; 1000]), &frame(Opcode::Binary, &[6; 1000]));
    (client, backend, link)
}

#[tokio::test(start_paused = true)]
async fn where_neither_takes_anything_it_ends() {
    let (client, backend, link) = jammed(&Limits { max_backlog: 100, ..with_pings() }).await;
    let ends = async {
        pass(60).await;
        drop((client, backend));
    };
    let (ended, ()) = join(link.run(), ends).await;
    assert_eq!((ended.close.number, &*ended.close.reason), (Some(4014), "client takes nothing"));
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_while_both_are_behind_is_missed() {
    for by in [By::Client, By::Upstream] {
        let (client, backend, link) = jammed(&Limits { max_backlog: 100, ..limits() }).await;
        let ends = async {
            settle().await;
            let (gone, left) = if by == By::Client { (client, backend) } else { (backend, client) };
            drop(gone);
            pass(60).await;
            drop(left);
        };
        let (ended, ()) = join(link.run(), ends).await;
        assert_eq!(ended.close.by, by);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_gets_all_that_a_backend_said_that_is_gone() {
    let (lost, bye) = ("upstream connection lost: ended without a close", close(1000, "all"));
    let ends_well = frame(Opcode::Close, &bye);
    for (closes, last) in [(true, ends_well.clone()), (false, frame(Opcode::Close, &close(4012, lost)))] {
        let (mut client, client_wire) = duplex(1000);
        let (mut backend, backend_wire) = duplex(1 << 20);
        let link = link(Wire::Pipe(client_wire), Wire::Pipe(backend_wire), &limits(), Rsv::None);
        let message = frame(Opcode::Binary, &[5; 20_000]);
        let ends = async {
            backend.write_all(&message).await.unwrap();
            if closes {
                backend.write_all(&ends_well).await.unwrap();
            }
            settle().await;
            drop(backend);
            // What it says now reaches nobody.
            client.write_all(&masked(Opcode::Text, b"x")).await.unwrap();
            let mut got = Vec::new();
            while got.len() < message.len() + last.len() {
                pass(1).await;
                let mut part = [0; 1000];
                let count = client.read(&mut part).await.unwrap();
                assert!(count > 0, "cut off after {} bytes", got.len());
                got.extend_from_slice(&part[..count]);
            }
            assert!(got == [&message[..], &last].concat());
        };
        let (ended, ()) = timeout(LONG, join(link.run(), ends)).await.unwrap();
        assert_eq!((ended.close.by, ended.close.number), (By::Upstream, Some(if closes { 1000 } else { 4012 })));
    }
}
