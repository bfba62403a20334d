"""Output of commands: results to stdout, progress and notes to stderr.

For people on a terminal, stable lines when piped, one JSON document with `--json`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal

import click

from yarnstore.cli.display import clean, cut_middle, escape_json, fold, indented, one_line, table
from yarnstore.cli.terminal import columns, paint
from yarnstore.errors import YarnstoreError


class Output:
    """The output of one invocation; filled from the common options."""

    def __init__(self, *, json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self.verbose = verbose
        self.progress: Literal["auto", "json", "none"] = "auto"
        # Takes away a bar that is still there, before a result is printed in its place.
        self.settle: Callable[[], None] = lambda: None

    @property
    def for_people(self) -> bool:
        """Whether a person reads stdout: a terminal, unless YSTORE_OUTPUT is set."""
        wanted = os.environ.get("YSTORE_OUTPUT")
        return wanted == "people" or (wanted != "plain" and sys.stdout.isatty())

    @property
    def columns(self) -> int | None:
        """The width of the terminal in columns; None if stdout is not one, or its width is unknown."""
        return columns(sys.stdout)

    def text(self, text: str, *, hang: int | None = 4) -> None:
        """Print text for people: folded to the terminal unless `hang` is None, with its marks in colour."""
        text = clean(text)
        click.echo(paint(text if hang is None else fold(text, self.columns, hang=hang), sys.stdout))

    def report(
        self,
        value: object,
        text: Callable[[], str],
        rows: Sequence[Sequence[object]],
        *,
        hang: int | None = 4,
    ) -> None:
        """Print a text for people, and rows when piped; with -q their first column."""
        if self.for_people and not (self.json or self.quiet):
            self.settle()
            self.text(text(), hang=hang)
        else:
            self.rows(value, (), rows, "")

    def line(self, value: object, text: str) -> None:
        """Print a result that is one line and the same for everybody, such as a path."""
        if self.json:
            self.document(value)
        else:
            self.settle()
            click.echo(text)

    def done(
        self, value: object, text: Callable[[], str], row: Sequence[object], *, answer: bool = False
    ) -> None:
        """Print what was done: a sentence for people, one row when piped.

        With -q only an `answer` is printed, as when piped, such as the result of a dry run.
        """
        if self.json:
            self.document(value)
        elif self.quiet and not answer:
            return
        elif self.for_people and not self.quiet:
            self.settle()
            self.text(text())
        else:
            click.echo(_plain_row(row))

    def facts(self, value: object, text: Callable[[], str], *, answer: bool = True, hang: int = 4) -> None:
        """Print one object: `text()` for people, a name and a value a line when piped.

        With -q only an `answer` is printed, as when piped and without its reasons, not that something was
        done and all is well.
        """
        if self.json:
            self.document(value)
        elif self.quiet and not answer:
            return
        elif self.for_people and not self.quiet:
            self.settle()
            self.text(text(), hang=hang)
        else:
            from yarnstore.core.jsonable import jsonable

            for key, item in jsonable(value).items():
                if isinstance(item, list) and item and isinstance(item[0], dict):
                    for each in item:
                        click.echo(_plain_row((key, *each.values())))
                elif not (self.quiet and _are_texts(item)):
                    click.echo(_plain_row((key, item)))

    def document(self, value: object) -> None:
        """Print the one JSON document."""
        import msgspec

        from yarnstore.core.jsonable import jsonable

        data = msgspec.json.format(msgspec.json.encode(jsonable(value)), indent=2)
        self.settle()
        click.echo(escape_json(data.decode()))

    def rows(
        self, value: object, header: Sequence[str], rows: Sequence[Sequence[object]], empty: str
    ) -> None:
        """Print rows: aligned under a header for people, tab-separated when piped, names alone with -q."""
        if self.json:
            self.document(value)
        elif self.quiet:
            for row in rows:
                click.echo(_plain(row[0]))
        elif not self.for_people:
            for row in rows:
                click.echo(_plain_row(row))
        elif rows:
            click.echo(table(header, [[_plain(cell) for cell in row] for row in rows], self.columns))
        else:
            self.text(empty)

    def say(self, text: str) -> None:
        """A sentence beside the result, on stderr; silent with -q."""
        if not self.quiet:
            _tell(text)

    def error(self, error: YarnstoreError) -> None:
        """Print an error: what, why, what next."""
        if self.json:
            self.document({"error": error.as_dict()})
            return
        self.complain(error.message, error.hint)

    def complain(self, message: str, hint: str = "") -> None:
        """Say on stderr what failed and what to do next, with -q too."""
        _tell(f"error: {indented(message)}")
        if hint:
            _tell(f"  {indented(hint)}")


def _echo_err(text: str) -> None:
    """Print on stderr; a closed stderr does not stop the command."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def _tell(text: str) -> None:
    """Print a sentence on stderr; on a terminal folded, with every word whole, and its mark in colour."""
    _echo_err(paint(fold(clean(text), columns(sys.stderr), cut=False), sys.stderr))


