#!/usr/bin/env python3
"""Writes tests/ws_corpus/: one small stream of a client for each rule and each shape of a message."""
import pathlib
import struct
import zlib

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "ws_corpus"
KEY = bytes([0x37, 0xFA, 0x21, 0x3D])
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode, payload=b"", fin=True, rsv=0, key=KEY, form=None, length=None):
    length = len(payload) if length is None else length
    form = form or (7 if length < 126 else 16 if length < 65536 else 64)
    mask = 0x80 if key is not None else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if form == 7:
        head += bytes([mask | length])
    elif form == 16:
        head += bytes([mask | 126]) + struct.pack(">H", length)
    else:
        head += bytes([mask | 127]) + struct.pack(">Q", length)
    if key is None:
        return head + payload
    return head + key + bytes(b ^ key[i % 4] for i, b in enumerate(payload))


def close(code, reason=b""):
    return frame(CLOSE, struct.pack(">H", code) + reason)


def deflate(data, final=False):
    z = zlib.compressobj(wbits=-15)
    if final:
        return z.compress(data) + z.flush(zlib.Z_FINISH) + b"\0"
    return (z.compress(data) + z.flush(zlib.Z_SYNC_FLUSH))[:-4]


SEEDS = {}
for n in [0, 1, 2, 3, 4, 7, 8, 9, 63, 64, 125, 126, 127, 1000, 65535, 65536]:
    if n <= 1000:
        SEEDS[f"text-{n}"] = frame(TEXT, b"a" * n)
    SEEDS[f"binary-{n}"] = frame(BINARY, bytes(i * 7 % 251 for i in range(n)))
for n in [0, 1, 4, 124, 125]:
    SEEDS[f"ping-{n}"] = frame(PING, b"p" * n)
    SEEDS[f"pong-{n}"] = frame(PONG, b"q" * n)
for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]:
    SEEDS[f"reserved-opcode-{opcode}"] = frame(opcode)
for rsv in range(1, 8):
    SEEDS[f"rsv-{rsv}"] = frame(TEXT, b"rsv", rsv=rsv)
    SEEDS[f"rsv-{rsv}-on-ping"] = frame(PING, b"rsv", rsv=rsv)
SEEDS["rsv1-on-continuation"] = frame(TEXT, deflate(b"x"), fin=False, rsv=4) + frame(CONT, b"", rsv=4)
for opcode, name in [(TEXT, "text"), (PING, "ping"), (CLOSE, "close")]:
    SEEDS[f"unmasked-{name}"] = frame(opcode, b"", key=None)
    SEEDS[f"not-minimal-16-{name}"] = frame(opcode, b"", form=16)
    SEEDS[f"not-minimal-64-{name}"] = frame(opcode, b"", form=64)
SEEDS["not-minimal-125"] = frame(BINARY, b"x" * 125, form=16)
SEEDS["not-minimal-65535"] = frame(BINARY, b"", form=64, length=65535)
for opcode, name in [(CLOSE, "close"), (PING, "ping"), (PONG, "pong")]:
    SEEDS[f"long-{name}-126"] = frame(opcode, b"\x03\xe8" + b"l" * 124)
    SEEDS[f"long-{name}-65536-header"] = frame(opcode, b"", length=65536)
    SEEDS[f"fragmented-{name}"] = frame(opcode, b"", fin=False) + frame(CONT)
for power in [17, 20, 31, 32, 62]:
    SEEDS[f"announces-2-{power}"] = frame(BINARY, b"few", length=1 << power)
