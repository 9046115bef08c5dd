//! Tests that need the inside: a resolver of their own, the schema, and no file system.
use super::*;
use crate::config::{
    Address, Create, KeySource, OriginPattern, PathPattern, Rooms, Route, Service, TokenSource, Transport,
};
use std::sync::Arc;
use std::time::Duration;

pub(super) const REFERENCE: &str = include_str!("../../../tests/config/reference.toml");
const BASE: &str = "[[listener]]\naddress = \"127.0.0.1:8443\"\n[[route]]\npath = \"/ws\"\nservice = \"rooms\"\n";

fn env(name: &str) -> Option<String> {
    (name == "WSGATE_JWT_SECRET").then(|| "0123456789abcdef0123456789abcdef".to_owned())
}

fn resolve_tests(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match host {
        "localhost" => Ok(vec![
            SocketAddr::from(([127, 0, 0, 1], port)),
            SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)),
            SocketAddr::from(([127, 0, 0, 1], port)),
        ]),
        _ => Err(io::Error::other("no such name")),
    }
}

pub(super) fn read_text(text: &str) -> Result<Config, Faults> {
    let world = World { folder: PathBuf::from("conf"), env: &env, cores: 3, resolve: &resolve_tests };
    read(text, "gateway.toml", &world)
}

pub(super) fn good(text: &str) -> Config {
    read_text(text).unwrap_or_else(|faults| panic!("{faults}"))
}

pub(super) fn bad(text: &str) -> Faults {
    read_text(text).err().unwrap_or_else(|| panic!("no fault in: {text}"))
}

pub(super) fn with_auth(auth: &str) -> String {
    format!("{BASE}[auth]\n{auth}\n")
}

