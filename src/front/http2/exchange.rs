//! One request over HTTP/2, and what becomes of its stream.
use super::super::answer::{Answer, Switch};
use super::super::{Body, Front};
use super::request::{self, Unread};
use super::send::{self, remove_hop};
use crate::admission::Entrance;
use crate::outbox::wire::{Http2, Wire};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use hyper::{Method, Request, Response};
use std::future::poll_fn;
use std::rc::Rc;

/// Judges a request and answers it, unless the client takes it back. A stream that is granted an upgrade becomes a
/// session's.
pub(super) async fn run(
    front: Rc<Front>,
    entrance: Rc<Entrance>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (head, from) = match request::read(request) {
        Ok(read) => read,
        Err(Unread::Malformed) => return respond.send_reset(Unread::REASON),
        Err(Unread::Status(status)) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status;
            return send::whole(respond, response, false).await;
        }
    };
    let is_head = head.method == Method::HEAD;
    // What comes after a CONNECT is no body.
    let (tunnel, body) = match head.method == Method::CONNECT {
        true => (Some(from), Body::empty()),
        false => (None, Body::empty()),
    };
    let answer = tokio::select! {
        biased;
        answer = front.answer(&entrance, head, body) => answer,
        // The client has taken it back, or is gone.
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    match (answer, tunnel) {
        (Answer::Whole(response), _) => send::whole(respond, response, is_head).await,
        (Answer::Switch(switch), Some(from)) => accept(switch, from, respond).await,
        // Only a CONNECT is granted an upgrade.
        (Answer::Switch(_), None) => respond.send_reset(h2::Reason::INTERNAL_ERROR),
    }
}

/// The 200, and what follows it on the stream.
async fn accept(switch: Switch, from: RecvStream, mut respond: SendResponse<Bytes>) {
    let mut response = Response::new(());
    *response.headers_mut() = switch.headers;
    remove_hop(response.headers_mut());
    if let Ok(to) = respond.send_response(response, false) {
        drop(respond);
        switch.then.begin(Wire::Http2(Box::new(Http2::new(from, to))), Vec::new()).await;
    }
}
