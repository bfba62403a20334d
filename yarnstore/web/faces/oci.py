"""The distribution API of OCI registries, `/v2/`, for clients that pull models as artifacts.

A version is a ModelPack artifact: one raw layer for each file, whose digest is the SHA-256 of the file.
Ollama gets a version with a GGUF model as Ollama writes it.  `volume/NAME` has images with tar layers.  A tag
is a version, whose `+` is a `_`, with `VARIANT__` before it for other variants; `latest` is the installed
version.

Many clients log in only if `/v2/` refuses them, by a challenge, and use no login otherwise.  Programs of this
machine are led to `/v2/token`, which has a token for everybody, as the distribution project's token
authentication describes; other machines, which need the service's token for anything, get a Basic challenge.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice

import msgspec

from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.core.oci import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from yarnstore.errors import YarnstoreError
from yarnstore.results import StoredVersion, VersionFiles
from yarnstore.web import problems
from yarnstore.web.faces.digests import Digests, Named, Repository
from yarnstore.web.faces.front import FaceRequest, Reply, later
from yarnstore.web.faces.library import FillingError, Library, NotServedError
from yarnstore.web.faces.shapes import Image, modelpack, ollama
from yarnstore.web.faces.volumes import Volumes

_PATH = re.compile(r"/v2/(.+)/(manifests|blobs|referrers)/([^/]+)")
_TAGS = re.compile(r"/v2/(.+)/tags/list")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_BASIC = 'Basic realm="ystore"'
_TOKENS = "/v2/token"
_ANYONE = "anonymous"  # the token of clients without a login
_TOKEN_LIFE_S = 3600
# The namespace of images that containers mount.
_VOLUMES = "volume/"
_TOKEN = "log in with any user name and the service's token as password"  # noqa: S105 - says which
_CODES = {"model": "NAME_UNKNOWN", "revision": "MANIFEST_UNKNOWN", "file": "BLOB_UNKNOWN"}


class Oci:
    """The face of `ystore serve --oci`."""

    def __init__(self, library: Library, token: str) -> None:
        self._library = library
        self._token = token
        self._volumes = Volumes(library)
        self._digests = Digests()

    def owns(self, path: str, agent: str) -> bool:  # noqa: ARG002 - of any client
        """See `Face`."""
        return path == "/v2" or path.startswith("/v2/")

    def stranger(self) -> Reply:
        """See `Face`."""
        return _refused(f"this machine is served only with a token: {_TOKEN}", _BASIC)

    async def answer(self, asked: FaceRequest) -> Reply:
        """See `Face`."""
        try:
            if asked.method not in ("GET", "HEAD"):
                return _error(405, "UNSUPPORTED", "this registry is read-only")
            return await self._answer(asked)
        except NotServedError as error:
            if error.what == "model" and not asked.trusted:
                return _refused(f"{error.message}; {_TOKEN}", _challenge(asked))
            return _error(404, _CODES[error.what], error.message)
        except FillingError as error:
            status, headers = later(error.wait_s)
            return _error(
                status, "UNKNOWN" if error.wait_s is None else "TOOMANYREQUESTS", str(error), headers
            )
        except YarnstoreError as error:
            return _error(problems.status_of(error), "UNKNOWN", error.message)

    async def _answer(self, asked: FaceRequest) -> Reply:
        if asked.path in ("/v2", "/v2/"):
            if asked.trusted or asked.headers.get("authorization") == f"Bearer {_ANYONE}":
                return _json({})
            return _refused(_TOKEN, _challenge(asked))
        if asked.path == _TOKENS:
            if not asked.trusted and "authorization" in asked.headers:
                return _refused(f"not the token of this service: {_TOKEN}", _BASIC)
            token = self._token if asked.trusted else _ANYONE
            return _json({"token": token, "access_token": token, "expires_in": _TOKEN_LIFE_S})
        if asked.path == "/v2/_catalog":
            listed = await self._library.models(trusted=asked.trusted)
            return _json({"repositories": _page([found.model.lower() for found in listed], asked)})
        if match := _TAGS.fullmatch(asked.path):
            found = await self._current(asked, match[1])
            tags = [tag_of(row, found) for row in await self._library.versions(found.model)]
            return _json({"name": match[1], "tags": _page(sorted(tags), asked)})
        match = _PATH.fullmatch(asked.path)
        if match is None:
            raise NotServedError("file", "this path is not part of the distribution API")
        name, what, reference = match.groups()
        if what == "referrers":
            await self._current(asked, name)
            return _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}, media_type=OCI_INDEX)
        if what == "manifests":
            return await self._manifest(asked, name, reference)
        return await self._content(asked, name, reference)

    async def _current(self, asked: FaceRequest, name: str) -> VersionFiles:
        return await self._find(asked, name, "main")

    async def _find(self, asked: FaceRequest, name: str, revision: str) -> VersionFiles:
        return await self._library.find(name.removeprefix(_VOLUMES), revision, trusted=asked.trusted)

    async def _image(self, asked: FaceRequest, name: str, tag: str) -> Image:
        """Return the image of a tag."""
        found = await self._find(asked, name, revision_of(tag))
        shapes = await self._shapes(asked, name, found)
        if not shapes:
            why = "has a file whose name begins with .wh., which removes files in a layer"
            raise NotServedError("revision", f"{found.variant}@{found.version} of {found.model} {why}")
        first, *others = shapes
        return others[-1] if others and _is_ollama(asked) and not name.startswith(_VOLUMES) else first

    async def _named(self, asked: FaceRequest, name: str, digest: str) -> Named | None:
        """Return what a digest names, after a search of all images if it is not known yet."""
        repository = asked.trusted, name
        if not _DIGEST.fullmatch(digest):
            return None
        if known := await self._known(asked, repository, digest):
            return known
        current = await self._current(asked, name)
        state = await self._library.state()
        if self._digests.is_searched(repository, state):
            return None
        revisions = [f"{row.variant}@{row.version}" for row in await self._library.versions(current.model)]
        # Stored versions first, since others are downloaded.
        for revision in ["main", *revisions] if current.stored else [*revisions, "main"]:
            with suppress(NotServedError):  # removed meanwhile
                await self._shapes(asked, name, await self._find(asked, name, revision))
            if known := self._digests.get(repository, digest):
                return known
        self._digests.note_searched(repository, state)
        return None

    async def _known(self, asked: FaceRequest, repository: Repository, digest: str) -> Named | None:
        """Return what is remembered of a digest; one whose version has other files by now is forgotten."""
        known = self._digests.get(repository, digest)
        if known is None:
            return None
        revision = f"{known.files.variant}@{known.files.version}"
        with suppress(NotServedError):
            now = await self._library.find(known.files.model, revision, trusted=asked.trusted)
            if now.manifest == known.files.manifest:
                return replace(known, files=now)  # it may be stored by now
        self._digests.forget(repository, digest)
        return None

    async def _shapes(self, asked: FaceRequest, name: str, found: VersionFiles) -> list[Image]:
        """Return the images of a version in one namespace: the usual one first, that of Ollama last."""
        if name.startswith(_VOLUMES):
            images = await self._volumes.images(found)
        else:
            images = [shape for shape in (modelpack(found), ollama(found)) if shape]
        for image in images:
            self._remember(asked, name, image)
        return images

    def _remember(self, asked: FaceRequest, name: str, image: Image) -> None:
        """Keep what the digests of an image name, since its blobs are asked for next."""
        repository, files = (asked.trusted, name), image.files
        self._digests.add(repository, image.digest, Named(files, image.manifest, image.media_type))
        for layer in image.layers:
            self._digests.add(repository, layer.digest, Named(files, layer=layer))
        if image.config:
            self._digests.add(repository, digest_of(image.config), Named(files, image.config))

    async def _manifest(self, asked: FaceRequest, name: str, reference: str) -> Reply:
        if not _DIGEST.fullmatch(reference):
            image = await self._image(asked, name, reference)
            return _bytes_reply(image.manifest, image.media_type)
        named = await self._named(asked, name, reference)
        if named is None or not named.media_type:
            raise NotServedError("revision", f"{name} has no manifest {reference}")
        return _bytes_reply(named.data, named.media_type)

    async def _content(self, asked: FaceRequest, name: str, digest: str) -> Reply:
        named = await self._named(asked, name, digest)
        if named is None:
            raise NotServedError("file", f"{name} has no blob {digest[:80]}")
        if named.layer is None:
            return _bytes_reply(named.data, "application/octet-stream")
        parts = named.layer.parts
        opened = None if asked.method == "HEAD" else await self._library.open_parts(named.files, parts)
        headers = _headers(digest, "application/octet-stream")
        return Reply(headers=headers, file=opened, size_bytes=named.layer.size_bytes)


def tag_of(row: StoredVersion, current: VersionFiles) -> str:
    """Return the tag of a version: `+`, which no tag may have, is `_`, which no version has."""
    tag = row.version.replace("+", "_")
    return tag if row.variant in (current.variant, DEFAULT_VARIANT) else f"{row.variant}__{tag}"


def revision_of(tag: str) -> str:
    """Return the revision of a tag; `latest` is the installed version."""
    if tag == "latest":
        return "main"
    variant, mark, version = tag.rpartition("__")
    named = version.replace("_", "+") if version[:1].isdigit() else version
    return f"{variant}@{named}" if mark else named


def digest_of(data: bytes) -> str:
    """Return the digest of some bytes, as OCI writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _is_ollama(asked: FaceRequest) -> bool:
    """Whether a client reads only the shape of Ollama."""
    accepted = asked.headers.get("accept", "")
    return asked.headers.get("user-agent", "").startswith("ollama/") or (
        DOCKER_MANIFEST in accepted and OCI_MANIFEST not in accepted
    )


