//! `[origins]`, and the patterns in it.
use super::host::{self, Host};
use super::report::Complaint;
use super::table::Table;
use crate::config::{OriginPattern, Origins};

/// What holds where the file has no `[origins]`: only requests without an Origin pass.
pub(super) fn built_in() -> Origins {
    Origins { allow: vec![], missing: true }
}

pub(super) fn read(table: &Table, base: &Origins) -> Origins {
    let allow = table.entry("allow").and_then(|e| e.list(1024));
    Origins {
        allow: match allow {
            Some(entries) => entries.iter().filter_map(|e| e.convert(pattern)).collect(),
            None => base.allow.clone(),
        },
        missing: table.choice("missing", &[("allow", Some(true)), ("deny", Some(false))], base.missing),
    }
}

/// An origin as browsers write it (WHATWG HTML, "serialization of an origin"), or a pattern of it.
pub(super) fn pattern(text: &str) -> Result<OriginPattern, Complaint> {
    if text == "*" {
        return Ok(OriginPattern::Any);
    }
    if text == "null" {
        let help = "every sandboxed page has the origin null; only \"*\" allows it";
        return Err(Complaint::new("the origin `null` cannot be allowed by itself").help(help));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(Complaint::new("an origin begins with a scheme").help("write it as in \"https://app.example.com\""));
    };
    let scheme = scheme.to_ascii_lowercase();
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if !is_scheme {
        return Err(Complaint::new("this is no scheme").help("write it as in \"https://app.example.com\""));
    }
    if let Some(end) = rest.find(['/', '?', '#', '@']) {
        let complaint = Complaint::new("an origin is a scheme, a host and a port, without anything else");
        let is_path = rest[..end].bytes().all(|b| !b.is_ascii_control()) && !rest.contains('@') && end > 0;
        return Err(if is_path { complaint.help(format!("write \"{scheme}://{}\"", &rest[..end])) } else { complaint });
    }
    if let Some(suffix) = rest.strip_prefix("*.") {
        let (host, port) = authority(suffix)?;
        return match host {
            Host::Name(name) => Ok(OriginPattern::Subdomains {
                port: port.or(default_port(&scheme)),
                suffix: format!(".{name}"),
                scheme,
            }),
            Host::Address(_) => Err(Complaint::new("an address has no subdomains")),
        };
    }
    if rest.contains('*') {
        let help = "write it as in \"https://*.example.com\", or \"*\" for any origin";
        return Err(Complaint::new("`*` may stand only for the whole first part of the host").help(help));
    }
    let (host, port) = authority(rest)?;
    Ok(OriginPattern::Exact { port: port.or(default_port(&scheme)), host: host.to_string(), scheme })
}

fn authority(text: &str) -> Result<(Host, Option<u16>), Complaint> {
    if text.contains('*') {
        return Err(Complaint::new("`*` may stand only once, for the whole first part of the host"));
    }
    host::with_port(text)
}

/// The port that an origin of this scheme does not write.
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "https" | "wss" => Some(443),
        "http" | "ws" => Some(80),
        _ => None,
    }
}
