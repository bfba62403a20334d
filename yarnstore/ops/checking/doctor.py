"""`doctor`: check this machine for problems and suggest fixes.

Checks the machine; `ops/checking/fsck` checks the store.  Changes only the cached registries, which it
refreshes; `doctor_disk` also writes probe files, which it removes.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata

from yarnstore import machine
from yarnstore._version import __version__
from yarnstore.backends.urls import shown
from yarnstore.core.encodings.kernels import kernels
from yarnstore.errors import (
    ConfigError,
    FormatError,
    IncompatibleError,
    LockTimeoutError,
    OfflineError,
    YarnstoreError,
)
from yarnstore.ops.checking.doctor_disk import Check, file_system, permissions, space
from yarnstore.ops.checking.fsck import fsck
from yarnstore.ops.copies.slim import lack_copies
from yarnstore.ops.querying.standing import installed_requirements
from yarnstore.ops.session.clock import zone_of
from yarnstore.ops.session.connections import exposed_secret
from yarnstore.ops.session.mark import live_manifest, stored_versions
from yarnstore.ops.session.session import RegistrySource, Session
from yarnstore.progress import format_size, format_span, plural
from yarnstore.registry.policies import AutoRules
from yarnstore.store import fsread
from yarnstore.store.chunks import load_indexes
from yarnstore.store.layout import StoreLayout
from yarnstore.store.moved import MOVED_FROM, find_store, read_path
from yarnstore.store.native import quoted
from yarnstore.store.queue import read_queue
from yarnstore.store.refs import Refs
from yarnstore.store.registry_cache import read_record

LIBRARIES = (
    *("blake3", "click", "httpx", "msgspec", "numpy", "platformdirs", "pyfastcdc", "rich", "semver"),
    *("tomli-w", "zstandard"),
)

_SETTING_FILES = ("config.toml", "managed.toml")
_DAY_S = 86_400.0
# Earlier than any release: an earlier clock was never set.
_EARLIEST_S = 1_704_067_200.0  # 2024-01-01
# A harmless difference from other machines' clocks.
_CLOCK_LEEWAY_S = 300.0
_OLD_CACHE_S = 7 * _DAY_S
_OLD_PARTIAL_S = 7 * _DAY_S
_MUCH_RUBBISH_BYTES = 1_000_000_000


@dataclass(frozen=True)
class DoctorResult:
    """The result of all checks of `doctor`."""

    root: str  #: The path of the store.
    seconds: float
    checks: list[Check] = field(default_factory=list)  #: The checks in the order in which they ran.

    @property
    def wrong(self) -> int:
        """The number of problems."""
        return sum(check.status == "wrong" for check in self.checks)


def diagnose(
    session: Session, rules: AutoRules | None = None, config_fault: YarnstoreError | None = None
) -> DoctorResult:
    """Run all checks; `config_fault` is the reason if the settings could not be read."""
    started = time.perf_counter()
    checks = [_versions(), _config(session, config_fault)]
    if config_fault is None:
        checks.append(_auto_update(rules or AutoRules()))
    examinations: list[Callable[[Session], Iterator[Check]]] = [
        _store,
        permissions,
        file_system,
        space,
        _alternates,
        _clock,
        _registries,
        _leavings,
        _copies,
        _contents,
        _names,
        _requirements,
    ]
    for examine in examinations:
        if examine is _registries and config_fault is not None:
            unknown = "unknown, because the settings cannot be read"
            checks.append(
                Check("registries", "note", unknown, "correct the settings, then run `ystore doctor` again")
            )
            continue
        try:
            checks += examine(session)
        except (YarnstoreError, OSError) as error:
            name = examine.__name__.strip("_").replace("_", " ")
            hint = error.hint if isinstance(error, YarnstoreError) else ""
            checks.append(
                Check(name, "wrong", _said(error), hint or "find the cause, then run `ystore doctor` again")
            )
    return DoctorResult(str(session.layout.root), round(time.perf_counter() - started, 3), checks)


def _said(error: YarnstoreError | OSError) -> str:
    return error.message if isinstance(error, YarnstoreError) else str(error)


# --- the machine -------------------------------------------------------------------------------


def _versions() -> Check:
    found, missing = [], []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    text = (
        f"yarnstore {__version__}, Python {platform.python_version()} on {sys.platform}; {', '.join(found)}; "
        f"kernels: {kernels.NAME}, threads: {machine.count_threads()}"
    )
    if missing:
        return Check(
            "versions",
            "wrong",
            f"{text}; without {', '.join(missing)}",
            "install yarnstore again, with its dependencies",
        )
    if machine.wanted_kernels() == "c" and kernels.NAME != "c":
        return Check(
            "versions",
            "note",
            f"{text}; YSTORE_KERNELS is c, but the C kernels are not built",
            "install a C compiler and the headers of Python, then yarnstore again; or unset YSTORE_KERNELS",
        )
    return Check("versions", "ok", text)


def _config(session: Session, fault: YarnstoreError | None) -> Check:
    if fault is not None:
        return Check("config", "wrong", fault.message, fault.hint or "correct config.toml with an editor")
    root = session.layout.root
    found = [name for name in _SETTING_FILES if fsread.stat_or_none(root / name) is not None]
    if not found:
        return Check("config", "ok", f"none ({root / 'config.toml'} does not exist)")
    return Check("config", "ok", f"readable: {' and '.join(str(root / name) for name in found)}")


def _auto_update(rules: AutoRules) -> Check:
    """Check whether an auto-update run could begin, if auto-update is enabled."""
    if not rules.enabled:
        return Check("auto-update", "ok", "off")
    try:
        zone_of(rules)
    except ConfigError as error:
        return Check("auto-update", "wrong", f"cannot run: {error.message}", error.hint)
    return Check("auto-update", "ok", "enabled; a timer of the system must run `ystore auto-update run`")


def _store(session: Session) -> Iterator[Check]:
    layout = session.layout
    try:
        there = layout.exists()
    except (FormatError, IncompatibleError) as error:
        yield Check("store", "wrong", error.message, error.hint)
        return
    if there:
        installed = plural(len(session.refs.installed_models()), "model")
        form = layout.format.decode("ascii").strip().partition("/")[2]
        yield Check("store", "ok", f"{layout.root}, format {form}, {installed} installed")
    else:
        yield Check("store", "ok", f"{layout.root}: does not exist yet; the first fetch or import creates it")


def _alternates(session: Session) -> Iterator[Check]:
    """Check whether alternates can be read; a fetch downloads what they lack."""
    mend = "mount it or correct `alternates` in config.toml; until then everything is downloaded"
    for root in session.alternates:
        name = f"alternate {root}"
        try:
            layout = StoreLayout(find_store(root))
            if not layout.exists():
                yield Check(name, "note", "is not a store", mend)
                continue
            if os.path.realpath(root) == os.path.realpath(session.layout.root):
                yield Check(
                    name, "note", "is this store itself", "remove it from `alternates` in config.toml"
                )
                continue
            found = load_indexes(layout.pack_folder, rebuild=False)
            versions = len(Refs(layout).versions())
            for folder in (layout.manifests, layout.files):
                fsread.list_names(folder)
        except (YarnstoreError, OSError) as error:
            yield Check(name, "note", f"cannot be read: {_said(error)}", mend)
            continue
        if found.faults:
            what = f"{plural(len(found.faults), 'index', 'indexes')} cannot be used"
            command = f"`ystore fsck --repair --home {quoted(str(root))}`"
            yield Check(name, "note", what, f"its owner can run {command}")
        else:
            yield Check(name, "ok", f"{plural(versions, 'version')} to copy from")


def _clock(session: Session) -> Iterator[Check]:
    now = session.clock()
    mend = "set the clock, or synchronise it with NTP (timedatectl set-ntp true)"
    if now < _EARLIEST_S:
        yield Check("clock", "wrong", "was never set: it shows a time before 2024", mend)
        return
    latest_ms = 0
    for model in session.refs.logged_models():
        moves = session.refs.read_log(model)[0]
        latest_ms = max(latest_ms, moves[-1].time_ms if moves else 0)
    for source in session.registries.sources:
        with contextlib.suppress(YarnstoreError):
            record = read_record(session.layout, source.name)
            latest_ms = max(latest_ms, record.fetched_ms if record else 0)
    ahead_s = latest_ms / 1000 - now
    if ahead_s > _CLOCK_LEEWAY_S:
        what = f"was set back: the store was last used {format_span(ahead_s)} after the current time"
        yield Check("clock", "wrong", what, mend)
    else:
        yield Check("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(now)))


# --- registries, and the store's content ---------------------------------------------------------


def _registries(session: Session) -> Iterator[Check]:
    if not session.registries.sources:
        yield Check("registries", "note", "none is configured", "`ystore registry add NAME URL` adds one")
    for source in session.registries.sources:
        yield _registry(session, source)


def _registry(session: Session, source: RegistrySource) -> Check:
    name = f"registry {source.name}"
    age = ""
    with contextlib.suppress(YarnstoreError):
        record = read_record(session.layout, source.name)
        if record is not None:
            seconds = max(0.0, session.clock() - record.fetched_ms / 1000)
            age = f"; the cached index is from {format_span(seconds)} ago"
            age += " and may be out of date" if seconds > _OLD_CACHE_S else ""
    started = time.perf_counter()
    try:
        doc = session.registries.refresh(source)
    except OfflineError:
        return Check(name, "note", f"not checked, since --offline is set{age}")
    except YarnstoreError as error:
        mend = (
            error.hint or f"check the address and the network, then `ystore registry refresh {source.name}`"
        )
        return Check(name, "wrong", f"{error.message}{age}", mend)
    took_ms = (time.perf_counter() - started) * 1000
    exposed = exposed_secret(source)
    if exposed:
        return Check(
            name, "note", exposed, "use its https address; `require_https = true` refuses plain http"
        )
    return Check(
        name,
        "ok",
        f"{shown(source.url)} answers in {took_ms:.0f} ms, last updated {doc.last_updated or 'never'}",
    )


def _leavings(session: Session) -> Iterator[Check]:
    """Report abandoned downloads and files that wait to be deleted."""
    layout, refs = session.layout, session.refs
    old = []
    for name in refs.partials():
        with contextlib.suppress(YarnstoreError):
            if session.clock() - refs.partial(name)[1] > _OLD_PARTIAL_S:
                old.append(str(name))
    if old:
        mend = f"`ystore fetch {old[0]}` continues it, `ystore gc` deletes it"
        yield Check("downloads", "note", f"downloads unfinished for a week: {', '.join(old)}", mend)
    else:
        yield Check("downloads", "ok", "no unfinished downloads")
    yield _queue(session)
    behind = read_path(layout.root / MOVED_FROM)
    if behind is not None:
        yield Check(
            "moved store",
            "note",
            f"the old folder was not removed: {behind}",
            f"`ystore move {quoted(str(layout.root.resolve()))}` removes it",
        )
    rubbish = sum(fsread.tree_bytes(folder) for folder in (layout.tmp, layout.trash))
    if rubbish > _MUCH_RUBBISH_BYTES:
        yield Check(
            "leavings", "note", f"{format_size(rubbish)} in tmp/ and trash/", "`ystore gc` deletes them"
        )
    else:
        yield Check("leavings", "ok", f"{format_size(rubbish)} in tmp/ and trash/")


def _queue(session: Session) -> Check:
    try:
        items = read_queue(session.layout)
    except (FormatError, IncompatibleError) as error:
        return Check("queue", "wrong", error.message, error.hint)
    failed = [item for item in items if item.error]
    if failed:
        what = f"{failed[0].spec} failed {plural(failed[0].tries, 'time')}: {failed[0].error}"
        return Check(
            "queue", "note", what, "`ystore queue run` tries again, `ystore queue remove` removes it"
        )
    return Check("queue", "ok", f"{plural(len(items), 'download')} queued")


def _copies(session: Session) -> Iterator[Check]:
    """Report versions of which damage could not be repaired: no registry has them, and they are here once."""
    if not session.layout.exists():
        return
    digests = {digest for _, digest in stored_versions(session.refs)}
    stored = [live_manifest(session, digest, "referenced by a ref") for digest in sorted(digests)]
    found = lack_copies(session, session.keep_copy, stored)
    if found:
        shown = ", ".join(f"{item.model}@{item.version}" for item in found[:6]) + (
            " …" if len(found) > 6 else ""
        )
        what = f"no registry has {shown}, and this store has only one copy"
        yield Check("second copies", "note", what, "`ystore gc` writes a second copy")


def _names(session: Session) -> Iterator[Check]:
    """Report versions that are one on Windows and macOS; few stores have any, so nothing is said if none."""
    pairs = [f"{one} and {other}" for one, other in session.refs.twins()]
    if pairs:
        what = f"only case distinguishes {', '.join(pairs)}: on Windows and macOS each pair is one version"
        yield Check("names", "note", what, "remove one of each pair before the store moves to such a system")


def _requirements(session: Session) -> Iterator[Check]:
    """Report versions whose base is not installed, as after a joint update that was killed in between."""
    if session.layout.exists():
        for lacking in installed_requirements(session).lacking.values():
            mend = "`ystore update`, or `ystore update --major`, moves both to versions that fit"
            yield Check("requirements", "wrong", lacking, mend)


def _contents(session: Session) -> Iterator[Check]:
    """Report what a quick `fsck` finds."""
    if fsread.stat_or_none(session.layout.root) is None:
        return
    try:
        found = fsck(session, quick=True)
    except LockTimeoutError as error:
        yield Check("contents", "note", error.message, "run `ystore doctor` again when it has finished")
        return
    if not found.problems:
        looked = f"{plural(found.models, 'model')}, {plural(found.versions, 'version')}"
        yield Check("contents", "ok", f"{looked}: the quick check found no problems")
        return
    first = found.problems[0]
    more = f", and {len(found.problems) - 1} more" if len(found.problems) > 1 else ""
    yield Check(
        "contents",
        "wrong",
        f"{first.where}: {first.what}{more}",
        "`ystore fsck --repair` repairs what it can",
    )
