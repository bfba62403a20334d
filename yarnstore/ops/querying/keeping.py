"""Decides which versions `gc` keeps and why, and which a limit removes nevertheless.

Always kept: the installed version, the target of a rollback, the version that was installed last, pinned
versions, and versions that a live process has open.  The policy adds the newest versions of each model and
those used recently.  A limit for the size of the store, or for the time without use, removes versions from
these.  `ops/upkeep/gc` deletes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Self

from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.ops.copies.after_gc import AfterGc
from yarnstore.ops.copies.space import Space
from yarnstore.ops.session.mark import pinned_versions, stored_versions
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import requirements
from yarnstore.progress import format_size, format_span
from yarnstore.registry.policies import DEFAULT_PATH_GRACE_S, KeepCopy, Retention, Rollback
from yarnstore.registry.versions import precedence
from yarnstore.store.disk import disk_bytes
from yarnstore.store.filepath import Path
from yarnstore.store.refs import VersionName
from yarnstore.store.views import last_use, version_in_use

DEFAULT_KEEP = 3
# Used in place of a model id; it is not a valid one.
ALL_MODELS = "*"

# The reasons for keeping and for deleting a version, as messages.
REASONS = {
    "installed": "it is installed",
    "rollback": "`rollback` or `checkout` can return to it",
    "pinned": "it is pinned",
    "in use": "a program has it open",
    "required": "a version that is kept requires it",
    "recent": "it was stored or used recently",
    "newest": "it is among the newest versions of its model",
}
UNNEEDED = "it is no longer needed"
# Reasons that a limit for the size of the store overrides.
_DISPENSABLE = ("recent", "newest")


@dataclass(frozen=True)
class GcPolicy:
    """What to keep in addition to what is always kept.

    That is the `keep` newest versions of each model, versions that were stored or used within `keep_within_s`
    seconds, and for `path_grace_s` seconds views whose path was printed.

    With `unused_s`, the newest versions are deleted too if they were neither stored nor used within these
    seconds.  With `max_size_bytes`, further versions are deleted, the least recently used first, until the
    store is no larger.
    """

    keep: int = DEFAULT_KEEP
    keep_within_s: float = 0.0
    path_grace_s: float = DEFAULT_PATH_GRACE_S
    max_size_bytes: int | None = None
    unused_s: float | None = None
    keep_copy: KeepCopy = "imports"
    rollback: Rollback = "instant"
    rollback_of: Mapping[str, Rollback] = field(default_factory=dict)
    only: frozenset[str] | None = None  # the models whose packs and files are considered; None for all
    keep_incomplete: bool = False  # keep incomplete downloads even if the disk is too full

    def covers(self, manifest: Manifest) -> bool:
        """Whether second copies of a version are removed."""
        return self.only is None or manifest.model in self.only

    def keeps_files(self, manifest: Manifest, reason: str) -> bool:
        """Whether a version that is kept for a reason keeps its files, and not only its chunks."""
        if not self.covers(manifest):
            return True
        if reason == "rollback":
            return self.rollback_of.get(manifest.model, self.rollback) == "instant"
        return reason in ("installed", "in use")

    @classmethod
    def of(
        cls,
        retention: Retention,
        *,
        keep: int | None = None,
        keep_within_s: float | None = None,
        grace_s: float | None = None,
        max_size_bytes: int | None = None,
        unused_s: float | None = None,
        thin: str | None = None,
        only: Collection[str] | None = None,
    ) -> Self:
        """Return the policy of the settings, overridden by the given values; `thin` is a model, or all of
        them, and `only` are the models that are slimmed.
        """
        rollback: Rollback = "thin" if thin == ALL_MODELS else retention.rollback
        rollback_of = {} if thin == ALL_MODELS else dict(retention.rollback_of)
        if thin is not None and thin != ALL_MODELS:
            rollback_of[thin] = "thin"
        chosen = retention.keep if keep is None else keep
        within = retention.keep_within_s if keep_within_s is None else keep_within_s
        grace = retention.path_grace_s if grace_s is None else grace_s
        return cls(
            keep=DEFAULT_KEEP if chosen is None else chosen,
            keep_within_s=within or 0.0,
            path_grace_s=grace,
            max_size_bytes=max_size_bytes,
            unused_s=unused_s,
            keep_copy=retention.keep_copy,
            rollback=rollback,
            rollback_of=rollback_of,
            only=None if only is None else frozenset(only),
        )


@dataclass(frozen=True)
class Choice:
    """The manifests to keep with their reasons, and the reasons why a limit removes others."""

    kept: dict[Sha256, str]
    gone: dict[Sha256, str] = field(default_factory=dict)


def versions_to_delete(session: Session, policy: GcPolicy, incoming: Collection[VersionName]) -> list[str]:
    """Return the versions that `gc` would delete once the `incoming` ones are installed.

    Raises: as `gc`.
    """
    refs = session.refs
    reasons = choose(session, policy, incoming).kept
    gone = [name for name, digest in stored_versions(refs) if digest not in reasons]
    return [f"{name.model}@{name.version}" for name in gone if name not in incoming]


def choose(
    session: Session,
    policy: GcPolicy,
    incoming: Collection[VersionName] = (),
    *,
    rubbish: Collection[Path] = (),
) -> Choice:
    """Return the manifests to keep, each with the first reason.

    The `incoming` versions count as installed, and the versions that they replace as targets of a rollback.
    `rubbish` is deleted in any case.
    """
    refs, layout = session.refs, session.layout
    reasons: dict[Sha256, str] = {}
    gone: dict[Sha256, str] = {}
    last: dict[Sha256, float] = {}
    by_model: dict[str, list[tuple[VersionName, Sha256]]] = defaultdict(list)
    for name, digest in stored_versions(refs):
        by_model[name.model].append((name, digest))
    for model in refs.installed_models():
        current = refs.installed(model)
        if current is not None:
            reasons.setdefault(current, "installed")
    for model in sorted({*refs.logged_models(), *refs.installed_models()}):
        fault = refs.log_fault(model)
        if fault:
            raise IntegrityError(
                f"the log of {model}",
                why=f"is damaged: it {fault}",
                hint="nothing was deleted; `ystore fsck --repair` repairs it",
            )
        here = {digest for _, digest in by_model[model]}
        coming_here = any(name.model == model for name in incoming)
        for installed in refs.stack(model)[-1:] if coming_here else refs.behind(model):
            if installed.manifest in here:
                reasons.setdefault(installed.manifest, "rollback")
    for _, digest in pinned_versions(refs):
        reasons.setdefault(digest, "pinned")
    now = session.clock()
    coming = {name.model: name.version for name in incoming}
    for model, names in by_model.items():
        for name, digest in names:
            if version_in_use(layout, digest):
                reasons.setdefault(digest, "in use")
            came = max(refs.version_time_s(name), last_use(layout, digest)[1])
            last[digest] = max(came, last.get(digest, 0.0))
            if policy.keep_within_s and now - came <= policy.keep_within_s:
                reasons.setdefault(digest, "recent")
        versions = {name.version for name, _ in names} | ({coming[model]} if model in coming else set())
        newest = sorted(versions, key=precedence, reverse=True)[: policy.keep]
        for name, digest in names:
            if name.version not in newest:
                continue
            if policy.unused_s is not None and now - last[digest] > policy.unused_s:
                gone[digest] = f"it was not used for {format_span(policy.unused_s)}"
            else:
                reasons.setdefault(digest, "newest")
    _keep_required(session, by_model, reasons)
    if policy.max_size_bytes is not None:
        candidates = [digest for digest, why in reasons.items() if why in _DISPENSABLE]
        candidates.sort(key=lambda digest: last[digest])
        limit = policy.max_size_bytes + sum(disk_bytes(path, freed=True) for path in rubbish)
        after = after_gc(session, Space.of_store(session), policy, reasons)
        for digest in after.too_many(limit, list(reasons), candidates):
            del reasons[digest]
            gone[digest] = f"it was used least recently; the limit is {format_size(policy.max_size_bytes)}"
    return Choice(reasons, {digest: why for digest, why in gone.items() if digest not in reasons})


def after_gc(session: Session, space: Space, policy: GcPolicy, reasons: Mapping[Sha256, str]) -> AfterGc:
    """Return estimates of the store's size after `gc`; `reasons` are those for keeping versions."""
    manifests = space.manifests
    with_files = {
        digest
        for digest, why in reasons.items()
        if digest in manifests and policy.keeps_files(manifests[digest], why)
    }
    return AfterGc(session, space, with_files, policy.keep_copy)


def _keep_required(
    session: Session,
    by_model: Mapping[str, list[tuple[VersionName, Sha256]]],
    reasons: dict[Sha256, str],
) -> None:
    """Keep what each kept version requires: the newest stored version that fits, unless one is kept."""
    waiting = list(reasons)
    while waiting:
        try:
            needed = requirements(session.layout.read_manifest(waiting.pop()))
        except (NotFoundError, IntegrityError):
            continue
        for spec in needed:
            fitting = [
                each for each in by_model.get(spec.model, ()) if spec.admits(each[0].variant, each[0].version)
            ]
            if fitting and not any(digest in reasons for _, digest in fitting):
                digest = max(fitting, key=lambda each: precedence(each[0].version))[1]
                reasons[digest] = "required"
                waiting.append(digest)
