"""The guard of the service, which checks every request first.

It refuses: a Host that is not the service's own, which a foreign page could have by DNS rebinding
(CVE-2024-28224); a foreign Origin; a request without the token or a session, except for `/health` and the
login page (CVE-2025-63389); bodies and rates above the limits; in read-only mode, all changes.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, TypeAlias

import msgspec

from yarnstore.core.jsonable import jsonable
from yarnstore.core.limits import MIB
from yarnstore.web import problems
from yarnstore.web.access import Access
from yarnstore.web.records import ProblemDetails

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

BODY_LIMIT_BYTES = MIB
HEADER_LIMIT_BYTES = 32 * 1024
RATE_PER_S = 100.0
BURST = 400.0
# Wrong tokens; 256 bits cannot be guessed at any rate; the limit keeps a log of failures readable.
_WRONG_PER_S = 1.0
_WRONG_BURST = 20.0

# Clients of faces ask for many files, each with two requests.
_FACES_PER_S = 1000.0
_FACES_BURST = 4000.0

LOGIN = "/login"
HEALTH = "/health"
# A POST to these changes nothing; a comparison reads stored versions.
READING = tuple(
    f"/api/v1/{name}"
    for name in (
        "commands/check_model_updates", "commands/list_installed_models", "commands/get_model_registry",
        "commands/get_model_version_history", "diff", "login-links",
    )
)  # fmt: skip
_SAFE = ("GET", "HEAD")
# Other programs change the free disk space all the time.
_FREE = re.compile(rb'"free_bytes":(\d+)')
_PROXIES = (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip")
_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS: Headers = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


@dataclass
class Bucket:
    """A rate limit: at most `burst` at once, and `per_s` per second in the long run."""

    per_s: float
    burst: float
    clock: Callable[[], float] = time.monotonic
    _level: float = 0.0
    _at: float = 0.0

    def take(self) -> bool:
        """Whether one more request is within the limit."""
        now = self.clock()
        self._level = max(0.0, self._level - (now - self._at) * self.per_s)
        self._at = now
        if self._level + 1 > self.burst:
            return False
        self._level += 1
        return True


@dataclass
class Guard:
    """An ASGI application around another; `public` are the paths that need no token.

    `hosts` are the accepted values of `Host`; `scheme` is that of the service's origins, or https for those
    in `proxied`, which a proxy may serve with TLS; a POST to the paths in `reading` changes nothing.

    `is_face` tells the requests for faces, which decide themselves what a client without the token may read;
    `ystore_client` in the scope says what it is: `trusted` has the token, `local` is a program of this
    machine, `stranger` anybody else.
    """

    app: App
    access: Access
    hosts: frozenset[str]
    scheme: str = "http"
    proxied: frozenset[str] = frozenset()
    public: frozenset[str] = frozenset({LOGIN, HEALTH})
    read_only: bool = False
    is_face: Callable[[Scope], bool] = lambda _: False
    reading: frozenset[str] = frozenset({LOGIN, *READING})
    rate: Bucket = field(default_factory=lambda: Bucket(RATE_PER_S, BURST))
    strangers: Bucket = field(default_factory=lambda: Bucket(RATE_PER_S, BURST))
    wrong: Bucket = field(default_factory=lambda: Bucket(_WRONG_PER_S, _WRONG_BURST))
    faces: Bucket = field(default_factory=lambda: Bucket(_FACES_PER_S, _FACES_BURST))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        fault, extra = self._refusal(scope)
        if fault is not None:
            await answer(send, fault, extra, body=scope["method"] != "HEAD")
            return
        if scope["method"] == "HEAD" and "ystore_client" not in scope:
            scope, send = _as_get(scope), _without_body(send)
        receiver = _Limited(receive, scope)
        sender = _Sender(send, scope, receiver)
        try:
            await self.app(scope, receiver, sender)
        except CutShortError:
            return  # nobody waits for the answer
        except TooLargeError:
            await answer(send, problems.too_large())

    def _refusal(self, scope: Scope) -> tuple[ProblemDetails | None, Headers]:
        """Return why a request is refused, with headers of the response; None if it is accepted."""
        names: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            names.setdefault(name.lower(), []).append(value)
        method, path = scope["method"], scope["path"]
        if sum(len(name) + len(value) for name, value in scope["headers"]) > HEADER_LIMIT_BYTES:
            return problems.problem(431, "headers-too-large", "the headers are larger than 32 KiB"), []
        host = _only(names, b"host")
        if host is None or host.lower() not in self.hosts:
            detail = "the Host header is not an address of this service"
            return problems.problem(403, "bad-host", detail, hint="allow it with --allow-host"), []
        if not self._own_origin(names):
            detail = "the request comes from a page of another origin"
            return problems.problem(403, "bad-origin", detail), []
        length = _only(names, b"content-length")
        if length is not None and (not length.isdecimal() or int(length) > BODY_LIMIT_BYTES):
            return problems.too_large(), []
        if self.is_face(scope):
            if not self.faces.take():
                return _too_many()
            scope["ystore_client"] = self._client(scope, names, host)
            return None, []
        fault = self._stranger(names, method, path)
        # Requests of foreign pages, such as for pictures, do not count towards the limit of our own pages.
        if not (self.rate if fault is None else self.strangers).take():
            return _too_many()
        if fault is not None and path not in self.public:
            return fault
        if self.read_only and method not in _SAFE and path not in self.reading:
            detail = "this service is read-only: it was started with --read-only"
            return problems.problem(403, "read-only-service", detail), []
        return None, []

    def _client(self, scope: Scope, names: dict[bytes, list[bytes]], host: str) -> str:
        """Return what the client of a face is; another `Authorization` than ours is that of no token."""
        given = _only(names, b"authorization")
        if given is not None and (self.access.is_bearer(given) or self.access.is_basic(given)):
            return "trusted"
        # A proxy on this machine passes on requests of others.
        proxied = any(name in names for name in _PROXIES)
        site = _only(names, b"sec-fetch-site")
        local = _is_loopback((scope.get("client") or ("",))[0]) and _is_loopback(_host_name(host))
        return "local" if local and not proxied and site in (None, "none", "same-origin") else "stranger"

    def _own_origin(self, names: dict[bytes, list[bytes]]) -> bool:
        """Whether the request has no foreign origin, by the browser's headers."""
        if b"origin" not in names:
            return True
        origin = _only(names, b"origin")
        ours = {f"{self.scheme}://{host}" for host in self.hosts} | {
            f"https://{host}" for host in self.proxied
        }
        return origin is not None and origin.lower() in ours

    def _stranger(
        self, names: dict[bytes, list[bytes]], method: str, path: str
    ) -> tuple[ProblemDetails, Headers] | None:
        """Return the refusal of a request without a valid token or session; None if it has one."""
        given = _only(names, b"authorization")
        if given is not None and self.access.is_bearer(given):
            return None
        cookies = "; ".join(value.decode("latin-1") for value in names.get(b"cookie", []))
        session = self.access.session_in(cookies) if cookies else ""
        if session:
            # Browsers also send cookies with requests from pages at other ports of this host.
            site = _only(names, b"sec-fetch-site")
            navigates = method in _SAFE and _only(names, b"sec-fetch-mode") == "navigate"
            if site not in (None, "same-origin", "none") and not navigates:
                return problems.problem(
                    403, "bad-origin", "the request comes from a page of another site"
                ), []
            if method not in _SAFE and b"origin" not in names and site is None:
                return problems.problem(
                    403, "bad-origin", "a request with a session cookie needs an Origin header"
                ), []
            return None
        if given is not None and not self.wrong.take():
            return problems.problem(429, "too-many-requests", "too many wrong tokens"), [
                (b"retry-after", b"10")
            ]
        if path == "/" and method in _SAFE:
            return problems.problem(303, "login", "log in first"), [(b"location", LOGIN.encode())]
        detail = "the token is missing or wrong"
        hint = "send `Authorization: Bearer TOKEN`, or log in with the address that `ystore serve` printed"
        return problems.problem(401, "unauthorized", detail, hint=hint), [
            (b"www-authenticate", b'Bearer realm="ystore"')
        ]