#[test]
fn every_key_of_the_reference_is_known_also_those_in_comments() {
    let mut uncommented = 0;
    let lines = REFERENCE.lines().map(|line| {
        let Some(rest) = line.strip_prefix("# ") else { return line.to_owned() };
        let word = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).map_or("", |end| &rest[..end]);
        let is_key = !word.is_empty() && rest[word.len()..].starts_with(" = ");
        if !is_key && !rest.starts_with('[') {
            return line.to_owned();
        }
        uncommented += 1;
        // One example stands before a semicolon and more prose.
        rest.split(';').next().unwrap_or(rest).to_owned()
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    assert!(uncommented > 40, "{uncommented}");
    for fault in bad(&text).list {
        let is_expected = [
            "not supported yet",
            "there are two keys",
            "does not fit",
            "is not set",
            "cannot be read",
            "is for https:// servers",
            "is for rediss:// servers",
        ];
        assert!(is_expected.iter().any(|e| fault.message.contains(e)), "{fault}");
    }
}

/// The lines of the reference from the first that begins with `from` to the next that begins with `to`, comments of the
/// line's beginning taken away.
fn uncommented(from: &str, to: &str) -> String {
    let lines = REFERENCE.lines().map(|l| l.strip_prefix("# ").unwrap_or(l));
    let lines = lines.skip_while(|l| !l.starts_with(from)).take_while(|l| !l.starts_with(to));
    lines.map(|l| l.split(';').next().unwrap_or(l).to_owned() + "\n").collect()
}

#[test]
fn the_examples_of_rooms_are_what_they_show() {
    let base = with_auth("required = false") + "[rooms]\n";
    let policy = &good(&(base.clone() + &uncommented("[[rooms.policy]]", "[rooms.store]"))).rooms.policies[0];
    assert_eq!((policy.rules.durable, policy.rules.create), (true, Create::Declared));
    assert_eq!(policy.rules.latest_only, Some(Duration::from_millis(100)));
    let store = good(&(base.clone() + &uncommented("[rooms.store]", "[rooms.hook]"))).rooms.store;
    assert_eq!(store, PathBuf::from("/var/lib/wsgate"));
    let hook = uncommented("[rooms.hook]", "[cluster]");
    let faults = bad(&(base.clone() + &hook));
    assert_eq!(faults.list[0].message, "the environment variable `WSGATE_HOOK_SECRET` is not set");
    let hook = good(&(base + &hook.replace("_HOOK_", "_JWT_"))).rooms.hook.expect("a hook");
    assert_eq!((hook.events.len(), hook.timeout, hook.deny_on_failure), (7, Duration::from_secs(1), true));
}

#[test]
fn the_store_is_where_systemd_says_or_beside_the_file() {
    let read_with = |state: Option<&str>, more: &str| {
        let env = |name: &str| if name == "STATE_DIRECTORY" { state.map(str::to_owned) } else { env(name) };
        let world = World { folder: PathBuf::from("conf"), env: &env, cores: 1, resolve: &resolve_tests };
        let text = with_auth("required = false") + more;
        read(&text, "gateway.toml", &world).unwrap_or_else(|faults| panic!("{faults}")).rooms.store
    };
    for (state, expected) in [
        (None, "conf/data"),
        (Some(""), "conf/data"),
        (Some("/var/lib/wsgate"), "/var/lib/wsgate"),
        (Some("/var/lib/wsgate:/var/lib/other"), "/var/lib/wsgate"),
    ] {
        assert_eq!(read_with(state, ""), PathBuf::from(expected), "{state:?}");
        assert_eq!(read_with(state, "[rooms.store]\npath = \"s\""), PathBuf::from("conf/s"), "{state:?}");
    }
}

#[test]
fn addresses_of_hooks() {
    let read = |url: &str| {
        let text = format!("[rooms.hook]\nurl = \"{url}\"\nevents = [\"join\"]\n");
        read_text(&(with_auth("required = false") + &text)).map(|config| config.rooms.hook.expect("a hook").url)
    };
    for (url, expected) in [
        ("http://app", "http://app/"),
        ("http://app:3000/", "http://app:3000/"),
        ("http://[::1]:3000/a/b?c=d@e", "http://[::1]:3000/a/b?c=d@e"),
        ("http://app?c=d", "http://app/?c=d"),
    ] {
        assert_eq!(read(url).ok().as_deref(), Some(expected), "{url}");
    }
    for url in ["", "http:", "http://", "http://:80/", "http://a:x/", "http://::1/", "http://a b/", "http://a/ b"] {
        assert!(read(url).is_err(), "{url}");
    }
    assert!(read(&format!("http://a/{}", "b".repeat(1024))).is_err());
}

/// Of servers' messages in rooms: what the routes to rooms allow.
#[test]
fn the_largest_message_of_a_server_is_that_of_the_routes_to_rooms() {
    let echo = "[[route]]\npath = \"/echo\"\nservice = \"echo\"\nlimits = { max_message_size = \"16MiB\" }\n";
    let route = |path: &str, size: &str| {
        let limits = format!("{{ max_message_size = {size}, max_backlog = 0 }}");
        format!("[[route]]\npath = \"/{path}\"\nservice = \"rooms\"\nlimits = {limits}\n")
    };
    let size = |routes: &str| {
        let rest = with_auth("required = false");
        let (listener, auth) = (&BASE[..BASE.find("[[route]]").expect("a route")], &rest[BASE.len()..]);
        good(&format!("{listener}{routes}{auth}")).rooms.max_message_size
    };
    assert_eq!(size(echo), 64 << 10, "no route to rooms");
    assert_eq!(size(&(route("a", "1000") + echo)), 1000);
    assert_eq!(size(&(route("a", "1000") + &route("b", "\"2MiB\""))), 2 << 20);
    assert_eq!(size(&(route("a", "1000") + &route("b", "0"))), 1 << 20);
}

#[test]
fn a_list_of_policies_has_a_bound() {
    let policies = |n: usize| (0..n).map(|n| format!("[[rooms.policy]]\nmatch = \"r{n}\"\n")).collect::<String>();
    let text = with_auth("required = false");
    assert_eq!(good(&(text.clone() + &policies(1024))).rooms.policies.len(), 1024);
    let faults = bad(&(text + &policies(1025)));
    assert_eq!(faults.list[0].message, "`policy` has 1025 entries; at most 1024");
}

#[test]
fn the_values_of_the_reference_are_the_defaults() {
    let reference = good(REFERENCE);
    let text = "[auth]\nsecret_env = \"WSGATE_JWT_SECRET\"\n[admin]\naddress = \"127.0.0.1:9180\"\n\
                [upstream.live]\nservers = [\"http://127.0.0.1:8765\", \"http://127.0.0.1:8766\"]\n\
                [origins]\nallow = [\"https://app.example.com\"]\n\
                [[listener]]\naddress = \"0.0.0.0:8443\"\n\
                [[listener.tls]]\ncertificate = \"certs/fullchain.pem\"\nprivate_key = \"certs/privkey.pem\"\n\
                [[route]]\npath = \"/ws\"\nservice = \"rooms\"\n\
                [[route]]\npath = \"/live/*\"\nservice = \"proxy\"\nupstream = \"live\"\n\
                [[rooms.policy]]\nmatch = \"private-*\"\njoin = \"claim\"\npublish = \"claim\"\nmax_members = 500\n\
                history = { messages = 1000, age = \"1d\" }\n";
    assert_eq!(format!("{reference:#?}"), format!("{:#?}", good(text)));
    let built_in = format!("{:#?}", limits::built_in());
    assert_eq!(format!("{:#?}", reference.routes[0].limits), built_in);
    assert_eq!(reference.server.shards, 3);
    let rooms = Rooms { policies: reference.rooms.policies.clone(), store: "conf/data".into(), ..Rooms::default() };
    assert_eq!(format!("{:#?}", reference.rooms), format!("{rooms:#?}"));
    let rules = &rooms.rules_of("private-1").history;
    assert_eq!((rules.messages, rules.age, rules.bytes), (1000, Duration::from_secs(86_400), 4 << 20));
}

#[test]
fn relative_paths_start_from_the_folder_of_the_file() {
    let config = good(REFERENCE);
    assert_eq!(config.listeners[0].tls[0].certificate, PathBuf::from("conf/certs/fullchain.pem"));
}

#[test]
fn a_name_may_stand_for_several_addresses_each_once() {
    let text = with_auth("required = false").replace("127.0.0.1:8443", "localhost:8443");
    let Address::Tcp(addresses) = &good(&text).listeners[0].address else { panic!("not TCP") };
    assert_eq!(addresses.len(), 2);
    let faults = bad(&text.replace("localhost", "nowhere.example"));
    assert_eq!(faults.list[0].message, "`nowhere.example` has no address: no such name");
}

#[test]
fn origins_are_read_as_browsers_write_them() {
    let exact = |scheme: &str, host: &str, port| {
        let (scheme, host) = (scheme.to_owned(), host.to_owned());
        Some(OriginPattern::Exact { scheme, host, port })
    };
    let read = |text| origins::pattern(text).ok();
    assert_eq!(read("*"), Some(OriginPattern::Any));
    assert_eq!(read("HTTPS://App.Example.com"), exact("https", "app.example.com", Some(443)));
    assert_eq!(read("http://localhost:3000"), exact("http", "localhost", Some(3000)));
    assert_eq!(read("https://app.example.com:443"), read("https://app.example.com"));
    assert_eq!(read("http://[0:0::1]"), exact("http", "[::1]", Some(80)));
    assert_eq!(read("http://[::ffff:1.2.3.4]"), exact("http", "[::ffff:102:304]", Some(80)));
    assert_eq!(read("capacitor://localhost"), exact("capacitor", "localhost", None));
    assert_eq!(
        read("https://*.Example.com:8443"),
        Some(OriginPattern::Subdomains { scheme: "https".into(), suffix: ".example.com".into(), port: Some(8443) })
    );
    let refused = [
        "",
        "null",
        "app.example.com",
        "https://",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://user@app.example.com",
        "https://a.*.example.com",
        "https://*.*.example.com",
        "https://*",
        "https://*example.com",
        "https://*.1.2.3.4",
        "https://1.2.3",
        "https://bücher.example",
        "https://app.example.com:",
        "https://app.example.com:+80",
        "https://app.example.com:65536",
        "https://app.example.com.",
        "https://a b",
        "ht tp://a",
        "file://",
        "http://::1",
    ];
    for text in refused {
        assert!(origins::pattern(text).is_err(), "{text}");
    }
}

#[test]
fn units_have_bounds() {
    let durations =
        [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000), ("1d", 86_400_000), ("0s", 0)];
    for (text, millis) in durations {
        assert_eq!(units::duration(text).ok(), Some(Duration::from_millis(millis)), "{text}");
    }
    for text in
        ["", "10", "s", "-1s", "+1s", "1.5s", "1 s", "1S", "1m30s", "99999999999999999999s", "18446744073709551615d"]
    {
        assert!(units::duration(text).is_err(), "{text}");
    }
    assert_eq!(units::size("64KiB").ok(), Some(65_536));
    assert_eq!(units::size("1GiB").ok(), Some(1 << 30));
    for text in ["", "64", "64kb", "64KB", "-1KiB", "18446744073709551615GiB", "1.5MiB"] {
        assert!(units::size(text).is_err(), "{text}");
    }
}

