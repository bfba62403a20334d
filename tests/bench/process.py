"""Running a command as a whole process: its time, its CPU time, its peak memory."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAUNCH = Path(__file__).with_name("launch.py")
# What a benchmark may be run with.
_CHOICES = ("YSTORE_KERNELS", "YSTORE_THREADS")
# More than an operation on 1 GB fills the page cache with.
_BACKED_BYTES = 3 << 30


class BenchError(Exception):
    """A command that was to be measured failed."""


@dataclass(frozen=True)
class Run:
    """What one process took.  `sync_s` is how long the disk took afterwards to hold all it wrote."""

    seconds: float
    cpu_s: float
    peak_bytes: int
    written_bytes: int
    sync_s: float
    stdout: str

    @property
    def on_disk_s(self) -> float:
        """Until everything written would outlive a power cut."""
        return self.seconds + self.sync_s

    def json(self) -> dict[str, Any]:
        return json.loads(self.stdout)


def run(
    *command: str | Path,
    work: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    writes: bool = True,
) -> Run:
    """Run a command with what was written before on the disk already, and nothing of the user's around.

    One that `writes` little needs no memory made ready for it.

    Raises: BenchError.
    """
    with tempfile.TemporaryDirectory(dir=work, prefix="run-") as folder:
        result, stdout, stderr = (Path(folder) / name for name in ("result", "stdout", "stderr"))
        clean = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOME": folder}
        chosen = {name: os.environ[name] for name in _CHOICES if name in os.environ}
        clean |= {"TMPDIR": folder, **chosen, **(env or {})}
        os.sync()
        if writes:
            back_memory()
        launch = [sys.executable, "-I", "-S", LAUNCH, result, stdout, stderr, *command]
        with subprocess.Popen(launch, cwd=cwd, env=clean, process_group=0) as process:
            try:
                process.wait()
            except BaseException:
                # The command too, not the launcher alone: it would go on in a folder that is gone.
                os.killpg(process.pid, signal.SIGKILL)
                raise
        started = time.perf_counter()
        os.sync()
        sync_s = time.perf_counter() - started
        cost = json.loads(result.read_text())
        told = stdout.read_text(errors="replace")
        if cost.pop("exit") != 0:
            errors = stderr.read_text(errors="replace") or told
            raise BenchError(f"{' '.join(map(str, command))}: {errors[-2000:]}")
        return Run(**cost, sync_s=sync_s, stdout=told)


def back_memory() -> None:
    """Have the host of a virtual machine give it the memory that the next command will fill.

    Where free memory is handed back to the host, the first touch of a page is a fault there: a gigabyte
    written into the page cache then takes 2.4 s of CPU time, of the host's work, and 0.2 s once it is
    backed.  Which of the two a command meets would be chance.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)
    free_bytes = os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE
    mmap.mmap(-1, max(mmap.PAGESIZE, min(_BACKED_BYTES, free_bytes // 2)), flags=flags).close()


def ystore(
    home: Path,
    *args: str | Path,
    work: Path,
    command: str | Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Run:
    """Run `ystore --json`, or `command` of another release, on the store at `home`.  Raises: BenchError."""
    return run(command or ystore_path(), "--home", home, "--json", *args, work=work, env=env)


def ystore_path() -> str:
    """The installed command, beside the interpreter that runs this."""
    return str(Path(sys.executable).with_name("ystore"))
