"""Passes requests for a face to it, all others to the application, and sends files in blocks."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import parse_qsl

from yarnstore.core.limits import MIB
from yarnstore.errors import YarnstoreError
from yarnstore.web.guard import App, Message, Receive, Scope, Send

_BLOCK_BYTES = MIB
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True)
class FaceRequest:
    """One request.  `trusted` is whether it has the token of the service; `origin` is the scheme and host
    that the client asked."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    trusted: bool
    body: bytes = b""
    origin: str = ""


class Readable(Protocol):
    """What can be read anywhere: a file of a version, or several of them."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Return some bytes of a range."""

    def close(self) -> None:
        """Free what it holds."""


@dataclass(frozen=True)
class Reply:
    """What a face answers: some bytes, or a file, of which a range may be sent.

    `size_bytes` is the length of the whole file, known also where a HEAD needs no `file`.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: Readable | None = None
    size_bytes: int | None = None


def later(wait_s: int | None) -> tuple[int, dict[str, str]]:
    """Return the status and headers for a version that is being downloaded, or could not be.

    Clients wait as long as a 429 says, and repeat the request; few do after a 503.
    """
    return (502, {}) if wait_s is None else (429, {"Retry-After": str(wait_s)})


class Face(Protocol):
    """One API of another tool."""

    def owns(self, path: str, agent: str) -> bool:
        """Whether a path belongs to this API, for a client with this `User-Agent`."""

    def answer(self, asked: FaceRequest) -> Awaitable[Reply]:
        """Answer a request; errors are replies too."""

    def stranger(self) -> Reply:
        """Return the answer to a request of another machine without the token."""


class Front:
    """An ASGI application before another; the guard is before both."""

    def __init__(self, app: App, faces: Sequence[Face]) -> None:
        self._app = app
        self._faces = faces

    def face_of(self, scope: Scope) -> Face | None:
        """Return the face that an HTTP request belongs to."""
        agent = next(
            (value.decode("latin-1") for name, value in scope["headers"] if name == b"user-agent"), ""
        )
        return next((face for face in self._faces if face.owns(scope["path"], agent)), None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        face = self.face_of(scope) if scope["type"] == "http" else None
        if face is None:
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        asked = FaceRequest(
            method=scope["method"],
            path=scope["path"],
            query=dict(parse_qsl(scope["query_string"].decode("latin-1"))),
            headers=headers,
            trusted=scope["ystore_client"] == "trusted",
            body=await _body(receive),
            origin=f"{scope['scheme']}://{headers['host']}",
        )
        reply = face.stranger() if scope["ystore_client"] == "stranger" else await face.answer(asked)
        await _send(asked, reply, receive, send)


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    return b"".join(parts)


def wanted_range(asked: FaceRequest, tag: str, size_bytes: int) -> tuple[int, int] | None:
    """Return the range `(start, length)` that a request wants; None for the whole, (-1, 0) for one outside.

    Several ranges, and a range of another content, are answered with the whole.
    """
    match = _RANGE.fullmatch(asked.headers.get("range", ""))
    if match is None or match[0] == "bytes=-":
        return None
    if "if-range" in asked.headers and asked.headers["if-range"].strip('"') != tag:
        return None
    first, last = match.groups()
    if not first:
        length = min(int(last), size_bytes)
        return (size_bytes - length, length) if length else (-1, 0)
    start = int(first)
    end = min(int(last) if last else size_bytes - 1, size_bytes - 1)
    if start >= size_bytes:
        return -1, 0
    return (start, end - start + 1) if end >= start else None


async def _send(asked: FaceRequest, reply: Reply, receive: Receive, send: Send) -> None:
    status, headers = reply.status, {name.lower(): _safe(value) for name, value in reply.headers.items()}
    length = start = 0
    if reply.size_bytes is None:
        length = len(reply.body)
    else:
        tag = headers.get("etag", "").strip('"')
        length = reply.size_bytes
        headers["accept-ranges"] = "bytes"
        if tag and tag in [known.strip().strip('"') for known in _known_tags(asked)]:
            status, length = 304, 0
        elif (found := wanted_range(asked, tag, reply.size_bytes)) is not None:
            start, length = found
            status = 206 if length else 416
            where = f"{start}-{start + length - 1}" if length else "*"
            headers["content-range"] = f"bytes {where}/{reply.size_bytes}"
    if status != 304:
        headers["content-length"] = str(length)
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    if asked.method == "HEAD" or reply.file is None or not length:
        if reply.file is not None:
            reply.file.close()
        body = b"" if asked.method == "HEAD" else reply.body
        await send({"type": "http.response.body", "body": body})
        return
    await _send_file(reply.file, (start, length), receive, send)


def _known_tags(asked: FaceRequest) -> list[str]:
    return [tag.strip().removeprefix("W/") for tag in asked.headers.get("if-none-match", "").split(",")]


async def _send_file(file: Readable, part: tuple[int, int], receive: Receive, send: Send) -> None:
    """Send a range of a file, each block after it was verified; an error cuts the connection."""
    start, left = part
    gone = asyncio.ensure_future(_gone(receive))
    try:
        while left and not gone.done():
            data = await asyncio.to_thread(file.read_at, start, min(left, _BLOCK_BYTES))
            start, left = start + len(data), left - len(data)
            message: Message = {"type": "http.response.body", "body": data, "more_body": left > 0}
            await send(message)
    except YarnstoreError as error:
        print(f"a download was interrupted: {error.message}", file=sys.stderr)
    finally:
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone
        await asyncio.to_thread(file.close)


async def _gone(receive: Receive) -> None:
    """Wait until the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _safe(text: str) -> str:
    """Return a text as the value of a header, which has no lines and no characters beyond Latin-1."""
    return "".join(char if char.isprintable() and ord(char) < 256 else "?" for char in text)
