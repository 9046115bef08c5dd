#![allow(clippy::unwrap_used)]
use super::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::io::AsyncWriteExt;

/// What stands behind every header.
const BEHIND: &[u8] = b"\x16\x03\x01GET";

/// What is read of these bytes and the end of the connection, and how many bytes are left behind.
async fn outcome(bytes: &[u8]) -> (Result<Option<Ends>, Fault>, usize) {
    let mut rest = bytes;
    let read = read(&mut rest).await;
    (read, rest.len())
}

async fn ends(header: &[u8]) -> Option<Ends> {
    let (read, left) = outcome(&[header, BEHIND].concat()).await;
    let ends = read.unwrap_or_else(|fault| panic!("{fault:?}: {:?}", String::from_utf8_lossy(header)));
    assert_eq!(left, BEHIND.len(), "{:?}", String::from_utf8_lossy(header));
    ends
}

async fn malformed(header: &[u8]) -> &'static str {
    match outcome(&[header, &[b'1'; 5000]].concat()).await.0 {
        Err(Fault::Malformed(why)) => why,
        other => panic!("{other:?}: {:?}", String::from_utf8_lossy(header)),
    }
}

fn named(peer: &str, local: &str) -> Option<Ends> {
    Some(Ends { peer: peer.parse().unwrap(), local: local.parse().unwrap() })
}

/// A header of version 2: command, family, and what follows.
fn second(command: u8, family: u8, rest: &[&[u8]]) -> Vec<u8> {
    let rest = rest.concat();
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&V2_SIGNATURE[..], &[command, family], &length, &rest].concat()
}

const IPV4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb];

/// The same with a checksum at its end, as the specification has it computed.
fn with_checksum(additions: &[&[u8]]) -> Vec<u8> {
    let mut header = second(0x21, 0x11, &[&IPV4, &additions.concat(), &[3, 0, 4, 0, 0, 0, 0]]);
    let sum = crc32c(header.iter().copied());
    let place = header.len() - 4;
    header[place..].copy_from_slice(&sum.to_be_bytes());
    header
}

