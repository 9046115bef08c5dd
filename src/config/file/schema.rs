//! The names of every table and key, those of later features included.

/// The keys of one table.
pub(super) struct Section {
    /// Its path, `NAME` standing for the name of an upstream; empty for the top level.
    pub name: &'static str,
    /// Its keys; empty for a table whose keys are names (`[upstream]`, and the headers that one sets).
    pub keys: &'static [&'static str],
}

const fn section(name: &'static str, keys: &'static [&'static str]) -> Section {
    Section { name, keys }
}

const LIMITS: &[&str] = &[
    "max_message_size",
    "messages_per_second",
    "message_burst",
    "bytes_per_second",
    "on_excess",
    "connections_per_client",
    "idle_timeout",
    "ping_interval",
    "pong_timeout",
    "max_backlog",
    "from_upstream",
    "max_inflated_size",
    "compression",
];

const FROM_UPSTREAM: &str = "limits.from_upstream";

/// Every table, the top level first.
pub(super) const SECTIONS: &[Section] = &[
    section("", &["server", "listener", "origins", "auth", "limits", "route", "upstream", "rooms", "cluster", "admin"]),
    section("server", &["shards", "max_connections", "drain", "log", "log_format"]),
    section("listener", &["address", "http2", "proxy_protocol", "trusted_proxies", "header_timeout", "tls"]),
    section("listener.tls", &["certificate", "private_key", "generate", "client_ca", "acme"]),
    section("listener.tls.acme", &["domains", "contact", "cache"]),
    section("origins", &["allow", "missing"]),
    section(
        "auth",
        &[
            "required",
            "sources",
            "query",
            "cookie",
            "subprotocol",
            "message_timeout",
            "algorithms",
            "secret_env",
            "secret_file",
            "generate_secret",
            "public_key",
            "jwks",
            "jwks_refresh",
            "issuer",
            "audience",
            "leeway",
            "client_id",
            "on_expiry",
            "on_reject",
        ],
    ),
    section(
        "limits",
        &[
            "max_message_size",
            "messages_per_second",
            "message_burst",
            "bytes_per_second",
            "on_excess",
            "connections_per_client",
            "connections_per_ip",
            "handshakes_per_second",
            "idle_timeout",
            "ping_interval",
            "pong_timeout",
            "max_backlog",
            "from_upstream",
            "max_inflated_size",
            "compression",
        ],
    ),
    section(
        FROM_UPSTREAM,
        &["max_message_size", "messages_per_second", "message_burst", "bytes_per_second", "on_excess"],
    ),
    section(
        "route",
        &[
            "host",
            "path",
            "service",
            "namespace",
            "limits",
            "origins",
            "auth",
            "upstream",
            "strip_prefix",
            "websocket_only",
        ],
    ),
    section("route.limits", LIMITS),
    section("route.origins", &["allow", "missing"]),
    section("route.auth", &["required", "sources", "message_timeout", "on_expiry", "on_reject"]),
    section("upstream", &[]),
    section(
        "upstream.NAME",
        &[
            "servers",
            "weights",
            "balance",
            "connect_timeout",
            "retries",
            "preserve_host",
            "proxy_protocol",
            "ca",
            "close_on_unhealthy",
            "headers",
            "health",
            "response_timeout",
            "idle_timeout",
            "slow_start",
            "certificate",
            "private_key",
        ],
    ),
    section("upstream.NAME.headers", &["set", "remove"]),
    section("upstream.NAME.headers.set", &[]),
    section("upstream.NAME.health", &["path", "interval", "timeout", "rise", "fall"]),
    section(
        "rooms",
        &[
            "create",
            "max_members",
            "max_rooms_per_client",
            "max_rooms",
            "broadcast_to_all",
            "presence",
            "history",
            "duplicates",
            "typing_expiry",
            "policy",
            "store",
            "hook",
        ],
    ),
    section("rooms.history", &["messages", "age", "bytes"]),
    section("rooms.duplicates", &["age", "per_client"]),
    section(
        "rooms.policy",
        &["match", "join", "publish", "max_members", "history", "durable", "latest_only", "create"],
    ),
    section("rooms.policy.history", &["messages", "age", "bytes"]),
    section("rooms.store", &["path"]),
    section("rooms.hook", &["url", "events", "timeout", "on_failure", "secret_env"]),
    section("cluster", &["redis", "prefix", "node", "shared_limits"]),
    section("admin", &["address", "token_file"]),
];

impl Section {
    /// The section called `name`, which must be one of [`SECTIONS`]; else the top level.
    pub fn named(name: &str) -> &'static Section {
        debug_assert!(SECTIONS.iter().any(|s| s.name == name), "no section {name}");
        SECTIONS.iter().find(|s| s.name == name).unwrap_or(&SECTIONS[0])
    }

    /// How its header is written.
    pub fn header(&self) -> String {
        match self.name {
            "" => "the top level".to_owned(),
            "listener" | "listener.tls" | "route" | "rooms.policy" => format!("[[{}]]", self.name),
            name => format!("[{name}]"),
        }
    }
}

/// Whether some table has this key.
pub(super) fn is_known(key: &str) -> bool {
    SECTIONS.iter().any(|s| s.keys.contains(&key))
}

/// What was meant by `key`, which `section` does not know.
pub(super) fn meant(key: &str, section: &Section) -> Option<String> {
    if section.name.starts_with("route.") {
        let whole = Section::named(&section.name["route.".len()..]);
        if whole.keys.contains(&key) {
            return Some(format!("a route cannot set it for itself: it holds for all routes, in {}", whole.header()));
        }
    }
    if section.name == FROM_UPSTREAM && Section::named("limits").keys.contains(&key) {
        let help =
            "what a backend sends is held to sizes and rates; this one is of the client, or of its socket as a whole";
        return Some(help.to_owned());
    }
    let lower = key.to_lowercase().replace('-', "_");
    let close = closest(&lower, section.keys);
    if let Some(close) = close.filter(|c| strsim::damerau_levenshtein(&lower, c) <= 1) {
        return Some(format!("did you mean `{close}`?"));
    }
    let longer: Vec<String> =
        section.keys.iter().filter(|k| k.starts_with(&format!("{lower}_"))).map(|k| format!("`{k}`")).collect();
    if !longer.is_empty() {
        return Some(format!("did you mean {}?", longer.join(" or ")));
    }
    let homes: Vec<String> = SECTIONS.iter().filter(|s| s.keys.contains(&key)).map(Section::header).collect();
    if !homes.is_empty() {
        return Some(format!("`{key}` belongs to {}", homes.join(" or ")));
    }
    if let Some(close) = close {
        return Some(format!("did you mean `{close}`?"));
    }
    SECTIONS
        .iter()
        .find_map(|s| closest(&lower, s.keys).map(|close| format!("did you mean `{close}`, of {}?", s.header())))
}

/// The candidate that `word` is a slip of, if any is close enough.
pub(super) fn closest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let allowed = 1 + word.chars().count() / 4;
    candidates
        .iter()
        .map(|c| (strsim::damerau_levenshtein(word, c), *c))
        .filter(|(distance, c)| *distance <= allowed && *distance < c.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}
