"""`status`: what the store holds and what room it takes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.ops.resolve import standing_here
from yarnstore.ops.session import Session
from yarnstore.store import fsread
from yarnstore.store.chunks import load_indexes


@dataclass(frozen=True)
class StoreStatus:
    """Sizes in bytes.  `raw_bytes` is what all versions weigh as plain files, `unique_bytes` what
    their distinct chunks do, `stored_bytes` the packs, `file_bytes` the materialised files."""

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

    @property
    def dedupe_ratio(self) -> float:
        """How many times smaller the distinct chunks are than all versions; 1 where there are none."""
        return self.raw_bytes / self.unique_bytes if self.unique_bytes else 1.0

    @property
    def compression_ratio(self) -> float:
        """How many times smaller the packs are than their chunks; 1 where there are none."""
        return self.unique_bytes / self.stored_bytes if self.stored_bytes else 1.0


def status(session: Session) -> StoreStatus:
    """What the store holds.  Raises: StorageError."""
    refs, layout = session.refs, session.layout
    versions = refs.versions()
    raw = 0
    for name in versions:
        digest = refs.version(name)
        if digest is not None:
            raw += layout.read_manifest(digest).size_bytes
    indexes = load_indexes(layout.pack_folder, rebuild=False).indexes
    free, reserve = fsread.free_bytes(layout.root)
    return StoreStatus(
        str(layout.root),
        layout.exists(),
        len({name.model for name in versions} | set(refs.installed_models())),
        len(versions),
        len(refs.installed_models()),
        len(refs.pins()) + len(refs.held_models()),
        len(indexes),
        sum(len(index) for index in indexes),
        raw,
        sum(int(index.plain.sum()) for index in indexes),
        sum(index.pack_bytes for index in indexes),
        fsread.sum_sizes([layout.files / name for name in fsread.list_names(layout.files)]),
        free,
        reserve,
        _notices(session),
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
