"""The Hugging Face cache: snapshots as versions, and versions as snapshots.

`models--ORG--NAME/` has `refs/` with commits by name, `blobs/` with each content once, and
`snapshots/<commit>/` with links to it.  A content is named by its SHA-256, a small one by its git hash.
Where the system has no symlinks, snapshots have the files themselves.
"""

from __future__ import annotations

import hashlib
from typing import Final

from yarnstore.core.digest import Sha256
from yarnstore.core.imported import ImportedFrom, imported_from
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.core.suggestions import close_names
from yarnstore.errors import FormatError, NotFoundError
from yarnstore.ops.exchange.address import Address
from yarnstore.ops.exchange.elsewhere import Found, Target
from yarnstore.ops.local.import_export import Listing
from yarnstore.store import fsread
from yarnstore.store.filepath import Path
from yarnstore.store.source_files import list_sources

_PREFIX: Final = "models--"
_REF_LIMIT_BYTES: Final = 200
_HEX: Final = frozenset("0123456789abcdef")
_COMMIT_CHARS: Final = 40
_SHA256_CHARS: Final = 64
_CONTENTS: Final = "blobs"


def folder_of(cache: Path, name: str) -> Path:
    """Return the folder of a model in the cache."""
    return cache / f"{_PREFIX}{name.replace('/', '--')}"


def name_of(folder: Path) -> str | None:
    """Return the name of the model whose folder in a cache this is; None for another folder."""
    if not folder.name.startswith(_PREFIX) or not fsread.is_folder(folder / "snapshots"):
        return None
    return folder.name.removeprefix(_PREFIX).replace("--", "/", 1)


def read(cache: Path, address: Address) -> list[Found]:
    """Return the snapshots of a model, the oldest first; of a revision, that one alone.

    Raises: NotFoundError; as `list_sources`.
    """
    folder = folder_of(cache, address.name)
    snapshots = [folder / "snapshots" / name for name in fsread.list_names(folder / "snapshots")]
    snapshots = [each for each in snapshots if _is_commit(each.name) and fsread.list_names(each)]
    if not snapshots:
        known = [name for each in fsread.list_names(cache) if (name := name_of(cache / each))]
        raise NotFoundError("model", address.name, where=str(cache), near=close_names(address.name, known))
    if address.revision:
        wanted = _commit(folder, address.revision)
        snapshots = [each for each in snapshots if each.name.startswith(wanted)]
        if len(snapshots) != 1:
            raise NotFoundError("revision", address.revision, where=str(folder))
    return [_found(address.name, each) for each in sorted(snapshots, key=_began)]


def _is_commit(name: str) -> bool:
    return len(name) == _COMMIT_CHARS and set(name) <= _HEX


def _commit(folder: Path, revision: str) -> str:
    """Return the commit of a branch or tag, or the commit that was given."""
    try:
        return (
            fsread.read_bytes(folder / "refs" / revision, _REF_LIMIT_BYTES).decode("ascii", "replace").strip()
        )
    except (NotFoundError, FormatError):
        return revision


def _began(snapshot: Path) -> tuple[float, str]:
    """Return when the first file of a snapshot came, since the date of a commit is not in the cache."""
    found = [fsread.stat_or_none(snapshot / name) for name in fsread.list_names(snapshot)]
    return min(each.st_mtime for each in found if each is not None), snapshot.name


def _found(name: str, snapshot: Path) -> Found:
    sources = list_sources(snapshot, all_files=True)
    named = {item.path: Path(item.source) for item in sources.files}
    names = {path: place.name for path, place in named.items() if place.parent.name == _CONTENTS}
    git = tuple(path for path, content in names.items() if _is_commit(content))
    hashes = {
        path: Sha256(bytes.fromhex(content))
        for path, content in names.items()
        if len(content) == _SHA256_CHARS and set(content) <= _HEX
    }
    origin = ImportedFrom("hf", name, snapshot.name, git=git)
    return Found(name, None, snapshot.name, Listing(sources, str(snapshot), origin, hashes))


# --- exports -----------------------------------------------------------------------------------


def write(target: Target, cache: Path, address: Address) -> Path:
    """Write a version as a snapshot, and let the revision of the address, or `main`, name it.

    The commit is the one that was imported, else the first 40 hex digits of the manifest's id.  Returns the
    folder of the snapshot.  Raises: StorageError, IntegrityError.
    """
    manifest = target.manifest
    folder = folder_of(cache, address.name)
    commit, git = commit_of(manifest, address.name)
    snapshot = folder / "snapshots" / commit
    for file in manifest.files:
        place = snapshot / file.path
        if fsread.is_file(place):  # where there are no symlinks, also as huggingface_hub writes it
            target.put(file, place)
            continue
        name = _git_hash(target, file) if file.path in git else file.sha256.hex
        target.put(file, folder / _CONTENTS / name)
        target.link(folder / _CONTENTS / name, place)
    target.flush()
    target.put_bytes(commit.encode(), folder / "refs" / (address.revision or "main"))
    return snapshot


def commit_of(manifest: Manifest, name: str) -> tuple[str, frozenset[str]]:
    """Return the commit of a version, and the paths of the files that are named by their git hash."""
    origin = imported_from(manifest.extra)
    if origin is not None and (origin.kind, origin.name) == ("hf", name) and _is_commit(origin.revision):
        return origin.revision, frozenset(origin.git)
    return manifest.digest.hex[:_COMMIT_CHARS], frozenset()


def _git_hash(target: Target, file: ManifestFile) -> str:
    digest = hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)
    for block in target.read(file):
        digest.update(block)
    return digest.hexdigest()
