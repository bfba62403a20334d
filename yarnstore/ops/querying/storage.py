"""`du`: the disk space of single versions, of data shared by versions, and of everything else.

Owns the report; `ops/querying/space` measures.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from yarnstore.core.codec import make_entry
from yarnstore.core.delta_entries import make_stored_entry
from yarnstore.core.digest import Sha256
from yarnstore.core.index import Ids, find_ids, id_bytes
from yarnstore.core.manifest import Manifest
from yarnstore.core.pairing import Pair, chunk_elements
from yarnstore.errors import IntegrityError, NotFoundError, StorageError
from yarnstore.ops.querying.keeping import GcPolicy, choose
from yarnstore.ops.querying.space import Form, Space
from yarnstore.ops.querying.usage import list_stored
from yarnstore.ops.session.session import Session
from yarnstore.store import fsread
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.matching import find_pairs
from yarnstore.store.places import manifest_chunks
from yarnstore.store.refs import VersionName

OtherKind: TypeAlias = Literal["shared", "unused", "temporary", "trash", "registries", "records"]

# Chunks that are encoded in all, so that the estimate takes less than a second, however many the models are.
_SAMPLES = 24


@dataclass(frozen=True)
class StorageVersion:
    """One version on the disk."""

    version: str
    variant: str
    size_bytes: int
    own_bytes: int  #: The disk space that only this version uses, in bytes.
    shared_bytes: int  #: The disk space that it shares with other versions, in bytes.
    installed: bool  #: Whether it is installed.
    pinned: bool  #: Whether it is pinned.
    last_used_ms: int  #: When it was last used, 0 if never.
    #: Why `gc` keeps it: `installed`, `rollback`, `pinned`, `in use`, `recent` or `newest`; None if it
    #: does not.
    reason_kept: str | None
    #: How it is stored: `file`: as files that programs open; `deltas`: some of its chunks as deltas against
    #: other chunks; `packed`: in packs, without deltas.
    form: Form = "packed"
    frees_bytes: int = 0  #: About how many bytes removing it, and then `gc`, would free.
    #: About how many bytes `gc --thin` would free, which keeps a rollback target as deltas, not as files.
    thin_frees_bytes: int = 0


@dataclass(frozen=True)
class StorageModel:
    """One model on the disk."""

    model: str
    own_bytes: int  #: The sum of the space that only one of its versions uses, in bytes.
    versions: list[StorageVersion]  #: The versions, the newest first.


@dataclass(frozen=True)
class StorageOther:
    """Disk space that belongs to no single version."""

    #: `shared`: by several versions; `unused`: of no version; `temporary`: of running and killed commands;
    #: `trash`: deleted or moved aside; `registries`: cached indexes; `records`: manifests, refs, logs,
    #: indexes of packs, settings and folders.
    kind: OtherKind
    bytes: int  #: Its size in bytes.


@dataclass(frozen=True)
class StorageUsage:
    """The disk space of the store by version and kind, counted like `du`: in blocks, a file with several
    names once.
    """

    total_bytes: int  #: The sum of everything below, in bytes; the same as `du -s` of the store.
    models: list[StorageModel]  #: The models, the largest first.
    other: list[StorageOther]  #: Space that belongs to no single version.
    free_bytes: int  #: The free space on the disk.
    reserve_bytes: int  #: The space that must stay free.


def storage(session: Session, policy: GcPolicy, model: str | None = None) -> StorageUsage:
    """Measure the store; with `model`, list only the versions of that model.

    Raises: IntegrityError if a ref or manifest is damaged; NotFoundError if the model is not stored.
    """
    refs, layout = session.refs, session.layout
    reasons = choose(session, policy).kept if layout.exists() else {}
    kept = {name: reasons.get(digest) for name in refs.versions() if (digest := refs.version(name))}
    rows = list_stored(session, model)
    if model is not None and not rows:
        raise NotFoundError("model", model, hint="`ystore list --all` lists what is stored")
    space = Space.of_store(session)
    thin = _thin_frees(session, space, list(_rollback_targets(session, space, kept)))
    by_model: dict[str, list[StorageVersion]] = {}
    for row in rows:
        digest = Sha256.parse(row.manifest)
        by_model.setdefault(row.model, []).append(
            StorageVersion(
                version=row.version,
                variant=row.variant,
                size_bytes=row.size_bytes,
                own_bytes=space.own_bytes(digest),
                shared_bytes=space.shared_bytes(digest),
                installed=row.installed,
                pinned=row.pinned,
                last_used_ms=row.last_used_ms,
                reason_kept=kept.get(VersionName(row.model, row.variant, row.version)),
                form=space.form(digest),
                frees_bytes=space.frees_bytes(digest),
                thin_frees_bytes=thin.get(digest, 0),
            )
        )
    models = [
        StorageModel(model, sum(v.own_bytes for v in found), found) for model, found in by_model.items()
    ]
    free, reserve = fsread.free_bytes(layout.root, layout.reserve)
    return StorageUsage(
        total_bytes=space.total_bytes,
        models=sorted(models, key=lambda item: (-item.own_bytes, item.model)),
        other=[StorageOther(kind, space.kinds[kind]) for kind in get_args(OtherKind) if space.kinds[kind]],
        free_bytes=free,
        reserve_bytes=reserve,
    )


def _rollback_targets(
    session: Session, space: Space, kept: Mapping[VersionName, str | None]
) -> Iterator[tuple[Manifest, Manifest]]:
    """Yield each version that is kept with its files for a rollback, and the installed one."""
    refs, layout = session.refs, session.layout
    for name, why in kept.items():
        digest, current = refs.version(name), refs.installed(name.model)
        if why == "rollback" and digest and current and space.form(digest) == "file":
            yield layout.read_manifest(digest), layout.read_manifest(current)


def _thin_frees(
    session: Session, space: Space, moves: Sequence[tuple[Manifest, Manifest]]
) -> dict[Sha256, int]:
    """Return how many bytes `gc --thin` would free, by the digest of the previous version: its files, less
    its chunks as deltas against the installed version, of which a few are encoded.

    `moves` are pairs of a previous version that has its files, and the installed one.
    """
    frees: dict[Sha256, int] = {}
    stored, plain = 0, 0
    left = _SAMPLES
    with ChunkStore(session.layout, rebuild=False) as chunks:
        for n, (previous, installed) in enumerate(moves):
            ids, lengths = manifest_chunks([previous])
            alone = (chunks.table.find(ids) < 0) & (find_ids(manifest_chunks([installed])[0], ids) < 0)
            count = min(-(-left // (len(moves) - n)), int(alone.sum()))
            if count:
                left -= count
                sizes = _encoded(chunks, previous, installed, _spread(ids[alone], count))
                stored, plain = stored + sizes[0], plain + sizes[1]
                share = sizes[0] / sizes[1] if sizes[1] else 1.0
            else:
                share = stored / plain if plain else 1.0
            size = int(share * int(lengths[alone].sum()))
            frees[previous.digest] = max(0, space.own_files_bytes(previous.digest) - size)
    return frees


def _spread(ids: Ids, count: int) -> Ids:
    """Return `count` of the ids, evenly; they are hashes, so their order is no order of the files."""
    return ids[:: max(1, len(ids) // count)][:count]


def _encoded(chunks: ChunkStore, old: Manifest, new: Manifest, ids: Ids) -> tuple[int, int]:
    """Return what chunks of an old version take as entries, and their sizes without encoding, in bytes."""
    elements = chunk_elements([old])
    wanted = {id_bytes(ids, n) for n in range(len(ids))}
    pairs: dict[bytes, Pair] = {}
    with contextlib.suppress(StorageError):  # rows are not compared: that may read all of both versions
        found = find_pairs(old, new, chunks, wanted, by_rows=False)
        pairs = {pair.chunk.chunk_id: pair for pair in found}
    stored, plain = 0, 0
    for chunk_id in wanted:
        with contextlib.suppress(IntegrityError, NotFoundError, StorageError):  # a damaged one says nothing
            data = chunks.read(chunk_id, chunks.row_of(chunk_id))
            if (pair := pairs.get(chunk_id)) is not None:
                entry = make_stored_entry(pair, data, chunks.read_base(pair.base_id, depth=0))
            else:
                entry = make_entry(chunk_id, data, elements[chunk_id])
            stored, plain = stored + entry.stored_bytes, plain + len(data)
    return stored, plain