#[tokio::test]
async fn version_1_is_read_and_nothing_behind_it() {
    let ipv4 = named("192.0.2.7:4711", "10.0.0.1:443");
    assert_eq!(ends(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n").await, ipv4);
    assert_eq!(ends(b"PROXY TCP4 1.1.1.1 2.2.2.2 0 1\r\n").await, named("1.1.1.1:0", "2.2.2.2:1"));
    assert_eq!(ends(b"PROXY TCP6 2001:db8::7 ::1 1 65535\r\n").await, named("[2001:db8::7]:1", "[::1]:65535"));
    let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let line = format!("PROXY TCP6 {longest} {longest} 65535 65535\r\n");
    assert_eq!(ends(line.as_bytes()).await, named(&format!("[{longest}]:65535"), &format!("[{longest}]:65535")));
    let mapped = ends(b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:10.0.0.1 4711 443\r\n").await;
    assert_eq!(mapped, ipv4, "a mapped address is the IPv4 address");
    assert_eq!(ends(b"PROXY UNKNOWN\r\n").await, None);
    let line = format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n");
    assert_eq!((line.len(), ends(line.as_bytes()).await), (V1_BYTES_MAX, None));
}

#[tokio::test]
async fn what_only_looks_like_version_1_is_refused() {
    for line in [
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n\r\n",
        "PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1.1\t2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
        "PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP4 localhost 2.2.2.2 1 2\r\n",
        "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY TCP6 [::1] ::1 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 \u{661}.1.1.1 2.2.2.2 1 2\r\n",
    ] {
        malformed(line.as_bytes()).await;
    }
    assert_eq!(malformed(&[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 92]].concat()).await, "longer than 107 bytes");
}

#[tokio::test]
async fn version_2_is_read_and_nothing_behind_it() {
    let ipv4 = named("192.0.2.7:4711", "10.0.0.1:443");
    assert_eq!(ends(&second(0x21, 0x11, &[&IPV4])).await, ipv4);
    let from = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets();
    let to = Ipv6Addr::LOCALHOST.octets();
    let ipv6 = second(0x21, 0x21, &[&from, &to, &IPV4[8..]]);
    assert_eq!(ends(&ipv6).await, named("[2001:db8::7]:4711", "[::1]:443"));
    let from = "::ffff:192.0.2.7".parse::<Ipv6Addr>().unwrap().octets();
    let to = "::ffff:10.0.0.1".parse::<Ipv6Addr>().unwrap().octets();
    assert_eq!(ends(&second(0x21, 0x21, &[&from, &to, &IPV4[8..]])).await, ipv4);
    assert_eq!(ends(&second(0x20, 0x00, &[])).await, None, "LOCAL");
    assert_eq!(ends(&second(0x20, 0x11, &[&IPV4, b"rubbish"])).await, None, "LOCAL, whatever follows");
    assert_eq!(ends(&second(0x21, 0x00, &[b"rubbish"])).await, None, "unspecified");
    assert_eq!(ends(&second(0x21, 0x31, &[&[0; 216]])).await, None, "Unix");
    let additions: [&[u8]; 3] = [&[4, 0, 0], &[0x20, 0, 2, 1, 2], &[0xea, 1, 0]];
    assert_eq!(ends(&second(0x21, 0x11, &[&IPV4, &additions.concat(), &[0; 256]])).await, ipv4);
    let most = vec![0; V2_BYTES_MAX - V2_HEAD_BYTES - IPV4.len() - 3];
    let length = u16::try_from(most.len()).unwrap().to_be_bytes();
    assert_eq!(ends(&second(0x21, 0x11, &[&IPV4, &[4], &length, &most])).await, ipv4);
}

#[tokio::test]
async fn what_only_looks_like_version_2_is_refused() {
    let ipv6 = [0; 36];
    for header in [
        second(0x11, 0x11, &[&IPV4]),
        second(0x22, 0x11, &[&IPV4]),
        second(0x21, 0x12, &[&IPV4]),
        second(0x21, 0x10, &[&IPV4]),
        second(0x21, 0x41, &[&IPV4]),
        second(0x21, 0x11, &[&IPV4[..11]]),
        second(0x21, 0x11, &[]),
        second(0x21, 0x21, &[&ipv6[..35]]),
        second(0x21, 0x31, &[&[0; 215]]),
        second(0x21, 0x11, &[&IPV4, &[4]]),
        second(0x21, 0x11, &[&IPV4, &[4, 0]]),
        second(0x21, 0x11, &[&IPV4, &[4, 0, 1]]),
        second(0x21, 0x11, &[&IPV4, &[4, 0xff, 0xff, 0]]),
        second(0x21, 0x11, &[&IPV4, &[3, 0, 3, 1, 2, 3]]),
    ] {
        malformed(&header).await;
    }
    assert_eq!(malformed(&second(0x20, 0, &[&[0; 4081]])).await, "longer than 4 KiB");
    let mut signature = second(0x21, 0x11, &[&IPV4]);
    signature[5] ^= 1;
    assert_eq!(malformed(&signature).await, "not a PROXY header");
}

#[tokio::test]
async fn a_checksum_is_held_to() {
    // RFC 3720, B.4.
    assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
    assert_eq!(crc32c(0..32), 0x46dd_794e);
    let header = with_checksum(&[&[4, 0, 2, 1, 2]]);
    assert_eq!(ends(&header).await, named("192.0.2.7:4711", "10.0.0.1:443"));
    // But for the types and lengths of additions: what another type says is not looked at.
    for place in (16..28).chain([31, 32, 36, 37, 38, 39]) {
        let mut changed = header.clone();
        changed[place] ^= 0x10;
        assert!(outcome(&changed).await.0.is_err(), "byte {place}");
    }
    // The first fits; each is work, so there is no second.
    let mut header = second(0x21, 0x11, &[&IPV4, &[3, 0, 4, 0, 0, 0, 0], &[3, 0, 4, 1, 1, 1, 1]]);
    let sum = crc32c(header.iter().copied());
    let place = header.len() - 11;
    header[place..place + 4].copy_from_slice(&sum.to_be_bytes());
    assert!(matches!(outcome(&header).await.0, Err(Fault::Malformed("two checksums"))));
}

#[tokio::test]
async fn a_header_that_is_cut_off_is_none() {
    let mut whole: Vec<Vec<u8>> =
        ["TCP4 192.0.2.7 10.0.0.1 4711 443", "TCP6 2001:db8::7 ::1 1 65535", "UNKNOWN some more"]
            .iter()
            .map(|line| format!("PROXY {line}\r\n").into_bytes())
            .collect();
    whole.extend([with_checksum(&[]), second(0x21, 0x21, &[&[1; 36]]), second(0x20, 0, &[&[0; 9]])]);
    for header in whole {
        ends(&header).await;
        for cut in 0..header.len() {
            let (read, _) = outcome(&header[..cut]).await;
            assert!(matches!(read, Err(Fault::Gone)), "{cut} of {:?}: {read:?}", String::from_utf8_lossy(&header));
        }
    }
}

#[tokio::test]
async fn a_header_may_trickle() {
    for header in [b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n".to_vec(), with_checksum(&[&[4, 0, 2, 1, 2]])] {
        let (mut socket, mut proxy) = tokio::io::duplex(1);
        let bytes = [&header, BEHIND].concat();
        let write = async move { proxy.write_all(&bytes).await.unwrap() };
        let taken = async move {
            let read = read(&mut socket).await.unwrap();
            let mut behind = Vec::new();
            socket.read_to_end(&mut behind).await.unwrap();
            (read, behind)
        };
        let ((), (read, behind)) = tokio::join!(write, taken);
        assert_eq!((read, &*behind), (named("192.0.2.7:4711", "10.0.0.1:443"), BEHIND));
    }
}

/// Whatever comes: no panic, and never more taken than the longest header has.
#[tokio::test]
async fn mutations_are_read_or_refused() {
    let mut random = StdRng::seed_from_u64(4);
    let seeds = [
        b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::7 ::1 1 65535\r\n".to_vec(),
        with_checksum(&[&[4, 0, 2, 1, 2]]),
        second(0x21, 0x21, &[&[1; 36], &[4, 0, 1, 9]]),
    ];
    for turn in 0..20_000 {
        let mut bytes = [&seeds[turn % seeds.len()][..], &[b' '; 5000]].concat();
        for _ in 0..random.random_range(1..4) {
            let place = random.random_range(0..60);
            bytes[place] = if random.random() { random.random() } else { bytes[random.random_range(0..60)] };
        }
        let (_, left) = outcome(&bytes).await;
        assert!(bytes.len() - left <= V2_BYTES_MAX);
    }
}
