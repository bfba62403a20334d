"""What a command costs before it does anything, over a bare interpreter."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median

from tests.bench.process import run, ystore, ystore_path

_RUNS = 15
_LOCAL = "import click, json, hashlib, tomllib, blake3, msgspec"
# What each command cannot do without, and how many milliseconds it may take beyond that.
REFERENCES = {
    "ystore --version": ("import click", 10),
    "ystore log": (_LOCAL, 25),
    "ystore list": (_LOCAL, 25),
    "ystore path": (_LOCAL, 25),
    "ystore rollback": (_LOCAL, 45),
}


def measure(work: Path) -> dict[str, float]:
    """Seconds of a bare interpreter and of commands, in a store where a small model is installed."""
    with tempfile.TemporaryDirectory(dir=work, prefix="startup-") as folder:
        home, model = Path(folder) / "home", Path(folder) / "model.bin"
        model.write_bytes(bytes(1024))
        for version in ("1.0.0", "1.1.0"):
            ystore(home, "import", model, f"small@{version}", work=work)
            ystore(home, "checkout", f"small@{version}", work=work)
        command = (ystore_path(), "--home", home)
        commands = {
            "bare interpreter": (sys.executable, "-c", "pass"),
            "import click": (sys.executable, "-c", "import click"),
            _LOCAL: (sys.executable, "-c", _LOCAL),
            "import click, httpx": (sys.executable, "-c", "import click, httpx"),
            "ystore --version": (*command, "--version"),
            "ystore log": (*command, "log", "small"),
            "ystore list": (*command, "list"),
            "ystore path": (*command, "path", "small"),
            "ystore rollback": (*command, "rollback", "small"),
        }
        # In turn, so that a busy moment falls on all alike.
        runs: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(_RUNS):
            for name, words in commands.items():
                runs[name].append(run(*words, work=work, writes=False).seconds)
            ystore(home, "checkout", "small@1.1.0", work=work)
        return {name: median(seconds) for name, seconds in runs.items()}
