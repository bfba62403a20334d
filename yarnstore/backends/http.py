"""A registry on a web server, over httpx.

Owns requests, redirects and where credentials are sent.  `replies` interprets responses, `targets` checks
where a request may go, `transport` limits how long it may take, and `translate` translates errors. Redirects
are followed here, cookies are neither kept nor sent, netrc is not read here (`settings` reads it), and no
response is decompressed.
"""

from __future__ import annotations

import base64
import itertools
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx

from yarnstore.backends.base import (
    Body,
    Fetched,
    Timeouts,
    check_key,
    check_range,
    oversize_error,
    short_error,
)
from yarnstore.backends.connect import is_exposed
from yarnstore.backends.pages import (
    HEAD_BYTES,
    expired_error,
    is_never_page,
    looks_like_page,
    page_error,
    speaks_tls,
)
from yarnstore.backends.replies import (
    REDIRECT_STATUSES,
    check_partial,
    parse_content_length,
    parse_etag,
    parse_unsatisfied_range,
    status_error,
)
from yarnstore.backends.targets import UserinfoError, join_key, parse_url
from yarnstore.backends.translate import FOREIGN, https_hint, translating
from yarnstore.backends.transport import Patience, Transport
from yarnstore.backends.trust import usual_trust
from yarnstore.backends.urls import origin_of, shown
from yarnstore.errors import BackendError, ConfigError, UsageError, YarnstoreError

REDIRECTS_LIMIT: Final = 5
# Reading an unwanted body to its end keeps the connection; a longer one is not worth it.
DRAIN_LIMIT_BYTES: Final = 64 * 1024

_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_TOKEN: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)


@dataclass(frozen=True)
class _Answer:
    response: httpx.Response
    patience: Patience
    url: str
    query: str
    proxy: str

    @property
    def status(self) -> int:
        return self.response.status_code

    def header(self, name: str) -> str:
        return str(self.response.headers.get(name, ""))


