"""One block of names: an inline directory, or a leaf of a hashed one, decoded.

A name takes a free slot (pointer and record) and is appended to the heap; a removed one leaves its
bytes in the heap until the block is rebuilt in its canonical form, sorted by hash without gaps.
Those are the only two changes that the acl lets through (rule A1, `rules.NAMES`).
A `NameBlock` remembers what differs from the block and gives it as one diff. Which block a name
belongs to: `directory`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from libfs.common.naming import name_hash
from libfs.ffs import format as f
from xnfs import CorruptionError

#: slot, inode, kind of pointer, d_type
Named = tuple[int, int, int, int]
#: Kinds of pointer that have a name.
_NAMED: Final = (f.P_INODE, f.P_DIR)


class NameBlock:
    """The names of one block and where they lie in it."""

    __slots__ = (
        *("area", "block", "dirty", "end", "free", "heap", "hi", "ino"),
        *("key", "live", "lo", "names", "order", "records"),
    )

    def __init__(
        self, area: f.NameArea, block: int, ino: int, key: bytes, lo: int, hi: int
    ) -> None:
        self.area = area
        self.block = block
        self.ino = ino  # the directory's, and its key
        self.key = key
        self.lo = lo
        self.hi = hi
        self.end = area.heap
        self.live = 0  # bytes of the heap that are in use
        self.names: dict[bytes, Named] = {}
        self.records: dict[int, tuple[int, int, int]] = {}  # slot -> offset, length, d_type
        self.free = list(range(area.slots - 1, -1, -1))
        self.dirty: dict[int, bytes] = {}  # slots written since, and their names; b"": none
        self.heap: list[tuple[int, bytes]] = []  # names appended since the last diff
        self.order: list[tuple[int, bytes]] | None = None  # (hash, name) sorted

    # -- room

    def fits(self, name: bytes) -> bool:
        """Whether `name` can be added as the block is."""
        return bool(self.free) and self.end + len(name) <= self.area.limit

    def fits_rebuilt(self, name: bytes) -> bool:
        """Whether it is worth rebuilding the block to add `name`."""
        room = self.area.limit - self.area.heap
        return bool(self.free) and self.live + len(name) <= room - room // 8

    # -- changes

    def add(self, name: bytes, ino: int, kind: int, d_type: int) -> int:
        """Add a name that is not there and fits; the slot it got."""
        slot = self.free.pop()
        self.names[name] = (slot, ino, kind, d_type)
        self.records[slot] = (self.end, len(name), d_type)
        self.heap.append((self.end, name))
        self.end += len(name)
        self.live += len(name)
        self.dirty[slot] = name
        self.order = None
        return slot

    def point(self, name: bytes, ino: int, kind: int, d_type: int) -> int:
        """Let a name that is there stand for another inode; its slot."""
        slot = self.names[name][0]
        self.names[name] = (slot, ino, kind, d_type)
        offset, length, _old = self.records[slot]
        self.records[slot] = (offset, length, d_type)
        self.dirty[slot] = name
        return slot

    def remove(self, name: bytes) -> Named:
        """Take a name away."""
        named = self.names.pop(name)
        slot = named[0]
        del self.records[slot]
        self.free.append(slot)
        self.live -= len(name)
        self.dirty[slot] = b""
        self.order = None
        return named

    # -- order

    def sorted(self) -> list[tuple[int, bytes]]:
        """(hash, name) of all names, in the order of the hash."""
        if self.order is None:
            self.order = sorted((name_hash(self.key, name), name) for name in self.names)
        return self.order

    # -- bytes

    def ends(self) -> bytes:
        """Number of names and end of the heap, as stored."""
        return f.ENDS.pack(len(self.names), self.end)

    def diffs(self) -> list[tuple[int, bytes]]:
        """What changed since the last call; the ends too, unless they lie in an inode's header."""
        area = self.area
        out: list[tuple[int, bytes]] = []
        for slot, name in self.dirty.items():
            pointer, record, tag = bytes(8), bytes(4), bytes(4)
            if name:
                _slot, ino, kind, _d_type = self.names[name]
                pointer = f.POINTER.pack(f.pointer(kind, ino))
                record = f.RECORD.pack(*self.records[slot])
                tag = f.TAG.pack(name_hash(self.key, name) & f.TAG_MASK)
            out.append((area.pointers + 8 * slot, pointer))
            out.append((area.records + 4 * slot, record))
            out.append((area.tags + 4 * slot, tag))
        out += self.heap
        if out and area is f.LEAF_NAMES:
            out.append((area.ends, self.ends()))
        self.clean()
        return out

    def clean(self) -> None:
        """Forget what changed: it is written, or will be whole."""
        self.dirty.clear()
        self.heap.clear()

    def rebuilt(
        self,
        block: int,
        items: Iterable[tuple[int, bytes]],
        lo: int,
        hi: int,
        area: f.NameArea | None = None,
    ) -> NameBlock:
        """A canonical block of these (hash, name), sorted, all of them in this block."""
        fresh = NameBlock(area or self.area, block, self.ino, self.key, lo, hi)
        for _hash, name in items:
            _slot, ino, kind, d_type = self.names[name]
            fresh.add(name, ino, kind, d_type)
        fresh.clean()
        return fresh

    def image(self) -> bytes:
        """All of pointers, records, tags and heap, from `area.pointers` to `area.limit`; what
        lies between them is zero."""
        area = self.area
        raw = bytearray(area.limit - area.pointers)
        base = area.pointers
        for name, (slot, ino, kind, _t) in self.names.items():
            f.POINTER.pack_into(raw, 8 * slot, f.pointer(kind, ino))
            offset, length, d_type = self.records[slot]
            f.RECORD.pack_into(raw, area.records - base + 4 * slot, offset, length, d_type)
            tag = name_hash(self.key, name) & f.TAG_MASK
            f.TAG.pack_into(raw, area.tags - base + 4 * slot, tag)
            raw[offset - base : offset - base + length] = name
        return bytes(raw)

    def head(self) -> tuple[int, bytes]:
        """The diff of a leaf's head."""
        head = f.LEAF_HEAD.pack(self.ino, self.lo, self.hi, len(self.names), self.end)
        return (f.LEAF_AT, head)


