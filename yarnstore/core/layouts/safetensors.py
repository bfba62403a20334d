"""safetensors: a length, a JSON header, and the tensors.

https://github.com/huggingface/safetensors#format, with a lower limit on the header.  Gaps between tensors,
which the specification forbids, are accepted.  Pure.
"""

from __future__ import annotations

from typing import Final

import msgspec

from yarnstore.core.layouts.elements import ELEMENT_TYPES
from yarnstore.core.layouts.limits import HEADER_LIMIT_BYTES, JSON_LIMIT_COMMAS, LAYOUT_LIMIT_TENSORS
from yarnstore.core.layouts.model import Layout, Source, Tensor, make_layout
from yarnstore.core.layouts.window import ReadWindow
from yarnstore.errors import FormatError

NAME: Final = "safetensors"

_RENAMED: Final = {"F4": "f4_e2m1"}
_DTYPES: Final = {
    spelled: ELEMENT_TYPES[_RENAMED.get(spelled, spelled.lower())]
    for spelled in (
        "BOOL", "F4", "F6_E2M3", "F6_E3M2", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
        "U8", "I8", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64",
    )
}  # fmt: skip


class _Entry(msgspec.Struct, gc=False):
    # Optional, and strings too, because `__metadata__` is decoded as one: a map of any keys to strings.
    dtype: str | None = None
    shape: tuple[int, ...] | str | None = None
    data_offsets: tuple[int, int] | str | None = None


_HEADER = msgspec.json.Decoder(dict[str, _Entry])


def parse_safetensors(source: Source) -> Layout:
    """Return the layout of a safetensors file.  Raises: FormatError."""
    window = ReadWindow(source, NAME)
    header_bytes = int.from_bytes(window.take(0, 8), "little")
    if header_bytes > HEADER_LIMIT_BYTES:
        raise FormatError(
            NAME, f"has a header of {header_bytes} bytes; at most {HEADER_LIMIT_BYTES} are read"
        )
    header = window.take(8, header_bytes)
    # Bounds what the decoder allocates.
    if header.count(b",") > JSON_LIMIT_COMMAS or header.count(b"{") > 2 * LAYOUT_LIMIT_TENSORS:
        raise FormatError(
            NAME, f"has a header of more than {JSON_LIMIT_COMMAS} values or {LAYOUT_LIMIT_TENSORS} tensors"
        )
    try:
        entries = _HEADER.decode(header)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise FormatError(NAME, f"has a header that cannot be read: {str(error)[:120]}") from None
    entries.pop("__metadata__", None)
    data_at = 8 + header_bytes
    tensors = []
    for name, entry in entries.items():
        dtype = _DTYPES.get(entry.dtype or "")
        shape, offsets = entry.shape, entry.data_offsets
        if dtype is None or not isinstance(shape, tuple) or not isinstance(offsets, tuple):
            raise FormatError(NAME, f"has a tensor it does not describe: {name[:80]!r}")
        begin, end = offsets
        if begin < 0:
            raise FormatError(NAME, "has a negative offset")
        tensors.append(Tensor(name, dtype, shape, data_at + begin, end - begin))
    return make_layout(NAME, tensors, window.size)
