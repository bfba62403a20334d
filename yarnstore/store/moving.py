"""Copying a store to another disk, and making its old folder lead to the new one.

Owns the copy, its check by hash, and the order in which the folders are exchanged; docs/design.md (moving a
store) explains why a kill at any point loses nothing.  `ops/local/move` takes locks and excludes other
programs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from yarnstore.core.limits import MIB
from yarnstore.errors import ConflictError, FormatError, IntegrityError, NotFoundError, StorageError
from yarnstore.store import fsio, fsread, held, native
from yarnstore.store.filepath import Path
from yarnstore.store.hashed import digest_of, has_record, note_hashed
from yarnstore.store.kernel import exchange
from yarnstore.store.layout import FILES_FORMAT, STORE_FORMAT, StoreLayout
from yarnstore.store.moved import LEADS_ON, MOVED_FROM, MOVED_TO, old_folder, read_path, target_of

# In place of `format` in an incomplete copy, which no release accepts as a store.
_UNFINISHED = b"yarnstore-store/moving "
# Not copied, since they are made again when needed: locks, which this process holds, and records of inodes.
_LEFT_OUT = {
    *("lock", "lock.gate", "config.lock", "queue.lock", "queue.run.lock", "jobs.lock", "auto-update.lock"),
    *("format", MOVED_TO, MOVED_FROM),
    os.path.join("logs", "hashed"),
}
_BY_CONTENT = ("files", "views", "packs", "manifests")
_PATH_LIMIT_BYTES = 64 * 1024
# How often files that other programs change meanwhile are copied again.
_ROUNDS = 10


@dataclass
class StoreCopy:
    """The copy of the store at `source` (not a link) to `target`, which may have a part of it already."""

    source: Path
    target: Path
    on_bytes: Callable[[int], None]
    written_bytes: int = 0
    _hashes: dict[str, bytes] = field(default_factory=dict)
    _seen: dict[str, os.stat_result] = field(default_factory=dict)
    _held: set[str] = field(default_factory=set)  # records in the copy of files that its views hold

    def check_target(self) -> None:
        """Refuse a folder with other content.  Raises: ConflictError, StorageError."""
        if not os.path.lexists(self.target):
            return
        taken = ConflictError(
            f"{self.target} already exists and is not an empty folder",
            hint="nothing was changed; name a new or an empty folder",
        )
        if not fsread.is_folder(self.target):
            raise taken
        if self._is_unfinished() or self._is_empty():
            return
        # An earlier run may have been killed between the last file and the exchange of the folders.
        ours = read_path(self.source / MOVED_TO) == self.target
        more = self._kept_names(self.target) - self._kept_names(self.source)
        if (
            not ours
            or read_path(self.target / MOVED_FROM) is None
            or any(not name.endswith(held.HELD) for name in more)
        ):
            raise taken

    def _is_empty(self) -> bool:
        """Whether the folder is empty, but for what a run leaves that is killed as it begins."""
        names = fsread.list_names(self.target)
        if names != ["tmp"] or not fsread.is_folder(self.target / "tmp"):
            return not names
        begun = re.compile(r"[0-9a-f]{24}\.tmp")
        return all(begun.fullmatch(name) for name in fsread.list_names(self.target / "tmp"))

    def _is_unfinished(self) -> bool:
        with contextlib.suppress(NotFoundError, StorageError, FormatError):
            return fsread.read_bytes(self.target / "format", _PATH_LIMIT_BYTES) == self._mark()
        return False

    def _mark(self) -> bytes:
        return _UNFINISHED + os.fsencode(self.source) + b"\n"

    def run(self) -> None:
        """Copy, check each file by its hash, sync everything, and make the copy a store.

        Raises: IntegrityError if the new disk does not have the bytes that were written; StorageError.
        """
        tmp = self.target / "tmp"
        fsio.ensure_dir(self.target)
        fsio.write_atomic(self.target / "format", self._mark(), tmp_dir=tmp)
        for _ in range(_ROUNDS):
            if not self._copy_all():
                break
        else:
            raise ConflictError(
                "other programs keep changing the store",
                hint="the store was not moved; stop these programs, then run this again",
            )
        self._remove_surplus()
        self._note_hashes()
        self._sync()
        fsio.write_atomic(self.target / MOVED_FROM, os.fsencode(self.source), tmp_dir=tmp)
        fsio.write_atomic(self.source / MOVED_TO, os.fsencode(self.target), tmp_dir=self.source / "tmp")
        data = fsread.read_bytes(self.source / "format", 256)
        if self._held and data == STORE_FORMAT:
            data = FILES_FORMAT
        fsio.write_atomic(self.target / "format", data, tmp_dir=tmp)

    def switch(self, root: Path) -> Path:
        """Let the store's folder lead to the copy; return the path where the old folder is then."""
        if root.is_symlink():
            return self.source if self._swap(root) else self._lead_on()
        aside = old_folder(root)
        if not self._swap(aside):
            return self._lead_on()
        fsio.write_atomic(self.target / MOVED_FROM, os.fsencode(aside), tmp_dir=self.target / "tmp")
        if exchange(str(root), str(aside)):
            fsio.sync_dir(root.parent)
            return aside
        fsio.remove(aside)
        fsio.rename(root, aside)  # from here on, `find_store` completes the move
        self._swap(root)
        return aside

    def _swap(self, link: Path) -> bool:
        """Make a link to the copy; return whether the file system of the old folder has symlinks."""
        return fsio.swap_link(link, str(self.target), tmp_dir=link.parent)

    def _lead_on(self) -> Path:
        """Do as `switch` without symlinks: the old folder stays, with the note to the copy alone."""
        fsio.write_atomic(self.source / "format", LEADS_ON, tmp_dir=self.source / "tmp")
        return self.source

    # --- copying -------------------------------------------------------------------------------------

    def _names(self, root: Path) -> Iterator[str]:
        """Yield the relative paths of everything to copy, folders before their content."""
        for place, folders, names in os.walk(root):
            within = os.path.relpath(place, root)
            for name in sorted([*folders, *names]):
                path = os.path.normpath(os.path.join(within, name))
                if path not in _LEFT_OUT:
                    yield path
            folders[:] = [  # `files` before `views`, which link to them
                name
                for name in sorted(folders)
                if os.path.normpath(os.path.join(within, name)) not in _LEFT_OUT
            ]

    def _kept_names(self, root: Path) -> set[str]:
        """Return the relative paths of what counts: not of files that were being written."""
        return {name for name in self._names(root) if not name.startswith("tmp" + os.sep)}

    def _copy_all(self) -> bool:
        """Copy files that the copy does not have in their present state; return whether there were any."""
        made: dict[tuple[int, int], str] = {}
        before, self._seen = self._seen, {}
        changed = False
        for name in self._names(self.source):
            try:
                found = fsread.lstat(self.source / name)
            except FileNotFoundError:
                continue
            self._seen[name] = found
            if name not in before or _facts(before[name]) != _facts(found):
                changed = True
                with contextlib.suppress(NotFoundError):  # removed meanwhile
                    self._copy(name, found, made)
            elif stat.S_ISREG(found.st_mode):
                made.setdefault((found.st_dev, found.st_ino), name)
        return changed or before.keys() != self._seen.keys()

    def _copy(self, name: str, found: os.stat_result, made: dict[tuple[int, int], str]) -> None:
        path, mode = self.target / name, stat.S_IMODE(found.st_mode)
        there = fsread.stat_or_none(path)
        if there is not None and stat.S_IFMT(there.st_mode) != stat.S_IFMT(found.st_mode):
            fsio.remove_tree(path)
        if stat.S_ISDIR(found.st_mode):
            fsio.ensure_dir(path)
            fsio.set_mode(path, mode | 0o700)  # it becomes read-only at the end
        elif stat.S_ISLNK(found.st_mode):
            link = os.readlink(self.source / name)
            if fsread.read_link(path) != link:
                fsio.swap_link(path, link, tmp_dir=self.target / "tmp")
        elif stat.S_ISREG(found.st_mode):
            first = made.setdefault((found.st_dev, found.st_ino), name)
            if first != name and self._link(self.target / first, path, there):
                return
            if self._hold(first, name, found.st_size):
                made[found.st_dev, found.st_ino] = name
                return
            self._copy_file(name, found)

    def _link(self, first: Path, path: Path, there: os.stat_result | None) -> bool:
        if there is not None:
            if os.path.samestat(fsread.lstat(first), there):
                return True
            fsio.remove(path)
        return fsio.try_link(first, path)

    def _hold(self, first: str, name: str, size_bytes: int) -> bool:
        """Move a file to the view that cannot be linked to it, so that it is not on the new disk twice.

        Returns whether it was moved.
        """
        folder = first.partition(os.sep)[0]
        top, _, place = name.partition(os.sep)
        if (folder, top) != ("files", "views") or not has_record(size_bytes):
            return False
        fsio.rename(self.target / first, self.target / name)
        record = f"{first}{held.HELD}"
        fsio.write_atomic(self.target / record, f"{place}\n".encode(), tmp_dir=self.target / "tmp")
        self._held.add(record)
        if first in self._hashes:
            self._hashes[name] = self._hashes[first]
        return True

    def _copy_file(self, name: str, found: os.stat_result) -> None:
        source, path = self.source / name, self.target / name
        there = fsread.stat_or_none(path)
        if there is not None and there.st_size == found.st_size:
            # Times are irrelevant for files named by their content.
            timeless = name.partition(os.sep)[0] in _BY_CONTENT
            if timeless or there.st_mtime_ns == found.st_mtime_ns:
                hashed = _hash(source, self.on_bytes)
                if _hash(path) == hashed:
                    self._hashes[name] = hashed
                    return
        with fsio.NewFile(self.target / "tmp", ".part") as new:
            sha256 = hashlib.sha256()
            for block in fsread.iter_blocks(source):
                sha256.update(block)
                new.write(block)
                self.on_bytes(len(block))
            new.set_times(found.st_atime_ns, found.st_mtime_ns)
            new.publish(path, mode=stat.S_IMODE(found.st_mode), sync_folder=False)
        self.written_bytes += found.st_size
        self._hashes[name] = sha256.digest()
        if _hash(path) != self._hashes[name]:
            raise IntegrityError(
                str(path),
                why="is not on the disk as it was written",
                hint="the store was not moved; check the new disk",
            )

    def _remove_surplus(self) -> None:
        """Remove files that an earlier run copied and the store no longer has."""
        names = list(self._names(self.target))
        for name in names:  # a folder with its content
            if name not in self._seen and name not in self._held and os.path.lexists(self.target / name):
                fsio.remove_tree(self.target / name)

    def _note_hashes(self) -> None:
        layout = StoreLayout(self.target)
        for name in held.names(layout):
            # Hashed a moment ago; the source's record says that it matches its name.
            digest, (path, found) = digest_of(name), held.find(layout, name)
            hashed = self._hashes.get(os.path.relpath(path, self.target))
            if digest is not None and found is not None and hashed == digest.raw:
                note_hashed(layout, digest, found)

    def _sync(self) -> None:
        """Give the folders their modes, and make all names durable, inner folders first."""
        folders = [name for name, found in self._seen.items() if stat.S_ISDIR(found.st_mode)]
        for name in reversed(folders):
            fsio.sync_dir(self.target / name)
            fsio.set_mode(self.target / name, stat.S_IMODE(self._seen[name].st_mode))
        fsio.sync_dir(self.target)
        fsio.sync_dir(self.target.parent)


