"""Pins of a range or a variant, as values and as stored lines.

docs/format/refs.md governs the bytes.  A pin of one version is a ref, which `store/refs` owns.  Pure.
"""

from __future__ import annotations

from typing import Final

import msgspec
from blake3 import blake3

from yarnstore.core.limits import NAME_LIMIT_CHARS
from yarnstore.core.names import parse_variant
from yarnstore.errors import FormatError, InvalidNameError, SpecError
from yarnstore.registry.ranges import RANGE_LIMIT_CHARS, Range

_CHECK_DIGITS: Final = 16
_NONE: Final = "-"  # neither a variant nor a range
# A variant, a range, a checksum, two tabs and a newline.
HOLD_LIMIT_BYTES: Final = NAME_LIMIT_CHARS + RANGE_LIMIT_CHARS + _CHECK_DIGITS + 3


class PinRule(msgspec.Struct, frozen=True):
    """The pins of a model: the installed version is kept (`version`), or only matching ones are allowed.

    `version` comes from a ref and is not in the line.
    """

    version: str | None = None
    range: Range | None = None
    variant: str | None = None

    def __str__(self) -> str:
        """The pin as in a spec: `1.0.0`, `@^1.1`, `:cpu-int4@^1.1`."""
        if self.version is not None:
            return self.version
        return (f":{self.variant}" if self.variant else "") + (f"@{self.range}" if self.range else "")


FREE: Final = PinRule()


def format_hold(hold: PinRule) -> bytes:
    """Return the line of a pin of a range, a variant, or both."""
    body = f"{hold.variant or _NONE}\t{hold.range or _NONE}"
    return f"{body}\t{_check(body)}\n".encode("ascii")


def parse_hold(data: bytes) -> PinRule:
    """Parse such a line.  Raises: FormatError."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise FormatError("pin", "is not ASCII") from None
    fields = text.removesuffix("\n").split("\t")
    if len(data) > HOLD_LIMIT_BYTES or not text.endswith("\n") or len(fields) != 3:
        raise FormatError("pin", "is not one line of variant, range and checksum")
    variant, wanted, check = fields
    if check != _check(f"{variant}\t{wanted}"):
        raise FormatError("pin", "does not match its checksum")
    try:
        hold = PinRule(
            None,
            None if wanted == _NONE else Range.parse_stored(wanted),
            None if variant == _NONE else parse_variant(variant),
        )
    except (InvalidNameError, SpecError) as error:
        raise FormatError("pin", error.message) from None
    if hold == FREE:
        raise FormatError("pin", "has neither a variant nor a range")
    return hold


def _check(body: str) -> str:
    return blake3(body.encode()).hexdigest()[:_CHECK_DIGITS]
