"""The self-check after an installation: runs the application's `verify_command`.

Runs it without a shell, with the path in place of `{path}`; after the timeout it is killed with all its
children.  The check is complete when the command exits, even if it leaves processes running; only the end of
its output is kept. `ops/installing/activate` reverts an installation whose check failed.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
import time
from collections.abc import Mapping

from yarnstore import machine
from yarnstore.errors import SelfCheckError
from yarnstore.ops.session.session import SelfCheck
from yarnstore.progress import OnProgress, Progress, ignore
from yarnstore.registry.policies import VerifyCommand
from yarnstore.store import native

# How many of the last lines of a failed command's output are shown.
_SHOWN_CHARS = 600
_SHOWN_LINES = 6
# How long to wait for the rest of a failed command's output, since processes that it left may still write.
_DRAIN_S = 1.0
_BLOCK_BYTES = 65536
# The interval of progress reports while the command runs; an interrupt is noticed at these times.
_TICK_S = 1.0
# Replaced in one pass, so that a path that contains `{version}` is not changed.
_PLACE = re.compile(r"\{(path|model|version)\}")


def self_checks(commands: Mapping[str, VerifyCommand]) -> dict[str, SelfCheck]:
    """Return the self-check of each model that has a command."""

    def check(model: str, version: str, path: str, tell: OnProgress) -> None:
        command = commands[model]
        tell(Progress("note", "", text=f"{model} {version}: running its self-check {command.words[0]}"))
        run_check(command, model, version, path, tell)

    return dict.fromkeys(commands, check)


def run_check(command: VerifyCommand, model: str, version: str, path: str, tell: OnProgress = ignore) -> None:
    """Run a model's command; `tell` is called while it runs, and may raise to end it.

    Raises: SelfCheckError if it fails, cannot be run, or exceeds the timeout.
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
            env=machine.environment(),
            **native.ProcessTree.OPTIONS,
        )
        tree = native.ProcessTree(process)
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
            tree.kill()
            process.wait()
        tree.leave()
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
    """Reads the output of a process, so that it never blocks, and keeps the end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._end = b""
        # A daemon thread: processes that the command left running may keep the pipe open.
        self._thread = threading.Thread(target=self._read, name="yarnstore-self-check", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None  # noqa: S101 - it was asked for
        with pipe:
            while block := pipe.read(_BLOCK_BYTES):
                # At most four bytes per character, and some white space to strip.
                self._end = (self._end + block)[-8 * _SHOWN_CHARS :]

    def text(self) -> str:
        """Return the last lines, once the output is complete or after a short wait."""
        self._thread.join(_DRAIN_S)
        text = self._end.decode(errors="replace").strip()[-_SHOWN_CHARS:]
        return "\n".join(text.splitlines()[-_SHOWN_LINES:])
