//! Which route a request is for: the first that matches.
use crate::config::{PathPattern, Route};
use std::sync::Arc;

/// The first route for this host (with or without a port) and path.
pub fn find<'a>(routes: &'a [Arc<Route>], host: &str, path: &str) -> Option<&'a Arc<Route>> {
    let name = without_port(host);
    routes.iter().find(|route| {
        let host_fits = route.host.as_deref().is_none_or(|h| h.eq_ignore_ascii_case(name));
        host_fits && path_fits(&route.path, path, route.strip_prefix)
    })
}

fn path_fits(pattern: &PathPattern, path: &str, strips: bool) -> bool {
    match pattern {
        PathPattern::Exact(exact) => exact == path,
        PathPattern::Below { prefix, .. } => match path.strip_prefix(prefix.as_str()) {
            // A backend that gets `//name/` may take `name` for a host, in a redirect or a URL.
            Some(rest) => !(rest.starts_with('/') && (strips || prefix == "/")) && !climbs(path),
            None => false,
        },
    }
}

/// A path that a backend might resolve to something outside of the route's prefix.
fn climbs(path: &str) -> bool {
    path.split(['/', '\\']).any(|segment| {
        // Some servers take what stands behind a `;` for parameters, and resolve the rest.
        let name = segment.split(';').next().unwrap_or_default();
        let plain = name.replace("%2e", ".").replace("%2E", ".");
        plain == ".." || plain == "." || contains_slash(segment)
    })
}

fn contains_slash(segment: &str) -> bool {
    segment.contains("%2f") || segment.contains("%2F") || segment.contains("%5c") || segment.contains("%5C")
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let below = PathPattern::Below { prefix: "/live/".into(), written: "/live/*".into() };
        for (path, fits) in [
            ("/live/", true),
            ("/live/a/b", true),
            ("/live", false),
            ("/liver/a", false),
            ("/live/../admin", false),
            ("/live/%2e%2E/admin", false),
            ("/live/..%2fadmin", false),
            ("/live/a..b", true),
            ("/live/..;/admin", false),
            ("/live/%2e.;x=y/admin", false),
            ("/live/a;b=../c", true),
        ] {
            assert_eq!(path_fits(&below, path, false), fits, "{path}");
        }
        assert!(path_fits(&PathPattern::Exact("/ws".into()), "/ws", false));
        assert!(!path_fits(&PathPattern::Exact("/ws".into()), "/ws/", false));
    }

    #[test]
    fn no_backend_gets_a_path_that_looks_like_a_host() {
        let below = |prefix: &str| PathPattern::Below { prefix: prefix.into(), written: format!("{prefix}*") };
        assert!(path_fits(&below("/live/"), "/live//evil.test/", false));
        assert!(!path_fits(&below("/live/"), "/live//evil.test/", true));
        assert!(path_fits(&below("/live/"), "/live/x//y", true));
        assert!(!path_fits(&below("/"), "//evil.test/", false));
        assert!(path_fits(&below("/"), "/", false));
    }

    #[test]
    fn ports_are_not_part_of_a_name() {
        assert_eq!(without_port("a.example:8443"), "a.example");
        assert_eq!(without_port("[::1]:8443"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
        assert_eq!(without_port("a.example"), "a.example");
    }
}
