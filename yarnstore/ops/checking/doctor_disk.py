"""The part of `doctor` that concerns the disk: permissions, features of the file system, free space.

Writes a few probe files to the store's `tmp/` and removes them.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from yarnstore.errors import YarnstoreError
from yarnstore.ops.session.session import Session
from yarnstore.progress import format_size
from yarnstore.store import fsio, fsread, lock
from yarnstore.store.access import exposures
from yarnstore.store.filepath import Path
from yarnstore.store.kernel import try_lock
from yarnstore.store.native import quoted

Status: TypeAlias = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Check:
    """One check of `doctor`."""

    name: str  #: The name of the check.
    status: Status  #: `wrong` is a problem, `note` is a remark.
    what: str  #: What was found.
    mend: str = ""  #: The suggested fix, or empty.


def permissions(session: Session) -> Iterator[Check]:
    """Check whether the folders of the store can be written, by writing into them."""
    root = session.layout.root
    if fsread.stat_or_none(root) is None:
        place = next(parent for parent in root.parents if parent.exists())
        if os.access(place, os.W_OK | os.X_OK):
            yield Check("permissions", "ok", f"{place} can be written")
        else:
            yield Check(
                "permissions",
                "wrong",
                f"{place} cannot be written",
                "set YSTORE_HOME to another folder, or change its owner",
            )
        return
    refused = []
    for name in ("", "packs", "manifests", "refs", "logs", "files", "views", "registries", "tmp"):
        folder = root / name
        if folder.is_dir() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            refused.append(name or ".")
    if refused:
        mend = f"change their owner to the user that runs ystore: {_take_back(root)}"
        yield Check("permissions", "wrong", f"cannot be written in {root}: {', '.join(refused)}", mend)
        return
    found = list(exposures(session.layout, [root, *session.layout.folders()]))
    if not found:
        yield Check("permissions", "ok", f"{root} can be written")
        return
    places_by: dict[str, list[str]] = {}
    for item in found:
        places_by.setdefault(item.why, []).append(item.place)
    what = "; ".join(f"{why}: {', '.join(places)}" for why, places in places_by.items())
    if any(item.anybody for item in found):
        yield Check("permissions", "wrong", what, f"chmod -R o-w {quoted(str(root))}")
    elif any(item.is_foreign for item in found):
        mend = f"ignore this if you trust that user; else run ystore as one user only: {_take_back(root)}"
        yield Check("permissions", "note", what, mend)
    else:
        mend = f"chmod -R g-w {quoted(str(root))}; if the group shares the store, chmod g+s its folders"
        yield Check("permissions", "note", what, mend)


def _take_back(root: Path) -> str:
    if os.name == "nt":
        return f"icacls {quoted(str(root))} /reset /T"
    return f'sudo chown -R "$(id -u)" {quoted(str(root))} && chmod -R u+rwX {quoted(str(root))}'


def file_system(session: Session) -> Iterator[Check]:
    """Check the features of the file system by using them in `tmp/`."""
    if not session.layout.exists():
        yield Check("file system", "ok", "checked once the store exists")
        return
    folder = session.layout.tmp / f"{secrets.token_hex(12)}.doctor"
    try:
        fsio.ensure_dir(folder)
        fsio.write_atomic(folder / "a", b"a", tmp_dir=folder)
        linked = fsio.hard_link(folder / "a", folder / "b") and _on_one_disk(session)
        shared = fsio.copy_file(folder / "a", folder / "d") == "reflink"
        symlinked = fsio.swap_link(folder / "c", "a", tmp_dir=folder)
        locked = _locks(folder / "lock")
    finally:
        fsio.remove_tree(folder)
    apart = _apart(session)
    if apart:
        what = f"{apart}/ is on another disk than tmp/, so no view can be moved between them"
        yield Check(
            "disks", "wrong", what, "keep views/, trash/ and tmp/ on one disk; files/ may be on another"
        )
    if not locked:
        mend = "put the store on a local disk (YSTORE_HOME): two commands at once could damage it here"
        yield Check("locks", "wrong", "this file system does not support locks", mend)
    else:
        yield Check("locks", "ok", "the file system supports locks")
    if linked:
        blocks = ", and blocks where only ranges are the same" if shared else ""
        yield Check("hard links", "ok", f"supported: versions share files{blocks}")
    elif shared:
        yield Check("hard links", "ok", "not supported, but reflinks are: versions share blocks")
    else:
        mend = "move the store to a file system with hard links, where versions share equal files"
        yield Check("hard links", "note", "not supported, nor are reflinks: versions share no files", mend)
    if symlinked:
        yield Check("symlinks", "ok", "models/ links to installed versions")
    else:
        yield Check("symlinks", "note", "not supported: models/ stays empty", "use `ystore path MODEL`")


def _apart(session: Session) -> str:
    """Return which folder of views is on another disk than `tmp/`; empty if none is."""
    layout = session.layout
    here = fsread.stat_or_none(layout.tmp)
    for folder in (layout.views, layout.trash):
        found = fsread.stat_or_none(folder)
        if here is not None and found is not None and found.st_dev != here.st_dev:
            return folder.name
    return ""


def _on_one_disk(session: Session) -> bool:
    """Whether views and their files are on one disk: no link crosses disks."""
    layout = session.layout
    found = [fsread.stat_or_none(folder) for folder in (layout.files, layout.views)]
    return len({item.st_dev for item in found if item is not None}) <= 1


def _locks(path: Path) -> bool:
    """Check whether a lock of one descriptor excludes another."""
    first = lock.open_lock(path)
    try:
        second = lock.open_lock(path)
        try:
            return try_lock(first, exclusive=True) and not try_lock(second, exclusive=True)
        finally:
            os.close(second)
    except YarnstoreError:
        return False
    finally:
        os.close(first)


def space(session: Session) -> Iterator[Check]:
    """Check whether a download can begin."""
    free, reserve = fsread.free_bytes(session.layout.root, session.layout.reserve)
    text = f"{format_size(free)} free, {format_size(reserve)} kept in reserve"
    if free <= reserve:
        yield Check(
            "space",
            "wrong",
            f"{text}: nothing can be fetched",
            "`ystore gc --dry-run` shows what can be deleted",
        )
    elif free < 2 * reserve:
        yield Check("space", "note", text, "`ystore gc --dry-run` shows what can be deleted")
    else:
        yield Check("space", "ok", text)
