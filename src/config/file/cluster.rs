//! `[cluster]`.
use super::World;
use super::entry::Entry;
use super::host;
use super::report::Complaint;
use super::secret;
use super::table::Table;
use crate::config::secret::Secret;
use crate::config::{Cluster, RedisServer};
use std::sync::Arc;

const REDIS_HELP: &str = "write it as in redis = \"redis://127.0.0.1:6379\"";
const SERVERS_MAX: usize = 16;
const URL_BYTES_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 64;
const PASSWORD_KEYS: [&str; 2] = ["redis_password_env", "redis_password_file"];
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;

/// A URL of `redis`.
struct Url {
    server: RedisServer,
    rest: Rest,
}

/// What all URLs have in common.
#[derive(PartialEq, Eq)]
struct Rest {
    is_tls: bool,
    user: Option<String>,
    password: Option<Vec<u8>>,
    master: Option<String>,
}

/// The cluster; `None` where the table is missing or empty.
pub(super) fn read(table: &Table, world: &World) -> Option<Cluster> {
    table.iter().next()?;
    let redis = table.required("redis", REDIS_HELP);
    let urls = redis.as_ref().map(urls).unwrap_or_default();
    let servers = urls.iter().map(|url| url.server.clone()).collect();
    let rest = urls.into_iter().next().map(|url| url.rest);
    let is_tls = rest.as_ref().map(|rest| rest.is_tls);
    let ca = table.entry("redis_ca").and_then(|entry| {
        if is_tls == Some(false) {
            let complaint = Complaint::new("`redis_ca` is for rediss:// servers, and there is none");
            table.report().fault(entry.key_place(), complaint);
        }
        entry.path(&world.folder)
    });
    let password = password(table, world, redis.as_ref().filter(|_| rest.as_ref().is_some_and(Rest::has_password)));
    if let (Some(redis), Some(rest)) = (&redis, &rest)
        && rest.user.is_some()
        && !rest.has_password()
        && PASSWORD_KEYS.iter().all(|key| table.entry(key).is_none())
    {
        // Redis is told both or none: it would be the default user.
        let help = "write it as in redis://user:password@host, or keep it in `redis_password_file`";
        redis.complain(Complaint::new("the user of `redis` has no password").help(help));
    }
    let prefix = table.checked("prefix", check_prefix, "wsgate").into();
    let node = table.checked("node", host::check_name, &own_name(world)).into();
    let shared_limits = table.flag("shared_limits", false);
    let Rest { is_tls: tls, user, password: written, master } = rest?;
    Some(Cluster {
        servers,
        sentinel_master: master.map(Arc::from),
        tls,
        ca,
        user: user.map(Arc::from),
        password: password.or(written.map(Secret::new)),
        prefix,
        node,
        shared_limits,
    })
}

impl Rest {
    fn has_password(&self) -> bool {
        self.password.is_some()
    }
}

/// The password of a variable or a file; notes a second one. `written` is `redis` where its URLs have one.
fn password(table: &Table, world: &World, written: Option<&Entry>) -> Option<Secret> {
    let others = PASSWORD_KEYS.into_iter().filter_map(|key| table.entry(key));
    let mut all = written.cloned().into_iter().chain(others);
    let first = all.next()?;
    for second in all {
        let message = format!("there are two passwords, `{}` and `{}`", first.key(), second.key());
        table.report().fault(second.key_place(), Complaint::new(message).help("keep one of them"));
    }
    match first.key() {
        "redis_password_env" => secret::from_env(&first, world, 1, "WSGATE_REDIS_PASSWORD"),
        "redis_password_file" => {
            let (password, path) = secret::from_file(&first, world, "a password")?;
            if password.expose().is_empty() {
                first.complain(Complaint::new(format!("`{}` is empty", path.display())));
            }
            Some(password)
        }
        _ => None,
    }
}

