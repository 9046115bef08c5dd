//! Answers over HTTP/2.
use super::super::Body;
use bytes::Bytes;
use h2::server::SendResponse;
use hyper::Response;
use hyper::header::{CONNECTION, HeaderMap, TE, TRANSFER_ENCODING, UPGRADE};

/// Sends an answer. `is_head`: the request was a HEAD.
pub(super) async fn whole(mut respond: SendResponse<Bytes>, response: Response<Body>, _is_head: bool) {
    let (mut head, _body) = response.into_parts();
    remove_hop(&mut head.headers);
    let _ = respond.send_response(Response::from_parts(head, ()), true);
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
