"""`lock` and `fetch --locked`: record exact versions, check them, and install the same ones elsewhere.

docs/format/lock-file.md governs the file.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.errors import ConflictError, FormatError, IntegrityError, NotFoundError, UsageError
from yarnstore.ops.fetching.eligibility import check_eligible, require_eligible
from yarnstore.ops.fetching.fetch import FetchResult, ensure_version, fetch_result
from yarnstore.ops.installing.activate import CheckoutResult
from yarnstore.ops.installing.checkout import install
from yarnstore.ops.session.lookup import Found, find_entry, sources_for
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import Stored
from yarnstore.registry.lockfile import LOCK_LIMIT_BYTES, Locked, LockFile
from yarnstore.registry.select import Build, resolve
from yarnstore.registry.spec import Spec
from yarnstore.store import fsio, fsread
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.filepath import Path
from yarnstore.store.native import quoted

LOCK_FILE = "ystore.lock"
_CORRECT = (
    "restore an earlier state of the file; or delete it, and `ystore lock MODEL@RANGE` writes a new one"
)
_HINT = "after checking the change, `ystore lock --update` locks the registry's current content"


@dataclass(frozen=True)
class LockedBuild:
    """One locked version."""

    requested: str  #: The requested spec.
    model: str
    variant: str
    version: str
    manifest: str | None  #: The SHA-256 of the manifest, if the registry has one.
    checksum: str | None  #: The SHA-256 of the file, if the registry has no manifest.
    size_bytes: int | None
    previous: str | None  #: The version that was locked before this call, None for a new one.


@dataclass(frozen=True)
class LockResult:
    """The content of a lock file."""

    path: str  #: The path of the lock file.
    digest: str  #: A digest of the locked builds, equal on all machines.
    changed: bool  #: Whether the file was written.
    builds: list[LockedBuild]  #: The locked versions.


def read_lock(path: Path) -> LockFile:
    """Read a lock file.  Raises: NotFoundError, FormatError, IncompatibleError."""
    try:
        return LockFile.parse(fsread.read_bytes(path, LOCK_LIMIT_BYTES))
    except NotFoundError:
        raise NotFoundError("lock file", str(path), hint="`ystore lock MODEL@RANGE` writes one") from None
    except FormatError as error:
        what, why = str(error.fields["what"]), str(error.fields["why"])
        raise FormatError(what, why, source=str(path), hint=error.hint or _CORRECT) from None


def lock(session: Session, path: Path, specs: Sequence[Spec] = (), *, update: bool = False) -> LockResult:
    """Add requests to a lock file, each with the version that it selects now.

    A request replaces another for the same model and variant.  Locked versions are kept, except with
    `update`: then the given requests are resolved again, or all if none is given.

    Without requests and without `update`, the file is only read.

    Raises: NotFoundError, BackendError; IncompatibleError for a yanked version; UsageError.
    """
    there = _read_or_empty(path) if specs else read_lock(path)
    before = {build.requested: build for build in there.builds}
    named = list(dict.fromkeys(specs))
    if len({(spec.model, spec.variant) for spec in named}) < len(named):
        raise UsageError("a model is requested twice", hint="give each model, or model and variant, once")
    wanted = {str(spec): spec for spec in named}
    for build in there.builds:
        spec = Spec.parse_stored(build.requested)
        if not any((spec.model, spec.variant) == (other.model, other.variant) for other in named):
            wanted[str(spec)] = spec
    anew = ({str(spec) for spec in named} or set(wanted)) if update else set(wanted) - set(before)
    builds = [_resolved(session, spec) if key in anew else before[key] for key, spec in wanted.items()]
    made = LockFile.of(builds)
    if made != there:
        fsio.write_atomic(path, made.encode(), tmp_dir=path.parent)
    return _result(path, made, there)


def check_lock(session: Session, path: Path) -> LockResult:
    """Compare a lock file with the registries, which are queried; nothing is downloaded or written.

    Warns of yanked and deprecated versions.  Raises: FormatError if a locked version is not one that was
    requested; IntegrityError if a registry has other content under a locked version; NotFoundError if it has
    no such version; as `read_lock`; NoRegistryError, BackendError.
    """
    there = read_lock(path)
    for build in there.builds:
        if not build.is_as_requested:
            raise FormatError(
                "lock file",
                f"has {build.version} for {build.requested}",
                source=str(path),
                hint=f"`ystore lock --update {quoted(str(build.requested))}` locks one that was requested",
            )
    for build in there.builds:
        source, entry = find_entry(session, build.model, sources_for(session, build.model), fresh=True)
        offered = resolve(entry, build.spec)
        _refuse_changed(build, offered, source.name)
        check_eligible(session, entry, offered, installing=False, force=True)
    return _result(path, there, there)


def _result(path: Path, made: LockFile, before: LockFile) -> LockResult:
    versions = {(build.model, build.variant): build.version for build in before.builds}
    return LockResult(
        str(path),
        str(made.digest),
        made != before,
        [_described(build, versions.get((build.model, build.variant))) for build in made.builds],
    )


def _read_or_empty(path: Path) -> LockFile:
    return LockFile() if fsread.stat_or_none(path) is None else read_lock(path)


def _described(build: Locked, previous: str | None) -> LockedBuild:
    return LockedBuild(
        requested=build.requested,
        model=build.model,
        variant=build.variant,
        version=build.version,
        manifest=str(build.manifest) if build.manifest else None,
        checksum=str(build.checksum) if build.checksum else None,
        size_bytes=build.size_bytes,
        previous=previous,
    )


def _resolved(session: Session, spec: Spec) -> Locked:
    """Return the build of a request from the registry.

    Installed versions and preferences of this machine are ignored, so that two machines lock the same.
    """
    source, entry = find_entry(session, spec.model, sources_for(session, spec.model), fresh=True)
    build = resolve(entry, spec)
    check_eligible(session, entry, build, installing=False, force=False)
    manifest, checksum = _promised(build)
    if manifest is None and checksum is None:
        raise IntegrityError(
            f"{build.model} {build.version}",
            why="cannot be locked: it has neither a manifest nor a checksum",
            source=source.name,
            hint="the publisher must fix the registry",
        )
    size_bytes = build.entry.size_bytes
    return Locked(
        requested=str(spec),
        model=build.model,
        variant=build.variant,
        version=build.version,
        manifest=manifest,
        checksum=checksum,
        size_bytes=size_bytes,
    )


def _promised(build: Build) -> tuple[Sha256 | None, Sha256 | None]:
    """Return the manifest digest and the checksum of a build in its registry."""
    entry = build.entry
    return (
        Sha256.parse(entry.manifest) if entry.manifest else None,
        Sha256.parse(entry.checksum) if entry.checksum else None,
    )


def fetch_locked(session: Session, path: Path) -> list[FetchResult]:
    """Fetch exactly the versions of a lock file; all are looked up before anything is downloaded.

    Raises: IntegrityError if a registry has other content under such a version; ConflictError if the store
    has; NotFoundError, BackendError, as `fetch`.
    """
    builds = {build.spec: build for build in read_lock(path).builds}
    with session.layout.shared(), ChunkStore(session.layout) as chunks:
        found = [_locked(session, build) for build in builds.values()]
        return [_fetch(session, *pair, chunks) for pair in zip(builds.values(), found, strict=True)]


def checkout_locked(session: Session, path: Path, *, force: bool = False) -> list[CheckoutResult]:
    """Install the versions of a lock file; all are looked up before anything is downloaded.

    Raises: UsageError if two builds of one model are locked; as `fetch_locked` and `checkout`.
    """
    builds = {build.spec: build for build in read_lock(path).builds}
    models = [build.model for build in builds.values()]
    twice = next((model for model in models if models.count(model) > 1), None)
    if twice is not None:
        raise UsageError(
            f"{path.name} has two variants of {twice}, but only one variant of a model can be installed",
            hint="`ystore fetch --locked` downloads both; `ystore path` prints the path of either",
        )
    with session.layout.shared(), ChunkStore(session.layout) as chunks:
        found = [_locked(session, build, installing=True, force=force) for build in builds.values()]
        return [install(session, each, "checkout", chunks, time.perf_counter()) for each in found]


def _locked(session: Session, build: Locked, *, installing: bool = False, force: bool = True) -> Found:
    """Return the source of a build, if it offers the locked content.  Warns if it is yanked."""
    found = require_eligible(session, build.spec, installing=installing, force=force)
    if isinstance(found, Stored):
        stored, wanted = _stored(build, found.manifest), build.manifest or build.checksum
        if stored == wanted:
            return found
        raise ConflictError(
            f"{build.spec} has different content in the store than in the lock file",
            hint=f"find out why; `ystore remove {build.spec}`, then `ystore fetch --locked`, replaces it",
            stored=str(stored),
            locked=str(wanted),
        )
    _refuse_changed(build, found.build, found.source.name)
    return found


def _refuse_changed(build: Locked, offered: Build, source: str) -> None:
    """Compare a locked build with the one in a registry.  Raises: IntegrityError."""
    manifest, checksum = _promised(offered)
    _refuse_other(build, "manifest", build.manifest, manifest, source)
    if build.manifest is None:
        _refuse_other(build, "checksum", build.checksum, checksum, source)


def _stored(build: Locked, manifest: Manifest) -> Sha256:
    """Return the stored version as it would be locked: by its manifest, else by its checksum."""
    return manifest.digest if build.manifest is not None else manifest.checksum


def _refuse_other(
    build: Locked, key: str, locked: Sha256 | None, offered: Sha256 | None, source: str
) -> None:
    if locked != offered:
        raise IntegrityError(
            f"{build.spec}: the {key} in {source}" if source else f"{build.spec}: its {key}",
            expected=str(locked) if locked else f"no {key}",
            got=str(offered) if offered else f"no {key}",
            why="does not match the lock file",
            hint=_HINT,
        )


def _fetch(session: Session, build: Locked, found: Found, chunks: ChunkStore) -> FetchResult:
    started = time.perf_counter()
    _, manifest, brought = ensure_version(session, found, chunks)
    _check(build, manifest)
    return fetch_result(manifest, brought, time.perf_counter() - started)


def _check(build: Locked, manifest: Manifest) -> None:
    """Check that the stored version is the locked one.  Raises: IntegrityError."""
    if build.manifest is not None:
        _refuse_other(build, "manifest", build.manifest, manifest.digest, "")
    elif len(manifest.files) == 1:
        _refuse_other(build, "checksum", build.checksum, manifest.files[0].sha256, "")
