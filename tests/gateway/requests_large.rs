//! Bodies that are much larger than what the gateway may hold of them.
use crate::requests::{OK, behind, head};
use crate::support::*;

const LENGTH: usize = 256 << 20;
const PIECE: usize = 64 << 10;

/// The most resident memory that the gateway ever had, in KiB.
fn peak(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Writes as fast as it goes, in a task of its own.
fn write(mut to: RawWs) -> tokio::task::JoinHandle<RawWs> {
    tokio::spawn(async move {
        let piece = vec![b'x'; PIECE];
        for _ in 0..LENGTH / PIECE {
            to.send(&piece).await;
        }
        to
    })
}

/// Reads, and lets the writer go ahead.
async fn read(from: &mut RawWs) {
    for _ in 0..LENGTH / PIECE {
        assert_eq!(from.take(PIECE).await.len(), PIECE);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn memory_stays_the_same_for_256_mib_each_way() {
    let (gateway, origin) = behind("").await;
    let mut client = gateway.raw().await;
    client.send(head("GET /live/small", "")).await;
    let (mut server, _) = origin.asked().await;
    server.send(OK).await;
    client.read_head().await;
    client.take(2).await;
    let before = peak(&gateway);

    client.send(head("PUT /live/up", &format!("Content-Length: {LENGTH}\r\n"))).await;
    server.try_read_request().await.unwrap();
    let writing = write(client);
    read(&mut server).await;
    server.send(OK).await;
    let mut client = writing.await.unwrap();
    client.read_head().await;
    client.take(2).await;

    client.send(head("GET /live/down", "")).await;
    server.try_read_request().await.unwrap();
    server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    let writing = write(server);
    client.read_head().await;
    read(&mut client).await;
    drop(writing.await.unwrap());
    let grown = peak(&gateway).saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more than before");
}
