"""A FIFO queue of bytes: appended in blocks, read in lengths of any size.  Pure."""

from __future__ import annotations

from collections import deque

from yarnstore.core.digest import Buffer
from yarnstore.core.limits import KIB

# Smaller blocks are joined: a memoryview costs more memory than a small block, and a server may send single
# bytes.
_SMALL_BYTES = 4 * KIB


class ByteQueue:
    """A queue of bytes.  Bytes within one large block are returned as a view of it, others as a copy."""

    def __init__(self) -> None:
        self._blocks: deque[memoryview] = deque()
        self._small = bytearray()  # behind the blocks
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, block: Buffer) -> None:
        """Add a block at the end; a mutable block is copied."""
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
        """Remove and return the first `count` bytes; the queue must hold that many."""
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
        """Return a copy of all bytes in the queue without removing them."""
        return b"".join((*self._blocks, self._small))
