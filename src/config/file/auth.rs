//! `[auth]`, and what a route says of tokens.
use super::World;
use super::entry::Entry;
use super::host;
use super::report::Complaint;
use super::secret;
use super::table::Table;
use super::url;
use crate::config::{Auth, KeySource, OnReject, RouteAuth, TokenSource};
use jsonwebtoken::Algorithm;
use std::time::Duration;

/// Bytes of an HMAC secret: RFC 7518, 3.2, asks for as many as HS256's hash has.
const SECRET_BYTES_MIN: usize = 32;
const JWKS_HELP: &str =
    "write it as in jwks = \"https://id.example.com/.well-known/jwks.json\", or give the path of a file";
const KEY_SOURCES: [&str; 4] = ["secret_env", "secret_file", "public_key", "jwks"];

const ALGORITHMS: [(&str, Option<Algorithm>); 12] = [
    ("HS256", Some(Algorithm::HS256)),
    ("HS384", Some(Algorithm::HS384)),
    ("HS512", Some(Algorithm::HS512)),
    ("RS256", Some(Algorithm::RS256)),
    ("RS384", Some(Algorithm::RS384)),
    ("RS512", Some(Algorithm::RS512)),
    ("PS256", Some(Algorithm::PS256)),
    ("PS384", Some(Algorithm::PS384)),
    ("PS512", Some(Algorithm::PS512)),
    ("ES256", Some(Algorithm::ES256)),
    ("ES384", Some(Algorithm::ES384)),
    ("EdDSA", Some(Algorithm::EdDSA)),
];

const SOURCES: [(&str, Option<TokenSource>); 5] = [
    ("header", Some(TokenSource::Header)),
    ("subprotocol", Some(TokenSource::Subprotocol)),
    ("cookie", Some(TokenSource::Cookie)),
    ("query", Some(TokenSource::Query)),
    ("message", Some(TokenSource::Message)),
];

/// What `[auth]` says, before it is known which routes look at tokens.
pub(super) struct Tokens<'d> {
    pub auth: Auth,
    /// What routes start from; `sources` as written.
    pub base: RouteAuth,
    /// Whether a source of the key is written, even a faulty one.
    pub names_key: bool,
    /// Whether anything is written that makes sense only where tokens are looked at.
    pub speaks_of_tokens: bool,
    pub table: Table<'d>,
}

pub(super) fn read<'d>(table: &Table<'d>, world: &World) -> Tokens<'d> {
    let base = RouteAuth {
        required: true,
        sources: SOURCES.iter().filter_map(|(_, source)| *source).collect(),
        message_timeout: Duration::from_secs(10),
        close_on_expiry: true,
        on_reject: OnReject::Close,
    };
    let base = read_route(table, &base);
    let audience = table.entry("audience").and_then(|e| e.list(64)).unwrap_or_default();
    let text = |e: &Entry| e.convert(|text| host::check_text(text).map(|()| text.to_owned()));
    let auth = Auth {
        query: table.checked("query", host::check_parameter, "token"),
        cookie: table.checked("cookie", host::check_token, "token"),
        subprotocol: table.checked("subprotocol", host::check_token, "bearer"),
        key: key(table, world),
        algorithms: algorithms(table),
        issuer: table.entry("issuer").as_ref().and_then(text),
        audience: audience.iter().filter_map(text).collect(),
        leeway: table.duration("leeway", Duration::ZERO..=Duration::from_secs(3600), Duration::from_secs(30)),
        client_id: table.checked("client_id", host::check_text, "sub"),
    };
    Tokens {
        auth,
        base,
        names_key: KEY_SOURCES.iter().any(|key| table.entry(key).is_some()),
        speaks_of_tokens: table.iter().any(|e| !matches!(e.key(), "required" | "on_reject" | "sources")),
        table: table.clone(),
    }
}

/// What a route may set for itself, over `base`.
pub(super) fn read_route(table: &Table, base: &RouteAuth) -> RouteAuth {
    RouteAuth {
        required: table.flag("required", base.required),
        sources: table.entry("sources").and_then(|e| sources(&e)).unwrap_or_else(|| base.sources.clone()),
        message_timeout: table.duration(
            "message_timeout",
            Duration::from_millis(100)..=Duration::from_secs(600),
            base.message_timeout,
        ),
        close_on_expiry: table.choice(
            "on_expiry",
            &[("close", Some(true)), ("ignore", Some(false))],
            base.close_on_expiry,
        ),
        on_reject: table.choice(
            "on_reject",
            &[("close", Some(OnReject::Close)), ("http", Some(OnReject::Http))],
            base.on_reject,
        ),
    }
}

