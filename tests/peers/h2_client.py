"""A client of PyPI `h2` and `wsproto`: WebSockets over HTTP/2 (RFC 8441); see tests/support/backend.rs.

`h2_client.py https://HOST:PORT SCENARIO` prints one line of JSON.
"""

import hashlib
import json
import os
import socket
import ssl
import sys
from urllib.parse import urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RemoteSettingsChanged, ResponseReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

address, scenario = urlsplit(sys.argv[1]), sys.argv[2]
PATH = os.environ.get("WSGATE_TEST_PATH", "/echo")


class Session:
    """One HTTP/2 connection, and what came on each of its streams."""

    def __init__(self):
        context = ssl.create_default_context(cafile=os.environ["WSGATE_TEST_CA"])
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # a self-signed certificate is its own root
        context.set_alpn_protocols(["h2"])
        tcp = socket.create_connection((address.hostname, address.port), timeout=25)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(tcp, server_hostname=address.hostname)
        assert self.socket.selected_alpn_protocol() == "h2", self.socket.selected_alpn_protocol()
        config = H2Configuration(
            client_side=True, header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = H2Connection(config)
        # h2 takes each GOAWAY for the end of the connection; one without an error lets streams go on (RFC 9113, 6.8).
        self.h2._frame_dispatch_table[GoAwayFrame] = self.leave
        self.h2.initiate_connection()
        self.streams, self.goaway, self.settled = {}, None, False
        self.flush()
        while not self.settled:
            self.pump()

    def flush(self):
        if data := self.h2.data_to_send():
            self.socket.sendall(data)

    def pump(self):
        """Reads once, and sorts what came to its stream."""
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"the connection has ended, GOAWAY {self.goaway}")
        for event in self.h2.receive_data(data):
            stream = self.streams.get(getattr(event, "stream_id", None))
            if isinstance(event, RemoteSettingsChanged):
                self.settled = True
            elif stream is None:
                pass
            elif isinstance(event, ResponseReceived):
                stream.headers = dict(event.headers)
            elif isinstance(event, DataReceived):
                stream.receive(event)
            elif isinstance(event, StreamEnded):
                stream.ended = True
            elif isinstance(event, StreamReset):
                stream.reset = ErrorCodes(event.error_code).name
        self.flush()

    def leave(self, frame):
        self.goaway = ErrorCodes(frame.error_code).name
        return [], []

    def open(self, headers, end_stream=False):
        """A stream with exactly these headers."""
        number = self.h2.get_next_available_stream_id()
        stream = self.streams[number] = Stream(self, number)
        self.h2.send_headers(number, headers, end_stream=end_stream)
        self.flush()
        return stream

    def websocket(self, path=PATH, headers=()):
        stream = self.open([*connect(path), *headers])
        stream.answered()
        assert stream.headers and stream.headers[":status"] == "200", (stream.headers, stream.reset)
        return stream

    def close(self):
        self.h2.close_connection()
        self.flush()
        self.socket.close()