def _page(names: list[str], asked: FaceRequest) -> list[str]:
    """Return the names that `n` and `last` of a request choose."""
    last, count = asked.query.get("last", ""), asked.query.get("n", "")
    rest = [name for name in names if name > last]
    return list(islice(rest, int(count))) if count.isdecimal() and len(count) < 9 else rest


def _headers(digest: str, media_type: str) -> dict[str, str]:
    return {
        "Docker-Distribution-API-Version": "registry/2.0",
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Content-Type": media_type,
    }


def _bytes_reply(data: bytes, media_type: str) -> Reply:
    return Reply(headers=_headers(digest_of(data), media_type), body=data)


def _json(
    value: object,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    media_type: str = "application/json",
) -> Reply:
    own = {"Docker-Distribution-API-Version": "registry/2.0", "Content-Type": media_type}
    return Reply(status, {**own, **(headers or {})}, msgspec.json.encode(value))


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    return _json({"errors": [{"code": code, "message": message, "detail": None}]}, status, headers)


def _challenge(asked: FaceRequest) -> str:
    """Return where a program of this machine gets a token for what it asked."""
    match = _PATH.fullmatch(asked.path) or _TAGS.fullmatch(asked.path)
    scope = f',scope="repository:{match[1]}:pull"' if match and '"' not in match[1] else ""
    return f'Bearer realm="{asked.origin}{_TOKENS}",service="ystore"{scope}'


def _refused(message: str, challenge: str) -> Reply:
    return _error(401, "UNAUTHORIZED", message, {"WWW-Authenticate": challenge})
