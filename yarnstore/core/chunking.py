"""Chunking: where a file is cut.

docs/format/chunking.md governs it.  Cut points are the publisher's choice: a reader follows the
manifest, so what is decided here can improve without a change of format.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from pyfastcdc import FastCDC

from yarnstore.core.limits import CHUNK_AVG_BYTES, CHUNK_MAX_BYTES, CHUNK_MIN_BYTES, MIB

# Reads the next n bytes of a file, fewer only at its end.
ReadNext: TypeAlias = Callable[[int], bytes]

# What is looked at in one go.  Large against the largest chunk, since the piece after the last
# sure cut is looked at again.
_WINDOW_BYTES = 8 * MIB


def iter_chunk_batches(read_next: ReadNext) -> Iterator[list[memoryview]]:
    """The chunks of a file in order, in batches of about 8 MiB, by content-defined cuts
    (FastCDC, Xia et al. 2016).

    This is the one place that decides on cuts: knowledge of the file's layout belongs here.
    """
    cutter = FastCDC(avg_size=CHUNK_AVG_BYTES, min_size=CHUNK_MIN_BYTES, max_size=CHUNK_MAX_BYTES)
    rest = b""
    while True:
        block = read_next(_WINDOW_BYTES)
        window = rest + block if rest else block
        if not window:
            return
        view = memoryview(window)
        at_end = len(block) < _WINDOW_BYTES
        batch = []
        start = 0
        for end in _cut_ends(cutter.cut_buf(window)):
            # Short of the largest chunk from the window's end, a cut may be the window's own.
            if not at_end and start + CHUNK_MAX_BYTES > len(window):
                break
            batch.append(view[start:end])
            start = end
        yield batch
        if at_end:
            return
        rest = window[start:]


def _cut_ends(chunks: Iterable[object]) -> Iterator[int]:
    for chunk in chunks:
        yield chunk.offset + chunk.length  # type: ignore[attr-defined]
