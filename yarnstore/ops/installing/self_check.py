"""The self-check of what was just installed: the application's own `verify_command`.

Runs without a shell, with the path in place of `{path}`, and is ended with all its children when its time
is up.  It is done when it ends, whatever it leaves running; of what it prints only the end is kept.
Taking back what it refuses is `ops/installing/activate`'s.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping

from yarnstore.errors import SelfCheckError
from yarnstore.ops.session.session import SelfCheck
from yarnstore.progress import OnProgress, Progress, ignore
from yarnstore.registry.policies import VerifyCommand

# What is shown of what a failed command said: its last lines.
_SHOWN_CHARS = 600
_SHOWN_LINES = 6
# How long the last words of a command that failed may take to arrive: something it left may still speak.
_DRAIN_S = 1.0
_BLOCK_BYTES = 65536
# How often it is told that the command still runs; an interrupt is heard of then.
_TICK_S = 1.0
# Replaced in one pass: a path that holds `{version}` stays as it is.
_PLACE = re.compile(r"\{(path|model|version)\}")


def self_checks(commands: Mapping[str, VerifyCommand]) -> dict[str, SelfCheck]:
    """Return the self-check of each model that has a command."""

    def check(model: str, version: str, path: str, tell: OnProgress) -> None:
        command = commands[model]
        tell(Progress("note", "", text=f"{model} {version}: running its self-check {command.words[0]}"))
        run_check(command, model, version, path, tell)

    return dict.fromkeys(commands, check)


def run_check(command: VerifyCommand, model: str, version: str, path: str, tell: OnProgress = ignore) -> None:
    """Run a model's command; `tell` hears of it while it runs, and may raise to end it.

    Raises: SelfCheckError where it fails, or cannot be run, or takes too long.
    """
    facts = {"path": path, "model": model, "version": version}
    words = [_PLACE.sub(lambda found: facts[found[1]], word) for word in command.words]
    try:
        process = subprocess.Popen(  # noqa: S603 - the user's own words, without a shell
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=os.name == "posix",
        )
    except (OSError, ValueError) as error:
        why = f"{words[0]} cannot be run ({error.strerror if isinstance(error, OSError) else error})"
        raise SelfCheckError(model, version, why) from None
    said = _LastWords(process)
    deadline = time.monotonic() + command.timeout_s
    try:
        while not _ended(process, min(_TICK_S, deadline - time.monotonic())):
            if time.monotonic() >= deadline:
                why = f"{words[0]} did not finish within {command.timeout_s:g} s"
                raise SelfCheckError(model, version, why)
            tell(Progress("check", f"{model} {version}"))
    finally:
        if process.returncode is None:
            _end(process)
    if process.returncode:
        code = process.returncode
        how = f"exited with code {code}" if code > 0 else f"was killed by signal {-code}"
        raise SelfCheckError(model, version, f"{words[0]} {how}", output=said.text())


def _ended(process: subprocess.Popen[bytes], within_s: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=max(0.0, within_s))
        return True
    return False


class _LastWords:
    """Reads what a process prints, so that it never waits for us, and keeps the end of it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._end = b""
        # A daemon: what the command left running may hold the pipe for as long as it likes.
        self._thread = threading.Thread(target=self._read, name="yarnstore-self-check", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None  # noqa: S101 - it was asked for
        with pipe:
            while block := pipe.read(_BLOCK_BYTES):
                # Four bytes a character at most, and something to strip.
                self._end = (self._end + block)[-8 * _SHOWN_CHARS :]

    def text(self) -> str:
        """Its last lines, once all has arrived or a moment has passed."""
        self._thread.join(_DRAIN_S)
        text = self._end.decode(errors="replace").strip()[-_SHOWN_CHARS:]
        return "\n".join(text.splitlines()[-_SHOWN_LINES:])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command that still runs, and what it started."""
    with contextlib.suppress(OSError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
