//! Every table and key, those of later features included: what the reader knows, what `wsgate schema` tells editors, and
//! what README lists.
mod edge;
mod json;
mod key;
#[cfg(test)]
mod listing;
mod proxy;
mod rooms;
#[cfg(test)]
mod tests;

pub(super) use json::document;

use key::Key;

/// One table.
#[derive(Debug)]
pub(super) struct Section {
    /// Its path, `NAME` standing for the name of an upstream; empty for the top level.
    pub name: &'static str,
    /// What holds without the table, in README.
    preset: &'static str,
    /// What the table is, as [`Key::about`].
    about: &'static str,
    /// Its keys; empty for a table whose keys are names (`[upstream]`, and the headers that one sets).
    pub own: &'static [Key],
    /// Keys of another section that may stand here too.
    borrowed: Option<Borrowed>,
}

#[derive(Debug)]
struct Borrowed {
    from: &'static str,
    keys: &'static [&'static str],
}

const fn section(name: &'static str, preset: &'static str, about: &'static str, own: &'static [Key]) -> Section {
    Section { name, preset, about, own, borrowed: None }
}

impl Section {
    const fn borrowing(self, from: &'static str, keys: &'static [&'static str]) -> Section {
        Section { borrowed: Some(Borrowed { from, keys }), ..self }
    }
}

/// Every table, the top level first, each behind the one that it is in.
pub(super) const SECTIONS: &[Section] = &[
    section("", "", "the configuration of wsgate", TOP),
    section("server", "", "the process", edge::SERVER),
    section("listener", "", "where it listens", edge::LISTENER),
    section("listener.tls", "plain HTTP", "several are chosen by SNI; the first is the fallback", edge::TLS),
    section("listener.tls.acme", "", "not yet: certificates from an ACME service", edge::ACME),
    section("origins", "", "the Origin header of every request that has one", edge::ORIGINS),
    section(
        "auth",
        "",
        "the token. Its key is one of `secret_env`, `secret_file`, `public_key` and `jwks`",
        edge::AUTH,
    ),
    section(
        "limits",
        "",
        "of each client, over all its sockets on a route. 0 lifts a limit (of `message_burst` 1 is the least)",
        edge::LIMITS,
    ),
    section(
        "limits.from_upstream",
        "no limits",
        "what a backend may send to one socket; proxy routes",
        edge::FROM_UPSTREAM,
    )
    .borrowing("limits", &["max_message_size", "messages_per_second", "message_burst", "bytes_per_second"]),
    section("route", "", "the first match wins", proxy::ROUTE),
    section("route.limits", "nothing", "what is replaced for this route", &[]).borrowing(
        "limits",
        &[
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
        ],
    ),
    section("route.limits.from_upstream", "nothing", "what a backend may send", &[]).borrowing(
        "limits.from_upstream",
        &["on_excess", "max_message_size", "messages_per_second", "message_burst", "bytes_per_second"],
    ),
    section("route.origins", "nothing", "what is replaced for this route", &[])
        .borrowing("origins", &["allow", "missing"]),
    section("route.auth", "nothing", "what is replaced for this route", &[])
        .borrowing("auth", &["required", "sources", "message_timeout", "on_expiry", "on_reject"]),
    section("upstream", "", "backends, each under its name", &[]),
    section("upstream.NAME", "", "a backend; `NAME` is what routes call it", proxy::UPSTREAM),
    section(
        "upstream.NAME.headers",
        "",
        "of requests to a server. What frames a message, belongs to a connection or the handshake, or says who the \
         client is cannot be named",
        proxy::HEADERS,
    ),
    section("upstream.NAME.headers.set", "", "", &[]),
    section("upstream.NAME.health", "", "how a server is asked whether it is well", proxy::HEALTH),
    section("rooms", "", "for routes with `service = \"rooms\"`", rooms::ROOMS),
    section(
        "rooms.history",
        "",
        "what each room keeps for recovery; a message is kept while it is within all three",
        rooms::HISTORY,
    ),
    section("rooms.duplicates", "", "messages that are sent again", rooms::DUPLICATES),
    section(
        "rooms.policy",
        "none",
        "the first whose `match` fits a room's name holds; for what it does not say, `[rooms]` does, each key of \
         `history` by itself. One that an earlier one hides is a fault",
        rooms::POLICY,
    )
    .borrowing("rooms", &["max_members", "history", "create"]),
    section("rooms.policy.history", "nothing", "what is replaced for these rooms", &[])
        .borrowing("rooms.history", &["messages", "age", "bytes"]),
    section("rooms.store", "", "what outlasts the process", rooms::STORE),
    section("rooms.hook", "no hook", "an application that is asked or told", rooms::HOOK),
    section(
        "cluster",
        "one node, alone",
        "several nodes that share rooms, bans and limits over Redis 7 or later, or Valkey",
        rooms::CLUSTER,
    ),
    section("admin", "no interface", "health, metrics, publishing and moderation", edge::ADMIN),
];

const TOP: &[Key] = &[
    key::table("server"),
    key::key("listener", key::Kind::Tables(1), key::Preset::Required, ""),
    key::table("origins"),
    key::table("auth"),
    key::table("limits"),
    key::key("route", key::Kind::Tables(1), key::Preset::Required, ""),
    key::key("upstream", key::Kind::Named(key::NAME), key::NONE, ""),
    key::table("rooms"),
    key::table("cluster"),
    key::table("admin"),
];

impl Section {
    /// The section called `name`, which must be one of [`SECTIONS`]; else the top level.
    pub fn named(name: &str) -> &'static Section {
        debug_assert!(SECTIONS.iter().any(|s| s.name == name), "no section {name}");
        SECTIONS.iter().find(|s| s.name == name).unwrap_or(&SECTIONS[0])
    }

