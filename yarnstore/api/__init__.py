"""The Python API: `Store`, put together from parts by meaning."""

from __future__ import annotations

from yarnstore.api.base import AnyPath
from yarnstore.api.store import Store

__all__ = ["AnyPath", "Store"]
