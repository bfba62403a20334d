"""`status`: report what the store contains and how much disk space it uses.

`usage` has the sizes of single versions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.core.pack import PACK_HEADER_BYTES
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.ops.querying.standing import standing_here
from yarnstore.ops.session.mark import partial_manifests
from yarnstore.ops.session.session import Session
from yarnstore.progress import plural
from yarnstore.store import fsread, held
from yarnstore.store.chunks import load_indexes
from yarnstore.store.layout import StoreLayout, file_name
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
    #: How many refs cannot be read, or name a manifest that cannot be read; `unused_bytes` is then 0.
    damaged: int = 0

    @property
    def dedupe_ratio(self) -> float:
        """`raw_bytes` divided by `unique_bytes`; 1 for an empty store."""
        return self.raw_bytes / self.unique_bytes if self.unique_bytes else 1.0

    @property
    def compression_ratio(self) -> float:
        """`unique_bytes` divided by `used_bytes`; 1 for an empty store."""
        used = self.used_bytes
        return self.unique_bytes / used if self.unique_bytes and used > 0 else 1.0

    @property
    def used_bytes(self) -> int:
        """The size of the packs and materialised files, without what no version needs."""
        return self.stored_bytes + self.file_bytes - self.unused_bytes


def status(session: Session) -> StoreStatus:
    """Return the content and the sizes of the store, of a damaged one as far as it can be read.

    Raises: StorageError.
    """
    refs, layout = session.refs, session.layout
    versions = refs.versions()
    manifests, damaged = _read(layout, [partial(refs.version, name) for name in versions])
    installed, unknown = _read(layout, [partial(refs.installed, model) for model in refs.installed_models()])
    damaged += unknown
    kept = [*manifests, *partial_manifests(session)[0], *installed]
    indexes = load_indexes(layout.pack_folder, rebuild=False).indexes
    table = ChunkTable(indexes)
    _, lengths = manifest_chunks(manifests)
    live = table.find(manifest_chunks(kept)[0])
    pack_bytes = sum(index.pack_bytes for index in indexes)
    used = table.with_bases(live[live >= 0])
    headers = PACK_HEADER_BYTES * len(set(table.pack[used].tolist()))
    unused = 0 if damaged else pack_bytes - headers - int(table.stored[used].sum())
    files = held.sizes(layout, held.names(layout))
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
        unique_bytes=int(lengths.sum()),
        stored_bytes=pack_bytes,
        file_bytes=sum(files.values()),
        free_bytes=free,
        reserve_bytes=reserve,
        notices=(*_damage(damaged), *_notices(session)),
        unused_bytes=0 if damaged else unused + sum(files[name] for name in files if name not in needed),
        unused_pack_bytes=unused,
        damaged=damaged,
    )


def _read(layout: StoreLayout, refs: list[Callable[[], Sha256 | None]]) -> tuple[list[Manifest], int]:
    """Return the manifests that refs name, and how many of the refs or manifests cannot be read."""
    found, damaged = [], 0
    for ref in refs:
        try:
            digest = ref()
            if digest is not None:  # else it was removed a moment ago
                found.append(layout.read_manifest(digest))
        except (IntegrityError, NotFoundError):
            damaged += 1
    return found, damaged


def _damage(damaged: int) -> tuple[str, ...]:
    if not damaged:
        return ()
    return (f"{plural(damaged, 'ref')} cannot be read: `ystore fsck --repair` repairs the store",)


def _notices(session: Session) -> tuple[str, ...]:
    found = []
    for model in session.refs.installed_models():
        with contextlib.suppress(IntegrityError, NotFoundError):  # `fsck` reports them
            current = session.refs.current(model)
            said = str(standing_here(session, model, current)) if current else ""
            if current and said:
                found.append(f"{model} {current.version}: {said}")
    return tuple(found)
