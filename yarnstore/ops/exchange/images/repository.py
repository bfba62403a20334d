"""A repository of a registry of images, with its credentials.

These are those of a registry that is configured at the same origin, else those of its host in netrc, else
those that `docker login` wrote into `auths` of Docker's config.json.  Credential helpers are not called.
"""

from __future__ import annotations

import base64
import contextlib
from typing import TYPE_CHECKING, Final

import msgspec

from yarnstore.core.canonical import parse_json_object
from yarnstore.core.limits import MIB
from yarnstore.core.oci import ACCEPTED
from yarnstore.errors import FormatError, NotFoundError, StorageError
from yarnstore.ops.exchange.address import Address
from yarnstore.ops.session.connections import source_at
from yarnstore.ops.session.session import Session
from yarnstore.store import fsread
from yarnstore.store.filepath import Path

if TYPE_CHECKING:
    from yarnstore.backends import SourceSet
    from yarnstore.backends.images import ImageRegistry

_HUB: Final = "registry-1.docker.io"
_HUB_KEYS: Final = ("index.docker.io", "docker.io", _HUB)


def connect_repository(session: Session, address: Address) -> tuple[ImageRegistry, SourceSet]:
    """Return the repository of an address, and the same with retries.

    Raises: OfflineError, UsageError, ConfigError.
    """
    registries = session.registries
    source = source_at(address.url, registries.sources, registries.network)
    path = registries.network.docker_config
    if source.token is None and source.login is None and path:
        host = address.url.partition("://")[2].partition("/")[0]
        source = msgspec.structs.replace(source, login=docker_login(Path(path), host))
    return registries.links.images(source, ACCEPTED)


def docker_login(path: Path, host: str) -> tuple[str, str] | None:
    """Return the user and password that Docker's config.json has for a host; None if it has none.

    A file that cannot be read counts as empty.
    """
    with contextlib.suppress(FormatError, NotFoundError, StorageError):
        logins = parse_json_object(fsread.read_bytes(path, 4 * MIB), str(path)).get("auths")
        for key, entry in logins.items() if isinstance(logins, dict) else ():
            name = key.partition("://")[2] or key
            if name.partition("/")[0] in (_HUB_KEYS if host == _HUB else (host,)):
                return _login(entry)
    return None


def _login(entry: object) -> tuple[str, str] | None:
    match entry:
        case {"auth": str(text)} if text:
            with contextlib.suppress(ValueError):  # not base64, or not UTF-8
                user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
                password = password.rstrip("\0")
                return (user, password) if colon and password else None  # an identity token has none
        case {"username": str(user), "password": str(password)}:
            return user, password
    return None
