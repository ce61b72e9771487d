"""The bytes that a connection has to send: not yet sent, or sent and not yet acknowledged.

Pieces are kept as they were given and never copied, so that a page of a file cache is its own
retransmission buffer (Kaashoek et al. 1997, section 7.3). Only small writes are put together.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

_SMALL: Final = 1024

Piece = bytes | memoryview


class SendQueue:
    """A run of the sequence space, from `start` to `end`, and its bytes."""

    def __init__(self, start: int) -> None:
        self.start = self.end = start
        self._starts: list[int] = []
        self._pieces: list[Piece] = []

    def __len__(self) -> int:
        return self.end - self.start

    def append(self, data: bytes | memoryview) -> None:
        """Add bytes. They must not change until they are acknowledged."""
        if not len(data):
            return
        last = self._pieces[-1] if self._pieces else b""
        if isinstance(last, bytes) and 0 < len(last) < _SMALL and len(data) < _SMALL:
            self._pieces[-1] = last + data
        else:
            self._starts.append(self.end)
            self._pieces.append(data)
        self.end += len(data)

    def slice(self, seq: int, end: int) -> tuple[Piece, ...]:
        """The bytes seq..end, in as many parts as they were given in."""
        at = bisect_right(self._starts, seq) - 1
        parts: list[Piece] = []
        while seq < end:
            piece, start = self._pieces[at], self._starts[at]
            stop = min(end, start + len(piece))
            whole = seq == start and stop == start + len(piece)
            parts.append(piece if whole else memoryview(piece)[seq - start : stop - start])
            seq = stop
            at += 1
        return tuple(parts)

    def release(self, seq: int) -> None:
        """All before `seq` is acknowledged: let go of it."""
        if seq <= self.start:
            return
        self.start = min(seq, self.end)
        gone = bisect_right(self._starts, self.start)
        if gone and self._starts[gone - 1] + len(self._pieces[gone - 1]) > self.start:
            gone -= 1  # the piece that `start` lies in is still needed
        del self._starts[:gone], self._pieces[:gone]
