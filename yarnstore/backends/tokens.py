"""Credentials of registries of images, which ask for them: a password, or a token of another server.

The distribution specification's token authentication: a 401 answer names the server of tokens, the service
and the scope; that server gives a token for the user and password, or for nobody; requests then have it.
"""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime
from functools import partial
from typing import Final
from urllib.parse import urlencode

import msgspec

from yarnstore.backends.replies import parse_content_length, status_error
from yarnstore.backends.requests import Answer, Content, Requests, basic
from yarnstore.backends.targets import parse_url
from yarnstore.backends.urls import shown
from yarnstore.core.oci import IDENTITY_USER
from yarnstore.errors import BackendError

# No server of tokens needs more.
_TOKEN_LIMIT_BYTES: Final = 256 * 1024
_TOKEN_S: Final = 60.0
_SCHEME: Final = re.compile(r"(?:^|,)\s*(Bearer|Basic)\b", re.IGNORECASE)
_PARAMETER: Final = re.compile(r'([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)


class Challenge(msgspec.Struct, frozen=True):
    """One way to log in that a server offers: `basic` or `bearer`, and its parameters."""

    scheme: str
    parameters: dict[str, str]


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


def parse_challenges(header: str) -> list[Challenge]:
    """Return the challenges that are understood in a `WWW-Authenticate` header (RFC 9110)."""
    starts = list(_SCHEME.finditer(header))
    ends = [*(found.start() for found in starts), len(header)][1:]
    return [
        Challenge(
            found[1].lower(),
            {
                match[1].lower(): re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
                for match in _PARAMETER.finditer(header, found.end(), end)
            },
        )
        for found, end in zip(starts, ends, strict=True)
    ]


class ChallengeAuthorizer:
    """An `Authorizer` that answers challenges with a user and password, an identity token, or without any.

    The password is sent to the registry by the Basic scheme, or to the server of tokens that the registry
    names, over https; over http only if the registry is asked over http, too.  An identity token, the
    password of `IDENTITY_USER`, is only sent to the server of tokens.  Threads share what was renewed.
    """

    def __init__(self, login: tuple[str, str] | None) -> None:
        self._identity = login[1] if login and login[0] == IDENTITY_USER else ""
        self._basic = basic(login) if login and not self._identity else ""
        self._header = ""
        self._renewing = threading.Lock()

    def header(self) -> str:
        """See `Authorizer`."""
        return self._header

    def renew(self, answer: Answer, requests: Requests) -> bool:
        """See `Authorizer`.  Raises: BackendError, TransientError of the server of tokens."""
        sent = answer.response.request.headers.get("authorization", "")
        with self._renewing:
            return sent != self._header or self._renew(answer, requests)

    def _renew(self, answer: Answer, requests: Requests) -> bool:
        header = ", ".join(answer.response.headers.get_list("www-authenticate"))
        challenges = {found.scheme: found.parameters for found in parse_challenges(header)}
        if "bearer" in challenges:
            self._header = f"Bearer {self._token(answer, requests, challenges['bearer'])}"
            return True
        if "basic" in challenges and self._basic and self._header != self._basic:
            self._header = self._basic
            return True
        return False

    def _token(self, answer: Answer, requests: Requests, asked: dict[str, str]) -> str:
        where = asked.get("realm", "")
        try:
            url = parse_url(where)
        except ValueError as error:
            why = f"its server of tokens {shown(where)[:120]!r} {error}"
            raise BackendError(answer.url, why, status=answer.status) from None
        if answer.target.scheme == "https" and url.scheme != "https":
            raise BackendError(answer.url, "its server of tokens is plain http, which is refused")
        scopes = asked.get("scope", "").split()
        method, headers = "GET", {"Accept": "application/json"}
        content: Content | None = None
        if self._identity:  # the distribution project's token authentication with OAuth 2
            form = {
                "grant_type": "refresh_token",
                "client_id": "yarnstore",
                "service": asked.get("service", ""),
                "scope": " ".join(scopes),
                "refresh_token": self._identity,
            }
            data = urlencode(form).encode()
            headers |= {
                "Content-Type": "application/x-www-form-urlencoded",
                "Content-Length": str(len(data)),
            }
            method, content = "POST", partial(list, [data])
        else:
            for name, value in [
                ("service", asked.get("service", "")),
                *(("scope", scope) for scope in scopes),
            ]:
                if value:
                    url = url.copy_add_param(name, value)
        with requests.answer(
            url,
            headers,
            method=method,
            content=content,
            deadline_s=_TOKEN_S,
            authorization=self._basic,
        ) as reply:
            if reply.status != 200:
                raise status_error(reply.status, reply.response.headers, reply.url, datetime.now(UTC))
            length = parse_content_length(reply.header("content-length")) or 0
            data = requests.head(reply, _TOKEN_LIMIT_BYTES) if length <= _TOKEN_LIMIT_BYTES else b""
        try:
            found = msgspec.json.decode(data, type=_Token)
        except msgspec.DecodeError:
            found = _Token()
        token = found.token or found.access_token
        if not _HEADER_VALUE.fullmatch(token):
            raise BackendError(shown(url), "sent no token")
        return token
