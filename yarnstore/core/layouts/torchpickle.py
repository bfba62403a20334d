"""PyTorch checkpoints from before 1.6, which `torch.save(…, _use_new_zipfile_serialization=False)` still
writes: pickles, then the storages.

The pickles are a magic number, the version of the format, facts of the system, the object, and the keys of
its storages.  Each storage follows in the order of the keys: the count of its elements in 8 bytes, and these,
little-endian, at any offset (`_legacy_save` in `torch/serialization.py`).  Nothing is unpickled.  Pure.
"""

from __future__ import annotations

from typing import Final

from yarnstore.core.layouts.limits import (
    LAYOUT_LIMIT_TENSORS,
    PICKLE_HEAD_BYTES,
    PICKLE_LIMIT_BYTES,
    PICKLE_LIMIT_OPS,
)
from yarnstore.core.layouts.model import Layout, Source, make_layout
from yarnstore.core.layouts.pickled import Pickled, find_views, follow
from yarnstore.core.layouts.storages import TORCH, Extent, place_views
from yarnstore.core.layouts.window import ReadWindow
from yarnstore.errors import FormatError

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_VERSION: Final = 1001
# Of the magic number as a pickle, within the first 16 bytes of all protocols: LONG1 of 10 bytes.
_MAGIC_START: Final = b"\x8a\x0a\x6c\xfc\x9c"
_COUNT_BYTES: Final = 8
# The first block that is read of a pickle whose length is unknown, and how much longer the next ones are.
_BLOCK_BYTES: Final = 128 * 1024
_BLOCK_FACTOR: Final = 8


def is_torch_pickle(head: bytes) -> bool:
    """Whether a file that begins with 16 bytes may be such a checkpoint."""
    return head[:1] == b"\x80" and _MAGIC_START in head


def parse_torch_pickle(source: Source) -> Layout:
    """Return the layout of a checkpoint from before PyTorch 1.6.  Raises: FormatError."""
    window = ReadWindow(source, TORCH)
    head = window.peek(0, PICKLE_HEAD_BYTES)
    magic = follow(head)
    version = follow(head, magic.end)
    system = follow(head, version.end)
    if magic.root != _MAGIC or version.root != _VERSION or not isinstance(system.root, dict):
        raise FormatError(TORCH, "does not begin as a checkpoint")
    if system.root.get("little_endian") is not True:
        raise FormatError(TORCH, "has numbers that are not little-endian")
    state = _follow_in(window, system.end, PICKLE_LIMIT_OPS)
    keys = _follow_in(window, state.end, PICKLE_LIMIT_OPS - state.ops)
    storages = _find_storages(window, keys, state)
    return make_layout(TORCH, place_views(find_views(state), storages), window.size)


def _follow_in(window: ReadWindow, at: int, ops: int) -> Pickled:
    """Follow the pickle at an offset; its end is that in the file."""
    size = _BLOCK_BYTES
    while True:
        data = window.peek(at, size)
        try:
            found = follow(data, ops=ops)
        except FormatError as error:
            # What needs more bytes is read again with more of them; in total, an eighth is read twice.
            if not error.is_cut or len(data) < size or size >= PICKLE_LIMIT_BYTES:
                raise
            size = min(size * _BLOCK_FACTOR, PICKLE_LIMIT_BYTES)
        else:
            return found._replace(end=at + found.end)


def _find_storages(window: ReadWindow, keys: Pickled, state: Pickled) -> dict[str, Extent]:
    if not isinstance(keys.root, list) or len(keys.root) > LAYOUT_LIMIT_TENSORS:
        raise FormatError(TORCH, f"has no list of at most {LAYOUT_LIMIT_TENSORS} storages")
    found: dict[str, Extent] = {}
    at = keys.end
    for key in keys.root:
        storage = state.storages.get(key) if isinstance(key, str) else None
        if storage is None or key in found:
            raise FormatError(TORCH, "has a storage of an unknown type, or twice")
        count = int.from_bytes(window.take(at, _COUNT_BYTES), "little")
        if count != storage.elements:
            raise FormatError(TORCH, f"has another length of the storage {key[:80]!r} than its pickle says")
        # An untyped storage is counted in bytes.
        length = count if storage.dtype is None else storage.dtype.bytes_for(count)
        found[key] = Extent(at + _COUNT_BYTES, length)
        at += _COUNT_BYTES + length
        if at > window.size:
            raise FormatError(TORCH, f"ends within the storage {key[:80]!r}", is_cut=True)
    return found
