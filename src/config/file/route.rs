//! `[[route]]`.
use super::auth::{self, Tokens};
use super::entry::Entry;
use super::host;
use super::limits;
use super::origins;
use super::report::{Complaint, Place};
use super::schema;
use super::table::Table;
use crate::config::{
    Limits, Namespace, OnExcess, OriginPattern, Origins, PathPattern, Route, Service, TokenSource, Upstream,
};
use std::sync::Arc;

/// What routes start from.
pub(super) struct Defaults<'a, 'd> {
    pub limits: Limits,
    /// `[limits]`, where a fault of an inherited value is shown.
    pub limits_table: Table<'d>,
    pub origins: Origins,
    pub auth: &'a Tokens<'d>,
    pub upstreams: &'a [Arc<Upstream>],
}

/// The routes, and the names of their namespaces.
pub(super) fn read(root: &Table, defaults: &Defaults) -> (Vec<Arc<Route>>, Vec<Arc<str>>) {
    let tables = root.tables("route", "route");
    if tables.is_empty() {
        let help = "add [[route]] with a path and a service, as in path = \"/ws\" and service = \"rooms\"";
        root.report().absence(None, Complaint::new("there must be at least one [[route]]").help(help));
    }
    let mut namespaces = Vec::new();
    let mut drafts: Vec<(Route, &Table)> = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        if let Some(route) = route(index, table, defaults, &mut namespaces) {
            check_reachable(&route, table, &drafts);
            drafts.push((route, table));
        }
    }
    for draft in &drafts {
        let namespace = &namespaces[usize::from(draft.0.namespace.index)];
        limits::check_shared_backlog(draft, &drafts, &defaults.limits_table, namespace);
    }
    check_key(&drafts, defaults.auth);
    let has_key = defaults.auth.names_key;
    let finish = |(mut route, _): (Route, &Table)| {
        if !has_key {
            route.auth.sources.clear();
        }
        Arc::new(route)
    };
    (drafts.into_iter().map(finish).collect(), namespaces)
}

/// One route; `None` where its path is missing or faulty.
fn route(index: usize, table: &Table, defaults: &Defaults, namespaces: &mut Vec<Arc<str>>) -> Option<Route> {
    let host = table.entry("host").and_then(|e| e.convert(route_host));
    let path = table.required("path", "write it as in path = \"/ws\"").and_then(|e| e.convert(route_path));
    let service = service(table, defaults.upstreams);
    let namespace = namespace(&table.checked("namespace", host::check_name, "default"), namespaces);
    let [strip_prefix, websocket_only] = ["strip_prefix", "websocket_only"].map(|key| table.flag(key, false));
    let limits_table = table.table("limits", "route.limits");
    let limits = limits::read(&limits_table, &defaults.limits);
    let origins = origins::read(&table.table("origins", "route.origins"), &defaults.origins);
    let auth_table = table.table("auth", "route.auth");
    let mut auth = auth::read_route(&auth_table, &defaults.auth.base);
    let service = service?;
    if service == Service::Rooms {
        limits::check_backlog(&limits, &limits_table, &defaults.limits_table);
    }
    match service {
        Service::Rooms | Service::Echo => limits::refuse_upstream_limits(&limits_table),
        Service::Proxy(_) => (),
    }
    if limits.on_excess == OnExcess::Reject && service != Service::Rooms {
        refuse_reject(table, &limits_table);
    }
    auth.sources.retain(|source| match source {
        TokenSource::Message => service == Service::Rooms,
        TokenSource::Cookie => !origins.allow.contains(&OriginPattern::Any),
        TokenSource::Header | TokenSource::Subprotocol | TokenSource::Query => true,
    });
    if auth.required && auth.sources.is_empty() {
        refuse_sourceless(table, &auth_table);
    }
    let path = path?;
    check_proxied(table, service, &path);
    Some(Route { index, host, path, service, namespace, limits, origins, auth, strip_prefix, websocket_only })
}

