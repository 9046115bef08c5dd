//! The PROXY header, versions 1 and 2 (haproxy's `proxy-protocol.txt`): which connection of a client's a proxy's
//! connection stands for.
//!
//! Code of our own: what follows the header is another's to read, TLS or HTTP, so not a byte too many may be taken from
//! the socket; and crates that parse it want a buffer with an end in it, or do not look at the checksum.
use crate::admission::forwarded::Ends;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest header of version 1, its line end included.
const V1_BYTES_MAX: usize = 107;
/// The shortest header of version 1, `PROXY UNKNOWN` and a line end: no header is shorter.
const BYTES_MIN: usize = 15;
/// What a header of version 2 begins with.
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The fixed part of version 2.
const V2_HEAD_BYTES: usize = 16;
/// The longest header of version 2: addresses, and what a proxy adds to them.
const V2_BYTES_MAX: usize = 4096;
/// The type of the checksum among what a proxy adds (CRC32C, RFC 3720, appendix B.4).
const TYPE_CRC32C: u8 = 3;

/// Why a connection does not begin with a header.
#[derive(Debug)]
pub(super) enum Fault {
    /// What came is none; why not.
    Malformed(&'static str),
    /// The connection ended, or broke.
    Gone,
}

impl From<io::Error> for Fault {
    fn from(_: io::Error) -> Fault {
        Fault::Gone
    }
}

/// Reads the header and nothing behind it. `None` where it says that the connection is the proxy's own (`LOCAL`), or
/// that it does not know (`UNKNOWN`, and families that are not of the Internet). Has no time of its own.
///
/// # Errors
/// Where what comes is no header of at most 107 bytes (version 1) or 4 KiB (version 2).
pub(super) async fn read<S: AsyncRead + Unpin>(socket: &mut S) -> Result<Option<Ends>, Fault> {
    let mut header = vec![0; BYTES_MIN];
    socket.read_exact(&mut header).await?;
    if header.starts_with(&V2_SIGNATURE) {
        fill(socket, &mut header, V2_HEAD_BYTES).await?;
        let whole = V2_HEAD_BYTES + usize::from(u16::from_be_bytes([header[14], header[15]]));
        if whole > V2_BYTES_MAX {
            return Err(Fault::Malformed("longer than 4 KiB"));
        }
        fill(socket, &mut header, whole).await?;
        return v2(&header).map_err(Fault::Malformed);
    }
    if !header.starts_with(b"PROXY ") {
        return Err(Fault::Malformed("not a PROXY header"));
    }
    while !header.ends_with(b"\r\n") {
        let more = header.len() + lacking(&header);
        if more > V1_BYTES_MAX {
            return Err(Fault::Malformed("longer than 107 bytes"));
        }
        fill(socket, &mut header, more).await?;
    }
    v1(&header).map_err(Fault::Malformed)
}

async fn fill<S: AsyncRead + Unpin>(socket: &mut S, header: &mut Vec<u8>, length: usize) -> io::Result<()> {
    let filled = header.len();
    header.resize(length, 0);
    socket.read_exact(&mut header[filled..]).await.map(drop)
}

/// How many bytes a header of version 1 lacks at least: a space and a digit for each field, and the line end. So a few
/// reads suffice, and none goes beyond the header.
fn lacking(line: &[u8]) -> usize {
    let fields = if line.starts_with(b"PROXY TCP") { 5 } else { 0 };
    let spaces = line.iter().filter(|byte| **byte == b' ').count();
    2 * (fields - spaces.min(fields)) + if line.ends_with(b"\r") { 1 } else { 2 }
}

/// `PROXY TCP4 SOURCE DESTINATION PORT PORT`, `PROXY TCP6 …` or `PROXY UNKNOWN`, with one space between two.
fn v1(line: &[u8]) -> Result<Option<Ends>, &'static str> {
    let text = std::str::from_utf8(line).ok().and_then(|text| text.strip_suffix("\r\n")).ok_or("not ASCII")?;
    let mut fields = text.split(' ').skip(1);
    let family = fields.next();
    let mut address = |parse: fn(&str) -> Option<IpAddr>| fields.next().and_then(parse).ok_or("a faulty address");
    let (source, destination) = match family {
        // Whatever follows is not looked at.
        Some("UNKNOWN") => return Ok(None),
        Some("TCP4") => {
            let parse = |text: &str| text.parse::<Ipv4Addr>().ok().map(IpAddr::from);
            (address(parse)?, address(parse)?)
        }
        Some("TCP6") => {
            let parse = |text: &str| text.parse::<Ipv6Addr>().ok().map(IpAddr::from);
            (address(parse)?, address(parse)?)
        }
        _ => return Err("an unknown family"),
    };
    let mut port = || fields.next().and_then(port).ok_or("a faulty port");
    let ends = Ends::new((source, port()?).into(), (destination, port()?).into());
    if fields.next().is_some() { Err("more than five fields") } else { Ok(Some(ends)) }
}

