"""Bytes that arrive in blocks and are taken in runs.  Pure."""

from __future__ import annotations

from collections import deque

from yarnstore.core.digest import Buffer


class ByteQueue:
    """A queue of bytes; a run that lies within one block is a view of it, any other is copied once."""

    def __init__(self) -> None:
        self._blocks: deque[memoryview] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, block: Buffer) -> None:
        """Add a block at the end; one that may change is copied."""
        if len(block):
            self._blocks.append(memoryview(block if isinstance(block, bytes) else bytes(block)))
            self._size += len(block)

    def take(self, count: int) -> Buffer:
        """Remove and return the first `count` bytes, of which there must be as many."""
        parts = []
        left = count
        while left:
            block = self._blocks.popleft()
            parts.append(block[:left])
            if len(block) > left:
                self._blocks.appendleft(block[left:])
            left -= len(parts[-1])
        self._size -= count
        return parts[0] if len(parts) == 1 else b"".join(parts)
