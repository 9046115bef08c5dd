//! The corpus of configuration files: good ones must be read, bad ones must be answered with
//! exactly the text that stands beside them.
//!
//! `BLESS=1 cargo test --test config_files` writes that text anew, and fails, so that it is read
//! before it is believed.
use jsonwebtoken::Algorithm;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wsgate::config::{
    self, Address, Balance, Create, Duplicates, FromUpstream, HealthCheck, History, HookEvent, KeySource, OnExcess,
    OnReject, Permission, Service, TokenSource, Transport,
};

const GOOD_MIN: usize = 12;
const BAD_MIN: usize = 160;
const SECRET: &str = "not a secret, only long enough for one";

fn env(name: &str) -> Option<String> {
    match name {
        "WSGATE_JWT_SECRET" => Some(SECRET.to_owned()),
        "WSGATE_HOOK_SECRET" => Some(SECRET[..16].to_owned()),
        "SHORT_SECRET" => Some("hunter2".to_owned()),
        "EMPTY_SECRET" => Some(String::new()),
        _ => None,
    }
}

fn parse(path: &Path) -> Result<config::Config, config::file::Faults> {
    let text = fs::read_to_string(path).expect("a readable file");
    config::file::parse(&text, path.to_str().expect("an ASCII path"), &env, 2)
}

/// The files of a folder with this ending, relative to the repository's root, sorted.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == ending)).collect();
    files.sort();
    files
}

#[test]
fn good_files_are_read() {
    let files = files("tests/config/good", "toml");
    assert!(files.len() >= GOOD_MIN, "only {} files found", files.len());
    for path in files {
        if let Err(faults) = parse(&path) {
            panic!("{faults}");
        }
    }
}

#[test]
fn a_production_file_means_what_it_says() {
    let config = parse(Path::new("tests/config/good/production.toml")).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!((config.server.shards, config.server.drain.as_secs()), (8, 45));
    assert_eq!(config.listeners[0].trusted_proxies.len(), 3);
    assert_eq!(config.listeners[0].tls[1].private_key, PathBuf::from("/etc/wsgate/api-key.pem"));
    assert_eq!(config.listeners[1].address, Address::Unix(PathBuf::from("/run/wsgate/http.sock")));
    assert_eq!(config.auth.algorithms, [Algorithm::RS256, Algorithm::PS256]);
    let [app, api, live] = &config.routes[..] else { panic!("three routes") };
    assert_eq!((app.limits.on_excess, app.limits.compression), (OnExcess::Reject, false));
    assert_eq!(app.limits.max_message_size, 32 << 10);
    assert!(!app.origins.missing && api.origins.missing && api.origins.allow.is_empty());
    assert_eq!(api.auth.sources, [TokenSource::Header]);
    assert_eq!((api.auth.close_on_expiry, api.auth.on_reject), (false, OnReject::Http));
    assert_eq!(live.auth.sources, [TokenSource::Subprotocol, TokenSource::Cookie]);
    assert_eq!((live.limits.max_message_size, live.limits.idle_timeout), (u64::MAX, None));
    let upstream = &config.upstreams[0];
    assert_eq!((upstream.retries, upstream.preserve_host, upstream.connect_timeout.as_millis()), (2, false, 500));
    assert_eq!(upstream.servers[2].transport, Transport::Tcp { host: "fd00::13".into(), port: 8765 });
    assert!(config.rooms.broadcast_to_all && !config.rooms.presence);
    assert_eq!(config.ip_limits.connections, Some(400));
}

