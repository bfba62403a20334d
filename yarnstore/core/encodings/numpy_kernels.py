"""The transforms in numpy: the reference, and what runs where the C kernels are not built.

Owns: each transform, chunk by chunk, in buffers that each thread keeps.  What each function takes and
returns is in `transforms`; both give the same bytes.

The order of the elements is that of one stable sort over the whole chunk; it is computed in tiles that
fit the second-level cache, because a single argsort of 512 Ki keys spends half its time on page faults.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from yarnstore.core import limits
from yarnstore.core.encodings.transforms import RADIX, BlockLayout, Buffer, Element, Keys

NAME: Final = "numpy"

_Bytes = NDArray[np.uint8]
# numpy's radix argsort holds two arrays of 8-byte indices: 128 Ki keys make 2 MiB.
_TILE: Final = 1 << 17


class _Scratch(threading.local):
    """Per-thread named buffers, reused to avoid page faults for each chunk."""

    def __init__(self) -> None:
        self._buffers: dict[str, _Bytes] = {}

    def take(self, name: str, count: int, dtype: str = "u1") -> NDArray[Any]:
        """Return an uninitialised array of `count` items, valid until the next `take` of the same `name`."""
        size = count * int(dtype[1])
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[name] = np.empty(max(size, limits.CHUNK_MAX_BYTES), np.uint8)
        return buffer[:size].view(f"<{dtype}")


_scratch = _Scratch()


# --- encoding 2 ------------------------------------------------------------------------------------


def planes_split(data: Buffer, width: int, phase: int) -> Sequence[Buffer]:
    """The byte planes of the elements, rotated left by one bit."""
    count = max(0, len(data) - phase) // width
    elements = np.frombuffer(data, f"<u{width}", count, phase if count else 0)
    turned = _scratch.take("a", count, f"u{width}")
    top = _scratch.take("b", count, f"u{width}")
    np.left_shift(elements, 1, out=turned)
    np.right_shift(elements, 8 * width - 1, out=top)
    np.bitwise_or(turned, top, out=turned)
    return _views(_split_planes(turned))


def planes_join(streams: Sequence[Buffer], plain_length: int, width: int, phase: int) -> Buffer:
    """The chunk of these planes and of the bytes before and after them."""
    *planes, rest = map(_array, streams)
    count = max(0, plain_length - phase) // width
    turned = _scratch.take("a", count, f"u{width}")
    top = _scratch.take("b", count, f"u{width}")
    _join_planes(planes, turned)
    np.left_shift(turned, 8 * width - 1, out=top)
    np.right_shift(turned, 1, out=turned)
    before = min(phase, rest.size)
    plain = np.empty(plain_length, np.uint8)
    end = before + count * width
    np.bitwise_or(turned, top, out=plain[before:end].view(f"<u{width}"))
    plain[:before] = rest[:before]
    plain[end:] = rest[before:]
    return plain.data


# --- encoding 3, numbers ---------------------------------------------------------------------------


def key_counts(base: Buffer, element: Element, count: int, step: int) -> list[int]:
    """How often each exponent occurs in a sample."""
    # The sample alone: a copy of all keys would take as long as sorting them.
    old = np.frombuffer(base, f"<u{element.width}", count)[::step]
    return _counts(_exponents(old, element))


def delta_split(
    data: Buffer, base: Buffer, element: Element, keys: Keys
) -> tuple[Sequence[Buffer], list[int]]:
    """The streams of the difference, and where the elements of each key end."""
    width = element.width
    count = min(len(data), len(base)) // width
    old = np.frombuffer(base, f"<u{width}", count)
    steps = _scratch.take("a", count, f"u{width}")
    np.subtract(np.frombuffer(data, f"<u{width}", count), old, out=steps)
    _zigzag(steps)
    low, high, whole = keys
    if low == high:
        return _views(_split_planes(steps)), []
    order = _KeyOrder(_clip(_exponents(old, element), low, high), low, high)
    ordered = _scratch.take("b", count, f"u{width}")
    order.apply(steps, ordered)
    planes = _split_planes(ordered)
    if width == 2 and not whole:
        planes[:1] = _split_nibbles(planes[0])
    return _views(planes), order.cuts


def delta_join(
    streams: Sequence[Buffer], base: Buffer, plain_length: int, element: Element, keys: Keys
) -> Buffer:
    """The chunk of these streams."""
    *planes, rest = map(_array, streams)
    width = element.width
    count = min(plain_length, len(base)) // width
    low, high, whole = keys
    if low < high and width == 2 and not whole:
        planes[:2] = [_join_nibbles(planes[0], planes[1], count)]
    steps = _scratch.take("a", count, f"u{width}")
    _join_planes(planes, steps)
    old = np.frombuffer(base, f"<u{width}", count)
    if low < high:
        order = _KeyOrder(_clip(_exponents(old, element), low, high), low, high)
        unsorted = _scratch.take("b", count, f"u{width}")
        order.undo(steps, unsorted)
        steps = unsorted
    _unzigzag(steps)
    plain = np.empty(plain_length, np.uint8)
    end = count * width
    np.add(steps, old, out=plain[:end].view(f"<u{width}"))
    plain[end:] = rest
    return plain.data


class _KeyOrder:
    """All elements with key `low` first, then those with `low` + 1 … `high`, each in their old order.

    Every one of `keys` (uint8) lies in `low` … `high`.
    """

    def __init__(self, keys: _Bytes, low: int, high: int) -> None:
        borders = np.arange(low, high + 2).clip(max=255).astype(np.uint8)
        self._orders = []
        edges = []
        for start in range(0, keys.size, _TILE):
            tile = keys[start : start + _TILE]
            order = tile.argsort(kind="stable")
            edge = tile.searchsorted(borders, sorter=order)
            edge[-1] = tile.size
            self._orders.append(order)
            edges.append(edge)
        counts = np.diff(np.array(edges, np.int64).reshape(len(edges), borders.size)).T
        ends = counts.ravel().cumsum().reshape(counts.shape)
        self.cuts: list[int] = ends[:-1, -1].tolist() if edges else [0] * (high - low)
        # Per tile and key: where its run begins and ends within the sorted tile, and begins overall.
        self._runs = [
            [run for run in zip(edge, edge[1:], starts, strict=False) if run[0] < run[1]]
            for edge, starts in zip((e.tolist() for e in edges), (ends - counts).T.tolist(), strict=True)
        ]

    def apply(self, values: NDArray[Any], out: NDArray[Any]) -> None:
        """Write `values` in key order to `out`."""
        for i, (order, runs) in enumerate(zip(self._orders, self._runs, strict=True)):
            tile = values[i * _TILE : (i + 1) * _TILE]
            for low, high, there in runs:
                # "clip", though no index is outside: "raise" would copy the array first.
                tile.take(order[low:high], out=out[there : there + high - low], mode="clip")

    def undo(self, ordered: NDArray[Any], out: NDArray[Any]) -> None:
        """Write to `out` the values whose key order is `ordered`."""
        for i, (order, runs) in enumerate(zip(self._orders, self._runs, strict=True)):
            tile = out[i * _TILE : (i + 1) * _TILE]
            for low, high, there in runs:
                tile[order[low:high]] = ordered[there : there + high - low]


# --- encoding 3, quantised blocks ------------------------------------------------------------------


def blocks_split(data: Buffer, base: Buffer, layout: BlockLayout) -> Sequence[Buffer]:
    """Two planes of the difference of the scales, and the difference of all other bytes."""
    count = min(len(data), len(base)) // layout.block_bytes
    new_scales, new_quants = _parts(data, count, layout)
    old_scales, old_quants = _parts(base, count, layout)
    difference = (new_scales - old_scales).ravel()
    _zigzag(difference)
    quants = new_quants - old_quants
    return _views([*_split_planes(difference), quants.ravel()])


def blocks_join(streams: Sequence[Buffer], base: Buffer, plain_length: int, layout: BlockLayout) -> Buffer:
    """The chunk of these streams."""
    low, high, quants, rest = map(_array, streams)
    width = layout.block_bytes
    count = min(plain_length, len(base)) // width
    difference = _scratch.take("a", count * layout.scales, "u2")
    _join_planes([low, high], difference)
    _unzigzag(difference)
    scales, old_quants = _parts(base, count, layout)
    scales += difference.reshape(scales.shape)
    new_quants = old_quants + quants.reshape(count, width - 2 * layout.scales)
    plain = np.empty(plain_length, np.uint8)
    end = count * width
    out = plain[:end].reshape(count, width)
    before, after = layout.scale_offset, layout.scale_offset + 2 * layout.scales
    out[:, before:after] = scales.view(np.uint8)
    out[:, :before] = new_quants[:, :before]
    out[:, after:] = new_quants[:, before:]
    plain[end:] = rest
    return plain.data


def _parts(buffer: Buffer, count: int, layout: BlockLayout) -> tuple[NDArray[Any], _Bytes]:
    """Scales (count, scales) as uint16 and all other bytes (count, …), both copies or read-only."""
    width = layout.block_bytes
    rows = np.frombuffer(buffer, np.uint8, count * width).reshape(count, width)
    before, after = layout.scale_offset, layout.scale_offset + 2 * layout.scales
    scales = np.ascontiguousarray(rows[:, before:after]).view("<u2").copy()
    quants = rows[:, after:] if not before else np.delete(rows, np.s_[before:after], axis=1)
    return scales, quants


# --- streams ---------------------------------------------------------------------------------------


def count_nonzero(data: Buffer, enough: int) -> int:  # noqa: ARG001 - counting all is as fast
    """How many bytes are not zero."""
    return int(np.count_nonzero(_array(data)))


def byte_counts(data: Buffer, start: int, step: int) -> list[int]:
    """How often each byte occurs at `start`, `start` + `step` …."""
    return _counts(_array(data)[start::step])


def sparse_split(data: Buffer) -> tuple[Buffer, Buffer]:
    """The bit mask of the bytes that are not zero, and these bytes."""
    plain = _array(data)
    mask = plain != 0
    return np.packbits(mask).data, plain[np.flatnonzero(mask)].data


def mask_count(mask: Buffer, length: int) -> int:
    """How many of the first `length` bits are set."""
    return int(np.count_nonzero(_bits(mask, length)))


def sparse_join(mask: Buffer, values: Buffer, length: int) -> Buffer:
    """The inverse of `sparse_split`."""
    plain = np.zeros(length, np.uint8)
    plain[np.flatnonzero(_bits(mask, length))] = _array(values)
    return plain.data


def symbols_split(plain: Buffer, per_byte: int, signed: bool) -> tuple[Buffer, Buffer]:
    """Symbols, so many to a byte, and those that are escaped."""
    radix = RADIX[per_byte]
    data = _array(plain)
    if signed:
        signs = np.right_shift(data.view(np.int8), 7).view(np.uint8)
        data = np.bitwise_xor(np.left_shift(data, 1, dtype=np.uint8), signs, dtype=np.uint8)
    small = np.zeros(-(-data.size // per_byte) * per_byte, np.uint8)
    np.minimum(data, radix - 1, out=small[: data.size])
    packed = small[per_byte - 1 :: per_byte].copy()
    for n in range(per_byte - 2, -1, -1):
        packed *= np.uint8(radix)
        packed += small[n::per_byte]
    large = data[data >= radix - 1]
    return packed.data, np.subtract(large, np.uint8(radix - 1)).data


def escapes_count(packed: Buffer, length: int, per_byte: int) -> int:
    """How many of the first `length` symbols are escapes."""
    return int(np.count_nonzero(_symbols(packed, length, per_byte) == RADIX[per_byte] - 1))


def symbols_join(packed: Buffer, escaped: Buffer, length: int, per_byte: int, signed: bool) -> Buffer:
    """The inverse of `symbols_split`."""
    symbols = _symbols(packed, length, per_byte)
    least = np.uint8(RADIX[per_byte] - 1)
    symbols[symbols == least] = np.add(_array(escaped), least)
    if signed:
        signs = np.negative(symbols & 1, dtype=np.uint8)
        symbols = np.bitwise_xor(np.right_shift(symbols, 1), signs, dtype=np.uint8)
    return symbols.data


def _symbols(packed: Buffer, length: int, per_byte: int) -> _Bytes:
    return _SYMBOLS[per_byte][_array(packed)].reshape(-1)[:length]


# The symbols of each byte: its digits, the lowest first.
_SYMBOLS: Final = {
    per_byte: (np.arange(256)[:, None] // radix ** np.arange(per_byte) % radix).astype(np.uint8)
    for per_byte, radix in RADIX.items()
}


def _bits(mask: Buffer, length: int) -> NDArray[np.bool_]:
    return np.unpackbits(_array(mask), count=length).view(np.bool_)


# --- arrays ----------------------------------------------------------------------------------------


def _array(data: Buffer) -> _Bytes:
    return np.frombuffer(data, np.uint8)


def _views(arrays: Sequence[_Bytes]) -> list[Buffer]:
    return [array.data for array in arrays]


def _counts(values: _Bytes) -> list[int]:
    counts: list[int] = np.bincount(values, minlength=256).tolist()
    return counts


def _split_planes(elements: NDArray[Any], name: str = "plane") -> list[_Bytes]:
    """Return the byte planes of an unsigned array in scratch, least significant first.

    Overwrites `elements`.
    """
    width = elements.itemsize
    planes = []
    for i in range(width):
        plane = _scratch.take(f"{name}{i}", elements.size)
        np.copyto(plane, elements, casting="unsafe")  # truncates: the fast way to take the low byte
        planes.append(plane)
        if i + 1 < width:
            np.right_shift(elements, 8, out=elements)
    return planes


def _join_planes(planes: list[_Bytes], out: NDArray[Any]) -> None:
    """The inverse of `_split_planes`, into `out`."""
    wide = _scratch.take("wide", out.size, f"u{out.itemsize}")
    np.copyto(out, planes[-1])
    for plane in reversed(planes[:-1]):
        np.left_shift(out, 8, out=out)
        np.copyto(wide, plane)
        np.bitwise_or(out, wide, out=out)


def _zigzag(differences: NDArray[Any]) -> None:
    """Wrapped differences 0 −1 1 −2 … (unsigned arrays) to 0 1 2 3 …, in place."""
    width = differences.itemsize
    sign = _scratch.take("wide", differences.size, f"u{width}")
    np.right_shift(differences.view(f"<i{width}"), 8 * width - 1, out=sign.view(f"<i{width}"))
    np.left_shift(differences, 1, out=differences)
    np.bitwise_xor(differences, sign, out=differences)


def _unzigzag(values: NDArray[Any]) -> None:
    """The inverse of `_zigzag`, in place."""
    sign = _scratch.take("wide", values.size, f"u{values.itemsize}")
    np.bitwise_and(values, 1, out=sign)
    np.negative(sign, out=sign)
    np.right_shift(values, 1, out=values)
    np.bitwise_xor(values, sign, out=values)


def _exponents(old: NDArray[Any], element: Element) -> _Bytes:
    shifted = _scratch.take("wide", old.size, f"u{element.width}")
    np.right_shift(old, element.exponent_bit, out=shifted)
    keys: _Bytes = _scratch.take("keys", old.size)
    np.copyto(keys, shifted, casting="unsafe")
    if element.exponent_mask != 0xFF:
        np.bitwise_and(keys, element.exponent_mask, out=keys)
    return keys


def _clip(keys: _Bytes, low: int, high: int) -> _Bytes:
    np.clip(keys, low, high, out=keys)
    return keys


def _split_nibbles(plane: _Bytes) -> list[_Bytes]:
    """Low nibbles and high nibbles, two to a byte, in scratch."""
    if plane.size % 2:
        plane = np.append(plane, np.uint8(0))
    pairs = _scratch.take("pairs", plane.size // 2, "u2")
    np.copyto(pairs, plane.view("<u2"))
    _swap_middle(pairs)
    return _split_planes(pairs, "nibbles")


def _join_nibbles(low: _Bytes, high: _Bytes, count: int) -> _Bytes:
    """The inverse of `_split_nibbles`: `count` bytes, in scratch."""
    pairs = _scratch.take("pairs", low.size, "u2")
    _join_planes([low, high], pairs)
    _swap_middle(pairs)
    return pairs.view(np.uint8)[:count]


def _swap_middle(pairs: NDArray[Any]) -> None:
    """Exchange the two middle nibbles of every uint16 in place; it is its own inverse."""
    change = _scratch.take("wide", pairs.size, "u2")
    np.right_shift(pairs, 4, out=change)
    np.bitwise_xor(change, pairs, out=change)
    np.bitwise_and(change, 0x00F0, out=change)
    np.bitwise_xor(pairs, change, out=pairs)
    np.left_shift(change, 4, out=change)
    np.bitwise_xor(pairs, change, out=pairs)
