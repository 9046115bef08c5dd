//! `[server]`, `[[listener]]`, `[origins]`, `[auth]`, `[limits]` and `[admin]`.
use super::key::Kind::{Duration, DurationOrZero, Flag, List, Number, Size, Tables, Text, Words};
use super::key::Preset::{Prose, Required, Value};
use super::key::{Form, HOST_PORT, Key, Kind, NONE, PATH, TEXT, TOKEN, VARIABLE, form, key, table};

pub(super) const SERVER: &[Key] = &[
    key("shards", Number(0, 1024), Value("0"), "worker threads; 0: one for each core"),
    key("max_connections", Number(1, 10_000_000), Value("100000"), "connections of the process"),
    key("drain", Duration("0s", "1h"), Value("30s"), "window over which sockets are closed when the gateway stops"),
    key("log", Text(TEXT), Value("info"), "a filter of tracing's: a level, and `target=level`"),
    key("log_format", Words(&["text", "json"]), Value("text"), "how log lines look"),
];

const ADDRESS: Form = form("`\"HOST:PORT\"`, `\"unix:PATH\"` (107 bytes)", "^(unix:.+|systemd:.+|.+:[0-9]{1,5})$", 320);
const NETWORK: Form = form("network", "^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$", 64);

pub(super) const LISTENER: &[Key] = &[
    key("address", Text(ADDRESS), Required, "`\"systemd:NAME\"`: not yet"),
    key("http2", Flag, Value("true"), "whether HTTP/2 is offered (ALPN), with WebSockets over it"),
    key(
        "proxy_protocol",
        Flag,
        Value("false"),
        "`true`: every connection must begin with a PROXY header, of at most 107 bytes (version 1) or 4 KiB (version 2)",
    ),
    key(
        "trusted_proxies",
        List(&Text(NETWORK), 0, 1024),
        Value("[]"),
        "whose `Forwarded` and `X-Forwarded-*` are believed; an address stands for itself",
    ),
    key(
        "header_timeout",
        Duration("100ms", "10m"),
        Value("10s"),
        "for the PROXY header, the TLS handshake and one request head",
    ),
    key("tls", Tables(0), NONE, ""),
];

pub(super) const TLS: &[Key] = &[
    key("certificate", Text(PATH), Required, "PEM; the chain"),
    key("private_key", Text(PATH), Required, "PEM; its key"),
    key("generate", Flag, Value("false"), "make a self-signed pair for localhost where both files are missing"),
    key(
        "client_ca",
        Text(PATH),
        Prose("clients show none"),
        "PEM; a client must show a certificate that chains to one of these. All tables of a listener have the same, or none",
    ),
    table("acme"),
];

pub(super) const ACME: &[Key] = &[
    key("domains", List(&Text(TEXT), 0, 1024), NONE, "names that the certificate is for"),
    key("contact", Text(TEXT), NONE, "whom the service may write to"),
    key("cache", Text(PATH), NONE, "the folder where certificates are kept"),
];

const ORIGIN: Form = form("origin", r"^(\*|[A-Za-z][0-9A-Za-z+.-]*://[^/?#@\s]+)$", 1024);

pub(super) const ORIGINS: &[Key] = &[
    key(
        "allow",
        List(&Text(ORIGIN), 0, 1024),
        Value("[]"),
        "`\"https://app.example.com\"`, `\"https://*.example.com\"` (any host below it), or `\"*\"`",
    ),
    key("missing", Words(&["allow", "deny"]), Value("allow"), "requests without an Origin"),
];

const PARAMETER: Form = form("text", "^[0-9A-Za-z._~-]+$", 128);
const SOURCES: Kind = Words(&["header", "subprotocol", "cookie", "query", "message"]);
const ALGORITHMS: Kind = Words(&[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
]);

