"""The meaning of an HTTP response, from its status and headers alone.  Pure; RFC 9110 and 9112 govern it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from yarnstore.errors import BackendError, MissingKeyError, TransientError

# Statuses after which a later answer may differ: timeouts, throttling, a server in trouble.
TRANSIENT_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
BUSY_STATUSES: Final = frozenset({429, 503})
MISSING_STATUSES: Final = frozenset({404, 410})
REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
# A server may ask for a pause, not for the rest of the day.
RETRY_AFTER_LIMIT_S: Final = 300.0

_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.ASCII)
_UNSATISFIED: Final = re.compile(r"bytes \*/([0-9]{1,19})", re.ASCII)
_ETAG: Final = re.compile(r'(W/)?"[\x21\x23-\x7e]{0,512}"', re.ASCII)
_LENGTH: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,12}", re.ASCII)


@dataclass(frozen=True)
class ContentRange:
    """`Content-Range: bytes first-last/total`; `total` is None if the server wrote `*`."""

    first: int
    last: int
    total: int | None


def parse_content_range(value: str) -> ContentRange | None:
    """Return the range of a 206 response; None if the header is not one valid range of bytes."""
    match = _RANGE.fullmatch(value)
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if last < first or (total is not None and total <= last):
        return None
    return ContentRange(first, last, total)


def parse_unsatisfied_range(value: str) -> int | None:
    """Return the file's size from the Content-Range of a 416 response."""
    match = _UNSATISFIED.fullmatch(value)
    return int(match[1]) if match else None


def parse_content_length(value: str) -> int | None:
    """Return the announced length, or None if it is absent."""
    return int(value) if _LENGTH.fullmatch(value) else None


def parse_etag(value: str) -> str:
    """Return the ETag if it can be sent back, else an empty string."""
    return value if _ETAG.fullmatch(value) else ""


def parse_retry_after(value: str, now: datetime) -> float:
    """Return the seconds to wait by a Retry-After header in either form: 0 without one, at most 300."""
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), RETRY_AFTER_LIMIT_S)
    try:
        when = parsedate_to_datetime(text)
        wait_s = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0
    return min(max(math.ceil(wait_s), 0.0), RETRY_AFTER_LIMIT_S)


def check_partial(
    headers: Mapping[str, str], url: str, start: int, length: int | None
) -> tuple[int, int | None]:
    """Check a 206 response against the request; return the bytes to come and the size of the whole file.

    It must be exactly the requested range, or that range cut off at the end of the file.

    Raises: TransientError with status 206.  One of several nodes may answer so (pip#14131), so that another
    try is worthwhile; if it fails too, the caller can use another mirror, or request the whole file.
    """

    def discard(why: str) -> TransientError:
        return TransientError(url, f"a partial response was discarded: {why}", status=206)

    if headers.get("content-type", "").strip().lower().startswith("multipart/"):
        raise discard("it comes in several parts")
    value = headers.get("content-range", "")
    found = parse_content_range(value)
    if found is None:
        raise discard(f"Content-Range is {value[:80]!r}" if value else "it has no Content-Range")
    if found.first != start:
        raise discard(f"it begins at byte {found.first}, not {start}")
    asked_last = None if length is None else start + length - 1
    if asked_last is not None and found.last > asked_last:
        raise discard(f"it ends at byte {found.last}, beyond {asked_last}")
    ends_file = found.total is not None and found.last == found.total - 1
    unknown_end = found.total is None and asked_last is None
    if found.last != asked_last and not ends_file and not unknown_end:
        raise discard(f"it ends at byte {found.last}, which was not requested")
    size = found.last - found.first + 1
    announced = parse_content_length(headers.get("content-length", ""))
    if announced is not None and announced != size:
        raise discard(f"Content-Length is {announced} but Content-Range covers {size}")
    return size, found.total


def status_error(status: int, headers: Mapping[str, str], url: str, now: datetime) -> BackendError:
    """Return the error that a status stands for."""
    if status in MISSING_STATUSES:
        return MissingKeyError(url, f"no such file (HTTP {status})", status=status)
    if status in TRANSIENT_STATUSES:
        wait_s = parse_retry_after(headers.get("retry-after", ""), now)
        return TransientError(
            url,
            f"the server answered HTTP {status}",
            status=status,
            retry_after_s=wait_s,
            reason="busy" if wait_s or status in BUSY_STATUSES else "broken",
        )
    hint = ""
    if status == 401:
        hint = "this registry needs a token (YSTORE_TOKEN_<NAME>), or a login in netrc"
    elif status == 403:
        hint = "the token has no access; buckets also answer this for a missing file"
    elif status == 407:
        hint = "the proxy needs a user name and password: http_proxy=http://USER:PASSWORD@HOST:PORT"
    elif status == 511:
        hint = "this network has a login page (captive portal): open any web page in a browser"
    return BackendError(url, f"the server answered HTTP {status}", status=status, hint=hint)
