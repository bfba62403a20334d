"""Requests to one service.  Errors of httpx and problem documents become errors of this package."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import httpx
import msgspec

from yarnstore.errors import (
    CancelledError,
    FormatError,
    NotFoundError,
    ReadOnlyError,
    TransientError,
    UsageError,
    YarnstoreError,
)
from yarnstore.web.records import Job

T = TypeVar("T")
Query: TypeAlias = Mapping[str, str | int | bool | None]

API: Final = "/api/v1"
# The service writes a line at least every 25 seconds.
_SILENCE_S: Final = 60.0
_KNOWN: Final = 64
# The classes for refusals of the service itself, whose codes no other error has.
_REFUSED: Final[Mapping[int, type[YarnstoreError]]] = {
    400: UsageError,
    401: UsageError,
    403: UsageError,
    404: NotFoundError,
    405: UsageError,
    409: CancelledError,
    413: UsageError,
    431: UsageError,
}


@dataclass(frozen=True)
class StoreChanged:
    """Installed or stored versions or settings changed, perhaps by another process."""


class Connection:
    """HTTP to one service.  Safe to use from several threads."""

    def __init__(self, url: str, token: str, *, timeout_s: float, tls_ca: str | None) -> None:
        self.url = url.rstrip("/")
        try:
            context = ssl.create_default_context(cafile=tls_ca) if url.startswith("https:") else False
            self._http = httpx.Client(
                headers={"Authorization": f"Bearer {token}"},
                timeout=timeout_s,
                verify=context,
                trust_env=False,  # without the environment's proxies and logins
                limits=httpx.Limits(max_connections=None, keepalive_expiry=4.0),
            )
        except (OSError, UnicodeEncodeError) as error:
            raise UsageError(f"cannot connect to {self.url}: {error}") from None
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, bytes]] = {}  # the newest body of each address, with its ETag

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def get(self, kind: type[T], path: str, query: Query | None = None) -> T:
        """Return the response of a path below `/api/v1`; an unchanged one is not sent again."""
        return self._read(kind, path, self._get(path, query))

    def ask(
        self, kind: type[T], method: str, path: str, body: object = None, query: Query | None = None
    ) -> T:
        """Return the response to another request; `body` is sent as JSON."""
        return self._read(kind, path, self._send(method, path, body, query).content or b"null")

    def events(self, path: str) -> Iterator[Job | StoreChanged]:
        """Yield server-sent events until the service ends the stream."""
        with (
            self._translating(path),
            self._http.stream("GET", self._address(path), timeout=_SILENCE_S) as stream,
        ):
            if stream.status_code != httpx.codes.OK:
                stream.read()
                raise self._refusal(stream)
            name = ""
            for line in stream.iter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data" and name == "job":
                    yield self._read(Job, path, value.encode())
                elif field == "data" and name == "store":
                    yield StoreChanged()

    def _get(self, path: str, query: Query | None) -> bytes:
        key = str(httpx.URL(self._address(path), params=_sent(query)))
        with self._lock:
            tag, body = self._known.get(key, ("", b""))
        answer = self._send("GET", path, None, query, {"If-None-Match": tag} if tag else {})
        if answer.status_code == httpx.codes.NOT_MODIFIED:
            return body
        if tag := answer.headers.get("etag", ""):
            with self._lock:
                self._known.pop(key, None)
                self._known[key] = (tag, answer.content)
                while len(self._known) > _KNOWN:
                    del self._known[next(iter(self._known))]
        return answer.content

    def _send(
        self,
        method: str,
        path: str,
        body: object,
        query: Query | None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        given: dict[str, Any] = {} if body is None else {"json": body}
        with self._translating(path):
            answer = self._http.request(
                method, self._address(path), params=_sent(query), headers=dict(headers or {}), **given
            )
        if answer.is_success or answer.status_code == httpx.codes.NOT_MODIFIED:
            return answer
        raise self._refusal(answer)

    def _address(self, path: str) -> str:
        return self.url + (path if path.startswith(API) else API + path)

    def _read(self, kind: type[T], path: str, data: bytes) -> T:
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.MsgspecError as error:
            raise self._unreadable(path, str(error)) from None

    def _unreadable(self, path: str, why: str) -> FormatError:
        hint = "check that the address is that of `ystore serve`, and that both have the same release"
        return FormatError(f"the response to {API}{path}", why, source=self.url, hint=hint)

    @contextmanager
    def _translating(self, path: str) -> Iterator[None]:
        if self._http.is_closed:
            raise UsageError("this Client is closed", hint="create another one")
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise TransientError(
                self.url, f"the service cannot be reached: {error}", reason="unreachable"
            ) from error
        except httpx.TimeoutException as error:
            raise TransientError(self.url, f"no response to {path}", reason="stalled") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TransientError(self.url, f"the connection was lost: {error}") from error

    def _refusal(self, answer: httpx.Response) -> YarnstoreError:
        """Return the error that a problem document describes."""
        try:
            problem = json.loads(answer.content)
            code, detail, hint = problem["code"], problem["detail"], problem.get("hint", "")
            fields = dict(problem.get("fields", {}))
        except (ValueError, KeyError, TypeError):
            if answer.is_server_error:  # such as 503 of a service with too many connections, or of a proxy
                return TransientError(
                    self.url, f"the service answered HTTP {answer.status_code}",
                    status=answer.status_code, reason="busy",
                )  # fmt: skip
            return self._unreadable(
                answer.request.url.path.removeprefix(API), f"has status {answer.status_code}"
            )
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            after = answer.headers.get("retry-after", "")
            return TransientError(
                self.url, detail, hint=hint, status=answer.status_code, reason="busy",
                retry_after_s=float(after) if after.isdecimal() else 0.0,
            )  # fmt: skip
        return restored(answer.status_code, code, detail, hint, fields)


def restored(status: int, code: str, detail: str, hint: str, fields: Mapping[str, object]) -> YarnstoreError:
    """Return the error of a problem document."""
    kind = ReadOnlyError if code == "read-only-service" else _REFUSED.get(status, YarnstoreError)
    return kind.restore(code, detail, hint, fields)


def _sent(query: Query | None) -> dict[str, str]:
    """Return query parameters without None, with booleans as in JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in (query or {}).items()
        if value is not None
    }
