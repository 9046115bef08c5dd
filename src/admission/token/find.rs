//! Where a token is, and what must be taken out of a request before anybody else sees it.
use crate::config::{Auth, TokenSource};
use hyper::Uri;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderMap, SEC_WEBSOCKET_PROTOCOL};
use std::borrow::Cow;
use std::fmt;

/// A token as a request carries it: not yet looked into.
pub struct Found<'a> {
    /// Where it was.
    pub source: TokenSource,
    /// The token: letters, digits and `-._~+/=` (RFC 6750, 2.1). Never to be logged.
    pub token: Cow<'a, str>,
}

/// The token must not be printed.
impl fmt::Debug for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found").field("source", &self.source).finish_non_exhaustive()
    }
}

/// A place where a token should be holds something else; to be refused like a bad token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// The place.
    pub source: TokenSource,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("token invalid")
    }
}

impl std::error::Error for Malformed {}

/// Looks for a token in `sources`, in their order; [`TokenSource::Message`] is not looked at.
///
/// The first source in which something is present decides: what stands in the later ones is not
/// looked at, also where the first one is bad. An `Authorization` of another scheme is no token,
/// nor is an empty cookie or query parameter. Of several cookies or parameters of the name the
/// first counts.
///
/// # Errors
/// [`Malformed`] where a source holds something that cannot be a token: two `Authorization`
/// headers, `Bearer` without one, the subprotocol's name without one or twice (RFC 6455, 11.3.4,
/// wants the names unique), a bad escape, other characters.
pub fn find<'a>(
    auth: &Auth,
    sources: &[TokenSource],
    headers: &'a HeaderMap,
    uri: &'a Uri,
) -> Result<Option<Found<'a>>, Malformed> {
    for &source in sources {
        let token = match source {
            TokenSource::Header => in_authorization(headers),
            TokenSource::Subprotocol => in_subprotocols(&auth.subprotocol, headers),
            TokenSource::Cookie => in_cookies(&auth.cookie, headers),
            TokenSource::Query => in_query(&auth.query, uri),
            TokenSource::Message => Ok(None),
        };
        match token {
            Ok(Some(token)) if is_token(&token) => return Ok(Some(Found { source, token })),
            Ok(None) => {}
            Ok(Some(_)) | Err(NotAToken) => return Err(Malformed { source }),
        }
    }
    Ok(None)
}

/// Something is there, but no token.
struct NotAToken;

type Place<'a> = Result<Option<Cow<'a, str>>, NotAToken>;

/// RFC 6750, 2.1: the scheme in any case, spaces, the token.
fn in_authorization(headers: &HeaderMap) -> Place<'_> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(NotAToken);
    }
    let value = value.to_str().map_err(|_| NotAToken)?.trim_ascii();
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    Ok(Some(token.trim_ascii_start().into()))
}

fn in_subprotocols<'a>(name: &str, headers: &'a HeaderMap) -> Place<'a> {
    let offered = list(headers).map_err(|_| NotAToken)?;
    let mut places = offered.iter().enumerate().filter(|(_, element)| **element == name);
    let Some((place, _)) = places.next() else { return Ok(None) };
    if places.next().is_some() {
        return Err(NotAToken);
    }
    offered.get(place + 1).map(|token| Some((*token).into())).ok_or(NotAToken)
}

/// RFC 6265, 4.2.1 and 5.4; HTTP/2 may bring several lines (RFC 9113, 8.2.3).
fn in_cookies<'a>(name: &str, headers: &'a HeaderMap) -> Place<'a> {
    for line in headers.get_all(COOKIE) {
        for pair in line.as_bytes().split(|b| *b == b';').map(<[u8]>::trim_ascii) {
            let Some(value) = pair.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")) else {
                continue;
            };
            let value = std::str::from_utf8(value).map_err(|_| NotAToken)?;
            let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
            return Ok(Some(value).filter(|value| !value.is_empty()).map(Cow::from));
        }
    }
    Ok(None)
}

