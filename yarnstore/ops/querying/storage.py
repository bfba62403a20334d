"""`du`: the disk space of single versions, of data shared by versions, and of everything else.

Owns the report; `ops/copies/space` measures, and `after_gc` estimates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from yarnstore.core.digest import Sha256
from yarnstore.errors import NotFoundError
from yarnstore.ops.copies.space import Form, Space
from yarnstore.ops.querying.keeping import GcPolicy, after_gc, choose
from yarnstore.ops.querying.usage import list_stored
from yarnstore.ops.session.session import Session
from yarnstore.store import fsread
from yarnstore.store.refs import VersionName

OtherKind: TypeAlias = Literal["shared", "unused", "temporary", "trash", "registries", "records"]


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
    frees_bytes: int = 0  #: About how many bytes more `gc` would free if it was removed before.
    #: About how many bytes more `gc --thin` would free, which keeps a rollback target only as deltas.
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
    after = after_gc(session, space, policy, reasons)
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
                frees_bytes=after.frees_bytes(digest),
                thin_frees_bytes=after.thin_frees_bytes(digest) if reasons.get(digest) == "rollback" else 0,
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
