"""Encoding 7: a chunk that is a part of a tensor of another version, with rows and columns exchanged.

Owns the payload, which names the tensor and the part, and the exchange itself.  docs/format/encodings.md
governs it; `store/transposing` reads the tensor.  Pure.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from yarnstore.core.digest import Buffer, Sha256
from yarnstore.core.limits import MIB
from yarnstore.errors import FormatError

# Elements of any type, as unsigned integers of their width.
Elements: TypeAlias = NDArray[Any]

# Larger tensors are not transposed: a reader reads all of a tensor for each 32 MiB of the result.
TENSOR_LIMIT_BYTES: Final = 512 * MIB
# A column is in memory as a whole.
COLUMN_LIMIT_BYTES: Final = 32 * MIB
WIDTHS: Final = (1, 2, 4, 8)

_WHAT: Final = "transposed chunk"
_VERSION: Final = 1
_PAYLOAD: Final = struct.Struct("<BBHIIIQQ32s")


class TensorPart(NamedTuple):
    """A part of a transposed tensor: `start` is its first byte there.

    The tensor has `rows` × `columns` elements of `width` bytes, from `offset` of the file with this number in
    the manifest.
    """

    manifest: Sha256
    file: int
    offset: int
    rows: int
    columns: int
    width: int
    start: int = 0

    @property
    def tensor_bytes(self) -> int:
        return self.rows * self.columns * self.width

    @property
    def column_bytes(self) -> int:
        return self.rows * self.width


def may_transpose(rows: int, columns: int, width: int) -> bool:
    """Whether tensors of this shape are transposed: the limits of readers."""
    return (
        rows > 0
        and columns > 0
        and width in WIDTHS
        and rows * width <= COLUMN_LIMIT_BYTES
        and rows * columns * width <= TENSOR_LIMIT_BYTES
    )


def encode_part(part: TensorPart) -> bytes:
    """Return the payload of a part."""
    sizes = part.rows, part.columns, part.offset, part.start
    return _PAYLOAD.pack(_VERSION, part.width, 0, part.file, *sizes, part.manifest.raw)


def parse_part(payload: Buffer, plain_bytes: int) -> TensorPart:
    """Read a payload of a chunk of `plain_bytes`.  Raises: FormatError."""
    if len(payload) != _PAYLOAD.size:
        raise FormatError(_WHAT, f"has a payload of {len(payload)} bytes, not of {_PAYLOAD.size}")
    version, width, reserved, file, rows, columns, offset, start, manifest = _PAYLOAD.unpack(payload)
    if version != _VERSION or reserved:
        raise FormatError(_WHAT, f"has a payload of version {version}; this release reads {_VERSION}")
    if not may_transpose(rows, columns, width):
        why = f"is of a tensor of {rows} × {columns} elements of {width} bytes, which is not allowed"
        raise FormatError(_WHAT, why)
    part = TensorPart(
        manifest=Sha256(manifest),
        file=file,
        offset=offset,
        rows=rows,
        columns=columns,
        width=width,
        start=start,
    )
    if start % width or plain_bytes % width or start + plain_bytes > part.tensor_bytes:
        raise FormatError(_WHAT, "is not a part of its tensor")
    return part


def elements_of(data: Buffer, width: int) -> Elements:
    """Return bytes as elements.  Raises: FormatError if the last one is not whole."""
    if len(data) % width:
        raise FormatError(_WHAT, "is of a tensor that is not cut between its elements")
    return np.frombuffer(data, f"<u{width}")


def put_columns(strip: Elements, first: int, columns: int, at: int, elements: Elements) -> None:
    """Write what `elements` have of some columns of a tensor into these columns' rows of the transposed one.

    `strip` has the shape (columns of the strip, rows of the tensor), `first` is its first column; the tensor
    has `columns` in all, and `elements` follow one another in it from number `at` on.
    """
    row, column = divmod(at, columns)
    if column:
        begun = elements[: columns - column]
        _put_in_row(strip, first, row, column, begun)
        elements, row = elements[len(begun) :], row + 1
    whole = len(elements) // columns
    rows = elements[: whole * columns].reshape(whole, columns)
    strip[:, row : row + whole] = rows[:, first : first + len(strip)].T
    _put_in_row(strip, first, row + whole, 0, elements[whole * columns :])


def _put_in_row(strip: Elements, first: int, row: int, column: int, elements: Elements) -> None:
    start, stop = max(first, column), min(first + len(strip), column + len(elements))
    if start < stop:
        strip[start - first : stop - first, row] = elements[start - column : stop - column]
