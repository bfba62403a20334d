"""Decides which versions keep a second copy: those that no registry can provide again.

The chunks of an installed version are only in its files; those of an import, or of a model whose registry was
removed, are in a pack as well.  docs/decisions/0026-one-copy.md has the reasons.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import numpy as np

from yarnstore.core.digest import Sha256
from yarnstore.core.index import Ids, distinct_ids
from yarnstore.core.manifest import Manifest
from yarnstore.errors import BackendError, FormatError, IntegrityError, NotFoundError
from yarnstore.ops.session.session import Session
from yarnstore.registry.policies import KeepCopy
from yarnstore.registry.select import builds_of
from yarnstore.store.places import ChunkTable, manifest_chunks
from yarnstore.store.provenance import read_origin
from yarnstore.store.registry_cache import read_record
from yarnstore.store.seen import content_of


def keep_copies(session: Session, policy: KeepCopy, manifests: Iterable[Manifest]) -> list[Manifest]:
    """Return the manifests whose chunks must stay in packs, even if files have them."""
    if policy == "never":
        return []
    return [item for item in manifests if policy == "always" or not is_given_back(session, item)]


def is_given_back(session: Session, manifest: Manifest) -> bool:
    """Whether the registry that a version came from still lists it, according to the cached index."""
    origin = read_origin(session.layout, manifest.model)
    if origin is None:
        return False
    with contextlib.suppress(BackendError, IntegrityError, FormatError, NotFoundError):
        source = session.registries.source(origin)
        if read_record(session.layout, source.name) is None:
            return False
        entry = session.registries.cached_entry(source, manifest.model)
        if entry is None or manifest.version not in entry.versions:
            return False
        for build in builds_of(entry, manifest.version):
            listed = build.entry
            if build.variant != manifest.variant:
                continue
            if listed.manifest is not None and listed.packs:
                return Sha256.parse(listed.manifest) == manifest.digest
            if listed.download_url and listed.checksum:
                return Sha256.parse(listed.checksum) == content_of(manifest)
    return False


def copied_chunks(table: ChunkTable, manifests: Iterable[Manifest]) -> Ids:
    """Return the chunks of `manifests` that must stay in packs, with the bases of their deltas: ids,
    ascending.
    """
    ids, _ = manifest_chunks(manifests)
    rows = table.find(ids)
    bases = table.ids[table.with_bases(rows[rows >= 0])]
    return distinct_ids(np.concatenate([ids, bases]))
