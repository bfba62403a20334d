"""What this process uses of its machine: how many threads, and which of two kernels.

Owns: YSTORE_THREADS, YSTORE_KERNELS and the number of processors.  No byte that yarnstore writes depends
on them, so that the pure core may ask.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from yarnstore.errors import ConfigError

# The SHA-256 of a file and its writer are one thread each: with more than this, the others wait for them.
_MOST_UNASKED = 16
_MOST_THREADS = 64


def wanted_kernels() -> str:
    """The kernels that YSTORE_KERNELS names, `c` or `numpy`, else nothing.  Raises: ConfigError."""
    value = os.environ.get("YSTORE_KERNELS", "")
    if value not in ("", "c", "numpy"):
        raise ConfigError(f"YSTORE_KERNELS is {value!r}", hint="set it to c or numpy, or unset it")
    return value


def environment() -> dict[str, str]:
    """The environment of programs that this process starts: what it was started with, not what the command
    sets for its own C libraries (docs/decisions/0040)."""
    return dict(os.environ)


def count_threads() -> int:
    """How many threads an operation may keep busy.  Raises: ConfigError.

    YSTORE_THREADS, else the processors that this process may use, by its affinity and its cgroup's quota.
    """
    value = os.environ.get("YSTORE_THREADS", "")
    if not value:
        return min(_count_processors(), _MOST_UNASKED)
    if value.isascii() and value.isdigit() and 1 <= int(value[:9]) <= _MOST_THREADS:
        return int(value)
    raise ConfigError(f"YSTORE_THREADS is {value!r}, not a number from 1 to {_MOST_THREADS}")


def _count_processors() -> int:
    try:
        found = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS and Windows have no affinity to ask for
        found = os.cpu_count() or 1
    return max(1, min([found, *cgroup_quotas()]))


def cgroup_quotas(root: str = "/") -> Iterator[int]:
    """How many processors each limit of this process's cgroups gives, rounded up; nothing without a limit.

    `root` is the folder that has `proc` and `sys`.
    """
    for line in _read(f"{root}/proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:  # version 2
            mount = f"{root}/sys/fs/cgroup"
        elif "cpu" in controllers.split(","):
            mount = f"{root}/sys/fs/cgroup/cpu"
        else:
            continue
        # In a container the path may be one of the host, of which only the top is mounted.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            folder = "/".join([mount, *parts[:depth]])
            quota, _, period = _read(f"{folder}/cpu.max").strip().partition(" ")
            if controllers:
                quota, period = (_read(f"{folder}/cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
            if quota.isdigit() and period.isdigit() and int(quota) and int(period):
                yield -(-int(quota) // int(period))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(65_536)
    except OSError:
        return ""
