"""A guess of the best encoding for bytes of unknown type, from a sample.

Distinguishes numbers, text and noise.  A wrong guess costs bytes and not correctness: no encoder's payload is
larger than the chunk.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from yarnstore.core.encodings.kernels import kernels
from yarnstore.core.encodings.planes import WIDTHS, encode_planes
from yarnstore.core.encodings.streams import codecs, entropy_bits
from yarnstore.core.encodings.transforms import Buffer

_WINDOWS: Final = 3
_WINDOW_BYTES: Final = 8192  # a multiple of 8, so that a residue means the same in every window
# Below this saving no encoding is worth its decoding.
_PAYS: Final = 0.98
# A wider element must beat a narrower one by this much: bf16 looks like f32 in pairs.
_WIDER_BITS: Final = 0.06
# Numbers have a mantissa byte that is nearly random; text has none.
_NOISE_BITS: Final = 6.5
# The entropy per byte of so few bytes is at most log2 of their number.
_FEW_ROWS: Final = int(2**_NOISE_BITS)


class Guess(NamedTuple):
    """`kind` is "planes", "zstd" or "raw"; `width` and `phase` are for `encode_planes`."""

    kind: str
    width: int = 0
    phase: int = 0


def guess_encoding(data: Buffer) -> Guess:
    """Return the encoding in which a sample of `data` (at most 24 KiB of it) is smallest."""
    if not data:
        return Guess("raw")
    if len(data) // 8 <= _FEW_ROWS:
        plain, width, phase = bytes(data), 0, 0
    else:
        plain = _sample(data)
        width, phase = _shape(plain)
    zstd_bytes = len(codecs.fast.compress(plain))
    planes = encode_planes(plain, width, phase) if width else None
    planes_bytes = len(planes) if planes else len(plain)
    if min(zstd_bytes, planes_bytes) > len(plain) * _PAYS:
        return Guess("raw")
    return Guess("planes", width, phase) if planes_bytes < zstd_bytes else Guess("zstd")


def _sample(data: Buffer) -> bytes:
    view = memoryview(data)
    if len(view) <= _WINDOWS * _WINDOW_BYTES:
        return bytes(view)
    stride = (len(view) - _WINDOW_BYTES) // (_WINDOWS - 1) // 8 * 8
    return b"".join(view[i * stride : i * stride + _WINDOW_BYTES] for i in range(_WINDOWS))


def _shape(sample: bytes) -> tuple[int, int]:
    """The width whose byte positions differ most from one another, 0 if none does, and its phase."""
    rows = len(sample) // 8
    best_width = best_phase = 0
    best_bits = _bits_of(sample[: rows * 8], 0, 1)
    for width in WIDTHS:
        # The same number of bytes for each histogram: otherwise small samples would favour wide elements.
        merged = sample[: rows * width // 8 * 8]
        bits = [_bits_of(merged, i, width) for i in range(width)]
        if sum(bits) / width < best_bits - _WIDER_BITS and max(bits) > _NOISE_BITS:
            best_bits = sum(bits) / width
            # The byte of sign and exponent has the least entropy, unless others are constant, and is the
            # element's last.
            least = min((bit for bit in bits if bit > 0.01), default=0.0)
            best_width, best_phase = width, (bits.index(least) + 1) % width
    return best_width, best_phase


def _bits_of(sample: bytes, start: int, step: int) -> float:
    return entropy_bits(kernels.byte_counts(sample, start, step))
