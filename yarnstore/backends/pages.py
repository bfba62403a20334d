"""Responses that are not the requested file: a web page, or a refusal in the body.

A captive portal or a filter answers 200 with its own page to every request.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qs

from yarnstore.errors import BackendError

# As much of a body as is looked at.
HEAD_BYTES: Final = 4096

# Files of a registry, none of which is ever a web page.  What a `download_url` names can be one.
_NEVER_PAGES: Final = (".json", ".zst", ".pack", ".idx")
_PAGE: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:\s|<!--.*?-->|<\?xml[^>]*>)*<(?:!doctype\s+html|html|head|body|title|script|meta)\b",
    re.IGNORECASE | re.DOTALL,
)
# How files of a registry begin, which some servers call text/html for want of a better name.
_BEGINNINGS: Final = (b"{", b"[", b"YSTORE", b"\x28\xb5\x2f\xfd")
_EXPIRED: Final = re.compile(
    rb"request has expired|<code>ExpiredToken|expiredtoken|signature not valid in the specified time frame"
    rb"|signed expiry time|token (?:is|has) expired",
    re.IGNORECASE,
)
_PLAIN_TO_TLS: Final = re.compile(
    rb"plain HTTP request was sent to HTTPS port|speaking plain HTTP to an SSL-enabled"
    rb"|sent an HTTP request to an HTTPS server|requires? TLS",
    re.IGNORECASE,
)
_STAMP: Final = "%Y%m%dT%H%M%SZ"


def is_never_page(key: str) -> bool:
    """Whether the file of a registry under `key` is of a kind that cannot be a web page."""
    return "://" not in key and key.endswith(_NEVER_PAGES)


def looks_like_page(head: bytes, content_type: str = "") -> bool:
    """Whether a body that begins with `head` is a web page, judged by its content first."""
    if _PAGE.match(head):
        return True
    said = content_type.partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return said and bool(start) and not start.startswith(_BEGINNINGS)


def page_error(url: str, name: str, status: int = 200) -> BackendError:
    """Return the error for a web page in place of `name`."""
    return BackendError(
        url,
        f"the server returned a web page instead of {name}",
        hint="this network may have a login page (captive portal): open the address in a browser",
        status=status,
    )


def speaks_tls(status: int, head: bytes) -> bool:
    """Whether a response says that http was used on an https port."""
    return status in (400, 426, 497) and _PLAIN_TO_TLS.search(head) is not None


def is_signed(query: str) -> bool:
    """Whether a query is a signature of S3, Google Cloud, CloudFront or Azure."""
    names = {name.lower() for name in parse_qs(query, keep_blank_values=True)}
    return bool(
        names & {"x-amz-signature", "x-goog-signature", "x-amz-expires", "x-goog-expires"}
        or {"expires", "signature"} <= names
        or {"se", "sig"} <= names
    )


def expired_error(url: str, query: str, status: int, head: bytes, now: datetime) -> BackendError | None:
    """Return the error for an expired signed address; None if the response does not say so."""
    signed = is_signed(query)
    until = signed_until(query) if signed else None
    if status not in (400, 401, 403) or not (_EXPIRED.search(head) or (until is not None and until <= now)):
        return None
    when = f" on {until:%Y-%m-%d %H:%M} UTC" if until is not None else ""
    return BackendError(
        url,
        f"this signed address has expired{when} (HTTP {status})",
        hint="`ystore registry refresh` may get a new address; otherwise its publisher must sign a new one. "
        "A wrong clock on this machine has the same effect",
        status=status,
    )


def signed_until(query: str) -> datetime | None:
    """Return when a signed address expires, if its query says so."""
    fields: Mapping[str, str] = {name.lower(): values[0] for name, values in parse_qs(query).items()}
    try:
        for vendor in ("amz", "goog"):
            if f"x-{vendor}-expires" in fields:
                signed = datetime.strptime(fields[f"x-{vendor}-date"], _STAMP).replace(tzinfo=UTC)
                return signed + timedelta(seconds=int(fields[f"x-{vendor}-expires"]))
        if "expires" in fields:
            return datetime.fromtimestamp(int(fields["expires"]), UTC)
        if "se" in fields:
            found = datetime.fromisoformat(fields["se"])
            return found if found.tzinfo else found.replace(tzinfo=UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        pass
    return None
