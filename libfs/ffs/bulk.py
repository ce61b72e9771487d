"""The names of a new directory, all at once: which go to which leaf, before there is any.

A directory that gets its names one by one splits its leaves as they fill up (`directory`). Here all
names are known: sorted by hash they are cut into leaves that are three quarters full, each a `Part`
that one change can add. The result is a directory as any other.

Relies on the directory being empty and staying so but for these names. Not here: the inodes
that the names stand for (`fill`).
"""

from __future__ import annotations

import errno
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from libfs.common.naming import name_hash
from libfs.ffs import format as f
from libfs.ffs.directory import Directories
from libfs.ffs.inode import Vnode
from libfs.ffs.nameblock import NameBlock
from libfs.ffs.space import Blocks
from libfs.ffs.table import Table, index_head, new_index
from libfs.ffs.volume import Batch, Volume
from libfs.posix.interface import FsError

#: Share of a leaf that is filled, so that it takes some more names before it splits.
_FULL: Final = 3 / 4

#: (hash, name), sorted
Items = list[tuple[int, bytes]]
#: name -> inode, kind of pointer, d_type
Made = Mapping[bytes, tuple[int, int, int]]


class Part(NamedTuple):
    """The names of one leaf, with the hashes that are its own; `levels`: indexes above it. Of a
    directory that needs no leaf: its only part, with -1."""

    lo: int
    hi: int
    levels: int
    items: Items

    @property
    def names(self) -> list[bytes]:
        """In the order of their hashes."""
        return [name for _hash, name in self.items]


def plan(v: Vnode, names: Iterable[bytes]) -> list[Part]:
    """The parts of the empty directory `v` with these names. Raises: ENOSPC for more than a leaf of
    names with nearly the same hash."""
    items = sorted((name_hash(v.hash_key, name), name) for name in names)
    if not items:
        return []
    if _fits(f.INLINE_NAMES, items, 1):
        return [Part(0, f.HASH_MAX, -1, items)]
    return _cut(items, 0, f.DIR_TABLE_SHIFT, f.DIR_TABLE_SLOTS, 0)


def _fits(area: f.NameArea, items: Items, share: float) -> bool:
    room = area.limit - area.heap
    return len(items) <= area.slots * share and sum(len(n) for _h, n in items) <= room * share


def _cut(items: Items, lo: int, shift: int, slots: int, levels: int) -> list[Part]:
    """The parts below one table: as many slots to a leaf as fit; an index below a slot that holds
    too many by itself. The depth of the recursion is that of the indexes, at most 8."""
    parts: list[Part] = []
    first, group, at = 0, Items(), 0
    for slot in range(slots):
        start, end = lo + (slot << shift), lo + (slot + 1 << shift)
        upto = bisect_left(items, (end, b""), at)
        inside, at = items[at:upto], upto
        if _fits(f.LEAF_NAMES, group + inside, _FULL):
            group += inside
            continue
        if group:
            parts.append(Part(lo + (first << shift), start - 1, levels, group))
        first, group = slot, inside
        if not _fits(f.LEAF_NAMES, inside, _FULL):
            if shift < 8:
                raise FsError(errno.ENOSPC)
            parts += _cut(inside, start, shift - 8, f.INDEX_TABLE_SLOTS, levels + 1)
            first, group = slot + 1, []
    if group:
        parts.append(Part(lo + (first << shift), lo + (slots << shift) - 1, levels, group))
    return parts


class Bulk:
    """Adds parts to directories."""

    def __init__(self, vol: Volume, directories: Directories) -> None:
        self._vol = vol
        self._dirs = directories

    def blocks(self, part: Part) -> int:
        """At most so many blocks will be taken for the names alone."""
        return part.levels + 1

    def add(self, batch: Batch, v: Vnode, part: Part, made: Made, blocks: Blocks) -> None:
        """Put the names of a part into `batch`."""
        if part.levels < 0:
            nb = NameBlock(f.INLINE_NAMES, v.ino, v.ino, v.hash_key, part.lo, part.hi)
            _name(nb, part.names, made)
            batch.edit(nb.block, nb.area.pointers, nb.image())
            batch.set(v, names=len(nb.names), heap=nb.end)
            self._dirs.adopt(batch, nb)
            batch.use(nb, v.ino)
            return
        indexes = self._tables(batch, v, part, blocks)
        leaf = NameBlock(f.LEAF_NAMES, blocks.one(), v.ino, v.hash_key, part.lo, part.hi)
        _name(leaf, part.names, made)
        table, _slot = self._dirs.place(v, part.lo)
        self._dirs.new_leaf(batch, v, leaf, table)
        for index in indexes:
            batch.birth(f.P_INDEX, index.block, [index_head(index, v.ino), *index.diffs()], v.ino)

    def _tables(self, batch: Batch, v: Vnode, part: Part, blocks: Blocks) -> Sequence[Table]:
        """Have the tables above a leaf; those among them that are new."""
        decoded, new = self._vol.decoded, []
        if not v.flags & f.I_HASHED:
            decoded[v.ino] = Table(
                v.ino, f.DIR_TABLE_AT, 0, f.DIR_TABLE_SHIFT, [0] * f.DIR_TABLE_SLOTS
            )
            batch.set(v, flags=f.I_HASHED, names=0, heap=0)
        table = self._dirs.table(v)
        for _level in range(part.levels):
            slot = table.slot_of(part.lo)
            if table.pointers[slot]:
                table = self._dirs.index(v, table, slot)
                continue
            index = new_index(blocks.one(), table.lo_of(slot), table.shift - 8)
            decoded[index.block] = index
            table.set(slot, f.pointer(f.P_INDEX, index.block))
            if table not in new:
                batch.use(table, v.ino)
            batch.home(index.block, table.block, slot)
            batch.set(v, blocks=v.blocks + 1)
            new.append(index)
            table = index
        return new


def _name(nb: NameBlock, names: Iterable[bytes], made: Made) -> None:
    """In canonical form: in the order of their hashes."""
    for name in names:
        nb.add(name, *made[name])
    nb.clean()
