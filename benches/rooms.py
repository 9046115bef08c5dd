"""The tables of rooms: a fixed amount of work each, every delivery of which wsload checks. See README.md here."""

import contextlib

from servers import Failed, free_ports
from table import Table, having, parts

NAMES = ["fanout10k", "grid", "joins", "recovery"]
RATIO_MAX = 1.30  # of a delivery or a join at ten times the size
LOAD_SECS_MAX = 300
DELIVERIES = 300_000  # of a fan-out, whatever the number of members
ROOM_MEMBERS, GRID_MESSAGES = 10, 5
MISSED = 100  # as many as the history holds by default


def sizes(quick):
    """Clients of the small and the large run of a pair: the large one has ten times as many."""
    return (100, 1_000) if quick else (1_000, 10_000)


def files(only, quick):
    """Descriptors that the gateway and wsload need, each of them."""
    chosen = not only or set(NAMES) & set(only)
    return sizes(quick)[1] + 200 if chosen else 0


def clients(variant):
    return int(variant.split()[0].replace(",", ""))


def presence(variant):
    return not variant.endswith("no presence")


def gateway(bench, shards=0, presence=True):
    """As it is shipped: a shard per core."""
    return bench.start("wsgate", free_ports(1)[0], shards, presence)


def fanout(chat_bytes, quick):
    def measure(bench, contender, _):
        program, variant = parts(contender)
        members = clients(variant)
        messages = DELIVERIES // (15 if quick else 1) // members
        with contextlib.ExitStack() as stack:
            if program == "floor":
                process, port = stack.enter_context(bench.floor())
                path, arguments = "sub", ["--floor", "-s", chat_bytes]
            else:
                process, port, _ = stack.enter_context(gateway(bench))
                path, arguments = "ws", ["-s", 64]
            arguments += ["-c", members, "-m", messages]
            return load(bench, "fanout", f"ws://127.0.0.1:{port}/{path}", process, "deliveries", members * messages,
                        *arguments)  # fmt: skip

    return measure


def grid(quick):
    def measure(bench, contender, _):
        total = sizes(quick)[1]
        shards = 1 if parts(contender)[1] == "1 shard" else 0
        with gateway(bench, shards) as (process, port, _):
            arguments = ["-c", total, "--members", ROOM_MEMBERS, "-m", GRID_MESSAGES]
            due = total * ROOM_MEMBERS * GRID_MESSAGES
            return load(bench, "grid", f"ws://127.0.0.1:{port}/ws", process, "deliveries", due, *arguments)

    return measure


def of_clients(mode, what, each, *arguments):
    """A mode of wsload with a number of clients, with presence or without; each does so much work."""

    def measure(bench, contender, _):
        variant = parts(contender)[1]
        total, pushed = clients(variant), presence(variant)
        with gateway(bench, presence=pushed) as (process, port, _):
            given = ["-c", total, *arguments] + (["--presence"] if pushed else [])
            return load(bench, mode, f"ws://127.0.0.1:{port}/ws", process, what, total * each, *given)

    return measure


def load(bench, mode, url, process, what, due, *arguments):
    found = bench.load(f"rooms {mode}", url, process, *arguments, secs_max=LOAD_SECS_MAX)
    if found[what] != due:
        raise Failed(f"{process.name}: {found[what]} {what} instead of {due}")
    return found["cpu_us"], found


def tables(bench, chat_bytes, quick):
    small, large = sizes(quick)
    gate = [f"wsgate, {n:,} members" for n in (small, large)]
    floor = [f"floor, {n:,} members" for n in (small, large)]
    storms = [f"wsgate, {n:,} clients" for n in (small // 2, small, large // 2, large)]
    bare = [f"wsgate, {n:,} clients, no presence" for n in (small, large)]
    cut = [f"wsgate, {small // 10:,} clients, no presence", f"wsgate, {small:,} clients, no presence"]

    def table(name, title, unit, contenders, base, measure, extra):
        contenders = having(bench, contenders) if bench.wsgate else []
        return Table(name, title, unit, contenders, base, measure, 0, extra=extra)

    return [
        table("fanout10k", f"Fan-out to {small:,} and to {large:,} members, one message in flight, plain",
              "CPU µs per delivery", gate + floor, gate[0], fanout(chat_bytes, quick),
              ("deliveries per CPU second", "per_cpu_s", 0)),
        table("grid", f"{large // ROOM_MEMBERS:,} rooms of {ROOM_MEMBERS}, every member publishes, plain",
              "CPU µs per delivery", ["wsgate, a shard per core", "wsgate, 1 shard"], None, grid(quick),
              ("deliveries per CPU second", "per_cpu_s", 0)),
        table("joins", "Join storm: all clients join one room at once", "CPU µs per join", storms + bare, bare[0],
              of_clients("joins", "joins", 1), ("last room_joined after, ms", "last_ms", 0)),
        table("recovery", f"Recovery: all clients ask at once for {MISSED} messages that they missed",
              "CPU µs per recovered message", [*cut, f"wsgate, {small:,} clients"], cut[0],
              of_clients("recovery", "recovered", MISSED, "-m", MISSED), ("last message after, ms", "last_ms", 0)),
    ]  # fmt: skip


def ratios(found):
    """What a delivery or a join costs at ten times the size: name and ratio. Shrunk sizes prove nothing."""

    def pair(table, less, more):
        return table.ratio(table.contenders[more], table.contenders[less])

    def between(table, less, more):
        few, many = (clients(parts(table.contenders[k])[1]) for k in (less, more))
        return f"{many:,} against {few:,}"

    whole = {name: table for name, table in found.items() if f"{sizes(False)[1]:,}" in " ".join(table.contenders)}
    fan, joins = whole.get("fanout10k"), whole.get("joins")
    if fan:
        yield f"fan-out, a delivery: {between(fan, 0, 1)} members", pair(fan, 0, 1)
    if joins:
        yield f"join storm, a join: {between(joins, 0, 2)} clients", pair(joins, 0, 2)
        yield f"join storm, a join: {between(joins, 1, 3)} clients", pair(joins, 1, 3)
        yield f"the same without presence: {between(joins, 4, 5)} clients", pair(joins, 4, 5)


def notes(table):
    if table.name == "fanout10k":
        ratio = table.ratio(table.contenders[3], table.contenders[2])
        yield (
            f"For the floor, which has nothing to look up, a delivery to the large room costs {ratio:.2f} x one to the "
            "small room: that much of wsgate's ratio is the kernel's."
        )
        yield ""
    if table.name == "joins":
        yield "The times are those of this machine, with the load generator on it; only the CPU time is charged."
        yield ""
