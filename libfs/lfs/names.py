"""The names of directories: packed in a record while they are few, else in leaves by their hash.

Extendible hashing (Fagin et al. 1979) with the directory's map as its table: `bits` of the hash are
the number of the block; a leaf that decides fewer bits lies at the first number of those that it
covers, and the others are holes. So the leaf of a hash is the nearest one at or before its number,
and one of a few places says where that is. When a leaf is full it is split by its next bit; when
that is one more than the map decides, all numbers double.

What a name means, times and link counts are in `namespace`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from libfs.common.naming import name_hash
from libfs.lfs import format as f
from xnfs import CorruptionError

#: inode, d_type
Entry = tuple[int, int]
LEAF_MAX = f.BLOCK - f.NAMES_CONTENT
_TYPES: Final = frozenset((1, 2, 4, 6, 8, 10, 12))
_NO_NAMES: Final = (b"", b".", b"..")


class Leaf:
    """Names whose hashes begin with the same `bits` bits, those of `lo`."""

    __slots__ = ("bits", "dirty", "lo", "names", "order", "size")

    def __init__(self, lo: int, bits: int) -> None:
        self.lo = lo
        self.bits = bits
        self.names: dict[bytes, Entry] = {}
        self.size = 0
        self.dirty = True
        self.order: list[tuple[int, bytes]] | None = None

    def fits(self, name: bytes, most: int = LEAF_MAX) -> bool:
        """Whether there is room for the name."""
        return self.size + f.NAME.size + len(name) <= most

    def put(self, name: bytes, entry: Entry) -> None:
        """Add a name, or let one that is there stand for something else."""
        if name not in self.names:
            self.size += f.NAME.size + len(name)
            self.order = None
        self.names[name] = entry
        self.dirty = True

    def remove(self, name: bytes) -> Entry:
        """Take a name away. KeyError if it is not there."""
        entry = self.names.pop(name)
        self.size -= f.NAME.size + len(name)
        self.order = None
        self.dirty = True
        return entry

    @property
    def hi(self) -> int:
        """The highest hash."""
        return self.lo | (1 << (64 - self.bits)) - 1

    def sorted(self, key: bytes) -> list[tuple[int, bytes]]:
        """(hash, name), in the order of the hash."""
        if self.order is None:
            self.order = sorted((name_hash(key, name), name) for name in self.names)
        return self.order

    def split(self, key: bytes) -> Leaf:
        """Give the upper half of the hashes to a new leaf."""
        upper = Leaf(self.lo | 1 << (63 - self.bits), self.bits + 1)
        self.bits += 1
        for name in [n for n in self.names if name_hash(key, n) >= upper.lo]:
            upper.put(name, self.remove(name))
        self.dirty = True
        return upper

    def image(self, ino: int) -> bytes:
        """The block, from behind its head."""
        head = f.NAMES_HEAD.pack(ino, self.lo >> 32, self.bits, len(self.names), self.size)
        return head.ljust(f.NAMES_CONTENT - f.NAMES_AT, b"\0") + pack(self.names.items())


def pack(names: Iterable[tuple[bytes, Entry]]) -> bytes:
    """Names as they lie on the disk."""
    return b"".join(f.NAME.pack(ino, d_type, len(name)) + name for name, (ino, d_type) in names)


def unpack_untrusted(block: int, raw: bytes, leaf: Leaf) -> None:
    """Fill an empty leaf. Raises CorruptionError."""
    names, unpack, head, end = leaf.names, f.NAME.unpack_from, f.NAME.size, len(raw)
    at = count = 0
    while at + head <= end:
        ino, d_type, size = unpack(raw, at)
        if not 0 < ino <= f.INO_MAX or d_type not in _TYPES:
            raise CorruptionError(block, "entry", (ino, d_type), "an inode and its type")
        at += head + size
        names[raw[at - size : at]] = ino, d_type
        count += 1
    if at != end:
        raise CorruptionError(block, "names", end - at, "whole entries")
    if len(names) != count:
        raise CorruptionError(block, "names", count - len(names), "each of them once")
    together = b"".join(names)
    if b"/" in together or b"\0" in together or not names.keys().isdisjoint(_NO_NAMES):
        bad = next(n for n in names if b"/" in n or b"\0" in n or n in _NO_NAMES)
        raise CorruptionError(block, "name", bad, "1 to 255 bytes without '/' and NUL")
    leaf.size = end
    leaf.dirty = False


def decode_leaf_untrusted(block: int, raw: bytes, ino: int, key: bytes) -> Leaf:
    """The leaf of directory `ino` in a block. Raises CorruptionError."""
    owner, lo, bits, count, size = f.NAMES_HEAD.unpack_from(raw, f.NAMES_AT)
    if owner != ino:
        raise CorruptionError(block, "directory", owner, ino)
    if bits > f.MAX_BITS or lo & (1 << (32 - bits)) - 1 or size > LEAF_MAX:
        raise CorruptionError(block, "leaf", (lo, bits, size), "a prefix, and names in one block")
    leaf = Leaf(lo << 32, bits)
    unpack_untrusted(block, raw[f.NAMES_CONTENT : f.NAMES_CONTENT + size], leaf)
    if len(leaf.names) != count:
        raise CorruptionError(block, "names", len(leaf.names), count)
    for found, name in (order := leaf.sorted(key))[:1] + order[-1:]:
        if not leaf.lo <= found <= leaf.hi:
            raise CorruptionError(block, "name", name, "one that belongs here")
    return leaf
