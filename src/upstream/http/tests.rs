#![allow(clippy::unwrap_used)]
use super::line::IDLE_MAX;
use super::*;
use crate::config::{self, Backend, Transport};
use crate::outbox::wire::{Socket, Stream};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty};
use std::future::poll_fn;
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::{Instant, advance, timeout};

/// Polls once.
async fn is_pending<F: Future>(mut future: Pin<&mut F>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

const fn seconds(n: u64) -> Option<Duration> {
    Some(Duration::from_secs(n))
}

#[tokio::test(start_paused = true)]
async fn the_time_in_which_nothing_moves() {
    // Before the head the shorter of the two counts, and then the second alone.
    for (response, idle, first, then) in [
        (seconds(10), seconds(60), 10, Some(60)),
        (seconds(60), seconds(10), 10, Some(10)),
        (None, seconds(10), 10, Some(10)),
        (seconds(10), None, 10, None),
    ] {
        let exchange = Exchange::new(response, idle);
        let mut quiet = Quiet::new(exchange.clone());
        // While the request is on its way, the second alone counts too.
        let alone = timeout(Duration::from_secs(3600), Quiet::new(exchange.clone()).expired()).await.is_err();
        assert_eq!(alone, then.is_none());
        exchange.touch();
        assert!(is_pending(pin!(quiet.expired())).await);
        exchange.upload_ended();
        let began = Instant::now();
        assert!(is_pending(pin!(quiet.expired())).await);
        advance(Duration::from_secs(first - 1)).await;
        exchange.touch();
        quiet.expired().await;
        assert_eq!(began.elapsed().as_secs(), 2 * first - 1);
        assert!(exchange.has_expired());
        exchange.head_has_come();
        let (began, mut quiet) = (Instant::now(), Quiet::new(exchange));
        let waited = timeout(Duration::from_secs(3600), quiet.expired()).await;
        assert_eq!(waited.ok().map(|()| began.elapsed().as_secs()), then);
    }
}

#[tokio::test]
async fn a_body_is_held_until_it_may_flow() {
    let exchange = Exchange::new(None, None);
    let (upstream, empty) = (config::Upstream::new("test", Vec::new()), Empty::new().map_err(|never| match never {}));
    let mut upload = Upload::new(Box::pin(empty), exchange.clone(), upstream.into());
    exchange.hold();
    {
        let mut next = pin!(upload.frame());
        assert!(is_pending(next.as_mut()).await);
        exchange.release();
        assert!(next.await.is_none());
    }
    assert!(exchange.is_uploading());
    drop(upload);
    assert!(!exchange.is_uploading());
}

fn server(proxy_protocol: bool) -> Arc<Server> {
    let transport = Transport::Tcp { host: "127.0.0.1".into(), port: 1 };
    let backend = Backend { url: "http://127.0.0.1:1".into(), transport, weight: 1 };
    let upstream = config::Upstream { proxy_protocol, ..config::Upstream::new("test", vec![backend.clone()]) };
    Arc::new(Server::new(Arc::new(upstream), backend))
}

/// A connection that can be used, and the server's end of it.
async fn line(server: &Arc<Server>) -> (Line, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut line = Line::new(Stream::Plain(Socket::Unix(ours)), server.clone()).await.unwrap();
    line.sender.ready().await.unwrap();
    (line, theirs)
}

fn ended() -> Rc<Exchange> {
    let exchange = Exchange::new(None, None);
    exchange.upload_ended();
    exchange
}

#[tokio::test(start_paused = true)]
async fn few_connections_are_kept_and_not_for_long() {
    let local = LocalSet::new();
    let test = async {
        let (lines, kept) = (Rc::new(Lines::default()), server(false));
        let mut ends = Vec::new();
        for _ in 0..IDLE_MAX + 8 {
            let (line, end) = line(&kept).await;
            lines.give_back(line, &ended());
            ends.push(end);
        }
        assert!(lines.take(&server(false)).is_none(), "they belong to another server");
        // The last one is the first to be used again.
        drop(lines.take(&kept).unwrap());
        assert_eq!(ends.pop().unwrap().read(&mut [0]).await.unwrap(), 0);
        let again: Vec<Line> = std::iter::from_fn(|| lines.take(&kept)).collect();
        assert_eq!(again.len(), IDLE_MAX - 1);
        for line in again {
            lines.give_back(line, &ended());
        }
        advance(Duration::from_secs(31)).await;
        assert!(lines.take(&kept).is_none());
    };
    local.run_until(test).await;
}

#[tokio::test]
async fn what_cannot_serve_another_request_is_closed() {
    let local = LocalSet::new();
    let test = async {
        let lines = Rc::new(Lines::default());
        let held = ended();
        held.hold();
        // One that begins with a client's address, and one whose request never got its body.
        for (server, exchange) in [(server(true), ended()), (server(false), held)] {
            let (line, mut end) = line(&server).await;
            lines.give_back(line, &exchange);
            assert_eq!(end.read(&mut [0]).await.unwrap(), 0);
            assert!(lines.take(&server).is_none());
        }
    };
    local.run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn the_sweep_closes_what_is_old() {
    let local = LocalSet::new();
    let test = async {
        let (lines, kept) = (Rc::new(Lines::default()), server(false));
        let (line, mut end) = line(&kept).await;
        lines.give_back(line, &ended());
        let sweep = tokio::task::spawn_local(lines.clone().sweep());
        assert_eq!(end.read(&mut [0]).await.unwrap(), 0);
        sweep.abort();
    };
    local.run_until(test).await;
}

/// A body that ends when the sender of its pieces is dropped.
struct Pieces(mpsc::Receiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// What answers a request whose body is still to come, the way to send it, and the server's end of the connection.
async fn answered(
    lines: &Rc<Lines>,
    server: &Arc<Server>,
    answer: &str,
) -> (Response<Download>, mpsc::Sender<Bytes>, UnixStream) {
    let (line, mut end) = line(server).await;
    let (pieces, body) = mpsc::channel(1);
    let exchange = Exchange::new(None, None);
    let upload = Upload::new(Box::pin(Pieces(body)), exchange.clone(), server.upstream.clone());
    let mut request = Request::post("/").body(upload).unwrap();
    request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    let serve = async {
        assert_ne!(end.read(&mut [0; 512]).await.unwrap(), 0);
        end.write_all(answer.as_bytes()).await.unwrap();
    };
    let (sent, ()) = tokio::join!(lines.exchange(line, &exchange, request), serve);
    let Sent::Answered(answer) = sent else { panic!("no answer") };
    (answer, pieces, end)
}

#[tokio::test]
async fn an_answer_that_comes_early_leaves_its_request_to_go_on() {
    let local = LocalSet::new();
    let test = async {
        // Kept afterwards, or not.
        for proxy_protocol in [false, true] {
            let (lines, server) = (Rc::new(Lines::default()), server(proxy_protocol));
            let (answer, pieces, mut end) =
                answered(&lines, &server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            drop(answer);
            pieces.send(Bytes::from_static(b"more")).await.unwrap();
            drop(pieces);
            let (mut received, whole) = (Vec::new(), b"4\r\nmore\r\n0\r\n\r\n");
            while received.len() < whole.len() {
                assert_ne!(end.read_buf(&mut received).await.unwrap(), 0, "{received:?}");
            }
            assert_eq!(received, whole);
            if proxy_protocol {
                assert_eq!(end.read(&mut [0]).await.unwrap(), 0);
            }
        }
    };
    local.run_until(test).await;
}

#[tokio::test]
async fn trailers_end_an_answer() {
    let local = LocalSet::new();
    let test = async {
        let (lines, server) = (Rc::new(Lines::default()), server(false));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n0\r\nX: 1\r\n\r\n";
        let (answer, pieces, _end) = answered(&lines, &server, chunked).await;
        drop(pieces);
        let mut download = answer.into_body();
        while !download.frame().await.unwrap().unwrap().is_trailers() {}
        // Nobody asks for more behind trailers.
        drop(download);
        let kept = async {
            while lines.take(&server).is_none() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), kept).await.unwrap();
    };
    local.run_until(test).await;
}
