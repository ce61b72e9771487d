"""The checker's view of names: blocks of names decoded leniently, and what to do about each bad
one.

Good names are put into an ordinary `NameBlock`, so that the ordinary code can add to it and remove
from it; each bad one becomes a stray, which is given a place and, where it has no usable name, the
name `#<inode>`. Taking a stray away and adding it where it belongs is one change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from libfs.common.naming import name_hash
from libfs.ffs import format as f
from libfs.ffs.directory import Directories
from libfs.ffs.inode import Vnode
from libfs.ffs.nameblock import NameBlock
from libfs.ffs.table import Table, index_head, level_of
from libfs.ffs.volume import Batch, Volume
from xnfs import AclRefused, Refused

if TYPE_CHECKING:
    from libfs.common.checking import Log


class Stray(NamedTuple):
    """A slot with an inode that has no name where it is; `name` is its own, if usable."""

    slot: int
    ino: int
    kind: int
    d_type: int
    name: bytes


class NameChecker:
    """Checks the names of one directory after the other. `taken`: blocks that mending the present
    one has allocated."""

    def __init__(self, vol: Volume, log: Log, directories: Directories) -> None:
        self._vol = vol
        self._log = log
        self._dirs = directories
        self.taken = 0

    # -- the blocks of a directory

    def blocks(self, v: Vnode) -> tuple[list[int], int]:
        """The blocks of names, each mended, and how many blocks lie below the directory."""
        self.taken = 0
        if not v.flags & f.I_HASHED:
            nb, strays = self._inline(v)
            self._place(v, [(nb, strays)])
            return self._after(v, [v.ino], 0)
        found, below = self._walk(v)
        self._place(v, found)
        return self._after(v, [nb.block for nb, _strays in found], below)

    def _after(self, v: Vnode, blocks: list[int], below: int) -> tuple[list[int], int]:
        """The blocks after mending, which may have split some."""
        if not self.taken:
            return blocks, below
        self.taken = 0
        if not v.flags & f.I_HASHED:
            return [v.ino], 0
        out, count, todo = [], 0, [self._dirs.table(v)]
        while todo:
            table = todo.pop()
            for slot in table.used():
                count += 1
                if table.kind(slot) == f.P_INDEX:
                    todo.append(self._dirs.index(v, table, slot))
                else:
                    out.append(self._dirs.leaf_at(v, table, slot).block)
        return out, count

    def block(self, v: Vnode, block: int) -> NameBlock:
        """A block that `blocks` gave, decoded."""
        nb = self._vol.decoded.get(block)
        if isinstance(nb, NameBlock):
            return nb
        raw = self._vol.block(block)
        if block == v.ino:
            empty = NameBlock(f.INLINE_NAMES, block, v.ino, v.hash_key, 0, f.HASH_MAX)
        else:
            _ino, lo, hi, _n, _end = f.LEAF_HEAD.unpack_from(raw, f.LEAF_AT)
            empty = NameBlock(f.LEAF_NAMES, block, v.ino, v.hash_key, lo, hi)
        return self._names(v, empty, raw, quiet=True)[0]

    def _inline(self, v: Vnode) -> tuple[NameBlock, list[Stray]]:
        empty = NameBlock(f.INLINE_NAMES, v.ino, v.ino, v.hash_key, 0, f.HASH_MAX)
        return self._names(v, empty, self._vol.block(v.ino))

    def _walk(self, v: Vnode) -> tuple[list[tuple[NameBlock, list[Stray]]], int]:
        """All leaves below the table of a directory."""
        out: list[tuple[NameBlock, list[Stray]]] = []
        seen: set[int] = set()
        raw = self._vol.block(v.ino)
        todo = [self._table(v.ino, raw, f.DIR_TABLE_AT, f.DIR_TABLE_SLOTS, 0, f.DIR_TABLE_SHIFT)]
        while todo:
            table = todo.pop()
            self._vol.decoded[table.block] = table
            self._bad_pointers(v, table)
            for slot in table.used():
                block = table.block_at(slot)
                if block in seen or self._elsewhere(v, block, table, slot):
                    self._log("block-twice", table.block, slot=slot, other=block)
                    self._clear(v, table, slot)
                    continue
                seen.add(block)
                self._vol.set_home(block, table.block, slot)
                if table.kind(slot) == f.P_INDEX:
                    todo.append(self._index(v, table, slot))
                else:
                    out.append(self._leaf(v, table, slot))
        return out, len(seen)

    def _table(self, block: int, raw: bytes, at: int, count: int, lo: int, shift: int) -> Table:
        pointers = [p for (p,) in f.POINTER.iter_unpack(raw[at : at + 8 * count])]
        return Table(block, at, lo, shift, pointers)

    def _bad_pointers(self, v: Vnode, table: Table) -> None:
        """Such pointers own nothing, so clearing them loses nothing that could be found."""
        for slot in table.used():
            good = table.kind(slot) == f.P_LEAF or (
                table.kind(slot) == f.P_INDEX and table.shift >= 8
            )
            if not good and self._log("table-pointer", table.block, slot=slot):
                self._clear(v, table, slot)
            elif not good:
                table.pointers[slot] = 0  # this run goes on without it

    def _elsewhere(self, v: Vnode, block: int, table: Table, slot: int) -> bool:
        """Whether a leaf or an index has another owner, and says that it belongs there."""
        self._vol.set_home(block, table.block, slot)
        (ino,) = f.POINTER.unpack_from(self._vol.block(block), f.LEAF_AT)
        return ino != v.ino and self._vol.xn.refs(block) > 1

    def _clear(self, v: Vnode, table: Table, slot: int) -> None:
        if not self._log.repair:
            table.set(slot, 0)  # this run goes on without it
            return
        batch = Batch(self._vol, self._vol.who)
        kind = table.kind(slot)
        if kind in (f.P_LEAF, f.P_INDEX):
            batch.free.append((self._vol.type[kind], table.block_at(slot), 1))
        table.set(slot, 0)
        batch.use(table, v.ino)
        batch.commit()
        self._vol.decoded[table.block] = table

    def _index(self, v: Vnode, parent: Table, slot: int) -> Table:
        block = parent.block_at(slot)
        raw = self._vol.block(block)
        lo, shift = parent.lo_of(slot), parent.shift - 8
        got = f.INDEX_HEAD.unpack_from(raw, f.LEAF_AT)
        want = (v.ino, lo, level_of(shift))
        table = self._table(block, raw, f.INDEX_TABLE_AT, f.INDEX_TABLE_SLOTS, lo, shift)
        if got != want and self._log("index-head", block, got=got, want=want):
            batch = Batch(self._vol, self._vol.who)
            batch.edit(block, *index_head(table, v.ino))
            batch.witnesses[block] = v.ino
            batch.commit()
        return table

    def _leaf(self, v: Vnode, table: Table, slot: int) -> tuple[NameBlock, list[Stray]]:
        block = table.block_at(slot)
        raw = self._vol.block(block)
        ino, lo, hi, _names, _end = f.LEAF_HEAD.unpack_from(raw, f.LEAF_AT)
        most = table.gap_end(table.lo_of(slot)) - 1
        width = 1 << table.shift
        if ino == v.ino and lo == table.lo_of(slot) and lo < hi <= most and (hi + 1) % width == 0:
            return self._names(v, NameBlock(f.LEAF_NAMES, block, v.ino, v.hash_key, lo, hi), raw)
        nb = NameBlock(f.LEAF_NAMES, block, v.ino, v.hash_key, table.lo_of(slot), most)
        got, want = (ino, lo, hi), (v.ino, nb.lo, nb.hi)
        nb, strays = self._names(v, nb, raw)
        if self._log("leaf-head", block, repairable=not strays, got=got, want=want) and not strays:
            self._rewrite(v, nb)
        return self._vol.decoded.get(block, nb), strays

    # -- one block

    def _names(
        self, v: Vnode, nb: NameBlock, raw: bytes, *, quiet: bool = False
    ) -> tuple[NameBlock, list[Stray]]:
        """Decode a block of names; bad ones are reported and become strays."""
        log = _silent if quiet else self._log
        area = nb.area
        count, end = f.ENDS.unpack_from(raw, area.ends)
        nb.end = end if area.heap <= end <= area.limit else area.limit
        dead, strays = [], []
        nb.free = []
        for slot in range(area.slots):
            record = f.RECORD.unpack_from(raw, area.records + 4 * slot)
            (pointer,) = f.POINTER.unpack_from(raw, area.pointers + 8 * slot)
            if not pointer and not record[1]:
                nb.free.append(slot)
                continue
            kind, ino = pointer >> f.KIND_SHIFT, pointer & f.BLOCK_MASK
            if kind not in (f.P_INODE, f.P_DIR):
                code = "name-pointer" if pointer else "name-dead"
                if log(code, nb.block, slot=slot):
                    dead.append(slot)
                continue
            stray = self._judge(v, nb, raw, slot, record, ino, kind, log)
            if stray is not None:
                strays.append(stray)
        nb.free.reverse()
        self._vol.decoded[nb.block] = nb
        if not quiet:
            whole = self._tags(nb, raw, strays)
            self._ends(v, nb, (count, end), strays, dead, whole=whole)
        return nb, strays

    def _tags(self, nb: NameBlock, raw: bytes, strays: list[Stray]) -> bool:
        """Whether the block must be written anew because tags of good names are wrong. (It can't
        while it has strays: they would be lost.)"""
        mend = False
        for name, (slot, *_rest) in nb.names.items():
            (tag,) = f.TAG.unpack_from(raw, nb.area.tags + 4 * slot)
            if tag != name_hash(nb.key, name) & f.TAG_MASK:
                mend |= self._log("name-tag", nb.block, repairable=not strays, name=name)
        return mend

    def _judge(
        self,
        v: Vnode,
        nb: NameBlock,
        raw: bytes,
        slot: int,
        record: tuple[int, int, int],
        ino: int,
        kind: int,
        log: Callable[..., bool],
    ) -> Stray | None:
        """Put a good name into `nb`; a stray otherwise."""
        offset, length, d_type = record
        name = raw[offset : offset + length]
        bare = Stray(slot, ino, kind, d_type, b"")
        if not length or offset < nb.area.heap or offset + length > nb.end:
            log("name-record", nb.block, slot=slot, ino=ino)
            return bare
        if b"/" in name or b"\0" in name or name in (b".", b".."):
            log("name-chars", nb.block, name=name)
            return bare
        if name in nb.names:
            log("name-twice", nb.block, name=name)
            return bare
        if not nb.lo <= name_hash(v.hash_key, name) <= nb.hi:
            log("name-place", nb.block, name=name)
            return bare._replace(name=name)
        nb.names[name] = (slot, ino, kind, d_type)
        nb.records[slot] = record
        nb.live += length
        return None

    def _ends(
        self,
        v: Vnode,
        nb: NameBlock,
        ends: tuple[int, int],
        strays: list[Stray],
        dead: list[int],
        *,
        whole: bool,
    ) -> None:
        """Dead slots, the number of names and the end of the heap; `whole`: write all anew."""
        count, end = ends
        names = len(nb.names) + len(strays)
        rewrite = bool(dead)
        nb.free += dead
        if nb.end != end:
            whole |= self._log("name-heap", nb.block, repairable=not strays, got=end)
        elif count != names and not dead:
            rewrite |= self._log("name-count", nb.block, got=count, end=end, want=names)
        if whole:
            self._rewrite(v, nb)
        elif rewrite:
            self._mend(v, nb, dead)

    def _mend(self, v: Vnode, nb: NameBlock, dead: list[int]) -> None:
        """Write a block's ends, without its dead slots."""
        batch = Batch(self._vol, self._vol.who)
        nb.dirty.update(dict.fromkeys(dead, b""))
        batch.use(nb, v.ino)
        self._count(batch, v, nb)
        batch.commit()
        self._vol.decoded[nb.block] = nb

    def _count(self, batch: Batch, v: Vnode, nb: NameBlock) -> None:
        if nb.area is f.INLINE_NAMES:
            batch.set(v, names=len(nb.names), heap=nb.end)
        elif not nb.dirty:
            batch.edit(nb.block, nb.area.ends, nb.ends())

    def _rewrite(self, v: Vnode, nb: NameBlock) -> None:
        batch = Batch(self._vol, self._vol.who)
        self._dirs.rewrite(batch, v, nb)
        batch.commit()

    # -- strays

    def _place(self, v: Vnode, found: list[tuple[NameBlock, list[Stray]]]) -> None:
        """Give each stray a name where it belongs. Everything was decoded before."""
        if not self._log.repair:
            return
        for nb, strays in found:
            for stray in strays:
                try:
                    self._adopt(v, nb.block, stray)
                except (AclRefused, Refused):
                    # Making room would have lost other strays: with the hash key gone, say.
                    self._log.summary.unrepaired += 1

    def _adopt(self, v: Vnode, block: int, stray: Stray) -> None:
        """Move one stray: away from its slot, to a name that is free; one change."""
        name = stray.name
        if not name or self._dirs.find(v, name) is not None:
            name = self._free_name(v, stray.ino)
        before = v.blocks
        target = self._dirs.room(self._vol.who, v, name)
        self.taken += v.blocks - before or 1
        source = self.block(v, block)
        batch = Batch(self._vol, self._vol.who)
        source.dirty[stray.slot] = b""
        if source is not target:
            batch.use(source, v.ino)
            self._count(batch, v, source)
        slot = target.add(name, stray.ino, stray.kind, stray.d_type)
        batch.home(stray.ino, target.block, slot)
        batch.use(target, v.ino)
        self._count(batch, v, target)
        batch.commit()
        source.free.append(stray.slot)

    def _free_name(self, v: Vnode, ino: int) -> bytes:
        name = b"#%d" % ino
        while self._dirs.find(v, name) is not None:
            name += b"+"
        return name

    # -- single names

    def remove(self, v: Vnode, nb: NameBlock, name: bytes) -> None:
        """Take away one of several names of an inode."""
        batch = Batch(self._vol, self._vol.who)
        _slot, ino, kind, _d_type = nb.remove(name)
        batch.free.append((self._vol.type[kind], ino, 1))
        batch.use(nb, v.ino)
        self._count(batch, v, nb)
        batch.commit()

    def retype(self, v: Vnode, nb: NameBlock, name: bytes, d_type: int) -> None:
        """Correct the type beside a name."""
        batch = Batch(self._vol, self._vol.who)
        _slot, ino, kind, _old = nb.names[name]
        nb.point(name, ino, kind, d_type)
        batch.use(nb, v.ino)
        batch.commit()


def _silent(*_args: object, **_words: object) -> bool:
    """A log that reports nothing and mends nothing: for a second look."""
    return False
