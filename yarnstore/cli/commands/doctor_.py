"""`ystore doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.display import indented
from yarnstore.cli.output import ProgressView
from yarnstore.errors import ConfigError
from yarnstore.progress import plural

if TYPE_CHECKING:
    from yarnstore.results import DoctorResult

_SICK = 1
_MARKS = {"ok": "  ok   ", "note": "  note ", "wrong": "WRONG  "}


@command("doctor", example="ystore doctor")
def cli(run: Invocation) -> None:
    """Check this machine for problems and suggest fixes.

    Checks the store, its permissions, the file system, disk space, the clock, settings and registries,
    and runs a quick fsck.  Exits with 1 if it finds a problem.
    """
    try:
        with run.store() as store:
            found = store.examine()
    except ConfigError:
        from yarnstore.api import Store

        with ProgressView(run.output) as view:
            found = Store.doctor(run.home, progress=view)
    shown = [check for check in found.checks if check.status == "wrong" or not run.output.quiet]
    rows = [(check.name, check.status, check.what, check.mend) for check in shown]
    run.output.report(found, lambda: _text(found), rows, hang=9)
    if found.wrong:
        raise click.exceptions.Exit(_SICK)


def _text(found: DoctorResult) -> str:
    lines = []
    for check in found.checks:
        lines.append(f"{_MARKS[check.status]}{check.name}: {indented(check.what, ' ' * 9)}")
        if check.mend:
            lines.append(f"         {indented(check.mend, ' ' * 9)}")
    if found.wrong:
        lines.append(f"{plural(found.wrong, 'problem')} found")
    else:
        lines.append("no problems found")
    return "\n".join(lines)
