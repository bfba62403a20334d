"""Refs and reflogs on disk.

docs/format/refs.md governs the bytes.  A ref, written last, is the only mark of completeness.  Moves of
`installed` are serialised by the lock of the reflog's folder, held for milliseconds.  `core/reflog` has the
lines, `registry/pins` the pins of ranges.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import REF_LIMIT_BYTES, REFLOG_LIMIT_BYTES
from yarnstore.core.manifest import Manifest
from yarnstore.core.names import (
    DEFAULT_VARIANT,
    model_dirname,
    model_from_dirname,
    parse_variant,
    parse_version,
)
from yarnstore.core.reflog import (
    Installed,
    Move,
    format_move,
    format_ref,
    install_stack,
    last_made,
    made_moves,
    parse_ref,
    parse_reflog,
)
from yarnstore.errors import ConflictError, FormatError, InvalidNameError, NotFoundError
from yarnstore.registry.pins import FREE, HOLD_LIMIT_BYTES, PinRule, format_hold, parse_hold
from yarnstore.store import fsio, fsread, growing, lock
from yarnstore.store.filepath import Path
from yarnstore.store.layout import StoreLayout

_MENDS = "`ystore fsck --repair` repairs it"


class VersionName(msgspec.Struct, frozen=True, order=True):
    """The model, variant and version that name a stored version."""

    model: str
    variant: str
    version: str

    def __str__(self) -> str:
        return f"{self.model}:{self.variant}@{self.version}"

    @property
    def spec(self) -> str:
        """The spec of the version, without the default variant."""
        return str(self).replace(f":{DEFAULT_VARIANT}@", "@")


def _iter_names(folder: Path, parse: Callable[[str], str]) -> Iterator[str]:
    """Yield the names in a folder, parsed with `parse`.

    Invalid names, such as a file manager's `.DS_Store`, are ignored.
    """
    for name in fsread.list_names(folder):
        with contextlib.suppress(InvalidNameError):
            yield parse(name)


def _check_case(what: str, name: str, known: Collection[str]) -> None:
    """Raise ConflictError if `name` is not in `known`, but another name that differs only in case."""
    if name in known:
        return
    for other in known:
        if other.casefold() == name.casefold():
            raise ConflictError(
                f"{what} {name!r} differs only in case from {other!r}",
                hint=f"the existing {'id' if what == 'model' else what} is {other}",
            )


class Refs:
    """The refs of one store."""

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout

    # --- versions and pins ---------------------------------------------------------------------

    def _path(self, kind: str, name: VersionName) -> Path:
        return (
            self._layout.refs
            / kind
            / model_dirname(name.model)
            / parse_variant(name.variant)
            / parse_version(name.version)
        )

    def _read(self, path: Path) -> Sha256 | None:
        try:
            data = fsread.read_bytes(path, REF_LIMIT_BYTES)
        except NotFoundError:
            return None
        try:
            return parse_ref(data)
        except FormatError as error:
            raise FormatError(
                f"ref {path.relative_to(self._layout.root).as_posix()}",
                str(error.fields["why"]),
                hint=_MENDS,
            ) from None

    def _write(self, path: Path, manifest: Sha256) -> None:
        fsio.write_atomic(path, format_ref(manifest), tmp_dir=self._layout.tmp)

    def _remove(self, path: Path) -> bool:
        removed = fsio.remove(path)
        fsio.remove_empty_dirs(path.parent, stop=self._layout.refs)
        return removed

    def _iter(self, kind: str, only: str | None = None) -> Iterator[VersionName]:
        root = self._layout.refs / kind
        for model in _iter_names(root, model_from_dirname) if only is None else (only,):
            folder = root / model_dirname(model)
            for variant in _iter_names(folder, parse_variant):
                for version in _iter_names(folder / variant, parse_version):
                    yield VersionName(model, variant, version)

    def version(self, name: VersionName) -> Sha256 | None:
        """Return the manifest of a completely stored version, or None."""
        return self._read(self._path("versions", name))

    def checked_version(self, name: VersionName) -> Manifest | None:
        """Return the manifest of a stored version; None if the ref or the manifest does not exist.

        Raises: FormatError if the ref names another version; IntegrityError if its manifest is damaged.
        """
        digest = self.version(name)
        if digest is None:
            return None
        try:
            manifest = self._layout.read_manifest(digest)
        except NotFoundError:
            return None
        if VersionName(manifest.model, manifest.variant, manifest.version) != name:
            raise _other(f"versions/{name}", manifest)
        return manifest

    def version_time_s(self, name: VersionName) -> float:
        """Return when a version was stored, in seconds since 1970; 0 if it is not stored."""
        found = fsread.stat_or_none(self._path("versions", name))
        return found.st_mtime if found else 0.0

    def has_version(self, name: VersionName) -> bool:
        """Whether a ref of a version exists, damaged or not."""
        return fsread.stat_or_none(self._path("versions", name)) is not None

    def set_version(self, name: VersionName, manifest: Sha256) -> None:
        """Mark a version as complete.

        Raises: ConflictError if the model's id, the variant or the version differs from another's only in
        case.
        """
        path = self._path("versions", name)
        self.check_case(name.model)
        _check_case("variant", name.variant, fsread.list_names(path.parent.parent))
        _check_case("version", name.version, fsread.list_names(path.parent))
        self._write(path, manifest)

    def remove_version(self, name: VersionName) -> bool:
        return self._remove(self._path("versions", name))

    def versions(self, model: str | None = None) -> list[VersionName]:
        return list(self._iter("versions", model))

    def pin(self, name: VersionName) -> Sha256 | None:
        return self._read(self._path("pins", name))

    def set_pin(self, name: VersionName, manifest: Sha256) -> None:
        self._write(self._path("pins", name), manifest)

    def remove_pin(self, name: VersionName) -> bool:
        return self._remove(self._path("pins", name))

    def pins(self, model: str | None = None) -> list[VersionName]:
        return list(self._iter("pins", model))

    def _hold_path(self, model: str) -> Path:
        return self._layout.refs / "holds" / model_dirname(model)

    def pin_rule(self, model: str) -> PinRule:
        """Return the range and the variant that a model is pinned to, if it is.

        Raises: FormatError if the pin is damaged.
        """
        path = self._hold_path(model)
        try:
            return parse_hold(fsread.read_bytes(path, HOLD_LIMIT_BYTES))
        except NotFoundError:
            return FREE
        except FormatError as error:
            raise FormatError(
                f"pin {path.relative_to(self._layout.root).as_posix()}",
                str(error.fields["why"]),
                hint=f"`ystore unpin {model}`, then pin it again",
            ) from None

    def set_hold(self, model: str, hold: PinRule) -> None:
        fsio.write_atomic(self._hold_path(model), format_hold(hold), tmp_dir=self._layout.tmp)

    def remove_hold(self, model: str) -> bool:
        return self._remove(self._hold_path(model))

    def held_models(self) -> list[str]:
        """Return the models that are pinned to a range or a variant."""
        return list(_iter_names(self._layout.refs / "holds", model_from_dirname))

    def set_partial(self, name: VersionName, manifest: Sha256) -> None:
        """Record that a version is being fetched, so that `gc` keeps its chunks."""
        self._write(self._path("partial", name), manifest)

    def remove_partial(self, name: VersionName) -> bool:
        return self._remove(self._path("partial", name))

    def partials(self, model: str | None = None) -> list[VersionName]:
        return list(self._iter("partial", model))

    def partial(self, name: VersionName) -> tuple[Sha256 | None, float]:
        """Return the manifest of a version being fetched, and when that began, in seconds since 1970."""
        path = self._path("partial", name)
        found = fsread.stat_or_none(path)
        return self._read(path), found.st_mtime if found else 0.0

    def check_case(self, model: str) -> None:
        """Raise ConflictError if a model is new, and another model's id differs only in case.

        Earlier releases on Linux allowed such pairs, which stay usable; Windows and macOS do not
        distinguish them.
        """
        known = {*fsread.list_names(self._layout.refs / "versions")}
        known.update(fsread.list_names(self._layout.refs / "installed"))
        _check_case("model", model, [name.replace("~", "/") for name in known])

    def twins(self) -> list[tuple[str, str]]:
        """Return the stored versions that are one on Windows and macOS, since their names differ only in
        case: each with the first such version.
        """
        first: dict[str, VersionName] = {}
        names = sorted(self.versions())
        pairs = ((first.setdefault(str(name).casefold(), name), name) for name in names)
        return [(str(one), str(other)) for one, other in pairs if one != other]

    # --- installed -----------------------------------------------------------------------------

    def _installed_path(self, model: str) -> Path:
        return self._layout.refs / "installed" / model_dirname(model)

    def log_path(self, model: str) -> Path:
        return self._layout.logs / "installed" / model_dirname(model)

    def installed(self, model: str) -> Sha256 | None:
        """Return the installed manifest.  Raises: FormatError if the ref is damaged."""
        return self._read(self._installed_path(model))

    def installed_models(self) -> list[str]:
        return list(_iter_names(self._layout.refs / "installed", model_from_dirname))

    def read_log(self, model: str) -> tuple[list[Move], list[FormatError]]:
        """Return all readable lines of a reflog, and an error for each other line."""
        return parse_reflog(self._log_bytes(model))

    def _log_bytes(self, model: str) -> bytes:
        try:
            return fsread.read_bytes(self.log_path(model), REFLOG_LIMIT_BYTES)
        except NotFoundError:
            return b""

    def log_fault(self, model: str, *, beside_ref: bool = True) -> str:
        """Return what is wrong with a reflog, alone and compared with its ref; empty if it is sound.

        Raises: FormatError if the ref is damaged.
        """
        # A move writes the log first, so the log that is read after a ref has the move to it.
        current = self.installed(model) if beside_ref else None
        moves, faults = self.read_log(model)
        if faults:
            return "; ".join(str(fault.fields["why"]) for fault in faults)
        if not beside_ref:
            return ""
        if current is not None and not made_moves(moves, current):
            return "does not say how the installed version was installed"
        # The link is removed before the ref, and made after it, so that the ref is read again.
        if (
            current is None
            and self._is_linked(model)
            and not self._ends_removed(moves)
            and self.installed(model) is None
        ):
            return f"exists, but refs/installed/{model_dirname(model)} is missing"
        return ""

    def _is_linked(self, model: str) -> bool:
        return fsread.read_link(self._layout.model_link(model)) is not None

    @staticmethod
    def _ends_removed(moves: list[Move]) -> bool:
        return bool(moves) and moves[-1].new is None

    def is_left_linked(self, model: str) -> bool:
        """Whether the link of a model still exists although its log says that the model was removed.

        Raises: FormatError if the ref is damaged.
        """
        if self.installed(model) is not None or not self._is_linked(model):
            return False
        return self._ends_removed(self.read_log(model)[0])

    def moves(self, model: str) -> list[Move]:
        """Return the moves of `installed` that took effect, oldest first.

        Unreadable lines are omitted; `fsck` reports them.
        """
        current = self.installed(model)  # before the log, as in `log_fault`
        return made_moves(self.read_log(model)[0], current)

    def last_move(self, model: str) -> Move | None:
        """Return the last of `moves` without parsing earlier ones."""
        current = self.installed(model)  # before the log, as in `log_fault`
        return last_made(self._log_bytes(model), current)

    def has_installed(self, model: str, manifest: Sha256) -> bool:
        """Whether a version was installed here before, according to the readable lines of the reflog."""
        return str(manifest).encode("ascii") in self._log_bytes(model)

    def logged_models(self) -> list[str]:
        return list(_iter_names(self._layout.logs / "installed", model_from_dirname))

    def current(self, model: str) -> Installed | None:
        """Return the installed version with its names."""
        digest = self.installed(model)
        if digest is None:
            return None
        move = last_made(self._log_bytes(model), digest)
        if move is not None and move.new is not None:
            return move.new
        manifest = self._layout.read_manifest(digest)
        if manifest.model != model:
            raise _other(f"installed/{model_dirname(model)}", manifest)
        return Installed(digest, manifest.variant, manifest.version)

    def stack(self, model: str) -> list[Installed]:
        """Return the targets of rollbacks in order, and the installed version last."""
        return install_stack(self.moves(model))

    def behind(self, model: str) -> list[Installed]:
        """Return what a rollback leads to, and what the last move replaced, as far as they are known."""
        moves = self.moves(model)
        stack = install_stack(moves)
        found = [stack[-2]] if len(stack) > 1 else []
        last = moves[-1] if moves else None
        return found + ([last.old] if last and last.old and last.new else [])

    @contextlib.contextmanager
    def moving(self) -> Iterator[None]:
        """Lock the moves of `installed`, for milliseconds only."""
        with lock.hold_folder(self._layout.logs / "installed"):
            yield

    def move(self, model: str, new: Installed | None, operation: str, *, time_ms: int) -> Move:
        """Move `installed` within `moving`: first the reflog's line, then the ref."""
        old = self.current(model) if new is not None else self._current_or_none(model)
        move = Move(time_ms, operation, old, new)
        growing.append_line(self.log_path(model), format_move(move))
        path = self._installed_path(model)
        if new is None:
            self._remove(path)
        else:
            self._write(path, new.manifest)
        return move

    def _current_or_none(self, model: str) -> Installed | None:
        with contextlib.suppress(FormatError):
            return self.current(model)
        return None


def _other(ref: str, manifest: Manifest) -> FormatError:
    return FormatError(
        f"ref refs/{ref}", f"names the manifest of another version, {manifest.label}", hint=_MENDS
    )
