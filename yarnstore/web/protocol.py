"""HTTP/1.1 of uvicorn, with a limit on how long a request may take to arrive."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class TimedProtocol(H11Protocol):
    """A connection that is closed if no request is complete in time.

    Otherwise connections that send nothing, or one byte now and then, would stay open, and a few hundred of
    them would block all other clients.  The limit is for the head and the body, which is at most 1 MiB.
    There is no limit on how long a response takes.
    """

    request_s: ClassVar[float] = 10.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        self._watch()

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
