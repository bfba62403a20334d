"""Digests: the only values that trust and content-addressed file names are built from.

Owns the parsing and the hashing of the three kinds; docs/format/digests.md governs it.  Pure.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import ClassVar, Self, TypeAlias

from blake3 import blake3

from yarnstore.errors import FormatError

Buffer: TypeAlias = bytes | bytearray | memoryview

DIGEST_BYTES = 32
_HEX64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """32 bytes that name content.  Its text is `algorithm:hex`, lower case."""

    raw: bytes
    algorithm: ClassVar[str] = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `algorithm:hex` or bare hex.

        Raises: FormatError on anything else, upper case and surrounding space included.
        """
        prefix = cls.algorithm + ":"
        digits = text.removeprefix(prefix)
        if not _HEX64.fullmatch(digits):
            raise FormatError("digest", f"is not {prefix} and 64 lower-case hex digits: {text[:80]!r}")
        return cls(bytes.fromhex(digits))

    @property
    def hex(self) -> str:
        return self.raw.hex()

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.raw.hex()}"


class Sha256(Digest):
    """Names a whole file or a manifest."""

    __slots__ = ()
    algorithm = "sha256"

    @classmethod
    def of(cls, data: Buffer) -> Self:
        return cls(hashlib.sha256(data).digest())


class ChunkId(Digest):
    """BLAKE3-256 of a chunk's plaintext."""

    __slots__ = ()
    algorithm = "blake3"

    @classmethod
    def of(cls, data: Buffer) -> Self:
        return cls(blake3(data).digest())


class PackId(Digest):
    """BLAKE3-256 of a whole pack file."""

    __slots__ = ()
    algorithm = "blake3"
