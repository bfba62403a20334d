"""Authentication: the bearer token, login tokens that work once, and the sessions of browsers."""

from __future__ import annotations

import base64
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

# A login link is opened at once, or not at all; a browser stays logged in while the service runs.
LOGIN_S = 15 * 60.0
SESSION_S = 30 * 86_400.0
_MANY = 1000


def new_token() -> str:
    """Return a token of 256 random bits, in the form of the Hub's tokens: llama.cpp sends no others."""
    return f"hf_{secrets.token_hex(32)}"


@dataclass
class Access:
    """The credentials that the service accepts.  Tokens are compared in constant time and end with the
    process."""

    token: str = field(repr=False)
    cookie: str = "ystore_session"
    clock: Callable[[], float] = time.monotonic
    _logins: dict[str, float] = field(default_factory=dict, repr=False)
    _sessions: dict[str, float] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def new_login(self) -> str:
        """Return a login token for one browser, valid once and for 15 minutes."""
        token = new_token()
        with self._lock:
            _add(self._logins, token, self.clock() + LOGIN_S, self.clock())
        return token

    def log_in(self, token: str) -> str | None:
        """Return a new session for a login token or the bearer token; None for any other."""
        with self._lock:
            now = self.clock()
            known = _find(self._logins, token)
            once = known is not None and self._logins.pop(known) > now
            if not once and not _same(self.token, token):
                return None
            session = new_token()
            _add(self._sessions, session, now + SESSION_S, now)
            return session

    def is_bearer(self, header: str) -> bool:
        """Whether an `Authorization` header has the token."""
        scheme, _, token = header.partition(" ")
        return scheme.lower() == "bearer" and _same(self.token, token.strip())

    def is_basic(self, header: str) -> bool:
        """Whether an `Authorization` header has the token as a password, as registries' clients send it."""
        scheme, _, encoded = header.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            text = base64.b64decode(encoded.strip(), validate=True).decode()
        except ValueError:
            return False
        return _same(self.token, text.partition(":")[2])

    def is_session(self, session: str) -> bool:
        """Whether a browser is logged in."""
        with self._lock:
            known = _find(self._sessions, session)
            return known is not None and self._sessions[known] > self.clock()

    def session_in(self, header: str) -> str:
        """Return the session of a `Cookie` header, or an empty text.

        Browsers also send the cookies of the other ports of this host, which may be of any form.
        """
        named = (part.strip().partition("=") for part in header.split(";"))
        found = [value.strip('"') for name, _, value in named if name == self.cookie]
        return next(filter(self.is_session, found), "")


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))


def _find(tokens: dict[str, float], token: str) -> str | None:
    found = None
    for known in tokens:
        if _same(known, token):
            found = known
    return found


def _add(tokens: dict[str, float], token: str, until: float, now: float) -> None:
    for old in [known for known, end in tokens.items() if end <= now]:
        del tokens[old]
    while len(tokens) >= _MANY:
        del tokens[next(iter(tokens))]
    tokens[token] = until
