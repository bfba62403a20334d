"""Digests: checked SHA-256 and BLAKE3 values.  Verification and content-addressed file names use nothing
else.

Parses and computes the three kinds; docs/format/digests.md governs them.  Pure.
"""

from __future__ import annotations

import hashlib
from typing import ClassVar, Self, TypeAlias

import msgspec
from blake3 import blake3

from yarnstore.errors import FormatError

Buffer: TypeAlias = bytes | bytearray | memoryview

DIGEST_BYTES = 32
# A set, and not a pattern: every command reads digests, and compiling one takes longer than that.
_HEX = frozenset("0123456789abcdef")


class Digest(msgspec.Struct, frozen=True, order=True):
    """32 bytes that name content.  Its text is `algorithm:hex`, lower case."""

    raw: bytes
    algorithm: ClassVar[str] = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `algorithm:hex` or bare hex.

        Raises: FormatError for anything else, also for upper case and surrounding space.
        """
        prefix = cls.algorithm + ":"
        digits = text.removeprefix(prefix)
        if len(digits) != 2 * DIGEST_BYTES or not _HEX.issuperset(digits):
            raise FormatError("digest", f"is not {prefix} and 64 lower-case hex digits: {text[:80]!r}")
        return cls(bytes.fromhex(digits))

    @property
    def hex(self) -> str:
        return self.raw.hex()

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.raw.hex()}"


class Sha256(Digest, frozen=True):
    """Names a whole file or a manifest."""

    algorithm = "sha256"

    @classmethod
    def of(cls, data: Buffer) -> Self:
        return cls(hashlib.sha256(data).digest())


class ChunkId(Digest, frozen=True):
    """BLAKE3-256 of a chunk's plaintext."""

    algorithm = "blake3"

    @classmethod
    def of(cls, data: Buffer) -> Self:
        return cls(blake3(data).digest())


class PackId(Digest, frozen=True):
    """BLAKE3-256 of a whole pack file."""

    algorithm = "blake3"
