"""Logins for registries of images, as Docker, podman and skopeo keep them; nothing is written.

The files are Docker's config.json and the auth.json of containers (containers-auth.json(5)), which have the
same form.  A login may be in a credential helper, a program `docker-credential-NAME`, which is given the host
on its stdin.
"""

from __future__ import annotations

import base64
import contextlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

import msgspec

from yarnstore.core.canonical import parse_json_object
from yarnstore.core.limits import MIB
from yarnstore.core.oci import IDENTITY_USER
from yarnstore.errors import FormatError, NotFoundError, StorageError
from yarnstore.store import fsread
from yarnstore.store.filepath import Path

# A user and password, or `IDENTITY_USER` and an identity token.
Login: TypeAlias = tuple[str, str]

_HUB: Final = "registry-1.docker.io"
_HUB_KEYS: Final = ("index.docker.io", "docker.io", _HUB)
# The name of Docker Hub in helpers.
_HUB_SERVER: Final = "https://index.docker.io/v1/"
_HELPER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_HELPER_S: Final = 10.0


class _Credentials(msgspec.Struct):
    username: str = msgspec.field(name="Username", default="")
    secret: str = msgspec.field(name="Secret", default="")


def find_login(
    files: Iterable[str], host: str, repository: str, note: Callable[[str], None] = lambda _: None
) -> Login | None:
    """Return the login of a repository (`a/b`) of a host, from the first file that has one.

    A file that cannot be read counts as empty.  `note` gets a sentence for each helper that
    fails, without its output.
    """
    for path in files:
        with contextlib.suppress(FormatError, NotFoundError, StorageError):
            config = parse_json_object(fsread.read_bytes(Path(path), 4 * MIB), path)
            login = _helped(config, host, note) or _listed(config.get("auths"), host, repository)
            if login is not None:
                return login
    return None


def _helped(config: Mapping[str, object], host: str, note: Callable[[str], None]) -> Login | None:
    """Return the login that the helper of a host, or the helper of all hosts, has."""
    helpers = config.get("credHelpers")
    names = _HUB_KEYS if host == _HUB else (host,)
    own = [helpers[name] for name in names if name in helpers] if isinstance(helpers, dict) else []
    for helper in (*own, config.get("credsStore")):
        if isinstance(helper, str) and _HELPER.fullmatch(helper):
            login = _ask(helper, _HUB_SERVER if host == _HUB else host, note)
            if login is not None:
                return login
    return None


def _ask(helper: str, server: str, note: Callable[[str], None]) -> Login | None:
    """Return the login that `docker-credential-HELPER get` has for a server; None if it has none."""
    name = f"docker-credential-{helper}"
    program = shutil.which(name)
    if program is None:
        note(f"{name}, which should have the login of {server}, is not on PATH")
        return None
    try:
        done = subprocess.run(  # noqa: S603 - the user's own helper, without a shell
            [program, "get"],
            input=server.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_HELPER_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        note(f"{name} did not answer within {_HELPER_S:g} s")
        return None
    except OSError as error:
        note(f"{name} cannot be run ({error.strerror})")
        return None
    if done.returncode:
        return None  # it has none for this server, or cannot be asked now
    try:
        found = msgspec.json.decode(done.stdout, type=_Credentials)
    except (msgspec.DecodeError, UnicodeDecodeError):
        note(f"{name} did not answer as a credential helper does")
        return None
    return (found.username, found.secret) if found.username and found.secret else None


def _listed(auths: object, host: str, repository: str) -> Login | None:
    """Return the login in a file itself: that of the longest part of the repository's name that has one."""
    hosts = _HUB_KEYS if host == _HUB else (host,)
    found: list[tuple[int, Login]] = []
    for key, entry in auths.items() if isinstance(auths, dict) else ():
        scheme, mark, rest = key.partition("://")
        server, _, path = (rest if mark else scheme).partition("/")
        if mark:
            path = ""  # Docker's own keys, whose paths are versions of the protocol
        login = _login(entry) if server in hosts else None
        if login is not None and (not path or f"{repository}/".startswith(f"{path}/")):
            found.append((len(path), login))
    return max(found, key=lambda item: item[0])[1] if found else None


def _login(entry: object) -> Login | None:
    match entry:
        case {"identitytoken": str(text)} if text:
            return IDENTITY_USER, text
        case {"auth": str(text)} if text:
            with contextlib.suppress(ValueError):  # not base64, or not UTF-8
                user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
                password = password.rstrip("\0")
                return (user, password) if colon and password else None
        case {"username": str(user), "password": str(password)}:
            return user, password
    return None