fn sources(entry: &Entry) -> Option<Vec<TokenSource>> {
    let mut sources = Vec::new();
    for entry in entry.list(16)? {
        let Some(source) = entry.choice(&SOURCES) else { continue };
        if sources.contains(&source) {
            entry.complain(Complaint::new("this source stands here already"));
        }
        sources.push(source);
    }
    Some(sources)
}

/// The key, of the first source that is written; notes a second one, and algorithms that do not fit.
fn key(table: &Table, world: &World) -> Option<KeySource> {
    let mut written = KEY_SOURCES.into_iter().filter_map(|key| table.entry(key));
    let generate = table.flag("generate_secret", false);
    let (refresh_min, refresh_max) = (Duration::from_secs(1), Duration::from_secs(86_400));
    let refresh = table.duration("jwks_refresh", refresh_min..=refresh_max, Duration::from_secs(600));
    let first = written.next();
    if generate
        && table.entry("secret_file").is_none()
        && let Some(entry) = table.entry("generate_secret")
    {
        entry.complain(Complaint::new("`generate_secret` makes the file of `secret_file`, which is not set"));
    }
    let first = first?;
    for second in written {
        let message = format!("there are two keys, `{}` and `{}`", first.key(), second.key());
        table.report().fault(second.key_place(), Complaint::new(message).help("keep one of them"));
    }
    check_algorithms(table, &first);
    match first.key() {
        "secret_env" => secret::from_env(&first, world, SECRET_BYTES_MIN, "WSGATE_JWT_SECRET").map(KeySource::Secret),
        "secret_file" => first.path(&world.folder).map(|path| KeySource::SecretFile { path, generate }),
        "public_key" => first.path(&world.folder).map(KeySource::PublicKey),
        _ => jwks(&first, refresh, world),
    }
}

fn jwks(entry: &Entry, refresh: Duration, world: &World) -> Option<KeySource> {
    if !entry.text()?.contains("://") {
        return entry.path(&world.folder).map(KeySource::Jwks);
    }
    let url = entry.convert(|text| {
        let url = url::read(text, "the URL of a key set", JWKS_HELP)?;
        if url.is_https || url.host.is_loopback() {
            return Ok(url.text);
        }
        let message = "a key set over http:// may be replaced on its way, and with it who can sign tokens";
        Err(Complaint::new(message)
            .help("write https://; http:// is for this machine alone, as in http://127.0.0.1:8080/jwks.json"))
    })?;
    Some(KeySource::JwksUrl { url, refresh })
}

fn algorithms(table: &Table) -> Vec<Algorithm> {
    let Some(entry) = table.entry("algorithms") else { return vec![Algorithm::HS256] };
    let Some(entries) = entry.list(64) else { return vec![] };
    if entries.is_empty() {
        entry.complain(Complaint::new("at least one algorithm is needed").help("as in algorithms = [\"HS256\"]"));
    }
    entries.iter().filter_map(|e| e.choice(&ALGORITHMS)).collect()
}

/// Notes algorithms that the key cannot verify.
fn check_algorithms(table: &Table, key: &Entry) {
    let is_shared = matches!(key.key(), "secret_env" | "secret_file");
    let Some(entry) = table.entry("algorithms") else {
        if !is_shared {
            let message =
                format!("`algorithms` is [\"HS256\"] where it is not set, which does not fit `{}`", key.key());
            let help = "set it to what the tokens are signed with, as in algorithms = [\"RS256\"]";
            table.report().fault(key.key_place(), Complaint::new(message).help(help));
        }
        return;
    };
    let mut family_seen = None;
    for entry in entry.list_quietly() {
        let Some(name) = ALGORITHMS.iter().map(|(name, _)| *name).find(|name| entry.is(name)) else { continue };
        let fault = |message: String, help: &str| entry.complain(Complaint::new(message).help(help));
        if is_shared != name.starts_with("HS") {
            let message = format!("`{name}` does not fit the key, which is `{}`", key.key());
            fault(
                message,
                if is_shared {
                    "a secret verifies HS256, HS384 and HS512"
                } else {
                    "HS* need a secret, not a public key"
                },
            );
        } else if key.key() == "public_key" && *family_seen.get_or_insert(family(name)) != family(name) {
            let message = format!("`{name}` is for another type of key than the algorithms before it");
            fault(message, "one public key is of one type; several types need `jwks`");
        }
    }
}

fn family(algorithm: &str) -> &'static str {
    match &algorithm[..2] {
        "RS" | "PS" => "RSA",
        "ES" => "EC",
        _ => "Ed",
    }
}
