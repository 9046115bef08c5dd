//! The Origin header against `[origins]`, compared as the origins of the fetch standard: scheme,
//! host and port, with nothing guessed and nothing repaired (RFC 6454, 6.2; RFC 6455, 10.2).
use crate::config::{OriginPattern, Origins};
use std::net::Ipv6Addr;

/// Bytes of a host name (RFC 1035, 2.3.4).
const HOST_BYTES_MAX: usize = 253;
/// Bytes of one label of it.
const LABEL_BYTES_MAX: usize = 63;

/// Whether a request with this Origin header may go on.
///
/// `header` is the raw value of the one Origin header (a request with several is malformed and does
/// not come here), `None` where there is none: then `rules.missing` decides. An empty value is a
/// value, not a missing one. `null` and whatever is not exactly `scheme://host[:port]` pass only
/// where the rules allow any origin.
pub fn allowed(rules: &Origins, header: Option<&[u8]>) -> bool {
    let Some(header) = header else { return rules.missing };
    if rules.allow.contains(&OriginPattern::Any) {
        return true;
    }
    let Some(origin) = Origin::parse(header) else { return false };
    rules.allow.iter().any(|pattern| origin.fits(pattern))
}

/// A tuple origin, as the header serializes it. Upper case is kept and compared away.
struct Origin<'a> {
    scheme: &'a str,
    host: Host<'a>,
    /// `None`: no port was written and the scheme has no default one.
    port: Option<u16>,
}

enum Host<'a> {
    Name(&'a str),
    V6(Ipv6Addr),
}

impl<'a> Origin<'a> {
    /// Takes `scheme://host[:port]` and nothing else: no user, path, query, white space, escape or
    /// trailing dot, and no second origin after the first.
    fn parse(header: &'a [u8]) -> Option<Origin<'a>> {
        let (scheme, rest) = std::str::from_utf8(header).ok()?.split_once("://")?;
        if !is_scheme(scheme) {
            return None;
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(v6) => {
                let (address, after) = v6.split_once(']')?;
                let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
                (Host::V6(address.parse().ok()?), port)
            }
            None => {
                let (name, port) = rest.split_once(':').map_or((rest, None), |(name, port)| (name, Some(port)));
                if !is_name(name) {
                    return None;
                }
                (Host::Name(name), port)
            }
        };
        let port = match port {
            Some(digits) => Some(parse_port(digits)?),
            None => default_port(scheme),
        };
        Some(Origin { scheme, host, port })
    }

    fn fits(&self, pattern: &OriginPattern) -> bool {
        match pattern {
            OriginPattern::Any => true,
            OriginPattern::Exact { scheme, host, port } => {
                self.same_place(scheme, *port)
                    && match self.host {
                        Host::Name(name) => name.eq_ignore_ascii_case(host),
                        Host::V6(address) => bracketed(host) == Some(address),
                    }
            }
            OriginPattern::Subdomains { scheme, suffix, port } => {
                let Host::Name(name) = self.host else { return false };
                // The suffix begins with its dot, so that `evilexample.com` does not end with it.
                self.same_place(scheme, *port)
                    && name.len() > suffix.len()
                    && name.as_bytes()[name.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
            }
        }
    }

    fn same_place(&self, scheme: &str, port: Option<u16>) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme) && self.port == port
    }
}

/// `[::1]` as an address: the same one may be written in several ways.
fn bracketed(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// RFC 3986, 3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// Dot-separated labels, none of them empty: a leading, doubled or trailing dot is not the same host.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= HOST_BYTES_MAX && text.split('.').all(is_label)
}

