"""A layout as the JSON of a manifest's `layout` field.

    {"format": "safetensors", "tensors": [["encoder.weight", "bf16", [384, 384], 21504], …]}

A tensor has a name, an element type, a shape and an offset; its length follows from type and shape.
docs/format/manifest.md governs it.  Pure.
"""

from __future__ import annotations

import re
from typing import Final

from yarnstore.core.layouts.elements import element_type
from yarnstore.core.layouts.limits import LAYOUT_LIMIT_TENSORS
from yarnstore.core.layouts.model import Layout, Tensor, count_elements, make_layout
from yarnstore.errors import FormatError

WHAT: Final = "layout"
_FORMAT = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def layout_to_json(layout: Layout) -> dict[str, object]:
    """Return the layout as integers, strings, lists and dicts."""
    return {
        "format": layout.format,
        "tensors": [
            [name, dtype.name, list(shape), offset] for name, dtype, shape, offset, _ in layout.tensors
        ],
    }


def layout_from_json(value: object, size_bytes: int) -> Layout:
    """Return the layout of a file of `size_bytes` from the manifest's `value`; unknown keys are ignored.

    Raises: FormatError, also for an element type of a later release; callers that can do without a layout
    ignore the error.
    """
    if not isinstance(value, dict):
        raise FormatError(WHAT, "is not an object")
    name, rows = value.get("format"), value.get("tensors")
    if not isinstance(name, str) or not _FORMAT.fullmatch(name):
        raise FormatError(WHAT, "has no format")
    if not isinstance(rows, list) or len(rows) > LAYOUT_LIMIT_TENSORS:
        raise FormatError(WHAT, f"has no list of up to {LAYOUT_LIMIT_TENSORS} tensors")
    tensors = [_parse_row(row) for row in rows]
    layout = make_layout(name, tensors, size_bytes)
    # A layout has one form: sorted, and without tensors that a reader drops.
    if len(layout.tensors) != len(tensors) or any(map(_is_other, layout.tensors, tensors)):
        raise FormatError(WHAT, "has tensors out of order, or in the same place")
    return layout


def _is_other(one: Tensor, other: Tensor) -> bool:
    return one is not other


def _parse_row(row: object) -> Tensor:
    if not isinstance(row, list) or len(row) != 4:
        raise FormatError(WHAT, "has a tensor that is not [name, type, shape, offset]")
    name, kind, shape, offset = row
    if not isinstance(name, str) or not isinstance(kind, str):
        raise FormatError(WHAT, "has a tensor whose name or type is not text")
    if type(offset) is not int or not isinstance(shape, list) or not all(type(n) is int for n in shape):
        raise FormatError(WHAT, f"has the tensor {name[:80]!r} with a shape or offset that is not integers")
    dtype = element_type(kind)
    return Tensor(name, dtype, tuple(shape), offset, dtype.bytes_for(count_elements(shape, WHAT)))