#[test]
fn zero_lifts_limits() {
    let config = good(&format!(
        "{BASE}[auth]\nrequired = false\n[limits]\nmax_message_size = 0\nmessages_per_second = 0\nbytes_per_second = 0\n\
         connections_per_client = 0\nconnections_per_ip = 0\nhandshakes_per_second = 0\nidle_timeout = 0\n\
         ping_interval = \"0s\"\npong_timeout = 0\nmax_backlog = 0\n"
    ));
    let limits = &config.routes[0].limits;
    assert_eq!((limits.max_message_size, limits.max_backlog), (u64::MAX, usize::MAX));
    assert_eq!((limits.messages_per_second, limits.bytes_per_second), (None, None));
    assert_eq!((limits.idle_timeout, limits.ping_interval, limits.pong_timeout), (None, None, None));
    assert_eq!((config.ip_limits.connections, config.ip_limits.handshakes_per_second), (None, None));
}

#[test]
fn sources_that_a_route_cannot_have_are_left_out() {
    let config = good(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[auth]\nsecret_env = \"WSGATE_JWT_SECRET\"\n\
         [[route]]\npath = \"/ws\"\nservice = \"rooms\"\n\
         [[route]]\npath = \"/echo\"\nservice = \"echo\"\norigins = { allow = [\"*\"] }\n",
    );
    use TokenSource::*;
    assert_eq!(config.routes[0].auth.sources, [Header, Subprotocol, Cookie, Query, Message]);
    assert_eq!(config.routes[1].auth.sources, [Header, Subprotocol, Query]);
    assert!(matches!(config.auth.key, Some(KeySource::Secret(_))));
}

