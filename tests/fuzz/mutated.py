"""The decoders on changed seeds, without atheris: `python -m tests.fuzz.mutated [SECONDS]`.

For a build of the C kernels with sanitizers, which end the process at the first fault.
"""

from __future__ import annotations

import contextlib
import random
import sys
import time

from tests.fuzz.seeds import BASE, CHUNK, seeds
from yarnstore.core.encodings import decode_delta_planes, decode_planes
from yarnstore.core.encodings.kernels import kernels
from yarnstore.core.encodings.mapped import decode_mapped
from yarnstore.errors import FormatError


def main() -> None:
    """Decode for so many seconds."""
    assert kernels.NAME == "c", "these are numpy's kernels"
    ends = time.monotonic() + float(sys.argv[1] if len(sys.argv) > 1 else 60)
    rng = random.Random(1)
    payloads = [data for name, data in seeds() if name in ("planes", "delta-planes", "delta-mapped")]
    runs = 0
    while time.monotonic() < ends:
        payload = bytearray(rng.choice(payloads))
        for _ in range(rng.randint(0, 4)):
            payload[rng.randrange(min(len(payload), rng.choice((8, 40, 1 << 20))))] = rng.randrange(256)
        hostile = bytes(payload[: rng.choice((len(payload), rng.randint(0, len(payload))))])
        length = rng.choice((len(CHUNK), len(CHUNK), rng.randint(0, 2 * len(CHUNK))))
        base = BASE[: rng.choice((len(BASE), len(BASE), rng.randint(0, len(BASE))))]
        with contextlib.suppress(FormatError):
            decode_planes(hostile, length)
        with contextlib.suppress(FormatError):
            decode_delta_planes(hostile, base, length)
        with contextlib.suppress(FormatError):
            decode_mapped(hostile, base, length)
        runs += 1
    print(f"{runs} inputs")


if __name__ == "__main__":
    main()
