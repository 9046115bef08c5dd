//! URLs of servers that the gateway asks something.
use super::host::{self, Host};
use super::report::Complaint;

const BYTES_MAX: usize = 1024;

/// The parts of a URL that are looked at.
pub(super) struct Url {
    pub is_https: bool,
    pub host: Host,
    /// The whole of it, with the path `/` where none is written.
    pub text: String,
}

/// Reads `http://HOST[:PORT]/PATH` or `https://…`. `what` stands for it in messages, as in "the address of a hook".
pub(super) fn read(text: &str, what: &str, help: &str) -> Result<Url, Complaint> {
    let fail = |message: &str| Err(Complaint::new(format!("{what} {message}")).help(help));
    let Some((scheme @ ("http" | "https"), rest)) = text.split_once("://") else {
        return fail("begins with https:// or http://");
    };
    let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return fail("has no user and password");
    }
    let (host, port) = host::with_port(authority)?;
    if port == Some(0) {
        return Err(Complaint::new("port 0 cannot be connected to").help(help));
    }
    if target.contains('#') {
        return fail("has no fragment");
    }
    let is_fit = |b: u8| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b);
    if text.len() > BYTES_MAX {
        return fail(&format!("has at most {BYTES_MAX} bytes"));
    }
    if !target.bytes().all(is_fit) {
        let help = "write other characters than ASCII percent-encoded, as in \"/caf%C3%A9\"";
        return Err(Complaint::new("this is no path of a URL").help(help));
    }
    let slash = if target.starts_with('/') { "" } else { "/" };
    Ok(Url { is_https: scheme == "https", host, text: format!("{scheme}://{authority}{slash}{target}") })
}
