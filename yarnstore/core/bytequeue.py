"""A queue of bytes that arrive in blocks and are read in runs.  Pure."""

from __future__ import annotations

from collections import deque

from yarnstore.core.digest import Buffer
from yarnstore.core.limits import KIB

# Smaller blocks are put together as they come: one by one each costs more than it holds, and a server may
# send byte by byte.
_SMALL_BYTES = 4 * KIB


class ByteQueue:
    """A queue of bytes; a run that lies within one large block is a view of it, any other is copied."""

    def __init__(self) -> None:
        self._blocks: deque[memoryview] = deque()
        self._small = bytearray()  # behind the blocks
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, block: Buffer) -> None:
        """Add a block at the end; one that may change is copied."""
        self._size += len(block)
        if len(block) < _SMALL_BYTES:
            self._small += block
        else:
            self._gather()
            self._blocks.append(memoryview(block if isinstance(block, bytes) else bytes(block)))
        if len(self._small) >= _SMALL_BYTES:
            self._gather()

    def _gather(self) -> None:
        if self._small:
            self._blocks.append(memoryview(bytes(self._small)))
            self._small.clear()

    def take(self, count: int) -> Buffer:
        """Remove and return the first `count` bytes, of which there must be as many."""
        parts = []
        left = count
        while left:
            if not self._blocks:
                self._gather()
            block = self._blocks.popleft()
            parts.append(block[:left])
            if len(block) > left:
                self._blocks.appendleft(block[left:])
            left -= len(parts[-1])
        self._size -= count
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def peek(self) -> bytes:
        """A copy of all that is in the queue, which stays there."""
        return b"".join((*self._blocks, self._small))
