"""The only code that writes files, with `store/growing` for files that grow in place, and
`store/batches` for many small ones.

Owns the order of temporary file, fsync, rename and fsync of the folder, and exclusive creation without
following links.  `store/layout` has the paths, `store/fsread` translates errors.  docs/design.md (order)
describes what the order guarantees.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from typing import Self

from yarnstore.core.digest import Buffer
from yarnstore.core.limits import MIB
from yarnstore.errors import NotFoundError, ReadOnlyError, StorageError
from yarnstore.store import folders, fsread, native
from yarnstore.store.filepath import Path
from yarnstore.store.fsread import stat_or_none, translating
from yarnstore.store.kernel import reflink, reflink_range, try_lock
from yarnstore.store.native import AnyPath

FILE_MODE = 0o644
READ_ONLY_MODE = 0o444
EXECUTABLE_MODE = 0o555

# A file is synced in the background after each so many new bytes, so that the disk works in parallel and the
# last sync is short.
_SYNC_EVERY_BYTES = 32 * MIB

# File systems that share blocks have blocks of this size or a divisor of it; it pays for some of them.
_BLOCK_BYTES = 4096
_SHARED_BYTES = 16 * _BLOCK_BYTES

# How often a folder is made again that other processes remove between two calls, because it is empty.
_TRIES = 20


# --- folders ---------------------------------------------------------------------------------


def ensure_dir(path: Path) -> None:
    """Create a folder and its parents, each synced.  Raises: StorageError, also for a link in the way."""
    for _ in range(_TRIES):
        with contextlib.suppress(NotFoundError):  # another process removed a parent meanwhile
            return _ensure_dir(path)
    return _ensure_dir(path)


def _ensure_dir(path: Path) -> None:
    with translating(path):
        missing = []
        place = path
        while True:
            try:
                mode = fsread.lstat(place).st_mode
            except FileNotFoundError:
                missing.append(place)
                place = place.parent
                continue
            if not stat.S_ISDIR(mode):
                if folders.root_of(place) is not None:
                    folders.refuse_link(place)
                if not ((missing or folders.is_root(place)) and place.is_dir()):
                    raise StorageError(f"{place} exists and is not a folder", path=str(place))
            break
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError), folders.changing(folder) as (fd, name):
                os.mkdir(name, dir_fd=fd)
            sync_dir(folder.parent)


def set_mode(path: Path, mode: int) -> None:
    """Give a file or folder of this user another mode."""
    folders.check_writable(path)
    with translating(path):
        native.chmod(path, mode)


def sync_dir(path: Path) -> None:
    """Make the renames, links and removals in a folder durable."""
    if not native.HAS_DIR_FD:  # folders cannot be opened on Windows, and need no sync
        return
    with translating(path):
        fd = fsread.open_folder(path, follow=True)
        try:
            native.sync(fd)
        finally:
            os.close(fd)


def open_file(path: Path, flags: int) -> int:
    """Return a descriptor of a regular file, not through a symlink, made with `FILE_MODE` less the umask.

    Raises: StorageError, FormatError if it is not a regular file, `OSError`.
    """
    if flags != os.O_RDONLY:
        folders.check_writable(path)
    flags |= native.NOFOLLOW | native.NONBLOCK
    return fsread.open_regular(
        path, lambda name, folder: native.open_file(name, flags, FILE_MODE, dir_fd=folder)
    )


# --- new files -------------------------------------------------------------------------------


class NewFile:
    """A file that is written under a temporary name, and gets its name by `publish`.

    It holds a `flock` while it is open, which distinguishes it from the file of a killed writer.
    """

    def __init__(self, tmp_dir: Path, suffix: str) -> None:
        while True:
            self.path = tmp_dir / f"{fsread.unique_name()}{suffix}"
            self._fd = self._create(tmp_dir)
            # Another process may have removed the file just before the lock, as that of a killed writer.
            if try_lock(self._fd, exclusive=True) and stat_or_none(self.path) is not None:
                break
            os.close(self._fd)
        self._begin()

    def _begin(self) -> None:
        self.size_bytes = 0
        self._shares = True  # blocks with other files, until the file system refuses it
        self._done = False  # renamed or left, so not to be removed
        self._lock = (
            threading.Lock()
        )  # no thread must write to a closed descriptor, whose number may be reused
        self._unsynced = 0
        self._syncer: threading.Thread | None = None
        self._sync_error: OSError | None = None

    def _create(self, folder: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        with translating(self.path):
            for _ in range(_TRIES):
                with contextlib.suppress(FileNotFoundError):
                    return open_file(self.path, flags)
                ensure_dir(folder)
            return open_file(self.path, flags)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def fileno(self) -> int:
        return self._fd

    def write(self, *parts: Buffer) -> None:
        """Append bytes.  Raises: StorageError; the file can then only be discarded."""
        for part in parts:
            self.write_at(self.size_bytes, part)
            self.size_bytes += len(part)

    def write_at(self, offset: int, data: Buffer) -> None:
        """Write at an offset without changing `size_bytes`; thread-safe.  Raises: as `write`."""
        with self._lock, translating(self.path):
            pwrite_all(self._fd, data, offset)
            self._unsynced += len(data)
            if self._unsynced >= _SYNC_EVERY_BYTES:
                self._join_sync()
                self._unsynced = 0
                # By number, since after an interrupt the file may be closed before the thread runs.
                self._syncer = threading.Thread(
                    target=self._sync_in_background, args=(self._fd,), daemon=True
                )
                self._syncer.start()

    def write_shared(self, offset: int, data: Buffer, source: int, begin: int) -> None:
        """Write data that another file (a descriptor) has at `begin` too, and share its blocks where the file
        system can: those that are whole in both.  Raises: as `write`.
        """
        head = -offset % _BLOCK_BYTES
        length = (len(data) - head) // _BLOCK_BYTES * _BLOCK_BYTES
        if self._shares and length >= _SHARED_BYTES and (offset - begin) % _BLOCK_BYTES == 0:
            with self._lock:
                self._shares = reflink_range(source, begin + head, self._fd, offset + head, length)
        else:
            length = 0
        if not self._shares or not length:
            head, length = len(data), 0
        view = memoryview(data)
        for at, part in ((offset, view[:head]), (offset + head + length, view[head + length :])):
            if part:
                self.write_at(at, part)

    def _sync_in_background(self, fd: int) -> None:
        try:
            native.sync_data(fd)
        except OSError as error:
            # Never repeated, since the kernel may have dropped the failed pages (fsyncgate).
            self._sync_error = error

    def _join_sync(self) -> None:
        if self._syncer is not None:
            self._syncer.join()
            self._syncer = None
        if self._sync_error is not None:
            raise self._sync_error

    def set_times(self, atime_ns: int, mtime_ns: int) -> None:
        """Give the file the times of another, before `publish`."""
        native.set_times(self._fd, self.path, atime_ns, mtime_ns)

    def publish(self, path: Path, *, mode: int = FILE_MODE, sync_folder: bool = True) -> None:
        """Sync and rename to `path`, replacing an existing file; then close.

        The lock is held until the temporary name is removed, so that no other process removes it.
        """
        with translating(self.path):
            self._join_sync()
            native.set_mode(self._fd, self.path, mode)
            try:
                native.sync(self._fd)
            except OSError as error:
                self._sync_error = error
                raise
            _replace(self.path, path)
            self._close()
            self._done = True
        if sync_folder:
            sync_dir(path.parent)

    def _close(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)  # after a failure, too, the descriptor is closed, and must not be closed again

    def discard(self) -> None:
        """Close, and remove the temporary name if it was not published."""
        if self._done:
            return
        with contextlib.suppress(OSError):  # the file is discarded anyway
            self.leave()
        with contextlib.suppress(OSError, StorageError):
            unlink(self.path)

    def keep(self) -> None:
        """Close, and keep the file for the next run, unless a sync failed."""
        with contextlib.suppress(OSError):
            if self._syncer is not None and self._syncer.is_alive():
                self._syncer.join()
        if self._sync_error is not None:  # cached pages may differ from the disk
            self.discard()
        else:
            self.leave()

    def leave(self) -> None:
        """Close, and leave the file under its temporary name, as a killed process does."""
        self._done = True
        if self._syncer is not None and self._syncer.is_alive():  # otherwise an interrupt came first
            self._syncer.join()
        self._close()


class KeptNewFile(NewFile):
    """A new file under a known temporary name, with the bytes of an earlier run.

    `locked` is False if another process is writing it; it is then closed.
    """

    def __init__(self, path: Path) -> None:
        ensure_dir(path.parent)
        self.path = path
        flags = os.O_RDWR | os.O_CREAT
        with translating(path):
            try:
                self._fd = open_file(path, flags)
            except PermissionError:
                native.chmod(path, FILE_MODE)  # its writer was killed just before the rename
                self._fd = open_file(path, flags)
        self._begin()
        found = stat_or_none(path) if try_lock(self._fd, exclusive=True) else None
        self.locked = found is not None and os.path.samestat(found, os.fstat(self._fd))
        if not self.locked:
            self.leave()

    def limit(self, size_bytes: int) -> list[tuple[int, int]]:
        """Truncate the file to a size, and return its written ranges as (begin, end).

        Raises: StorageError.
        """
        with translating(self.path):
            if os.fstat(self._fd).st_size > size_bytes:
                native.truncate(self._fd, size_bytes)
            return fsread.written_ranges(self._fd)


def pwrite_all(fd: int, data: Buffer, offset: int) -> int:
    """Write all data at an offset of a file.  Returns the end offset."""
    view = memoryview(data)
    while view:
        done = native.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done
    return offset


def _replace(source: Path, target: Path) -> None:
    """Rename; if another process removed the target's empty folder meanwhile, make it again."""
    for _ in range(_TRIES):
        try:
            _move(source, target)
        except FileNotFoundError:
            if stat_or_none(source) is None:
                raise
            ensure_dir(target.parent)
        else:
            return
    _move(source, target)


