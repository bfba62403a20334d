"""httpx, without the command line that it brings along.

Where click, rich and pygments are installed, `import httpx` imports them all for a command of its own:
a third of the time that it takes.  It does without where that module cannot be imported.
"""

from __future__ import annotations

import sys
from typing import Final, cast

_COMMAND: Final = "httpx._main"

if "httpx" not in sys.modules:
    # None there makes the import fail (docs.python.org/3/reference/import.html, "The module cache").
    cast("dict[str, object]", sys.modules)[_COMMAND] = None

import httpx as httpx  # noqa: E402 - the line above comes first

if sys.modules.get(_COMMAND, sys) is None:
    del sys.modules[_COMMAND]
