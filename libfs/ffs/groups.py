"""C-FFS: the small files of a directory are read as one (Ganger and Kaashoek 1997, section 3).

An inode here is a block that holds small files itself, so the first idea of that paper, inodes
embedded in directories, is half there; this is the second, explicit grouping. `place` puts the
inodes of a directory side by side, and the data of small files right behind. Whoever reads one
inode gets all inodes of the same block of names that lie in the same window of 64 blocks, and
whoever reads the data of a small file that of all of them, with one request for each run of
neighbours.

It costs frames for what may never be asked for, so it is the choice of who makes or mounts the file
system. Without it `ahead` has the device fetch as much, but takes no frames, and each is then bound
by a request of its own.
"""

from __future__ import annotations

from typing import Final

from libfs.ffs import format as f
from libfs.ffs.ahead import WINDOW_SHIFT
from libfs.ffs.extents import ExtentMap
from libfs.ffs.inode import DT_REG
from libfs.ffs.nameblock import NameBlock
from libfs.ffs.volume import PART_BITS, Volume
from xnfs import NoFrames

#: Files with more data than this many blocks are read by themselves.
SMALL: Final = 16

#: parent, partition, start, count: as `Xn.readin` takes them
Want = tuple[int, int, int, int]


class Groups:
    """The groups of one mount. Nothing is remembered: the cache says what was read."""

    def __init__(self, vol: Volume, extents: ExtentMap) -> None:
        self._vol = vol
        self._map = extents

    def inode(self, block: int) -> bool:
        """Have an inode that is not cached read, with its neighbours; False if it has none, or
        there are no frames for them."""
        wanted = []
        cached = self._vol.xn.cached
        for ino, slot, parent in self._siblings(block):
            if ino >> WINDOW_SHIFT == block >> WINDOW_SHIFT and not cached(ino):
                wanted.append((parent, slot, ino, 1))
        return self._read(wanted, block)

    def data(self, owner: int, block: int) -> bool:
        """As `inode`, for data at `block` that an inode owns."""
        vol = self._vol
        wanted: list[Want] = []
        for ino, _slot, _parent in self._siblings(owner):
            if not vol.xn.cached(ino):
                continue
            v = vol.vnodes.get(ino) or vol.vnode(ino)
            if v.mode >> 12 != DT_REG or v.depth or not 0 < v.blocks <= SMALL:
                continue
            for _first, count, kind, start, slot in self._map.root(v).entries:
                if kind == f.P_DATA and start >> WINDOW_SHIFT == block >> WINDOW_SHIFT:
                    wanted.append((ino, slot, start, count))
        return self._read(wanted, block)

    def _siblings(self, ino: int) -> list[tuple[int, int, int]]:
        """Inodes named in the same block, if that is at hand: (inode, slot, the block)."""
        home = self._vol.home.get(ino)
        names = None if home is None else self._vol.decoded.get(home >> PART_BITS)
        if not isinstance(names, NameBlock):
            return []
        return [(ino, slot, names.block) for slot, ino, _kind, _type in names.names.values()]

    def _read(self, wanted: list[Want], block: int) -> bool:
        """Read what is wanted, if `block` is among it and does not stand alone."""
        vol = self._vol
        if len(wanted) < 2 or not any(s <= block < s + n for _p, _part, s, n in wanted):
            return False
        try:
            vol.xn.readin_all(vol.who, wanted)
        except NoFrames:
            return False
        for _parent, _part, start, count in wanted:
            vol.cache.touch_run(start, count)
        return True
