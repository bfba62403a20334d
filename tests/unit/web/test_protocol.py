"""Connections that send no request are closed; those that wait for an answer are not."""

from __future__ import annotations

import asyncio
import contextlib
import json
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


async def _talk(said: bytes, *, then: bytes = b"", beside: int = 0) -> bytes:
    """What comes back until the connection is closed; `then` is said after the first answer.

    With other connections open `beside`, of which two may be, a request is not hurried.
    """
    import uvicorn
    from uvicorn.server import ServerState

    from yarnstore.web.protocol import TimedProtocol

    class Hasty(TimedProtocol):
        request_s = 0.2 if beside == 0 else 60.0
        most = 2

    config = uvicorn.Config(_app, log_config=None, access_log=False, ws="none", timeout_keep_alive=60)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Hasty(config, state, {}), "127.0.0.1", 0)
    async with server:
        place = server.sockets[0].getsockname()
        others = [await asyncio.open_connection(*place) for _ in range(beside)]
        reader, writer = await asyncio.open_connection(*place)
        writer.write(said)
        found = b""
        if then:
            found = await asyncio.wait_for(reader.readuntil(b"ok"), PATIENCE_S)
            writer.write(then)
        found += await asyncio.wait_for(reader.read(), PATIENCE_S)
        for each in (writer, *(other for _, other in others)):
            each.close()
    return found


def problem_of(answer: bytes) -> tuple[int, str]:
    """The status and the code of a problem document."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"x-content-type-options: nosniff" in head
    return int(head.split()[1]), json.loads(body)["code"]


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX: ", BODY])
def test_a_connection_without_a_request_is_closed(said: bytes) -> None:
    assert asyncio.run(_talk(said)) == b""


def test_an_answer_may_take_longer_and_the_next_request_may_not() -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n"
    found = asyncio.run(_talk(request + b"\r\n", then=request))
    assert found.startswith(b"HTTP/1.1 200")
    assert found.endswith(b"ok")


REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_connections_above_the_limit_are_refused_with_a_problem_and_of_twice_as_many_none_is_kept() -> None:
    assert problem_of(asyncio.run(_talk(REQUEST, beside=3))) == (503, "too-many-connections")
    with contextlib.suppress(ConnectionResetError):  # if the request was on its way
        assert asyncio.run(_talk(REQUEST, beside=4)) == b""


@pytest.mark.parametrize("said", [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n", b"junk\r\n\r\n"])
def test_what_is_no_request_is_answered_with_a_problem(said: bytes) -> None:
    assert problem_of(asyncio.run(_talk(said + b"\r\n\r\n"))) == (400, "bad-request")
