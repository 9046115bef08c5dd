"""An echo server of PyPI `websockets`; see tests/support/backend.rs. `echo.py [PORT]` listens on 127.0.0.1."""

import asyncio
import json
import re
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


def tell(**event):
    print(json.dumps(event), flush=True)


def choose(connection, offered):
    return "chat.v2" if "chat.v2" in offered else next(iter(offered), None)


def refuse(connection, request):
    if refused := re.search(r"refuse-(\d+)", request.path):
        response = connection.respond(int(refused[1]), "not here")
        response.headers["X-Reason"] = "told so"
        return response


async def echo(connection):
    request = connection.request
    tell(
        event="open",
        path=request.path,
        headers={name.lower(): ", ".join(request.headers.get_all(name)) for name in request.headers},
        protocol=connection.subprotocol or "",
        extensions=", ".join(extension.name for extension in connection.protocol.extensions),
    )
    sizes = []
    try:
        async for message in connection:
            if len(sizes) < 8:
                sizes.append(len(message))
            close = isinstance(message, str) and re.match(r"close (\d+) ?(.*)$", message[:200])
            if close:
                await connection.close(int(close[1]), close[2])
            else:
                await connection.send(message)
    except ConnectionClosed:
        pass
    tell(event="close", code=connection.close_code, reason=connection.close_reason, sizes=sizes)


async def main():
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    async with serve(
        echo, "127.0.0.1", port, max_size=64 << 20, select_subprotocol=choose, process_request=refuse, ping_interval=None
    ) as server:
        tell(event="listening", port=server.sockets[0].getsockname()[1])
        await server.serve_forever()


asyncio.run(main())
