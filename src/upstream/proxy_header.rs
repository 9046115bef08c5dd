//! The PROXY header, version 2, that a connection to a server begins with where `proxy_protocol` says so
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>, section 2.2).
use super::server::Proxied;
use std::net::{IpAddr, Ipv6Addr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2 with the commands LOCAL and PROXY.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// Families with TCP; none.
const UNSPEC: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// Names both ends of a client's connection. `None`, a connection of the gateway's own or of a client without a known
/// address, becomes LOCAL.
pub(super) fn encode(proxied: Option<Proxied>) -> Vec<u8> {
    let Some(Proxied { source, destination }) = proxied else { return header(LOCAL, UNSPEC, &[]) };
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header(PROXY, TCP_OVER_IPV4, &[&source.octets(), &destination.octets(), &ports[..]])
        }
        (source, destination) => {
            header(PROXY, TCP_OVER_IPV6, &[&v6(source).octets(), &v6(destination).octets(), &ports[..]])
        }
    }
}

/// A header has one family for both.
fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn header(command: u8, family: u8, parts: &[&[u8]]) -> Vec<u8> {
    let addresses = parts.concat();
    [&SIGNATURE[..], &[command, family], &(addresses.len() as u16).to_be_bytes(), &addresses].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(source: &str, destination: &str) -> Vec<u8> {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        encode(Some(Proxied { source, destination }))
    }

    #[test]
    fn a_header_for_each_family() {
        let v4 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x04\xd2\x01\xbb";
        assert_eq!(of("192.0.2.1:1234", "192.0.2.2:443"), v4);
        assert_eq!(of("[::ffff:192.0.2.1]:1234", "192.0.2.2:443"), v4);
        let v6 = of("[2001:db8::1]:1234", "[2001:db8::2]:443");
        assert_eq!(v6[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24");
        assert_eq!((v6[31], v6[47], &v6[48..]), (1, 2, &b"\x04\xd2\x01\xbb"[..]));
        let mixed = of("192.0.2.1:1", "[2001:db8::2]:2");
        assert_eq!(mixed[16..32], *b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02\x01");
    }

    #[test]
    fn without_a_client_it_is_local() {
        assert_eq!(encode(None), b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00");
    }
}