/// The URLs, one or a list; notes what they do not have in common.
fn urls(entry: &Entry) -> Vec<Url> {
    let entries = if entry.is_list() { entry.list(SERVERS_MAX).unwrap_or_default() } else { vec![entry.clone()] };
    if entries.is_empty() && entry.list_quietly().is_empty() {
        entry.complain(Complaint::new("at least one server is needed").help(REDIS_HELP));
    }
    let mut urls: Vec<Url> = Vec::new();
    for entry in entries {
        let Some(text) = entry.text() else { continue };
        if text.rsplit_once('@').is_some_and(|(info, _)| info.contains(['"', '\n'])) {
            // What hides passwords in the raw text takes those for the end of a URL.
            entry.report().hide(entry.place());
        }
        let url = match url(text) {
            Ok(url) => url,
            Err(complaint) => {
                entry.complain(complaint);
                continue;
            }
        };
        match urls.first() {
            Some(first) if first.rest != url.rest => {
                let message = "the servers of `redis` differ in more than host and port";
                let help = "scheme, user, password and the name of the master are the same for all";
                entry.complain(Complaint::new(message).help(help));
            }
            Some(_) if urls.iter().any(|u| u.server == url.server) => {
                entry.complain(Complaint::new("this server stands here already"));
            }
            Some(_) | None => {}
        }
        urls.push(url);
    }
    urls
}

/// Reads `redis://[USER[:PASSWORD]@]HOST[:PORT][/MASTER]`. No complaint repeats what it read.
fn url(text: &str) -> Result<Url, Complaint> {
    let fail = |message: &str| Err(Complaint::new(message).help(REDIS_HELP));
    let Some((scheme @ ("redis" | "rediss"), rest)) = text.split_once("://") else {
        return fail("the address of Redis begins with redis:// or rediss://");
    };
    if text.len() > URL_BYTES_MAX {
        return fail(&format!("the address of Redis has at most {URL_BYTES_MAX} bytes"));
    }
    let (info, rest) = rest.rsplit_once('@').map_or((None, rest), |(info, rest)| (Some(info), rest));
    let (user, password) = credentials(info)?;
    if rest.contains(['?', '#']) {
        return fail("the address of Redis has no query and no fragment");
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let master = master(path)?;
    let (host, port) = host::with_port(authority)?;
    if port == Some(0) {
        return fail("port 0 cannot be connected to");
    }
    let port = port.unwrap_or(if master.is_some() { SENTINEL_PORT } else { REDIS_PORT });
    let server = RedisServer { host: host.bare().into(), port };
    Ok(Url { server, rest: Rest { is_tls: scheme == "rediss", user, password, master } })
}

/// User and password, each percent-encoded; an empty one is none.
fn credentials(info: Option<&str>) -> Result<(Option<String>, Option<Vec<u8>>), Complaint> {
    let Some(info) = info else { return Ok((None, None)) };
    let help = "write a `%` as %25 and a `/` as %2F, or keep the password in `redis_password_file`";
    let fail = || Complaint::new("user and password of Redis stand percent-encoded before the `@`").help(help);
    if !info.bytes().all(|b| b.is_ascii_graphic() && !b"\"/?#[]<>\\^`{|}@".contains(&b)) {
        return Err(fail());
    }
    let (user, password) = info.split_once(':').unwrap_or((info, ""));
    let user = decoded(user).and_then(|user| String::from_utf8(user).ok()).ok_or_else(fail)?;
    let password = decoded(password).ok_or_else(fail)?;
    if user.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(fail());
    }
    Ok((Some(user).filter(|user| !user.is_empty()), Some(password).filter(|password| !password.is_empty())))
}

/// Percent-encoding undone (RFC 3986, 2.1).
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut pieces = text.split('%');
    bytes.extend_from_slice(pieces.next()?.as_bytes());
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    Some(bytes)
}

/// The name of a Sentinel's master. Other URLs of Redis name a database there, which is nothing to channels.
fn master(path: &str) -> Result<Option<String>, Complaint> {
    if matches!(path, "" | "0") {
        return Ok(None);
    }
    if path.bytes().all(|b| b.is_ascii_digit()) {
        let help = "messages are published over all databases; several gateways keep apart by `prefix`";
        return Err(Complaint::new("there is no other database than 0").help(help));
    }
    if host::check_name(path).is_err() {
        let help = "as in redis://127.0.0.1:26379/mymaster; it has 1 to 64 letters, digits, `-`, `_` and `.`";
        return Err(Complaint::new("this is no name of a master that Sentinels know").help(help));
    }
    Ok(Some(path.to_owned()))
}

