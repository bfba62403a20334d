"""Frees disk space after a command installed a version and printed the result."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, TypeAlias

import click

from yarnstore.cli.command import Invocation

if TYPE_CHECKING:
    from yarnstore.api import Store
    from yarnstore.results import AutoUpdateOutcome, CheckoutResult, UpdateResult

    InstallResult: TypeAlias = CheckoutResult | UpdateResult | AutoUpdateOutcome

wait_option = click.option(
    "--no-wait",
    is_flag=True,
    help="Exit right after the install; the next gc, or `ystore serve`, frees disk space.",
)


def free_space(run: Invocation, store: Store, results: Sequence[InstallResult], *, no_wait: bool) -> None:
    """Free the disk space that installs made unneeded.

    An error or an interrupt here does not change the exit code of the command, and loses nothing.
    """
    if no_wait or not any(each.changed for each in results):
        return
    from yarnstore.errors import YarnstoreError

    try:
        sys.stdout.flush()  # so that readers of the result need not wait
        models = store.models_to_slim(*results)
        if models:
            with _terminated_as_interrupted():
                store.slim(*models)
    except KeyboardInterrupt:
        _say(run, "interrupted after the install; the next `ystore gc` frees the rest of the disk space")
    except YarnstoreError as error:
        _say(run, f"the next `ystore gc` frees disk space: {error.message}")


def _say(run: Invocation, text: str) -> None:
    if not run.output.json:
        run.output.say(text)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    import signal

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
