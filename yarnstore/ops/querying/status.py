"""`status`: report what the store contains and how much disk space it uses.

`usage` has the sizes of single versions.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from yarnstore.core.pack import PACK_HEADER_BYTES
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.ops.querying.standing import standing_here
from yarnstore.ops.session.mark import partial_manifests, required
from yarnstore.ops.session.session import Session
from yarnstore.store import fsread
from yarnstore.store.chunks import load_indexes
from yarnstore.store.layout import file_name
from yarnstore.store.places import ChunkTable, manifest_chunks


@dataclass(frozen=True)
class StoreStatus:
    """The content and the disk usage of the store."""

    root: str  #: The path of the store.
    exists: bool  #: Whether a store exists at that path.
    models: int  #: How many models are stored.
    versions: int  #: How many versions are stored.
    installed: int  #: How many models are installed.
    pinned: int  #: How many versions are pinned.
    packs: int  #: How many packs there are.
    chunks: int  #: How many distinct chunks are stored.
    raw_bytes: int  #: The size of all versions as plain files.
    unique_bytes: int  #: The size of their distinct chunks, decoded.
    stored_bytes: int  #: The size of the packs.
    file_bytes: int  #: The size of the materialised files.
    free_bytes: int  #: The free space on the disk.
    reserve_bytes: int  #: The space that must stay free.
    notices: tuple[str, ...] = ()  #: Notices about installed models, such as a withdrawn version.
    unused_bytes: int = 0  #: How many bytes of packs and files no version needs; `gc` deletes them.
    unused_pack_bytes: int = 0  #: The part of `unused_bytes` that is in packs.

    @property
    def dedupe_ratio(self) -> float:
        """`raw_bytes` divided by `unique_bytes`; 1 for an empty store."""
        return self.raw_bytes / self.unique_bytes if self.unique_bytes else 1.0

    @property
    def compression_ratio(self) -> float:
        """`unique_bytes` divided by the size of their packs; 1 for an empty store."""
        used = self.stored_bytes - self.unused_pack_bytes
        return self.unique_bytes / used if self.unique_bytes and used > 0 else 1.0


def status(session: Session) -> StoreStatus:
    """Return the content and the sizes of the store.  Raises: StorageError."""
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
    free, reserve = fsread.free_bytes(layout.root, layout.reserve)
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
        with contextlib.suppress(IntegrityError, NotFoundError):  # `fsck` reports them
            current = session.refs.current(model)
            said = str(standing_here(session, model, current)) if current else ""
            if current and said:
                found.append(f"{model} {current.version}: {said}")
    return tuple(found)