def _move(source: Path, target: Path) -> None:
    with folders.changing(source) as (source_fd, old), folders.changing(target) as (target_fd, new):
        try:
            native.replace(old, new, source_fd=source_fd, target_fd=target_fd)
        except OSError as error:
            if error.errno != errno.EXDEV or not fsread.is_file(source):
                raise
            _copy_across(source, target)
    folders.forget_open(source, target)


def _copy_across(source: Path, target: Path) -> None:
    """Do as a rename between disks: the target appears completely, and then the source goes."""
    copy_file(source, target, mode=stat.S_IMODE(fsread.lstat(source).st_mode))
    unlink(source)


def unlink(path: Path) -> None:
    """Remove a file's name, without following links in its parents."""
    with folders.changing(path) as (fd, name):
        native.unlink(name, dir_fd=fd)


def write_atomic(path: Path, data: Buffer, *, tmp_dir: Path, mode: int = FILE_MODE) -> None:
    """Replace a small file by `data`, atomically and durably."""
    with NewFile(tmp_dir, ".tmp") as file:
        if not mode & 0o077:  # a secret must not be readable at any time
            native.set_mode(file.fileno(), file.path, mode)
        file.write(data)
        ensure_dir(path.parent)
        file.publish(path, mode=mode, sync_folder=False)
    with contextlib.suppress(NotFoundError):  # another process removed the file, and then the folder
        sync_dir(path.parent)


