"""A client of PyPI `websockets`; see tests/support/backend.rs. `client.py URL SCENARIO` prints one line of JSON."""

import asyncio
import hashlib
import json
import os
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

url, scenario = sys.argv[1:3]
token = os.environ.get("WSGATE_TEST_TOKEN")
protocols = [name for name in os.environ.get("WSGATE_TEST_PROTOCOLS", "").split(",") if name]
options = {"max_size": 64 << 20, "ping_interval": None, "proxy": None}
if ca := os.environ.get("WSGATE_TEST_CA"):
    options["ssl"] = ssl.create_default_context(cafile=ca)
    options["ssl"].verify_flags &= ~ssl.VERIFY_X509_STRICT  # a self-signed certificate is its own root
if origin := os.environ.get("WSGATE_TEST_ORIGIN"):
    options["origin"] = origin
if scenario in ("rooms", "listen", "recover", "typing"):
    protocols += ["rooms.v1", "bearer", token]


async def message(socket, kind):
    while True:
        received = json.loads(await socket.recv())
        if received["type"] == kind:
            return received


async def say(socket, kind, payload):
    await socket.send(json.dumps({"type": kind, "payload": payload}))


async def echo(socket):
    large = os.urandom(1 << 20)
    sent = ["hello", "", "gr\u00fc\u00df dich \U0001f600", b"", bytes([0, 255, 128]), large, "x" * 100_000]
    for data in sent:
        await socket.send(data)
        assert await socket.recv() == data, "what came back differs"
    await socket.send(["frag", "", "ments"])
    assert await socket.recv() == "fragments"
    await (await socket.ping(b"between"))
    return {"messages": len(sent) + 1, "digest": hashlib.sha256(large).hexdigest()}


async def rooms(socket):
    established = await message(socket, "connection_established")
    await say(socket, "join_room", {"room_id": "peers"})
    joined = await message(socket, "room_joined")
    await say(socket, "message", {"room_id": "peers", "message": {"text": "from python"}})
    chat = await message(socket, "chat_message")
    await say(socket, "leave_room", {"room_id": "peers"})
    await message(socket, "room_left")
    return {"client_id": established["payload"]["client_id"], "joined": joined["payload"], "chat": chat["payload"]}


async def listen(socket):
    """Reads a room up to a message that is null; of each text it gives length and a sum of its bytes."""
    await message(socket, "connection_established")
    await say(socket, "join_room", {"room_id": "peers"})
    texts = []
    while (text := (await message(socket, "chat_message"))["payload"]["message"]) is not None:
        checksum = 0
        for byte in text.encode():
            checksum = (checksum * 31 + byte) % 2**32
        texts.append([len(text.encode()), checksum])
    return {"messages": len(texts), "texts": texts}


async def recover(socket):
    """Is cut off after the first message of a room, comes back, and recovers up to a message that is null."""
    await message(socket, "connection_established")
    await say(socket, "join_room", {"room_id": "peers"})
    since = (await message(socket, "chat_message"))["payload"]["position"]
    socket.transport.abort()
    async with connect(url, subprotocols=protocols, **options) as back:
        await message(back, "connection_established")
        await say(back, "join_room", {"room_id": "signal"})
        await message(back, "chat_message")
        await say(back, "join_room", {"room_id": "peers", "since": since})
        recovered = (await message(back, "room_joined"))["payload"]["recovered"]
        messages = []
        while (chat := (await message(back, "chat_message"))["payload"])["message"] is not None:
            messages.append([chat["position"]["offset"], chat["message"]])
    return {"recovered": recovered, "messages": messages}


async def typing(socket):
    """Types, and waits until another has begun to type and has stopped."""
    await message(socket, "connection_established")
    await say(socket, "join_room", {"room_id": "peers"})
    await message(socket, "room_joined")
    await say(socket, "typing_start", {"room_id": "peers"})
    started = await message(socket, "typing_start")
    stopped = await message(socket, "typing_stop")
    await say(socket, "typing_stop", {"room_id": "peers"})
    return {"started": started["payload"], "stopped": stopped["payload"]}


async def end(socket):
    """Waits for the end, whoever makes it."""
    try:
        while True:
            await socket.recv()
    except ConnectionClosed as closed:
        return {"code": closed.rcvd.code if closed.rcvd else 1006, "reason": closed.rcvd.reason if closed.rcvd else ""}


async def main():
    try:
        async with connect(url, subprotocols=protocols or None, **options) as socket:
            scenarios = {"echo": echo, "rooms": rooms, "listen": listen, "recover": recover, "typing": typing, "end": end}
            result = await scenarios[scenario](socket)
            if scenario != "end":
                await socket.close(1000, "done")
                extensions = ", ".join(extension.name for extension in socket.protocol.extensions)
                result |= {"protocol": socket.subprotocol, "extensions": extensions, "close": socket.close_code}
    except InvalidStatus as refused:
        result = {"status": refused.response.status_code}
    print(json.dumps(result))


asyncio.run(main())
