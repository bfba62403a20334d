"""`move`: move the store to another disk; its old folder becomes a link to the new one, or leads there by a
note.

Excludes other commands meanwhile; `store/moving` copies, and owns the order of renames.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from yarnstore.core.digest import Sha256
from yarnstore.errors import (
    ConflictError,
    FormatError,
    NotFoundError,
    ReadOnlyError,
    StorageError,
    UsageError,
)
from yarnstore.ops.session.session import Session
from yarnstore.progress import Meter, format_size
from yarnstore.store import fsio, fsread, lock
from yarnstore.store.disk import disk_bytes, iter_disk
from yarnstore.store.filepath import Path
from yarnstore.store.layout import StoreLayout
from yarnstore.store.moved import MOVED_FROM, old_folder, read_path
from yarnstore.store.moving import StoreCopy, remove_old
from yarnstore.store.views import view_in_use

# Locks of long-running work, of the settings and of the queue.
_OTHER_LOCKS = ("jobs.lock", "auto-update.lock", "queue.run.lock", "queue.lock", "config.lock")


@dataclass(frozen=True)
class MoveResult:
    """The result of moving the store."""

    root: str  #: The path of the store, which is a link now, or a folder that leads on without symlinks.
    path: str  #: The folder that it leads to, where the store is.
    size_bytes: int  #: The disk space of the store, in bytes.
    written_bytes: int  #: How many bytes this run wrote; less if an earlier run was interrupted.
    moved: bool  #: Whether the store was moved; False if it was there already.


def move_store(session: Session, target: Path) -> MoveResult:
    """Copy the store to `target`, check every file by its hash, and make the store's folder lead to it.

    It becomes a link, or keeps a note of the new path alone where the file system has no symlinks.  The old
    files are removed once that is done.  After an interruption the store is complete at its old or
    its new place, and the same call continues.

    Raises: NotFoundError, UsageError, ConflictError, ReadOnlyError, DiskFullError, LockTimeoutError,
    IntegrityError, StorageError.
    """
    layout, root = session.layout, session.layout.root
    if not layout.exists():
        raise NotFoundError("store", str(root), hint="only an existing store can be moved")
    source, target = root.resolve(), target.resolve()
    if source == target:
        return _finish(session, target)
    if target.is_relative_to(source) or source.is_relative_to(target):
        raise UsageError(
            f"the store {source} and {target} must not be inside each other", hint="name another folder"
        )
    with layout.exclusive(), contextlib.ExitStack() as held:
        for name in _OTHER_LOCKS:
            held.enter_context(
                lock.acquire(root / name, exclusive=True, timeout_s=min(2.0, layout.lock_timeout_s))
            )
        _check(layout, source)
        copy = StoreCopy(source, target, lambda _: None)
        copy.check_target()
        size = disk_bytes(source)
        # Files that an earlier run copied need no further space.
        fsread.require_space(target, size - disk_bytes(target), layout.reserve)
        session.note(f"copying {format_size(size)} from {source} to {target}")
        copy.on_bytes = Meter(session.activity.report, "write", str(target), size).add
        copy.run()
        old = copy.switch(root)
    session.note(f"the store is now at {target}; removing the files of {old}")
    _remove(session, old, target)
    return MoveResult(str(root), str(target), size, copy.written_bytes, moved=True)


def _finish(session: Session, target: Path) -> MoveResult:
    """Remove the old folder, if a killed move left it."""
    old = read_path(target / MOVED_FROM)
    if old is not None and old != target:
        session.note(f"the store is at {target} already; removing the files of {old}")
        _remove(session, old, target)
    return MoveResult(str(session.layout.root), str(target), disk_bytes(target), 0, moved=False)


def _remove(session: Session, old: Path, target: Path) -> None:
    """Remove the old files, and then the note of the new folder that names them."""
    try:
        remove_old(old, target)
    except StorageError as error:
        if not fsread.is_in_use(error):
            raise
        session.note(f"{error.message}; end the program, then run this again to remove {old}")
    else:
        fsio.remove(target / MOVED_FROM)


def _check(layout: StoreLayout, source: Path) -> None:
    """Refuse a move that cannot be completed, or that would remove the store while a program uses it."""
    root, parent = layout.root, layout.root.parent
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ReadOnlyError(
            f"{parent} cannot be written, so {root} cannot become a link",
            hint="nothing was changed; run this as the owner of that folder",
            path=str(parent),
        )
    aside = old_folder(root)
    if os.path.lexists(aside) and not aside.is_symlink():
        raise ConflictError(f"{aside} already exists", hint="nothing was changed; move it elsewhere")
    device = os.stat(source).st_dev
    mounted = os.path.ismount(source) or any(
        entry.is_folder and entry.inode[0] != device for entry in iter_disk(source)
    )
    if mounted:
        raise ConflictError(
            f"a disk is mounted at {source} or below it",
            hint="nothing was changed; unmount it, or copy the store by hand and set YSTORE_HOME",
        )
    for name in fsread.list_names(layout.views):
        with contextlib.suppress(FormatError):
            if view_in_use(layout, Sha256.parse(name)):
                raise ConflictError(
                    f"a program has {layout.views / name} open",
                    hint="nothing was changed; end the program, then run this again",
                )
