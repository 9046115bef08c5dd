//! Where a request really came from: the peer, or what a trusted proxy says of it.
use hyper::header::{FORWARDED, HOST, HeaderMap};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// Both ends of a connection: the socket's own, or what a PROXY header says. IPv4 addresses that are mapped to IPv6 are
/// IPv4 here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Who connected.
    pub peer: SocketAddr,
    /// To what.
    pub local: SocketAddr,
}

impl Ends {
    /// Of these addresses, mapped or not.
    pub fn new(peer: SocketAddr, local: SocketAddr) -> Ends {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Ends { peer: canonical(peer), local: canonical(local) }
    }
}

/// The client behind a request.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its address; unknown behind a Unix socket that no proxy speaks for.
    pub ip: Option<IpAddr>,
    /// The ends of the connection itself; unknown of a Unix socket without a PROXY header that names them.
    pub ends: Option<Ends>,
    /// The chain of addresses that a trusted proxy gave, as it came.
    pub chain: Option<String>,
    /// The `Forwarded` that a trusted proxy gave, where it is what is believed.
    pub forwarded: Option<String>,
    /// `https` or `http`.
    pub proto: &'static str,
    /// The host it asked for.
    pub host: String,
}

impl Client {
    /// The address of the connection itself.
    pub fn peer(&self) -> Option<IpAddr> {
        self.ends.map(|ends| ends.peer.ip())
    }

    /// Both ends as a PROXY header tells them: the client's, whose port is 0 where a trusted proxy named only its
    /// address, and what it, or that proxy, connected to.
    pub fn proxied(&self) -> Option<Ends> {
        let Ends { peer, local } = self.ends?;
        let peer = self.ip.filter(|ip| *ip != peer.ip()).map_or(peer, |ip| SocketAddr::new(ip, 0));
        Some(Ends { peer, local })
    }
}

/// Whether the peer is believed. On a Unix socket it is where any network is: only local processes
/// that the socket's mode lets in can connect.
pub fn is_trusted(peer: Option<IpAddr>, networks: &[IpNet]) -> bool {
    match peer {
        Some(ip) => contains(networks, ip),
        None => !networks.is_empty(),
    }
}

fn contains(networks: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    networks.iter().any(|network| network.contains(&ip))
}

/// Whether this names a host as requests do: with or without a port, without a user.
pub fn is_host(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else { return false };
    // What is no number would be a part of the name to some, and cut off by others.
    let is_number = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let port = text.strip_prefix(authority.host());
    port.is_some_and(|port| matches!(port, "" | ":") || port.strip_prefix(':').is_some_and(is_number))
}

