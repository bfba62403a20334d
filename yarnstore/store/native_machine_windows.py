"""The names of `native` for processes, power and memory on Windows, by its functions (Win32).

`native_windows` has those for files.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, ClassVar

assert sys.platform == "win32"  # noqa: S101 - for type checkers, too

import ctypes  # noqa: E402
from ctypes import wintypes  # noqa: E402

# winnt.h, processthreadsapi.h
_SYNCHRONIZE, _QUERY_LIMITED = 0x100000, 0x1000
_CREATE_SUSPENDED = 0x4
_INFINITE = 0xFFFFFFFF
_JOB_LIMITS, _JOB_KILL_ON_CLOSE = 9, 0x2000
_PROCESS_BASIC = 0  # winternl.h
_INVALID_PARAMETER = 87  # winerror.h: no such process
_PATH_CHARS = 32_768

_kernel32: Any = ctypes.WinDLL("kernel32", use_last_error=True)
_ntdll: Any = ctypes.WinDLL("ntdll")
_kernel32.CloseHandle.argtypes = [wintypes.HANDLE]
_kernel32.CreateJobObjectW.restype = wintypes.HANDLE
_kernel32.CreateJobObjectW.argtypes = [wintypes.LPVOID, wintypes.LPCWSTR]
_kernel32.SetInformationJobObject.argtypes = [
    *(wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD),
]
_kernel32.AssignProcessToJobObject.argtypes = [wintypes.HANDLE, wintypes.HANDLE]
_kernel32.OpenProcess.restype = wintypes.HANDLE
_kernel32.OpenProcess.argtypes = [wintypes.DWORD, wintypes.BOOL, wintypes.DWORD]
_kernel32.GetCurrentProcess.restype = wintypes.HANDLE
_kernel32.WaitForSingleObject.argtypes = [wintypes.HANDLE, wintypes.DWORD]
_kernel32.QueryFullProcessImageNameW.argtypes = [
    *(wintypes.HANDLE, wintypes.DWORD, wintypes.LPWSTR, wintypes.LPVOID),
]
_ntdll.NtQueryInformationProcess.argtypes = [
    *(wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.ULONG, wintypes.LPVOID),
]
_ntdll.NtResumeProcess.argtypes = [wintypes.HANDLE]
_kernel32.GetSystemPowerStatus.argtypes = [wintypes.LPVOID]
_kernel32.GlobalMemoryStatusEx.argtypes = [wintypes.LPVOID]


class _PowerStatus(ctypes.Structure):
    _fields_ = (
        ("ACLineStatus", wintypes.BYTE),
        ("BatteryFlag", wintypes.BYTE),
        ("BatteryLifePercent", wintypes.BYTE),
        ("SystemStatusFlag", wintypes.BYTE),
        ("BatteryLifeTime", wintypes.DWORD),
        ("BatteryFullLifeTime", wintypes.DWORD),
    )


class _JobLimits(ctypes.Structure):
    _fields_ = (
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", wintypes.DWORD),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", wintypes.DWORD),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", wintypes.DWORD),
        ("SchedulingClass", wintypes.DWORD),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("Memory", ctypes.c_size_t * 4),
    )


class _ProcessBasics(ctypes.Structure):
    _fields_ = (
        ("Reserved", ctypes.c_size_t * 4),
        ("UniqueProcessId", ctypes.c_size_t),
        ("InheritedFromUniqueProcessId", ctypes.c_size_t),
    )


class _MemoryStatus(ctypes.Structure):
    _fields_ = (
        ("Length", wintypes.DWORD),
        ("MemoryLoad", wintypes.DWORD),
        ("TotalPhys", ctypes.c_uint64),
        ("Others", ctypes.c_uint64 * 6),
    )


# --- processes ---------------------------------------------------------------------------------


class ProcessTree:
    """See `native`: a job, which the system ends with its last handle.

    Raises: OSError if the process cannot be resumed.
    """

    # A process that runs before it is in the job could start others outside of it.
    OPTIONS: ClassVar[dict[str, Any]] = {"creationflags": _CREATE_SUSPENDED}

    def __init__(self, process: Any) -> None:  # noqa: ANN401 - its handle has no public name
        self._job = _kernel32.CreateJobObjectW(None, None)
        limits = _JobLimits(LimitFlags=_JOB_KILL_ON_CLOSE)
        handle = int(process._handle)  # noqa: SLF001
        self._process = process
        self._holds = bool(
            self._job
            and _kernel32.SetInformationJobObject(
                self._job, _JOB_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits)
            )
            and _kernel32.AssignProcessToJobObject(self._job, handle)
        )
        if _ntdll.NtResumeProcess(handle):
            process.kill()
            raise OSError("the system does not let it run")

    def kill(self) -> None:
        """See `native`."""
        if self._job:
            _kernel32.CloseHandle(self._job)
            self._job = None
        if not self._holds:
            with contextlib.suppress(OSError):
                self._process.kill()

    def leave(self) -> None:
        """See `native`."""
        if self._job:
            limits = _JobLimits(LimitFlags=0)
            _kernel32.SetInformationJobObject(
                self._job, _JOB_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits)
            )
            _kernel32.CloseHandle(self._job)
            self._job = None


def parent_pid() -> int:
    """See `native`; not by `os.getppid`, which Wine aborts."""
    return _parent_of(_kernel32.GetCurrentProcess()) or 0


def wait_for_parent(parent: int) -> None:
    """See `native`.  The number of a parent never changes on Windows, so the process itself is waited for.

    Programs that only start Python are passed over, since they end after this process: `python.exe` of a
    virtual environment, `ystore.exe` of pip, and the program of PyInstaller that unpacks itself.
    """
    handle = _open_process(parent)
    while handle and (pid := _started_by(handle)):
        _kernel32.CloseHandle(handle)
        handle = _open_process(pid)
    if handle:
        _kernel32.WaitForSingleObject(handle, _INFINITE)
        _kernel32.CloseHandle(handle)


def _open_process(pid: int) -> int | None:
    """Return a handle; None if the process has ended.  One that may not be opened never seems to end."""
    for access in (_SYNCHRONIZE | _QUERY_LIMITED, _SYNCHRONIZE):
        handle = _kernel32.OpenProcess(access, False, pid)
        if handle:
            return int(handle)
        if ctypes.get_last_error() == _INVALID_PARAMETER:
            return None
    return int(_kernel32.GetCurrentProcess())


def _started_by(process: int) -> int | None:
    """Return the parent of a process that only starts Python; None for others."""
    this = _kernel32.GetCurrentProcess()
    if process == this or not _only_starts(_image(process), _image(this)):
        return None
    return _parent_of(process)


def _parent_of(process: int) -> int | None:
    found = _ProcessBasics()
    status = _ntdll.NtQueryInformationProcess(
        process, _PROCESS_BASIC, ctypes.byref(found), ctypes.sizeof(found), None
    )
    return int(found.InheritedFromUniqueProcessId) if status == 0 else None


def _only_starts(image: str, own: str) -> bool:
    """Whether a parent with the program `image` only starts this process, whose program is `own`."""
    python = os.path.normcase(sys.executable)
    if image == python:
        return own != python or hasattr(sys, "frozen")
    command = os.path.normcase(os.path.abspath(sys.argv[0])).removesuffix(".exe")
    return image == f"{command}.exe" and image != own


def _image(process: int) -> str:
    """Return the path of the program of a process, in the form that compares; empty if unknown."""
    text = ctypes.create_unicode_buffer(_PATH_CHARS)
    chars = wintypes.DWORD(_PATH_CHARS)
    known = _kernel32.QueryFullProcessImageNameW(process, 0, text, ctypes.byref(chars))
    return os.path.normcase(text.value) if known else ""


# --- power and memory --------------------------------------------------------------------------


def on_battery() -> bool | None:
    """See `native`."""
    status = _PowerStatus()
    if not _kernel32.GetSystemPowerStatus(ctypes.byref(status)):
        return None
    return {0: True, 1: False}.get(status.ACLineStatus)


def memory_bytes() -> int | None:
    """See `native`."""
    status = _MemoryStatus(Length=ctypes.sizeof(_MemoryStatus))
    return int(status.TotalPhys) if _kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None
