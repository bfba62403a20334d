"""The Python API: `Store`, composed of one part for each group of operations."""

from __future__ import annotations

from yarnstore.api.base import AnyPath
from yarnstore.api.store import Store

__all__ = ["AnyPath", "Store"]
