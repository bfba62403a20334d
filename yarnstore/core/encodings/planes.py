"""Encoding 2, `planes`: numbers split into byte planes, the plane of exponents Huffman-coded.

Owns: splitting arrays into planes and joining them.  Governed by docs/format/encodings.md.
The idea of separating exponents from mantissas is ZipNN's (arXiv:2411.05239).

    offset  bytes  field
    0       1      format of the payload, 1
    1       1      width: 2, 4 or 8 bytes per element
    2       1      phase: bytes before the first element, 0 … width − 1
    3       …      stream table and streams: plane 0 (least significant) … plane width − 1, rest

With n = (plain length − phase) // width elements, little-endian unsigned, each rotated left by one
bit (so that the sign is lowest and the exponent has the top byte to itself), plane i holds byte i of
every element: n bytes.  `rest` has the bytes outside elements: the phase bytes before the first,
then the plain length − phase − n · width bytes after the last.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from yarnstore.core.encodings.streams import (
    Buffer,
    Bytes,
    check_plain_length,
    fault,
    pack_streams,
    scratch,
    unpack_streams,
)

FORMAT: Final = 1
WIDTHS: Final = (2, 4, 8)


def encode_planes(data: Buffer, width: int, phase: int = 0) -> bytes | None:
    """The payload, or None when it would not be smaller than `data`; `width` is 2, 4 or 8 bytes."""
    if width not in WIDTHS or not 0 <= phase < width:
        raise ValueError(f"no planes of width {width} at phase {phase}")
    count = max(0, len(data) - phase) // width
    if not count:
        return None
    end = phase + count * width
    elements = np.frombuffer(data, f"<u{width}", count, phase)
    turned = scratch.take("a", count, f"u{width}")
    top = scratch.take("b", count, f"u{width}")
    np.left_shift(elements, 1, out=turned)
    np.right_shift(elements, 8 * width - 1, out=top)
    np.bitwise_or(turned, top, out=turned)
    rest = np.frombuffer(bytes(data[:phase]) + bytes(data[end:]), np.uint8)
    parts = pack_streams([*((plane, ()) for plane in split_planes(turned)), (rest, ())])
    payload = b"".join([bytes((FORMAT, width, phase)), *parts])
    return payload if len(payload) < len(data) else None


def decode_planes(payload: Buffer, plain_length: int) -> memoryview:
    """The chunk's `plain_length` bytes.  Raises FormatError."""
    check_plain_length(plain_length)
    view = memoryview(payload)
    if len(view) < 3 or view[0] != FORMAT or view[1] not in WIDTHS or view[2] >= view[1]:
        raise fault("has an unknown planes header")
    width, phase = view[1], view[2]
    count = max(0, plain_length - phase) // width
    *planes, rest = unpack_streams(view[3:], [count] * width + [plain_length - count * width])
    turned = scratch.take("a", count, f"u{width}")
    top = scratch.take("b", count, f"u{width}")
    join_planes(planes, turned)
    np.left_shift(turned, 8 * width - 1, out=top)
    np.right_shift(turned, 1, out=turned)
    before = min(phase, rest.size)
    plain = np.empty(plain_length, np.uint8)
    end = before + count * width
    np.bitwise_or(turned, top, out=plain[before:end].view(f"<u{width}"))
    plain[:before] = rest[:before]
    plain[end:] = rest[before:]
    return plain.data


def split_planes(elements: NDArray[Any], name: str = "plane") -> list[Bytes]:
    """Return the byte planes of an unsigned array in scratch, least significant first.

    Overwrites `elements`.
    """
    width = elements.itemsize
    planes = []
    for i in range(width):
        plane = scratch.take(f"{name}{i}", elements.size)
        np.copyto(plane, elements, casting="unsafe")  # truncates: the fast way to take the low byte
        planes.append(plane)
        if i + 1 < width:
            np.right_shift(elements, 8, out=elements)
    return planes


def join_planes(planes: list[Bytes], out: NDArray[Any]) -> None:
    """The inverse of `split_planes`, into `out`."""
    wide = scratch.take("wide", out.size, f"u{out.itemsize}")
    np.copyto(out, planes[-1])
    for plane in reversed(planes[:-1]):
        np.left_shift(out, 8, out=out)
        np.copyto(wide, plane)
        np.bitwise_or(out, wide, out=out)
