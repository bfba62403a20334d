"""Estimates the memory that a JSON document needs once decoded, from its bytes.

A value of two bytes may take a hundred once decoded, so a limit on the document's size does not limit memory.
`measure` counts values, keys, objects and text, and multiplies them by upper bounds for 64-bit CPython.  It
does not check that the bytes are JSON.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from yarnstore.core.limits import KIB

_BLOCK_BYTES: Final = 256 * KIB
# An entry of a dict: at most 44, and its part of the old table, which exists beside the new one during a
# resize.
_SLOT_BYTES: Final = 58
# An ASCII str takes 49 bytes plus its length, rounded up to 16; one with other characters has a larger
# header.
_STR_BYTES: Final = 49
_WIDE_STR_BYTES: Final = 76
# An int above 256, or a float.
_NUMBER_BYTES: Final = 32
_DICT_BYTES: Final = 240
# A dict as msgspec makes it, without its first entry.
_SMALL_DICT_BYTES: Final = 126
# The str of a short name.
_NAME_BYTES: Final = 64
_ARRAY_BYTES: Final = 48
# An element of an array: two pointers, since a list becomes a tuple.
_ELEMENT_BYTES: Final = 18
# The second and further bytes of a character in UTF-8.
_CONTINUATION: Final = bytes(range(0x80, 0xC0))
_SPACE: Final = b" \t\r\n"
# Escaped ASCII letters: no known writer makes them, and they would hide names from the search below.
_HIDDEN: Final = rb"\\u00[4-7]"
_IN_OBJECT: Final = rb'\s*:\s*\{((?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+)'


class JsonShape(msgspec.Struct):
    """The counts of a document.

    `text_bytes` is the memory of strings that are values, `name_bytes` that of keys of objects, and
    `key_bytes` that of all other keys.
    """

    size_bytes: int = 0
    keys: int = 0
    keyed_objects: int = 0  # objects that are values of keys
    listed_objects: int = 0  # objects in arrays
    maps: int = 0  # objects that are values of one of the `fields`
    arrays: int = 0
    elements: int = 0  # strings in arrays
    numbers: int = 0
    text_bytes: int = 0
    name_bytes: int = 0
    key_bytes: int = 0

    def untyped_bytes(self) -> int:
        """The memory of the document as dicts and lists in bytes, including the document itself."""
        objects = (self.keyed_objects + self.listed_objects) * _DICT_BYTES
        return objects + self.keys * _SLOT_BYTES + self.key_bytes + self._values_bytes()

    def typed_bytes(self, *, keyed_bytes: int, listed_bytes: int, pairs: int = 0) -> int:
        """The memory of the document as structs in bytes, including the document itself.

        `keyed_bytes` is the size of the largest struct that is the value of a key, `listed_bytes` that of the
        largest in an array; `pairs` is the number of strings in dicts of strings.
        """
        return (
            (self.keyed_objects - self.maps) * (keyed_bytes + _SLOT_BYTES)
            + self.maps * (_SMALL_DICT_BYTES - _NAME_BYTES)
            + self.listed_objects * listed_bytes
            + pairs * (_SLOT_BYTES + _STR_BYTES + 15)
            + self._values_bytes()
        )

    def _values_bytes(self) -> int:
        return (
            self.size_bytes
            + self.arrays * _ARRAY_BYTES
            + (self.elements + self.listed_objects) * _ELEMENT_BYTES
            + self.numbers * _NUMBER_BYTES
            + self.text_bytes
            + self.name_bytes
        )


def measure(
    data: bytes,
    too_much: Callable[[JsonShape], bool] = lambda _: False,
    *,
    fields: Sequence[str] = (),
) -> JsonShape:
    """Count the values of `data`, until the count is `too_much`.

    `fields` are names, of at most 15 characters, whose values become dicts when the document is decoded to
    structs. Takes a few MiB of memory, and up to 20 ms for each MiB.
    """
    shape = JsonShape(len(data))
    heads = [f'"{name}":{space}{{'.encode() for name in fields for space in ("", " ")]
    at = 0
    before = b""  # the last byte outside strings so far
    while at < len(data) and not too_much(shape):
        # Of the same length, without escaped quotes.
        block = data[at : _past_escape(data, at + _BLOCK_BYTES)]
        block = block.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        if at + len(block) < len(data):
            # Cut before a string, so that no string is in two blocks, and no key is separated from its colon.
            cut = block.rfind(b'"')
            if block.count(b'"') % 2:
                if cut == 0:
                    at, before = _count_long(shape, data, at), b'"'
                    continue
            else:
                cut = block.rfind(b'"', 0, max(cut, 0))
            block = block[:cut] if cut > 0 else block
        raw = data[at : at + len(block)]
        at += len(block)
        parts = block.split(b'"')
        structure = b'"'.join(parts[::2]).translate(None, _SPACE)
        _count_texts(shape, parts[1::2], structure, wide=not raw.isascii() or b"\\u" in raw)
        _count_structure(shape, structure, before)
        shape.maps += sum(block.count(head) for head in heads)
        before = structure[-1:] or before
    return shape


def _count_long(shape: JsonShape, data: bytes, at: int) -> int:
    """Count a string that begins at `at` and is longer than a block; return its end."""
    end = at + 1
    while end < len(data):
        quote = data.find(b'"', end)
        if quote < 0:
            return len(data)  # is not JSON
        before = data[end:quote]
        end = quote + 1
        if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
            break
    shape.elements += 1
    shape.text_bytes += (end - at) * 4
    return end


def most_bytes(data: bytes) -> int:
    """Return a quick upper bound of a document's memory as structs or dicts, often twice of what it needs."""
    wide = not data.isascii() or b"\\u" in data
    values = data.count(b":")
    return (
        len(data) * (5 if wide else 2)
        + (data.count(b'"') // 2 + 1) * (_STR_BYTES + 15)
        + values * (_NUMBER_BYTES + _SLOT_BYTES)
        + data.count(b"{") * _DICT_BYTES
        + data.count(b"[") * _ARRAY_BYTES
        + data.count(b",") * _ELEMENT_BYTES
    )


def count_pairs(data: bytes, name: str) -> int:
    """Return at most how many pairs the objects named `name` have, if they contain only strings."""
    if b"\\u00" in data and re.search(_HIDDEN, data):
        return data.count(b":")
    pattern = re.compile(b'"' + name.encode() + b'"' + _IN_OBJECT, re.DOTALL)
    return sum(match[1].count(b'"') // 4 + 1 for match in pattern.finditer(data) if match[1])


def _past_escape(data: bytes, end: int) -> int:
    """Return `end`, or a position shortly after it, so that no escape is cut."""
    while end < len(data) and data[end - 1] == 0x5C:
        end += 1
    return end


def _count_texts(shape: JsonShape, texts: list[bytes], structure: bytes, *, wide: bool) -> None:
    """Count the memory of the strings, each of which is one quote in the structure."""
    if wide:
        sizes = [_wide_bytes(text) for text in texts]
    else:
        sizes = [(len(text) + _STR_BYTES + 15) & -16 if text else 0 for text in texts]
    after = structure.split(b'"')[1:]
    keyed = [(size, part) for size, part in zip(sizes, after, strict=False) if part[:1] == b":"]
    keys = sum(size for size, _ in keyed)
    names = sum(size for size, part in keyed if part[1:2] == b"{")
    shape.text_bytes += sum(sizes) - keys
    shape.key_bytes += keys - names
    shape.name_bytes += names


def _wide_bytes(text: bytes) -> int:
    """Return the memory of a string that may have characters outside ASCII."""
    width, head = 1, _STR_BYTES
    if b"\\u" in text:
        width = 4 if b"\\ud" in text or b"\\uD" in text else 2
    if not text.isascii():
        most = max(text)
        width = max(width, 4 if most >= 0xF0 else 2 if most >= 0xC4 else 1)
        text = text.translate(None, _CONTINUATION)
        head = _WIDE_STR_BYTES
    return (len(text) * width + head + 15) & -16 if text else 0


def _count_structure(shape: JsonShape, structure: bytes, before: bytes) -> None:
    """Count values by the punctuation before them; each string is a single quote here."""
    strings = structure.count(b'"')
    keys = structure.count(b'":')
    joined = before + structure
    texts, objects, arrays = (joined.count(pair) for pair in (b':"', b":{", b":["))
    words = sum(joined.count(pair) for pair in (b":t", b":f", b":n"))
    shape.keys += keys
    shape.keyed_objects += objects
    shape.listed_objects += structure.count(b"{") - objects
    shape.arrays += structure.count(b"[")
    shape.elements += strings - keys - texts
    shape.numbers += keys - texts - objects - arrays - words
