"""T1's model: which renames and refs of a trace count before what they stand for is on the disk.

Reads a trace of `tests.faults.tracing` and keeps, at each call, the files with unsynced bytes and
the folders with unsynced names.  The rules:

- a file is synced after its last write before it is renamed to its place, or linked;
- a folder is synced after its last new name before it is renamed to its place;
- when a ref, a log or `registry.json` is written, nothing else below the root waits for a sync;
- an index is there only as long as its pack is;
- nothing waits at the end.

`tmp/` and `trash/` may lose anything; marks of use, and figures of statistics, may be lost; locks are empty.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.faults.tracing import Call

_LOOSE = ("tmp", ".tmp", "trash", "lock", "lock.gate", "logs/used", "logs/hashed", "logs/statistics")
_COMMITS = ("refs", "logs/installed", "registry.json")


def names_below(root: Path) -> list[str]:
    """Every file and folder below a root, for `violations`."""
    return [path.relative_to(root).as_posix() for path in root.rglob("*")]


def violations(calls: Sequence[Call], root: Path, before: Iterable[str]) -> list[str]:
    """What a power failure could break, one sentence each; `before` are the names that were there."""
    model = _Disk(str(root), before)
    for call in calls:
        if call.result >= 0:
            model.see(call)
    return [*model.found, *(f"at the end, {path} is not synced" for path in sorted(model.waiting()))]


class _Disk:
    def __init__(self, root: str, before: Iterable[str]) -> None:
        self._root = root
        self._there = {os.path.join(root, name) for name in before}
        self._files: set[str] = set()  # with unsynced bytes
        self._folders: set[str] = set()  # with unsynced names
        self.found: list[str] = []

    def see(self, call: Call) -> None:
        descriptor = re.match(r"\d+<([^>]*)>", call.text)
        names = re.findall(r'"([^"]*)"', call.text)
        path = descriptor[1] if descriptor else ""
        if call.name in ("write", "pwrite64", "ftruncate", "fchmod"):
            # The mode of a view's folder protects, and no more: the next look at the view sets it.
            if self._ours(path) and not (call.name == "fchmod" and self._place(path).startswith("views/")):
                self._files.add(path)
            if self._place(path).startswith(_COMMITS):
                self._commit(path, besides={path, os.path.dirname(path)})
        elif call.name in ("fsync", "fdatasync"):
            self._files.discard(path)
            self._folders.discard(path)
        elif call.name == "openat" and "O_CREAT" in call.text and "O_TMPFILE" not in call.text:
            self._named(names[-1], new=names[-1] not in self._there)
        elif call.name in ("rename", "renameat", "renameat2"):
            self._rename(names[0], names[1])
        elif call.name in ("link", "linkat"):
            if names[0] in self._files:
                self.found.append(f"{names[0]} was linked before it was synced")
            self._named(names[1])
        elif call.name in ("symlink", "symlinkat"):
            self._named(names[1])
        elif call.name in ("mkdir", "mkdirat"):
            self._named(names[0])
        elif call.name in ("unlink", "unlinkat", "rmdir"):
            # An empty folder that comes back harms nobody.
            self._gone(names[-1], folder=call.name == "rmdir" or "AT_REMOVEDIR" in call.text)
            self._files.discard(names[-1])
            self._folders.discard(names[-1])

    def _place(self, path: str) -> str:
        return os.path.relpath(path, self._root) if self._ours(path) else ""

    def _ours(self, path: str) -> bool:
        return path == self._root or path.startswith(self._root + "/")

    def _loose(self, path: str) -> bool:
        place = self._place(path)
        return not place or any(place == name or place.startswith(name + "/") for name in _LOOSE)

    def _named(self, path: str, *, new: bool = True) -> None:
        if new and self._ours(path):
            if not self._place(path).endswith(".lock"):  # made again when it is needed
                self._folders.add(os.path.dirname(path))
            self._there.add(path)
            pack = path.removesuffix(".idx") + ".pack"
            if self._place(path).endswith(".idx") and not self._loose(path) and pack not in self._there:
                self.found.append(f"{self._place(path)} appeared before its pack")

    def _gone(self, path: str, *, folder: bool) -> None:
        if not folder and self._ours(path):
            self._folders.add(os.path.dirname(path))
        self._there -= {item for item in self._there if item == path or item.startswith(path + "/")}
        if self._place(path).endswith(".pack") and path.removesuffix(".pack") + ".idx" in self._there:
            self.found.append(f"{self._place(path)} went before its index")

    def _rename(self, source: str, target: str) -> None:
        if source in self._files:
            self.found.append(
                f"{self._place(source)} was renamed to {self._place(target)} before it was synced"
            )
            self._files.discard(source)
        below = {path for path in self._folders if path == source or path.startswith(source + "/")}
        if not self._loose(target):
            self.found += [f"{self._place(target)} appeared with unsynced names in it" for _ in below]
        self._folders -= below
        if self._place(target).startswith(_COMMITS):
            self._commit(target, besides={os.path.dirname(target)})
        moved = {target + item.removeprefix(source) for item in self._there if item.startswith(source + "/")}
        self._gone(source, folder=self._loose(source))
        self._there |= moved
        self._named(target)

    def _commit(self, path: str, *, besides: set[str]) -> None:
        waiting = self.waiting() - besides
        if waiting:
            shown = ", ".join(sorted(self._place(item) for item in waiting))
            self.found.append(f"{self._place(path)} was written while {shown} was not synced")

    def waiting(self) -> set[str]:
        return {path for path in self._files | self._folders if not self._loose(path)}
