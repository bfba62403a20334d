"""The command line: parse, call `yarnstore.api`, print.

    group, command, exitcodes          groups of commands, common options, exit codes
    hints                              hints of errors, as they are printed
    output, display, terminal, streams    where output goes, texts for people, what a terminal can show
    after                              what commands do after they installed something
    commands/                          one module for each command, imported when it runs
    completion, manual                 shell completion and man pages, made from the commands

A command runs no part of the engine itself.  docs/cli.md is made from the commands.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys

import click

from yarnstore import errors
from yarnstore.cli.command import common_options, invocation
from yarnstore.cli.group import Group
from yarnstore.cli.output import Output
from yarnstore.cli.streams import discard, forgive_encoding, open_closed_streams

# The sections of the help.  Each command is a module of `cli.commands`, imported when used.
SECTIONS = {
    "Get and install": (
        "fetch", "checkout", "update", "rollback", "queue", "lock", "pin", "unpin",
        "import", "export", "remove",
    ),
    "Inspect": (
        "list", "log", "outdated", "compat", "path", "run", "search", "show", "diff", "inspect",
        "identify",
    ),
    "Publish": ("publish", "registry"),
    "Maintain": ("status", "du", "stats", "gc", "adopt", "move", "fsck", "doctor"),
    "Automate": ("auto-update", "serve", "completion", "help"),
}  # fmt: skip
COMMANDS = tuple(name for names in SECTIONS.values() for name in names)


class _LazyGroup(Group):
    sections = SECTIONS

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        name = {"check": "outdated"}.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"yarnstore.cli.commands.{name.replace('-', '_')}_")
        found: click.Command = module.cli
        return found


def _show_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    # Unlike click's own option, this searches for no translations of its texts.
    if value and not context.resilient_parsing:
        from yarnstore._version import __version__

        click.echo(f"ystore, version {__version__}")
        if invocation(context).output.verbose:
            from yarnstore import machine
            from yarnstore.core.encodings.kernels import kernels

            click.echo(f"kernels: {kernels.NAME}\nthreads: {machine.count_threads()}")
        context.exit()


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="SPEC is MODEL[:VARIANT][@VERSION|@RANGE|@ALIAS], for example phi-3-mini@1.1.0.",
)
@click.option(
    "--version",
    is_flag=True,  # not eager, so that -v may follow it
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit; with -v, also the kernels and threads in use.",
)
@common_options
def cli() -> None:
    """Git for AI model files: updates are deltas, rollbacks download nothing, every byte is verified."""


def main(arguments: list[str] | None = None) -> None:
    """Run `ystore` and exit with the code for what happened."""
    _start_lightly()
    open_closed_streams()
    forgive_encoding()
    if instruction := os.environ.get("_YSTORE_COMPLETE"):
        from yarnstore.cli.completion import complete

        sys.exit(complete(cli, instruction))
    code = run(sys.argv[1:] if arguments is None else arguments)
    gc.freeze()  # the process ends, and a final garbage collection would take longer than most commands
    sys.exit(code)


def _start_lightly() -> None:
    """Leave out what libraries do when they are imported and no command needs; for a process of our own only
    (docs/decisions/0020, 0040).
    """
    # Threads of numpy's OpenBLAS spin for 30 ms before they sleep.  Unlike `os.environ`, this is not passed
    # on to programs that are started with an environment.
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        os.putenv("OPENBLAS_NUM_THREADS", "1")
    # httpx's own command line would import rich and pygments.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output ended, so nothing more is printed.
        from yarnstore.cli.exitcodes import BROKEN_PIPE

        discard(sys.stdout)
        return BROKEN_PIPE
    except OSError as error:
        # Ours are translated where they enter: this one is stdout's.
        discard(sys.stdout)
        return _fail(errors.StorageError(f"cannot write the output: {error.strerror}"), None, [])
    return code


def _run(arguments: list[str]) -> int:
    context: click.Context | None = None
    try:
        with cli.make_context("ystore", list(arguments)) as context:
            cli.invoke(context)
    except click.exceptions.NoArgsIsHelpError as fault:
        from yarnstore.cli.exitcodes import USAGE

        click.echo(fault.format_message())
        return USAGE
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as fault:
        return _fail(_usage_error(fault), context, arguments)
    except errors.YarnstoreError as error:
        return _fail(error, context, arguments)
    except (KeyboardInterrupt, click.Abort):
        hint = "downloaded data is kept; run the same command again to continue"
        return _fail(errors.CancelledError("interrupted", hint=hint), context, arguments)
    return 0


def _usage_error(fault: click.ClickException) -> errors.UsageError:
    context = getattr(fault, "ctx", None)
    hint = f"`{context.command_path} --help` shows the usage" if context is not None else ""
    return errors.UsageError(fault.format_message(), hint=hint)


def _command(arguments: list[str]) -> str:
    """Return the command in a command line, as far as it has one."""
    context = click.Context(cli, info_name="ystore")
    for word in arguments:
        group = context.command
        found = group.get_command(context, word) if isinstance(group, click.Group) else None
        if found is not None:
            context = click.Context(found, info_name=word, parent=context)
    return context.command_path


def _fail(error: errors.YarnstoreError, context: click.Context | None, arguments: list[str]) -> int:
    from yarnstore.cli.exitcodes import USAGE, exit_code

    run = invocation(context) if context is not None else None
    output = run.output if run is not None else Output()
    output.json = output.json or "--json" in arguments
    if isinstance(error, errors.UsageError) and not error.hint:
        error.hint = f"`{_command(arguments)} --help` shows the usage"
    elif run is not None and run.home is not None:
        from yarnstore.cli.hints import for_home

        error.hint = for_home(error.hint, run.home)
    output.error(error)
    return USAGE if isinstance(error, errors.UsageError) else exit_code(error)
