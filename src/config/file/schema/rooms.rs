//! `[rooms]` and `[cluster]`.
use super::key::Kind::{Duration, DurationOrZero, Flag, List, Number, OneOrList, Size, Tables, Text, Words};
use super::key::Preset::{Prose, Required, Value};
use super::key::{Form, Key, Kind, NAME, NONE, PATH, VARIABLE, form, key, table};

pub(super) const ROOMS: &[Key] = &[
    key(
        "create",
        Words(&["join", "declared"]),
        Value("join"),
        "`\"join\"`: a room exists from its first member; `\"declared\"`: only where a policy whose `match` has no \
         `*` names it",
    ),
    key("max_members", Number(1, 10_000_000), Value("10000"), "clients in one room"),
    key(
        "max_rooms_per_client",
        Number(1, 100_000),
        Value("100"),
        "rooms of one client, over all its sessions on a route",
    ),
    key("max_rooms", Number(1, 100_000_000), Value("100000"), "rooms of the process that somebody is in"),
    key("broadcast_to_all", Flag, Value("false"), "`true`: any client may send to the whole namespace"),
    key("presence", Flag, Value("true"), "whether comings and goings are pushed"),
    table("history"),
    table("duplicates"),
    key("typing_expiry", Duration("1s", "10m"), Value("5s"), "when typing that nobody stops ends by itself"),
    key("policy", Tables(0), NONE, ""),
    table("store"),
    table("hook"),
];

pub(super) const HISTORY: &[Key] = &[
    key("messages", Number(0, 1_000_000), Value("100"), "0: none"),
    key("age", DurationOrZero("0s", "366d"), Value("10m"), "also how long an empty room keeps its epoch and offset"),
    key("bytes", Size(1, 1 << 30), Value("4MiB"), "of all its messages together"),
];

pub(super) const DUPLICATES: &[Key] = &[
    key("age", DurationOrZero("0s", "1d"), Value("5m"), "how long a `message_id` is remembered; 0: not at all"),
    key(
        "per_client",
        Number(0, 65_536),
        Value("128"),
        "`message_id`s of one client in one room; 0: none. Of messages without a sender at least 8,192. With `[cluster]` \
         any number within `age`; 0: none",
    ),
];

const ROOM_PATTERN: Form = form("text (1 to 128 bytes)", "^[0-9A-Za-z_.:/@*-]+$", 128);

pub(super) const POLICY: &[Key] = &[
    key(
        "match",
        Text(ROOM_PATTERN),
        Required,
        "letters, digits, `-_.:/@`, and `*` for any run of them; without `*` it declares that room, also behind a \
         policy that hides it",
    ),
    key("join", Words(&["any", "claim"]), Value("any"), "`\"claim\"`: the token's `rooms` has a pattern that fits"),
    key(
        "publish",
        Words(&["any", "claim", "none"]),
        Value("any"),
        "`\"claim\"`: by the token's `publish`; `\"none\"`: servers alone, over the admin interface",
    ),
    key("durable", Flag, Value("false"), "the history survives a restart. With a history of 0: a fault"),
    key(
        "latest_only",
        Duration("10ms", "1h"),
        Prose("none"),
        "at most one message in this time to each session, the newest. Members do not recover; the history is for \
         servers",
    ),
];

pub(super) const STORE: &[Key] = &[key(
    "path",
    Text(PATH),
    Prose("`$STATE_DIRECTORY`, else `data`"),
    "the folder of bans and durable history. Of several that systemd names the first; `data` is beside the file",
)];

const URL: Form =
    form("`\"https://HOST:PORT/PATH\"`, `\"http://…\"` (1,024 bytes)", r"^https?://[^/?#@\s]+([/?][^#\s]*)?$", 1024);
const EVENTS: Kind = Words(&["connect", "join", "publish", "occupied", "vacated", "joined", "left"]);

pub(super) const HOOK: &[Key] = &[
    key("url", Text(URL), Required, "the certificate of `https://` must chain to an authority of the system"),
    key(
        "events",
        List(&EVENTS, 1, 64),
        Required,
        "the application is asked of the first three, and told of the others",
    ),
    key("timeout", Duration("10ms", "30s"), Value("1s"), "for an answer"),
    key(
        "on_failure",
        Words(&["deny", "allow"]),
        Value("deny"),
        "what becomes of a request that the application cannot be asked about",
    ),
    key("secret_env", Text(VARIABLE), NONE, "it holds the secret (16 bytes at least) that signs the bodies"),
];

const REDIS: Form = form(
    "`\"redis://[USER[:PASSWORD]@]HOST[:PORT][/MASTER]\"`, `\"rediss://…\"` (1,024 bytes)",
    r"^rediss?://([^/?#@\s]*@)?[^/?#@\s]+(/[0-9A-Za-z._-]*)?$",
    1024,
);
const PREFIX: Form = form("text (64 bytes)", "^[0-9A-Za-z._:-]+$", 64);

pub(super) const CLUSTER: &[Key] = &[
    key(
        "redis",
        OneOrList(REDIS, 16),
        Prose("one node; then no other key may be set"),
        "a server (port 6379), servers of which one is the master, nodes of a Redis Cluster, or with `MASTER` the \
         Sentinels (26379) that know a master by this name. `rediss://`: TLS. All have the same scheme, user, password \
         and `MASTER`; user and password are percent-encoded, and a user \
         has a password, here or in one of the next two",
    ),
    key(
        "redis_ca",
        Text(PATH),
        Prose("the system's"),
        "PEM; authorities that the certificates of `rediss://` chain to",
    ),
    key("redis_password_env", Text(VARIABLE), NONE, "it holds the password, where `redis` has none"),
    key("redis_password_file", Text(PATH), NONE, "the password; white space around it does not count"),
    key("prefix", Text(PREFIX), Value("wsgate"), "what all keys and channels begin with: another one, another cluster"),
    key("node", Text(NAME), Prose("host name and process number"), "the name of this node, which no other has"),
    key(
        "shared_limits",
        Flag,
        Value("false"),
        "`true`: the rates of a client's messages and of handshakes count over all nodes",
    ),
];
