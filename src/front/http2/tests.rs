//! Connections over pipes, on a clock that stands still unless everybody waits.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::admission::Gate;
use crate::bans::Bans;
use crate::config::file;
use crate::front::{Body, Opening};
use crate::limits::Limiter;
use crate::metrics::Metrics;
use crate::rooms::{Parts, Rooms, Shared};
use crate::session::Surroundings;
use crate::shard::{Load, Place, Shard};
use crate::upstream::Upstreams;
use h2::client::{self, SendRequest};
use h2::ext::Protocol;
use hyper::{Method, Response};
use std::sync::Arc;
use tokio::io::{DuplexStream, duplex};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::Instant;

const CONFIG: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\n[auth]\nrequired = false\nsources = []\n\
                      [[route]]\npath = \"/echo\"\nservice = \"echo\"\n[limits]\nidle_timeout = \"1h\"\n";
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

fn front() -> Rc<Front> {
    let config = Arc::new(file::parse(CONFIG, "gateway.toml", &|_| None, 1).unwrap());
    let shard = Shard::new(0, Metrics::new(1));
    let (shared, _) = Shared::new(1, Parts::alone(config.rooms.clone()));
    let rooms = Rooms::new(shared, shard.clone());
    let limiter = Limiter::new(9, config.ip_limits);
    let upstreams = Upstreams::new(&config.upstreams);
    let gate = Arc::new(Gate::new(config, limiter, Bans::in_memory()).unwrap());
    let around = Surroundings { gate, shard, rooms };
    let (lines, draining, opening) = (Rc::default(), Arc::default(), Opening::default());
    Rc::new(Front { around, upstreams, lines, draining, opening })
}

/// A served connection, and the client's end of it.
fn serve_pipe(front: &Rc<Front>) -> (JoinHandle<()>, DuplexStream) {
    let (theirs, ours) = duplex(1 << 20);
    let gate = &front.around.gate;
    let knock = gate.knock(gate.enter().unwrap(), None, 0).unwrap();
    let place = Place::new(front.around.shard.clone(), Load::default().add());
    let entrance = Rc::new(Entrance::new(knock, place));
    (spawn_local(serve(front.clone(), ours, entrance, HEAD_TIMEOUT)), theirs)
}

/// The same, with a client that does what HTTP/2 asks of it; the last ends with the connection.
async fn connect(front: &Rc<Front>) -> (JoinHandle<()>, SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let (served, pipe) = serve_pipe(front);
    let (requests, connection) = client::handshake(pipe).await.unwrap();
    let ended = spawn_local(connection);
    let requests = requests.ready().await.unwrap();
    // The server's settings come first of all that it answers.
    tokio::task::yield_now().await;
    (served, requests, ended)
}

fn websocket() -> Request<()> {
    let request = Request::builder().method(Method::CONNECT).uri("https://localhost/echo");
    let request = request.extension(Protocol::from_static("websocket")).header("sec-websocket-version", "13");
    request.body(()).unwrap()
}

async fn run(test: impl AsyncFnOnce(Rc<Front>)) {
    LocalSet::new().run_until(async { test(front()).await }).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_uses_ends_after_a_minute() {
    run(async |front| {
        let began = Instant::now();
        let (served, _requests, ended) = connect(&front).await;
        ended.await.unwrap().unwrap();
        assert_eq!(began.elapsed(), IDLE);
        served.await.unwrap();
        assert!(front.opening.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_keeps_it_and_its_end_begins_the_minute() {
    run(async |front| {
        let (_served, mut requests, ended) = connect(&front).await;
        let (answer, to) = requests.send_request(websocket(), false).unwrap();
        let mut from = answer.await.unwrap().into_body();
        // Pings that are not answered end the session after 35 s; it is an hour if they are.
        let mut pings = 0;
        let mut to = to;
        while pings < 10 {
            let data = from.data().await.unwrap().unwrap();
            from.flow_control().release_capacity(data.len()).unwrap();
            assert_eq!(data[0], 0x89, "{data:?}");
            to.send_data(Bytes::from_static(&[0x8a, 0x80, 0, 0, 0, 0]), false).unwrap();
            pings += 1;
        }
        assert!(!ended.is_finished());
        drop((from, to));
        let began = Instant::now();
        ended.await.unwrap().unwrap();
        assert_eq!(began.elapsed(), IDLE);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_agree_has_a_second() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    run(async |front| {
        let (served, mut pipe) = serve_pipe(&front);
        pipe.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        // It was idle for a while.
        sleep(IDLE / 2).await;
        let began = Instant::now();
        front.opening.stop();
        let mut heard = Vec::new();
        pipe.read_to_end(&mut heard).await.unwrap();
        assert_eq!(began.elapsed(), LEAVE);
        drop(pipe);
        served.await.unwrap();
        assert!(front.opening.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_preface_that_does_not_come_is_waited_for_so_long() {
    run(async |front| {
        let (served, _pipe) = serve_pipe(&front);
        let began = Instant::now();
        served.await.unwrap();
        assert_eq!(began.elapsed(), HEAD_TIMEOUT);
    })
    .await;
}

/// Sends an answer to a client with no window until it takes something.
async fn send_slowly(body: Body, takes: bool) -> (Duration, Result<usize, h2::Error>) {
    let (theirs, ours) = duplex(1 << 20);
    let mut builder = client::Builder::new();
    let (requests, connection) = builder.initial_window_size(1000).handshake::<_, Bytes>(theirs).await.unwrap();
    spawn_local(connection);
    let mut server = settings().handshake::<_, Bytes>(ours).await.unwrap();
    let mut requests = requests.ready().await.unwrap();
    let (answer, _) = requests.send_request(Request::new(()), true).unwrap();
    let (_, respond) = server.accept().await.unwrap().unwrap();
    spawn_local(async move { while server.accept().await.is_some() {} });
    let began = Instant::now();
    let sending = spawn_local(send::send(respond, Response::new(body), false));
    let mut from = answer.await.unwrap().into_body();
    let mut heard = Ok(0);
    while let Some(data) = from.data().await {
        heard = data.map(|data| {
            if takes {
                from.flow_control().release_capacity(data.len()).unwrap();
            }
            data.len() + heard.as_ref().unwrap()
        });
        if heard.is_err() {
            break;
        }
        sleep(if takes { Duration::from_secs(20) } else { Duration::ZERO }).await;
    }
    sending.await.unwrap();
    (began.elapsed(), heard)
}

fn full(bytes: usize) -> Body {
    Body::Full(http_body_util::Full::new(vec![7; bytes].into()))
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_takes_is_given_up() {
    LocalSet::new()
        .run_until(async {
            let (took, heard) = send_slowly(full(5000), false).await;
            assert_eq!(heard.unwrap_err().reason(), Some(Reason::CANCEL));
            assert_eq!(took, Duration::from_secs(30));
            let (took, heard) = send_slowly(full(5000), true).await;
            assert_eq!(heard.unwrap(), 5000);
            assert!(took > Duration::from_secs(60));
        })
        .await;
}
