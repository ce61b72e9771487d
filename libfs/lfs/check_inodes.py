"""The checker's view of inodes: records, maps, attributes, leaves of names.

Each inode is looked at once. What can't be had is cut off: an address becomes a hole, a leaf an
empty one. `vol` then has the inode as it will be written; names are for `check`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from libfs.lfs import format as f
from libfs.lfs.inode import Vnode
from libfs.lfs.names import Leaf
from libfs.lfs.segments import Slot
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
        self.names_lost = False
        self._claimed: set[int] = set()
        self._slots: dict[int, list[Slot | None]] = {}
        #: segment -> (offset in its summary -> bytes) of slots that were mended
        self.slots: dict[int, dict[int, bytes]] = {}

    # -- addresses

    def _slot(self, address: int) -> Slot | None:
        """What the summary says of a block; None if it is none of the log."""
        block = address & f.AT_MASK
        segments = self._vol.segments
        segment = block // segments.size
        usage = segments.usage.get(segment)
        if usage is None:
            return None
        slots = self._slots.get(segment)
        if slots is None:
            slots = self._slots[segment] = self._slots_of(segment)
        index = block - usage.summary - 1
        return slots[index] if 0 <= index < f.SLOTS else None

    def _slots_of(self, segment: int) -> list[Slot | None]:
        """For each block after the summary."""
        owners: list[Slot | None] = [None] * f.SLOTS
        with suppress(CorruptionError):  # whatever is in it can't be claimed
            for slot in self._vol.segments.slots_untrusted(segment)[1]:
                owners[slot[0] : slot[0] + slot[2]] = [slot] * slot[2]
        return owners

    def _kind(self, address: int) -> int:
        """Of a block, as the summary has it; 0 if it is none of the log."""
        slot = self._slot(address)
        return slot[1] if slot else 0

    def claim(self, address: int, kind: int, ino: int, at: int, shift: int = 0) -> bool:
        """Whether a block is of this kind, and nobody's yet. It is the block `at` of an inode, as
        far as the upper bits of what the summary says tell, and if that says otherwise it is wrong:
        the cleaner would take the block for a dead one."""
        block = address & f.AT_MASK
        slot = self._slot(address)
        if block in self._claimed or slot is None or slot[1] != kind:
            return False
        self._claimed.add(block)
        segment = block // self._vol.segments.size
        first = self._vol.segments.usage[segment].summary + 1 + slot[0]
        if (slot[3], slot[4] + block - first >> shift) != (ino, at):
            self._log("slot", first - 1 - slot[0], where=block, ino=ino, at=at)
            place = max((at << shift) - (block - first), 0)
            self._mend(segment, Slot((*slot[:3], ino, place, slot[5])))
        return True

    def _mend(self, segment: int, slot: Slot) -> None:
        """What is said of the blocks of a slot, from now on."""
        index, count = slot[0], slot[2]
        self._slots[segment][index : index + count] = [slot] * count
        at = f.SLOTS_AT + index * f.SLOT_SIZE + f.POINTER.size
        self.slots.setdefault(segment, {})[at] = f.SLOT_OF.pack(slot[3], slot[4])

    def write_slots(self) -> None:
        """Put what was mended into the summaries, in memory. Raises XnError."""
        vol = self._vol
        for segment, diffs in self.slots.items():
            summary = vol.segments.summary(segment)
            vol.xn.change(vol.who, [(summary, list(diffs.items()))])
            vol.log.anchors[summary] = vol.log.flush
            vol.segments.forget(summary)

    def map(self, tree: Tree) -> bool:
        """Check the nodes of a map, those above first; whether none was cut off."""
        whole = True
        for level in range(tree.depth, 0, -1):
            for index, at in list(tree.at_level(level)):
                if at == UNWRITTEN:
                    continue  # made by rolling forward
                if not (
                    self.claim(at, f.P_MAP1 + level - 1, tree.ino, index)
                    and tree.readable(level, index)
                ):
                    whole = False
                    self._log("map-lost", at & f.AT_MASK, ino=tree.ino)
                    tree.cut(level, index)
        return whole

    # -- one inode

    def inode(self, ino: int, address: int) -> Vnode | None:
        """The inode, mended; None if it can't be read."""
        vol, log = self._vol, self._log
        try:
            slot = self._slot(address)
            lies = slot is not None and slot.contradicts  # its block is what it says that it is
            if not lies and self._kind(address) != f.P_INODES:
                raise CorruptionError(address & f.AT_MASK, "kind", self._kind(address), "inodes")
            v = vol.vnodes[ino] = vol.load_untrusted(ino, address)
            if lies:
                vol.changed(v)  # to where no summary lies of it
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
            if i >= end or not self.claim(at, f.P_DATA, v.ino, i):
                self._log(code, at & f.AT_MASK, ino=v.ino, at=i)
                v.tree.set(i, 0)
                self._vol.changed(v)

    def _xattrs(self, v: Vnode) -> None:
        if not v.xattr_at:
            return
        try:
            if not self.claim(v.xattr_at, f.P_XATTR, v.ino, 0):
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
                if not self.claim(at, f.P_NAMES, v.ino, number, 32 - v.bits):
                    raise CorruptionError(at & f.AT_MASK, "kind", self._kind(at), "names")
                leaf = self._vol.leaf(v, number)
                assert leaf is not None  # it has an address
                if number < after:
                    raise CorruptionError(at & f.AT_MASK, "lowest hash", number, f"from {after} on")
            except CorruptionError as error:
                self.names_lost = True
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
