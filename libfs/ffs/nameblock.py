"""One block of names: an inline directory, or a leaf of a hashed one, decoded.

A name takes a free slot (pointer and record) and is appended to the heap; a removed one leaves its
bytes in the heap until the block is rebuilt in its canonical form, sorted by hash without gaps.
Those are the only two changes that the acl lets through (rule A1, `rules.NAMES`).
A `NameBlock` remembers what differs from the block and gives it as one diff. Which block a name
belongs to: `directory`.
"""

from __future__ import annotations

from collections.abc import Iterable

from libfs.common.naming import name_hash
from libfs.ffs import format as f
from xnfs import CorruptionError

#: slot, inode, kind of pointer, d_type
Named = tuple[int, int, int, int]


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
        self.dirty: set[int] = set()
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
        self.dirty.add(slot)
        self.order = None
        return slot

    def point(self, name: bytes, ino: int, kind: int, d_type: int) -> int:
        """Let a name that is there stand for another inode; its slot."""
        slot = self.names[name][0]
        self.names[name] = (slot, ino, kind, d_type)
        offset, length, _old = self.records[slot]
        self.records[slot] = (offset, length, d_type)
        self.dirty.add(slot)
        return slot

    def remove(self, name: bytes) -> Named:
        """Take a name away."""
        named = self.names.pop(name)
        slot = named[0]
        del self.records[slot]
        self.free.append(slot)
        self.live -= len(name)
        self.dirty.add(slot)
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
        taken = {named[0]: (name, named) for name, named in self._touched()}
        for slot in self.dirty:
            pointer, record, tag = bytes(8), bytes(4), bytes(4)
            if slot in taken:
                name, (_slot, ino, kind, _d_type) = taken[slot]
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

    def _touched(self) -> list[tuple[bytes, Named]]:
        dirty, found = self.dirty, []
        # The ones just added stand last.
        for name, named in reversed(self.names.items()):
            if named[0] in dirty:
                found.append((name, named))
                if len(found) == len(dirty):
                    break
        return found

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
    records = raw[area.records : area.records + 4 * area.slots]
    pointers = raw[area.pointers : area.pointers + 8 * area.slots]
    free = []
    for slot, ((offset, length, d_type), (pointer,)) in enumerate(
        zip(f.RECORD.iter_unpack(records), f.POINTER.iter_unpack(pointers), strict=True)
    ):
        if pointer == 0:  # with a record: fsck took the inode away, `check` takes the name
            if length == 0:
                free.append(slot)
            continue
        kind, ino = pointer >> f.KIND_SHIFT, pointer & f.BLOCK_MASK
        name = raw[offset : offset + length]
        if kind not in (f.P_INODE, f.P_DIR) or not length:
            raise CorruptionError(
                nb.block, f"pointer in slot {slot}", hex(pointer), "a named inode"
            )
        if offset < area.heap or offset + length > end or name in nb.names:
            raise CorruptionError(nb.block, f"name in slot {slot}", name[:20], "in the heap, once")
        nb.names[name] = (slot, ino, kind, d_type)
        nb.records[slot] = (offset, length, d_type)
        nb.live += length
    nb.free = free[::-1]
    return nb
