"""What fills the disk: each version alone, what versions share, and the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from yarnstore.ops.querying.status import status
from yarnstore.ops.querying.usage import list_stored
from yarnstore.ops.session.session import Session
from yarnstore.ops.upkeep.gc import GcPolicy, keep_reasons
from yarnstore.store import fsread
from yarnstore.store.refs import VersionName

OtherKind: TypeAlias = Literal["shared", "unused", "temporary", "trash", "registries"]


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


@dataclass(frozen=True)
class StorageModel:
    """One model on the disk."""

    model: str
    own_bytes: int  #: The sum of what only one of its versions uses, in bytes.
    versions: list[StorageVersion]  #: The versions, the newest first.


@dataclass(frozen=True)
class StorageOther:
    """Disk space that belongs to no single version."""

    #: `shared`: by several versions; `unused`: of no version; `temporary`: of running and killed commands;
    #: `trash`: deleted or moved aside; `registries`: cached indexes.
    kind: OtherKind
    bytes: int  #: Its size in bytes.


@dataclass(frozen=True)
class StorageUsage:
    """The disk space of the store, by version and by kind."""

    total_bytes: int  #: The sum of everything below, in bytes.
    models: list[StorageModel]  #: The models, the largest first.
    other: list[StorageOther]  #: What belongs to no single version.
    free_bytes: int  #: The free space on the disk.
    reserve_bytes: int  #: The space that must stay free.


def storage(session: Session, policy: GcPolicy) -> StorageUsage:
    """Add up the store.  Raises: IntegrityError where a ref or manifest is damaged."""
    refs, layout = session.refs, session.layout
    reasons = keep_reasons(session, policy) if layout.exists() else {}
    kept = {name: reasons.get(digest) for name in refs.versions() if (digest := refs.version(name))}
    rows = list_stored(session)
    by_model: dict[str, list[StorageVersion]] = {}
    for row in rows:
        by_model.setdefault(row.model, []).append(
            StorageVersion(
                version=row.version,
                variant=row.variant,
                size_bytes=row.size_bytes,
                own_bytes=row.own_bytes,
                shared_bytes=row.shared_bytes,
                installed=row.installed,
                pinned=row.pinned,
                last_used_ms=row.last_used_ms,
                reason_kept=kept.get(VersionName(row.model, row.variant, row.version)),
            )
        )
    models = [
        StorageModel(model, sum(v.own_bytes for v in found), found) for model, found in by_model.items()
    ]
    found = status(session)
    stored = found.stored_bytes + found.file_bytes
    own = sum({row.manifest: row.own_bytes for row in rows}.values())
    other = [
        StorageOther("shared", max(0, stored - found.unused_bytes - own)),
        StorageOther("unused", found.unused_bytes),
        StorageOther("temporary", fsread.tree_bytes(layout.tmp)),
        StorageOther("trash", fsread.tree_bytes(layout.trash)),
        StorageOther("registries", fsread.tree_bytes(layout.registries)),
    ]
    return StorageUsage(
        total_bytes=own + sum(item.bytes for item in other),
        models=sorted(models, key=lambda item: (-item.own_bytes, item.model)),
        other=[item for item in other if item.bytes],
        free_bytes=found.free_bytes,
        reserve_bytes=found.reserve_bytes,
    )
