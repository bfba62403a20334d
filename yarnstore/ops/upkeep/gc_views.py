"""The views that `gc` keeps although their versions are deleted.

These are views that a process has open, and views whose path `path` printed: a program may use them without a
lock.  The grace period begins when `path` last printed the path or when the version stopped being installed,
whichever is later.  The view's files and manifest are kept; the ref of its version and its chunks are not.
docs/decisions/0002-gc-frees-at-once.md has the reasons.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.errors import FormatError, IntegrityError, NotFoundError
from yarnstore.ops.session.session import Session
from yarnstore.store import fsread, hashed, held, trash
from yarnstore.store.layout import StoreLayout, file_name
from yarnstore.store.views import discard_view, last_use, view_in_use


@dataclass(frozen=True)
class KeptView:
    """A view that `gc` keeps although its version was deleted."""

    model: str  #: The id of the model; empty if the manifest cannot be read.
    variant: str  #: The variant; empty if the manifest cannot be read.
    version: str  #: The version; empty if the manifest cannot be read.
    path: str  #: The folder of the view.
    size_bytes: int  #: The disk space that only this view uses, in bytes.
    until_ms: int | None  #: When its grace period ends; None while a process has it open.


@dataclass
class _View:
    digest: Sha256
    mark: tuple[int, float]
    manifest: Manifest | None = None
    until_s: float | None = None


@dataclass
class ViewPlan:
    """Which views of deleted versions are deleted, and which stay."""

    session: Session
    kept: list[_View] = field(default_factory=list)
    dead: list[_View] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def names(self) -> set[str]:
        """The digests of the views that stay."""
        return {view.digest.hex for view in self.kept}

    @property
    def manifests(self) -> list[Manifest]:
        """The manifests of the views that stay."""
        return [view.manifest for view in self.kept if view.manifest is not None]

    @property
    def files(self) -> set[str]:
        """The names in `files/` that the remaining views need."""
        return {file_name(file) for manifest in self.manifests for file in manifest.files}

    def discard(self, keep: Collection[str]) -> None:
        """Move the deleted views into the trash, but no only copy of a file whose name is in `keep`; a view
        that was requested meanwhile stays.

        The exclusive lock does not prevent that: `path` takes no lock if the view exists.
        """
        layout = self.session.layout
        for view in self.dead:
            if not discard_view(layout, view.digest, view.mark, keep):
                self.kept.append(view)
        self.dead = []
        for name in self.unknown:
            trash.discard(layout.views / name, layout.trash)

    def describe(self, needed: Collection[str]) -> list[KeptView]:
        """Describe the views that stay; `needed` are the names in `files/` that kept versions need.

        A file of several views is counted once.
        """
        layout, counted = self.session.layout, set(needed)
        found = []
        for view in self.kept:
            own = {file_name(file) for file in view.manifest.files} if view.manifest else set()
            size = sum(held.sizes(layout, own - counted).values())
            counted |= own
            manifest = view.manifest
            names = (manifest.model, manifest.variant, manifest.version) if manifest else ("", "", "")
            if manifest is None:
                size = fsread.tree_bytes(layout.view(view.digest))
            until_ms = None if view.until_s is None else int(view.until_s * 1000)
            found.append(KeptView(*names, str(layout.view(view.digest)), size, until_ms))
        return found


def plan_views(session: Session, kept: Collection[str], grace_s: float) -> ViewPlan:
    """Divide the views of versions whose digests are not in `kept`.  Needs the exclusive lock."""
    layout, now = session.layout, session.clock()
    plan = ViewPlan(session)
    for name in fsread.list_names(layout.views):
        if name in kept:
            continue
        try:
            digest = Sha256.parse(name)
        except FormatError:
            plan.unknown.append(name)
            continue
        view = _View(digest, last_use(layout, digest))
        with contextlib.suppress(NotFoundError, IntegrityError):
            view.manifest = layout.read_manifest(digest)
        if view_in_use(layout, digest):
            plan.kept.append(view)
            continue
        view.until_s = _last_needed_s(session, view, now) + grace_s
        (plan.kept if view.until_s > now else plan.dead).append(view)
    return plan


def _last_needed_s(session: Session, view: _View, now: float) -> float:
    """Return when a view's path was last printed or it stopped being installed, whichever is later.

    0 if `path` never printed it.  A time in the future, after a clock was set back, counts as now.
    """
    when = view.mark[1]
    if not when:
        return 0.0
    if view.manifest is not None:
        for move in session.refs.moves(view.manifest.model):
            if move.old is not None and move.old.manifest == view.digest and move.new != move.old:
                when = max(when, move.time_ms / 1000)
    return min(when, now)


def copied_bytes(layout: StoreLayout, kept: Iterable[Manifest]) -> int:
    """Return the size of the files in `files/` of which the views of `kept` manifests have copies."""
    found = {file_name(file): file.size_bytes for manifest in kept for file in held.copied(layout, manifest)}
    return sum(found.values())


def hold_copies(session: Session, kept: Iterable[Manifest]) -> None:
    """Leave one copy of files that a view and `files/` have each: a link to the one in `files/`, or, where
    the file system has no hard links, the one in the view.  What stays is read and hashed before.

    Two processes that made a file at the same time leave such copies; without hard links, earlier releases
    and a view that was deleted.

    Raises: LockTimeoutError, StorageError.
    """
    layout = session.layout
    with layout.shared():
        for manifest in kept:
            view, copied = layout.view(manifest.digest), held.copied(layout, manifest)
            sound = {
                file_name(file)
                for file in copied
                if held.link_anew(layout, manifest, file) is None
                and hashed.hashes_to(layout, view / file.path, file.sha256)
            }
            if sound:
                with hashed.changing(layout, []):
                    held.hold(layout, manifest, sound)
