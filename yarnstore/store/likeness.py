"""How alike a version that is being published and a stored one may be, found with little reading.

Types and shapes are known from the manifest; of a few tensors the sketches of `core/sketch` are compared.
A wrong answer costs bytes and not correctness.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from yarnstore.core.manifest import Manifest
from yarnstore.core.pairing import file_layout
from yarnstore.core.sketch import Floats
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.store.contents import AnyContent, Numbers, StoredContent, iter_large
from yarnstore.store.matching import Names
from yarnstore.store.source_files import SourceFile

# Tensors of the new version that are compared.
_TENSORS: Final = 8
# Tensors of the stored version, of the same type and shape, that one without a namesake is compared with.
_OTHERS: Final = 32


def comparable_bytes(sources: Sequence[SourceFile], tensors: Sequence[Numbers], base: Manifest) -> int:
    """Return how many bytes of the files may have a counterpart in `base`: large tensors by type and shape or
    by type and length of their rows, files without any by their path or its suffix.

    `tensors` are the large ones of `sources`.
    """
    kinds: set[object] = set()
    names: set[str] = set()
    for file in base.files:
        layout = file_layout(file)
        for item in iter_large(file.path, layout.tensors if layout is not None else ()):
            kinds |= {item.kind, _row_kind(item)}
        names |= {file.path, _suffix(file.path)}
    found = sum(item.tensor.length for item in tensors if {item.kind, _row_kind(item)} & kinds)
    with_tensors = {item.path for item in tensors}
    for source in sources:
        if source.path not in with_tensors and {source.path, _suffix(source.path)} & names:
            found += source.size_bytes
    return found


def likeness(ours: AnyContent, theirs: StoredContent) -> float:
    """Return the mean correlation, 0 to 1, of the signs of a few tensors with those of their counterparts;
    0 without large tensors.

    Raises: StorageError.
    """
    names = Names(theirs.tensors)
    step = max(1, len(ours.tensors) // _TENSORS)
    found = []
    for item in ours.tensors[step // 2 :: step]:
        one = _sketch(ours, item)
        if one is None:
            continue
        named = names.find(item)
        others = [named] if named is not None else [o for o in theirs.tensors if o.kind == item.kind]
        sketches = [_sketch(theirs, other) for other in others[:_OTHERS]]
        found.append(max((float(np.dot(one, other)) for other in sketches if other is not None), default=0.0))
    return max(0.0, sum(found) / len(found)) if found else 0.0


def _sketch(content: AnyContent, item: Numbers) -> Floats | None:
    with contextlib.suppress(IntegrityError, NotFoundError):
        return content.sketch(item)
    return None


def _row_kind(item: Numbers) -> tuple[str, int]:
    """Type and row length; of a tensor without rows its kind decides."""
    return item.tensor.dtype.name, item.row_bytes or -1


def _suffix(path: str) -> str:
    """The suffix with its dot, so that it is not taken for a path."""
    return "/." + path.rpartition(".")[2]
