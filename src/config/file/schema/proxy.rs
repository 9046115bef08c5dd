//! `[[route]]` and `[upstream.NAME]`.
use super::key::Kind::{Duration, DurationOrZero, Flag, List, Number, Text, Texts, Words};
use super::key::Preset::{Prose, Required, Value};
use super::key::{Form, Key, NAME, NONE, PATH, TOKEN, form, key, table};

const HOST: Form = form("text", r"^[^*/?#@\s]+$", 253);
const ROUTE_PATH: Form = form("text (1,024 bytes)", r"^/[^?#\s]*$", 1024);

pub(super) const ROUTE: &[Key] = &[
    key("host", Text(HOST), Prose("any"), "a host without port and patterns"),
    key("path", Text(ROUTE_PATH), Required, "exact, or `\"/live/*\"` for everything below `/live/`"),
    key("service", Words(&["rooms", "proxy", "echo"]), Required, "what answers"),
    key("upstream", Text(NAME), NONE, "of a proxy route, required"),
    key("namespace", Text(NAME), Value("default"), "of its rooms and clients"),
    table("limits"),
    table("origins"),
    table("auth"),
    key(
        "strip_prefix",
        Flag,
        Value("false"),
        "`true`: a backend sees `/x` where a client asks for `/live/x` of `path = \"/live/*\"`; proxy routes",
    ),
    key("websocket_only", Flag, Value("false"), "`true`: ordinary HTTP requests get 426; proxy routes"),
];

const SERVER: Form = form(
    "`\"http://HOST:PORT\"`, `\"https://HOST:PORT\"`, `\"unix:PATH\"` (107 bytes)",
    r"^(https?://[^/?#@\s]+|unix:[^\x00-\x1f\x7f-\x9f]+)$",
    320,
);
const HEADER_VALUE: Form = form("text (1,024 bytes of visible ASCII)", "^([!-~]([ -~]*[!-~])?)?$", 1024);
const HEALTH_PATH: Form = form("text (1,024 bytes)", "^(/[!-~]*)?$", 1024);

pub(super) const UPSTREAM: &[Key] = &[
    key("servers", List(&Text(SERVER), 1, 256), Required, "without `:PORT` the port is 80 or 443; none stands twice"),
    key(
        "weights",
        List(&Number(1, 1000), 0, 256),
        Prose("all 1"),
        "each server's share, as many as there are servers and in their order",
    ),
    key(
        "balance",
        Words(&["round-robin", "least-connections", "random-two", "hash-client", "hash-ip"]),
        Value("round-robin"),
        "how a server is chosen. `\"hash-client\"`: a client stays with one, by its name or else its address; \
         `\"hash-ip\"`: by its address",
    ),
    key(
        "connect_timeout",
        Duration("10ms", "5m"),
        Value("2s"),
        "for each server that is tried: name look-up, connect and TLS handshake",
    ),
    key("retries", Number(0, 10), Value("1"), "other servers that are tried when a connection cannot be made"),
    key("preserve_host", Flag, Value("true"), "a server sees the client's Host; `false`: its own address"),
    key("proxy_protocol", Flag, Value("false"), "`true`: each connection to a server begins with a PROXY v2 header"),
    key(
        "ca",
        Text(PATH),
        Prose("the system's"),
        "PEM with the authorities that vouch for `https://` servers; a fault without such a \
         server",
    ),
    key(
        "certificate",
        Text(PATH),
        Prose("none"),
        "PEM; shown to `https://` servers, with its `private_key`; a fault without such a server",
    ),
    key("private_key", Text(PATH), Prose("none"), "PEM; of `certificate`"),
    key(
        "close_on_unhealthy",
        Flag,
        Value("false"),
        "`true`: the sockets of a server that is found unhealthy are closed with 4012",
    ),
    table("headers"),
    table("health"),
    key(
        "response_timeout",
        DurationOrZero("10ms", "1d"),
        Value("60s"),
        "from the end of a request to the head of its answer; 0: no limit",
    ),
    key(
        "idle_timeout",
        DurationOrZero("10ms", "1d"),
        Value("60s"),
        "in which nothing of an ordinary request or its answer moves; 0: no limit. Sockets have `limits.idle_timeout`",
    ),
    key(
        "slow_start",
        DurationOrZero("0s", "1h"),
        Value("10s"),
        "for which a server that has come back gets less than its share, rising; 0: none",
    ),
];

pub(super) const HEADERS: &[Key] = &[
    key(
        "set",
        Texts(TOKEN, HEADER_VALUE, 64),
        Value("{}"),
        "headers that each request to a server carries, whatever the client said",
    ),
    key("remove", List(&Text(TOKEN), 0, 64), Value("[]"), "headers that no request carries"),
];

pub(super) const HEALTH: &[Key] = &[
    key("path", Text(HEALTH_PATH), Value(""), "asked with GET; 200 to 399 is healthy. `\"\"`: a connection is enough"),
    key("interval", Duration("100ms", "1h"), Value("5s"), "between two checks of a server"),
    key("timeout", Duration("10ms", "5m"), Value("2s"), "for one check; not longer than `interval`"),
    key("rise", Number(1, 100), Value("2"), "successes in a row after which a server is healthy"),
    key("fall", Number(1, 100), Value("3"), "failures in a row after which it is not"),
];
