"""Where output goes: results to stdout, progress and notes to stderr.

For people on a terminal, stable lines when piped, one JSON document with `--json`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import TracebackType
from typing import Any, Literal

import click

from yarnstore.cli.format import clean, table
from yarnstore.errors import YarnstoreError


@dataclass
class Output:
    """How one invocation speaks; filled from the options that every command takes."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    progress: Literal["auto", "json", "none"] = "auto"

    @property
    def for_people(self) -> bool:
        """Whether a person reads stdout."""
        return sys.stdout.isatty()

    def result(self, value: object, text: Callable[[], str]) -> None:
        """Print a command's result: as JSON, else as `text()` unless that is empty."""
        if self.json:
            self.document(value)
        elif shown := text():
            click.echo(shown)

    def document(self, value: object) -> None:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(jsonable(value)), indent=2))

    def rows(self, value: object, header: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
        """Print rows: aligned under a header for people, tab-separated when piped, names alone with -q."""
        if self.json:
            self.document(value)
        elif self.quiet:
            for row in rows:
                click.echo(row[0])
        elif not self.for_people:
            for row in rows:
                click.echo("\t".join(cell.replace("\t", " ") for cell in row))
        elif rows:
            click.echo(table(header, rows))
        else:
            click.echo(empty)

    def say(self, text: str) -> None:
        """A sentence beside the result, on stderr; silent with -q."""
        if not self.quiet:
            click.echo(text, err=True)

    def error(self, error: YarnstoreError) -> None:
        """Print an error: what, why, what next."""
        if self.json:
            self.document({"error": error.as_dict()})
            return
        click.echo(f"error: {clean(error.message)}", err=True)
        if error.hint:
            click.echo(f"  {clean(error.hint)}", err=True)


def jsonable(value: object) -> Any:  # noqa: ANN401 - JSON is any
    """Dataclasses with their properties, and what is in them, as plain JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        own = {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
        derived = [name for name, item in vars(type(value)).items() if isinstance(item, property)]
        return {**own, **{name: jsonable(getattr(value, name)) for name in derived}}
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    return value


_VERBS = {
    "read": "reading",
    "delta": "delta",
    "download": "downloading",
    "write": "writing",
    "check": "checking",
}
_JSON_EVERY_S = 0.2


class ProgressView:
    """Shows progress on stderr: a bar on a terminal, JSON lines if asked for, else only the notes."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._bar: Any = None
        self._task: Any = None
        self._key: tuple[str, str] | None = None
        self._last_s = 0.0
        self._on_terminal = output.progress == "auto" and not output.quiet and sys.stderr.isatty()

    def __enter__(self) -> ProgressView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def __call__(self, event: Any) -> None:  # noqa: ANN401 - a Progress; the module is imported late
        """Take one `Progress` event."""
        if self._output.progress == "json":
            self._json(event)
        elif event.phase == "note":
            self._stop()
            if not self._output.json:
                self._output.say(clean(event.text))
        elif self._on_terminal and event.bytes_total:
            self._show(event)

    def _json(self, event: Any) -> None:  # noqa: ANN401
        import msgspec

        now = time.monotonic()
        done = event.bytes_done >= event.bytes_total
        if event.phase != "note" and not done and now - self._last_s < _JSON_EVERY_S:
            return
        self._last_s = now
        click.echo(msgspec.json.encode(event), err=True)

    def _show(self, event: Any) -> None:  # noqa: ANN401
        key = (event.phase, event.subject)
        if key != self._key:
            self._stop()
            self._start(key, event)
        self._bar.update(self._task, completed=event.bytes_done)

    def _start(self, key: tuple[str, str], event: Any) -> None:  # noqa: ANN401
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar.start()
        self._key = key
        self._task = self._bar.add_task(f"{_VERBS[event.phase]} {event.subject}", total=event.bytes_total)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = None
        self._key = None
