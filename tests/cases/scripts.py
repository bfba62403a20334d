"""Runs the case scripts: situations from use and attack, each a script that judges the command from outside.

They are not part of the repository.  `YSTORE_TEST_CASES` names their folder; else it is
`../shared/cases` beside the repository.  A script is given the command as `YS` and Python as `PY`; it
exits 0 where the command does the right thing, 77 where it cannot judge here, otherwise with something else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
TIMEOUT_S = 180.0
_CANNOT_JUDGE = 77
# The user's settings and proxies, which would decide instead of the script.
_FOREIGN = ("YSTORE_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "XDG_")


@dataclass(frozen=True)
class Outcome:
    """How a script ended: `right`, `wrong` or `not here`, and what it printed."""

    word: str
    output: str

    @property
    def why(self) -> str:
        """The last line that was printed, or nothing."""
        lines = self.output.strip().splitlines()
        return lines[-1] if lines else ""


def cases_root() -> Path:
    """The folder that would hold the scripts, there or not."""
    named = os.environ.get("YSTORE_TEST_CASES")
    return Path(named) if named else REPO.parent / "shared" / "cases"


def case_scripts() -> list[Path]:
    """Every script, in order; empty where the folder is not here."""
    root = cases_root()
    return sorted(path for path in root.glob("*/*") if path.suffix in (".sh", ".py"))


def case_name(script: Path) -> str:
    """`use/06-quiet-is-quiet`: the script's group and name."""
    return f"{script.parent.name}/{script.stem}"


def run_case(script: Path) -> Outcome:
    """Run one script, with a home and a temporary folder of its own, and end all that it started."""
    with tempfile.TemporaryDirectory(prefix="ystore-case-", ignore_cleanup_errors=True) as place:
        try:
            return _run(script.resolve(), Path(place))
        finally:
            _make_removable(Path(place))


def _run(script: Path, place: Path) -> Outcome:
    home, temporary = place / "user", place / "tmp"
    home.mkdir()
    temporary.mkdir()
    # Not `resolve`: the interpreter of a virtual environment is a link out of it.
    python = Path(sys.executable)
    env = {name: value for name, value in os.environ.items() if not name.upper().startswith(_FOREIGN)}
    env |= {
        "YS": str(python.parent / "ystore"),
        "PY": str(python),
        "HOME": str(home),
        "TMPDIR": str(temporary),
    }
    words = [str(python) if script.suffix == ".py" else shutil.which("bash") or "bash", str(script)]
    # Into a file: a process that the script left behind would hold a pipe open.
    with (place / "output").open("w+b") as output:
        process = subprocess.Popen(
            words, env=env, cwd=temporary, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            status: int | None = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with contextlib.suppress(ProcessLookupError):  # it left nothing behind
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        text = output.read().decode(errors="replace")
    if status is None:
        return Outcome("wrong", f"{text}\nstopped after {TIMEOUT_S:.0f} s")
    if status == _CANNOT_JUDGE:
        return Outcome("not here", text.strip() or _reason(script))
    return Outcome("right" if status == 0 else "wrong", text)


def _reason(script: Path) -> str:
    """Why a script that says nothing cannot judge here: the comment that stands at its exit."""
    for line in script.read_text(encoding="utf-8").splitlines():
        before, marker, after = line.partition(f"{_CANNOT_JUDGE}: ")
        if marker and before.lstrip().startswith("#"):
            return after
        if line.startswith("try:") and "#" in line:
            return line.partition("#")[2].strip()
    return f"the script exits {_CANNOT_JUDGE}"


def _make_removable(place: Path) -> None:
    for folder, _, _ in os.walk(place):
        with contextlib.suppress(OSError):  # of another user, made in a namespace
            os.chmod(folder, 0o755)


def main(say: Callable[[str], object] = print) -> int:
    """Run all scripts, one line each; the exit code is 1 where any went wrong."""
    scripts = case_scripts()
    if not scripts:
        say(f"no case scripts here: {cases_root()} is no folder of them; YSTORE_TEST_CASES names another")
        return 0
    wrong = 0
    for script in scripts:
        begun_s = time.monotonic()
        outcome = run_case(script)
        took = f"{time.monotonic() - begun_s:.1f} s"
        wrong += outcome.word == "wrong"
        tells = outcome.word != "right" and outcome.why
        say(f"{outcome.word:8}  {took:>8}  {case_name(script)}" + (f": {outcome.why}" if tells else ""))
    say(f"{wrong} of {len(scripts)} wrong" if wrong else "none wrong")
    return 1 if wrong else 0
