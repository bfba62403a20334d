"""Sizes as users write them, and the disk space to keep free.  Pure."""

from __future__ import annotations

import re

import msgspec

from yarnstore.core.limits import MIB
from yarnstore.errors import InvalidNameError

# Texts, which `re` compiles when they are first used: every command imports this, few read a size.
_SIZE = r"([0-9]{1,18}(?:\.[0-9]{1,6})?)\s*([kmgtKMGT]?)(i?)[bB]?"
_SHARE = r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%"
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_MOST_BYTES = 2**63 - 1


def parse_size(text: str) -> int:
    """Return the bytes of `50G`, `500M`, `2.5Ti` or a plain number.

    k, M, G and T are powers of 1000; Ki, Mi, Gi and Ti of 1024.

    Raises: InvalidNameError.
    """
    match = re.fullmatch(_SIZE, text.strip(), re.ASCII)
    if match is None or (match[3] and not match[2]):
        raise InvalidNameError("size", text, "is not a number with k, M, G or T, such as 50G")
    base = 1024 if match[3] else 1000
    size = int(float(match[1]) * float(base ** _POWERS[match[2].lower()]))
    if size > _MOST_BYTES:
        raise InvalidNameError("size", text, "is larger than any disk")
    return size


class Reserve(msgspec.Struct, frozen=True):
    """The disk space to keep free: `size_bytes`, or a `share` of the disk if that is less."""

    size_bytes: int = 512 * MIB
    share: float = 0.05

    @classmethod
    def parse(cls, text: str) -> Reserve:
        """Return the reserve of `5%` or `10G`.  Raises: InvalidNameError."""
        match = re.fullmatch(_SHARE, text.strip(), re.ASCII)
        if match is None:
            try:
                return cls(parse_size(text), 1.0)
            except InvalidNameError:
                why = "is neither a share of the disk, such as 5%, nor a size, such as 10G"
                raise InvalidNameError("reserve", text, why) from None
        share = float(match[1]) / 100
        if share > 1:
            raise InvalidNameError("reserve", text, "is more than the disk")
        return cls(_MOST_BYTES, share)

    def of(self, disk_bytes: int) -> int:
        """Return the reserve in bytes on a disk of this size."""
        return min(self.size_bytes, int(disk_bytes * self.share))


# Other programs and a later gc need some disk space.
DEFAULT_RESERVE = Reserve()