/// Digits alone, without a zero before them.
fn port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port.to_string() == text).then_some(port)
}

/// A whole header of version 2, whose signature was seen.
fn v2(header: &[u8]) -> Result<Option<Ends>, &'static str> {
    let (head, rest) = header.split_at_checked(V2_HEAD_BYTES).ok_or("cut off")?;
    match head[12] {
        // LOCAL: what follows is to be ignored.
        0x20 => return Ok(None),
        0x21 => (),
        _ => return Err("neither of version 2 nor LOCAL or PROXY"),
    }
    let (ends, added) = match head[13] {
        // Over TCP.
        0x11 => {
            let (at, added) = rest.split_first_chunk::<12>().ok_or("no room for its addresses")?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *at;
            (Some(ends(Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h), ports)), added)
        }
        0x21 => {
            let (source, rest) = rest.split_first_chunk::<16>().ok_or("no room for its addresses")?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or("no room for its addresses")?;
            let (ports, added) = rest.split_first_chunk::<4>().ok_or("no room for its addresses")?;
            (Some(ends(Ipv6Addr::from(*source), Ipv6Addr::from(*destination), *ports)), added)
        }
        // Over a Unix socket: two paths, which are nobody's address here.
        0x31 => (None, rest.get(216..).ok_or("no room for its addresses")?),
        // Unspecified: whatever follows is not looked at.
        0x00 => return Ok(None),
        _ => return Err("not of a stream"),
    };
    check_added(header, header.len() - added.len())?;
    Ok(ends)
}

fn ends(source: impl Into<IpAddr>, destination: impl Into<IpAddr>, [a, b, c, d]: [u8; 4]) -> Ends {
    let (source, destination) = (source.into(), destination.into());
    Ends::new((source, u16::from_be_bytes([a, b])).into(), (destination, u16::from_be_bytes([c, d])).into())
}

/// What a proxy adds, from this place to the end: a type, a length and a value each. Nothing of it is used.
fn check_added(header: &[u8], mut place: usize) -> Result<(), &'static str> {
    let mut summed = false;
    while place < header.len() {
        let [kind, high, low] = *header[place..].first_chunk::<3>().ok_or("an addition that is cut off")?;
        let (begin, length) = (place + 3, usize::from(u16::from_be_bytes([high, low])));
        let value = header.get(begin..begin + length).ok_or("an addition that is cut off")?;
        if kind == TYPE_CRC32C {
            // Each costs as much as the whole header is long.
            if std::mem::replace(&mut summed, true) {
                return Err("two checksums");
            }
            let sum = <[u8; 4]>::try_from(value).map_err(|_| "a checksum that is not of 4 bytes")?;
            // Computed with zeros in its own place.
            let parts = [&header[..begin], &[0; 4], &header[begin + 4..]];
            if u32::from_be_bytes(sum) != crc32c(parts.into_iter().flatten().copied()) {
                return Err("a checksum that does not fit");
            }
        }
        place = begin + length;
    }
    Ok(())
}

/// Bit by bit: a header is short, and a table would be larger than it.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 })
    })
}

#[cfg(test)]
mod tests;
