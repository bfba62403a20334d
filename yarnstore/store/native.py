"""What differs between operating systems: opening, reading and writing at an offset, locks, renames, syncs,
processes.

The only module, with those for Windows, that uses `os.open`, `fcntl` and functions of C for files.  The
bodies here are those of POSIX; on Windows the same names are those of `native_windows` and
`native_machine_windows`.  Errors are `OSError`; `store/fsread` translates them, and `store/fsio` owns the
order of calls (docs/decisions/0035).

A name is relative to the folder `dir_fd` if that is given; it is None on systems without such descriptors.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

if TYPE_CHECKING:
    import subprocess

# A str costs less than a `Path`, which matters for many files.
AnyPath: TypeAlias = str | os.PathLike[str]

if sys.platform == "win32":
    from yarnstore.store.native_machine_windows import (
        ProcessTree,
        memory_bytes,
        on_battery,
        parent_pid,
        wait_for_parent,
    )
    from yarnstore.store.native_windows import (
        FOLDER,
        HAS_DIR_FD,
        NOFOLLOW,
        NONBLOCK,
        PLAIN,
        chmod,
        drop_cached,
        exchange,
        is_being_written,
        link,
        lock,
        open_file,
        plain_path,
        pread,
        pwrite,
        reach,
        reflink,
        reflink_range,
        remove_tree,
        replace,
        set_mode,
        set_times,
        symlink,
        sync,
        sync_data,
        truncate,
        unlink,
        write,
    )
else:
    import fcntl
    import time

    PLAIN = os.O_CLOEXEC
    NOFOLLOW = os.O_NOFOLLOW | PLAIN
    FOLDER = os.O_RDONLY | os.O_DIRECTORY | PLAIN
    # Opening a named pipe must not wait; regular files ignore the flag.
    NONBLOCK = os.O_NONBLOCK
    # Whether folders can be opened, as `dir_fd`, to be locked and to be synced.
    HAS_DIR_FD = os.open in os.supports_dir_fd

    _FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None)  # macOS
    _NO_FULL_SYNC = (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY)
    _FICLONE = 0x40049409  # linux/fs.h
    _FICLONERANGE = 0x4020940D
    _RENAME_EXCHANGE = 2
    _AT_FDCWD = -100
    _CLONE_NOOWNERCOPY = 2  # sys/clonefile.h
    _MACOS_AT_FDCWD = -2
    _F_GETPATH = 50  # sys/fcntl.h of macOS
    _PATH_BYTES = 1024
    # Documentation/ABI/testing/sysfs-class-power of Linux
    _POWER_SUPPLIES = "/sys/class/power_supply"
    _ATTRIBUTE_BYTES = 64
    _IOKIT = "/System/Library/Frameworks/IOKit.framework/IOKit"
    _POWER_UNLIMITED = -2.0  # kIOPSTimeRemainingUnlimited of IOKit/ps/IOPowerSources.h

    # --- paths -------------------------------------------------------------------------------------

    def reach(path: str) -> str:
        """Return the path in the form that system calls take for every length."""
        return path

    def plain_path(path: str) -> str:
        """Return the path of `reach` as users write it."""
        return path

    # --- open files --------------------------------------------------------------------------------

    def open_file(path: AnyPath, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        """Open a file or, with `FOLDER`, a folder; with `NOFOLLOW` not through a link."""
        return os.open(path, flags, mode, dir_fd=dir_fd)

    def pread(fd: int, length: int, offset: int) -> bytes:
        """Read at an offset.  The position of `fd` is unknown afterwards: Windows moves it."""
        return os.pread(fd, length, offset)

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        """Write at an offset, and return how many bytes were written."""
        return os.pwrite(fd, data, offset)

    def write(fd: int, data: bytes) -> int:
        """Write at the end of a file that is open with `O_APPEND`."""
        return os.write(fd, data)

    def truncate(fd: int, size_bytes: int) -> None:
        """Set a file's size."""
        os.ftruncate(fd, size_bytes)

    def set_mode(fd: int, path: AnyPath, mode: int) -> None:  # noqa: ARG001 - Windows needs the path
        """Set the permissions of an open file, whose path is `path`."""
        os.fchmod(fd, mode)

    def chmod(path: AnyPath, mode: int) -> None:
        """Set the permissions of a file or folder; links are followed."""
        os.chmod(path, mode)

    def set_times(fd: int, path: AnyPath, atime_ns: int, mtime_ns: int) -> None:  # noqa: ARG001
        """Set the times of an open file, whose path is `path`."""
        os.utime(fd, ns=(atime_ns, mtime_ns))

    def sync(fd: int) -> None:
        """Make a file or folder durable: on the disk itself, not in its cache."""
        if _FULL_SYNC is not None:  # `fsync` of macOS leaves data in the cache of the disk
            try:
                fcntl.fcntl(fd, _FULL_SYNC)
            except OSError as error:  # a file system without it, such as SMB
                if error.errno not in _NO_FULL_SYNC:
                    raise
            else:
                return
        os.fsync(fd)

    def sync_data(fd: int) -> None:
        """Begin to write what a later `sync` makes durable."""
        getattr(os, "fdatasync", os.fsync)(fd)

    def drop_cached(fd: int) -> None:
        """Let the next read of a file come from the disk, where the system allows it."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    # --- names -------------------------------------------------------------------------------------

    def replace(
        old: AnyPath, new: AnyPath, *, source_fd: int | None = None, target_fd: int | None = None
    ) -> None:
        """Rename, replacing an existing file."""
        if source_fd is None and target_fd is None:
            os.replace(old, new)
        else:
            os.replace(old, new, src_dir_fd=source_fd, dst_dir_fd=target_fd)

    def unlink(name: AnyPath, *, dir_fd: int | None = None) -> None:
        """Remove the name of a file or link."""
        os.unlink(name, dir_fd=dir_fd)

    def link(
        old: AnyPath, new: AnyPath, *, source_fd: int | None = None, target_fd: int | None = None
    ) -> None:
        """Give a file a second name, without following a link."""
        os.link(old, new, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)

    def remove_tree(name: AnyPath, *, dir_fd: int | None = None) -> None:
        """Remove a folder and everything in it, without following a link."""
        import shutil  # late: it imports all archive formats

        shutil.rmtree(name, dir_fd=dir_fd)

    def symlink(target: str, name: AnyPath, *, dir_fd: int | None = None) -> None:
        """Make a link to a folder."""
        os.symlink(target, name, target_is_directory=True, dir_fd=dir_fd)

    # --- locks -------------------------------------------------------------------------------------

    def lock(fd: int, *, exclusive: bool, wait: bool) -> bool:
        """Lock an open file or folder until it is closed or its process ends.

        Returns False if another open file has a lock that excludes this one; with `wait`, waits for it.
        """
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if not wait and error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise
        return True

    def is_being_written(fd: int) -> bool | None:
        """Whether any process has this file open for writing; None if the system cannot say it.

        `fd` is open for reading only, by the file's owner.
        """
        if not hasattr(fcntl, "F_SETLEASE"):
            return None
        import signal  # late: few commands replace files

        try:
            # A writer that opens it meanwhile would cause SIGIO, which ends a process; SIGURG is ignored.
            fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            return True if error.errno == errno.EAGAIN else None
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False

    # --- shared blocks -----------------------------------------------------------------------------

    def reflink(source: int, target: int) -> bool:
        """Let an empty file share the blocks of another; return whether the file system supports it."""
        if sys.platform == "darwin":
            return _clone(source, target)
        if sys.platform != "linux":
            return False
        try:
            fcntl.ioctl(target, _FICLONE, source)
        except OSError:
            return False
        return True

    def _clone(source: int, target: int) -> bool:
        """Do as `reflink` on macOS, which clones to a new name only: the clone takes the target's name and
        descriptor, and a lock.
        """
        import ctypes  # late: only copying a file needs it

        try:
            path = os.fsdecode(fcntl.fcntl(target, _F_GETPATH, bytes(_PATH_BYTES)).rstrip(b"\0"))
            clone = f"{os.path.dirname(path)}/{os.urandom(12).hex()}{os.path.splitext(path)[1]}"
            call = ctypes.CDLL(None).fclonefileat
        except (OSError, AttributeError):
            return False
        if call(source, _MACOS_AT_FDCWD, os.fsencode(clone), _CLONE_NOOWNERCOPY) != 0:
            return False
        try:
            os.chmod(clone, os.fstat(target).st_mode & 0o777 | 0o600)
            fd = os.open(clone, os.O_RDWR | NOFOLLOW)
            try:
                if not lock(fd, exclusive=True, wait=False):
                    return False
                os.replace(clone, path)
                os.dup2(fd, target, inheritable=False)
            finally:
                os.close(fd)
        except FileNotFoundError:  # another process removed it before the lock, as that of a killed one
            return False
        return True

    def reflink_range(source: int, begin: int, target: int, offset: int, length: int) -> bool:
        """Let a range of a file, of whole blocks, share the blocks of another; returns whether the file
        system did.  `begin` and `length` are those of the source, `offset` is the place in the target, all in
        bytes.
        """
        if sys.platform != "linux":
            return False
        import struct  # late: few commands copy a range

        try:
            fcntl.ioctl(target, _FICLONERANGE, struct.pack("=qQQQ", source, begin, length, offset))
        except OSError:
            return False
        return True

    def exchange(one: str, other: str) -> bool:
        """Exchange two paths atomically; return whether the system and the file system support it."""
        if sys.platform != "linux":
            return False
        import ctypes  # late: only moving a store needs it

        try:
            call = ctypes.CDLL(None).renameat2
        except (OSError, AttributeError):
            return False
        done: int = call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
        return done == 0

    # --- processes ---------------------------------------------------------------------------------

    class ProcessTree:
        """A process, started with `OPTIONS`, and those that it starts; they can be killed together."""

        OPTIONS: ClassVar[dict[str, Any]] = {"start_new_session": True}

        def __init__(self, process: subprocess.Popen[bytes]) -> None:
            self._process = process

        def kill(self) -> None:
            """Kill them; those that have ended are no error."""
            import signal  # late: few commands start processes

            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)

        def leave(self) -> None:
            """Let those that still run outlive this object."""

    def parent_pid() -> int:
        """Return the number of the process that started this one."""
        return os.getppid()

    def wait_for_parent(parent: int) -> None:
        """Wait until the process `parent`, which started this one, has ended."""
        import select  # late: only `ystore serve` waits for it

        try:
            watched = os.pidfd_open(parent)  # Linux
        except (AttributeError, OSError):
            while os.getppid() == parent and parent != 1:
                time.sleep(1.0)
        else:
            while os.getppid() == parent:
                select.select([watched], [], [])
            os.close(watched)

    # --- power and memory --------------------------------------------------------------------------

    def memory_bytes() -> int | None:
        """Return the size of the machine's memory; None if unknown."""
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError):  # a name that this system does not know
            return None

    def on_battery() -> bool | None:
        """Whether the machine runs on battery power; None if the system does not say."""
        if sys.platform == "darwin":
            import ctypes

            try:
                remaining_s = ctypes.CDLL(_IOKIT).IOPSGetTimeRemainingEstimate
            except (OSError, AttributeError):
                return None
            remaining_s.restype = ctypes.c_double
            return bool(remaining_s() != _POWER_UNLIMITED)
        try:
            supplies = [os.path.join(_POWER_SUPPLIES, name) for name in os.listdir(_POWER_SUPPLIES)]
        except OSError:
            return None
        # Batteries of mice and headsets have the scope Device.
        own = [path for path in supplies if _attribute(path, "scope") != "Device"]
        batteries = [path for path in own if _attribute(path, "type") in ("Battery", "UPS")]
        if any(_attribute(path, "online") not in ("", "0") for path in own if path not in batteries):
            return False
        if any(_attribute(path, "status") == "Discharging" for path in batteries):
            return True
        return False if own else None

    def _attribute(folder: str, name: str) -> str:
        """Return an attribute of a device, empty if it has none or does not answer."""
        try:
            fd = os.open(os.path.join(folder, name), os.O_RDONLY | PLAIN)
        except OSError:
            return ""
        try:
            return os.pread(fd, _ATTRIBUTE_BYTES, 0).decode("ascii", "replace").strip()
        except OSError:
            return ""
        finally:
            os.close(fd)


