//! Ordinary requests, on proxy routes: what is asked of them, and where their token may be.
use super::refusal::Refusal;
use crate::config::{Route, TokenSource};
use crate::metrics::Refused;
use hyper::header::{
    ACCESS_CONTROL_REQUEST_METHOD, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, ORIGIN, TRANSFER_ENCODING,
};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use smallvec::SmallVec;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses what is passed on by no proxy: tunnels, echoes of the request, and bodies in a coding that the next parser
/// may not know (RFC 9112, section 6.1).
pub(super) fn check(head: &Parts) -> Result<(), Refusal> {
    if [Method::CONNECT, Method::TRACE].contains(&head.method) {
        return Err(not_served());
    }
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    let chunked = codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if !chunked || head.headers.contains_key(CONTENT_LENGTH) {
        let message = "a body is either chunked or has a length";
        return Err(Refusal::plain(StatusCode::BAD_REQUEST, Refused::Malformed, message));
    }
    Ok(())
}

/// The refusal of a method.
pub(super) fn not_served() -> Refusal {
    let message = "this method is not served";
    Refusal::plain(StatusCode::METHOD_NOT_ALLOWED, Refused::Method, message).ordinary()
}

/// Whether a request has no Origin because none is sent with its method: browsers leave it out where a page is opened,
/// and where a page asks its own server (Fetch, section 3.2).
pub(super) fn says_no_origin(head: &Parts) -> bool {
    [Method::GET, Method::HEAD].contains(&head.method) && !head.headers.contains_key(ORIGIN)
}

/// Whether a browser asks what a page of another origin may do: it sends no credentials then (Fetch, section 4.8).
pub(super) fn is_preflight(head: &Parts) -> bool {
    head.method == Method::OPTIONS
        && head.headers.contains_key(ORIGIN)
        && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Where this request's token is looked for. Its Origin has been judged. A browser sends cookies along with what other
/// sites make it ask, so that for methods that change something a cookie counts only where the request says that it
/// comes from an allowed origin or from this one (RFC 9110, section 9.2.1; Fetch Metadata).
pub(super) fn sources(route: &Route, head: &Parts) -> SmallVec<[TokenSource; 5]> {
    let safe = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(&head.method);
    let cookie = safe || head.headers.contains_key(ORIGIN) || is_same_origin(&head.headers);
    let looks = |source: &TokenSource| match source {
        TokenSource::Header | TokenSource::Query => true,
        TokenSource::Cookie => cookie,
        TokenSource::Subprotocol | TokenSource::Message => false,
    };
    route.auth.sources.iter().copied().filter(looks).collect()
}

fn is_same_origin(headers: &HeaderMap) -> bool {
    let mut said = headers.get_all(SEC_FETCH_SITE).iter();
    said.next().map(HeaderValue::as_bytes) == Some(b"same-origin") && said.next().is_none()
}
