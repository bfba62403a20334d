"""Both kernels of the encodings, and the encodings with one of them."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from yarnstore.core.encodings import mapped, numpy_kernels
from yarnstore.core.encodings.transforms import VERSION, Kernels

_USERS = [
    mapped.__name__,
    *(
        f"yarnstore.core.encodings.{name}"
        for name in ("streams", "planes", "delta", "blocks", "guess", "symbols")
    ),
]


def c_kernels() -> ModuleType | None:
    """The C kernels, or None if they were not built, or from other sources."""
    try:
        found = importlib.import_module("yarnstore.core.encodings._kernels")
    except ImportError:
        return None
    return found if found.VERSION == VERSION else None


ALL: list[Kernels] = [kernels for kernels in (numpy_kernels, c_kernels()) if kernels is not None]


@contextmanager
def encodings_with(kernels: Kernels) -> Iterator[None]:
    """The encodings use these kernels in the block."""
    modules = [sys.modules[name] for name in _USERS]
    before = [module.kernels for module in modules]
    try:
        for module in modules:
            assert isinstance(module, types.ModuleType)
            module.kernels = kernels
        yield
    finally:
        for module, old in zip(modules, before, strict=True):
            module.kernels = old
