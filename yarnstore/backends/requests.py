"""Requests over httpx: redirects, where credentials are sent, and how long an answer may take.

Owns the connections of one backend.  `http` and `images` decide what to request and what an answer means,
`targets` checks where a request may go, `transport` limits its time, and `translate` translates errors.
Redirects are followed here, cookies are neither kept nor sent, netrc is not read here (`settings` reads it),
and no response is decompressed.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final, Protocol

import httpx

from yarnstore.backends.base import Timeouts, short_error
from yarnstore.backends.connect import is_exposed
from yarnstore.backends.patience import Patience
from yarnstore.backends.replies import REDIRECT_STATUSES, parse_content_length
from yarnstore.backends.targets import parse_url
from yarnstore.backends.translate import FOREIGN, translating
from yarnstore.backends.transport import Transport
from yarnstore.backends.urls import origin_of, shown
from yarnstore.errors import BackendError, ConfigError, YarnstoreError

REDIRECTS_LIMIT: Final = 5
# Reading an unwanted body to its end keeps the connection; a longer one is not worth it.
DRAIN_LIMIT_BYTES: Final = 64 * 1024
_UNAUTHORIZED: Final = 401

# Returns the body of a request, each time that it is sent.
Content = Callable[[], Iterable[bytes]]


@dataclass(frozen=True)
class Answer:
    """An answer whose body is not read; `url` is shown in messages, `own` if credentials may go to it."""

    response: httpx.Response
    patience: Patience
    target: httpx.URL
    url: str
    proxy: str
    own: bool = False

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def query(self) -> str:
        return self.target.query.decode("ascii", "replace")

    def header(self, name: str) -> str:
        return str(self.response.headers.get(name, ""))


class Authorizer(Protocol):
    """The credentials for one origin."""

    def header(self) -> str:
        """Return the value of `Authorization`; empty to send none."""

    def renew(self, answer: Answer, requests: Requests) -> bool:
        """Whether the request that got this 401 answer is worth sending again, with another `header`."""


class Fixed:
    """An `Authorizer` that always sends the same value."""

    def __init__(self, value: str) -> None:
        self._value = value

    def header(self) -> str:
        """See `Authorizer`."""
        return self._value

    def renew(self, _: Answer, __: Requests) -> bool:
        """See `Authorizer`."""
        return False


class Requests:
    """The requests of one backend.

    `authorizer` has the credentials, which are sent only to the origin of `base`, and not after a redirect to
    another origin.  `ssl_context` replaces the usual certificates.  `require_https` refuses plain http, also
    in redirects, except to this machine.  `check` is called while a server is silent, and may raise to end
    the request.
    """

    def __init__(
        self,
        base: httpx.URL,
        authorizer: Authorizer,
        *,
        timeouts: Timeouts,
        ssl_context: ssl.SSLContext | None,
        trust_env: bool,
        require_https: bool,
        check: Callable[[], None] | None,
    ) -> None:
        self._check = check
        self._origin = origin_of(base)
        self._authorizer = authorizer
        self._require_https = require_https
        self._timeouts = timeouts
        self._transport = Transport(ssl_context=ssl_context, trust_env=trust_env)
        self._client = httpx.Client(
            transport=self._transport,
            trust_env=False,  # the transport has the proxies; httpx's own would bypass the checks
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            headers={"User-Agent": "yarnstore", "Accept": "*/*", "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(timeouts.stall_s, connect=timeouts.connect_s, pool=timeouts.window_s),
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    @contextmanager
    def answer(
        self,
        url: httpx.URL,
        headers: dict[str, str],
        *,
        method: str = "GET",
        content: Content | None = None,
        deadline_s: float | None = None,
        authorization: str | None = None,
    ) -> Iterator[Answer]:
        """Yield the answer to a request, whatever its status, after redirects; it is closed afterwards.

        `authorization` replaces the header of the authorizer, also for another origin.  Redirects of requests
        with a body are not followed.

        Raises: BackendError, TransientError; what `content` raises.
        """
        wait = self._timeouts
        patience = Patience(
            shown(url),
            window_s=wait.window_s,
            floor_bytes_per_s=wait.floor_bytes_per_s,
            deadline_s=deadline_s,
            check=self._check,
        )
        request = (url, headers, method, content, patience, authorization)
        answer = self._follow(*request)
        if (
            answer.status == _UNAUTHORIZED
            and answer.own
            and authorization is None
            and self._authorizer.renew(answer, self)
        ):
            drain(answer)
            answer = self._follow(*request)
        try:
            yield answer
        finally:
            with suppress(*FOREIGN):
                answer.response.close()

    def _follow(
        self,
        url: httpx.URL,
        headers: dict[str, str],
        method: str,
        content: Content | None,
        patience: Patience,
        authorization: str | None,
    ) -> Answer:
        own = authorization is not None or origin_of(url) == self._origin
        asked = shown(url)
        for _ in range(REDIRECTS_LIMIT + 1):
            value = "" if not own else self._authorizer.header() if authorization is None else authorization
            sent = {**headers, "Authorization": value} if value else headers
            answer = self._send(url, sent, method, content, patience, own=own)
            if answer.status not in REDIRECT_STATUSES:
                return answer
            drain(answer)
            if method not in ("GET", "HEAD"):
                raise BackendError(asked, "redirects an upload, which is refused", status=answer.status)
            target = answer_target(answer)
            # After a redirect to another origin, credentials are not sent again, even if it redirects back.
            own = own and origin_of(target) == origin_of(url)
            url = target
        raise BackendError(asked, f"redirects more than {REDIRECTS_LIMIT} times", status=answer.status)

    def _send(
        self,
        url: httpx.URL,
        headers: dict[str, str],
        method: str,
        content: Content | None,
        patience: Patience,
        *,
        own: bool,
    ) -> Answer:
        where = shown(url)
        if self._client.is_closed:
            raise BackendError(where, "this backend is closed")
        if self._require_https and is_exposed(url.scheme, url.host):
            raise BackendError(
                where,
                "is plain http, and `require_https` is set in config.toml",
                hint="use its https address; `require_https = false` allows plain http",
            )
        body = None if content is None else self._paced(content(), patience)
        proxy = self._transport.proxy_of(url)
        with translating(where, self._timeouts, patience, proxy), patience.waiting():
            request = self._client.build_request(method, url, headers=headers, content=body)
            response = self._client.send(request, stream=True, auth=None, follow_redirects=False)
        return Answer(response, patience, url, where, proxy, own=own)

    def _paced(self, blocks: Iterable[bytes], patience: Patience) -> Iterator[bytes]:
        """Yield what is sent; it counts as progress."""
        for block in blocks:
            if self._check is not None:
                self._check()
            patience.pay(len(block))
            yield block

    def blocks(self, answer: Answer, want: int | None) -> Iterator[bytes]:
        """Yield the body; if `want` bytes were announced, check that exactly so many arrive."""
        raw = answer.response.iter_raw()
        got = 0
        while True:
            patience = answer.patience
            with translating(answer.url, self._timeouts, patience, answer.proxy), patience.waiting():
                block = next(raw, None)
            if block is None:
                break
            got += len(block)
            answer.patience.pay(len(block))
            if want is not None and got > want:
                raise BackendError(answer.url, f"sent more than the {want} bytes it announced")
            yield block
        if want is not None and got < want:
            raise short_error(answer.url, got, want)

    def head(self, answer: Answer, limit_bytes: int) -> bytes:
        """Return the first bytes of a body, for messages; what fails is left out."""
        head = b""
        with suppress(YarnstoreError):
            for block in self.blocks(answer, None):
                head += block
                if len(head) >= limit_bytes:
                    break
        return head[:limit_bytes]


def answer_target(answer: Answer) -> httpx.URL:
    """Return the URL in the `Location` of an answer.  Raises: BackendError."""
    location = answer.header("location")
    if not location:
        raise BackendError(
            answer.url, f"redirects without a target (HTTP {answer.status})", status=answer.status
        )
    try:
        target = parse_url(location, base=answer.target)
    except ValueError as error:
        raise BackendError(
            answer.url, f"its redirect is refused: the target {error}", status=answer.status
        ) from None
    if answer.target.scheme == "https" and target.scheme != "https":
        raise BackendError(answer.url, "its redirect is refused: from https to http", status=answer.status)
    return target


def basic(login: tuple[str, str]) -> str:
    """Return the `Authorization` of a user and password.  Raises: ConfigError."""
    user, password = login
    if ":" in user:
        raise ConfigError("the user name of a registry contains a colon, which HTTP logins do not allow")
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")  # RFC 7617


def drain(answer: Answer) -> None:
    """Close a response; a short rest is read first, so that the connection can be used again."""
    length = parse_content_length(answer.header("content-length"))
    with suppress(YarnstoreError, *FOREIGN):
        if answer.status == 304 or (length is not None and length <= DRAIN_LIMIT_BYTES):
            with answer.patience.waiting():
                for _ in answer.response.iter_raw():
                    pass
    with suppress(*FOREIGN):
        answer.response.close()
