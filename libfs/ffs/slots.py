"""One block of extent slots: the 12 of an inode, or the 250 of a node, sorted in memory.

On the disk slots are unordered, so that an insertion writes 16 bytes; here they are sorted by file
block. A `Slots` remembers which slots differ from the block, and gives them as one diff; it can be
thrown away and decoded again at any time it is clean. Trees of them: `extents`.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

from libfs.ffs import format as f
from xnfs import CorruptionError

#: first file block, count (0: a node), kind, block, slot
Entry = tuple[int, int, int, int, int]


class Slots:
    """The slots of one block, sorted. `level` 0: extents; above: nodes of level - 1."""

    __slots__ = ("at", "block", "by_slot", "dirty", "entries", "firsts", "free", "level")

    def __init__(self, block: int, level: int, at: int, size: int) -> None:
        self.block = block
        self.level = level
        self.at = at
        self.by_slot: list[Entry | None] = [None] * size
        self.entries: list[Entry] = []
        self.firsts: list[int] = []
        self.free = list(range(size - 1, -1, -1))
        self.dirty: set[int] = set()

    def find(self, fb: int) -> int:
        """Index of the last entry at or below file block `fb`; -1 if there is none."""
        return bisect_right(self.firsts, fb) - 1

    def insert(self, first: int, count: int, kind: int, block: int) -> Entry:
        """Take a free slot, which must exist."""
        slot = self.free.pop()
        entry = (first, count, kind, block, slot)
        at = bisect_right(self.firsts, first)
        self.entries.insert(at, entry)
        self.firsts.insert(at, first)
        self.by_slot[slot] = entry
        self.dirty.add(slot)
        return entry

    def replace(self, at: int, first: int, count: int, kind: int, block: int) -> Entry:
        """Change entry `at` in its slot; its place in the order must stay."""
        slot = self.entries[at][4]
        entry = (first, count, kind, block, slot)
        self.entries[at] = entry
        self.firsts[at] = first
        self.by_slot[slot] = entry
        self.dirty.add(slot)
        return entry

    def remove(self, at: int) -> Entry:
        """Free the slot of entry `at`."""
        entry = self.entries.pop(at)
        del self.firsts[at]
        slot = entry[4]
        self.by_slot[slot] = None
        self.free.append(slot)
        self.dirty.add(slot)
        return entry

    def diffs(self) -> list[tuple[int, bytes]]:
        """What changed since the last call."""
        out = []
        for slot in self.dirty:
            entry = self.by_slot[slot]
            raw = _EMPTY if entry is None else _encode(entry)
            out.append((self.at + slot * f.SLOT_SIZE, raw))
        self.dirty.clear()
        return out


_EMPTY = bytes(f.SLOT_SIZE)


def _encode(entry: Entry) -> bytes:
    first, count, kind, block, _slot = entry
    return f.SLOT.pack(first, count, f.pointer(kind, block))


def new_node(block: int, level: int) -> Slots:
    """An empty node."""
    return Slots(block, level, f.NODE_SLOTS_AT, f.NODE_SLOTS)


def node_head(level: int, ino: int) -> tuple[int, bytes]:
    """The diff that gives a new node its head."""
    return (f.NODE_AT, f.NODE_HEAD.pack(level, 0, ino))


def decode_inode_untrusted(block: int, raw: bytes | memoryview, depth: int) -> Slots:
    """The slots of an inode. Raises CorruptionError."""
    slots = Slots(block, depth, f.INODE_SLOTS_AT, f.INODE_SLOTS)
    return _fill_untrusted(slots, raw)


def decode_node_untrusted(block: int, raw: bytes | memoryview, level: int, ino: int) -> Slots:
    """The slots of a node of the expected level and inode. Raises CorruptionError."""
    got_level, _zero, got_ino = f.NODE_HEAD.unpack_from(raw, f.NODE_AT)
    if got_level != level:
        raise CorruptionError(block, "level", got_level, level)
    if got_ino != ino:
        raise CorruptionError(block, "inode", got_ino, ino)
    return _fill_untrusted(new_node(block, level), raw)


def _fill_untrusted(slots: Slots, raw: bytes | memoryview) -> Slots:
    size = len(slots.by_slot)
    area = raw[slots.at : slots.at + size * f.SLOT_SIZE]
    found: list[Entry] = []
    free = []
    for slot, (first, count, pointer) in enumerate(f.SLOT.iter_unpack(area)):
        if pointer == 0:
            free.append(slot)
            continue
        kind, block = pointer >> f.KIND_SHIFT, pointer & f.BLOCK_MASK
        entry = (first, count, kind, block, slot)
        if kind not in ((f.P_NODE,) if slots.level else (f.P_DATA, f.P_UNWRITTEN)):
            raise CorruptionError(slots.block, f"kind of slot {slot}", kind, "of its level")
        if (count == 0) != (slots.level > 0) or first + count > f.MAX_FILE_BLOCKS:
            raise CorruptionError(slots.block, f"extent in slot {slot}", entry[:2], "in range")
        found.append(entry)
        slots.by_slot[slot] = entry
    found.sort()
    for before, after in pairwise(found):
        if before[0] + max(before[1], 1) > after[0]:
            raise CorruptionError(slots.block, "file block", after[0], "one extent for each")
    slots.entries = found
    slots.firsts = [entry[0] for entry in found]
    slots.free = free[::-1]
    return slots
