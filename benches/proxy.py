"""The tables of the proxy: wsgate beside nginx, haproxy, Envoy and the floor, each in front of a floor. See README.md here."""

from servers import Failed, IDLE_SOCKETS
from table import Table, having, parts

FEW, MANY = 64, 2_000
SMALL, LARGE = 64, 16 * 1024
RELAY_RATIO_MAX = 1.10  # of the floor, plain
CHECKED = "wsgate, Origin and JWT checked"

# Name, TLS, bytes, sockets.
RELAYS = [
    ("relay", False, SMALL, FEW),
    ("relay-16k", False, LARGE, FEW),
    ("relay-2000", False, SMALL, MANY),
    ("relay-16k-2000", False, LARGE, MANY),
    ("tls-relay", True, SMALL, FEW),
    ("tls-relay-16k", True, LARGE, FEW),
    ("tls-relay-2000", True, SMALL, MANY),
    ("tls-relay-16k-2000", True, LARGE, MANY),
]
NAMES = [name for name, *_ in RELAYS] + ["idle", "handshake", "requests", "tls-requests"]


def relay(kind, tls, path, *arguments):
    """A mode of wsload through a contender to a floor, which must have worked too."""

    def measure(bench, contender, secs):
        program, variant = parts(contender)
        checked = bool(variant)
        with bench.floor() as (backend, backend_port), bench.start(program, backend_port, checked=checked) as started:
            process, plain, secure = started
            url = f"wss://127.0.0.1:{secure}/{path}" if tls else f"ws://127.0.0.1:{plain}/{path}"
            found = bench.load(kind, url, process, *arguments, *(bench.credentials() if checked else []), secs=secs)
            done = found.get("echoes") or found.get("requests") or found.get("handshakes")
            if backend.cpu_secs() < 1e-6 * done:
                raise Failed(f"{contender}: the backend did not do its part of {done}")
            return found["per_cpu_s" if kind == "handshake" else "cpu_us"], found

    return measure


def idle(bench, contender, secs):
    program, variant = parts(contender)
    with bench.floor() as (_, backend_port), bench.start(program, backend_port) as (process, _, secure):
        join = '{"type":"join_room","payload":{"room_id":"room-{i/10}"}}'
        rooms = ["--init", join, "--init-until", "room_joined"] if variant == "rooms" else []
        url = f"wss://127.0.0.1:{secure}/{'ws' if rooms else 'relay'}"
        found = bench.load("idle", url, process, "-c", IDLE_SOCKETS, *rooms, secs=secs)
        if found["connections"] != IDLE_SOCKETS:
            raise Failed(f"{contender}: {found['connections']} connections instead of {IDLE_SOCKETS}")
        return found["bytes_per_connection"] / 1024, found


def tables(bench):
    gates = having(bench, ["wsgate", "nginx", "haproxy", "envoy"])
    base = gates[0] if gates else None
    floor = having(bench, ["floor"])
    idlers = having(bench, ["wsgate, rooms", "wsgate, relay", "nginx", "haproxy", "envoy"])
    for name, tls, size, sockets in RELAYS:
        bytes_named = f"{size} bytes" if size < 1024 else f"{size // 1024} KiB"
        title = f"Relay: echoes of {bytes_named} over {sockets:,} sockets, {'TLS' if tls else 'plain'}"
        measure = relay("echo", tls, "relay", "-c", sockets, "-s", size)
        contenders = gates if tls else floor + gates
        yield Table(name, title, "CPU µs per echo", contenders, base if tls else "floor", measure,
                    2 if sockets == FEW else 4)  # fmt: skip
    yield Table("idle", f"Idle: {IDLE_SOCKETS:,} TLS sockets", "KiB per connection", idlers, None, idle, 3)
    yield Table("handshake", "TLS handshake (P-256, no resumption) and upgrade on to a backend", "per CPU second",
                gates + having(bench, [CHECKED]), base, relay("handshake", True, "relay", "-c", 32), 2, digits=0,
                more_is_better=True)  # fmt: skip
    for name, tls in (("requests", False), ("tls-requests", True)):
        title = f"Ordinary requests: GET of 64 bytes over {FEW} connections that are kept, {'TLS' if tls else 'plain'}"
        yield Table(name, title, "CPU µs per request", gates if tls else floor + gates, base if tls else "floor",
                    relay("requests", tls, "relay", "-c", FEW), 2)  # fmt: skip


def ratios(found):
    """What a plain relay costs beside the floor: name and ratio."""
    for name, tls, *_ in RELAYS:
        table = found.get(name)
        if table and not tls and {"wsgate", "floor"} <= table.values.keys():
            yield table.title.removesuffix(", plain").replace("Relay: echoes", "relay") + ", x floor", table.ratio("wsgate", "floor")


def places(found):
    """Who is first in each table among those that can be used, and how far wsgate is from the best of the others."""
    rows = []
    for table in (found[name] for name in NAMES if name in found):
        ours = "wsgate, relay" if table.name == "idle" else "wsgate"
        others = [contender for contender in table.contenders if contender in ("nginx", "haproxy", "envoy")]
        if ours in table.contenders and others:
            # Cost for cost: of rates the other way round.
            behind = {one: table.ratio(ours, one) ** (-1 if table.more_is_better else 1) for one in others}
            best = max(others, key=behind.get)
            first = ours if behind[best] <= 1 else best
            rows.append(f"| {table.title} | {first} | {behind[best]:.2f} x {best} |")
    if rows:
        yield "## First place"
        yield ""
        yield "| | first | wsgate's cost against the best of the others |"
        yield "|---|---|---:|"
        yield from rows
        yield ""


def notes(table):
    if table.name == "idle":
        yield "Growth of the proportional set size (user space; the kernel's socket buffers are not in it)."
        yield ""
    if table.name == "handshake" and CHECKED in table.contenders:
        yield "Where they are checked, each upgrade carries an Origin of a list and a JWT signed with HS256."
        yield ""