def quoted(word: str, *, windows: bool = sys.platform == "win32") -> str:
    """Return a word for a command that people copy, as a shell reads it: on Windows cmd and PowerShell."""
    marks = r"_@+=:./\-" if windows else "_@%+=:,./-"
    if word and word[0] != "@" and all(char in marks or (char.isalnum() and char.isascii()) for char in word):
        return word
    if not windows:
        return "'" + word.replace("'", "'\"'\"'") + "'"
    # A backslash before the last quotation mark would belong to the word.
    return f'"{word}{chr(92) if word.endswith(chr(92)) else ""}"'


__all__ = [
    "FOLDER",
    "HAS_DIR_FD",
    "NOFOLLOW",
    "NONBLOCK",
    "PLAIN",
    "ProcessTree",
    "chmod",
    "drop_cached",
    "exchange",
    "is_being_written",
    "link",
    "lock",
    "memory_bytes",
    "on_battery",
    "open_file",
    "parent_pid",
    "plain_path",
    "pread",
    "pwrite",
    "quoted",
    "reach",
    "reflink",
    "reflink_range",
    "remove_tree",
    "replace",
    "set_mode",
    "set_times",
    "symlink",
    "sync",
    "sync_data",
    "truncate",
    "unlink",
    "wait_for_parent",
    "write",
]
