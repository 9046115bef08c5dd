//! What every call must carry: the interface's own Host, no Origin but its own, and for most paths
//! the token.
//!
//! The interface listens on loopback by default, where every web page that an operator opens may
//! reach it. A page's own name that is rebound to 127.0.0.1 fails by its Host; a page that calls
//! the address across origins fails by its Origin.
use super::answer::Fault;
use crate::config::secret::Secret;
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Request, header};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use subtle::ConstantTimeEq;

/// The addresses under which the interface answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    address: IpAddr,
    port: u16,
}

impl Own {
    /// Where the configured address is that of all interfaces (`0.0.0.0`, `[::]`), the one that
    /// the connection reached stands for it.
    pub fn new(configured: SocketAddr, reached: SocketAddr) -> Own {
        let address = if configured.ip().is_unspecified() { reached.ip() } else { configured.ip() };
        Own { address: address.to_canonical(), port: reached.port() }
    }

    fn is(self, host: &Host) -> bool {
        let address = match host.name {
            Name::Localhost => true,
            Name::Address(ip) => {
                ip == self.address || ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip == IpAddr::V6(Ipv6Addr::LOCALHOST)
            }
        };
        address && host.port == self.port
    }
}

/// A Host that may be ours; all other names are `None` from [`Host::parse`].
#[derive(Debug, PartialEq, Eq)]
struct Host {
    name: Name,
    port: u16,
}

#[derive(Debug, PartialEq, Eq)]
enum Name {
    Localhost,
    Address(IpAddr),
}

impl Host {
    fn parse(text: &str) -> Option<Host> {
        let authority: Authority = text.parse().ok()?;
        if text.contains('@') {
            return None;
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            // `localhost:` has no port by RFC 3986, and no client writes it.
            None if text.ends_with(':') => return None,
            None => 80,
        };
        let host = authority.host();
        let name = if host.eq_ignore_ascii_case("localhost") {
            Name::Localhost
        } else {
            let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
            Name::Address(bare.parse().ok()?)
        };
        Some(Host { name, port })
    }
}

/// Refuses calls that carry another Host or Origin than the interface's own.
pub(super) fn check<B>(request: &Request<B>, own: Own) -> Result<(), Fault> {
    let host = only(request, header::HOST)?.ok_or(Fault::bad("no Host header"))?;
    let host = Host::parse(host).filter(|host| own.is(host)).ok_or(Fault::Host)?;
    // The absolute form names the host a second time, and would win (RFC 9112, 3.2.2).
    if let Some(named) = request.uri().authority()
        && Host::parse(named.as_str()).as_ref() != Some(&host)
    {
        return Err(Fault::Host);
    }
    match only(request, header::ORIGIN)? {
        None => Ok(()),
        Some(origin) => {
            let origin = origin.strip_prefix("http://").and_then(Host::parse);
            if origin == Some(host) { Ok(()) } else { Err(Fault::Origin) }
        }
    }
}

/// Refuses calls without the configured token.
pub(super) fn token<B>(request: &Request<B>, expected: Option<&Secret>) -> Result<(), Fault> {
    let Some(expected) = expected else { return Ok(()) };
    let value = only(request, header::AUTHORIZATION)?.ok_or(Fault::TokenMissing)?;
    let (scheme, given) = value.split_once(' ').ok_or(Fault::TokenMissing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Fault::TokenMissing);
    }
    // Only the length can be learnt from the time that this takes.
    if bool::from(given.trim().as_bytes().ct_eq(expected.expose())) { Ok(()) } else { Err(Fault::TokenWrong) }
}

fn only<B>(request: &Request<B>, name: header::HeaderName) -> Result<Option<&str>, Fault> {
    one(request.headers(), name)
}

