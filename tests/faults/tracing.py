"""Running commands under strace: which calls they make, and killing or failing one of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.stores import quiet_env

MUTATING = (
    "openat", "write", "pwrite64", "ftruncate", "fchmod", "fsync", "fdatasync", "rename", "renameat",
    "renameat2", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "link", "linkat", "symlink", "symlinkat",
)  # fmt: skip
TIMEOUT_S = 300.0


def require_strace() -> None:
    """Skip where strace is missing or not allowed to trace."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    if subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace may not trace here")


@dataclass(frozen=True)
class Call:
    """One system call: `number` counts those of its name in its thread from 1.

    In `text` a path that was given relative to a folder's descriptor is whole, without the descriptor.
    """

    pid: int
    name: str
    number: int
    text: str
    result: int

    @property
    def paths(self) -> list[str]:
        """Every absolute path among its arguments, descriptors' included."""
        return re.findall(r'[<"](/[^>"]*)[>"]', self.text)


_LINE = re.compile(r"(\d+) +(?:\d+\.\d+ )?(\w+)\((.*)\)\s+= (-?\d+|\?)")
_BY_DESCRIPTOR = re.compile(r'(?:AT_FDCWD|\d+)<(/[^>]*)>, "([^"]*)"')
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)$")


def trace(words: Sequence[str], log: Path, *, calls: Iterable[str] = MUTATING) -> list[Call]:
    """Run a command to its end and list its calls, in the order in which they began."""
    done = strace(words, log, calls, ["-y"])
    assert done.returncode == 0, done.stderr
    return parse_trace(log.read_text(errors="replace"))


def parse_trace(text: str) -> list[Call]:
    """Read strace's `-f -y` output; a call that another thread interrupts is put together."""
    found: list[Call] = []
    counts: dict[tuple[int, str], int] = {}
    begun: dict[int, str] = {}
    for line in text.splitlines():
        resumed = _RESUMED.match(line)
        if resumed:
            line = begun.pop(int(resumed[1]), "") + resumed[3]
        elif line.endswith("<unfinished ...>"):
            begun[int(line.split()[0])] = line.removesuffix("<unfinished ...>").rstrip()
            continue
        match = _LINE.match(line)
        if match is None:
            continue
        pid, name = int(match[1]), match[2]
        number = counts[pid, name] = counts.get((pid, name), 0) + 1
        text = match[3]
        if name not in ("write", "pwrite64"):  # whose text is data
            text = _BY_DESCRIPTOR.sub(lambda pair: f'"{os.path.join(pair[1], pair[2])}"', text)
        found.append(Call(pid, name, number, text, int(match[4]) if match[4] != "?" else -1))
    return found


def points(found: Sequence[Call], *roots: Path, names: Iterable[str] = MUTATING) -> list[Call]:
    """The calls of the main thread that change something below one of `roots`."""
    main = found[0].pid
    wanted = set(names)
    return [
        call
        for call in found
        if call.pid == main and call.name in wanted and call.result >= 0
        and any(path.startswith(str(root)) for path in call.paths for root in roots)
        and not (call.name == "openat" and "O_CREAT" not in call.text)
    ]  # fmt: skip


def answer_of(found: Sequence[Call]) -> int:
    """The position of the call that begins to print the result: what it says is acknowledged afterwards."""
    answers = (n for n, call in enumerate(found) if call.name == "write" and call.text.startswith("1<"))
    return next(answers, len(found))


def kill_at(words: Sequence[str], call: Call, log: Path) -> int:
    """Run a command and kill it as it enters `call`; its exit status (-9 or 137 where it was)."""
    names = {call.name, "write"}  # so that the log has what it printed
    return strace(
        words, log, sorted(names), ["-e", f"inject={call.name}:signal=KILL:when={call.number}"]
    ).returncode


def has_answered(log: Path) -> bool:
    """Whether a command had printed its result, or a part of it, before it was killed."""
    lines = log.read_text(errors="replace").splitlines()
    return any(re.match(r"\d+ +write\(1, .* = [0-9]+$", line) for line in lines)


def fail_at(words: Sequence[str], call: Call, error: str, log: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in which one call fails with `error` and is not made."""
    return strace(words, log, [call.name], ["-e", f"inject={call.name}:error={error}:when={call.number}"])


def strace(
    words: Sequence[str], log: Path, calls: Iterable[str], options: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """Run a command under strace, with more of its options, and write the trace to `log`."""
    return subprocess.run(
        [
            "strace",
            "-f",
            "-qq",
            "-s",
            "0",
            "-o",
            str(log),
            "-e",
            f"trace={','.join(f'?{call}' for call in calls)}",  # `?`: not every machine has them all
            *options,
            *words,
        ],
        env={**os.environ, **quiet_env()},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def spread(items: Sequence[Call], count: int) -> list[Call]:
    """`count` of them, evenly, with the first and the last."""
    if len(items) <= count:
        return list(items)
    return [items[round(n * (len(items) - 1) / (count - 1))] for n in range(count)]


def in_parallel(function: object, items: Sequence[object]) -> None:
    """Call `function` for each item on all processors; the first failure is raised."""
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for _ in pool.map(function, items):  # type: ignore[arg-type]
            pass