class Stream:
    """A stream, and the WebSocket on it."""

    def __init__(self, session, number):
        self.session, self.number = session, number
        self.headers, self.ended, self.reset = None, False, None
        self.reading, self.unread = True, 0
        self.socket, self.messages, self.parts = Connection(ConnectionType.CLIENT), [], []

    def receive(self, event):
        """Bytes of a stream that is read make room for more; of one that is not, they only do so for the others."""
        h2, length = self.session.h2, event.flow_controlled_length
        if self.reading:
            h2.acknowledge_received_data(length, self.number)
        elif length:
            h2.increment_flow_control_window(length)
            self.unread += length
        if event.data:
            self.socket.receive_data(event.data)
        for event in self.socket.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                self.parts.append(event.data)
                if event.message_finished:
                    self.messages.append(self.parts[0][:0].join(self.parts))
                    self.parts = []
            else:
                self.messages.append(event)

    def resume(self):
        """Makes room for more again."""
        self.reading = True
        if self.unread and not self.ended:
            self.session.h2.increment_flow_control_window(self.unread, self.number)
            self.session.flush()

    def answered(self):
        while self.headers is None and self.reset is None:
            self.session.pump()

    def send(self, event):
        """As much at a time as both windows let through."""
        data = self.socket.send(event)
        while data:
            room = min(self.session.h2.local_flow_control_window(self.number), self.session.h2.max_outbound_frame_size)
            if room == 0:
                self.session.pump()
                continue
            self.session.h2.send_data(self.number, data[:room])
            self.session.flush()
            data = data[room:]

    def next(self):
        while not self.messages:
            assert not self.ended and self.reset is None, f"stream {self.number}: ended {self.ended}, reset {self.reset}"
            self.session.pump()
        return self.messages.pop(0)

    def echo(self, data):
        self.send(BytesMessage(data=data) if isinstance(data, bytes) else TextMessage(data=data))
        assert self.next() == data, "what came back differs"

    def close(self, code, reason):
        """The code that comes back, behind which the stream has to end."""
        self.send(CloseConnection(code=code, reason=reason))
        answer = self.next()
        self.end()
        return answer.code

    def end(self):
        """Ends this side, unless it is told that no more is wanted (RFC 9113, section 8.1), and waits for the other."""
        if self.reset is None:
            self.session.h2.end_stream(self.number)
            self.session.flush()
        while not self.ended and self.reset is None:
            self.session.pump()
        assert self.ended and self.reset in (None, "NO_ERROR"), self.reset


def connect(path=PATH):
    return [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", path),
        (":authority", address.netloc),
        ("sec-websocket-version", "13"),
    ]


def settings():
    session = Session()
    return {code.name: session.h2.remote_settings.get(code) for code in SettingCodes}


def echo():
    """Messages of every kind, in pieces and at once, with a ping between two pieces."""
    session = Session()
    stream = session.websocket(headers=[("sec-websocket-protocol", "chat.v1, chat.v2")])
    large = os.urandom(1 << 20)
    sent = ["hello", "", "gr\u00fc\u00df dich \U0001f600", b"", bytes([0, 255, 128]), large, "x" * 100_000]
    for data in sent:
        stream.echo(data)
    stream.send(TextMessage(data="frag", message_finished=False))
    stream.send(Ping(payload=b"between"))
    stream.send(TextMessage(data="", message_finished=False))
    stream.send(TextMessage(data="ments", message_finished=True))
    answers = [stream.next(), stream.next()]
    assert Pong(payload=b"between") in answers and "fragments" in answers, answers
    return {
        "messages": len(sent) + 1,
        "digest": hashlib.sha256(large).hexdigest(),
        "protocol": stream.headers.get("sec-websocket-protocol"),
        "close": stream.close(1000, "done"),
    }


def closed():
    """The code and reason with which a WebSocket is closed at once, or its status."""
    origin = [("origin", os.environ["WSGATE_TEST_ORIGIN"])] if "WSGATE_TEST_ORIGIN" in os.environ else []
    session = Session()
    stream = session.open([*connect(), *origin])
    stream.answered()
    if stream.headers[":status"] != "200":
        return {"status": int(stream.headers[":status"])}
    event = stream.next()
    stream.send(event.response())
    stream.end()
    return {"status": 200, "code": event.code, "reason": event.reason}


def many():
    """A hundred WebSockets on one connection, each with messages of its own under way at once."""
    session = Session()
    streams = [session.websocket() for _ in range(100)]
    for turn in range(5):
        for number, stream in enumerate(streams):
            stream.send(TextMessage(data=f"{number} {turn}"))
    for turn in range(5):
        for number, stream in enumerate(streams):
            assert stream.next() == f"{number} {turn}"
    return {"closes": [stream.close(1000, "") for stream in streams]}


