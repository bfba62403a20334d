"""The Python API: `Store`, put together from parts by meaning."""

from __future__ import annotations

from yarnstore.api.store import AnyPath, Store

__all__ = ["AnyPath", "Store"]