def decode_leaf_untrusted(block: int, raw: bytes, ino: int, key: bytes) -> NameBlock:
    """A leaf of directory `ino`. Raises CorruptionError."""
    owner, lo, hi, _names, end = f.LEAF_HEAD.unpack_from(raw, f.LEAF_AT)
    if owner != ino:
        raise CorruptionError(block, "directory", owner, ino)
    if lo > hi:
        raise CorruptionError(block, "lowest hash", lo, f"at most {hi}")
    return _fill_untrusted(NameBlock(f.LEAF_NAMES, block, ino, key, lo, hi), raw, end)


def decode_inline_untrusted(block: int, raw: bytes, key: bytes) -> NameBlock:
    """The names of an inline directory. Raises CorruptionError."""
    _names, end = f.ENDS.unpack_from(raw, f.INLINE_NAMES.ends)
    empty = NameBlock(f.INLINE_NAMES, block, block, key, 0, f.HASH_MAX)
    return _fill_untrusted(empty, raw, end)


def _fill_untrusted(nb: NameBlock, raw: bytes, end: int) -> NameBlock:
    area = nb.area
    if not area.heap <= end <= area.limit:
        raise CorruptionError(nb.block, "heap end", end, f"{area.heap} to {area.limit}")
    nb.end = end
    names, heap, live = nb.names, area.heap, 0
    pointers = struct.unpack_from(f"<{area.slots}Q", raw, area.pointers)
    records = f.RECORD.iter_unpack(raw[area.records : area.records + 4 * area.slots])
    free = []
    for slot, (pointer, record) in enumerate(zip(pointers, records, strict=True)):
        offset, length, d_type = record
        if pointer == 0:  # with a record: fsck took the inode away, `check` takes the name
            if length == 0:
                free.append(slot)
            continue
        kind, after = pointer >> f.KIND_SHIFT, offset + length
        name = raw[offset:after]
        if kind not in _NAMED or not length:
            raise CorruptionError(
                nb.block, f"pointer in slot {slot}", hex(pointer), "a named inode"
            )
        if offset < heap or after > end or name in names:
            raise CorruptionError(nb.block, f"name in slot {slot}", name[:20], "in the heap, once")
        names[name] = (slot, pointer & f.BLOCK_MASK, kind, d_type)
        nb.records[slot] = record
        live += length
    nb.live = live
    nb.free = free[::-1]
    return nb