def _too_many() -> tuple[ProblemDetails, Headers]:
    return problems.problem(429, "too-many-requests", "too many requests"), [(b"retry-after", b"1")]


def _host_name(host: str) -> str:
    """Return the name in a `Host` header, without the port and the brackets of IPv6."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _is_loopback(name: str) -> bool:
    """Whether a name or an address is this machine's own."""
    return name.lower() == "localhost" or name == "::1" or name.startswith(("127.", "::ffff:127."))


def _only(names: dict[bytes, list[bytes]], name: bytes) -> str | None:
    """Return the value of a header; None if it is missing or occurs twice."""
    found = names.get(name, [])
    return found[0].decode("latin-1") if len(found) == 1 else None


def _as_get(scope: Scope) -> Scope:
    """Return the GET whose headers answer a HEAD; a stream of events, which is endless, is answered with 405.

    Neither does a HEAD use up a login link, since programs check links before a browser opens them.
    """
    if scope["path"].rstrip("/").endswith("/events"):
        return scope
    query = b"" if scope["path"] == LOGIN else scope["query_string"]
    return {**scope, "method": "GET", "query_string": query}


def _without_body(send: Send) -> Send:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return sender


class TooLargeError(Exception):
    """A body without a length, or longer than its header said, is above the limit."""


