"""Connections that send no request are closed; those that wait for an answer are not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs the extra: pip install 'yarnstore[web]'")

PATIENCE_S = 30.0
BODY = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"


async def _app(_: Any, receive: Any, send: Any) -> None:
    await receive()
    await asyncio.sleep(1.0)  # longer than a request may take to arrive
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def _talk(said: bytes, *, then: bytes = b"") -> bytes:
    """What comes back until the connection is closed; `then` is said after the first answer."""
    import uvicorn
    from uvicorn.server import ServerState

    from yarnstore.web.protocol import TimedProtocol

    class Hasty(TimedProtocol):
        request_s = 0.2

    config = uvicorn.Config(_app, log_config=None, access_log=False, ws="none", timeout_keep_alive=60)
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Hasty(config, ServerState(), {}), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(said)
        found = b""
        if then:
            found = await asyncio.wait_for(reader.readuntil(b"ok"), PATIENCE_S)
            writer.write(then)
        found += await asyncio.wait_for(reader.read(), PATIENCE_S)
        writer.close()
        await writer.wait_closed()
    return found


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX: ", BODY])
def test_a_connection_without_a_request_is_closed(said: bytes) -> None:
    assert asyncio.run(_talk(said)) == b""


def test_an_answer_may_take_longer_and_the_next_request_may_not() -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n"
    found = asyncio.run(_talk(request + b"\r\n", then=request))
    assert found.startswith(b"HTTP/1.1 200")
    assert found.endswith(b"ok")
