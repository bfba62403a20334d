"""The names of `native` on Windows, by its functions for files (Win32).

Files are opened so that others may rename and remove them meanwhile.  A rename replaces files that are open.
Locks are those of `LockFileEx`.  Virus scanners and indexers open files for moments, so opening, renaming
and removing are repeated for some seconds (docs/decisions/0035).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
from typing import Any, NoReturn

from yarnstore.store.patience import HELD, PATIENCE_S, SHORT_S, patiently

assert sys.platform == "win32"  # noqa: S101 - for type checkers, too

import ctypes  # noqa: E402
import msvcrt  # noqa: E402
from ctypes import wintypes  # noqa: E402

# A flag of our own: `open_file` does not follow a link.
_NO_LINK = 1 << 28
PLAIN = os.O_BINARY | os.O_NOINHERIT
NOFOLLOW = _NO_LINK | PLAIN
FOLDER = os.O_RDONLY
NONBLOCK = 0
HAS_DIR_FD = False

_LOCK_POLL_S = 0.002
# Locks are on one byte far behind any content, since Windows denies access to what is locked.
_LOCKED_BYTE = 1 << 62
# Longer paths need the prefix; Win32 limits them to 260 characters, those of folders to 248.
_LONG = 240
_PREFIX = "\\\\?\\"
_READ_LIMIT_BYTES = 1 << 30
_WRITE_LIMIT_BYTES = 4 << 20

# winnt.h, fileapi.h, minwinbase.h
_GENERIC_READ, _GENERIC_WRITE = 0x80000000, 0x40000000
_APPEND_DATA, _DELETE, _SYNCHRONIZE = 0x4, 0x10000, 0x100000
_SHARE_READ, _SHARE_ALL = 1, 7
_CREATE_NEW, _OPEN_EXISTING, _OPEN_ALWAYS = 1, 3, 4
_NORMAL, _BACKUP_SEMANTICS, _OPEN_REPARSE_POINT = 0x80, 0x02000000, 0x00200000
_IS_REPARSE_POINT, _IS_NAME_SURROGATE = 0x400, 0x20000000
_ATTRIBUTE_TAG_INFO, _DISPOSITION_INFO_EX, _RENAME_INFO_EX = 9, 21, 22
_DISPOSITION_DELETE, _DISPOSITION_POSIX, _DISPOSITION_READ_ONLY_TOO = 0x1, 0x2, 0x10
_RENAME_REPLACE, _RENAME_POSIX, _RENAME_READ_ONLY_TOO = 0x1, 0x2, 0x40
_LOCK_AT_ONCE, _LOCK_EXCLUSIVE = 1, 2
# winerror.h
_ACCESS_DENIED, _SHARING_VIOLATION, _LOCK_VIOLATION = 5, 32, 33
_HANDLE_EOF, _IO_PENDING = 38, 997
# A file system or an older Windows that does not have the function.
_UNSUPPORTED = (1, 50, 87, 120, 124)

_kernel32: Any = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.CreateFileW.restype = wintypes.HANDLE
_kernel32.CreateFileW.argtypes = [
    *(wintypes.LPCWSTR, wintypes.DWORD, wintypes.DWORD, wintypes.LPVOID),
    *(wintypes.DWORD, wintypes.DWORD, wintypes.HANDLE),
]
_kernel32.ReOpenFile.restype = wintypes.HANDLE
_kernel32.ReOpenFile.argtypes = [wintypes.HANDLE, wintypes.DWORD, wintypes.DWORD, wintypes.DWORD]
_kernel32.CloseHandle.argtypes = [wintypes.HANDLE]
for _name in ("ReadFile", "WriteFile"):
    getattr(_kernel32, _name).argtypes = [
        *(wintypes.HANDLE, wintypes.LPVOID, wintypes.DWORD, wintypes.LPVOID, wintypes.LPVOID),
    ]
_kernel32.LockFileEx.argtypes = [wintypes.HANDLE, *(4 * [wintypes.DWORD]), wintypes.LPVOID]
_kernel32.UnlockFileEx.argtypes = [wintypes.HANDLE, *(3 * [wintypes.DWORD]), wintypes.LPVOID]
for _name in ("SetFileInformationByHandle", "GetFileInformationByHandleEx"):
    getattr(_kernel32, _name).argtypes = [wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD]
_INVALID = wintypes.HANDLE(-1).value


class _Overlapped(ctypes.Structure):
    _fields_ = (
        ("Internal", ctypes.c_void_p),
        ("InternalHigh", ctypes.c_void_p),
        ("Offset", wintypes.DWORD),
        ("OffsetHigh", wintypes.DWORD),
        ("hEvent", wintypes.HANDLE),
    )


class _AttributeTag(ctypes.Structure):
    _fields_ = (("FileAttributes", wintypes.DWORD), ("ReparseTag", wintypes.DWORD))


def _at(offset: int) -> Any:  # noqa: ANN401 - a pointer
    return ctypes.byref(_Overlapped(Offset=offset & 0xFFFFFFFF, OffsetHigh=offset >> 32))


def _raise(path: str | os.PathLike[str] | None = None) -> NoReturn:
    """Raise the last error of Win32; `OSError` finds the errno, and keeps the number in `winerror`."""
    code = ctypes.get_last_error()
    raise OSError(0, ctypes.FormatError(code).strip(), None if path is None else os.fspath(path), code)


# --- paths -------------------------------------------------------------------------------------


def reach(path: str) -> str:
    """See `native`: with a prefix where Win32 would refuse the length."""
    if len(path) < _LONG or path.startswith(_PREFIX):
        return path
    path = os.path.abspath(path)
    return f"{_PREFIX}UNC\\{path[2:]}" if path.startswith("\\\\") else f"{_PREFIX}{path}"


def plain_path(path: str) -> str:
    """See `native`."""
    if path.startswith(f"{_PREFIX}UNC\\"):
        return f"\\\\{path[len(_PREFIX) + 4 :]}"
    return path.removeprefix(_PREFIX)


# --- open files --------------------------------------------------------------------------------


def _create(path: str | os.PathLike[str], access: int, how: int, attributes: int) -> int:
    place = reach(os.fspath(path))
    handle = _kernel32.CreateFileW(place, access, _SHARE_ALL, None, how, attributes, None)
    if handle == _INVALID:
        _raise(path)
    return int(handle)


def open_file(
    path: str | os.PathLike[str],
    flags: int,
    mode: int = 0o777,
    *,
    dir_fd: int | None = None,  # noqa: ARG001 - never given
) -> int:
    """See `native`."""
    access = {os.O_RDONLY: _GENERIC_READ, os.O_WRONLY: _GENERIC_WRITE}.get(
        flags & 3, _GENERIC_READ | _GENERIC_WRITE
    )
    if flags & os.O_APPEND:  # without the right to write elsewhere, each write appends atomically
        access = access & _GENERIC_READ | _APPEND_DATA | _SYNCHRONIZE
    how = _OPEN_EXISTING
    if flags & os.O_CREAT:
        how = _CREATE_NEW if flags & os.O_EXCL else _OPEN_ALWAYS
    attributes = _NORMAL | (_OPEN_REPARSE_POINT if flags & _NO_LINK else 0)
    if how != _OPEN_EXISTING and not mode & stat.S_IWRITE:
        attributes = attributes & ~_NORMAL | stat.FILE_ATTRIBUTE_READONLY
    try:
        handle = patiently(lambda: _create(path, access, how, attributes), busy=HELD)
    except PermissionError as error:
        if error.winerror == _ACCESS_DENIED and os.path.isdir(reach(os.fspath(path))):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path)) from None
        raise
    if flags & _NO_LINK and _is_link(handle):
        _kernel32.CloseHandle(handle)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
    try:
        return msvcrt.open_osfhandle(handle, PLAIN | flags & (os.O_APPEND | 3))
    except BaseException:
        _kernel32.CloseHandle(handle)
        raise


def _is_link(handle: int) -> bool:
    """Whether an open reparse point stands for another name; those of cloud drives do not."""
    found = _AttributeTag()
    known = _kernel32.GetFileInformationByHandleEx(
        handle, _ATTRIBUTE_TAG_INFO, ctypes.byref(found), ctypes.sizeof(found)
    )
    return bool(known and found.FileAttributes & _IS_REPARSE_POINT and found.ReparseTag & _IS_NAME_SURROGATE)


def pread(fd: int, length: int, offset: int) -> bytes:
    """See `native`.  Moves the position of `fd`."""
    length = min(length, _READ_LIMIT_BYTES)
    if not length:
        return b""
    block = bytearray(length)
    done = wintypes.DWORD()
    place = (ctypes.c_char * length).from_buffer(block)
    if not _kernel32.ReadFile(msvcrt.get_osfhandle(fd), place, length, ctypes.byref(done), _at(offset)):
        if ctypes.get_last_error() == _HANDLE_EOF:
            return b""
        _raise()
    return bytes(memoryview(block)[: done.value])


def pwrite(fd: int, data: memoryview, offset: int) -> int:
    """See `native`.  Moves the position of `fd`."""
    block = bytes(data[:_WRITE_LIMIT_BYTES])  # only `bytes` give a pointer to memory that may be read-only
    done = wintypes.DWORD()
    handle = msvcrt.get_osfhandle(fd)
    if block and not _kernel32.WriteFile(handle, block, len(block), ctypes.byref(done), _at(offset)):
        _raise()
    return done.value


def write(fd: int, data: bytes) -> int:
    """See `native`."""
    return os.write(fd, data)


def truncate(fd: int, size_bytes: int) -> None:
    """See `native`."""
    os.ftruncate(fd, size_bytes)


def set_mode(fd: int, path: str | os.PathLike[str], mode: int) -> None:  # noqa: ARG001
    """See `native`: only whether the file can be written, for all its names."""
    chmod(path, mode)


def chmod(path: str | os.PathLike[str], mode: int) -> None:
    """See `native` and `set_mode`."""
    os.chmod(reach(os.fspath(path)), mode)


def set_times(fd: int, path: str | os.PathLike[str], atime_ns: int, mtime_ns: int) -> None:  # noqa: ARG001
    """See `native`."""
    os.utime(reach(os.fspath(path)), ns=(atime_ns, mtime_ns))


def sync(fd: int) -> None:
    """See `native`."""
    os.fsync(fd)


def sync_data(fd: int) -> None:
    """See `native`."""
    os.fsync(fd)


def drop_cached(fd: int) -> None:
    """See `native`: Windows has no such call."""


# --- names -------------------------------------------------------------------------------------


def replace(
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    *,
    source_fd: int | None = None,  # noqa: ARG001 - never given
    target_fd: int | None = None,  # noqa: ARG001
) -> None:
    """See `native`; a file that others have open, or that is read-only, is replaced too."""
    source, target = reach(os.fspath(old)), reach(os.fspath(new))
    is_folder = os.path.isdir(source)
    if not is_folder and os.path.isdir(target) and not os.path.islink(target):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(new))

    def act() -> None:
        handle = _create(
            source, _DELETE | _SYNCHRONIZE, _OPEN_EXISTING, _BACKUP_SEMANTICS | _OPEN_REPARSE_POINT
        )
        try:
            wish = _rename_wish(os.path.abspath(target))
            if _kernel32.SetFileInformationByHandle(
                handle, _RENAME_INFO_EX, ctypes.byref(wish), ctypes.sizeof(wish)
            ):
                return
            if ctypes.get_last_error() not in _UNSUPPORTED:
                _raise(new)
        finally:
            _kernel32.CloseHandle(handle)
        if not is_folder:
            with contextlib.suppress(OSError):
                os.chmod(target, stat.S_IWRITE)
        os.replace(source, target)

    patiently(act, longest_s=SHORT_S if is_folder else PATIENCE_S)


def _rename_wish(target: str) -> ctypes.Structure:
    """Return the FILE_RENAME_INFO that names `target`, an absolute path."""
    name = target.encode("utf-16-le", "surrogatepass")

    class Wish(ctypes.Structure):
        _fields_ = (
            ("Flags", wintypes.DWORD),
            ("RootDirectory", wintypes.HANDLE),
            ("FileNameLength", wintypes.DWORD),
            ("FileName", ctypes.c_char * (len(name) + 2)),
        )

    return Wish(_RENAME_REPLACE | _RENAME_POSIX | _RENAME_READ_ONLY_TOO, None, len(name), name)


def unlink(name: str | os.PathLike[str], *, dir_fd: int | None = None) -> None:  # noqa: ARG001
    """See `native`; a file that others have open, or that is read-only, is removed too."""
    place = reach(os.fspath(name))

    def act() -> None:
        attributes = _OPEN_REPARSE_POINT | _BACKUP_SEMANTICS  # also of a link to a folder
        handle = _create(place, _DELETE | _SYNCHRONIZE, _OPEN_EXISTING, attributes)
        try:
            wish = wintypes.DWORD(_DISPOSITION_DELETE | _DISPOSITION_POSIX | _DISPOSITION_READ_ONLY_TOO)
            if _kernel32.SetFileInformationByHandle(handle, _DISPOSITION_INFO_EX, ctypes.byref(wish), 4):
                return
            if ctypes.get_last_error() not in _UNSUPPORTED:
                _raise(name)
        finally:
            _kernel32.CloseHandle(handle)
        if not os.path.islink(place):
            os.chmod(place, stat.S_IWRITE)
        os.unlink(place)

    if os.path.isdir(place) and not os.path.islink(place):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(name))
    patiently(act)


def remove_tree(name: str | os.PathLike[str], *, dir_fd: int | None = None) -> None:  # noqa: ARG001
    """See `native`."""
    place = reach(os.path.abspath(os.fspath(name)))
    with os.scandir(place) as found:
        entries = list(found)
    for entry in entries:
        tag = entry.stat(follow_symlinks=False).st_reparse_tag
        if not entry.is_dir(follow_symlinks=False):
            unlink(entry.path)
        elif tag & _IS_NAME_SURROGATE:  # a junction
            os.rmdir(entry.path)
        else:
            remove_tree(entry.path)
    patiently(lambda: os.rmdir(place))


def link(
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    *,
    source_fd: int | None = None,  # noqa: ARG001 - never given
    target_fd: int | None = None,  # noqa: ARG001
) -> None:
    """See `native`."""
    os.link(reach(os.fspath(old)), reach(os.fspath(new)))


def symlink(target: str, name: str | os.PathLike[str], *, dir_fd: int | None = None) -> NoReturn:
    """Raise NotImplementedError: links need a privilege, and no rename replaces the link of a folder."""
    raise NotImplementedError


# --- locks -------------------------------------------------------------------------------------


def lock(fd: int, *, exclusive: bool, wait: bool) -> bool:
    """See `native`.  As with `flock`, an earlier lock of the same open file is replaced."""
    handle = msvcrt.get_osfhandle(fd)
    _kernel32.UnlockFileEx(handle, 0, 1, 0, _at(_LOCKED_BYTE))
    flags = _LOCK_AT_ONCE | (_LOCK_EXCLUSIVE if exclusive else 0)
    while not _kernel32.LockFileEx(handle, flags, 0, 1, 0, _at(_LOCKED_BYTE)):
        if ctypes.get_last_error() not in (_LOCK_VIOLATION, _IO_PENDING):
            _raise()
        if not wait:
            return False
        time.sleep(_LOCK_POLL_S)  # rather than in LockFileEx, which Ctrl-C cannot end
    return True


def is_being_written(fd: int) -> bool | None:
    """See `native`: whether opening it fails if writers are not shared."""
    handle = _kernel32.ReOpenFile(msvcrt.get_osfhandle(fd), _GENERIC_READ, _SHARE_READ, 0)
    if handle == _INVALID:
        return True if ctypes.get_last_error() == _SHARING_VIOLATION else None
    _kernel32.CloseHandle(handle)
    return False


# --- shared blocks -----------------------------------------------------------------------------


def reflink(source: int, target: int) -> bool:  # noqa: ARG001
    """See `native`: not done; only ReFS could."""
    return False


def reflink_range(source: int, begin: int, target: int, offset: int, length: int) -> bool:  # noqa: ARG001
    """See `reflink`."""
    return False


def exchange(one: str, other: str) -> bool:  # noqa: ARG001
    """See `native`: Windows cannot."""
    return False