# --- links, moves and removals ----------------------------------------------------------------


def hard_link(source: AnyPath, link: AnyPath) -> bool:
    """Link, or copy if links are not supported; return whether it was linked."""
    if try_link(source, link):
        return True
    with translating(source):
        executable = os.stat(source).st_mode & stat.S_IXUSR
    copy_file(Path(source), Path(link), mode=EXECUTABLE_MODE if executable else READ_ONLY_MODE)
    return False


def try_link(source: AnyPath, link: AnyPath) -> bool:
    """Link if that is supported; return whether it was linked."""
    with translating(link):
        try:
            with folders.folder_of(source) as (source_fd, old), folders.changing(link) as (link_fd, new):
                native.link(old, new, source_fd=source_fd, target_fd=link_fd)
        except FileExistsError:
            raise
        except (OSError, NotImplementedError):
            return False
        return True


def swap_link(link: Path, target: str, *, tmp_dir: Path) -> bool:
    """Set a symlink to `target` by a rename; return False if the file system has no symlinks."""
    folders.check_writable(link)
    ensure_dir(link.parent)
    ensure_dir(tmp_dir)
    temporary = tmp_dir / f"{fsread.unique_name()}.link"
    with translating(link):
        try:
            with folders.changing(temporary) as (fd, name):
                native.symlink(target, name, dir_fd=fd)
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            return False
        _move(temporary, link)
    sync_dir(link.parent)
    return True