def _plain(value: object) -> str:
    """Format a value for one cell: no tab, no line end, no terminal control characters."""
    if isinstance(value, dict):
        return ",".join(f"{_plain(key)}={_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(_plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = "" if value is None else str(value)
    return clean(text).replace("\t", " ").replace("\n", " ")


def _are_texts(value: object) -> bool:
    """Whether it is a mapping to reasons."""
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _plain_row(row: Sequence[object]) -> str:
    return "\t".join(map(_plain, row))


_VERBS = {
    "read": "reading",
    "delta": "delta",
    "download": "downloading",
    "write": "writing",
    "check": "checking",
}
_JSON_EVERY_S = 0.2


# The parts of a bar and the columns that they take, the widest first.
_BARS = (
    (64, ("bar 24", "bytes", "speed", "time")),
    (50, ("bar 10", "bytes", "speed", "time")),
    (29, ("bar 10", "bytes")),
    (5, ("percent",)),
)
_WORDS_LEAST = 30


def _bar(width: int) -> tuple[list[Any], int]:
    """The columns of a bar that fit a terminal `width` wide, and how much they leave for words."""
    from rich import progress

    taken, parts = next((bar for bar in _BARS if width - bar[0] >= _WORDS_LEAST), _BARS[-1])
    made: dict[str, Callable[[], Any]] = {
        "bar 24": lambda: progress.BarColumn(bar_width=24),
        "bar 10": lambda: progress.BarColumn(bar_width=10),
        "bytes": progress.DownloadColumn,
        "speed": progress.TransferSpeedColumn,
        "time": progress.TimeRemainingColumn,
        "percent": progress.TaskProgressColumn,
    }
    words = progress.TextColumn("{task.description}", markup=False)  # a file may be called x[/]
    return [words, *(made[part]() for part in parts)], width - 1 - taken


class ProgressView:
    """Shows progress on stderr: bars on a terminal, JSON lines if asked for, else only the notes.

    Events may come from several threads: one line for each thing that is under way.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._lock = threading.RLock()
        self._bars: Any = None
        self._tasks: dict[tuple[str, str], Any] = {}
        self._words = 0  # columns for what is done to what
        self._last_s = 0.0
        self._on_terminal = output.progress == "auto" and not output.quiet and sys.stderr.isatty()

    def __enter__(self) -> ProgressView:
        self._output.settle = self._stop
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def __call__(self, event: Any) -> None:  # noqa: ANN401 - a Progress; the module is imported late
        """Take one `Progress` event."""
        with self._lock:
            if self._output.progress == "json":
                self._json(event)
            elif event.phase == "note":
                self._stop()
                if not self._output.json:
                    self._output.say(indented(event.text))
            elif self._on_terminal and event.bytes_total:
                self._show(event)

    def _json(self, event: Any) -> None:  # noqa: ANN401
        import msgspec

        now = time.monotonic()
        done = event.bytes_done >= event.bytes_total
        if event.phase != "note" and not done and now - self._last_s < _JSON_EVERY_S:
            return
        self._last_s = now
        _echo_err(escape_json(msgspec.json.encode(event).decode()))

    def _show(self, event: Any) -> None:  # noqa: ANN401
        key = (event.phase, event.subject)
        if self._bars is None:
            self._start()
        if key not in self._tasks:
            for old in [old for old in self._tasks if old[1] == event.subject]:
                self._bars.remove_task(self._tasks.pop(old))  # its next phase takes its line
            verb = f"  {_VERBS[event.phase]} "
            words = verb + cut_middle(one_line(event.subject), max(self._words - len(verb), 3))
            self._tasks[key] = self._bars.add_task(words, total=event.bytes_total)
        self._bars.update(self._tasks[key], completed=event.bytes_done)
        if event.bytes_done >= event.bytes_total and len(self._tasks) > 1:
            self._bars.remove_task(self._tasks.pop(key))

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        parts, self._words = _bar(console.width)
        self._bars = Progress(*parts, console=console, transient=True)
        self._bars.start()

    def _stop(self) -> None:
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
            self._bars = None
            self._tasks.clear()