def starve():
    """One stream sends and reads nothing until its sender is held up; another is served meanwhile."""
    session = Session()
    deaf, other = session.websocket(), session.websocket()
    deaf.reading = False
    sent = 0
    # The gateway takes no more of a stream whose answers are not read: its window runs dry.
    while session.h2.local_flow_control_window(deaf.number) >= 20_000:
        deaf.send(BytesMessage(data=sent.to_bytes(4, "big") * 2_500))
        sent += 1
        other.echo("still served")
        assert sent < 10_000, "100 MB were taken of a stream whose answers nobody reads"
    for _ in range(50):
        other.echo("x" * 30_000)
    assert session.h2.local_flow_control_window(deaf.number) < 20_000
    deaf.resume()
    for number in range(sent):
        assert deaf.next() == number.to_bytes(4, "big") * 2_500, number
    return {"sent": sent, "closes": [deaf.close(1000, ""), other.close(1000, "")]}


def reset():
    """A stream that is reset takes nothing with it."""
    session = Session()
    gone, left = session.websocket(PATH), session.websocket(PATH)
    gone.echo("before")
    session.h2.reset_stream(gone.number, ErrorCodes.CANCEL)
    session.flush()
    left.echo("after")
    return {"close": left.close(1000, "done")}


def vanish():
    """The connection ends with open WebSockets on it, without a word."""
    session = Session()
    for _ in range(3):
        session.websocket().echo("here")
    session.socket.close()
    return {}


def end():
    """Waits for the Close, whoever makes it."""
    session = Session()
    event = session.websocket().next()
    return {"code": event.code, "reason": event.reason}


def without(name):
    return [header for header in connect() if header[0] != name]


def changed(name, value):
    return [(key, value if key == name else old) for key, old in connect()]


MALFORMED = {
    "no :scheme": without(":scheme"),
    "no :path": without(":path"),
    "empty :path": changed(":path", ""),
    "no :method": without(":method"),
    ":method twice": [(":method", "CONNECT"), *connect()],
    ":path twice": [(":path", "/echo"), *connect()],
    ":authority twice": [(":authority", "other.test"), *connect()],
    ":protocol twice": [(":protocol", "websocket"), *connect()],
    ":protocol on GET": changed(":method", "GET"),
    "unknown pseudo-header": [(":bogus", "x"), *connect()],
    ":status in a request": [(":status", "200"), *connect()],
    "pseudo-header after a header": [*without(":path"), (":path", PATH)],
    "upper case": [*connect(), ("X-Upper", "x")],
    "connection": [*connect(), ("connection", "upgrade")],
    "upgrade": [*connect(), ("upgrade", "websocket")],
    "transfer-encoding": [*connect(), ("transfer-encoding", "chunked")],
    "te of another kind": [*connect(), ("te", "gzip")],
    "line feed in a value": [*connect(), ("x-split", "a\nb: c")],
    "NUL in a value": [*connect(), ("x-split", "a\0b")],
    "space in a name": [*connect(), ("x split", "x")],
}
REFUSED = {
    "CONNECT alone": [(":method", "CONNECT"), (":authority", address.netloc)],
    "another :protocol": changed(":protocol", "connect-udp"),
    "another version": [*without("sec-websocket-version"), ("sec-websocket-version", "12")],
    "no route": changed(":path", "/nowhere"),
    "content-length": [*connect(), ("content-length", "5")],
}


def malformed():
    """What becomes of each bad request; a good WebSocket on the same connection must not notice."""
    outcomes, session = {}, None
    for name, headers in (MALFORMED | REFUSED).items():
        if session is None:
            session = Session()
            good = session.websocket()
        bad = session.open(headers)
        try:
            bad.answered()
            outcomes[name] = f"status {bad.headers[':status']}" if bad.headers else f"reset {bad.reset}"
            good.echo(name)
        except (EOFError, OSError, AssertionError) as ended:
            outcomes[name] = f"the connection: {session.goaway or ended}"
            session = None
    return {"outcomes": outcomes}


scenarios = {
    function.__name__: function for function in (settings, echo, closed, many, starve, reset, vanish, end, malformed)
}
print(json.dumps(scenarios[scenario]()))
