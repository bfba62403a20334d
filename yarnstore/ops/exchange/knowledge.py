"""What this machine knows about contents: which version, or which model of another tool, a SHA-256 is."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import MIB
from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.core.oci import read_image
from yarnstore.errors import BackendError, FormatError, IntegrityError, NotFoundError, StorageError
from yarnstore.ops.exchange import hf_cache
from yarnstore.ops.exchange.address import ToolFolders
from yarnstore.ops.session.session import Session
from yarnstore.registry.select import iter_builds
from yarnstore.store import fsread
from yarnstore.store.filepath import Path


@dataclass(frozen=True)
class KnownFile:
    """A place where a content is known."""

    where: Literal["store", "registry", "hf", "ollama"]  #: Who knows it; `hf` is the Hugging Face cache.
    model: str
    #: The version; in the Hugging Face cache the commit, in Ollama the tag.
    version: str
    path: str  #: The path of the file in that version.
    variant: str | None = None
    registry: str | None = None


class Knowledge:
    """The contents that are known here, by SHA-256; collected once, without the network."""

    def __init__(self, session: Session, folders: ToolFolders) -> None:
        self._by_sha256: dict[Sha256, list[KnownFile]] = defaultdict(list)
        for found in (_stored(session), _published(session), _hub(folders.hf), _ollama(folders.ollama)):
            for sha256, known in found:
                if known not in self._by_sha256[sha256]:
                    self._by_sha256[sha256].append(known)

    def of(self, sha256: Sha256) -> list[KnownFile]:
        """Return where a content is known."""
        return list(self._by_sha256.get(sha256, ()))


def _stored(session: Session) -> Iterator[tuple[Sha256, KnownFile]]:
    for name in session.refs.versions():
        with contextlib.suppress(IntegrityError, StorageError):
            manifest = session.refs.checked_version(name)
            for file in manifest.files if manifest is not None else ():
                yield file.sha256, KnownFile("store", name.model, name.version, file.path, name.variant)


def _published(session: Session) -> Iterator[tuple[Sha256, KnownFile]]:
    for source in session.registries.sources:
        with contextlib.suppress(BackendError, IntegrityError, NotFoundError):
            for model, entry in session.registries.doc(source).models.items():
                for build in iter_builds(entry):
                    variant = build.variant or DEFAULT_VARIANT
                    for path, digest in _files_of(build.entry.files, build.entry.checksum):
                        with contextlib.suppress(FormatError):
                            yield (
                                Sha256.parse(digest),
                                KnownFile(
                                    "registry",
                                    model,
                                    build.version,
                                    path,
                                    variant=variant,
                                    registry=source.name,
                                ),
                            )


def _files_of(files: object, checksum: str | None) -> list[tuple[str, str]]:
    """Return the paths and hashes of a published version; one of a single file may have only a checksum."""
    listed = [(each.path, each.sha256) for each in files] if isinstance(files, tuple) else []
    return listed or ([("", checksum)] if checksum else [])


def _hub(cache: Path) -> Iterator[tuple[Sha256, KnownFile]]:
    for folder in fsread.list_names(cache):
        name = hf_cache.name_of(cache / folder)
        snapshots = cache / folder / "snapshots"
        for commit in fsread.list_names(snapshots) if name is not None else ():
            for path, content in _links(snapshots / commit):
                with contextlib.suppress(FormatError):
                    yield Sha256.parse(content), KnownFile("hf", name or "", commit, path)


def _links(snapshot: Path, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the paths of a snapshot, and the names of their contents."""
    for name in fsread.list_names(snapshot):
        target = fsread.read_link(snapshot / name)
        if target is not None:
            yield prefix + name, target.rpartition("/")[2]
        elif fsread.is_folder(snapshot / name):
            yield from _links(snapshot / name, f"{prefix}{name}/")


def _ollama(store: Path) -> Iterator[tuple[Sha256, KnownFile]]:
    root = store / "manifests"
    for path in _files_below(root):
        with contextlib.suppress(FormatError, NotFoundError, StorageError):
            model = path.parent.relative_to(root).as_posix()
            for layer in read_image(fsread.read_bytes(path, MIB), str(path)).layers:
                kind = layer.media_type.rpartition(".")[2]
                yield layer.sha256, KnownFile("ollama", model, path.name, kind)


def _files_below(folder: Path, depth: int = 4) -> Iterator[Path]:
    for name in fsread.list_names(folder):
        if fsread.is_file(folder / name):
            yield folder / name
        elif depth > 1 and fsread.is_folder(folder / name):
            yield from _files_below(folder / name, depth - 1)
