"""The common part of all commands: common options, opening the store, exit codes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from yarnstore.cli.group import Command, CommonOption
from yarnstore.cli.output import Output, ProgressView

if TYPE_CHECKING:
    from yarnstore.api import Store
    from yarnstore.progress import OnProgress


class Duration(click.ParamType[float]):
    """A length of time such as 30d, in seconds."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click."""
        from yarnstore.errors import InvalidNameError
        from yarnstore.registry.windows import parse_age_s

        try:
            return parse_age_s(str(value))
        except InvalidNameError as error:
            self.fail(error.message, param, ctx)


class Size(click.ParamType[int]):
    """A size such as 50G, in bytes."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See click."""
        from yarnstore.core.sizes import parse_size
        from yarnstore.errors import InvalidNameError

        try:
            return parse_size(str(value))
        except InvalidNameError as error:
            self.fail(error.message, param, ctx)


class WholeNumber(click.IntRange):
    """A whole number in a range; click calls it a "valid integer range" in errors and help."""

    name = "integer"


class Folder(click.ParamType[str]):
    """A folder that may not exist yet.  As `click.Path`, which would search for a translation of its name."""

    name = "directory"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See click."""
        if os.path.isdir(value) and os.access(value, os.R_OK):
            return value
        return os.fsdecode(click.Path(file_okay=False).convert(value, param, ctx))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """See click."""
        return click.Path(file_okay=False).shell_complete(ctx, param, incomplete)


class Invocation:
    """One run of `ystore` with its common options."""

    def __init__(self) -> None:
        self.home: str | None = None
        self.lock_timeout_s: float | None = None
        self.offline: bool | None = None
        self.limit_rate: float | None = None
        self.connections: int | None = None
        self.registry: str | None = None
        self.output = Output()

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The store to work with, showing progress while it is open."""
        with ProgressView(self.output) as view, self.open_store(view) as store:
            yield store

    def open_store(self, progress: OnProgress | None = None) -> Store:
        """Open the store that the common options select."""
        import msgspec

        from yarnstore.api import Store
        from yarnstore.progress import ignore

        store = Store.open(self.home, progress=progress or ignore)
        store.set_network(
            offline=self.offline, limit_rate=self.limit_rate,
            connections=self.connections, registry=self.registry,
        )  # fmt: skip
        if self.lock_timeout_s is not None:
            store.settings = msgspec.structs.replace(store.settings, lock_timeout_s=self.lock_timeout_s)
        return store


def _set(apply: Callable[[Invocation, Any], None]) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(context: click.Context, _: click.Parameter, value: Any) -> None:  # noqa: ANN401
        if value is not None and value is not False:
            apply(invocation(context), value)

    return callback


def invocation(context: click.Context) -> Invocation:
    """The run that a context belongs to."""
    found = context.find_root()
    if not isinstance(found.obj, Invocation):
        found.obj = Invocation()
    run: Invocation = found.obj
    return run


def _set_home(run: Invocation, value: str) -> None:
    if not value:
        raise click.BadParameter("a path is empty; . is the current folder")
    run.home = value


def _set_lock_timeout(run: Invocation, value: float) -> None:
    if math.isnan(value):
        raise click.BadParameter("nan is not a number of seconds")
    run.lock_timeout_s = value


def _set_offline(run: Invocation, value: bool) -> None:
    run.offline = value


def _set_limit_rate(run: Invocation, value: str) -> None:
    from yarnstore.backends.wrappers import parse_rate

    run.limit_rate = parse_rate(value)


def _set_connections(run: Invocation, value: int) -> None:
    run.connections = value


def _set_registry(run: Invocation, value: str) -> None:
    run.registry = value


def _set_json(run: Invocation, value: bool) -> None:
    run.output.json = value


def _set_quiet(run: Invocation, value: bool) -> None:
    run.output.quiet = value


def _set_verbose(run: Invocation, value: bool) -> None:
    run.output.verbose = value


def _set_progress(run: Invocation, value: Any) -> None:  # noqa: ANN401
    run.output.progress = value


def _show_help(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(context.get_help(), color=context.color)
        context.exit()


# Made once for all commands.  `--help` is among them, since click would search for translations of its own.
_OPTIONS = (
    click.Option(
        ["-h", "--help"], is_flag=True, is_eager=True, expose_value=False, callback=_show_help,
        help="Show this message and exit.",
    ),
    CommonOption(
        ["--home"], type=Folder(), metavar="DIR", expose_value=False,
        callback=_set(_set_home),
        help="Folder of the store (default: $YSTORE_HOME, else in the user's data folder).",
    ),
    CommonOption(
        ["--lock-timeout"], type=click.FloatRange(min=0), metavar="SECONDS", expose_value=False,
        callback=_set(_set_lock_timeout), help="Time to wait if another process uses the store.",
    ),
    CommonOption(
        ["--offline"], is_flag=True, expose_value=False, callback=_set(_set_offline),
        help="Do not use the network (YSTORE_OFFLINE=1).",
    ),
    CommonOption(
        ["--limit-rate"], metavar="RATE", expose_value=False, callback=_set(_set_limit_rate),
        help="Limit downloads to RATE bytes per second, such as 5M or 500k.",
    ),
    CommonOption(
        ["--connections"], type=WholeNumber(1, 64), metavar="N", expose_value=False,
        callback=_set(_set_connections), help="Number of parallel connections per download.",
    ),
    CommonOption(
        ["--json"], is_flag=True, expose_value=False, callback=_set(_set_json),
        help="Print one JSON document on stdout, errors included.",
    ),
    CommonOption(
        ["--progress"], type=click.Choice(["auto", "json", "none"]), expose_value=False,
        callback=_set(_set_progress), help="Show progress on stderr: bars on a terminal, or JSON lines.",
    ),
    CommonOption(
        ["-q", "--quiet"], is_flag=True, expose_value=False, callback=_set(_set_quiet),
        help="Print only results: paths, names in lists, and what a dry run would do.",
    ),
    CommonOption(
        ["-v", "--verbose"], is_flag=True, is_eager=True, expose_value=False, callback=_set(_set_verbose),
        help="Print more details.",
    ),
)  # fmt: skip


registry_option = click.option(
    "--registry", metavar="NAME", expose_value=False, callback=_set(_set_registry),
    help="Use only this registry.",
)  # fmt: skip


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that all commands take."""
    # Click reverses this list: the options of the command come before the common ones.
    own = getattr(function, "__click_params__", [])
    function.__click_params__ = [*reversed(_OPTIONS), *own]  # type: ignore[attr-defined]
    return function


def command(name: str, *, example: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A command with the common options, an example in its help, and the run as its first argument."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @click.pass_context
        def run(context: click.Context, /, *args: Any, **values: Any) -> Any:  # noqa: ANN401
            return function(invocation(context), *args, **values)

        run.__doc__ = function.__doc__
        run.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        common_options(run)
        examples = "\n".join(f"  {line}" for line in example.strip().splitlines())
        epilog = f"\b\nExample:\n{examples}"
        made: click.Command = click.command(name, cls=Command, epilog=epilog)(run)
        return made

    return decorate
