"""Activation of a version whose view exists: it moves a ref and a link, and copies no data.

Imports no decoders, so that `ystore rollback` starts fast; `ops/installing/checkout` downloads and
materialises before.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from yarnstore.core.manifest import Manifest
from yarnstore.core.record import Record
from yarnstore.core.reflog import ROLLBACK, SELF_CHECK, Installed, Move
from yarnstore.errors import (
    ConflictError,
    IntegrityError,
    NotFoundError,
    ReadOnlyError,
    SelfCheckError,
    StorageError,
    YarnstoreError,
)
from yarnstore.ops.session.session import SelfCheck, Session
from yarnstore.ops.session.stored import (
    dependents,
    find_stored,
    is_whole,
    not_installed,
    require_installed,
    requirements,
)
from yarnstore.registry.spec import Exact, Spec
from yarnstore.registry.versions import meant_version
from yarnstore.store.refs import VersionName
from yarnstore.store.state import write_state
from yarnstore.store.trials import any_left, left_trials, trying
from yarnstore.store.views import (
    check_link_place,
    has_view,
    is_left_behind,
    link_model,
    unlink_model,
    view_path,
)

# Completes a version's view if necessary.
Ensure = Callable[[Session, Manifest], None]

# Operations after which the model's `verify_command` runs; a rollback returns to a version that ran before.
_CHECKED = ("checkout", "update")


class CheckoutResult(Record, frozen=True):
    """The result of installing one version."""

    model: str
    version: str
    variant: str
    previous: str | None  #: The version that was installed before.
    path: str  #: The path to open: the file, or the folder of several files.
    size_bytes: int
    download_bytes: int
    seconds: float
    changed: bool  #: False if this version was installed already.
    previous_variant: str | None = None  #: The variant of the previous version.
    leaves_copies: bool = False  #: Whether packs still have chunks that its files have, which `slim` deletes.


def activate(
    session: Session,
    manifest: Manifest,
    operation: str,
    started: float,
    download_bytes: int = 0,
    *,
    ensure: Ensure | None = None,
    began_at: Installed | None = None,
) -> CheckoutResult:
    """Move `installed` and the link to a version whose view exists and is complete.

    `ensure` makes the view of the previous version again, if a self-check fails.  `began_at` is the installed
    version that an update was planned from; the update replaces only that version.

    Raises: ConflictError if another version than `began_at` is installed by now; PolicyError;
    IncompatibleError if a model that it requires is not installed.
    """
    refs, layout = session.refs, session.layout
    new = Installed(manifest.digest, manifest.variant, manifest.version)
    # A version that was installed before was checked for code then.
    tell = operation in _CHECKED and not refs.has_installed(manifest.model, manifest.digest)
    if tell or session.load_policy.restricts:
        session.admit_version(session, manifest, tell)
    name = VersionName(manifest.model, manifest.variant, manifest.version)
    refs.check_case(manifest.model)
    with contextlib.ExitStack() as trial:
        with refs.moving():  # so that no other process moves what this version needs meanwhile
            require_installed(session, manifest.label, requirements(manifest))
            check_link_place(layout, manifest.model)
            if not refs.has_version(name):
                # Removed meanwhile; its data still exists, since gc is locked out.
                refs.set_version(name, manifest.digest)
            old = refs.current(manifest.model)
            changed = old != new
            if changed and began_at is not None:
                _check_still(manifest.model, began_at, old)
            check = session.self_checks.get(manifest.model) if changed and operation in _CHECKED else None
            if check is not None:
                tried = Move(session.now_ms(), operation, old, new)
                trial.enter_context(trying(layout, manifest.model, tried))
            if changed:
                refs.move(manifest.model, new, operation, time_ms=session.now_ms())
            link_model(layout, manifest.model, manifest.digest)
            tell_state(session, manifest)
        if changed and old is not None:
            _note_pins(session, old, name)
            _note_dependents(session, manifest)
        path = str(view_path(layout, manifest))
        if check is not None:
            _check(session, check, manifest.model, new, old, path, ensure)
    return CheckoutResult(
        model=manifest.model,
        version=manifest.version,
        variant=manifest.variant,
        previous=old.version if old else None,
        path=path,
        size_bytes=manifest.size_bytes,
        download_bytes=download_bytes,
        seconds=round(time.perf_counter() - started, 4),
        changed=changed,
        previous_variant=old.variant if old else None,
    )


def _note_dependents(session: Session, manifest: Manifest) -> None:
    """Warn of installed models that need another version of this one; they are updated after it."""
    for label, spec in dependents(session, manifest.model):
        if not spec.admits(manifest.variant, manifest.version):
            session.note(f"warning: {label} needs {spec}; {manifest.version} is installed now")


def _note_pins(session: Session, old: Installed, new: VersionName) -> None:
    """Report if a pinned version is replaced, which is allowed if the user named the new version."""
    pins = session.refs.pins(new.model)
    left = VersionName(new.model, old.variant, old.version)
    if left in pins and new not in pins:
        session.note(
            f"{new.model} {old.version} stays pinned, but {new.version} is not, so updates replace it: "
            f"`ystore pin {new.model}` pins it too"
        )


def _check_still(model: str, before: Installed, current: Installed | None) -> None:
    """Raise ConflictError if another process installed another version during an update."""
    if before == current:
        return
    now = f"{model} {current.version} is installed now" if current else f"{model} is no longer installed"
    raise ConflictError(
        f"{now}, but the update started from {before.version}",
        hint=f"another process changed it, and this one changed nothing; run `ystore update {model}` again",
        model=model,
    )


def tell_state(session: Session, changed: Manifest | None = None) -> None:
    """Write what is installed now into `local-state.json`, within `moving`."""
    try:
        write_state(session.layout, changed=changed, auto_update=session.auto_update)
    except StorageError as error:
        # The installation is valid nevertheless; the next change or `fsck --repair` writes the file.
        session.note(f"local-state.json could not be written: {error.message}")


def note_check(session: Session, *, checked: bool = True) -> None:
    """Write the time of the last check into `local-state.json`, or with `checked` false only whether
    auto-update is on; does nothing if there is no store."""
    try:
        if not session.layout.exists():
            return
        with session.refs.moving():
            last_check_ms = session.now_ms() if checked else 0
            write_state(session.layout, last_check_ms=last_check_ms, auto_update=session.auto_update)
    except ReadOnlyError:
        pass  # a read-only store keeps its old content
    except (IntegrityError, StorageError) as error:
        session.note(f"local-state.json could not be written: {error.message}")


def _check(
    session: Session,
    check: SelfCheck,
    model: str,
    new: Installed,
    old: Installed | None,
    path: str,
    ensure: Ensure | None,
) -> None:
    """Run a model's self-check on the installed version, and go back if it fails."""
    try:
        check(model, new.version, path, session.activity.report)
    except SelfCheckError as error:
        back = _revert(session, model, new, old, ensure)
        raise SelfCheckError(
            model,
            new.version,
            str(error.fields["why"]),
            back_to=back.version if back else None,
            output=str(error.fields["output"]),
        ) from None
    except BaseException:
        _revert(session, model, new, old, ensure)  # interrupted: it is unknown whether the version works
        raise