fn service(table: &Table, upstreams: &[Arc<Upstream>]) -> Option<Service> {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Rooms,
        Proxy,
        Echo,
    }
    let words = [("rooms", Some(Kind::Rooms)), ("proxy", Some(Kind::Proxy)), ("echo", Some(Kind::Echo))];
    let entry = table.required("service", "it is one of \"rooms\", \"proxy\", \"echo\"");
    let kind = entry.and_then(|e| e.choice(&words));
    let upstream = table.entry("upstream");
    if kind.is_some_and(|kind| kind != Kind::Proxy)
        && let Some(entry) = &upstream
    {
        let complaint = Complaint::new("only a route with service = \"proxy\" has an `upstream`");
        table.report().fault(entry.key_place(), complaint);
    }
    match kind? {
        Kind::Rooms => Some(Service::Rooms),
        Kind::Echo => Some(Service::Echo),
        Kind::Proxy => {
            let entry = table.required("upstream", "name one of the [upstream.NAME] tables")?;
            place_of_upstream(&entry, upstreams).map(Service::Proxy)
        }
    }
}

/// Notes what would do nothing on this route.
fn check_proxied(table: &Table, service: Service, path: &PathPattern) {
    let flags = ["strip_prefix", "websocket_only"].map(|key| table.entry(key).filter(|e| e.flag() == Some(true)));
    if !matches!(service, Service::Proxy(_)) {
        for entry in flags.iter().flatten() {
            let message = format!("only a route with service = \"proxy\" has `{}`", entry.key());
            table.report().fault(entry.key_place(), Complaint::new(message));
        }
        return;
    }
    if let ([Some(entry), _], PathPattern::Exact(_)) = (&flags, path) {
        let message = "`strip_prefix` takes away what stands before the `*` of a path, and this one has none";
        table.report().fault(entry.key_place(), Complaint::new(message).help("write it as in path = \"/live/*\""));
    }
}

fn place_of_upstream(entry: &Entry, upstreams: &[Arc<Upstream>]) -> Option<usize> {
    let name = entry.text()?;
    let found = upstreams.iter().position(|u| u.name == name);
    if found.is_none() {
        let names: Vec<&str> = upstreams.iter().map(|u| u.name.as_str()).collect();
        let help = match schema::closest(name, &names) {
            Some(close) => format!("did you mean \"{close}\"?"),
            None => "it is declared by a table [upstream.NAME]".to_owned(),
        };
        entry.complain_of_absence(Complaint::new("there is no upstream of this name").help(help));
    }
    found
}

fn namespace(name: &str, namespaces: &mut Vec<Arc<str>>) -> Namespace {
    let index = namespaces.iter().position(|n| **n == *name).unwrap_or_else(|| {
        namespaces.push(name.into());
        namespaces.len() - 1
    });
    // There are no more namespaces than routes, of which a list holds 1,024.
    Namespace { index: u16::try_from(index).unwrap_or(u16::MAX) }
}

/// A host as `Host` headers have it, lower case, brackets of IPv6 included.
fn route_host(text: &str) -> Result<String, Complaint> {
    if text.contains('*') {
        return Err(
            Complaint::new("a route's host has no patterns").help("write one route for each host, or leave `host` out")
        );
    }
    let (host, port) = host::with_port(text)?;
    if port.is_some() {
        return Err(Complaint::new("a route's host has no port").help(format!("write \"{host}\"")));
    }
    Ok(host.to_string())
}

fn route_path(text: &str) -> Result<PathPattern, Complaint> {
    let fail = |message: &str, help: &str| Err(Complaint::new(message).help(help));
    if !text.starts_with('/') {
        return fail("a path begins with `/`", "write it as in \"/ws\" or \"/live/*\"");
    }
    if text.contains(['?', '#']) {
        return fail("a path has no query and no fragment", "leave out what stands from `?` or `#` on");
    }
    host::check_target(text)?;
    if text.split('/').any(|part| part == "." || part == "..") {
        return fail("a path has no `.` and `..`", "write the path that they lead to");
    }
    match text.strip_suffix('*') {
        Some(prefix) if prefix.ends_with('/') && !prefix.contains('*') => {
            Ok(PathPattern::Below { prefix: prefix.to_owned(), written: text.to_owned() })
        }
        None if !text.contains('*') => Ok(PathPattern::Exact(text.to_owned())),
        _ => fail("`*` may stand only at the end, after a `/`", "write it as in \"/live/*\""),
    }
}