    /// All its keys.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> {
        let borrowed = self.borrowed.iter();
        let borrowed = borrowed.flat_map(|b| b.keys.iter().filter_map(|name| Section::named(b.from).key(name)));
        self.own.iter().chain(borrowed)
    }

    /// One of its keys.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        let borrowed = || self.borrowed.as_ref().filter(|b| b.keys.contains(&name));
        let own = self.own.iter().find(|key| key.name == name);
        own.or_else(|| borrowed().and_then(|b| Section::named(b.from).key(name)))
    }

    /// Whether it has no keys but names.
    pub fn is_free(&self) -> bool {
        self.own.is_empty() && self.borrowed.is_none()
    }

    fn names(&self) -> Vec<&'static str> {
        self.keys().map(|key| key.name).collect()
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
    SECTIONS.iter().any(|s| s.own.iter().any(|own| own.name == key))
}

/// What was meant by `key`, which `section` does not know.
pub(super) fn meant(key: &str, section: &Section) -> Option<String> {
    if section.name.starts_with("route.") {
        let whole = Section::named(&section.name["route.".len()..]);
        if whole.key(key).is_some() {
            return Some(format!("a route cannot set it for itself: it holds for all routes, in {}", whole.header()));
        }
    }
    if section.name.ends_with("limits.from_upstream") && Section::named("limits").key(key).is_some() {
        let help =
            "what a backend sends is held to sizes and rates; this one is of the client, or of its socket as a whole";
        return Some(help.to_owned());
    }
    let lower = key.to_lowercase().replace('-', "_");
    let close = closest(&lower, &section.names());
    if let Some(close) = close.filter(|c| strsim::damerau_levenshtein(&lower, c) <= 1) {
        return Some(format!("did you mean `{close}`?"));
    }
    let longer: Vec<String> =
        section.names().iter().filter(|k| k.starts_with(&format!("{lower}_"))).map(|k| format!("`{k}`")).collect();
    if !longer.is_empty() {
        return Some(format!("did you mean {}?", longer.join(" or ")));
    }
    let homes: Vec<String> = SECTIONS.iter().filter(|s| s.key(key).is_some()).map(Section::header).collect();
    if !homes.is_empty() {
        return Some(format!("`{key}` belongs to {}", homes.join(" or ")));
    }
    if let Some(close) = close {
        return Some(format!("did you mean `{close}`?"));
    }
    SECTIONS
        .iter()
        .find_map(|s| closest(&lower, &s.names()).map(|close| format!("did you mean `{close}`, of {}?", s.header())))
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
