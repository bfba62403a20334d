"""How a packed stream is divided: several small values in a byte.

Huffman codes take at least one bit for each byte, so that a byte that is nearly always zero costs an eighth
of itself; eight such values in one byte cost about what they say.  Owns: the choice, from how often each
byte occurs.  The transforms are kernels; docs/format/encodings.md governs the format.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from math import log2
from typing import Final, NamedTuple

from yarnstore.core.encodings.kernels import kernels
from yarnstore.core.encodings.transforms import RADIX, Buffer

# What is between the entropy and Huffman's codes, in bits for each code, where no symbol has half of all.
_HUFFMAN_BITS: Final = 0.03
# A symbol with this share has a code of one bit.
_COMMON_SHARE: Final = 0.4
# A segment of its own must save so many bits: a Huffman table costs about 60 bytes.
_SEGMENT_BITS: Final = 8 * 60
# Escaped symbols are packed themselves; long runs of a symbol are found as matches: both over their entropy.
_PACKED_COST: Final = 1.05
_RUNS_COST: Final = 1.85
_ZIGZAG: Final = [byte * 2 if byte < 128 else 511 - byte * 2 for byte in range(256)]


class Part(NamedTuple):
    """So many bytes of a stream, and how many of their symbols are in a byte: 1 are bytes as they are."""

    length: int
    per_byte: int


class _Information(dict[int, float]):
    """n · log2(n) by n, since a logarithm takes longer than a look-up."""

    def __missing__(self, count: int) -> float:
        value = self[count] = count * log2(count) if count else 0.0
        return value


information = _Information()


def divide(plain: Buffer, cuts: Sequence[int], *, signed: bool) -> list[Part]:
    """Return how a stream is packed best; its statistics change at `cuts`, ascending."""
    parts: list[Part] = []
    counts: list[int] = []
    bits = 0.0
    for length, more in _histograms(plain, cuts, signed=signed):
        more_bits, per_byte = _best(more)
        if parts:
            joined = [one + other for one, other in zip_longest(counts, more, fillvalue=0)]
            both, together = _best(joined)
            if both <= bits + more_bits + _SEGMENT_BITS:
                parts[-1] = Part(parts[-1].length + length, together)
                counts, bits = joined, both
                continue
        parts.append(Part(length, per_byte))
        counts, bits = more, more_bits
    return parts


def _histograms(plain: Buffer, cuts: Sequence[int], *, signed: bool) -> Iterator[tuple[int, list[int]]]:
    view = memoryview(plain)
    start = 0
    for end in (*cuts, len(view)):
        if end > start:
            counts = kernels.byte_counts(view[start:end], 0, 1)
            if signed:
                ordered = [0] * 256
                for byte, symbol in enumerate(_ZIGZAG):
                    ordered[symbol] = counts[byte]
                counts = ordered
            used = len(bytes(map(bool, counts)).rstrip(b"\0"))
            yield end - start, counts[:used]
            start = end


def _best(counts: list[int]) -> tuple[float, int]:
    """Return about how many bits bytes with these counts need, and how many to put in a byte."""
    size = sum(counts)
    known = list(map(information.__getitem__, counts))
    whole = sum(known)
    best, chosen = min(8.0 * size, _coded(size, information[size] - whole, max(counts), 1)), 1
    for per_byte, radix in RADIX.items():
        small = sum(counts[: radix - 1])
        escapes = size - small
        if 2 * escapes > size:  # so do all that have fewer symbols
            break
        head, rest = sum(known[: radix - 1]), information[escapes]
        bits = _coded(size, information[size] - head - rest, max(escapes, *counts[: radix - 1]), per_byte)
        bits += _PACKED_COST * (rest - (whole - head))
        if bits < best:
            best, chosen = bits, per_byte
    return best, chosen


def _coded(size: int, bits: float, most: int, per_code: int) -> float:
    """Return about how many bits a zstd frame needs for symbols, with so many of them in a byte; `bits` is
    their entropy, and the most common one occurs `most` times.
    """
    share = (most / size) ** per_code
    if share == 1:
        return 0.0
    each = bits / size * per_code
    if share < _COMMON_SHARE:
        return size / per_code * max(1.0, each + _HUFFMAN_BITS)
    # The common one has one bit; the others have one more than codes of their own.
    own = -share * log2(share) - (1 - share) * log2(1 - share)
    huffman = 1 + max(0.0, each - own) + (1 - share) * _HUFFMAN_BITS
    # zstd finds matches in runs of it, which cost more than their codes, or less if runs are long.
    return size / per_code * min(huffman * (1 + _lost(share)), _RUNS_COST * each)


def _lost(share: float) -> float:
    """Return how much zstd loses by matches where a byte has a share between 0.4 and 1."""
    return max(0.0, 0.6 * (share - 0.45) if share < 0.75 else 0.7 * (1 - share))