fn refuse_reject(table: &Table, limits: &Table) {
    let complaint = Complaint::new("on_excess = \"reject\" is for routes with service = \"rooms\"");
    match (limits.entry("on_excess"), table.place()) {
        (Some(entry), _) => entry.complain(complaint.help("write \"close\" or \"pause\"")),
        (None, Some(place)) => {
            let help = "it comes from [limits] here; give this route limits = { on_excess = \"close\" }";
            table.report().fault(place, complaint.help(help));
        }
        (None, None) => {}
    }
}

fn refuse_sourceless(table: &Table, auth: &Table) {
    let complaint = Complaint::new("a token is required here, but there is no source left to take it from")
        .help("\"message\" is for rooms routes only, \"cookie\" is skipped where origins allow \"*\"");
    let place = auth.entry("sources").map(|e| e.place()).or_else(|| table.place());
    if let Some(place) = place {
        table.report().fault(place, complaint);
    }
}

/// Notes a route that an earlier one hides.
fn check_reachable(route: &Route, table: &Table, earlier: &[(Route, &Table)]) {
    let is_same_host = |other: &Route| other.host.is_none() || other.host == route.host;
    let Some((other, _)) = earlier.iter().find(|(other, _)| is_same_host(other) && covers(&other.path, &route.path))
    else {
        return;
    };
    let place: Option<Place> = table.entry("path").map(|e| e.place()).or_else(|| table.place());
    let complaint = if other.path == route.path && other.host == route.host {
        Complaint::new("an earlier route has the same host and path")
    } else {
        let message = format!("this route is never reached: the earlier `{}` takes its requests", other.name());
        Complaint::new(message).help("the first match wins; move this route up")
    };
    if let Some(place) = place {
        table.report().fault(place, complaint);
    }
}

fn covers(earlier: &PathPattern, later: &PathPattern) -> bool {
    match (earlier, later) {
        (PathPattern::Exact(a), PathPattern::Exact(b)) => a == b,
        (PathPattern::Exact(_), PathPattern::Below { .. }) => false,
        (PathPattern::Below { prefix, .. }, PathPattern::Exact(b)) => b.starts_with(prefix),
        (PathPattern::Below { prefix, .. }, PathPattern::Below { prefix: b, .. }) => b.starts_with(prefix),
    }
}

/// Notes that there is no key although a route looks at tokens.
fn check_key(routes: &[(Route, &Table)], tokens: &Tokens) {
    if tokens.names_key {
        return;
    }
    let looks = |(route, table): &&(Route, &Table)| {
        route.auth.required || (!route.auth.sources.is_empty() && speaks_of_tokens(table, tokens))
    };
    let Some((route, table)) = routes.iter().find(looks) else { return };
    let mut message = format!("the route `{}` looks at tokens, but there is no key to verify them", route.name());
    if !tokens.table.is_present() {
        message.push_str(": [auth] is missing");
    }
    let help = "give [auth] one of secret_env, secret_file, public_key and jwks; or set `[auth] required = false`, \
                and nothing else in it, to let everyone in";
    let place = tokens.table.place().or_else(|| table.place());
    table.report().absence(place, Complaint::new(message).help(help));
}

/// Whether the file says of a route that is open to all how its tokens are read.
fn speaks_of_tokens(route: &Table, tokens: &Tokens) -> bool {
    let names_sources = |table: &Table| table.entry("sources").is_some();
    tokens.speaks_of_tokens
        || names_sources(&tokens.table)
        || route.entry("auth").is_some_and(|e| e.table_has("sources"))
}