#[test]
fn a_proxy_file_means_what_it_says() {
    let config = parse(Path::new("tests/config/good/proxy.toml")).unwrap_or_else(|faults| panic!("{faults}"));
    let [live, all] = &config.routes[..] else { panic!("two routes") };
    assert_eq!((live.strip_prefix, live.websocket_only), (true, true));
    assert_eq!((all.strip_prefix, all.websocket_only), (false, false));
    let [app, live] = &config.upstreams[..] else { panic!("two upstreams") };
    let servers: Vec<(&Transport, u32)> = live.servers.iter().map(|s| (&s.transport, s.weight)).collect();
    let folder = Path::new("tests/config/good");
    let expected = [
        (&Transport::Tls { host: "app.example.com".into(), port: 443 }, 1000),
        (&Transport::Tls { host: "::1".into(), port: 8443 }, 1),
        (&Transport::Tcp { host: "app.internal".into(), port: 80 }, 2),
        (&Transport::Unix(folder.join("run/app.sock")), 3),
        (&Transport::Unix("/run/app.sock".into()), 4),
    ];
    assert_eq!(servers, expected);
    assert_eq!(
        (live.balance, live.retries, live.connect_timeout),
        (Balance::HashClient, 0, Duration::from_millis(500))
    );
    assert_eq!((live.preserve_host, live.proxy_protocol, live.close_on_unhealthy), (false, true, true));
    assert_eq!(live.tls.ca, Some(folder.join("upstream-ca.pem")));
    assert_eq!(live.tls.identity, Some((folder.join("edge.pem"), folder.join("edge-key.pem"))));
    let set: Vec<(&str, &[u8])> = live.headers.set.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    assert_eq!(set, [("authorization", &b"Bearer a b"[..]), ("x-env", b"prod")]);
    assert_eq!(live.headers.remove, ["x-debug", "cookie"]);
    assert!(!format!("{live:?}").contains("Bearer"), "a value that may be a secret is printed");
    let (path, second) = (Some("/healthz?full=1".to_owned()), Duration::from_secs(1));
    assert_eq!(live.health, HealthCheck { path, interval: second, timeout: second, rise: 1, fall: 100 });
    assert_eq!((live.response_timeout, live.idle_timeout), (None, Some(86_400 * second)));
    assert_eq!((live.slow_start, app.slow_start), (Duration::ZERO, 60 * second));
    assert_eq!((app.response_timeout, app.idle_timeout), (Some(90 * second), None));
    assert_eq!((app.servers[0].weight, app.balance), (1, Balance::LeastConnections));
}

#[test]
fn limits_of_both_directions_mean_what_they_say() {
    let config = parse(Path::new("tests/config/good/both_directions.toml")).unwrap_or_else(|faults| panic!("{faults}"));
    let [own, inherited, rooms, echo] = [0, 1, 2, 3].map(|n| &config.routes[n].limits);
    let written = FromUpstream {
        max_message_size: 16 << 20,
        messages_per_second: Some(100),
        message_burst: 7,
        bytes_per_second: Some(2 << 20),
        on_excess: OnExcess::Pause,
    };
    assert_eq!((&inherited.from_upstream, inherited.max_inflated_size), (&written, 1 << 20));
    let over = FromUpstream { messages_per_second: None, on_excess: OnExcess::Close, ..written };
    assert_eq!((&own.from_upstream, own.max_inflated_size), (&over, u64::MAX));
    let excess = [own, inherited, rooms, echo].map(|limits| limits.on_excess);
    assert_eq!(excess, [OnExcess::Pause, OnExcess::Close, OnExcess::Pause, OnExcess::Close]);
}

#[test]
fn rooms_mean_what_they_say() {
    let config = parse(Path::new("tests/config/good/rooms.toml")).unwrap_or_else(|faults| panic!("{faults}"));
    let rooms = &config.rooms;
    let history = History { messages: 50, age: Duration::from_secs(600), bytes: 1 << 20 };
    assert_eq!((rooms.rules.create, rooms.rules.max_members, rooms.rules.history), (Create::Declared, 200, history));
    assert_eq!((rooms.rules.join, rooms.rules.publish), (Permission::Any, Permission::Any));
    assert_eq!((rooms.rules.durable, rooms.rules.latest_only), (false, None));
    assert_eq!(rooms.duplicates, Duplicates { age: Duration::ZERO, per_client: 0 });
    assert_eq!(rooms.typing_expiry, Duration::from_secs(10));
    assert_eq!(rooms.max_message_size, 1 << 20, "where a route has no limit");
    assert_eq!(rooms.store, PathBuf::from("tests/config/good/state"));

    let patterns: Vec<&str> = rooms.policies.iter().map(|p| p.pattern.as_str()).collect();
    assert_eq!(patterns, ["news", "private-*", "prices/*", "prices/eur"]);
    let [news, private, prices, _] = &rooms.policies[..] else { panic!("four policies") };
    assert_eq!((news.rules.publish, news.rules.join), (Permission::None, Permission::Any));
    assert_eq!((news.rules.history, news.rules.durable), (history, true));
    assert_eq!((private.rules.join, private.rules.publish), (Permission::Claim, Permission::Claim));
    assert_eq!((private.rules.create, private.rules.max_members), (Create::Join, 20));
    assert_eq!(private.rules.history, History { age: Duration::from_secs(366 * 86_400), ..history });
    assert_eq!(prices.rules.latest_only, Some(Duration::from_millis(100)));
    assert_eq!(prices.rules.max_members, 200);
    let exists = ["news", "private-1", "prices/eur", "prices/usd", "lobby"].map(|room| rooms.may_exist(room));
    assert_eq!(exists, [true, true, true, false, false]);

    let hook = rooms.hook.as_ref().expect("a hook");
    assert_eq!(hook.url, "http://app.internal:3000/");
    assert_eq!(hook.events, [HookEvent::Left, HookEvent::Connect]);
    assert_eq!((hook.timeout, hook.deny_on_failure), (Duration::from_millis(250), false));
    assert_eq!(hook.secret.as_ref().map(|s| s.expose()), Some(&SECRET.as_bytes()[..16]));
}