def remove_old(old: Path, target: Path) -> None:
    """Remove the old folder of a store that is now at `target`, its note last.

    A folder that leads on keeps its format and its note.  A folder without such a note is unrelated, and is
    kept.  Raises: StorageError.
    """
    if not fsread.is_folder(old):
        return
    names = fsread.list_names(old)
    if names and read_path(old / MOVED_TO) != target:
        return
    leads_on = target_of(old) is not None
    for name in names:
        if name != MOVED_TO and not (leads_on and name == "format"):
            fsio.remove_tree(old / name)
    if not leads_on:
        fsio.remove_tree(old)
        fsio.sync_dir(old.parent)


def _facts(found: os.stat_result) -> tuple[int, int, int]:
    return (0 if stat.S_ISDIR(found.st_mode) else found.st_size, found.st_mtime_ns, found.st_ino)


def _hash(path: Path, on_bytes: Callable[[int], None] | None = None) -> bytes:
    """Return the SHA-256 of a file, read from the disk if the system can drop its cached pages."""
    sha256 = hashlib.sha256()
    fd = fsread.open_read(path)
    with open(fd, "rb", buffering=0) as file, fsread.translating(path):
        native.drop_cached(fd)
        while block := file.read(4 * MIB):
            sha256.update(block)
            if on_bytes is not None:
                on_bytes(len(block))
    return sha256.digest()