def _revert(
    session: Session, model: str, new: Installed, old: Installed | None, ensure: Ensure | None
) -> Installed | None:
    """Install the previous version, unless another process has changed it; return what is installed now."""
    if old is not None and ensure is not None:
        try:
            ensure(session, session.layout.read_manifest(old.manifest))
        except YarnstoreError as error:  # it was installed before nevertheless
            session.note(f"{model} {old.version}: {error.message}")
    with session.refs.moving():
        return _restore(session, model, new, old)


def _restore(session: Session, model: str, new: Installed, old: Installed | None) -> Installed | None:
    """Do as `_revert`, within `Refs.moving`."""
    refs, layout = session.refs, session.layout
    current = refs.current(model)
    if current != new:
        return current
    if old is None:
        unlink_model(layout, model)
        refs.move(model, None, SELF_CHECK, time_ms=session.now_ms())
    else:
        refs.move(model, old, SELF_CHECK, time_ms=session.now_ms())
        if has_view(layout, old.manifest):
            link_model(layout, model, old.manifest)
    tell_state(session)
    return old


def settle_trials(session: Session) -> None:
    """Go back from versions whose self-check was interrupted when its process was killed.

    Problems are reported, and do not stop the command that is running.
    """
    try:
        with session.refs.moving():
            left = any_left(session.layout)
        if not left:  # those that are running need no lock, for which `gc` may keep this command waiting
            return
        with session.layout.shared(), session.refs.moving(), left_trials(session.layout) as found:
            for model, move in found:
                if move.new is None or session.refs.current(model) != move.new:
                    continue
                back = _restore(session, model, move.new, move.old)
                now = f"{back.version} is installed again" if back else "it is no longer installed"
                session.note(
                    f"the self-check of {model} {move.new.version} was killed before it ended: {now}"
                )
    except ReadOnlyError:
        pass  # the next command with write permission does it
    except YarnstoreError as error:
        session.note(f"a version whose self-check was interrupted could not be rolled back: {error.message}")