#[test]
fn a_cluster_means_what_it_says() {
    let config = parse(Path::new("tests/config/good/cluster.toml")).unwrap_or_else(|faults| panic!("{faults}"));
    let cluster = config.cluster.expect("a cluster");
    let servers: Vec<(&str, u16)> = cluster.servers.iter().map(|s| (&*s.host, s.port)).collect();
    assert_eq!(servers, [("sentinel-1.internal", 26_379), ("sentinel-2.internal", 26_380)]);
    assert_eq!((cluster.sentinel_master.as_deref(), cluster.user.as_deref()), (Some("mymaster"), Some("gate@way")));
    assert_eq!((cluster.tls, cluster.ca.as_deref()), (true, Some(Path::new("tests/config/good/redis-ca.pem"))));
    assert_eq!(cluster.password.as_ref().map(|p| p.expose()), Some(&b"a pass word"[..]));
    assert_eq!((&*cluster.prefix, &*cluster.node, cluster.shared_limits), ("chat:eu-1", "edge-1", true));
    assert!(parse(Path::new("tests/config/reference.toml")).is_ok_and(|config| config.cluster.is_none()));
}

#[test]
fn bad_files_are_answered_with_the_text_beside_them() {
    let bless = std::env::var_os("BLESS").is_some();
    let found = files("tests/config/bad", "toml");
    assert!(found.len() >= BAD_MIN, "only {} files found", found.len());
    assert_eq!(found.len(), files("tests/config/bad", "txt").len().max(if bless { found.len() } else { 0 }));
    let mut wrong = Vec::new();
    for path in found {
        let beside = path.with_extension("txt");
        let Err(faults) = parse(&path) else {
            wrong.push(format!("{}: no fault was found", path.display()));
            continue;
        };
        let text = format!("{faults}\n");
        assert!(!text.contains(SECRET) && !text.contains("hunter2"), "a secret is shown: {}", path.display());
        if bless {
            fs::write(&beside, &text).expect("a writable file");
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        if text != expected {
            wrong.push(format!("{}: expected\n{expected}\nfound\n{text}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!bless, "the expected texts have been written anew: read them, then run without BLESS");
}

#[test]
fn a_fault_is_in_the_order_of_places_and_has_one() {
    let faults = parse(Path::new("tests/config/bad/many_at_once.toml")).expect_err("faults");
    assert!(faults.list.len() >= 12, "{faults}");
    assert!(faults.list.iter().all(|f| f.line > 0 && f.column > 0), "{faults}");
    assert!(faults.list.is_sorted_by_key(|f| (f.line, f.column)), "{faults}");
}

#[test]
fn the_file_of_a_fresh_checkout_is_good() {
    let config = parse(Path::new("gateway.toml")).unwrap_or_else(|faults| panic!("{faults}"));
    let Address::Tcp(addresses) = &config.listeners[0].address else { panic!("not TCP") };
    assert!(addresses.iter().all(|a| a.ip().is_loopback() && a.port() == 8443));
    assert!(config.listeners[0].tls[0].generate);
    assert!(matches!(config.auth.key, Some(KeySource::SecretFile { generate: true, .. })));
    let routes: Vec<(&str, Service)> = config.routes.iter().map(|r| (r.name(), r.service)).collect();
    assert_eq!(routes, [("/ws", Service::Rooms), ("/echo", Service::Echo)]);
    assert!(config.admin.is_some_and(|admin| admin.address.ip().is_loopback()));
    let text = fs::read_to_string("gateway.toml").expect("a readable file");
    let uncommented = text.replace("# [", "[").replace("# path", "path").replace("# service", "service");
    let uncommented = uncommented.replace("# upstream", "upstream").replace("# servers", "servers");
    let config = config::file::parse(&uncommented, "gateway.toml", &env, 2).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!((config.routes.len(), config.routes[2].service), (3, Service::Proxy(0)));
}

#[test]
fn a_file_is_loaded_from_its_own_folder() {
    let config = config::file::load(Path::new("gateway.toml")).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.listeners[0].tls[0].certificate, PathBuf::from("certs/localhost.pem"));
    assert!(config.server.shards >= 1);
    let faults = config::file::load(Path::new("tests/config/none.toml")).expect_err("no such file");
    assert_eq!((faults.list.len(), faults.list[0].line), (1, 0));
}
