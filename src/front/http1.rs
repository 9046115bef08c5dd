//! HTTP/1.1: hyper reads one request head after another, until one is let in and the connection is a session's.
mod framing;
mod guard;
mod interim;
mod turn;

pub(super) use framing::is_request_line;

use super::answer::{Answer, Switch};
use super::leftover::Leftover;
use super::patient::Patient;
use super::{Body, Front};
use crate::admission::{Entrance, upgrade};
use crate::metrics::Handshake;
use crate::outbox::wire::Stream;
use crate::upstream::Hints;
use guard::Guard;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use interim::{Between, Interim};
use std::cell::Cell;
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use turn::{Turn, Turns};

/// The largest request head, in bytes; beyond it hyper answers 431.
const HEAD_MAX: usize = 16 * 1024;

/// Serves the requests of one connection. `head_timeout` is what is left for the first head, and
/// what every later one has.
pub(super) async fn serve(front: Rc<Front>, stream: Stream, entrance: Rc<Entrance>, head_timeout: Duration) {
    // The first request, or the lack of one, has an outcome; later ones where they come.
    let owed = Rc::new(Cell::new(true));
    let interim = Interim::default();
    let turns = Turns::default();
    let stream = Patient::new(Between::new(Guard::new(stream, turns.clone()), interim.clone()));
    let service = service_fn({
        let (front, owed) = (front.clone(), owed.clone());
        move |request| {
            owed.set(true);
            let (front, entrance, owed) = (front.clone(), entrance.clone(), owed.clone());
            let (interim, turns) = (interim.clone(), turns.clone());
            async move {
                let answer = answer(front, entrance, request, interim).await;
                owed.set(false);
                Ok::<_, Infallible>(answer.map(|body| Turn::new(body, turns)))
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let _opens = front.opening.enter();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = &mut connection => ended,
        () = front.opening.stopped() => {
            // An idle one ends at once, any other after its answer.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    let outcome = match ended {
        Err(error) if error.is_timeout() => Handshake::HeadTimeout,
        Err(error) if error.is_parse() => Handshake::Malformed,
        Err(_) | Ok(()) => Handshake::Disconnected,
    };
    if owed.get() {
        front.around.shard.metrics().handshake(outcome);
    }
}

async fn answer(
    front: Rc<Front>,
    entrance: Rc<Entrance>,
    mut request: Request<Incoming>,
    interim: Interim,
) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let switches = switches(&head);
    let hints = Hints::default();
    // HTTP/1.0 knows of none (RFC 9110, section 15.2).
    let told = (head.version == Version::HTTP_11).then(|| hints.clone());
    let body = Body::Asked(Leftover::new(&head, body));
    let mut answer = pin!(front.answer(&entrance, head, body, told));
    let answer = loop {
        tokio::select! {
            biased;
            // Before the answer, which may have come right behind it.
            told = hints.next() => told.iter().for_each(|hint| interim.send(hint)),
            answer = &mut answer => break answer,
        }
    };
    match answer {
        Answer::Whole(mut response) => {
            if switches {
                response.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
        Answer::Switch(switch) => accept(switch, upgrade),
    }
}

/// Whether a request asks for something else than HTTP behind it. The [`Guard`] then follows no further, so where the
/// answer is no it is the connection's last.
fn switches(head: &Parts) -> bool {
    head.headers.contains_key(UPGRADE) || head.method == Method::CONNECT
}

/// The 101, and what becomes of the connection behind it.
fn accept(switch: Switch, upgrade: OnUpgrade) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = switch.headers;
    if let Some(accept) = &switch.accept {
        upgrade::switch(response.headers_mut(), accept);
    }
    let then = switch.then;
    tokio::task::spawn_local(async move {
        match upgraded(upgrade).await {
            Some((stream, early)) => then.begin(stream.into(), early).await,
            None => then.abandon().await,
        }
    });
    response
}

/// The connection behind a 101, and what was read of it already.
async fn upgraded(upgrade: OnUpgrade) -> Option<(Stream, Vec<u8>)> {
    // The client has gone before the 101 was out.
    let upgraded = upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<Patient<Between<Guard<Stream>>>>>().ok()?;
    let (stream, held) = parts.io.into_inner().into_inner().into_inner().into_parts();
    // A session has a bound of its own for what its client does not read.
    stream.limit_unsent(0);
    // Copied: what `Bytes` turns into would keep the whole buffer of the head, also for no byte of it.
    Some((stream, [&parts.read_buf, &held[..]].concat()))
}
