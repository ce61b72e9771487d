"""One mounted LFS: blocks by address, inodes by number, what is dirty, and room for more.

Changes are made in memory, to vnodes; `flush` (in `flushing`) brings them to the log. Before a
change is made, `want` sees to it that the log will have room for it: so a flush does not run out of
space half way. Blocks are read through the summary of their segment, which owns them, and checked.
"""

from __future__ import annotations

import errno
import zlib
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from libfs.common import attributes as xa
from libfs.common.cache import PageCache
from libfs.lfs import format as f
from libfs.lfs import types as t
from libfs.lfs.flushing import flush, flush_size
from libfs.lfs.inode import Vnode, decode_untrusted, record_untrusted
from libfs.lfs.log import Log, checksum
from libfs.lfs.names import Leaf, decode_leaf_untrusted
from libfs.lfs.segments import TRIES, Segments
from libfs.lfs.tree import Tree
from libfs.posix.interface import FsError
from xnfs import Caller, CorruptionError, NoFrames, NotCached, Refused, Xn

if TYPE_CHECKING:
    from libfs.lfs.checkpoint import Checkpoint
    from libfs.lfs.cleaner import Cleaner
    from libfs.lfs.snapshots import Snapshots

#: Inodes kept in memory.
VNODES: Final = 20_000
#: Of the blocks that are not the reserve, this part is never live.
SLACK: Final = 0.06
#: Blocks that wait in memory before they are written.
DIRTY: Final = 1024
#: Inodes that do.
DIRTY_INODES: Final = 4096


