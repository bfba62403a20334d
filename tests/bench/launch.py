"""Runs one command and writes what it cost: LAUNCH RESULT STDOUT STDERR COMMAND…

A program of its own, since Linux counts the memory of whoever forked as the child's (`ru_maxrss`
outlives exec): this one is small, the benchmark is not.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> None:
    result, stdout, stderr, *command = sys.argv[1:]
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, stdout, flags, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, stderr, flags, 0o600),
    ]
    started = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=files)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - started
    cost = {
        "exit": os.waitstatus_to_exitcode(status),
        "seconds": seconds,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
        "written_bytes": usage.ru_oublock * 512,  # to file systems on a disk; Linux counts when it is dirtied
    }
    with open(result, "w") as file:
        json.dump(cost, file)


if __name__ == "__main__":
    main()