class HttpBackend:
    """A `Backend` over http(s).

    A key is a path below `base_url`, or an absolute http(s) URL: registries name other origins in
    `download_url`.  `token` is sent as a bearer token, or `login` (user, password) by the Basic scheme, only
    to the origin of `base_url`, and not after a redirect to another origin.  `ssl_context` replaces the usual
    certificates.  `require_https` refuses plain http, also in redirects, except to this machine. `check` is
    called while a server is silent, and may raise to end the request.

    Raises: UsageError for an invalid `base_url`, ConfigError if `token` or a proxy is unusable.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        login: tuple[str, str] | None = None,
        timeouts: Timeouts | None = None,
        ssl_context: ssl.SSLContext | None = None,
        trust_env: bool = True,
        require_https: bool = False,
        check: Callable[[], None] | None = None,
    ) -> None:
        self._check = check
        self._base = _parse_base(base_url)
        self.url = shown(self._base)
        if token is not None and not _TOKEN.fullmatch(token):
            raise ConfigError(
                "the token is empty, or contains a space or a character that headers do not allow"
            )
        self._authorization = f"Bearer {token}" if token else _basic(login) if login else ""
        self._require_https = require_https
        self._timeouts = timeouts or Timeouts()
        wait = self._timeouts
        self._transport = Transport(ssl_context=ssl_context, trust_env=trust_env)
        self._client = httpx.Client(
            transport=self._transport,
            trust_env=False,  # the transport has the proxies; httpx's own would bypass the checks
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            headers={"User-Agent": "yarnstore", "Accept": "*/*", "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(
                connect=wait.connect_s, read=wait.stall_s, write=wait.stall_s, pool=wait.window_s
            ),
        )

    def get(self, key: str, *, limit_bytes: int, etag: str = "") -> Fetched | None:
        """See `Backend.get`.  The request, redirects included, must end within `Timeouts.get_s`."""
        known = parse_etag(etag)
        headers = {"If-None-Match": known} if known else {}
        with self._answer(key, headers, deadline_s=self._timeouts.get_s) as answer:
            if answer.status == 304 and known:
                _drain(answer)
                return None
            if answer.status != 200:
                raise self._refusal(answer)
            blocks, want = self._whole(key, answer)
            if want is not None and want > limit_bytes:
                raise oversize_error(answer.url, limit_bytes)
            data = bytearray()
            for block in blocks:
                data += block
                if len(data) > limit_bytes:
                    raise oversize_error(answer.url, limit_bytes)
            return Fetched(bytes(data), parse_etag(answer.header("etag")))

    @contextmanager
    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[Body]:
        """See `Backend.open`.

        A 206 response with another range than the requested one is discarded as a TransientError of status
        206; see `replies.check_partial`.
        """
        check_range(start, length)
        ranged = start > 0 or length is not None
        last = "" if length is None else start + length - 1
        headers = {"Range": f"bytes={start}-{last}"} if ranged else {}
        with self._answer(key, headers) as answer:
            if answer.status == 206 and ranged:
                self._check_encoding(answer)
                want, total = check_partial(answer.response.headers, answer.url, start, length)
                yield Body(start, total, self._blocks(answer, want))
            elif answer.status == 200:
                blocks, whole = self._whole(key, answer)
                yield Body(0, whole, blocks, ignores_ranges=ranged)
            elif answer.status == 416 and parse_unsatisfied_range(answer.header("content-range")) == start:
                _drain(answer)
                yield Body(start, start, iter(()))
            else:
                raise self._refusal(answer)

    def close(self) -> None:
        """See `Backend.close`."""
        self._client.close()

    @contextmanager
    def _answer(
        self, key: str, headers: dict[str, str], *, deadline_s: float | None = None
    ) -> Iterator[_Answer]:
        """Yield the response to a GET, whatever its status, after redirects; it is closed afterwards."""
        url = self._locate(key)
        wait = self._timeouts
        patience = Patience(
            shown(url),
            window_s=wait.window_s,
            floor_bytes_per_s=wait.floor_bytes_per_s,
            deadline_s=deadline_s,
            check=self._check,
        )
        answer = self._follow(url, headers, patience)
        try:
            yield answer
        finally:
            with suppress(*FOREIGN):
                answer.response.close()

    def _locate(self, key: str) -> httpx.URL:
        if not _ABSOLUTE.match(key):
            return join_key(self._base, check_key(key))
        try:
            return parse_url(key)
        except ValueError as error:
            raise BackendError(shown(key)[:200], f"this download address {error}") from None

    def _follow(self, url: httpx.URL, headers: dict[str, str], patience: Patience) -> _Answer:
        own = origin_of(url) == origin_of(self._base)
        asked = shown(url)
        for _ in range(REDIRECTS_LIMIT + 1):
            answer = self._send(url, headers, patience, own=own)
            if answer.status not in REDIRECT_STATUSES:
                return answer
            _drain(answer)
            target = _redirect_target(url, answer)
            # After a redirect to another origin, credentials are not sent again, even if it redirects back.
            own = own and origin_of(target) == origin_of(url)
            url = target
        raise BackendError(asked, f"redirects more than {REDIRECTS_LIMIT} times", status=answer.status)

    def _send(self, url: httpx.URL, headers: dict[str, str], patience: Patience, *, own: bool) -> _Answer:
        where = shown(url)
        if self._client.is_closed:
            raise BackendError(where, "this backend is closed")
        if self._require_https and is_exposed(url.scheme, url.host):
            raise BackendError(
                where,
                "is plain http, and `require_https` is set in config.toml",
                hint="use its https address; `require_https = false` allows plain http",
            )
        credentials = {"Authorization": self._authorization} if own and self._authorization else {}
        proxy = self._transport.proxy_of(url)
        with translating(where, self._timeouts, patience, proxy), patience.waiting():
            request = self._client.build_request("GET", url, headers={**headers, **credentials})
            response = self._client.send(request, stream=True, auth=None, follow_redirects=False)
        return _Answer(response, patience, where, url.query.decode("ascii", "replace"), proxy)

    def _blocks(self, answer: _Answer, want: int | None) -> Iterator[bytes]:
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

    def _whole(self, key: str, answer: _Answer) -> tuple[Iterator[bytes], int | None]:
        """Return the body of a 200 response, and its announced length.

        Raises: BackendError if it is encoded, or is a web page in place of a registry's file.
        """
        content_type = answer.header("content-type")
        if not is_never_page(key):
            self._check_encoding(answer)
            want = parse_content_length(answer.header("content-length"))
            return self._blocks(answer, want), want
        if answer.header("content-encoding") and looks_like_page(b"page", content_type):
            raise page_error(answer.url, key, answer.status)
        self._check_encoding(answer)
        want = parse_content_length(answer.header("content-length"))
        blocks = self._blocks(answer, want)
        head: list[bytes] = []
        for block in blocks:
            head.append(block)
            begun = b"".join(head)
            if begun.strip()[:1] not in (b"", b"<") or len(begun) >= HEAD_BYTES:
                break  # usually the first block shows it
        if looks_like_page(b"".join(head)[:HEAD_BYTES], content_type):
            raise page_error(answer.url, key, answer.status)
        return itertools.chain(head, blocks), want

    def _refusal(self, answer: _Answer) -> BackendError:
        """Return the error for a response that contains no file."""
        head = b""
        if answer.status in (400, 401, 403, 426, 497):
            with suppress(YarnstoreError):
                for block in self._blocks(answer, None):
                    head += block
                    if len(head) >= HEAD_BYTES:
                        break
        if answer.url.startswith("http:") and speaks_tls(answer.status, head):
            why = "this port speaks https, not http"
            return BackendError(answer.url, why, hint=https_hint(answer.url), status=answer.status)
        now = datetime.now(UTC)
        expired = expired_error(answer.url, answer.query, answer.status, head[:HEAD_BYTES], now)
        _drain(answer)
        return expired or status_error(answer.status, answer.response.headers, answer.url, now)

    def _check_encoding(self, answer: _Answer) -> None:
        encoding = answer.header("content-encoding").strip().lower()
        if encoding not in ("", "identity"):
            raise BackendError(
                answer.url,
                f"the response is compressed ({encoding[:40]!r}), although that was not requested",
                hint="turn off compression of the registry's files on the server",
                status=answer.status,
            )


def trusting(ca_bundle: str) -> ssl.SSLContext:
    """Return a context that trusts the certificates in a file in addition to the usual ones.  Raises:
    ConfigError."""
    context = usual_trust()
    try:
        context.load_verify_locations(cafile=ca_bundle)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(
            f"the certificates in {ca_bundle!r} cannot be read: {error}",
            hint="YSTORE_CA_BUNDLE or `ca_bundle` in config.toml must name a PEM file",
        ) from None
    return context


def _parse_base(text: str) -> httpx.URL:
    try:
        url = parse_url(text)
    except ValueError as error:
        secret = isinstance(error, UserinfoError)
        hint = "use a token instead" if secret else ""
        raise UsageError(f"the registry address {shown(text)[:200]!r} {error}", hint=hint) from None
    if url.query:
        raise UsageError(
            f"the registry address {shown(url)!r} has a query (?…), which registries cannot have"
        )
    return url if url.raw_path.endswith(b"/") else url.copy_with(raw_path=url.raw_path + b"/")


def _basic(login: tuple[str, str]) -> str:
    user, password = login
    if ":" in user:
        raise ConfigError("the user name of a registry contains a colon, which HTTP logins do not allow")
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")  # RFC 7617


def _redirect_target(url: httpx.URL, answer: _Answer) -> httpx.URL:
    location = answer.header("location")
    if not location:
        raise BackendError(
            answer.url, f"redirects without a target (HTTP {answer.status})", status=answer.status
        )
    try:
        target = parse_url(location, base=url)
    except ValueError as error:
        raise BackendError(
            answer.url, f"its redirect is refused: the target {error}", status=answer.status
        ) from None
    if url.scheme == "https" and target.scheme != "https":
        raise BackendError(answer.url, "its redirect is refused: from https to http", status=answer.status)
    return target


def _drain(answer: _Answer) -> None:
    """Close a response; a short rest is read first, so that the connection can be used again."""
    length = parse_content_length(answer.header("content-length"))
    with suppress(YarnstoreError, *FOREIGN):
        if answer.status == 304 or (length is not None and length <= DRAIN_LIMIT_BYTES):
            with answer.patience.waiting():
                for _ in answer.response.iter_raw():
                    pass
    with suppress(*FOREIGN):
        answer.response.close()