def repair_link(session: Session, model: str, ensure: Ensure) -> None:
    """Make a model's link point to the installed version, with a complete view; a kill right after the ref
    moved can leave the link behind.

    Raises: as `ensure`; StorageError if something else is in the place of the link.
    """
    installed = session.refs.installed(model)
    if installed is not None:
        ensure(session, session.layout.read_manifest(installed))
    _link_again(session, model)


def restore_link(session: Session, model: str) -> None:
    """Make a model's link point to the installed version if its view exists; a kill can leave it behind.

    Problems are reported, and do not stop the command that is running.
    """
    try:
        installed = session.refs.installed(model)
        if installed is not None and is_left_behind(session.layout, model, installed):
            with session.layout.shared():
                _link_again(session, model)
    except ReadOnlyError:
        pass  # the next command with write permission does it
    except YarnstoreError as error:
        session.note(f"models/{model} could not be linked: {error.message}")


def _link_again(session: Session, model: str) -> None:
    with session.refs.moving():
        check_link_place(session.layout, model)
        current = session.refs.installed(model)
        if current is not None and has_view(session.layout, current):
            link_model(session.layout, model, current)
        tell_state(session)


def rollback_retained(session: Session, model: str, version: str | None = None) -> CheckoutResult | None:
    """Install the previous version, or `version`, if its view is complete; else return None.

    Raises: NotFoundError if the model is not installed, or has no previous version.
    """
    started = time.perf_counter()
    if not session.layout.exists():
        raise not_installed(session, model)
    with session.layout.shared():
        goal = rollback_goal(session, model, version)
        name = VersionName(model, goal.variant, goal.version)
        if not session.refs.has_version(name) or not has_view(session.layout, goal.manifest):
            return None  # a removed version may have only a view left
        manifest = session.layout.read_manifest(goal.manifest)
        return activate(session, manifest, "rollback", started) if is_whole(session, manifest) else None


def rollback_goal(session: Session, model: str, version: str | None = None) -> Installed:
    """Return the version that a rollback installs.  Raises: NotFoundError."""
    stack = session.refs.stack(model)
    if not stack:
        raise not_installed(session, model)
    if version is not None:
        return _named_goal(session, model, version, stack)
    if len(stack) < 2:
        raise NotFoundError(
            "version before",
            stack[-1].version,
            where=f"the history of {model}",
            hint=_way_forward(session, model, stack[-1])
            or f"`ystore log {model}` shows the history; give a version: `ystore rollback {model} VERSION`",
        )
    return stack[-2]


def _way_forward(session: Session, model: str, current: Installed) -> str:
    """Return the command that installs the version again that was rolled back, if it is stored."""
    last = session.refs.moves(model)[-1]
    left = last.old
    if last.operation != ROLLBACK or left is None:
        return ""
    if not session.refs.has_version(VersionName(model, left.variant, left.version)):
        return ""
    variant = f":{left.variant}" if left.variant != current.variant else ""
    return (
        f"`ystore checkout {model}{variant}@{left.version}` installs the version again that was rolled back"
    )


def _named_goal(session: Session, model: str, version: str, stack: list[Installed]) -> Installed:
    meant = meant_version(version, {installed.version for installed in stack[:-1]})
    for installed in reversed(stack[:-1]):
        if installed.version == meant:
            return installed
    spec = Spec(model, stack[-1].variant, Exact(version))
    found = find_stored(session, spec) or find_stored(session, Spec(model, None, Exact(version)))
    if found is None:
        here = sorted({name.version for name in session.refs.versions(model)})
        raise NotFoundError(
            "version",
            version,
            where=f"the stored versions of {model}",
            hint=f"stored versions: {', '.join(here)}; `ystore checkout {model}@{version}` fetches it",
        )
    return Installed(found.manifest.digest, found.name.variant, found.name.version)
