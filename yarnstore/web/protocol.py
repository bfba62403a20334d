"""HTTP/1.1 of uvicorn, with limits on connections and on how long a request may take to arrive."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from yarnstore.web import problems
from yarnstore.web.guard import Receive, Scope, Send, answer, document

_CLOSE = (b"connection", b"close")


async def _too_many(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    fault = problems.problem(503, "too-many-connections", "too many connections are open")
    await answer(send, fault, [_CLOSE, (b"retry-after", b"3")], body=scope["method"] != "HEAD")


class TimedProtocol(H11Protocol):
    """A connection that is closed if no request is complete in time.

    Otherwise connections that send nothing, or one byte now and then, would stay open, and a few hundred of
    them would block all other clients.  The limit is for the head and the body, which is at most 1 MiB.
    There is no limit on how long a response takes.

    A connection above `most` gets 503; of twice as many, none is accepted, since the store needs file
    descriptors too.
    """

    request_s: ClassVar[float] = 10.0
    most: ClassVar[int] = 256
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self.logger.warning("too many connections are open; further ones are refused")
            self.app = _too_many
        if len(self.connections) > 2 * self.most:
            transport.abort()
            return
        self._watch()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer what is no HTTP/1.1 with a problem document, unless an answer is on its way."""
        if self.cycle is None or self.cycle.response_complete:
            fault = problems.problem(400, "bad-request", "this is not a valid request of HTTP/1.1")
            headers, data = document(fault, [_CLOSE])
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=data),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing of a client that would prefer another protocol."""

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Start the timer, unless a whole request is being processed."""
        whole = self.conn.their_state is not h11.SEND_BODY
        if whole and self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.request_s, self.transport.close)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
