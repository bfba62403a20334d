"""A registry on a web server.

Owns what is requested and which answers are accepted.  `requests` sends requests, and `replies` interprets
responses.
"""

from __future__ import annotations

import itertools
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import httpx

from yarnstore.backends.base import (
    Body,
    Fetched,
    Timeouts,
    check_key,
    check_range,
    oversize_error,
)
from yarnstore.backends.pages import (
    HEAD_BYTES,
    expired_error,
    is_never_page,
    looks_like_page,
    page_error,
    speaks_tls,
)
from yarnstore.backends.replies import (
    check_partial,
    parse_content_length,
    parse_etag,
    parse_unsatisfied_range,
    status_error,
)
from yarnstore.backends.requests import Answer, Authorizer, Fixed, Requests, basic, drain
from yarnstore.backends.targets import UserinfoError, join_key, parse_url
from yarnstore.backends.translate import https_hint
from yarnstore.backends.trust import usual_trust
from yarnstore.backends.urls import shown
from yarnstore.errors import BackendError, ConfigError, UsageError

_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_TOKEN: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)


class HttpBackend:
    """A `Backend` over http(s).

    A key is a path below `base_url`, or an absolute http(s) URL: registries name other origins in
    `download_url`.  `token` is sent as a bearer token, or `login` (user, password) by the Basic scheme, only
    to the origin of `base_url`, and not after a redirect to another origin.  `ssl_context` replaces the usual
    certificates.  `require_https` refuses plain http, also in redirects, except to this machine. `check` is
    called while a server is silent, and may raise to end the request.  `authorizer` is used in place of both
    credentials.  `headers` are added to each request.

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
        authorizer: Authorizer | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._base = _parse_base(base_url)
        self.url = shown(self._base)
        if token is not None and not _TOKEN.fullmatch(token):
            raise ConfigError(
                "the token is empty, or contains a space or a character that headers do not allow"
            )
        self._timeouts = timeouts or Timeouts()
        self._headers = dict(headers or {})
        self._requests = Requests(
            self._base,
            authorizer or Fixed(f"Bearer {token}" if token else basic(login) if login else ""),
            timeouts=self._timeouts,
            ssl_context=ssl_context,
            trust_env=trust_env,
            require_https=require_https,
            check=check,
        )

    def get(self, key: str, *, limit_bytes: int, etag: str = "") -> Fetched | None:
        """See `Backend.get`.  The request, redirects included, must end within `Timeouts.get_s`."""
        known = parse_etag(etag)
        headers = {"If-None-Match": known} if known else {}
        with self._answer(key, headers, deadline_s=self._timeouts.get_s) as answer:
            if answer.status == 304 and known:
                drain(answer)
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
                yield Body(start, total, self._requests.blocks(answer, want))
            elif answer.status == 200:
                blocks, whole = self._whole(key, answer)
                yield Body(0, whole, blocks, ignores_ranges=ranged)
            elif answer.status == 416 and parse_unsatisfied_range(answer.header("content-range")) == start:
                drain(answer)
                yield Body(start, start, iter(()))
            else:
                raise self._refusal(answer)

    def close(self) -> None:
        """See `Backend.close`."""
        self._requests.close()

    @contextmanager
    def _answer(
        self, key: str, headers: dict[str, str], *, deadline_s: float | None = None
    ) -> Iterator[Answer]:
        sent = {**self._headers, **headers}
        with self._requests.answer(self.locate(key), sent, deadline_s=deadline_s) as answer:
            yield answer

    def locate(self, key: str) -> httpx.URL:
        """Return the URL of a key.  Raises: InvalidNameError, BackendError."""
        if not _ABSOLUTE.match(key):
            return join_key(self._base, check_key(key))
        try:
            return parse_url(key)
        except ValueError as error:
            raise BackendError(shown(key)[:200], f"this download address {error}") from None

    def _whole(self, key: str, answer: Answer) -> tuple[Iterator[bytes], int | None]:
        """Return the body of a 200 response, and its announced length.

        Raises: BackendError if it is encoded, or is a web page in place of a registry's file.
        """
        content_type = answer.header("content-type")
        if not is_never_page(key):
            self._check_encoding(answer)
            want = parse_content_length(answer.header("content-length"))
            return self._requests.blocks(answer, want), want
        if answer.header("content-encoding") and looks_like_page(b"page", content_type):
            raise page_error(answer.url, key, answer.status)
        self._check_encoding(answer)
        want = parse_content_length(answer.header("content-length"))
        blocks = self._requests.blocks(answer, want)
        head: list[bytes] = []
        for block in blocks:
            head.append(block)
            begun = b"".join(head)
            if begun.strip()[:1] not in (b"", b"<") or len(begun) >= HEAD_BYTES:
                break  # usually the first block shows it
        if looks_like_page(b"".join(head)[:HEAD_BYTES], content_type):
            raise page_error(answer.url, key, answer.status)
        return itertools.chain(head, blocks), want

    def _refusal(self, answer: Answer) -> BackendError:
        """Return the error for a response that contains no file."""
        head = b""
        if answer.status in (400, 401, 403, 426, 497):
            head = self._requests.head(answer, HEAD_BYTES)
        if answer.url.startswith("http:") and speaks_tls(answer.status, head):
            why = "this port speaks https, not http"
            return BackendError(answer.url, why, hint=https_hint(answer.url), status=answer.status)
        now = datetime.now(UTC)
        expired = expired_error(answer.url, answer.query, answer.status, head, now)
        drain(answer)
        return expired or status_error(answer.status, answer.response.headers, answer.url, now)

    def _check_encoding(self, answer: Answer) -> None:
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
