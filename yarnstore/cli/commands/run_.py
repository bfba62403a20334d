"""`ystore run`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import NoReturn

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.output import ProgressView
from yarnstore.errors import NotFoundError, StorageError
from yarnstore.store.native import ProcessTree

_VARIABLE = "YSTORE_MODEL_PATH"
_MARK = "{path}"
# Python ignores these, and a program inherits what is ignored.
_IGNORED = ("SIGPIPE", "SIGXFSZ")


@command(
    "run",
    example="ystore run phi-3-mini -- llama-cli -m {path} -p Hello\n"
    "ystore run phi-3-mini@1.0.0 -- python serve.py",
)
@click.argument("spec")
@click.argument("words", metavar="-- COMMAND [ARGUMENT]...", nargs=-1, required=True, type=click.UNPROCESSED)
def cli(run: Invocation, spec: str, words: tuple[str, ...]) -> None:
    """Run a command with the path of a version.

    The path that `ystore path SPEC` prints is in the environment variable YSTORE_MODEL_PATH, and replaces
    {path} in the arguments.  MODEL alone means the installed version; a full SPEC means that version,
    downloaded if needed.  While the command runs, `gc` keeps the version, whatever is installed meanwhile.

    The exit code is that of the command; if it cannot be started, that of the error, such as 3 if the command
    or the version does not exist.
    """
    program = shutil.which(words[0])
    if program is None:  # before anything is downloaded
        raise NotFoundError("command", words[0], hint="give a program, as in `ystore run MODEL -- PROGRAM`")
    with ProgressView(run.output) as view:
        store = run.open_store(view)
        path = store.path(spec)
    arguments = [word.replace(_MARK, path) for word in words]
    environment = {**os.environ, _VARIABLE: path}
    if os.name == "nt":  # a replaced process would end for its caller there
        with store:
            raise click.exceptions.Exit(_call(program, arguments, environment))
    store.keep_after_exec()
    _become(program, arguments, environment)


def _become(program: str, arguments: list[str], environment: dict[str, str]) -> NoReturn:
    """Replace this process, so that signals, the terminal and the exit code are the program's own."""
    for name in _IGNORED:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(program, arguments, environment)  # noqa: S606 - what the user asks for
    except OSError as error:
        raise _cannot_run(program, error) from None


def _call(program: str, arguments: list[str], environment: dict[str, str]) -> int:
    """Run a program that ends with this process, and return its exit code.

    Ctrl-C is for the program alone.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # By its path, since Windows finds only `.exe` by a name; `.cmd` is found by `shutil.which`.
        process = subprocess.Popen(  # noqa: S603 - what the user asks for
            [program, *arguments[1:]], env=environment, **ProcessTree.OPTIONS
        )
        tree = ProcessTree(process)
        code = process.wait()
        tree.leave()
    except OSError as error:
        raise _cannot_run(program, error) from None
    finally:
        signal.signal(signal.SIGINT, before)
    return code


def _cannot_run(program: str, error: OSError) -> StorageError:
    return StorageError(f"cannot run {program}: {error.strerror}", path=program)
