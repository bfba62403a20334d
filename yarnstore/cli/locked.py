"""Options of commands that use a lock file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_OPTIONS = (
    click.option("--locked", is_flag=True, help="Use exactly the versions in ystore.lock."),
    click.option(
        "--file",
        "lock_file",
        type=click.Path(dir_okay=False),
        default="ystore.lock",
        metavar="FILE",
        show_default=True,
        help="Lock file for --locked.",
    ),
)


def locked_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--locked` and `--file`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
