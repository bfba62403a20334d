"""The API of the Hugging Face Hub, as far as its clients need it to download models.

`HF_ENDPOINT` leads huggingface_hub and the libraries on it, such as transformers, diffusers and
sentence-transformers, and llama.cpp's `-hf` here.  Releases of llama.cpp until 2025 ask
`/v2/…/manifests/TAG` which file a tag is; other clients get OCI's manifests there.  A revision is `main`, a
version, an alias, a commit or its first digits, or `VARIANT@VERSION`; the ETag of a file is its SHA-256.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from urllib.parse import parse_qsl

import msgspec

from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.errors import YarnstoreError
from yarnstore.results import VersionFile, VersionFiles
from yarnstore.web import problems
from yarnstore.web.faces.commits import commit_id, commits_of
from yarnstore.web.faces.front import FaceRequest, Reply, later
from yarnstore.web.faces.library import FillingError, Library, NotServedError, commit_of

# First parts of paths that belong to the service.
_OWN = ("api", "static", "login", "health", "metrics", "v2")
_API = re.compile(
    r"/api/(?:models|datasets|spaces|repos|whoami-v2|validate-yaml|resolve-cache|agent-harnesses)(?:/.*)?"
)
# A revision, or the full name of a ref, of which a branch and a tag are served.
_REVISION = r"(?:refs/(?:heads|tags)/)?(refs/(?:convert|pr)/[^/]+|[^/]+)"
_FILE = re.compile(rf"/([^/]+(?:/[^/]+)?)/(?:resolve|raw)/{_REVISION}/(.+)")
_MODEL = re.compile(r"/api/models/([^/]+(?:/[^/]+)?)")
_PART = re.compile(
    rf"/api/models/([^/]+(?:/[^/]+)?)/(revision|tree|paths-info|commits)/{_REVISION}(?:/(.+))?"
)
_REFS = re.compile(r"/api/models/([^/]+(?:/[^/]+)?)/refs")
_ACCESS = re.compile(r"/api/models/([^/]+(?:/[^/]+)?)/auth-check")
_CHOICE = re.compile(r"/v2/([^/]+/[^/]+)/manifests/([^/]+)")
_LLAMA = re.compile(r"llama-cpp(?:/.*)?")
# Parts of a model after the first, which llama.cpp finds by their names.
_LATER_PART = re.compile(r"-(?!0*1-)[0-9]{5}-of-[0-9]{5}\.gguf$", re.IGNORECASE)
# What `latest` is, if there is one: the choice of later releases of llama.cpp.
_USUAL_TAGS = ("Q4_K_M", "Q8_0")
_CODES = {"model": "RepoNotFound", "revision": "RevisionNotFound", "file": "EntryNotFound"}
_TOKEN = "send the service's token as the token of the Hub (HF_TOKEN)"  # noqa: S105 - says which
_JSON = "application/json; charset=utf-8"
# Whose token that of the service is.
_OWNER = {
    "type": "user",
    "id": "ystore",
    "name": "ystore",
    "fullname": "ystore",
    "orgs": [],
    "auth": {"type": "access_token", "accessToken": {"displayName": "ystore", "role": "read"}},
}


class Hub:
    """The face of `ystore serve --hub`."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def owns(self, path: str, agent: str) -> bool:
        """See `Face`."""
        if _API.fullmatch(path) or (_CHOICE.fullmatch(path) and _LLAMA.fullmatch(agent)):
            return True
        return _FILE.fullmatch(path) is not None and path.split("/")[1] not in _OWN

    def stranger(self) -> Reply:
        """See `Face`."""
        return _error(401, "", f"this machine is served only with a token: {_TOKEN}")

    async def answer(self, asked: FaceRequest) -> Reply:
        """See `Face`."""
        try:
            match = _PART.fullmatch(asked.path)
            reads = asked.method == "POST" and match is not None and match[2] == "paths-info"
            if asked.method not in ("GET", "HEAD") and not reads:
                return _error(405, "", "this service is read-only for clients of the Hub")
            return await self._answer(asked)
        except NotServedError as error:
            if error.what == "model" and not asked.trusted:
                return _error(401, _CODES["model"], f"{error.message}; {_TOKEN}")
            return _error(404, _CODES[error.what], error.message)
        except FillingError as error:
            status, headers = later(error.wait_s)
            reply = _error(status, "", str(error))
            return Reply(status, {**reply.headers, **headers}, reply.body)
        except YarnstoreError as error:
            return _error(problems.status_of(error), "", error.message)

    async def _answer(self, asked: FaceRequest) -> Reply:
        path = asked.path
        if match := _CHOICE.fullmatch(path):
            found = await self._library.find(match[1], "main", trusted=asked.trusted)
            return _json(_choice(found, match[2]))
        if (match := _FILE.fullmatch(path)) and not path.startswith("/api/"):
            return await self._file(asked, match[1], match[2], match[3])
        if match := _REFS.fullmatch(path):
            return await self._refs(asked, match[1])
        if match := _ACCESS.fullmatch(path):
            await self._library.find(match[1], "main", trusted=asked.trusted)
            return _json({})
        if match := _PART.fullmatch(path):
            model, what, revision, rest = match.groups()
            found = await self._library.find(model, revision, trusted=asked.trusted)
            if what == "revision":
                return _json(_info(model, found, details=_is_set(asked, "blobs")))
            if what == "paths-info":
                return _json(_chosen(found, _paths(asked)))
            if what == "commits":
                return await self._commits(found)
            return _json(_tree(found, rest or "", deep=_is_set(asked, "recursive")))
        if path.rstrip("/") == "/api/models":
            listed = await self._library.models(trusted=asked.trusted)
            return _json(
                [_info(f.model, f, details=False) for f in listed if _is_listed(f.model, asked.query)]
            )
        if path == "/api/whoami-v2":
            return (
                _json(_OWNER)
                if asked.trusted
                else _error(401, "", f"not the token of this service: {_TOKEN}")
            )
        if match := _MODEL.fullmatch(path):
            found = await self._library.find(match[1], "main", trusted=asked.trusted)
            return _json(_info(match[1], found, details=_is_set(asked, "blobs")))
        if path.startswith("/api/models/"):
            return _error(404, "", "this service has no such information")
        return _error(404, "RepoNotFound", "this service has models only")

    async def _file(self, asked: FaceRequest, model: str, revision: str, path: str) -> Reply:
        found = await self._library.find(model, revision, trusted=asked.trusted)
        commit = {"X-Repo-Commit": commit_of(found)}
        file = next((file for file in found.files if file.path == path), None)
        if file is None:
            reply = _error(404, "EntryNotFound", f"{found.model} {found.version} has no file {path[:200]!r}")
            return Reply(reply.status, {**reply.headers, **commit}, reply.body)
        tag = f'"{file.sha256}"'
        headers = {
            **commit,
            "ETag": tag,
            "X-Linked-Etag": tag,
            "X-Linked-Size": str(file.size_bytes),
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f'attachment; filename="{path.rpartition("/")[2]}"',
        }
        patient = _LLAMA.fullmatch(asked.headers.get("user-agent", "")) is not None
        opened = None
        if asked.method != "HEAD":
            opened = await self._library.open(found, path, patient=patient)
        return Reply(headers=headers, file=opened, size_bytes=file.size_bytes)

    async def _commits(self, found: VersionFiles) -> Reply:
        stored = await self._library.versions(found.model)
        commits = commits_of(found, stored, await self._library.history(found.model))
        return _json(commits, headers={"X-Total-Count": str(len(commits))})

    async def _refs(self, asked: FaceRequest, model: str) -> Reply:
        current = await self._library.find(model, "main", trusted=asked.trusted)
        tags = [
            {"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit_id(manifest)}
            for name, manifest in await self._tags(current)
        ]
        branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": commit_of(current)}
        requests: dict[str, list[str]] = {"pullRequests": []} if _is_set(asked, "include_prs") else {}
        return _json({"branches": [branch], "tags": tags, "converts": [], **requests})

    async def _tags(self, current: VersionFiles) -> list[tuple[str, str]]:
        """Return the stored versions as names of revisions, with their manifests."""
        usual = (current.variant, DEFAULT_VARIANT)
        return [
            (row.version if row.variant in usual else f"{row.variant}@{row.version}", row.manifest)
            for row in await self._library.versions(current.model)
        ]


def _is_listed(model: str, query: Mapping[str, str]) -> bool:
    """Whether a search for models wants this one, which has no tags."""
    author = query.get("author", "").lower()
    named = query.get("search", "").lower() in model.lower()
    return named and (not author or model.lower().startswith(f"{author}/")) and not query.get("filter")


def _is_set(asked: FaceRequest, name: str) -> bool:
    """Whether a parameter of the query is true."""
    return asked.query.get(name, "").lower() in ("true", "1")


def _info(model: str, found: VersionFiles, *, details: bool) -> dict[str, object]:
    return {
        "_id": commit_of(found)[:24],
        "id": model,
        "modelId": model,
        "sha": commit_of(found),
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [
            {"rfilename": file.path, **(_content(file, "blobId") if details else {})} for file in found.files
        ],
        "usedStorage": sum(file.size_bytes for file in found.files),
    }


def _content(file: VersionFile, name: str) -> dict[str, object]:
    lfs = {"oid": file.sha256, "sha256": file.sha256, "size": file.size_bytes, "pointerSize": 134}
    return {name: file.sha256[:40], "size": file.size_bytes, "lfs": lfs}


def _entry(file: VersionFile) -> dict[str, object]:
    return {"type": "file", "path": file.path, **_content(file, "oid")}


def _folders(files: Iterable[VersionFile]) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for file in files:
        folder = file.path.rpartition("/")[0]
        while folder and folder not in found:
            found[folder] = {"type": "directory", "path": folder, "size": 0, "oid": "0" * 40}
            folder = folder.rpartition("/")[0]
    return found


def _tree(found: VersionFiles, folder: str, *, deep: bool) -> list[dict[str, object]]:
    """Return the entries below a folder.  Raises: NotServedError if it does not exist."""
    start = f"{folder.strip('/')}/" if folder.strip("/") else ""
    entries = {file.path: _entry(file) for file in found.files} | _folders(found.files)
    rows = [
        entries[path]
        for path in sorted(entries)
        if path.startswith(start) and (deep or "/" not in path[len(start) :])
    ]
    if start and not rows:
        raise NotServedError("file", f"{found.model} {found.version} has no folder {folder[:200]!r}")
    return rows


def _paths(asked: FaceRequest) -> list[str]:
    """Return the paths in the body of a request, which is a form or JSON."""
    if asked.headers.get("content-type", "").startswith("application/json"):
        try:
            return msgspec.json.decode(asked.body, type=_Paths).paths
        except msgspec.DecodeError:
            return []
    return [value for name, value in parse_qsl(asked.body.decode("utf-8", "replace")) if name == "paths"]


class _Paths(msgspec.Struct):
    paths: list[str]


def _chosen(found: VersionFiles, paths: list[str]) -> list[dict[str, object]]:
    entries = {file.path: _entry(file) for file in found.files} | _folders(found.files)
    return [entries[path] for path in (text.strip("/") for text in paths) if path in entries]


def _choice(found: VersionFiles, tag: str) -> dict[str, object]:
    """Return which file llama.cpp loads for a tag: `latest`, a quantization, or the name of a file.

    Raises: NotServedError for a tag without a file.
    """
    ggufs = [file for file in found.files if file.path.lower().endswith(".gguf")]
    projectors = [file for file in ggufs if "mmproj" in file.path.lower()]
    models = [file for file in ggufs if file not in projectors and not _LATER_PART.search(file.path)]
    found_by = [
        re.compile(rf"(?:^|[-._/]){re.escape(name)}(?:[-./]|$)", re.IGNORECASE)
        for name in (_USUAL_TAGS if tag == "latest" else [tag])
    ]
    chosen = next((file for each in found_by for file in models if each.search(file.path)), None)
    if tag == "latest":
        chosen = chosen or next(iter(models), None)
    if chosen is None:
        raise NotServedError("file", f"{found.model} {found.version} has no GGUF file {tag[:80]!r}")
    named = {"ggufFile": chosen, **({"mmprojFile": projectors[0]} if projectors else {})}
    return {name: {"rfilename": file.path, **_content(file, "blobId")} for name, file in named.items()}


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, {"Content-Type": _JSON, **(headers or {})}, msgspec.json.encode(value))


def _error(status: int, code: str, message: str) -> Reply:
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return _json({"error": message or HTTPStatus(status).phrase}, status, headers)
