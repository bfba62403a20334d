"""Addresses as text: what people type and paste, how addresses are compared, and how they are shown.

`shown` removes secrets: everything that prints or records an address of a registry, a mirror, a download or a
proxy uses it.  Pure, except for checks whether a path exists.  Where a request may go is decided in
`targets`.
"""

from __future__ import annotations

import os
import re
import string
from typing import TYPE_CHECKING, Final, TypeAlias

from yarnstore.errors import UsageError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    import httpx

# Scheme, host and port (RFC 6454): what must be equal for credentials to be sent along.
Origin: TypeAlias = tuple[str, str, int]

PORTS: Final = {"http": 80, "https": 443}
# Patterns are texts, which `re` compiles when they are first used and keeps: most commands use none.
_URL: Final = r"(?i)[a-z][a-z0-9+.-]+:/?/|file:"
# "C:\\models" has no "//", so drive letters are paths.
_SCHEME: Final = r"([A-Za-z][A-Za-z0-9+.-]*):/?/"
_WEB: Final = r"(?i)https?://"
_WEB_HOST: Final = r"(?i)https?://[^/\\]"
_WINDOWS: Final = r"[A-Za-z]:[\\/]|\\\\"
# A host that has a dot, or a port, and then the end or a path.
_HOST: Final = r"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?::\d+)?|[A-Za-z0-9-]+:\d+)(?=[/?#]|$)"
# `http//host`, `https:host`, `htp://host`, `view-source:https://host`: a web address with a slip.
_SLIP: Final = r"(?i)(?:[A-Za-z][A-Za-z0-9.-]*[:+]|:)?(h?tt?p|hxxp)(s?)(?:[:;][/\\]*|[/\\]{2,})(?=[^/\\])"
_AROUND: Final = (('"', '"'), ("'", "'"), ("<", ">"), ("“", "”"), ("‘", "’"), ("`", "`"))
# Spaces, and the invisible characters that come with copied text.
_BLANK: Final = string.whitespace + "\u00a0\u00ad\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u2060\ufeff"
# What a browser shows of a registry.
_FILES: Final = ("registry.json", "index.html")


def tidy_address(text: str) -> str:
    """Return the address of the registry that a pasted address means.

    As `bare_address`, and without a `registry.json` or `index.html` at the end of a URL, or of a path that is
    such a file.
    """
    text = bare_address(text)
    if is_url(text):
        address, mark, query = text.partition("?")
        folder, _, name = address.rpartition("/")
        folder = folder.rstrip("/")
        # In `https://registry.json` it is a host.
        return f"{folder}/{mark}{query}" if name in _FILES and not folder.endswith(":") else text
    folder, name = os.path.split(text)
    return folder or "." if name in _FILES and os.path.isfile(text) else text


def bare_address(text: str) -> str:
    """Return pasted text without surrounding spaces and quotes, and a web address without its fragment."""
    if os.path.lexists(text):
        return text
    text = text.strip(_BLANK)
    for left, right in _AROUND:
        if len(text) > 2 and text.startswith(left) and text.endswith(right):
            text = text[1:-1].strip(_BLANK)
    return text.partition("#")[0] if re.match(_WEB, text) else text


def is_url(text: str) -> bool:
    """Whether a text has a scheme, which a drive letter is not."""
    return re.match(_URL, text) is not None


def _split(text: str) -> SplitResult:
    from urllib.parse import urlsplit  # late: it takes longer to import than `ystore path` takes

    return urlsplit(text)


def plain_address(text: str) -> str:
    """Return one spelling of an address: the path of a file:// URL, and a web address with its host in lower
    case and without the usual port; without slashes at the end."""
    try:
        parts = _split(text)
        port = parts.port
    except ValueError:
        return text.rstrip("/")
    scheme = parts.scheme.lower()
    if scheme == "file" and parts.netloc.lower() in ("", "localhost"):
        from urllib.parse import unquote

        text = unquote(parts.path)
    elif scheme in PORTS and parts.hostname:
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        text = f"{scheme}://{host}{'' if port in (None, PORTS[scheme]) else f':{port}'}{parts.path}"
    return text.rstrip("/")