class CutShortError(Exception):
    """The connection was closed before the whole body arrived."""


class _Limited:
    """`receive` with a limit on the body."""

    def __init__(self, receive: Receive, scope: Scope) -> None:
        self._receive = receive
        self._left = BODY_LIMIT_BYTES
        self._is_whole = scope["method"] in _SAFE

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise TooLargeError
            self._is_whole = self._is_whole or not message.get("more_body", False)
        elif not self._is_whole:
            raise CutShortError
        return message


class _Sender:
    """`send` with our headers; a JSON response to a GET gets an ETag, and is omitted if the client has it."""

    def __init__(self, send: Send, scope: Scope, receive: Receive) -> None:
        self._send = send
        self._receive = receive
        self._known = {
            tag.strip().removeprefix(b"W/")
            for name, value in scope["headers"]
            if name.lower() == b"if-none-match"
            for tag in value.split(b",")
        }
        self._may_tag = scope["method"] == "GET" and scope["path"].startswith("/api/")
        self._start: Message | None = None
        self._parts: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: Headers = list(message.get("headers", []))
            names = {name.lower(): value for name, value in headers}
            headers += [pair for pair in [_date(), *_HEADERS] if pair[0] not in names]
            if b"cache-control" not in names:
                headers.append((b"cache-control", b"no-cache" if self._may_tag else b"no-store"))
            start = {**message, "headers": headers}
            tagged = self._may_tag and message["status"] == 200 and b"etag" not in names
            if tagged and names.get(b"content-type", b"").startswith(b"application/"):
                self._start = start
                return
            await self._send(start)
            return
        if message["type"] == "http.response.body" and self._start is not None:
            self._parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                await self._finish(self._start, b"".join(self._parts))
            return
        await self._send(message)

    async def _finish(self, start: Message, body: bytes) -> None:
        tag = _tag(body)
        headers = [*start["headers"], (b"etag", tag)]
        if self._known & {tag.removeprefix(b"W/"), b"*"}:
            dropped = (b"content-length", b"content-type")
            headers = [pair for pair in headers if pair[0].lower() not in dropped]
            await self._send({**start, "status": 304, "headers": headers})
            await self._send({"type": "http.response.body", "body": b""})
            return
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _tag(body: bytes) -> bytes:
    """Return the ETag of a body: a weak one, of free disk space in two digits, if the body has it."""
    rounded = _FREE.sub(lambda found: b"%.1e" % int(found[1]), body)
    tag = b'"' + hashlib.blake2b(rounded, digest_size=12).hexdigest().encode() + b'"'
    return tag if rounded == body else b"W/" + tag


def _date() -> tuple[bytes, bytes]:
    return b"date", formatdate(usegmt=True).encode()


async def answer(
    send: Send, fault: ProblemDetails, extra: Iterable[tuple[bytes, bytes]] = (), *, body: bool = True
) -> None:
    """Send a problem document, outside of any application."""
    headers, data = document(fault, extra)
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": data if body else b""})


def document(fault: ProblemDetails, extra: Iterable[tuple[bytes, bytes]] = ()) -> tuple[Headers, bytes]:
    """Return the headers and the body of a problem document."""
    data = b"" if fault.status == 303 else msgspec.json.encode(jsonable(fault))
    headers = [
        (b"content-type", problems.MEDIA_TYPE.encode()),
        (b"content-length", str(len(data)).encode()),
        (b"cache-control", b"no-store"),
        _date(),
        *_HEADERS,
        *extra,
    ]
    return headers, data
