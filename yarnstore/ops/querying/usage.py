"""`list --all`: list the stored versions and the disk space of each.

Divides the disk space between versions that share chunks and files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from yarnstore.core.digest import Sha256
from yarnstore.core.index import Ints
from yarnstore.core.manifest import Manifest
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.ops.session.mark import stored_versions
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import pin_rule_of
from yarnstore.registry.versions import precedence
from yarnstore.store import fsread, held
from yarnstore.store.chunks import load_indexes
from yarnstore.store.layout import file_name
from yarnstore.store.places import ChunkTable, manifest_chunks
from yarnstore.store.refs import VersionName
from yarnstore.store.views import last_use


@dataclass(frozen=True)
class StoredVersion:
    """One version that is stored completely."""

    model: str
    version: str
    variant: str
    size_bytes: int
    own_bytes: int  #: The disk space that only this version uses, in bytes.
    shared_bytes: int  #: The disk space that it shares with other versions, in bytes.
    installed: bool  #: Whether it is installed.
    pinned: bool  #: Whether it is pinned.
    stored_ms: int  #: When it was stored.
    last_used_ms: int  #: When it was last used, 0 if never.
    uses: int  #: How often it was used.
    manifest: str
    checksum: str  #: The SHA-256 of the file, or of the manifest if the version has several files.


def list_stored(session: Session, model: str | None = None) -> list[StoredVersion]:
    """Return the stored versions, of one model or of all, by model and the newest first.

    Raises: IntegrityError if a ref or a manifest is damaged.
    """
    refs = session.refs
    manifests = {name: _manifest(session, name, digest) for name, digest in stored_versions(refs)}
    used = bytes_of(session, manifests.values())
    rows = []
    for name, manifest in manifests.items():
        if model not in (None, name.model):
            continue
        own, shared = used[manifest.digest]
        current = refs.current(name.model)
        here = current is not None and (current.variant, current.version) == (name.variant, name.version)
        uses, used_s = last_use(session.layout, manifest.digest)
        pinned = refs.pin(name) is not None
        if current is not None and here:
            pinned = pin_rule_of(session, name.model, current).version is not None
        rows.append(
            StoredVersion(
                model=name.model,
                version=name.version,
                variant=name.variant,
                size_bytes=manifest.size_bytes,
                own_bytes=own,
                shared_bytes=shared,
                installed=here,
                pinned=pinned,
                stored_ms=int(refs.version_time_s(name) * 1000),
                last_used_ms=int(used_s * 1000),
                uses=uses,
                manifest=str(manifest.digest),
                checksum=str(manifest.checksum),
            )
        )
    rows.sort(key=lambda row: row.variant)
    rows.sort(key=lambda row: precedence(row.version), reverse=True)
    return sorted(rows, key=lambda row: row.model)


def _manifest(session: Session, name: VersionName, digest: Sha256) -> Manifest:
    try:
        return session.layout.read_manifest(digest)
    except NotFoundError:
        raise IntegrityError(
            f"the manifest of {name}",
            why="is missing from the store",
            hint="`ystore fsck --repair` fetches it again",
        ) from None


def bytes_of(session: Session, versions: Iterable[Manifest]) -> dict[Sha256, tuple[int, int]]:
    """Return how many bytes each version uses alone, including its manifest, and shares with others."""
    manifests = {manifest.digest: manifest for manifest in versions}
    table = ChunkTable(load_indexes(session.layout.pack_folder, rebuild=False).indexes)
    entries = {digest: _entries(table, manifest) for digest, manifest in manifests.items()}
    users = np.zeros(len(table), np.int64)
    for rows in entries.values():
        users[rows] += 1
    files = {digest: set(map(file_name, item.files)) for digest, item in manifests.items()}
    sizes = held.sizes(session.layout, set().union(*files.values()))
    sharers = Counter(file for named in files.values() for file in named)
    found = {}
    for digest, rows in entries.items():
        alone = users[rows] == 1
        own = int(table.stored[rows[alone]].sum()) + sum(sizes[f] for f in files[digest] if sharers[f] == 1)
        total = int(table.stored[rows].sum()) + sum(sizes[f] for f in files[digest])
        found[digest] = (own + fsread.sum_sizes([session.layout.manifest(digest)]), total - own)
    return found


def _entries(table: ChunkTable, manifest: Manifest) -> Ints:
    """Return the rows of the entries that a version needs, including the bases of its deltas."""
    rows = table.find(manifest_chunks([manifest])[0])
    return table.with_bases(rows[rows >= 0])
