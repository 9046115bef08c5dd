"""A script of the broker alone, sent to a Redis as fast as it takes it: what one Redis can do when no node is in its way."""

import pathlib
import secrets
import socket
import threading
import time

from servers import Failed, cpu_secs

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent / "src/rooms/broker/redis/scripts"
BODY_BYTES = 150
MEMBERS = 10  # of each room
ANSWER_SECS_MAX = 60
# What a node has seen, nothing of this count, and an epoch in case.
NEW = [0, 0, 0]
EPOCH = "epoch"
TTL_MS = 1_200_000
# What holds where nothing is configured: messages, bytes and age of the history, the age of names.
RULES = [100, 4 << 20, 600_000, 300_000]
PAGE_FIELDS = 1_000
PARTS = {"sync": ["meta", "fields"]}


def encode(*words):
    words = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECS_MAX)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def answered(connection, end=b"+PONG\r\n"):
    """Reads until the answer to a PING, or an error, and gives the last bytes."""
    last = b""
    while not last.endswith(end):
        chunk = connection.recv(1 << 20)
        if not chunk or b"\r\n-" in chunk or chunk.startswith(b"-"):
            raise Failed(f"Redis answers the script with {chunk[:200]!r}")
        last = (last + chunk)[-64:]


def drain(connection):
    while connection.recv(1 << 20):
        pass


def load(connection, script):
    parts = [*PARTS.get(script, ["meta"]), script]
    source = "".join((SCRIPTS / f"{name}.lua").read_text() for name in parts)
    connection.sendall(encode("SCRIPT", "LOAD", source))
    answer = connection.recv(4096)
    if not answer.startswith(b"$40\r\n"):
        raise Failed(f"Redis does not take the script: {answer!r}")
    return answer[5:45].decode()


def room_of(n, rooms):
    return f"bench:{{default/room-{n % rooms}}}"


def publishes(sha, rooms, count):
    """As many calls, one room after the other, each message with a name of its own."""
    body = "b" * BODY_BYTES
    for n in range(count):
        room = room_of(n, rooms)
        keys = [f"{room}:m", f"{room}:s", room, f"{room}:d:{secrets.token_urlsafe(16)}"]
        yield encode("EVALSHA", sha, len(keys), *keys, "seen", *NEW, 0, EPOCH, TTL_MS, *RULES, body)


def checks(sha, rooms, count):
    for n in range(count):
        room = room_of(n, rooms)
        yield encode("EVALSHA", sha, 2, f"{room}:m", f"{room}:p", TTL_MS)


def syncs(sha, rooms, count):
    for n in range(count):
        room = room_of(n, rooms)
        yield encode("EVALSHA", sha, 3, f"{room}:m", f"{room}:s", f"{room}:p", "", *NEW, EPOCH, TTL_MS, PAGE_FIELDS)


def presences(rooms):
    """What nodes hold in each room."""
    held = [word for n in range(MEMBERS) for word in (f"{n % 4:016x} client-{n:08}", "1 1790000000000")]
    return (encode("HSET", f"{room_of(n, rooms)}:p", "v", MEMBERS, *held) for n in range(rooms))


def subscribe(port, rooms):
    """A connection that is subscribed to every room, as a node is that has members in all of them."""
    node = connect(port)
    for n in range(rooms):
        node.sendall(encode("SSUBSCRIBE", room_of(n, rooms)))
    threading.Thread(target=drain, args=(node,), daemon=True).start()


def run(port, pid, script, nodes, rooms, count):
    """What a call of `publish`, `check` or `sync` costs Redis where so many nodes are in every room, and how many it took in a
    second."""
    connection = connect(port)
    sha = load(connection, "publish")
    for _ in range(nodes):
        subscribe(port, rooms)
    # The rooms are there when the measured time begins.
    connection.sendall(b"".join([*publishes(sha, rooms, rooms), *presences(rooms), encode("PING")]))
    answered(connection)
    make = {"publish": publishes, "check": checks, "sync": syncs}[script]
    calls = b"".join(make(load(connection, script), rooms, count)) + encode("PING")
    cpu, began = cpu_secs(pid), time.monotonic()
    sender = threading.Thread(target=connection.sendall, args=(calls,), daemon=True)
    sender.start()
    answered(connection)
    secs, cpu = time.monotonic() - began, cpu_secs(pid) - cpu
    return {"redis_cpu_us": cpu * 1e6 / count, "redis_busy": cpu / secs, "publishes_per_s": count / secs}
