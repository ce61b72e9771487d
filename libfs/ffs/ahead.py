"""Reading ahead: which blocks the device is asked to have at hand before each is read by itself.

An inode is a block of its own, named by a pointer of its own, so it is read by itself;
a device that is asked for one block at a time costs more than all else together. Placement puts
inodes near their directory and each other (`place`), so what will be wanted lies close together:

- who knows the blocks that come next says so (`many`), and they are fetched in few pieces;
- otherwise the third block that is read by itself in a window of 64 has the window fetched.

Nothing is bound or believed here, no frame is taken and nothing is waited for: `Xn.prefetch` tells
the device, which fetches several pieces at a time while what has come is decoded; a block that
cannot be fetched is left to whoever reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from xnfs import Caller, Xn, XnError

WINDOW_SHIFT: Final = 6
#: Blocks of a window, 256 KiB.
WINDOW: Final = 1 << WINDOW_SHIFT
#: Blocks read by themselves in a window before all of it is fetched.
LONE: Final = 3
#: Blocks between two wanted ones that are fetched along: cheaper than a second request.
GAP: Final = 16
#: Blocks of one request: bounds the memory that it needs, 1 MiB.
PIECE: Final = 256
#: Windows remembered.
WINDOWS: Final = 1024


class ReadAhead:
    """What one mount has had fetched. Two integers for each of at most `WINDOWS` windows."""

    def __init__(self, xn: Xn, who: Caller) -> None:
        self._xn = xn
        self._who = who
        self._fetched: dict[int, int] = {}  # window -> bit set of blocks at hand, not read yet
        self._lone: dict[int, int] = {}  # window -> blocks read by themselves

    def lone(self, block: int) -> None:
        """The block is about to be read by itself."""
        window, bit = block >> WINDOW_SHIFT, 1 << (block & WINDOW - 1)
        fetched = self._fetched.get(window, 0)
        if fetched & bit:
            self._fetched[window] = fetched & ~bit
            return
        count = self._lone.pop(window, 0) + 1
        if count >= LONE:
            self._fetch(window << WINDOW_SHIFT, (window + 1) << WINDOW_SHIFT)
            return
        if len(self._lone) >= WINDOWS:
            self._lone.clear()
        self._lone[window] = count

    def many(self, blocks: Iterable[int]) -> None:
        """These blocks will be read one by one, in whatever order."""
        start = end = -GAP - 2
        for block in sorted(b for b in blocks if not self.at_hand(b) and not self._xn.cached(b)):
            if block > end + GAP or block - start >= PIECE:
                self._fetch(start, end)
                start = block
            end = block + 1
        self._fetch(start, end)

    def hint(self, runs: Iterable[tuple[int, int]]) -> None:
        """These runs, ascending, will be read. The device may fetch many at a time; nothing is
        waited for."""
        start = end = 0
        for block, count in runs:
            if block > end + GAP or block + count > start + PIECE:
                self._tell(start, end)
                start = block
            end = block + count
        self._tell(start, end)

    def _tell(self, start: int, end: int) -> None:
        for at in range(start, end, PIECE):
            with suppress(XnError):
                self._xn.prefetch(self._who, at, min(PIECE, end - at), wait=False)

    def at_hand(self, block: int) -> bool:
        """Whether it was fetched and not read since."""
        return bool(self._fetched.get(block >> WINDOW_SHIFT, 0) >> (block & WINDOW - 1) & 1)

    def _fetch(self, start: int, end: int) -> None:
        end = min(end, self._xn.blocks)
        if end <= start:
            return
        if end > start + 1:  # one block is as well read where it is wanted
            with suppress(XnError):
                self._xn.prefetch(self._who, start, end - start, wait=False)
        if len(self._fetched) >= WINDOWS:
            self._fetched.clear()
        for window in range(start >> WINDOW_SHIFT, (end - 1 >> WINDOW_SHIFT) + 1):
            base = window << WINDOW_SHIFT
            lo, hi = max(start - base, 0), min(end - base, WINDOW)
            self._fetched[window] = self._fetched.get(window, 0) | (1 << hi) - (1 << lo)
