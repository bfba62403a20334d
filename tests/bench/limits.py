"""The limit of an operation: the least time that its primitives leave it on this machine.

    max(CPU time of its primitives / cores, bytes it must write / rate of synced writing)

Writing counts in both: the processor copies into the page cache what the disk then takes.
An operation can only come near by doing everything at once on all cores and nothing else.
`raw` are the plain bytes of the model, `stored` the bytes of its entries in packs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from tests.bench.primitives import Rates


@dataclass(frozen=True)
class Needs:
    """The primitives that each raw and each stored byte must go through, and which bytes are written."""

    raw: tuple[str, ...]
    stored: tuple[str, ...]
    written: Literal["raw", "stored", "nothing"]


NEEDS = {
    # Read, named; the file's own hash; encoded, and decoded and hashed again to prove it.
    # The pack is named by its bytes.  Every chunk counts as new.
    "publish": Needs(
        ("read", "blake3", "sha256", "planes encode", "planes decode", "blake3"), ("blake3",), "stored"
    ),
    # Both versions read back from their packs, the difference encoded, and proven.
    "publish delta": Needs(
        (
            *("planes decode", "blake3", "planes decode", "blake3"),
            *("delta encode", "delta decode", "blake3"),
        ),
        ("blake3",),
        "stored",
    ),
    # Received, decoded and verified before it is kept; the client's pack is named by its bytes.
    "fetch": Needs(("planes decode", "blake3"), ("loopback", "blake3"), "stored"),
    # The same, with the base read from the installed version's file and verified.
    "fetch delta": Needs(("read", "blake3", "delta decode", "blake3"), ("loopback", "blake3"), "stored"),
    # Chunks read and verified; the file's own hash as it is written.
    "checkout": Needs(("planes decode", "blake3", "sha256"), ("read",), "raw"),
    "checkout delta": Needs(("read", "blake3", "delta decode", "blake3", "sha256"), ("read",), "raw"),
    # All of both at once, and no pack: each chunk is decoded once; the file is read back for its own hash.
    "install": Needs(("planes decode", "blake3", "read", "sha256"), ("loopback", "blake3"), "raw"),
    "install delta": Needs(
        ("read", "blake3", "delta decode", "blake3", "read", "sha256"), ("loopback", "blake3"), "raw"
    ),
    # Packs: their names, each chunk's name.  Files: read, and their own hashes.
    "fsck": Needs(("planes decode", "blake3", "read", "sha256"), ("read", "blake3"), "nothing"),
    "fsck delta": Needs(
        ("read", "blake3", "delta decode", "blake3", "read", "sha256"), ("read", "blake3"), "nothing"
    ),
}


@dataclass(frozen=True)
class Part:
    """What an operation does, and on how many bytes."""

    kind: str
    raw_bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class Limit:
    """Seconds that the cores need, and that the disk needs."""

    cpu_s: float
    disk_s: float

    @property
    def seconds(self) -> float:
        return max(self.cpu_s, self.disk_s)

    @property
    def bound(self) -> str:
        return "disk" if self.disk_s > self.cpu_s else "cores"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def limit_of(parts: tuple[Part, ...], rates: Rates, write_rate: float) -> Limit:
    """The limit of an operation that does all these; `write_rate` in bytes per second."""
    cpu_s = disk_s = 0.0
    for part in parts:
        needs = NEEDS[part.kind]
        cpu_s += sum(part.raw_bytes / rates[name].one for name in needs.raw)
        cpu_s += sum(part.stored_bytes / rates[name].one for name in needs.stored)
        written = sum(
            size
            for which, size in (("raw", part.raw_bytes), ("stored", part.stored_bytes))
            if needs.written == which
        )
        cpu_s += written / rates["write"].one
        disk_s += written / write_rate
    return Limit(cpu_s / cores(), disk_s)
