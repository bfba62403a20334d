"""Canonical JSON: one value, one encoding, one digest.

docs/format/canonical-json.md governs it: UTF-8, keys sorted by code point, no white space,
shortest escapes, integers only.  Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from yarnstore.core.digest import Buffer
from yarnstore.core.limits import (
    JSON_ASCII_FACTOR,
    JSON_LIMIT_MEMORY_BYTES,
    JSON_TEXT_FACTOR,
    JSON_VALUE_BYTES,
)
from yarnstore.errors import FormatError

# Integers beyond this are not exact in every JSON reader (RFC 8259 §6).
INTEGER_LIMIT = 2**53 - 1


def _check(value: object, what: str) -> None:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            continue
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, float):
            raise FormatError(what, "holds a number that is not an integer")
        elif isinstance(item, int) and not -INTEGER_LIMIT <= item <= INTEGER_LIMIT:
            raise FormatError(what, "holds an integer beyond 2^53")


def encode_canonical(value: dict[str, Any], what: str = "JSON") -> bytes:
    """The canonical bytes of a JSON object.

    Raises: FormatError for floats, integers beyond 2^53 and text that is not Unicode.
    """
    _check(value, what)
    try:
        return msgspec.json.encode(value, order="sorted")
    except (UnicodeEncodeError, TypeError, ValueError) as error:
        raise FormatError(what, f"cannot be encoded: {error}") from None


def _memory_bytes(data: bytes) -> int:
    """Return an upper bound of the decoded document's memory in bytes, from counts of its punctuation."""
    # An object takes about as much memory as four other values.
    values = sum(map(data.count, (b",", b"[", b":"))) + 3 * data.count(b"{")
    wide = not data.isascii() or b"\\u" in data
    return values * JSON_VALUE_BYTES + len(data) * (JSON_TEXT_FACTOR if wide else JSON_ASCII_FACTOR)


def parse_json_object(data: Buffer, what: str) -> dict[str, Any]:
    """Decode a JSON object in any formatting.

    Raises: FormatError, also if decoding would take too much memory, which is checked first.
    """
    if _memory_bytes(bytes(data)) > JSON_LIMIT_MEMORY_BYTES:
        raise FormatError(what, f"would need more than {JSON_LIMIT_MEMORY_BYTES} bytes of memory to read")
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(what, f"is not JSON: {error}") from None
    except RecursionError:
        raise FormatError(what, "is nested too deeply") from None
    if not isinstance(value, dict):
        raise FormatError(what, "is not a JSON object")
    return value


def parse_canonical(data: Buffer, what: str) -> dict[str, Any]:
    """Decode canonical bytes.

    Raises: FormatError if the bytes are not the canonical encoding of their value: with duplicate keys, other
    spacing or other escapes, one value would have several digests.
    """
    value = parse_json_object(data, what)
    if encode_canonical(value, what) != bytes(data):
        raise FormatError(what, "is not in canonical form")
    return value
