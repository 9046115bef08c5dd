//! Answers over HTTP/2.
use super::super::Body;
use super::super::patient::STUCK_MAX;
use crate::outbox::wire::STREAM_BACKLOG;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http_body::Body as _;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, TE, TRANSFER_ENCODING, UPGRADE};
use hyper::{Response, StatusCode};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use tokio::time::timeout;

/// Sends an answer, as fast as the client takes it, unless it takes the request back. `is_head`: the request was a HEAD.
/// A body that breaks off ends in RST_STREAM with INTERNAL_ERROR; a client that takes nothing for [`STUCK_MAX`] gets one
/// with CANCEL.
pub(super) async fn send(mut respond: SendResponse<Bytes>, response: Response<Body>, is_head: bool) {
    let (mut head, body) = response.into_parts();
    remove_hop(&mut head.headers);
    let has_none = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    // What a GET would bring is not known where nothing comes for a HEAD (RFC 9110, section 8.6).
    let is_told = |length: &u64| !has_none && !(is_head && *length == 0);
    if let Some(length) = body.size_hint().exact().filter(is_told) {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    let end = is_head || has_none || body.is_end_stream();
    let Ok(mut to) = respond.send_response(Response::from_parts(head, ()), end) else { return };
    if end {
        return;
    }
    if let Err(Some(reason)) = send_body(&mut to, pin!(body)).await {
        to.send_reset(reason);
    }
}

/// Moves a body into a stream. `Err(None)`: the client wants no more; otherwise why the stream is to be reset.
async fn send_body(to: &mut SendStream<Bytes>, mut body: Pin<&mut Body>) -> Result<(), Option<Reason>> {
    let gone = |_: h2::Error| None;
    loop {
        let next = poll_fn(|cx| match to.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(Err(None)),
            Poll::Pending => body.as_mut().poll_frame(cx).map(Ok),
        });
        let frame = match next.await? {
            None => return to.send_data(Bytes::new(), true).map_err(gone),
            Some(Err(_)) => return Err(Some(Reason::INTERNAL_ERROR)),
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(data) => {
                let end = body.is_end_stream();
                send_data(to, data, end).await?;
                if end {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return to.send_trailers(trailers).map_err(gone);
                }
            }
        }
    }
}

/// Sends data by and by, so that never more than [`STREAM_BACKLOG`] of it waits in h2.
async fn send_data(to: &mut SendStream<Bytes>, mut data: Bytes, end: bool) -> Result<(), Option<Reason>> {
    let gone = |_: h2::Error| None;
    loop {
        to.reserve_capacity(data.len().min(STREAM_BACKLOG));
        while to.capacity() == 0 && !data.is_empty() {
            match timeout(STUCK_MAX, poll_fn(|cx| to.poll_capacity(cx))).await {
                Err(_) => return Err(Some(Reason::CANCEL)),
                Ok(Some(Ok(_))) => (),
                Ok(Some(Err(_)) | None) => return Err(None),
            }
        }
        let some = data.split_to(to.capacity().min(data.len()));
        let last = data.is_empty();
        to.send_data(some, end && last).map_err(gone)?;
        if last {
            return Ok(());
        }
    }
}

/// What belongs to a connection of HTTP/1.1 is malformed here (RFC 9113, section 8.2.2).
pub(super) fn remove_hop(headers: &mut HeaderMap) {
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE, TE] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
}