fn in_query<'a>(name: &str, uri: &'a Uri) -> Place<'a> {
    let Some(query) = uri.query() else { return Ok(None) };
    let Some(parameter) = query.split('&').find(|parameter| is_named(parameter, name)) else { return Ok(None) };
    let (_, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    if value.is_empty() {
        return Ok(None);
    }
    if !value.contains('%') {
        return Ok(Some(value.into()));
    }
    let bytes = unescape(value).ok_or(NotAToken)?;
    String::from_utf8(bytes).map(|value| Some(value.into())).map_err(|_| NotAToken)
}

/// RFC 6750's `b64token`. A JWT needs less, but other characters have no business in any token, and
/// a list of cookies, schemes or protocols cannot hide in one.
fn is_token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b))
}

/// Whether a query parameter carries the name, escapes undone: a backend would read them too.
fn is_named(parameter: &str, name: &str) -> bool {
    let written = parameter.split_once('=').map_or(parameter, |(written, _)| written);
    written == name || (written.contains('%') && unescape(written).is_some_and(|bytes| bytes == name.as_bytes()))
}

/// Percent-decoding (RFC 3986, 2.1); `None` where an escape is broken.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return None };
        let digit = |b: u8| (b as char).to_digit(16);
        bytes.push((digit(*high)? * 16 + digit(*low)?) as u8);
        rest = tail;
    }
    Some(bytes)
}

/// The `Sec-WebSocket-Protocol` of a request without the token.
#[derive(Default, PartialEq, Eq)]
pub struct Offered<'a> {
    /// The names that were offered, in order, without the configured one and the token after it.
    /// What a backend is told, and what an answer is chosen from.
    pub protocols: Vec<&'a str>,
    /// Whether the configured name was among them: then the answer may name it.
    pub named: bool,
}

impl fmt::Debug for Offered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A client that misspells the pair's name has its token among the protocols.
        f.debug_struct("Offered").field("protocols", &self.protocols.len()).field("named", &self.named).finish()
    }
}

/// The header `Sec-WebSocket-Protocol` is not a list of names (RFC 6455, 11.3.4): a malformed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAList;

impl fmt::Display for NotAList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed Sec-WebSocket-Protocol")
    }
}

impl std::error::Error for NotAList {}

/// The subprotocols that a request offers, over all its header lines, without the token and the name
/// before it. They are left out wherever they stand, whether or not the route looks there.
///
/// # Errors
/// [`NotAList`] where one of the others is not a token of HTTP (RFC 9110, 5.6.2).
pub fn offered_protocols<'a>(auth: &Auth, headers: &'a HeaderMap) -> Result<Offered<'a>, NotAList> {
    let mut offered = Offered::default();
    let mut elements = list(headers)?.into_iter();
    while let Some(element) = elements.next() {
        if element == auth.subprotocol {
            offered.named = true;
            elements.next();
        } else if is_http_token(element) {
            offered.protocols.push(element);
        } else {
            return Err(NotAList);
        }
    }
    Ok(offered)
}

/// The elements of all lines; empty ones do not count (RFC 9110, 5.6.1.2).
fn list(headers: &HeaderMap) -> Result<Vec<&str>, NotAList> {
    let mut elements = Vec::new();
    for line in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        let line = line.to_str().map_err(|_| NotAList)?;
        elements.extend(line.split(',').map(str::trim_ascii).filter(|element| !element.is_empty()));
    }
    Ok(elements)
}