fn check_prefix(text: &str) -> Result<(), Complaint> {
    let is_fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_fit) {
        return Ok(());
    }
    Err(Complaint::new("a prefix is 1 to 64 letters, digits, `-`, `_`, `.` and `:`"))
}

/// The host's name and the number of the process.
fn own_name(world: &World) -> String {
    let process = format!("-{}", std::process::id());
    let mut name = host::own().or_else(|| (world.env)("HOSTNAME")).unwrap_or_default();
    name.retain(|c| host::check_name(c.encode_utf8(&mut [0; 4])).is_ok());
    name.truncate(NAME_BYTES_MAX - process.len());
    if name.is_empty() {
        name.push_str("node");
    }
    name + &process
}

#[cfg(test)]
mod tests {
    use crate::config::Cluster;
    use crate::config::file::tests::{bad, good, with_auth};

    fn cluster(keys: &str) -> Cluster {
        let config = good(&(with_auth("required = false") + "[cluster]\n" + keys));
        std::sync::Arc::into_inner(config.cluster.expect("a cluster")).expect("one use")
    }

    fn faults(keys: &str) -> Vec<String> {
        let faults = bad(&(with_auth("required = false") + "[cluster]\n" + keys));
        assert!(!format!("{faults} {faults:?}").contains("hunter2"), "{faults}");
        faults.list.into_iter().map(|fault| fault.message).collect()
    }

    #[test]
    fn addresses_of_redis() {
        let servers = |redis: &str| {
            let cluster = cluster(&format!("redis = {redis}"));
            let servers = cluster.servers.iter().map(|s| format!("{} {}", s.host, s.port)).collect::<Vec<_>>();
            (servers.join(", "), cluster.tls, cluster.sentinel_master.map(|name| name.to_string()))
        };
        let plain = |servers: &str| (servers.to_owned(), false, None);
        assert_eq!(servers("\"redis://Redis.internal\""), plain("redis.internal 6379"));
        assert_eq!(servers("\"redis://[::1]:7000/\""), plain("::1 7000"));
        assert_eq!(servers("\"redis://10.0.0.1/0\""), plain("10.0.0.1 6379"));
        assert_eq!(servers("[\"redis://a\", \"redis://b:1\"]"), plain("a 6379, b 1"));
        let of_sentinels = ("a 26379, b 7".to_owned(), true, Some("mymaster".to_owned()));
        assert_eq!(servers("[\"rediss://a/mymaster\", \"rediss://b:7/mymaster\"]"), of_sentinels);
    }

    #[test]
    fn users_and_passwords() {
        let read = |redis: &str| {
            let cluster = cluster(&format!("redis = \"{redis}\""));
            assert!(!format!("{cluster:?}").contains("hunter2"));
            let password = cluster.password.map(|p| String::from_utf8_lossy(p.expose()).into_owned());
            (cluster.user.map(|user| user.to_string()), password)
        };
        let pair = |user: Option<&str>, password: Option<&str>| (user.map(str::to_owned), password.map(str::to_owned));
        assert_eq!(read("redis://a"), pair(None, None));
        assert_eq!(read("redis://:hunter2@a"), pair(None, Some("hunter2")));
        assert_eq!(faults("redis = \"redis://me@a\""), ["the user of `redis` has no password"]);
        assert_eq!(read("redis://m%65:h%C3%BC:%40%2f%25@a"), pair(Some("me"), Some("hü:@/%")));
        let info =
            ["a:hunter2 x", "a:hunter2^", "a:hunter2/x", "a:%hunter2", "a:hunter2%4", "a:hunter2%+1", "%ff:hunter2"];
        for redis in info.map(|info| format!("redis = \"redis://{info}@host\"")) {
            assert_eq!(faults(&redis), ["user and password of Redis stand percent-encoded before the `@`"], "{redis}");
        }
        assert_eq!(faults("redis = \"redis://me:hunter2@\""), ["a host is missing here"]);
        assert_eq!(faults("redis = \"http://me:hunter2@a\"").len(), 1);
    }

    #[test]
    fn a_node_has_a_name_of_its_own() {
        let name = cluster("redis = \"redis://a\"").node;
        assert!(name.ends_with(&format!("-{}", std::process::id())) && name.len() <= 64, "{name}");
        assert_eq!(&*cluster("redis = \"redis://a\"\nnode = \"edge-1\"").node, "edge-1");
    }
}