/// Digits without leading zeros; a port beyond 65535 is none.
fn parse_port(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if plain { digits.parse().ok() } else { None }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        s if s.eq_ignore_ascii_case("https") => Some(443),
        s if s.eq_ignore_ascii_case("http") => Some(80),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(scheme: &str, host: &str, port: Option<u16>) -> OriginPattern {
        OriginPattern::Exact { scheme: scheme.into(), host: host.into(), port }
    }

    fn rules() -> Origins {
        Origins {
            allow: vec![
                exact("https", "app.example.com", Some(443)),
                exact("http", "localhost", Some(3000)),
                exact("https", "[2001:db8::1]", Some(8443)),
                exact("http", "[::ffff:102:304]", Some(80)),
                exact("http", "127.0.0.1", Some(80)),
                exact("capacitor", "localhost", None),
                OriginPattern::Subdomains { scheme: "https".into(), suffix: ".example.org".into(), port: Some(443) },
                OriginPattern::Subdomains { scheme: "http".into(), suffix: ".dev.test".into(), port: Some(8080) },
            ],
            missing: false,
        }
    }

    #[test]
    fn origins_that_pass() {
        for origin in [
            "https://app.example.com",
            "https://app.example.com:443",
            "https://APP.Example.COM",
            "HTTPS://app.example.com",
            "http://localhost:3000",
            "https://[2001:db8::1]:8443",
            "https://[2001:DB8:0:0::1]:8443",
            "http://[::ffff:1.2.3.4]",
            "http://127.0.0.1",
            "http://127.0.0.1:80",
            "capacitor://localhost",
            "https://a.example.org",
            "https://A.EXAMPLE.ORG:443",
            "https://a.b.c.example.org",
            "https://under_score.example.org",
            "https://xn--bcher-kva.example.org",
            "http://x.dev.test:8080",
        ] {
            assert!(allowed(&rules(), Some(origin.as_bytes())), "{origin} should pass");
        }
    }

    const REFUSED: &[&str] = &[
        // Not an origin at all.
        "",
        " ",
        "null",
        "NULL",
        "*",
        "app.example.com",
        "//app.example.com",
        "https:app.example.com",
        "https:/app.example.com",
        "https:///app.example.com",
        "https://",
        "https://:443",
        "://app.example.com",
        "1https://app.example.com",
        "ht tps://app.example.com",
        "file://",
        // Another scheme, host or port.
        "http://app.example.com",
        "http://app.example.com:443",
        "wss://app.example.com",
        "https://app.example.com:80",
        "https://app.example.com:8443",
        "https://example.com",
        "https://www.app.example.com",
        "http://localhost",
        "https://localhost:3000",
        "https://localhost",
        "http://127.0.0.2",
        "http://127.1",
        "capacitor://localhost:443",
        "capacitor://evil",
        "ionic://localhost",
        // Look-alikes.
        "https://app.example.com.evil.com",
        "https://evilapp.example.com",
        "https://app-example.com",
        "https://app.example.com@evil.com",
        "https://evil.com@app.example.com",
        "https://user:pw@app.example.com",
        "https://app.example.com:443@evil.com",
        "https://example.org",
        "https://.example.org",
        "https://evilexample.org",
        "https://a.example.org.evil.com",
        "https://evil.com/.example.org",
        "https://evil.com?.example.org",
        "https://evil.com#.example.org",
        "https://evil.com\\.example.org",
        "https://evil.com:.example.org",
        "https://evil.com:443.example.org",
        "https://evil.com%2f.example.org",
        "https://evil.com%00.example.org",
        "https://evil.com,.example.org",
        "https://evil.com&.example.org",
        "https://evil.com .example.org",
        "https://a..example.org",
        "https://a.example.org:8080",
        "http://a.example.org",
        "http://x.dev.test",
        "https://[::1].example.org",
        "https://[2001:db8::1.example.org]",
        // Things after the host.
        "https://app.example.com/",
        "https://app.example.com/x",
        "https://app.example.com?x",
        "https://app.example.com#x",
        "https://app.example.com\\",
        "https:\\\\app.example.com",
        "https://app.example.com.",
        "https://app.example.com.:443",
        "https://app.example.com:",
        "https://app.example.com:0443",
        "https://app.example.com:+443",
        "https://app.example.com:-443",
        "https://app.example.com:443x",
        "https://app.example.com:443:443",
        "https://app.example.com:65979",
        "https://app.example.com:4294967739",
        "https://app.example.com:99999999999999999999999",
        // White space, escapes, letters that only look alike.
        " https://app.example.com",
        "https://app.example.com ",
        "https://app.example.com\t",
        "https://app.exa\tmple.com",
        "https://app.example.com\r\n",
        "https://app.example.com\0",
        "https://app%2eexample%2ecom",
        "https://%61pp.example.com",
        "https://app。example。com",
        "https://app.examp\u{13a}e.com",
        "https://\u{430}pp.example.com",
        "https://app.example.com\u{200b}",
        // Several origins.
        "https://app.example.com https://app.example.com",
        "https://app.example.com, https://evil.com",
        "https://evil.com https://app.example.com",
        // IPv6.
        "https://[2001:db8::1]",
        "https://[2001:db8::2]:8443",
        "https://2001:db8::1:8443",
        "https://[2001:db8::1%25eth0]:8443",
        "https://[2001:db8::1%eth0]:8443",
        "https://[2001:db8::1]8443",
        "https://[2001:db8::1]:8443x",
        "https://[[2001:db8::1]]:8443",
        "https://[2001:db8::1:8443",
        "https://[]:8443",
        "https://[127.0.0.1]",
        "http://[127.0.0.1]",
    ];

    #[test]
    fn origins_that_are_refused() {
        for origin in REFUSED {
            assert!(!allowed(&rules(), Some(origin.as_bytes())), "{origin:?} should be refused");
        }
        for origin in [&b"https://app.example.com\xff"[..], b"\xff", b"https://\xc3\x28.example.org"] {
            assert!(!allowed(&rules(), Some(origin)), "{origin:?} should be refused");
        }
        let long = format!("https://{}.example.org", "a.".repeat(200) + "a");
        assert!(!allowed(&rules(), Some(long.as_bytes())));
    }

    #[test]
    fn any_takes_whatever_is_there() {
        let rules = Origins { allow: vec![OriginPattern::Any], missing: false };
        for origin in ["null", "https://evil.com", "file://", "", "chrome-extension://abc"] {
            assert!(allowed(&rules, Some(origin.as_bytes())), "{origin:?}");
        }
        assert!(!allowed(&rules, None), "a missing header is another question");
    }

    #[test]
    fn missing_is_its_own_rule() {
        let mut rules = rules();
        assert!(!allowed(&rules, None));
        rules.missing = true;
        assert!(allowed(&rules, None));
        assert!(!allowed(&rules, Some(b"")), "an empty header is not a missing one");
        rules.allow.clear();
        assert!(!allowed(&rules, Some(b"https://app.example.com")));
    }
}
