"""How much smaller encoding 5 is than encoding 3, by how many bits encoding 3 takes for each element.

Shares of the difference between two real versions, in bf16 and f16.  `mapped.may_pay` follows from it:

    python -m tests.bench.packed_bits
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.models import models_root
from yarnstore.core.encodings import encode_delta_planes
from yarnstore.core.encodings.mapped import encode_mapped

_ELEMENTS = 256 * 1024
_STARTS = (2_000_000, 14_000_000)  # an embedding, and layers
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


def main() -> None:
    old, new = (_load(models_root() / "minilm-bf16" / version) for version in ("1.0.0", "1.1.0"))
    for element, rounded in (("bf16", _as_bf16), ("f16", _as_f16)):
        for start in _STARTS:
            part = slice(start, start + _ELEMENTS)
            base = rounded(old[part])
            for share in _SHARES:
                data = rounded(old[part] + share * (new[part] - old[part]))
                plain = encode_delta_planes(data, base, element) or data
                mapped = encode_mapped(data, base, element, None) or data
                bits = 8 * len(plain) / _ELEMENTS
                ratio = len(mapped) / len(plain)
                print(f"{element:4} {share:4.0%} of the difference: {bits:.2f} bits, × {ratio:.3f}")


def _load(folder: Path) -> NDArray[np.float32]:
    data = (folder / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    words = np.frombuffer(data, "<u2", (len(data) - start) // 2, start)
    return (words.astype(np.uint32) << 16).view(np.float32)


def _as_bf16(values: NDArray[Any]) -> bytes:
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def _as_f16(values: NDArray[Any]) -> bytes:
    return values.astype("<f2").tobytes()


if __name__ == "__main__":
    main()