pub(super) const AUTH: &[Key] = &[
    key("required", Flag, Value("true"), "`false`: without a token one is an anonymous client"),
    key(
        "sources",
        List(&SOURCES, 0, 16),
        Value(r#"["header", "subprotocol", "cookie", "query", "message"]"#),
        "where a token is looked for, in this order. `\"message\"` is for rooms; `\"cookie\"` is skipped where \
         origins allow `\"*\"`",
    ),
    key("query", Text(PARAMETER), Value("token"), "name of the query parameter"),
    key("cookie", Text(TOKEN), Value("token"), "name of the cookie"),
    key("subprotocol", Text(TOKEN), Value("bearer"), "the name before the token"),
    key("message_timeout", Duration("100ms", "10m"), Value("10s"), "for the `auth` message"),
    key(
        "algorithms",
        List(&ALGORITHMS, 1, 64),
        Value(r#"["HS256"]"#),
        "what tokens may be signed with; must be set where the key is not a secret",
    ),
    key("secret_env", Text(VARIABLE), NONE, "it holds the HMAC secret (32 bytes at least)"),
    key("secret_file", Text(PATH), NONE, "the secret; white space around it does not count"),
    key("generate_secret", Flag, Value("false"), "make `secret_file` where it is missing"),
    key("public_key", Text(PATH), NONE, "one public key in PEM"),
    key(
        "jwks",
        Text(PATH),
        NONE,
        "a key set of up to 64 keys and 1 MiB: a path, `https://…`, or `http://…` of a loopback address",
    ),
    key(
        "jwks_refresh",
        Duration("1s", "1d"),
        Value("10m"),
        "how old a key set from a URL may grow; it is fetched up to a tenth sooner",
    ),
    key("issuer", Text(TEXT), NONE, "the `iss` that a token must carry"),
    key("audience", List(&Text(TEXT), 0, 64), Value("[]"), "of which a token's `aud` must have one"),
    key("leeway", Duration("0s", "1h"), Value("30s"), "tolerance for clocks"),
    key("client_id", Text(TEXT), Value("sub"), "the claim that names the client"),
    key("on_expiry", Words(&["close", "ignore"]), Value("close"), "what happens to a socket when its token expires"),
    key("on_reject", Words(&["close", "http"]), Value("close"), "how an upgrade is refused"),
];

const RATE_MAX: u64 = 1_000_000_000;
const COUNT_MAX: u64 = 10_000_000;
const MESSAGE_BYTES_MAX: u64 = 1 << 32;

pub(super) const LIMITS: &[Key] = &[
    key(
        "max_message_size",
        Size(0, MESSAGE_BYTES_MAX),
        Value("64KiB"),
        "one whole message; inflated, on a proxy route as on the wire",
    ),
    key("messages_per_second", Number(0, RATE_MAX), Value("50"), "messages, control frames and empty fragments"),
    key("message_burst", Number(1, RATE_MAX), Value("100"), "how many of them may come at once"),
    key(
        "bytes_per_second",
        Size(0, 1 << 40),
        Value("1MiB"),
        "payload; the burst is one second's worth, or `max_message_size` where that is larger",
    ),
    key(
        "on_excess",
        Words(&["close", "reject", "pause"]),
        Value("close"),
        "`\"close\"`: with 4004; `\"reject\"`: an error message, rooms only; `\"pause\"`: reading stops",
    ),
    key("connections_per_client", Number(0, COUNT_MAX), Value("20"), "sockets of one client on the route"),
    key("connections_per_ip", Number(0, COUNT_MAX), Value("1000"), "by address; an IPv6 /64 is one"),
    key("handshakes_per_second", Number(0, COUNT_MAX), Value("100"), "by address, with a burst of twice that"),
    key("idle_timeout", DurationOrZero("10ms", "365d"), Value("1h"), "without a message either way"),
    key("ping_interval", DurationOrZero("10ms", "365d"), Value("25s"), "of silence, until the gateway pings"),
    key("pong_timeout", DurationOrZero("10ms", "365d"), Value("10s"), "for anything to come after a ping"),
    key(
        "max_backlog",
        Size(0, MESSAGE_BYTES_MAX),
        Value("1MiB"),
        "unsent bytes for one client; on a route to rooms not less than the largest `max_message_size` of the routes \
         to rooms of its namespace, of which one without a limit counts 1 MiB for the others",
    ),
    table("from_upstream"),
    key(
        "max_inflated_size",
        Size(0, MESSAGE_BYTES_MAX),
        Prose("no limit"),
        "of a message on its way to a backend, inflated; beyond it 4005. Proxy routes",
    ),
    key("compression", Flag, Value("true"), "permessage-deflate in rooms and echo"),
];

pub(super) const FROM_UPSTREAM: &[Key] = &[key(
    "on_excess",
    Words(&["close", "pause"]),
    Value("close"),
    "`\"close\"`: the client with 4012; `\"pause\"`: the backend is not read",
)];

pub(super) const ADMIN: &[Key] = &[
    key("address", Text(HOST_PORT), Required, "of a name the first address; loopback, unless there is a token"),
    key("token_file", Text(PATH), Prose("no token"), "a file with one word of visible ASCII"),
];
