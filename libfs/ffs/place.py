"""Where things go: the policy of McKusick et al. 1984, section 3, on top of `find_free`.

The disk is cut into cylinder groups of 4032 blocks. An inode lies near its directory, a file's
bytes follow each other near its inode, and a new directory goes to a group with more than its
share of free space, so that there is room around it for what will come. Inodes gather in runs of
64 with the data of small files right behind, so that what is used together is read and written in
few pieces (`ahead`, `groups`). Not each inode beside its own data: the two are written at different
times, and neither would lie in one piece then.

Everything here is a hint: XN decides what is free. Nothing is remembered over a mount.
"""

from __future__ import annotations

from typing import Final

from libfs.ffs import format as f
from libfs.ffs.inode import Vnode
from libfs.ffs.volume import Volume

#: Inodes gather in aligned runs of this many blocks.
INODE_RUN: Final = 64
#: Groups looked at for a new directory.
GROUPS_SEEN: Final = 32


class Placer:
    """Chooses blocks for one mount."""

    def __init__(self, vol: Volume) -> None:
        self._vol = vol
        self._directories: dict[int, int] = {}  # group -> directories put there by this mount
        lo, hi = vol.xn.data_area
        self._groups = range(lo // f.GROUP, -(-hi // f.GROUP))
        self._lo = lo

    def inode(self, directory: Vnode) -> int:
        """A block for a new inode in `directory`."""
        block, _n = self._vol.find_free(directory.next_inode, 1)
        directory.next_inode = block + 1
        return block

    def directory(self, parent: Vnode) -> int:
        """A block for a new directory: in a group with above-average free space and few others."""
        group = self._group_for(parent.ino // f.GROUP)
        self._directories[group] = self._directories.get(group, 0) + 1
        hint = max(group * f.GROUP, self._lo) if group != parent.ino // f.GROUP else parent.ino + 1
        return self._vol.find_free(hint, 1)[0]

    def _group_for(self, near: int) -> int:
        xn, groups = self._vol.xn, self._groups
        average = xn.free_blocks() // len(groups)
        best, fewest = near, -1
        for i in range(min(len(groups), GROUPS_SEEN)):
            group = groups[(near - groups.start + i) % len(groups)]
            if xn.group_free(group) >= average:
                here = self._directories.get(group, 0)
                if fewest < 0 or here < fewest:
                    best, fewest = group, here
        return best

    def near(self, v: Vnode) -> int:
        """A hint for metadata that belongs to an inode: leaves, nodes, attributes."""
        return v.ino + 1

    def data(self, v: Vnode, before: int) -> int:
        """A hint for data of `v`; `before` is the disk block of the data before it, 0 if none."""
        if before:
            return before + 1
        return (v.ino // INODE_RUN + 1) * INODE_RUN