#[test]
fn a_key_is_needed_where_tokens_are_looked_at() {
    for auth in ["required = false", "required = false\non_reject = \"http\"", "required = false\nsources = []"] {
        let config = good(&with_auth(auth));
        assert!(config.auth.key.is_none());
        assert!(config.routes[0].auth.sources.is_empty());
    }
    for auth in ["", "required = true", "required = false\nissuer = \"x\"", "required = false\nsources = [\"header\"]"]
    {
        let faults = bad(&with_auth(auth));
        assert!(faults.list[0].message.contains("no key to verify"), "{faults}");
    }
    let faults = bad(BASE);
    assert!(faults.list[0].message.ends_with("[auth] is missing"), "{faults}");
    good(&BASE.replace("\"rooms\"", "\"rooms\"\nauth = { required = false }"));
}

#[test]
fn routes_keep_the_order_and_share_namespaces() {
    let config = good(&format!(
        "{}[[route]]\nhost = \"API.example.com\"\npath = \"/a/*\"\nservice = \"proxy\"\nupstream = \"b\"\nnamespace = \"n\"\n\
         [[route]]\npath = \"/*\"\nservice = \"echo\"\nnamespace = \"n\"\n\
         [upstream.b]\nservers = [\"http://[::1]\"]\n[upstream.a]\nservers = [\"http://h:81\"]\n",
        with_auth("required = false")
    ));
    let services: Vec<Service> = config.routes.iter().map(|r| r.service).collect();
    assert_eq!(services, [Service::Rooms, Service::Proxy(1), Service::Echo]);
    let spaces: Vec<u16> = config.routes.iter().map(|r: &Arc<Route>| r.namespace.index).collect();
    assert_eq!(spaces, [0, 1, 1]);
    assert_eq!(config.namespaces.iter().map(|n| &**n).collect::<Vec<_>>(), ["default", "n"]);
    assert_eq!(config.routes[1].host.as_deref(), Some("api.example.com"));
    let below = PathPattern::Below { prefix: "/".into(), written: "/*".into() };
    assert_eq!(config.routes[2].path, below);
    assert_eq!(config.upstreams[1].servers[0].transport, Transport::Tcp { host: "::1".into(), port: 80 });
}

