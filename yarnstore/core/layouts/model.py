"""A layout: the tensors of a file and their offsets.

Owns `Source`, `Tensor` and `Layout`, and the check of every layout, whether read from a file's header or from
a manifest.  docs/format/chunking.md governs it.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from yarnstore.core.layouts.elements import ElementType
from yarnstore.core.layouts.limits import (
    ELEMENTS_LIMIT,
    EXTENT_LIMIT,
    LAYOUT_LIMIT_TENSORS,
    RANK_LIMIT,
    TENSOR_NAME_LIMIT_CHARS,
)
from yarnstore.errors import FormatError

# Control and invisible characters and lone surrogates, which could forge a line on a terminal or cannot be
# encoded.  A fixed list, so that all versions of Python accept the same manifests.
_UNSHOWABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


class Source(Protocol):
    """Random access to a file's bytes; `read` returns fewer than requested only at the end."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class BytesSource:
    """A source over bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


class Tensor(NamedTuple):
    """`shape` has its slowest dimension first, unless the file is in Fortran order; offset and length
    are bytes in the file."""

    name: str
    dtype: ElementType
    shape: tuple[int, ...]
    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Layout:
    """Tensors sorted by offset, without overlaps or duplicate names, all within the file."""

    format: str
    tensors: tuple[Tensor, ...]


def count_elements(shape: Sequence[int], what: str) -> int:
    """Return the product of `shape`.

    Raises: FormatError if a dimension is negative or the product overflows.
    """
    if len(shape) > RANK_LIMIT:
        raise FormatError(what, f"has a tensor of {len(shape)} dimensions; at most {RANK_LIMIT} are read")
    count = 1
    for extent in shape:
        if not 0 <= extent <= EXTENT_LIMIT:
            raise FormatError(
                what, f"has a tensor with a dimension of {extent:#x}; the limit is {EXTENT_LIMIT:#x}"
            )
        count *= extent
        if count > ELEMENTS_LIMIT:
            raise FormatError(what, f"has a tensor of more than {ELEMENTS_LIMIT:#x} elements")
    return count


def make_layout(name: str, tensors: Iterable[Tensor], size_bytes: int) -> Layout:
    """Check and sort `tensors` of the format `name` in a file of `size_bytes`.

    Of tensors that share all their bytes (tied weights), only the first is in the layout.

    Raises: FormatError if tensors overlap partly, exceed the file, have the same name or an unprintable one,
    or have a length that contradicts their shape.
    """
    checked: list[Tensor] = []
    names: set[str] = set()
    for tensor in tensors:
        title, dtype, shape, offset, length = tensor
        if len(checked) >= LAYOUT_LIMIT_TENSORS:
            raise FormatError(name, f"has more than {LAYOUT_LIMIT_TENSORS} tensors")
        if not 0 < len(title) <= TENSOR_NAME_LIMIT_CHARS:
            raise FormatError(
                name, f"has a tensor name of {len(title)} characters, not of 1 to {TENSOR_NAME_LIMIT_CHARS}"
            )
        if _UNSHOWABLE.search(title):
            raise FormatError(name, f"has a control character in the tensor name {title[:80]!r}")
        if title in names:
            raise FormatError(name, f"has two tensors named {title[:80]!r}")
        names.add(title)
        if length != dtype.bytes_for(count_elements(shape, name)):
            why = f"has {length} bytes for the tensor {title[:80]!r}, which its shape contradicts"
            raise FormatError(name, why)
        if offset < 0 or offset + length > size_bytes:
            why = f"has the tensor {title[:80]!r} outside of the file"
            raise FormatError(name, why, is_cut=offset >= 0)
        checked.append(tensor)
    # Stable, so tied tensors keep their order.  An empty tensor precedes one that starts at the same offset.
    checked.sort(key=_extent)
    kept: list[Tensor] = []
    end = 0
    last: Tensor | None = None
    for tensor in checked:
        if tensor.offset < end:
            if last is not None and _extent(last) == _extent(tensor):
                continue
            raise FormatError(name, f"has overlapping tensors at byte {tensor.offset}")
        kept.append(tensor)
        end = tensor.offset + tensor.length
        last = tensor
    return Layout(name, tuple(kept))


def _extent(tensor: Tensor) -> tuple[int, int]:
    return tensor.offset, tensor.length
