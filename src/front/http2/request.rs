//! Requests as they come by HTTP/2: what h2 lets pass although it is malformed (RFC 9113, section 8), and what is said
//! otherwise than by HTTP/1.1. Backends are spoken to by HTTP/1.1, so that its grammar holds here too.
use crate::front::http1::is_request_line;
use h2::ext::Protocol;
use hyper::header::{COOKIE, HOST, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

/// The most headers of a request, as by HTTP/1.1.
const HEADERS_MAX: usize = 100;

/// Fields that decide where a message ends or whom it is for.
const FRAMING: [&str; 5] = ["connection", "content-length", "host", "transfer-encoding", "upgrade"];

/// What a request that cannot be judged is answered with.
pub(super) enum Unread {
    /// RST_STREAM with PROTOCOL_ERROR: it is malformed (RFC 9113, section 8.1.1).
    Malformed,
    /// A status.
    Status(StatusCode),
}

/// The head, with one `Cookie` as HTTP/1.1 has it, which counts as one header.
pub(super) fn read(mut head: Parts) -> Result<Parts, Unread> {
    let is_padded = |value: &HeaderValue| value.as_bytes().trim_ascii().len() != value.len();
    if head.headers.values().any(is_padded) {
        return Err(Unread::Malformed);
    }
    join_cookies(&mut head);
    judge(&head)?;
    Ok(head)
}

fn judge(head: &Parts) -> Result<(), Unread> {
    if head.headers.len() > HEADERS_MAX {
        return Err(Unread::Status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
    if head.headers.keys().any(is_disguised) {
        return Err(Unread::Malformed);
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    let (authority, host) = (head.uri.authority(), hosts.next());
    if hosts.next().is_some() || authority.is_some_and(|a| a.as_str().contains('@')) {
        return Err(Unread::Malformed);
    }
    match (authority, host) {
        (Some(authority), Some(host)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            return Err(Unread::Malformed);
        }
        (None, None) => return Err(Unread::Malformed),
        _ => (),
    }
    if head.method == Method::CONNECT && head.extensions.get::<Protocol>().is_none() {
        // A tunnel to a host: no proxy of that kind is here (RFC 9110, section 9.3.6).
        return Err(Unread::Status(StatusCode::METHOD_NOT_ALLOWED));
    }
    if is_line(head) { Ok(()) } else { Err(Unread::Malformed) }
}

/// Whether method and target could stand in a request line. The target of a CONNECT with a protocol is a path, as that
/// of a GET is (RFC 8441, section 4).
fn is_line(head: &Parts) -> bool {
    let method = if head.method == Method::CONNECT { "GET" } else { head.method.as_str() };
    head.uri.path_and_query().is_some_and(|target| is_request_line(method, target.as_str()))
}

/// Whether a name is that of a framing field to CGI, which makes one name of both spellings.
fn is_disguised(name: &HeaderName) -> bool {
    name.as_str().contains('_') && FRAMING.contains(&&*name.as_str().replace('_', "-"))
}

/// HTTP/2 may cut a cookie header in pieces (RFC 9113, section 8.2.3).
fn join_cookies(head: &mut Parts) {
    if head.headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let pieces: Vec<&[u8]> = head.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        head.headers.insert(COOKIE, joined);
    }
}
