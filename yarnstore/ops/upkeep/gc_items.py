"""A forecast of `gc` for users: what it would free and what stays, item by item.

The plan has a fingerprint; `gc` with that fingerprint deletes exactly what was shown, or nothing.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal, TypeAlias

from yarnstore.core.digest import Sha256
from yarnstore.errors import DiskFullError
from yarnstore.ops.querying.keeping import GcPolicy
from yarnstore.ops.querying.usage import bytes_of
from yarnstore.ops.session.mark import remembering, stored_versions
from yarnstore.ops.session.session import Session
from yarnstore.ops.upkeep.gc_plan import GcPlan, plan_gc
from yarnstore.store import fsread, held, trash
from yarnstore.store.chunks import ChunkStore, recover_chunks
from yarnstore.store.drafts import incomplete_bytes
from yarnstore.store.refs import VersionName

ItemKind: TypeAlias = Literal["version", "download", "view", "data", "temporary"]


@dataclass(frozen=True)
class GcItem:
    """One thing that `gc` frees or keeps."""

    #: `version`; `download`: an incomplete one; `view`: files of a version that was deleted; `data`: chunks
    #: and files of no version; `temporary`: leftovers of commands.
    kind: ItemKind
    what: str  #: Its name, such as a spec.
    bytes: int  #: The disk space that only it uses, in bytes.
    why: str  #: Why it is freed, or why it stays.


@dataclass(frozen=True)
class GcForecast:
    """The forecast of `gc`."""

    fingerprint: str  #: A text that changes with the store; the argument `expected` of `gc`.
    freed_bytes: int  #: How many bytes would be freed, `repack` included.
    items: list[GcItem]  #: The items that would be freed.
    kept: list[GcItem]  #: The items that stay.


def forecast_gc(session: Session, policy: GcPolicy, *, repack: bool = False) -> GcForecast:
    """Plan `gc`, and delete nothing.  Raises: as `gc`."""
    session = remembering(session)
    layout, refs = session.layout, session.refs
    with layout.exclusive():
        with contextlib.suppress(DiskFullError), ChunkStore(layout) as chunks:
            recover_chunks(chunks)
        held.reindex(layout)
        plan = plan_gc(session, policy)
    with layout.shared():
        freed = plan.forecast_freed_bytes(repack=repack)
        manifests = [layout.read_manifest(digest) for _, digest in stored_versions(refs)]
        own = {digest: alone for digest, (alone, _) in bytes_of(session, manifests).items()}
        items = [*_items(session, plan.removed, own), *_rest(session, plan)]
        listed = sum(item.bytes for item in items)
        kept = [*_items(session, plan.stays, own), *_kept_views(plan)]
        incomplete = incomplete_bytes(layout, without=plan.leftovers)
        if incomplete:
            why = "the next fetch or checkout continues them"
            kept.append(GcItem("download", "incomplete downloads", incomplete, why))
        if freed > listed:
            why = "no version needs them, or they are second copies"
            items.append(GcItem("data", "chunks and files", freed - listed, why))
        elif listed > freed:
            why = "their packs are mostly in use; rewriting them would cost more than it frees"
            kept.append(GcItem("data", "chunks of deleted versions", listed - freed, why))
    return GcForecast(plan.fingerprint, freed, items, kept)


def _rest(session: Session, plan: GcPlan) -> list[GcItem]:
    layout = session.layout
    why = "the download was not continued"
    found = [GcItem("download", name.spec, 0, why) for name in plan.stale_partials]
    found += [
        GcItem("temporary", path.name, fsread.tree_bytes(path), "a command left it behind")
        for path in plan.leftovers
    ]
    rubbish = sum(map(fsread.tree_bytes, trash.iter_trash(layout.trash, session.clock())))
    if rubbish:
        found.append(GcItem("temporary", "trash", rubbish, "it was deleted earlier"))
    return found


def _items(session: Session, versions: dict[VersionName, str], own: dict[Sha256, int]) -> list[GcItem]:
    """Return the items of versions with reasons; if two names have the same content, one has the bytes."""
    found = []
    for name, digest in stored_versions(session.refs):
        if name in versions:
            found.append(GcItem("version", name.spec, own.pop(digest, 0), versions[name]))
    return found


def _kept_views(plan: GcPlan) -> list[GcItem]:
    return [
        GcItem(
            "view",
            f"{view.model} {view.version}".strip() or view.path,
            view.size_bytes,
            "a program has it open"
            if view.until_ms is None
            else "its path was printed recently; the grace period has not ended",
        )
        for view in plan.views.describe(plan.needed_files)
    ]
