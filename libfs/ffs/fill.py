"""Filling an empty directory with copies: XCP (Kaashoek et al. 1997), the part below POSIX.

What a copy through read and write does file by file, in the order of names, this does for the names
of a leaf at a time (`bulk`), in one change of the kernel: the names, the inodes with all that they
start with, the blocks for their bytes. The bytes themselves are never touched: the source's blocks
are read in the order of the disk, and each page is also the first content of the new block
(`Xn.change`, `copies`). So every file appears whole, also after a crash, but for one that is larger
than `DATA`: it grows by pieces of so much.

Not here: who may copy what, and what the new inodes start with (`libfs.posix.copying`). Holes
stay holes, and so does what is reserved but was never written.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from libfs.ffs import format as f
from libfs.ffs.bulk import Bulk, Part, plan
from libfs.ffs.data import BLOCK, SHIFT, FileData
from libfs.ffs.directory import Directories
from libfs.ffs.extents import HOLE, ExtentMap
from libfs.ffs.inode import DT_DIR, Vnode
from libfs.ffs.names import LINK_MAX, Names
from libfs.ffs.place import Placer
from libfs.ffs.space import Blocks
from libfs.ffs.volume import Batch, Volume
from libfs.ffs.xattrs import Xattrs, birth_areas
from libfs.posix.interface import Entry, FsError, Ino, User
from xnfs import Caller, NoFrames, NotCached

#: Blocks of data in one change: 4 MiB.
DATA: Final = 1024
#: Times that a change is tried with fewer blocks, while frames are short.
TURNS: Final = 12


class Extent(NamedTuple):
    """Data of a source: file block, how many, disk block, where its pointer lies."""

    first: int
    n: int
    block: int
    owner: int
    slot: int


class Content(NamedTuple):
    """The bytes of a file that come with its inode: in it, or in blocks of their own."""

    size: int
    inline: bytes | None
    extents: Sequence[Extent]


class Large(NamedTuple):
    """A file that is still growing: target, source, and the size it will have."""

    v: int
    source: int
    size: int
    entry: Entry


class _TooMuch(Exception):
    """Free space is in too many pieces for what was to go into one change."""


class Filler:
    """What fills directories needs of a mount."""

    def __init__(
        self,
        vol: Volume,
        place: Placer,
        directories: Directories,
        extents: ExtentMap,
        data: FileData,
        xattrs: Xattrs,
        names: Names,
    ) -> None:
        self.vol = vol
        self.place = place
        self.map = extents
        self.data = data
        self.xattrs = xattrs
        self.names = names
        self.bulk = Bulk(vol, directories)

    def fill(self, user: User, v: Vnode, entries: Sequence[Entry]) -> Filling:
        """Begin. Raises: EMLINK."""
        return Filling(self, self.vol.caller(user), v, entries)


class Filling:
    """One directory that is being filled. Each step is one change, or a few."""

    def __init__(self, tools: Filler, who: Caller, v: Vnode, entries: Sequence[Entry]) -> None:
        self._tools = tools
        self._vol = tools.vol
        self._who = who
        self._v = v
        self._entries = {entry.name: entry for entry in entries}
        if v.nlink + sum(e.new.mode >> 12 == DT_DIR for e in entries) > LINK_MAX:
            raise FsError(errno.EMLINK)
        self._parts = plan(v, self._entries)[::-1]
        self._large: list[Large] = []
        self._made = 0
        self._most = DATA

    def step(self) -> bool:
        """Do some more; whether all is done. Raises: EBUSY if somebody else changed the directory,
        ENOSPC, and what the acls say; then this step has done nothing."""
        if self._v.entries != self._made or not self._v.nlink:
            raise FsError(errno.EBUSY)
        if self._large:
            self._patiently(self._extend)
        elif self._parts:
            self._patiently(lambda: self._add(self._parts[-1]))
            self._parts.pop()
        return not (self._parts or self._large)

    def _patiently(self, work: Callable[[], None]) -> None:
        """With fewer blocks in a change, if there is not enough room for so many."""
        for _turn in range(TURNS):
            try:
                work()
                return
            except (NoFrames, NotCached, _TooMuch):
                self._most = max(self._most // 2, 1)
        work()

    # -- the bytes of sources

    def _extents(self, source: Vnode, first: int, size: int, most: int) -> list[Extent]:
        """The data from file block `first` on, as far as `size` bytes, at most `most` blocks."""
        out: list[Extent] = []
        end = -(-min(size, source.size) // BLOCK)
        while first < end and most:
            piece = self._tools.map.find(source, first)
            if piece.kind == f.P_DATA:
                n = min(piece.end, end, first + most) - first
                block = piece.block + first - piece.first
                out.append(Extent(first, n, block, piece.owner, piece.slot))
                most -= n
                first += n
            else:
                first = piece.end
        return out

    def _read(self, extents: Sequence[Extent]) -> None:
        """Have the blocks cached: the device is told of all, in its own order, before the first is
        waited for."""
        vol, cached = self._vol, self._vol.xn.cached
        extents = sorted(extents, key=lambda e: e.block)
        vol.ahead.hint((e.block, e.n) for e in extents if not cached(e.block))
        for _first, count, block, owner, slot in extents:
            vol.ensure(owner)
            vol.readin(owner, slot, block, count)

    # -- the names of one leaf

    def _add(self, part: Part) -> None:
        vol, v, tools = self._vol, self._v, self._tools
        entries = [self._entries[name] for name in part.names]
        contents, large = self._contents(entries)
        self._read([e for content in contents.values() for e in content.extents])
        count = tools.bulk.blocks(part) + len(entries) + sum(map(_far, entries))
        count += sum(e.n for content in contents.values() for e in content.extents)
        blocks = Blocks(vol, v.next_inode, count)
        batch = Batch(vol, self._who)
        try:
            made = self._births(batch, entries, contents, blocks)
            tools.bulk.add(batch, v, part, made, blocks)
        except BaseException:
            batch.abandon()
            raise
        more = len(entries), sum(kind == f.P_DIR for _ino, kind, _d_type in made.values())
        now = vol.now()
        batch.set(v, entries=v.entries + more[0], nlink=v.nlink + more[1], mtime=now, ctime=now)
        batch.commit()
        # Commit point in memory.
        self._made += len(entries)
        v.next_inode = max(ino for ino, _kind, _d_type in made.values()) + 1
        for target, _source, n in batch.copies:
            vol.cache.wrote(target, n)
        for entry in entries:
            entry.ino = Ino(made[entry.name][0])
            if entry.new.xattrs:
                tools.xattrs.finish(vol.vnode(entry.ino), entry.new.xattrs)
        self._large += [Large(e.ino, source.ino, source.size, e) for e, source in large]

    def _contents(
        self, entries: Sequence[Entry]
    ) -> tuple[dict[bytes, Content], list[tuple[Entry, Vnode]]]:
        """What files start with, by name, as long as it is not too much for one change; and those
        that are too large, with their sources."""
        found: dict[bytes, Content] = {}
        large: list[tuple[Entry, Vnode]] = []
        most = self._most
        for entry in entries:
            if not entry.source:
                continue
            source = self._vol.vnode(entry.source)
            if source.flags & f.I_INLINE:
                raw = self._tools.data.read(source, 0, source.size)
                found[entry.name] = Content(source.size, raw, ())
                continue
            extents = self._extents(source, 0, source.size, most + 1)
            count = sum(e.n for e in extents)
            if count > most or len(extents) > f.INODE_SLOTS // 2:
                large.append((entry, source))
            else:
                found[entry.name] = Content(source.size, None, extents)
                most -= count
        return found, large

    def _births(
        self,
        batch: Batch,
        entries: Sequence[Entry],
        contents: Mapping[bytes, Content],
        blocks: Blocks,
    ) -> dict[bytes, tuple[int, int, int]]:
        """The inodes, with what they start with: name -> inode, kind of pointer, d_type."""
        inodes = [blocks.one() for _entry in entries]  # side by side, as `place` has them
        made = {}
        for entry, ino in zip(entries, inodes, strict=True):
            w = self._tools.names.inode(ino, entry.new, self._v.ino)
            if entry.times is not None:
                w.atime, w.mtime = entry.times
            diff = birth_areas(entry.new.xattrs)
            if content := contents.get(entry.name):
                diff.append(self._fill(batch, w, content, blocks))
            elif entry.new.target:
                diff.append(self._link(batch, w, entry, blocks))
            diff = [(at, raw) for at, raw in diff if raw]
            batch.birth(w.kind, ino, [(f.HEADER_AT, w.pack()), *diff], self._v.ino)
            made[entry.name] = ino, w.kind, w.mode >> 12
        return made

    def _link(self, batch: Batch, w: Vnode, entry: Entry, blocks: Blocks) -> tuple[int, bytes]:
        """The target of a symlink."""
        if not _far(entry):
            return f.INLINE_AT, entry.new.target
        block = blocks.one()
        batch.alloc.append((self._vol.type[f.P_DATA], block, 1))
        batch.fill(block, entry.new.target)
        w.blocks = 1
        return f.INODE_SLOTS_AT, f.SLOT.pack(0, 1, f.pointer(f.P_DATA, block))

    def _fill(self, batch: Batch, w: Vnode, content: Content, blocks: Blocks) -> tuple[int, bytes]:
        """The bytes of a file: in its inode, or new blocks that begin as the source's."""
        w.size = content.size
        if content.inline is not None:
            return f.INLINE_AT, content.inline
        w.flags &= ~f.I_INLINE
        w.blocks = sum(e.n for e in content.extents)
        slots: list[tuple[int, int, int]] = []
        for first, count, source, _owner, _slot in content.extents:
            for start, n in blocks.take(count):
                batch.alloc.append((self._vol.type[f.P_DATA], start, n))
                batch.copies.append((start, source, n))
                a, m, last = slots[-1] if slots else (0, 0, 0)
                if m and a + m == first and last + m == start:
                    slots[-1] = a, m + n, last
                else:
                    slots.append((first, n, start))
                first, source = first + n, source + n
        if len(slots) > f.INODE_SLOTS:
            raise _TooMuch
        packed = [f.SLOT.pack(first, n, f.pointer(f.P_DATA, start)) for first, n, start in slots]
        return f.INODE_SLOTS_AT, b"".join(packed)

    # -- files that take several changes

    def _extend(self) -> None:
        """Some more of the last of the large files."""
        vol = self._vol
        ino, source, size, entry = self._large[-1]
        w, s = vol.vnode(ino), vol.vnode(source)
        done = -(-w.size // BLOCK)
        extents = self._extents(s, done, size, self._most)
        if not extents:
            batch, now = Batch(vol, self._who), vol.now()
            atime, mtime = entry.times or (now, now)
            batch.set(
                w, size=size, flags=w.flags & ~f.I_INLINE, atime=atime, mtime=mtime, ctime=now
            )
            batch.commit()
            self._large.pop()
            return
        self._read(extents)
        for first, count, block, _owner, _slot in extents:
            while count:
                n = self._append(w, first, count, block, size)
                first, count, block = first + n, count - n, block + n

    def _append(self, w: Vnode, first: int, count: int, source: int, size: int) -> int:
        """New blocks at file block `first`, as far as they lie together; how many."""
        vol, tools = self._vol, self._tools
        leaf = tools.map.reserve(self._who, w, first, 1)
        before = tools.map.find(w, first - 1) if first else None
        goal = 0
        if before is not None and before.kind != HOLE:
            goal = before.block + first - 1 - before.first
        start, n = vol.find_free(tools.place.data(w, goal), count)
        batch = Batch(vol, self._who)
        batch.alloc.append((vol.type[f.P_DATA], start, n))
        batch.copies.append((start, source, n))
        tools.map.put(batch, w, leaf, first, n, f.P_DATA, start)
        end = min(first + n << SHIFT, size)
        batch.set(w, size=end, blocks=w.blocks + n, flags=w.flags & ~f.I_INLINE)
        batch.commit()
        vol.cache.wrote(start, n)
        return n


def _far(entry: Entry) -> bool:
    """Whether a symlink's target needs a block of its own."""
    return len(entry.new.target) > f.INLINE_MAX
