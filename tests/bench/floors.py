"""The floor of an operation: the CPU time of what it cannot do without, on this machine.

Hashing, entropy coding (what zstd does with the streams of an encoding) and writing into the page cache.
Reading, the network and the transforms between bytes and streams count as nothing.
`raw` are the plain bytes of the model, `stored` the bytes of its entries in packs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from tests.bench.primitives import Rates


@dataclass(frozen=True)
class Needs:
    """The primitives that each raw and each stored byte must go through, which bytes are written, and how
    many times the floor the CPU time may be."""

    raw: tuple[str, ...]
    stored: tuple[str, ...]
    written: Literal["raw", "stored", "nothing"]
    goal: float | None = None


NEEDS = {
    # Named, the file's own hash, encoded, and decoded and hashed again to prove it.  The pack is named by its
    # bytes.  Every chunk counts as new.
    "publish": Needs(
        ("blake3", "sha256", "planes pack", "planes unpack", "blake3"), ("blake3",), "stored", 1.4
    ),
    # Both versions read back from their packs, the difference encoded, and proven.
    "publish delta": Needs(
        (*("planes unpack", "blake3", "planes unpack", "blake3"), *("delta pack", "delta unpack", "blake3")),
        ("blake3",),
        "stored",
        1.4,
    ),
    # Received, decoded and verified before it is kept; the client's pack is named by its bytes.
    "fetch": Needs(("planes unpack", "blake3"), ("blake3",), "stored", 1.25),
    # The same, with the base read from the installed version's file and verified.
    "fetch delta": Needs(("blake3", "delta unpack", "blake3"), ("blake3",), "stored", 1.3),
    # Chunks read and verified; the file's own hash as it is written.
    "checkout": Needs(("planes unpack", "blake3", "sha256"), (), "raw", 1.25),
    "checkout delta": Needs(("blake3", "delta unpack", "blake3", "sha256"), (), "raw", 1.25),
    # All of both at once, and no pack, so that nothing is named by its stored bytes: each chunk is decoded
    # once; the file is read back for its own hash.
    "install": Needs(("planes unpack", "blake3", "sha256"), (), "raw", 1.25),
    "install delta": Needs(("blake3", "delta unpack", "blake3", "sha256"), (), "raw", 1.3),
    # Packs: their names, each chunk's name.  Files: their own hashes.
    "fsck": Needs(("planes unpack", "blake3", "sha256"), ("blake3",), "nothing"),
    "fsck delta": Needs(("blake3", "delta unpack", "blake3", "sha256"), ("blake3",), "nothing"),
}


@dataclass(frozen=True)
class Part:
    """What an operation does, and on how many bytes."""

    kind: str
    raw_bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class Floor:
    """Seconds of CPU time, how many times that is the goal, and the raw bytes of the largest part."""

    cpu_s: float
    goal: float | None
    raw_bytes: int


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def floor_of(parts: tuple[Part, ...], rates: Rates) -> Floor:
    """The floor of an operation that does all these."""
    cpu_s = 0.0
    for part in parts:
        needs = NEEDS[part.kind]
        cpu_s += sum(part.raw_bytes / rates[name].one for name in needs.raw)
        cpu_s += sum(part.stored_bytes / rates[name].one for name in needs.stored)
        written = {"raw": part.raw_bytes, "stored": part.stored_bytes, "nothing": 0}[needs.written]
        cpu_s += written / rates["write"].one
    return Floor(cpu_s, NEEDS[parts[0].kind].goal, max(part.raw_bytes for part in parts))
