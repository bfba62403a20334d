"""NumPy's `.npy`: a short text header and one array.

https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.  The header is a Python literal of one
fixed form, which is matched and never evaluated.  Big-endian, text, record and object arrays have no layout.
Pure.
"""

from __future__ import annotations

import re
from typing import Final

from yarnstore.core.layouts.elements import ELEMENT_TYPES
from yarnstore.core.layouts.limits import NPY_HEADER_LIMIT_BYTES
from yarnstore.core.layouts.model import Layout, Source, Tensor, count_elements, make_layout
from yarnstore.core.layouts.window import ReadWindow
from yarnstore.errors import FormatError

NAME: Final = "npy"
MAGIC: Final = b"\x93NUMPY"
# An `.npy` file does not name its array.
ARRAY_NAME: Final = "array"

_DTYPES: Final = {
    spelled: ELEMENT_TYPES[name]
    for spelled, name in (
        *((f"<{letter}{width}", f"{letter}{8 * width}") for letter in "fiu" for width in (2, 4, 8)),
        *((f"|{letter}1", f"{letter}8") for letter in "iu"),
        ("|b1", "bool"), ("<c8", "c64"), ("<c16", "c128"),
    )
}  # fmt: skip
_DESCR = re.compile(r"""['"]descr['"] *: *['"]([^'"]{2,16})['"]""")
_ORDER = re.compile(r"""['"]fortran_order['"] *: *(?:True|False)""")
_SHAPE = re.compile(r"""['"]shape['"] *: *\(([0-9L, ]*)\)""")
_FORM = re.compile(r"\{ *#(?: *, *#){2} *,? *\}[ \n]*")


def parse_npy(source: Source) -> Layout:
    """Return the layout of an `.npy` file.  Raises: FormatError."""
    window = ReadWindow(source, NAME)
    return make_layout(NAME, [read_array(window, 0, window.size, ARRAY_NAME)], window.size)


def read_array(window: ReadWindow, offset: int, length: int, name: str) -> Tensor:
    """Return the array of the `.npy` file in `length` bytes at `offset`.  Raises: FormatError."""
    head = window.take(offset, 12)
    if head[:6] != MAGIC or head[6] not in (1, 2, 3) or head[7] != 0:
        raise FormatError(NAME, "does not begin with its magic bytes")
    at, header_bytes = (10, head[8:10]) if head[6] == 1 else (12, head[8:12])
    text_bytes = int.from_bytes(header_bytes, "little")
    if text_bytes > NPY_HEADER_LIMIT_BYTES:
        raise FormatError(
            NAME, f"has a header of {text_bytes} bytes; at most {NPY_HEADER_LIMIT_BYTES} are read"
        )
    text = window.take(offset + at, text_bytes).decode("latin-1")
    descr, order, shape = _DESCR.search(text), _ORDER.search(text), _SHAPE.search(text)
    if descr is None or order is None or shape is None:
        raise FormatError(NAME, "has a header without descr, fortran_order or shape")
    # The rest without the three fields shows that there are no others.
    left = text
    for field in (descr, order, shape):
        left = left.replace(field.group(), "#", 1)
    if not _FORM.fullmatch(left):
        raise FormatError(NAME, "has a header with unknown fields")
    dtype = _DTYPES.get(descr.group(1))
    if dtype is None:
        raise FormatError(NAME, f"has elements of the unknown type {descr.group(1)!r}")
    extents = _parse_shape(shape.group(1))
    data_bytes = dtype.bytes_for(count_elements(extents, NAME))
    if at + text_bytes + data_bytes > length:
        raise FormatError(NAME, "ends before the end of its data")
    return Tensor(name, dtype, extents, offset + at + text_bytes, data_bytes)


def _parse_shape(text: str) -> tuple[int, ...]:
    parts = [part.strip(" ") for part in text.split(",")]
    if parts[-1] == "":
        parts.pop()
    elif len(parts) == 1:
        raise FormatError(NAME, "has a shape that is not a tuple")
    extents = []
    for part in parts:
        digits = part.removesuffix("L")  # Python 2 writes long integers with an L
        if not digits.isdecimal() or len(digits) > 19:
            raise FormatError(NAME, "has a shape with something other than numbers")
        extents.append(int(digits))
    return tuple(extents)
