"""Caching policy: which pages to give up when frames run out, and when to write dirty data back.

Frames are counted by the kernel; which of its own to give up is the file system's choice (Engler
et al. 1995, section 2). The choice here: least recently used, in chunks of 32 neighbouring disk
blocks, so that one entry stands for a 128 KiB read. Writing is behind: data goes out in the
background once 8 MiB of it are dirty, so that a sync finds little to do.

It never decides order or durability: XN does. It knows nothing of inodes or names.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import chain
from typing import Final

from xnfs import Caller, NoFrames, Xn

CHUNK_SHIFT: Final = 5
CHUNK: Final = 1 << CHUNK_SHIFT
#: Dirty data blocks that start writing behind: 8 MiB.
WRITE_BEHIND: Final = 2048
#: Blocks freed at once when frames run out.
EVICT: Final = 512


class PageCache:
    """The pages of one mount, least recently used first."""

    def __init__(self, xn: Xn, who: Caller, dropped: Callable[[range], None]) -> None:
        """`dropped` is told of every run of blocks of which pages may have gone."""
        self._xn = xn
        self._who = who
        self._dropped = dropped
        self._chunks: OrderedDict[int, None] = OrderedDict()
        self._dirty: list[tuple[int, int]] = []
        self._dirty_blocks = 0

    def touch(self, block: int) -> None:
        """The block was used."""
        chunk = block >> CHUNK_SHIFT
        chunks = self._chunks
        if chunk in chunks:
            chunks.move_to_end(chunk)
        else:
            chunks[chunk] = None

    def touch_run(self, start: int, count: int) -> None:
        """A run of blocks was used."""
        chunks = self._chunks
        for chunk in range(start >> CHUNK_SHIFT, ((start + count - 1) >> CHUNK_SHIFT) + 1):
            if chunk in chunks:
                chunks.move_to_end(chunk)
            else:
                chunks[chunk] = None

    def wrote(self, start: int, count: int) -> None:
        """Data became dirty; write some of it back if there is much."""
        self.touch_run(start, count)
        dirty = self._dirty
        if dirty and sum(dirty[-1]) == start:
            dirty[-1] = (dirty[-1][0], dirty[-1][1] + count)
        else:
            dirty.append((start, count))
        self._dirty_blocks += count
        if self._dirty_blocks >= WRITE_BEHIND:
            self.write_behind()

    def write_behind(self) -> None:
        """Write out the data noted since last time. Nothing becomes durable."""
        dirty = [range(start, start + count) for start, count in self._dirty]
        self._dirty.clear()
        self._dirty_blocks = 0
        if dirty:
            self._xn.writeback(self._who, chain.from_iterable(dirty))

    def written(self) -> None:
        """All that is dirty is on its way."""
        self._dirty.clear()
        self._dirty_blocks = 0

    def make_room(self, wanted: int) -> None:
        """Give up old pages until `wanted` frames are free again. Raises NoFrames.

        Clean pages go first; if there are too few, dirty data is written, then all is synced.
        """
        wanted = max(wanted, EVICT)
        freed = self._evict(wanted)
        if freed < wanted:
            self.write_behind()
            freed += self._evict(wanted - freed)
        if freed < wanted:
            self._xn.sync(self._who)
            freed += self._evict(wanted - freed)
        if not freed:
            raise NoFrames("every page is in use")

    def _evict(self, wanted: int) -> int:
        """Give up chunks until so many frames are free; neighbours that come next go at once."""
        freed, chunks = 0, self._chunks
        stay: list[int] = []
        left = len(chunks)
        while left and freed < wanted:
            chunk, _ = chunks.popitem(last=False)
            end, most = chunk + 1, chunk - (freed - wanted) // CHUNK
            while end < most and next(iter(chunks), None) == end:
                chunks.popitem(last=False)
                end += 1
            left -= end - chunk
            run = range(chunk << CHUNK_SHIFT, end << CHUNK_SHIFT)
            gone = self._xn.evict(self._who, run)
            if gone:
                freed += gone
                self._dropped(run)
            if gone < len(run):
                stay += [each for each in range(chunk, end) if self._holds(each)]
        chunks.update(dict.fromkeys(stay))
        return freed

    def _holds(self, chunk: int) -> bool:
        """Whether a block of the chunk is cached."""
        run = range(chunk << CHUNK_SHIFT, (chunk + 1) << CHUNK_SHIFT)
        return any(map(self._xn.cached, run))
