"""`ystore serve` as a child process, which ends with this process however it ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from yarnstore.errors import NotFoundError, YarnstoreError

_PATIENCE_S = 15.0


class Sidecar:
    """A running service, and its `--ready-json` output."""

    def __init__(self, command: Sequence[str]) -> None:
        words = [*command, "--ready-json", "--exit-with-parent", "--json"]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the caller's own words, without a shell
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, encoding="utf-8"
            )
        except OSError:
            raise NotFoundError("program", words[0]) from None
        self.ready = self._wait()

    def _wait(self) -> Mapping[str, Any]:
        """Return what it prints when it is ready.  Raises: the error that it prints otherwise."""
        if self._process.stdout is None:
            raise AssertionError
        line = self._process.stdout.readline()
        found = _read(line)
        if "token" in found:
            return found
        said = line + self._process.stdout.read()
        self.close()
        error = _read(said).get("error", {})
        raise YarnstoreError.restore(
            error.pop("code", "error"),
            error.pop("message", f"the service did not start: exit code {self._process.returncode}"),
            error.pop("hint", "its messages are on stderr"),
            error,
        )

    def close(self) -> None:
        """Stop the service and wait for its end."""
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _read(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
