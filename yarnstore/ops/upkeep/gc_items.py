"""What `gc` would free and what stays, item by item, for a person to look at before it is done.

The plan has a fingerprint; `gc` with it deletes what was shown, or nothing.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal, TypeAlias

from yarnstore.core.digest import Sha256
from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.errors import DiskFullError
from yarnstore.ops.querying.usage import bytes_of
from yarnstore.ops.session.mark import required
from yarnstore.ops.session.session import Session
from yarnstore.ops.upkeep.gc import GcPlan, GcPolicy, keep_reasons, plan_gc
from yarnstore.store import fsread, trash
from yarnstore.store.chunks import ChunkStore, recover_chunks
from yarnstore.store.refs import VersionName

ItemKind: TypeAlias = Literal["version", "download", "view", "data", "temporary"]

# What the reasons for keeping a version mean, for people.
REASONS = {
    "installed": "it is installed",
    "rollback": "`rollback` returns to it",
    "pinned": "it is pinned",
    "in use": "a program has it open",
    "recent": "it was stored or used recently",
    "newest": "it is among the newest versions of its model",
}


@dataclass(frozen=True)
class GcItem:
    """One thing that `gc` frees or keeps."""

    #: `version`; `download`: one that was begun; `view`: files of a version that was deleted; `data`: chunks
    #: and files of no version; `temporary`: what commands left behind.
    kind: ItemKind
    what: str  #: Its name, such as a spec.
    bytes: int  #: The disk space that it alone takes, in bytes.
    why: str  #: Why it is freed, or why it stays.


@dataclass(frozen=True)
class GcForecast:
    """What `gc` would do."""

    fingerprint: str  #: A text that changes when the store does; `gc` takes it as `expected`.
    freed_bytes: int  #: How many bytes would be freed, `repack` included.
    items: list[GcItem]  #: What would be freed.
    kept: list[GcItem]  #: What stays.


def forecast_gc(session: Session, policy: GcPolicy, *, repack: bool = False) -> GcForecast:
    """Plan `gc`, and delete nothing.  Raises: as `gc`."""
    layout, refs = session.layout, session.refs
    with layout.exclusive():
        with contextlib.suppress(DiskFullError), ChunkStore(layout) as chunks:
            recover_chunks(chunks)
        plan = plan_gc(session, policy)
        reasons = keep_reasons(session, policy)
    with layout.shared():
        freed = plan.forecast_freed_bytes(repack=repack)
        manifests = [
            session.layout.read_manifest(required(refs.version(name), name)) for name in refs.versions()
        ]
        own = {digest: alone for digest, (alone, _) in bytes_of(session, manifests).items()}
        items = [*_versions(session, plan, own), *_rest(session, plan)]
        listed = sum(item.bytes for item in items)
        kept = [*_kept_versions(session, plan, reasons, own), *_kept_views(plan)]
        if freed > listed:
            why = "no version needs them"
            items.append(GcItem("data", "chunks and files", freed - listed, why))
        elif listed > freed:
            why = "their packs are mostly in use; rewriting them would cost more than it frees"
            kept.append(GcItem("data", "chunks of deleted versions", listed - freed, why))
    return GcForecast(plan.fingerprint, freed, items, kept)


def _versions(session: Session, plan: GcPlan, own: dict[Sha256, int]) -> list[GcItem]:
    found = []
    for name in plan.versions:
        digest = required(session.refs.version(name), name)
        size = own.pop(digest, 0)  # of two names of one content, once
        found.append(GcItem("version", _label(name), size, "it is no longer needed"))
    return found


def _rest(session: Session, plan: GcPlan) -> list[GcItem]:
    layout = session.layout
    why = "the download was not continued"
    found = [GcItem("download", _label(name), 0, why) for name in plan.stale_partials]
    found += [
        GcItem("temporary", path.name, fsread.tree_bytes(path), "a command left it behind")
        for path in plan.leftovers
    ]
    rubbish = sum(map(fsread.tree_bytes, trash.iter_trash(layout.trash, session.clock())))
    if rubbish:
        found.append(GcItem("temporary", "trash", rubbish, "it was deleted earlier"))
    return found


def _kept_versions(
    session: Session, plan: GcPlan, reasons: dict[Sha256, str], own: dict[Sha256, int]
) -> list[GcItem]:
    going = set(plan.versions)
    found = []
    for name in session.refs.versions():
        if name not in going:
            digest = required(session.refs.version(name), name)
            why = REASONS.get(reasons.get(digest, ""), reasons.get(digest, "it was stored in the meantime"))
            found.append(GcItem("version", _label(name), own.pop(digest, 0), why))
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


def _label(name: VersionName) -> str:
    variant = "" if name.variant == DEFAULT_VARIANT else f":{name.variant}"
    return f"{name.model}{variant}@{name.version}"
