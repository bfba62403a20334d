"""Git for AI model files on the machine that runs them.

from yarnstore import Store

store = Store.open()
store.checkout("phi-3-mini@1.1.0")
print(store.path("phi-3-mini"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from yarnstore.errors import YarnstoreError

if TYPE_CHECKING:
    from yarnstore._version import __version__
    from yarnstore.aio import AsyncStore
    from yarnstore.api import Store
    from yarnstore.progress import Progress

__all__ = ["AsyncStore", "Progress", "Store", "YarnstoreError", "__version__"]

_HOMES = {
    "AsyncStore": "yarnstore.aio",
    "Progress": "yarnstore.progress",
    "Store": "yarnstore.api",
    "__version__": "yarnstore._version",
}


def __getattr__(name: str) -> object:
    """Import the API when it is first asked for: `ystore --version` needs none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