class Volume:
    """One mounted root."""

    def __init__(self, xn: Xn, cap: bytes, root_block: int, *, readonly: bool) -> None:
        self.xn = xn
        self.super = root_block
        self.readonly = readonly
        self.who = Caller(cap)
        xn.pin(self.who, root_block)
        self.cache = PageCache(xn, self.who, self._dropped)
        self.type = {k: self._number(name) for k, name in enumerate(t.KIND_TYPES, 1)}
        self.summary_type = self._number(t.SUMMARY)
        self.segments_type = self._number(t.SEGMENTS)
        raw = xn.read(self.who, root_block, 0, f.BLOCK)
        size, run, self.uuid = decode_super_untrusted(root_block, raw)
        self.seed = zlib.crc32(self.uuid)
        self.segments = Segments(self, size, run)
        self.log = Log(self)
        self.imap = Tree(self, 0)
        self.next_ino = f.ROOT_INO
        self.epoch = 0
        #: epochs of the snapshots that there are, ascending: they keep blocks of these and earlier
        self.kept: list[int] = []
        self.vnodes: dict[int, Vnode] = {}
        self.dirty: dict[int, Vnode] = {}
        #: inodes that went since the last flush
        self.gone: list[int] = []
        self.free_inos: list[int] = []
        self.searched = f.ROOT_INO + 1  # numbers from here on may be free since before the mount
        self.dirty_blocks = 0  # of data, in memory
        self.time = 0  # of the file whose blocks are being written
        self.recovered = 0  # inodes that roll-forward found
        self.reserved = 0  # blocks that are promised to files
        self.pending = 0.0  # blocks that the next flush may write, at most
        self.growth = 0.0  # of these, what does not take the place of others
        self.checkpoint: Checkpoint
        self.cleaner: Cleaner
        self.snapshots: Snapshots

    def _number(self, name: str) -> int:
        number = self.xn.type_number(name)
        if number is None:
            raise CorruptionError(self.super, "type", name, "installed")
        return number

    # -- blocks

    def readin(self, parent: int, part: int, start: int, count: int) -> None:
        """Bind and read children of `parent`, which is cached. Raises CorruptionError."""
        self._readin(parent, [(part, start, count)])

    def _readin(self, parent: int, runs: Sequence[tuple[int, int, int]]) -> None:
        """As `readin` of each (partition, start, count), which follow each other."""
        xn, first = self.xn, runs[0][1]
        count = sum(run[2] for run in runs)
        for turn in range(2):
            try:
                if len(runs) == 1:
                    xn.readin(self.who, parent, *runs[0])
                else:
                    xn.readin_all(self.who, [(parent, *run) for run in runs])
                break
            except NoFrames:
                if turn:
                    raise
                self.cache.make_room(count)
            except Refused as error:
                raise CorruptionError(parent, "pointer", str(error), "the block") from None
        self.cache.touch_run(first, count)

    def fetch(self, start: int, count: int) -> None:
        """Have a run of blocks cached that lies in one segment, with one request for what is not.
        Raises CorruptionError."""
        for _turn in range(TRIES):
            summary, runs = self.segments.owners(start, count)
            try:
                self._readin(summary, runs)
            except NotCached:  # another mount took the summary away
                continue
            return
        raise NoFrames("a page is taken away again and again")

    def data(self, address: int) -> bytes:
        """A block of data."""
        block = address & f.AT_MASK
        for _turn in range(TRIES):
            try:
                raw = self.xn.read(self.who, block, 0, f.BLOCK)
            except NotCached:
                self.fetch(block, 1)
                continue
            self.cache.touch(block)
            return raw
        raise NoFrames("a page is taken away again and again")

    def block_untrusted(self, kind: int, address: int) -> bytes:
        """A block of another kind than data, checked. Raises CorruptionError."""
        raw = self.data(address)
        found = self.kind_untrusted(address & f.AT_MASK, raw)
        if found != kind:
            raise CorruptionError(address & f.AT_MASK, "kind", found, kind)
        return raw

    def kind_untrusted(self, block: int, raw: bytes) -> int:
        """What the head of a block says. Raises CorruptionError: its checksum is wrong."""
        crc, kind, _flush = f.HEAD.unpack_from(raw, 0)
        if crc != checksum(self.seed, block, raw):
            raise CorruptionError(block, "checksum", crc, checksum(self.seed, block, raw))
        return int(kind)

    def node(self, ino: int, level: int, index: int, address: int) -> array[int]:
        """A node of a map (`tree.Store`)."""
        raw = self.block_untrusted(f.P_MAP1 + level - 1, address)
        owner = f.NODE_HEAD.unpack_from(raw, f.NODE_AT)
        if owner != (ino, index):
            raise CorruptionError(address & f.AT_MASK, "node of", owner, (ino, index))
        return array("Q", raw[f.NODE_VALUES :])

    def _dropped(self, run: range) -> None:
        """Pages of these blocks may have gone: nothing here was decoded from them for good."""

    # -- what is live

    def born(self, address: int, size: int) -> None:
        """So many bytes at an address are live from now on."""
        if address == f.RESERVED:
            self.reserved += 1
        else:
            self.segments.count(address & f.AT_MASK, size, self.time)

    def died(self, address: int, size: int) -> None:
        """What was at this address is needed no more, unless a snapshot may have it."""
        if address == f.RESERVED:
            self.reserved -= 1
        elif not (self.kept and address >> f.EPOCH_SHIFT < self.kept[-1]):
            self.segments.count(address & f.AT_MASK, -size)

    # -- inodes

    def vnode(self, ino: int) -> Vnode:
        """The inode `ino`. Raises ESTALE if there is none."""
        v = self.vnodes.get(ino)
        if v is None:
            at = self.imap.get(ino)
            if not at:
                raise FsError(errno.ESTALE)
            v = self.vnodes[ino] = self.load_untrusted(ino, at)
            if len(self.vnodes) > VNODES:
                self._forget_vnodes()
        return v

    def load_untrusted(self, ino: int, address: int) -> Vnode:
        """The inode in the record at an address. Raises CorruptionError."""
        block = address & f.AT_MASK
        raw = self.block_untrusted(f.P_INODES, address)
        index = address >> f.INDEX_SHIFT & f.INDEX_MASK
        at, found = record_untrusted(block, raw, index)
        if found != ino:
            raise CorruptionError(block, f"record {index}", found, f"inode {ino}")
        return decode_untrusted(block, raw, at, self)

    def _forget_vnodes(self) -> None:
        """Drop the older half of those that are as on the disk and have a name."""
        for ino in list(self.vnodes)[: VNODES // 2]:
            if ino not in self.dirty and self.vnodes[ino].nlink:
                del self.vnodes[ino]

    def directory(self, ino: int) -> Vnode:
        """The directory `ino`. Raises ENOTDIR."""
        v = self.vnodes.get(ino) or self.vnode(ino)
        if v.mode >> 12 != 4:
            raise FsError(errno.ENOTDIR)
        return v

    def changed(self, v: Vnode) -> None:
        """The inode differs from the log."""
        v.attr = None
        if v.ino not in self.dirty:
            self.dirty[v.ino] = v

    def new_ino(self) -> int:
        """A number for a new inode: one that nobody has any more, if one is known. Raises:
        ENOSPC."""
        if not self.free_inos and self.searched < self.next_ino:
            self._find_free_inos()
        if self.free_inos:
            return self.free_inos.pop()
        if self.next_ino > f.INO_MAX:
            raise FsError(errno.ENOSPC)
        self.next_ino += 1
        return self.next_ino - 1

    def _find_free_inos(self) -> None:
        """Look at one more node of the inode map for numbers that were free before the mount. Of
        one that can't be read none is; whoever wants an inode there is told why."""
        lo = self.searched
        self.searched = hi = min(lo - lo % f.FAN + f.FAN, self.next_ino)
        try:
            taken = {ino for ino, _at in self.imap.items(lo, hi)}
        except CorruptionError:
            return
        self.free_inos = [
            ino for ino in range(hi - 1, lo - 1, -1) if ino not in taken and ino not in self.vnodes
        ]

    def all_of(self, v: Vnode, count: Callable[[int, int], None]) -> None:
        """Count all blocks of an inode, but for its record, as born or died."""
        for _i, at in v.tree.items():
            count(at, f.BLOCK)
        for _level, _index, at in v.tree.nodes():
            count(at, f.BLOCK)
        if v.xattr_at:
            count(v.xattr_at, f.BLOCK)

    def release(self, v: Vnode) -> None:
        """The inode has neither name nor user."""
        self.dirty_blocks -= len(v.data)
        self.vnodes.pop(v.ino, None)
        self.dirty.pop(v.ino, None)
        self.free_inos.append(v.ino)

    # -- names and attributes

    def leaf(self, v: Vnode, number: int) -> Leaf | None:
        """The leaf of a hashed directory at a number of its map; None where there is none."""
        leaf = v.leaves.get(number)
        if leaf is None:
            at = v.tree.get(number)
            if not at:
                return None
            raw = self.block_untrusted(f.P_NAMES, at)
            leaf = decode_leaf_untrusted(at & f.AT_MASK, raw, v.ino, v.key)
            if leaf.bits > v.bits or leaf.lo >> (64 - v.bits) != number:
                raise CorruptionError(at & f.AT_MASK, "leaf", (leaf.lo, leaf.bits), number)
            v.leaves[number] = leaf
        return leaf

    def xattrs(self, v: Vnode) -> xa.Attributes:
        """All attributes of an inode."""
        if v.xattrs is None:
            raw = self.block_untrusted(f.P_XATTR, v.xattr_at)
            block = v.xattr_at & f.AT_MASK
            ino, size = f.XATTR_BLOCK.unpack_from(raw, f.HEAD_SIZE)
            if ino != v.ino or size > f.XATTR_MAX:
                raise CorruptionError(block, "attributes of", (ino, size), v.ino)
            found: xa.Attributes = {}
            xa.parse_untrusted(block, raw[f.XATTR_AT : f.XATTR_AT + size], found)
            v.xattrs = found
        return v.xattrs

    # -- room

    @property
    def reserve(self) -> int:
        """Blocks that only the cleaner, checkpoints and deletions may take: a few segments to move
        live blocks to, and the inode map."""
        return 3 * self.segments.size + self.next_ino // f.FAN + 8

    def room(self, wanted: int) -> int:
        """Blocks that can be written without cleaning; the count ends at `wanted`."""
        rest = self.log.rest
        return rest + self.segments.room(wanted - rest)

    def want(self, blocks: float, grow: float = 0.0, *, delete: bool = False) -> None:
        """The next flush will write up to so many blocks more, and there will be `grow` more that
        are live. Raises: ENOSPC, EROFS."""
        if self.readonly:
            raise FsError(errno.EROFS)
        self.cleaner.step()
        if len(self.dirty) > DIRTY_INODES:
            flush(self)
        if grow and self.available() < grow:
            flush(self)  # what grew is known exactly then
            if self.available() < grow:
                raise FsError(errno.ENOSPC)
        keep = (self.reserve // 3 if delete else self.reserve) + self.reserved
        if not self._fits(blocks + keep):
            self.pending = flush_size(self)
            if not self._fits(blocks + keep):
                self.cleaner.make_room(int(blocks) + 1 + keep)
                if not self._fits(blocks + keep):
                    raise FsError(errno.ENOSPC)
        self.pending += blocks
        self.growth += grow

    def available(self) -> float:
        """Blocks that may become live beyond what is and will be. The fuller the log, the more must
        be moved for each block that is won; so it may not be full."""
        most = (self.segments.capacity() - self.reserve) * (1 - SLACK)
        return most - self.segments.live / f.BLOCK - self.growth - self.reserved

    def _fits(self, blocks: float) -> bool:
        wanted = int(self.pending + blocks) + 1
        return self.room(wanted) >= wanted

    @property
    def news(self) -> bool:
        """Whether a checkpoint would say something new, or where the last one can't be read."""
        known = self.log.flush == self.checkpoint.flush
        return bool(self.dirty or self.gone or not known or self.checkpoint.bad)

    def waiting(self) -> None:
        """More data waits in memory: write it out if it is much."""
        if self.dirty_blocks > DIRTY:
            flush(self)

    def now(self) -> int:
        """The clock."""
        return self.xn.now()


def decode_super_untrusted(block: int, raw: bytes) -> tuple[int, int, bytes]:
    """(blocks of a segment, blocks of the segment table behind each pointer, uuid). Raises
    CorruptionError: not an LFS, or of a later version."""
    magic, version, size, run, _created, uuid = f.SUPER.unpack_from(raw, f.SUPER_AT)
    for field, got, want in (
        ("magic", magic, (f.SUPER_MAGIC,)),
        ("version", version, (f.VERSION,)),
        ("blocks of a segment", size, f.SEGMENT_SIZES),
        ("blocks of the table behind a pointer", run, range(1, f.MAX_RUN + 1)),
    ):
        if got not in want:
            raise CorruptionError(block, field, got, want)
    return size, run, uuid
