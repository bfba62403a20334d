"""Permissions of a store: whether this user can write, and which other users can.

docs/operations.md (several users) describes the rules.
"""

from __future__ import annotations

import importlib
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from yarnstore.core.names import model_dirname
from yarnstore.errors import ReadOnlyError
from yarnstore.store import fsread
from yarnstore.store.filepath import Path
from yarnstore.store.layout import StoreLayout

_pwd: Any = importlib.import_module("pwd") if os.name == "posix" else None


def require_writable(layout: StoreLayout, model: str, *, installing: bool) -> None:
    """Check that this user can write every folder and file that installing a version of `model` needs.

    Raises: ReadOnlyError, which names the first folder or file that cannot be written, and its owner.
    """
    name = model_dirname(model)
    folders = [layout.tmp, layout.pack_folder.packs, layout.manifests, layout.origins]
    folders += [layout.refs / kind / name for kind in ("versions", "partial")]
    if installing:
        folders += [layout.files, layout.views, layout.model_link(model).parent]
        folders += [layout.refs / "installed", layout.logs / "installed" / name]
    for place in folders:
        refused = _refused(place)
        if refused is not None:
            raise _not_writable(refused)


def _not_writable(place: Path) -> ReadOnlyError:
    owner, user = owner_of(place), user_name(own_uid())
    if owner == user:
        return ReadOnlyError(
            f"{place} cannot be written",
            hint="nothing was changed; check its permissions and whether its disk is mounted read-only, "
            "or use another store (YSTORE_HOME)",
            path=str(place),
        )
    return ReadOnlyError(
        f"{place} cannot be written by {user}: it belongs to {owner}",
        hint=f"nothing was changed; run this as {owner}, ask {owner} to share the store with a group, or use "
        "another store (YSTORE_HOME)",
        path=str(place),
    )


def _refused(place: Path) -> Path | None:
    """Return what prevents this user from writing at a path that may not exist yet."""
    while (found := fsread.stat_or_none(place)) is None and place != place.parent:
        place = place.parent
    is_file = found is not None and stat.S_ISREG(found.st_mode)
    return None if os.access(place, os.W_OK if is_file else os.W_OK | os.X_OK) else place


class Exposure(msgspec.Struct, frozen=True):
    """A folder that other users can change: `place` relative to the store.

    `anybody` if all users can, `is_foreign` if another user owns it.
    """

    place: str
    why: str
    anybody: bool = False
    is_foreign: bool = False


def exposures(layout: StoreLayout, folders: Iterable[Path]) -> Iterator[Exposure]:
    """Return which of the store's folders users other than this one, and root, can change.

    A group is trusted if it is the user's own, or if the folder has the set-group-ID bit, with which users
    share a store on purpose.
    """
    if _pwd is None:
        return
    for folder in folders:
        try:
            found = folder.stat() if folder == layout.root else fsread.lstat(folder)
        except OSError:
            continue
        if stat.S_ISLNK(found.st_mode):
            continue  # a link is refused when used; its mode is irrelevant
        place = "." if folder == layout.root else folder.relative_to(layout.root).as_posix()
        if found.st_uid not in (0, own_uid()):
            yield Exposure(place, f"belongs to {user_name(found.st_uid)}", is_foreign=True)
        if found.st_mode & stat.S_IWOTH:
            yield Exposure(place, "can be written by every user", anybody=True)
        elif (
            found.st_mode & stat.S_IWGRP
            and not found.st_mode & stat.S_ISGID
            and not _is_private(found.st_gid)
        ):
            yield Exposure(place, f"can be written by the group {_group_name(found.st_gid)}")


def top_folders(layout: StoreLayout) -> list[Path]:
    """Return the store's folder and those directly in it."""
    return [layout.root, *(folder for folder in layout.folders() if folder.parent == layout.root)]


def own_uid() -> int:
    """Return the number of this user: 0 on Windows, where every file has that number."""
    return os.getuid() if hasattr(os, "getuid") else 0


def owner_of(path: Path) -> str:
    """Return the user that a file or folder belongs to; links are followed."""
    return user_name(path.stat().st_uid)


def user_name(uid: int) -> str:
    """Return the name of a user, or `user N` if it has none."""
    try:
        return str(_pwd.getpwuid(uid).pw_name)
    except (KeyError, AttributeError):
        return f"user {uid}"


def _group_name(gid: int) -> str:
    import grp

    try:
        return str(grp.getgrgid(gid).gr_name)
    except KeyError:
        return str(gid)


def _is_private(gid: int) -> bool:
    """Whether a group is this user's own, without other members."""
    if gid != os.getgid():
        return False
    import grp

    try:
        group = grp.getgrgid(gid)
    except KeyError:
        return True
    own = user_name(own_uid())
    return set(group.gr_mem) <= {own} and (group.gr_name == own or gid == own_uid())
