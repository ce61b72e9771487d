"""Answers that lie ready: bytes that are given to many peers, and what is computed of them once.

The bytes stay where they are (pages of a file cache), in as many pieces as they were given in.
Source: Kaashoek et al. 1997, section 7.3: checksums are computed once and kept with the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from libos.net import checksum
from libos.net.tcp.sendqueue import Piece, SendQueue

_SIZES: Final = 2  # of segments for which sums are kept: peers differ little in them


class Ready:
    """What a request is answered with; the connection ends with it if it is the `last`."""

    __slots__ = ("_bytes", "_segments", "last", "size")

    def __init__(self, pieces: Iterable[Piece], last: bool) -> None:
        """The pieces must not change while this is there."""
        self._bytes = SendQueue(0)
        for piece in pieces:
            self._bytes.append(piece)
        self.size, self.last = len(self._bytes), last
        self._segments: dict[int, dict[int, tuple[bytes, int]]] = {}

    def slice(self, at: int, end: int) -> tuple[Piece, ...]:
        """The bytes at..end."""
        return self._bytes.slice(at, end)

    def segment(self, at: int, size: int) -> tuple[bytes, int]:
        """Up to `size` bytes from `at`, and the sum of their words (`checksum.partial_sum`)."""
        segments = self._segments.get(size)
        if segments is None:
            segments = {}
            if len(self._segments) < _SIZES:
                self._segments[size] = segments
        known = segments.get(at)
        if known is None:
            data = b"".join(self.slice(at, min(at + size, self.size)))
            known = segments[at] = data, checksum.partial_sum(data)
        return known
