//! Host names and addresses, and the small names of the file.
use super::report::Complaint;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// The longest path of a Unix socket, which the kernel's `sun_path` bounds.
const UNIX_PATH_BYTES_MAX: usize = 107;
const TARGET_BYTES_MAX: usize = 1024;

/// A host, as it stands in URLs and `Host` headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// A name, lower case.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl Host {
    /// Reads a host; an IPv6 address must stand in brackets.
    pub fn read(text: &str) -> Result<Host, Complaint> {
        if let Some(inner) = text.strip_prefix('[') {
            let address = inner.strip_suffix(']').and_then(|a| a.parse::<Ipv6Addr>().ok());
            return address.map(|a| Host::Address(a.into())).ok_or_else(|| Complaint::new("this is no IPv6 address"));
        }
        if text.contains(':') {
            return Err(Complaint::new("an IPv6 address stands in brackets").help("write it as in [::1]:8443"));
        }
        if !text.is_ascii() {
            let help = "write the name in its ASCII form (punycode), as in xn--bcher-kva.example";
            return Err(Complaint::new("a host name must be ASCII").help(help));
        }
        let last = text.rsplit('.').next().unwrap_or(text);
        // The WHATWG URL standard takes a host that ends in a number for an IPv4 address.
        if last.bytes().all(|b| b.is_ascii_digit()) && !last.is_empty() {
            let address = text.parse::<Ipv4Addr>();
            return address.map(|a| Host::Address(a.into())).map_err(|_| Complaint::new("this is no IPv4 address"));
        }
        name(text)?;
        Ok(Host::Name(text.to_ascii_lowercase()))
    }

    /// Whether it is this machine, whatever the network does (RFC 6761, 6.3, of `localhost`).
    pub fn is_loopback(&self) -> bool {
        match self {
            Host::Name(name) => name == "localhost" || name.ends_with(".localhost"),
            Host::Address(address) => address.to_canonical().is_loopback(),
        }
    }

    /// Without the brackets of IPv6.
    pub fn bare(&self) -> String {
        match self {
            Host::Name(name) => name.clone(),
            Host::Address(address) => address.to_string(),
        }
    }
}

/// As the WHATWG URL standard serializes it.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Host::Address(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
                Some(_) => {
                    let [.., high, low] = address.segments();
                    write!(f, "[::ffff:{high:x}:{low:x}]")
                }
                None => write!(f, "[{address}]"),
            },
        }
    }
}

/// The name of this machine, where Linux tells it.
pub(super) fn own() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname").ok()
}

fn name(text: &str) -> Result<(), Complaint> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(());
    }
    Err(Complaint::new(if text.is_empty() { "a host is missing here" } else { "this is no host name" }))
}

/// Splits `HOST:PORT` or `HOST`.
pub(super) fn with_port(text: &str) -> Result<(Host, Option<u16>), Complaint> {
    let after_brackets = text.rfind(']').map_or(0, |i| i + 1);
    let colons = text[after_brackets..].matches(':').count();
    if colons != 1 {
        return Ok((Host::read(text)?, None));
    }
    let at = after_brackets + text[after_brackets..].find(':').unwrap_or(0);
    let (host, port) = (Host::read(&text[..at])?, &text[at + 1..]);
    let is_number = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse() {
        Ok(port) if is_number => Ok((host, Some(port))),
        _ => Err(Complaint::new("the port must be a number up to 65535")),
    }
}

/// The path of a Unix socket, relative to `folder`.
pub(super) fn unix_path(text: &str, folder: &Path) -> Result<PathBuf, Complaint> {
    let path = folder.join(text);
    if text.is_empty() || text.chars().any(char::is_control) || path.as_os_str().len() > UNIX_PATH_BYTES_MAX {
        return Err(Complaint::new(format!("the path of a Unix socket has 1 to {UNIX_PATH_BYTES_MAX} bytes")));
    }
    Ok(path)
}

/// Checks a path of a URL, with or without a query (RFC 3986, 3.3 and 3.4).
pub(super) fn check_target(text: &str) -> Result<(), Complaint> {
    let is_fit = |b: u8| b.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&b);
    if text.len() <= TARGET_BYTES_MAX && text.bytes().all(is_fit) {
        return Ok(());
    }
    let help = "write other characters than ASCII percent-encoded, as in \"/caf%C3%A9\"";
    Err(Complaint::new("this is no path of a URL").help(help))
}

/// Checks the name of a namespace or an upstream.
pub(super) fn check_name(text: &str) -> Result<(), Complaint> {
    let is_fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=64).contains(&text.len()) && text.bytes().all(is_fit) {
        return Ok(());
    }
    Err(Complaint::new("a name is 1 to 64 letters, digits, `-`, `_` and `.`"))
}

/// Checks a token of HTTP (RFC 9110, 5.6.2), as cookies and subprotocols are named.
pub(super) fn check_token(text: &str) -> Result<(), Complaint> {
    let is_fit = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if (1..=128).contains(&text.len()) && text.bytes().all(is_fit) {
        return Ok(());
    }
    Err(Complaint::new("a name here is 1 to 128 letters, digits and marks, without spaces, commas and quotes"))
}

/// Checks the name of a query parameter, which must not need escapes.
pub(super) fn check_parameter(text: &str) -> Result<(), Complaint> {
    let is_fit = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    if (1..=128).contains(&text.len()) && text.bytes().all(is_fit) {
        return Ok(());
    }
    Err(Complaint::new("the name of a query parameter is 1 to 128 letters, digits, `-`, `.`, `_` and `~`"))
}

/// Checks text that is free but must be there.
pub(super) fn check_text(text: &str) -> Result<(), Complaint> {
    if (1..=1024).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Complaint::new("text of 1 to 1024 bytes without control characters is wanted here"))
}