#[test]
fn secrets_are_not_shown() {
    let texts = [
        "[auth]\nsecret = \"hunter2\"",
        "[auth]\nhmac = 'hunter2'",
        "[auth]\nzzz = \"hunter2\"",
        "[auth]\nzzz = [\"hunter2\"]",
        "[auth]\nsecret = \"hunter2",
        "[auth]\nsecret = \"abc\nhunter2\"",
        "[auth]\nsecret = \"abc\"hunter2\"",
        "[auth]\nsecret = hunter2",
        "[auth]\nsecret =\n\"hunter2\"",
        "[auth]\nsecret = \"\"\"abc\n\\q hunter2\n\"\"\"",
        "auth.secret = \"hunter2\"",
        "auth = { \"secret\" = \"hunter2\" }",
        "[auth]\nsecret_env = \"hunter2\"",
        "[auth]\nsecret_env = \"hunter2/+==\"",
        "[admin]\ntoken = \"hunter2\"",
        "[upstream.a]\nservers = [\"http://me:hunter2@host\"]",
        "[upstream.a]\nservers = [\"http://me:hun/hunter2@host\"]",
        "[upstream.a]\nheaders = { set = { Authorization = \"Bearer hunter2\" } }",
        "[upstream.a]\nheaders = { set = { X-Env = \"hunter2\" }, remove = [\"Host\"] }",
        "[rooms.hook]\nurl = \"http://me:hunter2@host\"",
        "[rooms.hook]\nsecret = \"hunter2\"",
        "[rooms.hook]\nsecret_env = \"hunter2\"",
        "[cluster]\nredis = \"redis://:hunter2@127.0.0.1:0\"",
        "[cluster]\nredis = \"redis://:hun hunter2 2@127.0.0.1\"",
        "[cluster]\nredis = [\"redis://a\", \"redis://:'hunter2 '@127.0.0.1\"]",
        "[cluster]\nredis_password = \"hunter2\"",
        "[cluster]\nredis_password_env = \"hunter2\"",
        "[auth]\npublic_key = \"\"\"-----BEGIN PRIVATE KEY-----\nhunter2 \\q\n-----END PRIVATE KEY-----\"\"\"",
        "SECRET=hunter2",
    ];
    for text in texts {
        let faults = bad(text);
        assert!(!faults.to_string().contains("hunter2"), "{faults}");
        assert!(!format!("{faults:?}").contains("hunter2"), "{faults:?}");
    }
}

#[test]
fn places_count_characters_and_terminals_are_safe() {
    let faults = bad("# é\n\"é\u{1b}\" = 1\n[server]\n\tlöf = \"\u{7f}\"\r\n");
    assert!(!faults.to_string().contains('\u{1b}'), "{faults}");
    let text = "[server]\nlog = \"info\"  # ü\nlog_format = \"jsn\"\n";
    let faults = bad(text);
    let fault = faults.list.iter().find(|f| f.line == 3).expect("a fault in line 3");
    assert_eq!((fault.column, fault.help.as_deref()), (14, Some("did you mean \"json\"?")));
    assert!(bad("\u{feff}[server]\nshards = -1\n").list.iter().any(|f| (f.line, f.column) == (2, 10)));
}

#[test]
fn text_that_is_no_utf8_has_a_place() {
    let error = String::from_utf8(b"[server]\nlog = \"\xff\"".to_vec()).expect_err("no UTF-8");
    let faults = not_utf8(&error, "gateway.toml");
    assert_eq!((faults.list[0].line, faults.list[0].column), (2, 8));
    let missing = load(Path::new("/nonexistent/gateway.toml")).expect_err("no file");
    assert!(missing.to_string().contains("cannot be read"), "{missing}");
}

/// Knuth's MMIX constants: any fixed sequence does, and failures can be repeated.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % end.max(1)
    }
}

#[test]
fn no_mutation_of_the_reference_panics() {
    const PIECES: [&str; 24] = [
        "\"",
        "'",
        "\"\"\"",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ".",
        ",",
        "\n",
        "#",
        "é",
        "\u{1f980}",
        "\0",
        "-1",
        "99999999999999999999",
        "\\",
        "\\u00e",
        "[[route]]\n",
        "secret = ",
        "://a@",
    ];
    let mut random = Lcg(42);
    for round in 0..4000 {
        let mut text: Vec<char> = REFERENCE.chars().collect();
        if round % 4 != 0 {
            let start = random.below(text.len());
            text = text.into_iter().skip(start).take(600).collect();
        }
        for _ in 0..=random.below(8) {
            let at = random.below(text.len());
            match random.below(4) {
                0 => drop(text.drain(at..(at + random.below(40)).min(text.len()))),
                1 => drop(text.splice(at..at, PIECES[random.below(PIECES.len())].chars())),
                2 if at < text.len() => text[at] = char::from(32 + random.below(95) as u8),
                _ => {
                    let from = random.below(text.len());
                    let copied: Vec<char> = text.iter().skip(from).take(random.below(60)).copied().collect();
                    drop(text.splice(at..at, copied));
                }
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(faults) = read_text(&text) {
            assert!(!faults.list.is_empty());
            assert!(!faults.to_string().is_empty());
        }
    }
}
