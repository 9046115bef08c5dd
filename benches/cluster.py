"""The tables of several nodes that share their rooms over one Redis. See README.md here."""

import contextlib
import pathlib
import statistics
import tempfile

import replay
from servers import Failed, Process, find, free_ports
from table import Table, having, parts

NAMES = ["cluster-fanout", "cluster-latency", "cluster-publish"]
LOAD_SECS_MAX = 300
DELIVERIES = 300_000  # of a fan-out, whatever the number of members
BATCH = 10  # messages that are sent at once where that is said
ROOMS, ROOM_MEMBERS, ROOM_MESSAGES = 1_000, 2, 20  # one member of each room on each node
REPLAYED = 50_000  # calls
REPLAYS = [f"publishes to {n} nodes replayed" for n in (0, 2, 20)] + ["checks replayed", "syncs replayed"]
CORE_US = 1_000_000  # of CPU time that one core has in a second


class Nodes:
    """Gateways that are charged as one."""

    def __init__(self, processes, redis_port):
        self.processes, self.redis_port = processes, redis_port
        self.name, self.popen = "wsgate", self

    @property
    def pid(self):
        return ",".join(str(process.pid) for process in self.processes)

    def poll(self):
        return next((code for process in self.processes if (code := process.popen.poll()) is not None), None)

    def output(self):
        return " ".join(process.output() for process in self.processes)


@contextlib.contextmanager
def redis():
    """A Redis that keeps nothing on disk: its process and its port."""
    (port,) = free_ports(1)
    command = [find("redis-server"), "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with Process("redis-server", command) as process:
        process.wait_for(port)
        yield process, port


@contextlib.contextmanager
def nodes(bench, count):
    """Gateways with a shard each and the address of each; where there are several they share a Redis."""
    with contextlib.ExitStack() as stack:
        place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nodes-", dir=bench.folder)))
        redis_port = stack.enter_context(redis())[1] if count > 1 else None
        processes, urls = [], []
        for number in range(count):
            plain, tls, admin, backend = free_ports(4)
            text = bench.wsgate_config(plain, tls, admin, backend, 1, True, False)
            if redis_port:
                text += f'[cluster]\nredis = "redis://127.0.0.1:{redis_port}"\nnode = "node-{number}"\n'
            config = place / f"{number}.toml"
            config.write_text(text)
            process = stack.enter_context(Process("wsgate", [bench.wsgate, "serve", "--config", config]))
            process.wait_for(plain)
            processes.append(process)
            urls.append(f"ws://127.0.0.1:{plain}/ws")
        yield Nodes(processes, redis_port), urls


def load(bench, mode, servers, urls, *arguments):
    also = [part for url in urls[1:] for part in ("--also", url)]
    redis = ["--redis", f"127.0.0.1:{servers.redis_port}"] if servers.redis_port else []
    return bench.load(f"rooms {mode}", urls[0], servers, *also, *redis, *arguments, secs_max=LOAD_SECS_MAX)


def count_of(variant):
    return 1 if variant.startswith("alone") else 2


def fanout(quick):
    def measure(bench, contender, _):
        variant = parts(contender)[1]
        members = int(variant.split(", ")[1].split()[0].replace(",", ""))
        batch = BATCH if variant.endswith("at once") else 1
        messages = max(1, DELIVERIES // (15 if quick else 1) // members // batch) * batch
        with nodes(bench, count_of(variant)) as (servers, urls):
            found = load(bench, "fanout", servers, urls, "-c", members, "-m", messages, "--batch", batch, "-s", 64)
        if found["deliveries"] != members * messages:
            raise Failed(f"{contender}: {found['deliveries']} deliveries instead of {members * messages}")
        return found["cpu_us"], found

    return measure


def latency(quick):
    def measure(bench, contender, _):
        variant = parts(contender)[1]
        with nodes(bench, count_of(variant)) as (servers, urls):
            used = urls if variant.endswith("on the other") else urls[:1]
            found = load(bench, "latency", servers, used, "-m", 500 if quick else 5_000, "-s", 64)
        return found["p50_us"], found

    return measure


def publish(quick):
    def measure(bench, contender, _):
        rooms = ROOMS // (10 if quick else 1)
        variant = parts(contender)[1]
        if variant.endswith("replayed"):
            script = {"checks": "check", "syncs": "sync"}.get(variant.split()[0], "publish")
            subscribed = int(variant.split()[-3]) if script == "publish" else 0
            with redis() as (process, port):
                found = replay.run(port, process.pid, script, subscribed, rooms, REPLAYED // (10 if quick else 1))
            return found["redis_cpu_us"], found
        with nodes(bench, 2) as (servers, urls):
            arguments = ["-c", rooms * ROOM_MEMBERS, "--members", ROOM_MEMBERS, "-m", ROOM_MESSAGES]
            found = load(bench, "grid", servers, urls, *arguments)
        return found["redis_cpu_us"], found

    return measure


def tables(bench, quick):
    def table(name, title, unit, contenders, base, measure, extra):
        contenders = having(bench, [f"wsgate, {c}" for c in contenders]) if bench.wsgate and find("redis-server") else []
        return Table(name, title, unit, contenders, base and f"wsgate, {base}", measure, 0, extra=extra)

    few, many = (100, 500) if quick else (1_000, 5_000)
    fan = [f"{where}, {members:,} members{how}" for members in (few, many)
           for where, how in (("alone", ""), ("two nodes", ""), ("two nodes", f", {BATCH} at once"))]  # fmt: skip
    return [
        table("cluster-fanout", "Fan-out over two nodes and one Redis, half of the members on each, plain",
              "nodes' CPU µs per delivery", fan, fan[0], fanout(quick), ("deliveries per second", "per_s", 0)),
        table("cluster-latency", "From the publisher's write to the subscriber's read, one message in flight",
              "µs, p50", ["alone", "two nodes, both on one", "two nodes, one on the other"], "alone", latency(quick),
              ("µs, p99", "p99_us", 0)),
        table("cluster-publish", f"{ROOMS // (10 if quick else 1):,} rooms with a member on each of two nodes, all publish",
              "Redis' CPU µs per call", ["two nodes", *REPLAYS], None, publish(quick),
              ("calls per second", "publishes_per_s", 0)),
    ]  # fmt: skip


def notes(table):
    """What Redis had to do for each publish, and how much of it there could be."""
    if table.name not in ("cluster-fanout", "cluster-publish"):
        return
    for contender, founds in table.found.items():
        if not founds or "redis_busy" not in founds[0]:
            continue

        def median(key):
            return statistics.median(found.get(key, 0) for found in founds)

        cpu_us, busy = median("redis_cpu_us"), median("redis_busy")
        words = f"{parts(contender)[1]}: Redis has {cpu_us:.1f} µs of CPU time for each, is {busy:.0%} busy"
        if table.name == "cluster-publish":
            words += f", and would take {CORE_US / cpu_us:,.0f} per second with a whole core of its own"
        yield words + "."
        yield ""
    if table.name == "cluster-publish":
        keys = sorted({key for founds in table.found.values() for found in founds for key in found})
        commands = [key for key in keys if key.startswith("redis_") and key not in ("redis_cpu_us", "redis_busy")]
        every = [found for founds in table.found.values() for found in founds if "redis_evalsha" in found]
        each = [f"{key.removeprefix('redis_')} {statistics.median(f.get(key, 0) for f in every):.3f}" for key in commands]
        yield "Commands per publish: " + ", ".join(each) + ". `evalsha` is what nodes send; the others are called by the script."
        yield ""
