//! The corpus of configuration files: good ones must be read, bad ones must be answered with
//! exactly the text that stands beside them.
//!
//! `BLESS=1 cargo test --test config_files` writes that text anew, and fails, so that it is read
//! before it is believed.
use jsonwebtoken::Algorithm;
use std::fs;
use std::path::{Path, PathBuf};
use wsgate::config::{self, Address, KeySource, OnExcess, OnReject, Service, TokenSource};

const GOOD_MIN: usize = 6;
const BAD_MIN: usize = 90;
const SECRET: &str = "not a secret, only long enough for one";

fn env(name: &str) -> Option<String> {
    match name {
        "WSGATE_JWT_SECRET" => Some(SECRET.to_owned()),
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
    assert_eq!((upstream.servers[2].host.as_str(), upstream.servers[2].port), ("fd00::13", 8765));
    assert!(config.rooms.broadcast_to_all && !config.rooms.presence);
    assert_eq!(config.ip_limits.connections, Some(400));
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