def rename(source: Path, target: Path) -> None:
    """Rename within the file system, durably in the target's folder."""
    ensure_dir(target.parent)
    with translating(target):
        _move(source, target)
    sync_dir(target.parent)


def remove(path: Path, *, sync: bool = True) -> bool:
    """Remove a file or link; return whether it existed."""
    with translating(path):
        try:
            unlink(path)
        except FileNotFoundError:
            return False
    if sync:
        with contextlib.suppress(NotFoundError):  # another process removed the empty folder
            sync_dir(path.parent)
    return True


def remove_across(path: Path, folder: Path) -> bool:
    """Remove a file or folder that is on another disk than `folder`; return whether it was.

    It loses its name first, so that nobody finds a folder in part.
    """
    found, there = stat_or_none(path), stat_or_none(folder)
    if found is None or there is None or found.st_dev == there.st_dev:
        return False
    if not stat.S_ISDIR(found.st_mode):
        return remove(path)
    going = path.with_name(f"{fsread.unique_name()}.gone")
    rename(path, going)
    remove_tree(going)
    return True


def remove_empty_dirs(path: Path, *, stop: Path) -> None:
    """Remove `path` and its parents below `stop` as long as they are empty."""
    while path != stop and path.is_relative_to(stop):
        try:
            with folders.changing(path) as (fd, name):
                os.rmdir(name, dir_fd=fd)
            folders.forget_open(path)
        except (OSError, ReadOnlyError):
            return
        path = path.parent


def remove_tree(path: Path) -> None:
    """Remove a folder and everything in it, or a file; never follows a link out of it."""
    with translating(path):
        if not fsread.is_folder(path):
            with contextlib.suppress(FileNotFoundError):
                unlink(path)
            return
        set_writable(path, writable=True)
        with folders.changing(path) as (fd, name):
            native.remove_tree(name, dir_fd=fd)
        folders.forget_open(path)


def set_writable(path: Path, *, writable: bool) -> None:
    """Make a folder and the folders in it writable by the owner, or by nobody.

    Not synced, since it only protects from accidents.  Follows no link.  A folder shared by a group is not
    changed.
    """
    folders.check_writable(path)
    if not hasattr(os, "fwalk") or not fsread.is_folder(path):
        return
    with translating(path):
        top = fsread.open_folder(path)
        try:
            for _, _, _, fd in os.fwalk(".", dir_fd=top):
                mode = stat.S_IMODE(os.fstat(fd).st_mode)
                wanted = mode | 0o700 if writable else fsread.sealed_mode(mode)
                if wanted != mode:
                    native.set_mode(fd, path, wanted)
        finally:
            os.close(top)


def copy_file(source: Path, target: Path, *, mode: int = FILE_MODE) -> str:
    """Copy to a new file beside `target`, sync, rename; return `reflink` or `copy`."""
    with NewFile(target.parent, ".part") as new, translating(source):
        fd = fsread.open_read(source)
        try:
            how = "reflink" if reflink(fd, new.fileno()) else "copy"
            while how == "copy" and (block := os.read(fd, 4 * MIB)):
                new.write(block)
        finally:
            os.close(fd)
        new.publish(target, mode=mode)
    return how