/// The client of a request. `X-Forwarded-*` and `Forwarded` (RFC 7239) are looked at only where the
/// peer is trusted: the client is the last address of the chain that is not a trusted proxy itself.
///
/// Beside an `X-Forwarded-For` no `Forwarded` counts: nearly every proxy keeps the first, and one that
/// does not know the second passes on what the client wrote into it.
pub fn client(ends: Option<Ends>, secure: bool, trusted: bool, networks: &[IpNet], head: &Parts) -> Client {
    let proto = if secure { "https" } else { "http" };
    let own_host = head.uri.authority().map(|a| a.as_str()).or_else(|| text(&head.headers, HOST.as_str()));
    let host = own_host.unwrap_or_default().to_owned();
    let ip = ends.map(|ends| ends.peer.ip());
    let direct = Client { ip, ends, chain: None, forwarded: None, proto, host };
    if !trusted {
        return direct;
    }
    let headers = &head.headers;
    let forwarded_for = joined(headers, "x-forwarded-for");
    let forwarded = joined(headers, FORWARDED.as_str()).filter(|_| forwarded_for.is_none());
    let (chain, said_proto, said_host) = match &forwarded {
        Some(forwarded) => {
            let chain: Vec<String> = parameters(forwarded, "for").collect();
            let proto = parameters(forwarded, "proto").last();
            (Some(chain.join(", ")), proto, parameters(forwarded, "host").last())
        }
        None => {
            let last = |name| Some(joined(headers, name)?.rsplit(',').next()?.trim().to_owned());
            (forwarded_for, last("x-forwarded-proto"), last("x-forwarded-host"))
        }
    };
    let chain = chain.filter(|c| !c.trim().is_empty());
    let addresses: Vec<Option<IpAddr>> = chain.iter().flat_map(|c| c.split(',')).map(|a| address(a.trim())).collect();
    // What stands left of an address that cannot be read was written by somebody not trusted.
    let readable = addresses.iter().rev().map_while(|a| *a);
    let mut ip = None;
    for hop in readable {
        ip = Some(hop);
        if !contains(networks, hop) {
            break;
        }
    }
    Client {
        ip: ip.or(direct.ip),
        chain,
        forwarded,
        proto: match said_proto.as_deref() {
            Some("https" | "wss") => "https",
            Some("http" | "ws") => "http",
            _ => proto,
        },
        host: said_host.filter(|h| is_host(h)).unwrap_or(direct.host),
        ends,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// All lines of a header as one. What is not visible ASCII becomes `?`, so that what a client wrote
/// does not take away what the proxy appended to it.
fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let plain = |b: &u8| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '?' };
    let lines: Vec<String> = headers.get_all(name).iter().map(|v| v.as_bytes().iter().map(plain).collect()).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// The values of a parameter of `Forwarded`, in order, without quotes.
fn parameters<'a>(forwarded: &'a str, name: &'a str) -> impl Iterator<Item = String> + 'a {
    forwarded.split([',', ';']).filter_map(move |pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let ip = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|a| a.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(peer: &str, headers: &[(&str, &str)]) -> Client {
        let networks: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let mut request = hyper::Request::builder().uri("/ws").header("host", "a.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let peer: IpAddr = peer.parse().unwrap();
        let ends = Ends::new((peer, 4711).into(), ([192, 0, 2, 1], 443).into());
        client(Some(ends), true, is_trusted(Some(peer), &networks), &networks, &head)
    }

    #[test]
    fn hosts() {
        for good in ["localhost", "localhost:8443", "127.0.0.1:1", "[::1]:1", "[::1]", "a_b.test", "a.test.", "A.test:"]
        {
            assert!(is_host(good), "{good}");
        }
        for bad in [
            "",
            " ",
            "a b",
            "a/b",
            "a@b",
            "@b",
            "a?b",
            "a#b",
            "a%20b",
            "\u{e9}.test",
            "a,b c",
            "[::1",
            "::1]",
            "a:b:c",
            "a:b",
            "a:+1",
            "a:65536",
        ] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let client = of("192.0.2.9", &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "http")]);
        assert_eq!(client.ip.unwrap().to_string(), "192.0.2.9");
        assert_eq!((client.proto, client.chain), ("https", None));
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_client() {
        for (chain, ip) in [
            ("1.1.1.1", "1.1.1.1"),
            ("6.6.6.6, 1.1.1.1, 10.2.2.2", "1.1.1.1"),
            ("6.6.6.6, rubbish, 10.2.2.2", "10.2.2.2"),
            ("rubbish", "10.0.0.1"),
            ("", "10.0.0.1"),
            ("[2001:db8::1]:99", "2001:db8::1"),
            ("10.3.3.3, 10.2.2.2", "10.3.3.3"),
        ] {
            assert_eq!(of("10.0.0.1", &[("x-forwarded-for", chain)]).ip.unwrap().to_string(), ip, "{chain}");
        }
    }

    #[test]
    fn a_port_is_known_of_who_is_connected_alone() {
        let proxied = |headers: &[(&str, &str)]| of("10.0.0.1", headers).proxied().unwrap();
        assert_eq!(proxied(&[]).peer, "10.0.0.1:4711".parse().unwrap());
        let behind = proxied(&[("x-forwarded-for", "1.1.1.1:99")]);
        assert_eq!(behind, Ends { peer: "1.1.1.1:0".parse().unwrap(), local: "192.0.2.1:443".parse().unwrap() });
    }

    #[test]
    fn forwarded_is_read() {
        let header = r#"for="[2001:db8::7]:4711";proto=http;host=b.example, for=10.1.1.1"#;
        let client = of("10.0.0.1", &[("forwarded", header)]);
        assert_eq!(client.ip.unwrap().to_string(), "2001:db8::7");
        assert_eq!((client.proto, &*client.host), ("http", "b.example"));
    }

    #[test]
    fn x_forwarded_for_goes_before_forwarded() {
        let forged = ("forwarded", "for=6.6.6.6;proto=http;host=b.example");
        for (value, ip) in [("1.1.1.1", "1.1.1.1"), ("", "10.0.0.1"), ("rubbish", "10.0.0.1")] {
            let client = of("10.0.0.1", &[forged, ("x-forwarded-for", value)]);
            assert_eq!(client.ip.unwrap().to_string(), ip, "{value}");
            assert_eq!((client.proto, &*client.host), ("https", "a.example"));
        }
    }

    #[test]
    fn what_the_client_wrote_hides_nothing_of_the_proxy_s() {
        let client = of("10.0.0.1", &[("x-forwarded-for", "\u{e9}, 1.1.1.1")]);
        assert_eq!(client.ip.unwrap().to_string(), "1.1.1.1");
        assert!(client.chain.unwrap().ends_with("?, 1.1.1.1"));
        let lines = [("x-forwarded-proto", "http"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "a b")];
        let client = of("10.0.0.1", &lines);
        assert_eq!((client.proto, &*client.host), ("https", "a.example"));
    }
}