SEEDS["announces-top-bit"] = frame(BINARY, b"few", length=1 << 63)
SEEDS["announces-all-ones"] = frame(BINARY, b"few", length=(1 << 64) - 1)
SEEDS["sum-over-limit"] = frame(BINARY, b"s" * 60000, fin=False) + frame(CONT, b"t" * 60000)
SEEDS["sum-wraps"] = frame(BINARY, b"s", fin=False) + frame(CONT, b"", length=(1 << 63) - 1)
SEEDS["continuation-of-nothing"] = frame(CONT, b"x")
SEEDS["continuation-after-end"] = frame(TEXT, b"x") + frame(CONT, b"y")
SEEDS["text-in-message"] = frame(TEXT, b"x", fin=False) + frame(TEXT, b"y")
SEEDS["binary-in-message"] = frame(TEXT, b"x", fin=False) + frame(BINARY, b"y")
SEEDS["two-fragments"] = frame(TEXT, b"Hel", fin=False) + frame(CONT, b"lo")
SEEDS["empty-fragments"] = frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * 5 + frame(CONT)
SEEDS["many-fragments"] = frame(BINARY, b"0", fin=False) + frame(CONT, b"1", fin=False) * 40 + frame(CONT, b"2")
SEEDS["ping-between-fragments"] = frame(TEXT, b"a", fin=False) + frame(PING, b"p") + frame(CONT, b"b") + frame(PONG)
SEEDS["close-between-fragments"] = frame(TEXT, b"a", fin=False) + close(1000) + frame(CONT, b"b")
SEEDS["several-messages"] = b"".join(frame(TEXT, bytes([97 + i]) * i * 9) for i in range(20))
SEEDS["several-and-controls"] = (frame(TEXT, b"one") + frame(PING) + frame(BINARY, b"two") + frame(PONG, b"x")) * 4
SEEDS["zero-key"] = frame(TEXT, "zéro".encode(), key=bytes(4)) + frame(BINARY, b"1234567890", key=bytes(4))
SEEDS["ones-key"] = frame(TEXT, b"all ones in the key", key=b"\xff" * 4)
SEEDS["close-empty"] = frame(CLOSE)
SEEDS["close-one-byte"] = frame(CLOSE, b"\x03")
SEEDS["close-then-more"] = close(1000, b"bye") + frame(TEXT, b"ignored") + b"\xff\xff\xff"
SEEDS["close-long-reason"] = close(1000, b"r" * 123)
SEEDS["close-bad-utf8"] = close(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80")
SEEDS["close-cut-utf8"] = close(1000, b"\xe2\x82")
for code in [0, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015,
             1016, 1100, 2000, 2999, 3000, 3999, 4000, 4999, 5000, 65535]:
    SEEDS[f"close-{code}"] = close(code)
UTF8 = {
    "two-bytes": "é".encode(), "three-bytes": "€".encode(), "four-bytes": "😀".encode(), "greek": "κόσμε".encode(),
    "nul": b"\0", "last": "\U0010ffff".encode(), "before-surrogates": "\ud7ff".encode(), "bom": "\ufeff".encode(),
    "bad-lone": b"\x80", "bad-overlong-2": b"\xc0\xaf", "bad-overlong-3": b"\xe0\x80\xaf",
    "bad-overlong-4": b"\xf0\x80\x80\xaf", "bad-surrogate": b"\xed\xa0\x80", "bad-too-high": b"\xf4\x90\x80\x80",
    "bad-five": b"\xf8\x88\x80\x80\x80", "bad-cut-2": b"\xc3", "bad-cut-3": b"\xe2\x82", "bad-cut-4": b"\xf0\x9f\x98",
    "bad-interrupted": b"\xe2\x82a", "bad-ff": b"\xff",
}
for name, raw in UTF8.items():
    SEEDS[f"utf8-{name}"] = frame(TEXT, b"ab" + raw)
    SEEDS[f"utf8-{name}-split"] = b"".join(
        frame(CONT if i else TEXT, raw[i:i + 1], fin=False) for i in range(len(raw))) + frame(CONT, b"!")
SEEDS["utf8-bad-early-of-long"] = frame(TEXT, b"ok\xffmore to come", length=5000)
SEEDS["utf8-bad-late-of-64"] = frame(TEXT, b"x" * 63 + b"\xe9")
for name, raw in {"hello": b"Hello", "empty": b"", "json": b'{"type":"ping"}' * 30, "zeros": bytes(60000),
                  "bad-utf8": b"\xff\xfe", "bomb": bytes(3_000_000)}.items():
    SEEDS[f"deflate-{name}"] = frame(TEXT, deflate(raw), rsv=4)
SEEDS["deflate-final-block"] = frame(TEXT, deflate(b"Hello", final=True), rsv=4)
SEEDS["deflate-no-payload"] = frame(TEXT, b"", rsv=4)
SEEDS["deflate-garbage"] = frame(BINARY, b"\xff" * 40, rsv=4)
SEEDS["deflate-cut"] = frame(BINARY, deflate(b"cut off in the middle of it")[:9], rsv=4)
whole = deflate("fragmentiert, aber zusammen: ein Text".encode() * 3)
SEEDS["deflate-fragments"] = frame(TEXT, whole[:7], fin=False, rsv=4) + frame(PING, b"between") + frame(CONT, whole[7:])
SEEDS["deflate-then-plain"] = frame(TEXT, deflate(b"deflated"), rsv=4) + frame(TEXT, b"plain")
SEEDS["http"] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
SEEDS["cut-header"] = frame(BINARY, b"x" * 300)[:3]
SEEDS["cut-key"] = frame(BINARY, b"x" * 300)[:6]
SEEDS["cut-payload"] = frame(BINARY, b"x" * 300)[:200]
SEEDS["cut-ping"] = frame(TEXT, b"t") + frame(PING, b"x" * 100)[:50]

OUT.mkdir(parents=True, exist_ok=True)
for name, stream in SEEDS.items():
    (OUT / f"{name}.bin").write_bytes(stream)
print(len(SEEDS), "streams,", sum(map(len, SEEDS.values())), "bytes")
