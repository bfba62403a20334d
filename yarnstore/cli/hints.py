"""Hints of errors, as the command line prints them; imported when a command failed."""

from __future__ import annotations

import re

from yarnstore.store.native import quoted


def for_home(hint: str, home: str) -> str:
    """Return a hint whose commands, typed as they stand, act on the store at `home`."""
    command = f"ystore --home {quoted(home)} "
    return re.sub(r"(?<![\w/.-])ystore (?=[a-z])", lambda _: command, hint)