fn is_http_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// The path and query without the token's parameter, for backends and logs: all its occurrences are
/// gone, also with escapes in the name, and what remains is byte for byte as it was. A query of
/// which nothing remains goes with its question mark.
pub fn uri_without_token<'a>(auth: &Auth, uri: &'a Uri) -> Cow<'a, str> {
    let whole = uri.path_and_query().map_or("/", |both| both.as_str());
    let Some((path, query)) = whole.split_once('?') else { return whole.into() };
    if !query.split('&').any(|parameter| is_named(parameter, &auth.query)) {
        return whole.into();
    }
    let rest: Vec<&str> = query.split('&').filter(|parameter| !is_named(parameter, &auth.query)).collect();
    if rest.is_empty() { path.into() } else { format!("{path}?{}", rest.join("&")).into() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::admission::token::tests::auth;
    use TokenSource::{Cookie, Header, Message, Query, Subprotocol};
    use hyper::header::{HeaderName, HeaderValue};

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    /// `Ok(None)` as "-", a token as "Source:token", a malformed one as "!Source".
    fn seen(sources: &[TokenSource], lines: &[(&str, &str)], uri: &str) -> String {
        let (headers, uri) = (headers(lines), uri.parse().unwrap());
        match find(&auth(), sources, &headers, &uri) {
            Ok(None) => "-".into(),
            Ok(Some(found)) => format!("{:?}:{}", found.source, found.token),
            Err(malformed) => format!("!{:?}", malformed.source),
        }
    }

    const ALL: &[TokenSource] = &[Header, Subprotocol, Cookie, Query, Message];

    #[test]
    fn tokens_in_headers() {
        for (lines, expected) in [
            (&[][..], "-"),
            (&[("authorization", "Bearer a.b.c")], "Header:a.b.c"),
            (&[("authorization", "bEARER   a.b.c  ")], "Header:a.b.c"),
            (&[("authorization", "Basic dXNlcjpwdw==")], "-"),
            (&[("authorization", "Bearera.b.c")], "-"),
            (&[("authorization", "")], "-"),
            (&[("authorization", "Bearer")], "!Header"),
            (&[("authorization", "Bearer ")], "!Header"),
            (&[("authorization", "Bearer a b")], "!Header"),
            (&[("authorization", "Bearer a, Bearer b")], "!Header"),
            (&[("authorization", "Bearer \u{fc}")], "!Header"),
            (&[("authorization", "Bearer ===")], "!Header"),
            (&[("authorization", "Bearer a"), ("authorization", "Bearer a")], "!Header"),
            (&[("authorization", "Basic a"), ("authorization", "Bearer a")], "!Header"),
            (&[("sec-websocket-protocol", "bearer, a.b.c")], "Subprotocol:a.b.c"),
            (&[("sec-websocket-protocol", "rooms.v1,bearer,a.b.c,x")], "Subprotocol:a.b.c"),
            (&[("sec-websocket-protocol", "bearer"), ("sec-websocket-protocol", "a.b.c")], "Subprotocol:a.b.c"),
            (&[("sec-websocket-protocol", ",bearer, ,a.b.c,")], "Subprotocol:a.b.c"),
            (&[("sec-websocket-protocol", "rooms.v1")], "-"),
            (&[("sec-websocket-protocol", "Bearer, a.b.c")], "-"),
            (&[("sec-websocket-protocol", "bearer")], "!Subprotocol"),
            (&[("sec-websocket-protocol", "x, bearer,")], "!Subprotocol"),
            (&[("sec-websocket-protocol", "bearer, a, bearer, b")], "!Subprotocol"),
            (&[("sec-websocket-protocol", "bearer, bearer")], "!Subprotocol"),
            (&[("sec-websocket-protocol", "bearer, a b")], "!Subprotocol"),
            (&[("sec-websocket-protocol", "bearer, \u{fc}")], "!Subprotocol"),
            (&[("cookie", "token=a.b.c")], "Cookie:a.b.c"),
            (&[("cookie", "x=1; token=a.b.c; token=d")], "Cookie:a.b.c"),
            (&[("cookie", "x=1;token=\"a.b.c\"")], "Cookie:a.b.c"),
            (&[("cookie", "x=1"), ("cookie", "y; token=a.b.c")], "Cookie:a.b.c"),
            (&[("cookie", "tokens=a; Token=b; xtoken=c; token")], "-"),
            (&[("cookie", "token=")], "-"),
            (&[("cookie", "token=\"\"")], "-"),
            (&[("cookie", "token=a b")], "!Cookie"),
            (&[("cookie", "token=\"a")], "!Cookie"),
            (&[("cookie", "x=\u{fc}; token=a")], "Cookie:a"),
            (&[("cookie", "token=\u{fc}")], "!Cookie"),
        ] {
            assert_eq!(seen(ALL, lines, "/ws"), expected, "{lines:?}");
        }
    }

    #[test]
    fn tokens_in_queries() {
        for (uri, expected) in [
            ("/ws?token=a.b.c", "Query:a.b.c"),
            ("/ws?x=1&token=a.b.c&token=d", "Query:a.b.c"),
            ("/ws?token=a%2Eb%2ec%3D", "Query:a.b.c="),
            ("/ws?%74oken=a", "Query:a"),
            ("/ws?token=a=b", "!Query"),
            ("/ws?token=a%2", "!Query"),
            ("/ws?token=a%zz", "!Query"),
            ("/ws?token=%ff", "!Query"),
            ("/ws?token=a%20b", "!Query"),
            ("/ws?token=", "-"),
            ("/ws?token", "-"),
            ("/ws?Token=a&tokens=b&xtoken=c&x=token=d", "-"),
            ("/ws?", "-"),
            ("/token=a", "-"),
        ] {
            assert_eq!(seen(ALL, &[], uri), expected, "{uri}");
        }
    }

    #[test]
    fn the_first_source_decides() {
        let lines = &[("authorization", "Bearer h"), ("sec-websocket-protocol", "bearer, s"), ("cookie", "token=c")];
        let uri = "/ws?token=q";
        assert_eq!(seen(ALL, lines, uri), "Header:h");
        assert_eq!(seen(&[Query, Header], lines, uri), "Query:q");
        assert_eq!(seen(&[Message, Cookie, Header], lines, uri), "Cookie:c");
        assert_eq!(seen(&[Message], lines, uri), "-");
        assert_eq!(seen(&[], lines, uri), "-");
        assert_eq!(seen(ALL, &[("authorization", "Bearer")], uri), "!Header", "bad is not missing");
    }

    #[test]
    fn found_does_not_print_its_token() {
        let found = Found { source: Header, token: "very.secret.token".into() };
        assert!(!format!("{found:?}").contains("secret"));
        let offered = Offered { protocols: vec!["very.secret.token"], named: false };
        assert!(!format!("{offered:?}").contains("secret"));
    }

    #[test]
    fn protocols_without_the_pair() {
        for (lines, protocols, named) in [
            (&[][..], &[][..], false),
            (&["rooms.v1, bearer, a.b=", "x"], &["rooms.v1", "x"], true),
            (&["bearer", "a.b.c, x"], &["x"], true),
            (&["bearer, a, y, bearer, b, z"], &["y", "z"], true),
            (&["x, bearer"], &["x"], true),
            (&["a,,b , c"], &["a", "b", "c"], false),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("sec-websocket-protocol", *line)).collect();
            let headers = headers(&lines);
            assert_eq!(offered_protocols(&auth(), &headers), Ok(Offered { protocols: protocols.to_vec(), named }));
        }
        for line in ["a b", "a/b", "a;b", "\"a\"", "\u{fc}"] {
            let headers = headers(&[("sec-websocket-protocol", line)]);
            assert_eq!(offered_protocols(&auth(), &headers), Err(NotAList), "{line}");
        }
    }

    #[test]
    fn addresses_without_the_token() {
        for (uri, rest) in [
            ("/ws", "/ws"),
            ("/ws?", "/ws?"),
            ("/ws?token=a", "/ws"),
            ("/ws?token", "/ws"),
            ("/ws?token=a&token=b", "/ws"),
            ("/ws?a=%20+&token=x&b=?c&&d", "/ws?a=%20+&b=?c&&d"),
            ("/ws?x=1&%74%6Fken=a&y=%zz", "/ws?x=1&y=%zz"),
            ("/ws?tokens=1&Token=2", "/ws?tokens=1&Token=2"),
            ("http://h/a%2Fb?token=a&z", "/a%2Fb?z"),
            ("/token=a?x", "/token=a?x"),
        ] {
            let uri: Uri = uri.parse().unwrap();
            assert_eq!(uri_without_token(&auth(), &uri), rest, "{uri}");
        }
    }
}
