"""The floor of an operation: the CPU time of what it cannot do without, on this machine.

Hashing, entropy coding (what zstd does with the streams of an encoding) and writing into the page cache.
Reading, the network and the transforms between bytes and streams count as nothing in it.  With them it is
what the parts cost together: what is beyond that goes to Python, threads, locks and memory.
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
    many times the floor the CPU time may be.  `moved_raw` and `moved_stored` bring the bytes there, which
    the floor does not count."""

    raw: tuple[str, ...]
    stored: tuple[str, ...]
    written: Literal["raw", "stored", "nothing"]
    goal: float | None = None
    moved_raw: tuple[str, ...] = ()
    moved_stored: tuple[str, ...] = ()


NEEDS = {
    # Named, the file's own hash, encoded, and decoded and hashed again to prove it.  The pack is named by its
    # bytes.  Every chunk counts as new.
    "publish": Needs(
        ("blake3", "sha256", "planes pack", "planes unpack", "blake3"),
        ("blake3",),
        "stored",
        1.4,
        moved_raw=("read",),
    ),
    # Both versions read back from their packs, the difference encoded, and proven, which proves the newer
    # chunk too; the older one is hashed.
    "publish delta": Needs(
        ("planes unpack", "planes unpack", "delta pack", "delta unpack", "blake3", "blake3"),
        ("blake3",),
        "stored",
        1.4,
        moved_stored=("read",),
    ),
    # The other way at the same time: the proof is the older chunk's hash.
    "publish delta back": Needs(("delta pack", "delta unpack"), ("blake3",), "stored", 1.4),
    # Received, decoded and verified before it is kept; the client's pack is named by its bytes.
    "fetch": Needs(("planes unpack", "blake3"), ("blake3",), "stored", 1.25, moved_stored=("receive",)),
    # The same, with the base read from the installed version's file and verified.
    "fetch delta": Needs(
        ("blake3", "delta unpack", "blake3"),
        ("blake3",),
        "stored",
        1.3,
        moved_raw=("read",),
        moved_stored=("receive",),
    ),
    # Chunks read and verified; the file's own hash as it is written.
    "checkout": Needs(("planes unpack", "blake3", "sha256"), (), "raw", 1.25, moved_stored=("read",)),
    "checkout delta": Needs(
        ("blake3", "delta unpack", "blake3", "sha256"),
        (),
        "raw",
        1.25,
        moved_raw=("read",),
        moved_stored=("read",),
    ),
    # All of both at once, and no pack, so that nothing is named by its stored bytes: each chunk is decoded
    # once; the file is read back for its own hash.
    "install": Needs(
        ("planes unpack", "blake3", "sha256"), (), "raw", 1.25, moved_raw=("read",), moved_stored=("receive",)
    ),
    "install delta": Needs(
        ("blake3", "delta unpack", "blake3", "sha256"),
        (),
        "raw",
        1.3,
        moved_raw=("read", "read"),
        moved_stored=("receive",),
    ),
    # Packs: their names, each chunk's name.  Files: their own hashes.
    "fsck": Needs(
        ("planes unpack", "blake3", "sha256"),
        ("blake3",),
        "nothing",
        moved_raw=("read",),
        moved_stored=("read",),
    ),
    "fsck delta": Needs(
        ("blake3", "delta unpack", "blake3", "sha256"),
        ("blake3",),
        "nothing",
        moved_raw=("read",),
        moved_stored=("read",),
    ),
}


@dataclass(frozen=True)
class Part:
    """What an operation does, and on how many bytes."""

    kind: str
    raw_bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class Floor:
    """Seconds of CPU time, without and with moving and transforming the bytes; how many times the first is
    the goal, and the raw bytes of the largest part."""

    cpu_s: float
    parts_cpu_s: float
    goal: float | None
    raw_bytes: int


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def floor_of(parts: tuple[Part, ...], rates: Rates) -> Floor:
    """The floor of an operation that does all these."""
    floor_s = all_s = 0.0
    for part in parts:
        needs = NEEDS[part.kind]
        written = {"raw": part.raw_bytes, "stored": part.stored_bytes, "nothing": 0}[needs.written]
        common_s = _seconds(needs.stored, part.stored_bytes, rates) + written / rates["write"].one
        floor_s += common_s + _seconds(needs.raw, part.raw_bytes, rates)
        whole = (*map(_with_transform, needs.raw), *needs.moved_raw)
        all_s += common_s + _seconds(whole, part.raw_bytes, rates)
        all_s += _seconds(needs.moved_stored, part.stored_bytes, rates)
    return Floor(floor_s, all_s, NEEDS[parts[0].kind].goal, max(part.raw_bytes for part in parts))


def _seconds(primitives: tuple[str, ...], size_bytes: int, rates: Rates) -> float:
    return sum(size_bytes / rates[name].one for name in primitives)


def _with_transform(primitive: str) -> str:
    """The encoding that an entropy coding is part of."""
    return primitive.replace(" unpack", " decode").replace(" pack", " encode")