def check_address(text: str) -> None:
    """Refuse text that cannot be a registry, in messages that show no secret.

    Raises: UsageError for empty text, a query, a Windows path, and a web address without a scheme or with a
    typing error, unless such a path exists.
    """
    if not text:
        raise UsageError(
            "the registry address is empty",
            hint="give an https:// address, or the folder that contains registry.json",
        )
    slip = None if re.match(_WEB_HOST, text) or os.path.lexists(text) else re.match(_SLIP, text)
    if slip:
        right = shown(f"http{slip[2].lower()}://{text[slip.end() :]}")
        raise UsageError(
            f"a web address begins with http:// or https://, not with {slip[0]}", hint=f"write {right[:200]}"
        )
    if is_url(text):
        if re.match(_WEB, text) and "?" in text:
            raise UsageError(
                f"the registry address {shown(text)!r} has a query (?…), which registries cannot have",
                hint="give the address of the folder that contains registry.json; set a token in "
                "YSTORE_TOKEN_<NAME>",
            )
        return
    if os.name != "nt" and re.match(_WINDOWS, text):
        raise UsageError(
            f"{text[:200]} is a Windows path, which this machine cannot read",
            hint="a registry is an https:// address or the path of a folder here",
        )
    bare = shown(text)
    if _is_host(text):
        scheme = "http" if is_loopback(re.split(r"[:/]", bare, maxsplit=1)[0]) else "https"
        raise UsageError(
            f"no folder {bare[:200]} exists, and a web address begins with {scheme}://",
            hint=f"write {scheme}://{bare[:200]}",
        )


def _is_host(text: str) -> bool:
    """Whether text without a scheme looks like a web address, and no such path exists."""
    return bool(re.match(_HOST, _without_secrets(text))) and not os.path.lexists(text)


def shown(address: str | httpx.URL, *, folder: bool = False) -> str:
    """Return an address without user, password, query and fragment, which may be secrets.

    A path is returned whole.  A web address of a `folder`, as of a registry, gets one spelling, by which
    mirrors are distinguished: scheme and host in lower case, and a slash at the end.
    """
    text = address if isinstance(address, str) else f"{address.scheme}://{_ascii(address)}"
    if not _is_web(text):
        return text
    bare = _without_secrets(text)
    if not folder or origin_of(text) is None:
        return bare
    parts = _split(bare)
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path.rstrip('/')}/"


def _ascii(url: httpx.URL) -> str:
    return (url.netloc + url.raw_path).decode("ascii", "replace")


def _is_web(text: str) -> bool:
    """Whether text is an address on the network, or looks like one without its scheme."""
    return text[:5].lower() != "file:" if is_url(text) else _is_host(text)


def _without_secrets(text: str) -> str:
    address = re.split(r"[?#]", text, maxsplit=1)[0]
    try:
        parts = _split(address)
        _ = parts.port
    except ValueError:
        # No address; of a password that holds /, ? or #, only the last @ says where it ends.
        return re.split(r"[?#]", text.rpartition("@")[2], maxsplit=1)[0]
    at = address.index("//") + 2 if parts.netloc else 0
    host, slash, path = address[at:].partition("/")
    return f"{address[:at]}{host.rpartition('@')[2]}{slash}{path}"


def origin_of(address: str | httpx.URL) -> Origin | None:
    """Return scheme, host and port, also a default port; None for text that is not a web address."""
    try:
        if isinstance(address, str):
            parts = _split(address)
            scheme, host, port = parts.scheme, parts.hostname or "", parts.port
        else:
            scheme, host, port = address.scheme.lower(), address.host, address.port
    except ValueError:
        return None
    return (scheme, host.rstrip("."), port or PORTS[scheme]) if scheme in PORTS else None


def is_remote(address: str) -> bool:
    """Whether reading from `address` uses the network, judged by its text."""
    return scheme_of(address) not in ("file", "")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    import ipaddress

    bare = host.strip("[]").rstrip(".").lower()
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost" or bare.endswith(".localhost")  # RFC 6761


def scheme_of(text: str) -> str:
    """Return the scheme of an address in lower case; empty for a path."""
    if text[:5].lower() == "file:":
        return "file"
    match = re.match(_SCHEME, text)
    return match[1].lower() if match else ""
