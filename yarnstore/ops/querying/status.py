"""`status`: what the store holds and what disk space it takes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from yarnstore.core.pack import PACK_HEADER_BYTES
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.ops.session.lookup import standing_here
from yarnstore.ops.session.mark import partial_manifests, required
from yarnstore.ops.session.session import Session
from yarnstore.store import fsread
from yarnstore.store.chunks import ChunkTable, load_indexes, manifest_chunks
from yarnstore.store.layout import file_name


@dataclass(frozen=True)
class StoreStatus:
    """Sizes in bytes.  `raw_bytes` is the size of all versions as plain files, `unique_bytes` that of
    their distinct chunks, `stored_bytes` that of the packs, and `file_bytes` of the materialised files.

    `unused_bytes` of packs and files together, and `unused_pack_bytes` of the packs alone, are needed by no
    version; `gc` frees them.
    """

    root: str
    exists: bool
    models: int
    versions: int
    installed: int
    pinned: int
    packs: int
    chunks: int
    raw_bytes: int
    unique_bytes: int
    stored_bytes: int
    file_bytes: int
    free_bytes: int
    reserve_bytes: int
    # Of installed models: withdrawn, deprecated.
    notices: tuple[str, ...] = ()
    unused_bytes: int = 0
    unused_pack_bytes: int = 0

    @property
    def dedupe_ratio(self) -> float:
        """How many times smaller the distinct chunks are than all versions; 1 where there are none."""
        return self.raw_bytes / self.unique_bytes if self.unique_bytes else 1.0

    @property
    def compression_ratio(self) -> float:
        """How many times smaller the versions' chunks are as stored; 1 where there are none."""
        used = self.stored_bytes - self.unused_pack_bytes
        return self.unique_bytes / used if self.unique_bytes and used > 0 else 1.0


def status(session: Session) -> StoreStatus:
    """What the store holds.  Raises: StorageError."""
    refs, layout = session.refs, session.layout
    versions = refs.versions()
    manifests = [layout.read_manifest(required(refs.version(name), name)) for name in versions]
    kept = [*manifests, *partial_manifests(session)[0]]
    kept += [layout.read_manifest(d) for model in refs.installed_models() if (d := refs.installed(model))]
    indexes = load_indexes(layout.pack_folder, rebuild=False).indexes
    table = ChunkTable(indexes)
    rows = table.find(manifest_chunks(manifests)[0])
    live = table.find(manifest_chunks(kept)[0])
    stored = sum(index.pack_bytes for index in indexes)
    used = table.with_bases(live[live >= 0])
    headers = PACK_HEADER_BYTES * len(set(table.pack[used].tolist()))
    unused = stored - headers - int(table.stored[used].sum())
    files = {name: fsread.sum_sizes([layout.files / name]) for name in fsread.list_names(layout.files)}
    needed = {file_name(file) for manifest in kept for file in manifest.files}
    free, reserve = fsread.free_bytes(layout.root)
    return StoreStatus(
        root=str(layout.root),
        exists=layout.exists(),
        models=len({name.model for name in versions} | set(refs.installed_models())),
        versions=len(versions),
        installed=len(refs.installed_models()),
        pinned=len(refs.pins()) + len(refs.held_models()),
        packs=len(indexes),
        chunks=sum(len(index) for index in indexes),
        raw_bytes=sum(manifest.size_bytes for manifest in manifests),
        unique_bytes=int(table.plain[rows[rows >= 0]].sum()),
        stored_bytes=stored,
        file_bytes=sum(files.values()),
        free_bytes=free,
        reserve_bytes=reserve,
        notices=_notices(session),
        unused_bytes=unused + sum(size for name, size in files.items() if name not in needed),
        unused_pack_bytes=unused,
    )


def _notices(session: Session) -> tuple[str, ...]:
    found = []
    for model in session.refs.installed_models():
        with contextlib.suppress(IntegrityError, NotFoundError):  # `fsck` is for those
            current = session.refs.current(model)
            said = str(standing_here(session, model, current)) if current else ""
            if current and said:
                found.append(f"{model} {current.version}: {said}")
    return tuple(found)