/// The one value of a header; two are no request of an honest client.
pub(super) fn one(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<&str>, Fault> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Fault::bad("a header came twice"));
    }
    first.map(|value| value.to_str().map_err(|_| Fault::bad("a header is not ASCII"))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(configured: &str, reached: &str) -> Own {
        Own::new(configured.parse().expect("address"), reached.parse().expect("address"))
    }

    fn checked(own: Own, headers: &[(&str, &str)]) -> Result<(), Fault> {
        let request = headers.iter().fold(Request::builder(), |r, (name, value)| r.header(*name, *value));
        check(&request.body(()).expect("request"), own)
    }

    #[test]
    fn only_the_own_host() {
        let loopback = own("127.0.0.1:9180", "127.0.0.1:9180");
        for host in ["127.0.0.1:9180", "localhost:9180", "LocalHost:9180", "[::1]:9180"] {
            assert_eq!(checked(loopback, &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example:9180",
            "127.0.0.1",
            "127.0.0.1:9181",
            "localhost",
            "localhost:",
            "localhost.:9180",
            "localhost.evil.example:9180",
            "127.0.0.1.evil.example:9180",
            "user@localhost:9180",
            "10.0.0.1:9180",
            "[::2]:9180",
            "0x7f.1:9180",
            "",
            "localhost:9180,evil",
        ] {
            assert_eq!(checked(loopback, &[("host", host)]), Err(Fault::Host), "{host}");
        }
        assert!(matches!(checked(loopback, &[]), Err(Fault::BadRequest(_))));
        let twice = [("host", "localhost:9180"), ("host", "localhost:9180")];
        assert!(matches!(checked(loopback, &twice), Err(Fault::BadRequest(_))));
        assert_eq!(checked(own("10.0.0.1:80", "10.0.0.1:80"), &[("host", "10.0.0.1")]), Ok(()));
    }

    #[test]
    fn all_interfaces_are_the_one_that_was_reached() {
        let reached = own("[::]:9180", "[::ffff:10.0.0.5]:9180");
        assert_eq!(checked(reached, &[("host", "10.0.0.5:9180")]), Ok(()));
        assert_eq!(checked(reached, &[("host", "10.0.0.6:9180")]), Err(Fault::Host));
        assert_eq!(checked(reached, &[("host", "0.0.0.0:9180")]), Err(Fault::Host));
    }

    #[test]
    fn only_the_own_origin() {
        let loopback = own("127.0.0.1:9180", "127.0.0.1:9180");
        let with = |origin| checked(loopback, &[("host", "localhost:9180"), ("origin", origin)]);
        assert_eq!(with("http://localhost:9180"), Ok(()));
        for origin in ["null", "https://localhost:9180", "http://localhost", "http://127.0.0.1:9180", "http://evil", ""]
        {
            assert_eq!(with(origin), Err(Fault::Origin), "{origin}");
        }
    }

    #[test]
    fn the_absolute_form_names_the_same_host() {
        let loopback = own("127.0.0.1:9180", "127.0.0.1:9180");
        let call = |uri: &str| {
            let request = Request::builder().uri(uri).header("host", "localhost:9180").body(()).expect("request");
            check(&request, loopback)
        };
        assert_eq!(call("http://localhost:9180/metrics"), Ok(()));
        assert_eq!(call("http://evil.example/metrics"), Err(Fault::Host));
    }

    #[test]
    fn the_token_or_nothing() {
        let secret = Secret::new("s3cret");
        let with = |value: Option<&str>| {
            let request = value.into_iter().fold(Request::builder(), |r, v| r.header("authorization", v));
            token(&request.body(()).expect("request"), Some(&secret))
        };
        assert_eq!(with(Some("Bearer s3cret")), Ok(()));
        assert_eq!(with(Some("bearer s3cret")), Ok(()));
        assert_eq!(with(None), Err(Fault::TokenMissing));
        assert_eq!(with(Some("Basic czNjcmV0")), Err(Fault::TokenMissing));
        for wrong in ["Bearer ", "Bearer s3cre", "Bearer s3crett", "Bearer S3cret"] {
            assert_eq!(with(Some(wrong)), Err(Fault::TokenWrong), "{wrong}");
        }
        assert_eq!(token(&Request::new(()), None), Ok(()));
    }
}
