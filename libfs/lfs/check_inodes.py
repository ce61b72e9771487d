"""The checker's view of inodes: records, maps, attributes, leaves of names.

Each inode is looked at once. What can't be had is cut off: an address becomes a hole, a leaf an
empty one. `vol` then has the inode as it will be written; names are for `check`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from libfs.lfs import format as f
from libfs.lfs.inode import Vnode
from libfs.lfs.names import Leaf
from libfs.lfs.tree import UNWRITTEN
from xnfs import CorruptionError

if TYPE_CHECKING:
    from libfs.common.checking import Log
    from libfs.lfs.tree import Tree
    from libfs.lfs.volume import Volume


class InodeChecker:
    """Checks one inode after the other."""

    def __init__(self, vol: Volume, log: Log) -> None:
        self._vol = vol
        self._log = log
        self._claimed: set[int] = set()
        self._kinds: dict[int, bytes] = {}

    # -- addresses

    def _kind(self, address: int) -> int:
        """What the summary says of a block; 0 if it is none of the log."""
        block = address & f.AT_MASK
        segments = self._vol.segments
        segment = block // segments.size
        usage = segments.usage.get(segment)
        if usage is None:
            return 0
        kinds = self._kinds.get(segment)
        if kinds is None:
            kinds = self._kinds[segment] = self._kinds_of(segment)
        index = block - usage.summary - 1
        return kinds[index] if 0 <= index < f.SLOTS else 0

    def _kinds_of(self, segment: int) -> bytes:
        kinds = bytearray(f.SLOTS)
        try:
            slots = self._vol.segments.slots_untrusted(segment)[1]
        except CorruptionError:
            slots = []
        for index, kind, count, *_rest in slots:
            kinds[index : index + count] = bytes([kind]) * count
        return bytes(kinds)

    def claim(self, address: int, kind: int) -> bool:
        """Whether a block is of this kind, and nobody's yet."""
        block = address & f.AT_MASK
        if block in self._claimed or self._kind(address) != kind:
            return False
        self._claimed.add(block)
        return True

    def map(self, tree: Tree) -> bool:
        """Check the nodes of a map, those above first; whether none was cut off."""
        whole = True
        for level in range(tree.depth, 0, -1):
            for index, at in list(tree.at_level(level)):
                if at == UNWRITTEN:
                    continue  # made by rolling forward
                if not (self.claim(at, f.P_MAP1 + level - 1) and tree.readable(level, index)):
                    whole = False
                    self._log("map-lost", at & f.AT_MASK, ino=tree.ino)
                    tree.cut(level, index)
        return whole

    # -- one inode

    def inode(self, ino: int, address: int) -> Vnode | None:
        """The inode, mended; None if it can't be read."""
        vol, log = self._vol, self._log
        try:
            if self._kind(address) != f.P_INODES:
                raise CorruptionError(address & f.AT_MASK, "kind", self._kind(address), "inodes")
            v = vol.vnodes[ino] = vol.load_untrusted(ino, address)
        except CorruptionError as error:
            log("inode-lost", address & f.AT_MASK, ino=ino, why=error)
            vol.vnodes.pop(ino, None)
            vol.imap.set(ino, 0)
            return None
        if not self.map(v.tree):
            vol.changed(v)
        if v.is_dir:
            self._leaves(v)
        else:
            self._data(v)
        self._xattrs(v)
        blocks = sum(1 for _value in v.tree.at_level(0))
        if v.is_dir and not v.inline:
            blocks = len(v.leaves)
        if v.blocks != blocks:
            log("inode-blocks", address & f.AT_MASK, ino=ino, got=v.blocks, want=blocks)
            self._set(v, blocks=blocks)
        return v

    def _set(self, v: Vnode, **fields: int) -> None:
        for name, value in fields.items():
            setattr(v, name, value)
        self._vol.changed(v)

    def _data(self, v: Vnode) -> None:
        end = -(-v.size // f.BLOCK)
        for i, at in list(v.tree.at_level(0)):
            if at == f.RESERVED:
                continue
            code = "data-end" if i >= end else "address"
            if i >= end or not self.claim(at, f.P_DATA):
                self._log(code, at & f.AT_MASK, ino=v.ino, at=i)
                v.tree.set(i, 0)
                self._vol.changed(v)

    def _xattrs(self, v: Vnode) -> None:
        if not v.xattr_at:
            return
        try:
            if not self.claim(v.xattr_at, f.P_XATTR):
                raise CorruptionError(v.xattr_at & f.AT_MASK, "kind", 0, "attributes")
            self._vol.xattrs(v)
        except CorruptionError as error:
            self._log("xattr-lost", v.xattr_at & f.AT_MASK, ino=v.ino, why=error)
            v.xattrs, v.xattrs_dirty, v.xattr_at = {}, False, 0
            self._vol.changed(v)

    # -- the leaves of a directory

    def _leaves(self, v: Vnode) -> None:
        if v.inline:
            return
        after = 0
        for number, at in list(v.tree.at_level(0)):
            try:
                if not self.claim(at, f.P_NAMES):
                    raise CorruptionError(at & f.AT_MASK, "kind", self._kind(at), "names")
                leaf = self._vol.leaf(v, number)
                assert leaf is not None  # it has an address
                if number < after:
                    raise CorruptionError(at & f.AT_MASK, "lowest hash", number, f"from {after} on")
            except CorruptionError as error:
                self._log("leaf-lost", at & f.AT_MASK, ino=v.ino, why=error)
                v.leaves.pop(number, None)
                v.tree.set(number, 0)
                self._vol.changed(v)
                continue
            after = number + (1 << (v.bits - leaf.bits))
        self._gaps(v)

    def _gaps(self, v: Vnode) -> None:
        """Every hash has a leaf."""
        at, end = 0, 1 << v.bits
        missing = []
        for number in [*sorted(v.leaves), end]:
            missing += list(_pieces(at, number))
            at = number if number == end else number + (1 << (v.bits - v.leaves[number].bits))
        for start, size in missing:
            leaf = Leaf(start << (64 - v.bits), v.bits - size.bit_length() + 1)
            v.leaves[start] = leaf
            self._vol.changed(v)
        if missing:
            self._log("leaf-gap", v.ino, ino=v.ino)


def _pieces(lo: int, hi: int) -> Iterator[tuple[int, int]]:
    """[lo, hi) in pieces whose size is a power of 2 that divides their start."""
    while lo < hi:
        size = lo & -lo if lo else 1 << hi.bit_length()
        while lo + size > hi:
            size >>= 1
        yield lo, size
        lo += size
