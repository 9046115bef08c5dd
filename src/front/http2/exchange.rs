//! One request over HTTP/2, and what becomes of its stream.
use super::super::answer::{Answer, Switch};
use super::super::{Body, Front};
use super::received::Received;
use super::request::{self, Unread};
use super::send::{self, remove_hop};
use crate::admission::Entrance;
use crate::outbox::wire::{Http2, Piece, Wire};
use crate::upstream::Hints;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use hyper::header::EXPECT;
use hyper::{Method, Request, Response, StatusCode};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::timeout;

/// How long, and how much, a client is listened to that was answered already.
const DISCARD: Duration = Duration::from_secs(2);
const DISCARD_BYTES: usize = 1 << 20;

/// Judges a request and answers it, unless the client takes it back. A stream that is granted an upgrade becomes a
/// session's.
pub(super) async fn run(
    front: Rc<Front>,
    entrance: Rc<Entrance>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Piece>,
) {
    let (head, from) = request.into_parts();
    let head = match request::read(head) {
        Ok(head) => head,
        Err(Unread::Malformed) => return respond.send_reset(Reason::PROTOCOL_ERROR),
        Err(Unread::Status(status)) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status;
            send::send(respond, response, false).await;
            return discard(from).await;
        }
    };
    let is_head = head.method == Method::HEAD;
    let mut expects = head.headers.get(EXPECT).is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let wanted = Arc::new(Notify::new());
    let (tunnel, body) = match head.method == Method::CONNECT {
        // What follows is no body.
        true => (Some(from), Body::empty()),
        false => (None, Body::Http2(Received::new(&head, from, expects.then(|| wanted.clone())))),
    };
    let hints = Hints::default();
    let mut answer = pin!(front.answer(&entrance, head, body, Some(hints.clone())));
    let answer = loop {
        tokio::select! {
            biased;
            // Before the answer, which may have come right behind it.
            told = hints.next() => for hint in told {
                // An error shows in what follows.
                let _ = respond.send_informational(hint);
            },
            answer = &mut answer => break answer,
            // The client has taken it back, or is gone.
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
            () = wanted.notified(), if expects => {
                expects = false;
                let mut go_on = Response::new(());
                *go_on.status_mut() = StatusCode::CONTINUE;
                // An error shows in what follows.
                let _ = respond.send_informational(go_on);
            }
        }
    };
    match (answer, tunnel) {
        (Answer::Whole(response), None) => send::send(respond, response, is_head).await,
        // It would open the WebSocket (RFC 8441, section 5), which only `accept` does.
        (Answer::Whole(response), Some(_)) if response.status().is_success() => {
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
        (Answer::Whole(response), Some(from)) => {
            send::send(respond, response, is_head).await;
            discard(from).await;
        }
        (Answer::Switch(switch), Some(from)) => accept(switch, from, respond).await,
        // Admission grants an upgrade to CONNECT alone.
        (Answer::Switch(_), None) => respond.send_reset(Reason::INTERNAL_ERROR),
    }
}

/// The 200, and what follows it on the stream.
async fn accept(switch: Switch, from: RecvStream, mut respond: SendResponse<Piece>) {
    let mut response = Response::new(());
    *response.headers_mut() = switch.headers;
    remove_hop(response.headers_mut());
    match respond.send_response(response, false) {
        Ok(to) => {
            drop(respond);
            switch.then.begin(Wire::Http2(Box::new(Http2::new(from, to))), Vec::new()).await;
        }
        // Not here: this ends with the connection.
        Err(_) => drop(spawn_local(switch.then.abandon())),
    }
}

/// Waits a while for the end of a stream whose answer is complete. Dropped before, it would be reset (RFC 9113, section
/// 8.1), which clients take for a fault; and a CONNECT that is refused is still open on the client's side.
async fn discard(mut from: RecvStream) {
    let ended = async {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(data)) = poll_fn(|cx| from.poll_data(cx)).await {
            let _ = from.flow_control().release_capacity(data.len());
            left = left.saturating_sub(data.len());
            if left == 0 {
                return;
            }
        }
    };
    let _ = timeout(DISCARD, ended).await;
}
