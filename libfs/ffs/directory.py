"""Directories: which block a name belongs to, and making room for it.

Up to 64 names lie in the directory's own block. Beyond that they lie in leaves, found by the
hash of the name: the directory's block has a table for the top 6 bits, an index one for the next
8, and so on. A table entry covers the slots up to the next one in use; a leaf says itself which
hashes are its own (`lo`, `hi`). Where no leaf claims a hash there is a gap, and a name that
belongs there gets a new leaf: so leaves can be given back as they become empty. Source:
extendible hashing (Fagin et al. 1979), with a tree in place of the doubling table.

Each split is a change of its own, made before the name is added. What a name means, link counts and
times are in `names`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from itertools import islice
from typing import Final

from libfs.common.naming import name_hash
from libfs.ffs import format as f
from libfs.ffs.inode import Vnode
from libfs.ffs.nameblock import (
    NameBlock,
    Named,
    decode_inline_untrusted,
    decode_leaf_untrusted,
)
from libfs.ffs.place import Placer
from libfs.ffs.table import (
    Table,
    decode_dir_untrusted,
    decode_index_untrusted,
    index_head,
    new_index,
)
from libfs.ffs.volume import Batch, Volume
from libfs.posix.interface import Dirent, FsError, Ino
from xnfs import Caller, CorruptionError

#: Splits that one insertion can need: a bound for a loop.
MAX_SPLITS: Final = 128
#: Leaves fetched at once when a directory is listed.
LEAVES_AHEAD: Final = 64
#: Cookies have 62 bits.
COOKIE_SHIFT: Final = 2


class Directories:
    """The directories of a mount."""

    def __init__(self, vol: Volume, place: Placer) -> None:
        self._vol = vol
        self._place = place

    # -- looking

    def find(self, v: Vnode, name: bytes) -> Named | None:
        """(slot, inode, kind, d_type) of a name; None if it is not there."""
        nb = self.where(v, name)
        return None if nb is None else nb.names.get(name)

    def where(self, v: Vnode, name: bytes) -> NameBlock | None:
        """The block that a name belongs to, if there is one yet."""
        return self.leaf(v, name_hash(v.hash_key, name)) if v.flags & f.I_HASHED else self.inline(v)

    def holder(self, v: Vnode, name: bytes) -> NameBlock:
        """The block that has the name. Raises: ENOENT."""
        nb = self.where(v, name)
        if nb is None or name not in nb.names:
            raise FsError(errno.ENOENT)
        return nb

    def inline(self, v: Vnode) -> NameBlock:
        """The names of a directory that has no leaves."""
        nb = self._vol.decoded.get(v.ino)
        if nb is None:
            nb = decode_inline_untrusted(v.ino, self._vol.block(v.ino), v.hash_key)
            self._vol.decoded[v.ino] = nb
        if not isinstance(nb, NameBlock):
            raise _two_roles(v.ino)
        return nb

    def leaf(self, v: Vnode, h: int) -> NameBlock | None:
        """The leaf whose hashes include `h`."""
        table, slot = self.place(v, h)
        if slot < 0 or table.kind(slot) != f.P_LEAF:
            return None
        nb = self.leaf_at(v, table, slot)
        return nb if nb.lo <= h <= nb.hi else None

    def place(self, v: Vnode, h: int) -> tuple[Table, int]:
        """The table where the leaf of `h` hangs and its slot there; -1: nothing at or below."""
        table = self.table(v)
        for _level in range(10):
            slot = table.cover[table.slot_of(h)]
            if slot < 0 or table.kind(slot) != f.P_INDEX or slot != table.slot_of(h):
                return table, slot
            table = self.index(v, table, slot)
        raise CorruptionError(v.ino, "levels of indexes", 10, "fewer")

    def table(self, v: Vnode) -> Table:
        """The table of a hashed directory."""
        table = self._vol.decoded.get(v.ino)
        if table is None:
            table = decode_dir_untrusted(v.ino, self._vol.block(v.ino))
            self._vol.decoded[v.ino] = table
        if not isinstance(table, Table):
            raise _two_roles(v.ino)
        return table

    def index(self, v: Vnode, parent: Table, slot: int) -> Table:
        """The index in a slot of a table."""
        block = parent.block_at(slot)
        table = self._vol.decoded.get(block)
        if table is None:
            self._vol.set_home(block, parent.block, slot)
            raw = self._vol.block(block)
            table = decode_index_untrusted(block, raw, v.ino, parent.lo_of(slot), parent.shift)
            self._vol.decoded[block] = table
        if not isinstance(table, Table) or table.lo != parent.lo_of(slot):
            raise _two_roles(block)
        return table

    def leaf_at(self, v: Vnode, table: Table, slot: int) -> NameBlock:
        """The leaf in a slot of a table."""
        block = table.block_at(slot)
        nb = self._vol.decoded.get(block)
        if nb is None:
            self._vol.set_home(block, table.block, slot)
            nb = decode_leaf_untrusted(block, self._vol.block(block), v.ino, v.hash_key)
            if nb.hi >= (most := table.gap_end(table.lo_of(slot))):
                raise CorruptionError(block, "highest hash", nb.hi, f"below {most}")
            self._vol.decoded[block] = nb
        if not isinstance(nb, NameBlock) or nb.lo != table.lo_of(slot):
            raise _two_roles(block)
        return nb

    # -- listing

    def entries(self, v: Vnode, cookie: int) -> Iterator[Dirent]:
        """Entries after `cookie`, in the order of their hash; from then on it is known where their
        inodes lie. Names whose hashes share 62 bits share a cookie: with 10**6 names that is one
        directory in 10**7."""
        home = self._vol.home
        h = cookie << COOKIE_SHIFT
        while h <= f.HASH_MAX:
            nb, after = self._next(v, h)
            if nb is not None:
                for found, name in list(nb.sorted()):
                    named = nb.names.get(name)
                    if found >= h and named is not None:
                        slot, ino, _kind, d_type = named
                        if ino not in home:
                            self._vol.set_home(ino, nb.block, slot)
                        yield Dirent(name, Ino(ino), d_type, (found >> COOKIE_SHIFT) + 1)
            h = after

    def _next(self, v: Vnode, h: int) -> tuple[NameBlock | None, int]:
        """The names at `h`, if any, and the hash where the block after them may begin."""
        if not v.flags & f.I_HASHED:
            return self.inline(v), f.HASH_MAX + 1
        table, slot = self.place(v, h)
        if slot >= 0 and table.kind(slot) == f.P_LEAF:
            self._fetch_leaves(table, slot)
            nb = self.leaf_at(v, table, slot)
            if nb.lo <= h <= nb.hi:
                return nb, nb.hi + 1
        return None, table.gap_end(h)

    def _fetch_leaves(self, table: Table, slot: int) -> None:
        """Have the leaf of a slot and those after it at hand, unless it is."""
        ahead, decoded = self._vol.ahead, self._vol.decoded
        block = table.block_at(slot)
        if block not in decoded and not ahead.at_hand(block):
            slots = islice((s for s in table.used() if s >= slot), LEAVES_AHEAD)
            ahead.many(b for s in slots if (b := table.block_at(s)) not in decoded)

    # -- room

    def room(self, who: Caller, v: Vnode, name: bytes) -> NameBlock:
        """The block where `name` can be added now. Raises: EEXIST."""
        for _turn in range(MAX_SPLITS):
            if v.flags & f.I_HASHED:
                nb = self._room_hashed(who, v, name)
            else:
                nb = self._room_inline(who, v, name)
            if nb is not None:
                return nb
        raise FsError(errno.ENOSPC)

    def _room_inline(self, who: Caller, v: Vnode, name: bytes) -> NameBlock | None:
        nb = self.inline(v)
        if name in nb.names:
            raise FsError(errno.EEXIST)
        if nb.fits(name):
            return nb
        if nb.fits_rebuilt(name):
            self._rebuild(who, v, nb)
        else:
            self._leave_inline(who, v, nb)
        return None

    def _room_hashed(self, who: Caller, v: Vnode, name: bytes) -> NameBlock | None:
        h = name_hash(v.hash_key, name)
        leaf = self.leaf(v, h)
        if leaf is None:
            self._fill_gap(who, v, h)
        elif name in leaf.names:
            raise FsError(errno.EEXIST)
        elif leaf.fits(name):
            return leaf
        elif leaf.fits_rebuilt(name):
            self._rebuild(who, v, leaf)
        else:
            self._split(who, v, leaf)
        return None

    def _rebuild(self, who: Caller, v: Vnode, nb: NameBlock) -> None:
        """Give the heap bytes of removed names back."""
        batch = Batch(self._vol, who)
        self.rewrite(batch, v, nb)
        batch.commit()

    def rewrite(self, batch: Batch, v: Vnode, nb: NameBlock) -> None:
        """Write the names of a block in canonical form."""
        self._replace(batch, v, nb, nb.sorted(), nb.hi)

    def _replace(
        self, batch: Batch, v: Vnode, nb: NameBlock, items: list[tuple[int, bytes]], hi: int
    ) -> None:
        """Leave only `items` in the block, in canonical form, and hashes up to `hi`."""
        fresh = nb.rebuilt(nb.block, items, nb.lo, hi)
        batch.edit(nb.block, nb.area.pointers, fresh.image())
        if nb.area is f.LEAF_NAMES:
            batch.edit(nb.block, *fresh.head())
        else:
            batch.set(v, names=len(fresh.names), heap=fresh.end)
        self.adopt(batch, fresh)
        batch.use(fresh, v.ino)

    def adopt(self, batch: Batch, fresh: NameBlock) -> None:
        """`fresh` is what its block holds from now on; names have new slots."""
        self._vol.decoded[fresh.block] = fresh
        for slot, ino, _kind, _d_type in fresh.names.values():
            batch.home(ino, fresh.block, slot)

    def new_leaf(self, batch: Batch, v: Vnode, leaf: NameBlock, table: Table) -> None:
        """A new leaf, with its names, below `table`."""
        slot = table.slot_of(leaf.lo)
        batch.birth(f.P_LEAF, leaf.block, [leaf.head(), (leaf.area.pointers, leaf.image())], v.ino)
        self.adopt(batch, leaf)
        table.set(slot, f.pointer(f.P_LEAF, leaf.block))
        batch.use(table, v.ino)
        batch.home(leaf.block, table.block, slot)
        batch.set(v, blocks=v.blocks + 1)

    def _block(self, v: Vnode) -> int:
        return self._vol.find_free(self._place.near(v), 1)[0]

    def _leave_inline(self, who: Caller, v: Vnode, nb: NameBlock) -> None:
        """Move all names to a first leaf."""
        batch = Batch(self._vol, who)
        empty = NameBlock(f.LEAF_NAMES, self._block(v), v.ino, v.hash_key, 0, f.HASH_MAX)
        leaf = nb.rebuilt(empty.block, nb.sorted(), 0, f.HASH_MAX, f.LEAF_NAMES)
        area = f.INLINE_NAMES
        # The table takes the place of the pointers; records and heap become zero.
        batch.edit(v.ino, area.records, bytes(area.limit - area.records))
        table = Table(v.ino, f.DIR_TABLE_AT, 0, f.DIR_TABLE_SHIFT, [0] * f.DIR_TABLE_SLOTS)
        table.dirty.update(range(f.DIR_TABLE_SLOTS))
        self._vol.decoded[v.ino] = table
        self.new_leaf(batch, v, leaf, table)
        batch.set(v, flags=f.I_HASHED, names=0, heap=0)
        batch.commit()

    def _fill_gap(self, who: Caller, v: Vnode, h: int) -> None:
        """A new leaf for the hashes around `h` that no leaf claims."""
        table, slot = self.place(v, h)
        if slot < 0:
            lo = table.lo
        elif table.kind(slot) == f.P_INDEX:
            lo = table.lo_of(slot + 1)
        else:
            lo = self.leaf_at(v, table, slot).hi + 1
        batch = Batch(self._vol, who)
        hi = table.gap_end(h) - 1
        leaf = NameBlock(f.LEAF_NAMES, self._block(v), v.ino, v.hash_key, lo, hi)
        self.new_leaf(batch, v, leaf, table)
        batch.commit()

    def _split(self, who: Caller, v: Vnode, leaf: NameBlock) -> None:
        """Give the upper half of a leaf's hashes to a new leaf."""
        table, slot = self.place(v, leaf.lo)
        last = table.slot_of(leaf.hi)
        if slot == last:
            self._push_down(who, v, table, slot, leaf)
            return
        middle = (slot + last + 1) // 2
        start = table.lo_of(middle)
        items = leaf.sorted()
        lower = [item for item in items if item[0] < start]
        upper = [item for item in items if item[0] >= start]
        batch = Batch(self._vol, who)
        self.new_leaf(batch, v, leaf.rebuilt(self._block(v), upper, start, leaf.hi), table)
        self._replace(batch, v, leaf, lower, start - 1)
        batch.commit()

    def _push_down(self, who: Caller, v: Vnode, table: Table, slot: int, leaf: NameBlock) -> None:
        """A leaf of one slot: put an index for the next 8 bits between."""
        if table.shift < 8:
            raise FsError(errno.ENOSPC)  # 128 names that share 62 bits of their hashes
        batch = Batch(self._vol, who)
        index = new_index(self._block(v), table.lo_of(slot), table.shift - 8)
        index.set(0, f.pointer(f.P_LEAF, leaf.block))
        batch.birth(f.P_INDEX, index.block, [index_head(index, v.ino), *index.diffs()], v.ino)
        self._vol.decoded[index.block] = index
        table.set(slot, f.pointer(f.P_INDEX, index.block))
        batch.use(table, v.ino)
        batch.home(index.block, table.block, slot)
        batch.home(leaf.block, index.block, 0)
        batch.set(v, blocks=v.blocks + 1)
        batch.commit()

    # -- giving back

    def drop_leaf(self, v: Vnode, h: int) -> None:
        """Give the leaf of `h` back if it is empty."""
        table, slot = self.place(v, h)
        if slot >= 0 and table.kind(slot) == f.P_LEAF:
            leaf = self.leaf_at(v, table, slot)
            if not leaf.names:
                self._drop(v, table, slot, f.P_LEAF)

    def empty(self, v: Vnode) -> None:
        """Give everything below an empty directory back, so that it can be freed."""
        if not v.flags & f.I_HASHED:
            return
        todo = [self.table(v)]
        while todo:
            table = todo[-1]
            used = table.used()
            if used and table.kind(used[-1]) == f.P_INDEX:
                below = self.index(v, table, used[-1])
                if below.used():
                    todo.append(below)
                    continue
            if used:
                self._drop(v, table, used[-1], table.kind(used[-1]))
            else:
                todo.pop()

    def _drop(self, v: Vnode, table: Table, slot: int, kind: int) -> None:
        """Free an empty leaf or index. The kernel checks that it owns nothing."""
        batch = Batch(self._vol, self._vol.who)
        block = table.block_at(slot)
        self._vol.set_home(block, table.block, slot)
        table.set(slot, 0)
        batch.use(table, v.ino)
        batch.free.append((self._vol.type[kind], block, 1))
        batch.set(v, blocks=max(v.blocks - 1, 0))
        batch.commit()
        self._vol.gone(block)


def _two_roles(block: int) -> CorruptionError:
    """Two pointers name the block, and differ in what it is; the first of them was followed."""
    return CorruptionError(block, "use", "a second one", "one")
