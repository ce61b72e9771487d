"""The bytes of files: read, write, truncate, punch, zero, reserve, seek.

A file of up to 2560 bytes lies in its inode's block; a larger one in extents. New blocks are
claimed in one change for a whole request, with the new size, then filled. Overwriting takes no
change at all: the new times, and the new size of an append within the last block, wait in the
inode (`Volume.later`).

Invariants:

- D1 no extent of written data lies wholly past the end of the file, at any moment: growing never
  shows old bytes. So cutting goes from the end, with the size.
- D2 bytes of the last block past the end are unknown, and zeroed when the file grows over them: a
  cut itself overwrites nothing, so a crash can't lose bytes that had been synced.
- D3 a size that takes in more of the last block is not durable before the bytes that it takes in
  (`Volume.order_tail`). New blocks need no such care: XN writes them before their inode.

Rights are checked elsewhere, when the file is opened.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from libfs.common.loans import on_loan
from libfs.ffs import format as f
from libfs.ffs.extents import HOLE, ExtentMap
from libfs.ffs.inode import NOTHING, Piece, Vnode
from libfs.ffs.place import Placer
from libfs.ffs.volume import Batch, Volume
from libfs.posix.interface import FsError, Sink
from xnfs import Caller, NoFrames, NotCached

SHIFT: Final = 12
BLOCK: Final = f.BLOCK
MAX_SIZE: Final = f.MAX_FILE_BLOCKS * BLOCK
#: One claim at most: 1 MiB, so that a request of any size needs few frames at once.
CLAIM: Final = 256
READ_AHEAD_MIN: Final = 16
READ_AHEAD_MAX: Final = 256

T = TypeVar("T")


class FileData:
    """Bytes of all files of a mount."""

    def __init__(self, vol: Volume, extents: ExtentMap, place: Placer) -> None:
        self._vol = vol
        self._map = extents
        self._place = place

    # -- reading

    def read(self, v: Vnode, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`; short at the end of the file."""
        size = min(size, v.size - offset)
        if size <= 0:
            return b""
        if v.flags & f.I_INLINE:
            return self._read_inline(v, offset, size)
        piece = self._covering(v, offset, size)
        if piece is None:
            return self._read_pieces(v, offset, size)
        return self._with_data(v, piece, offset, size, self._vol.xn.read)

    def lend(self, v: Vnode, offset: int, size: int, to: Sink) -> None:
        """As `read`, shown to `to`: where it lies, if that is one extent."""
        size = min(size, v.size - offset)
        piece = None
        if size > 0 and not v.flags & f.I_INLINE:
            piece = self._covering(v, offset, size)
        if piece is None:
            to([self.read(v, offset, size)])
            return

        def show(who: Caller, block: int, at: int, size: int) -> None:
            self._vol.xn.lend(who, block, at, size, to)

        self._with_data(v, piece, offset, size, show)

    def borrow(self, v: Vnode, offset: int, size: int) -> list[memoryview]:
        """As `read`, in pieces: on loan where they lie in extents and XN lends so much, else
        copied.
        """
        out: list[memoryview] = []
        end = min(offset + size, v.size)
        while offset < end:
            piece = None if v.flags & f.I_INLINE else self._map.find(v, offset >> SHIFT)
            if piece is None or piece.kind != f.P_DATA:
                stop = end if piece is None else min(end, piece.end << SHIFT)
                out.append(memoryview(self.read(v, offset, stop - offset)))
            else:
                stop = min(end, piece.end << SHIFT, offset + CLAIM * BLOCK - offset % BLOCK)
                out += self._with_data(
                    v, piece, offset, stop - offset, partial(on_loan, self._vol.xn)
                )
            offset = stop
        return out

    def _covering(self, v: Vnode, offset: int, size: int) -> Piece | None:
        """The extent that has all of these bytes, unless there are several or they are more than
        a claim."""
        piece = v.last
        if not piece.first << SHIFT <= offset < piece.end << SHIFT:
            piece = self._map.find(v, offset >> SHIFT)
        if piece.kind == f.P_DATA and offset + size <= piece.end << SHIFT and size <= CLAIM * BLOCK:
            return piece
        return None

    def _read_inline(self, v: Vnode, offset: int, size: int) -> bytes:
        xn, at = self._vol.xn, f.INLINE_AT + offset
        try:
            return xn.read(self._vol.who, v.ino, at, size)
        except NotCached:
            self._vol.ensure(v.ino)
            return xn.read(self._vol.who, v.ino, at, size)

    def _read_pieces(self, v: Vnode, offset: int, size: int) -> bytes:
        out = []
        while size > 0:
            piece = self._map.find(v, offset >> SHIFT)
            n = min(size, (piece.end << SHIFT) - offset)
            if piece.kind != f.P_DATA:
                out.append(bytes(n))
            else:
                for at in range(offset, offset + n, CLAIM * BLOCK):
                    now = min(CLAIM * BLOCK, offset + n - at)
                    out.append(self._with_data(v, piece, at, now, self._vol.xn.read))
            offset += n
            size -= n
        return out[0] if len(out) == 1 else b"".join(out)

    def _with_data(
        self,
        v: Vnode,
        piece: Piece,
        offset: int,
        size: int,
        call: Callable[[Caller, int, int, int], T],
    ) -> T:
        """A system call on bytes of an extent that may have to be read first: with twice as much
        behind them as the last time, if that was where these begin."""
        vol = self._vol
        at = offset - (piece.first << SHIFT)
        first, end = at >> SHIFT, (at + size - 1 >> SHIFT) + 1
        if offset == v.read_next or offset == 0:  # who goes on where he stopped
            v.read_window = min(max(2 * v.read_window, READ_AHEAD_MIN), READ_AHEAD_MAX)
        else:
            v.read_window = 0
        v.read_next = offset + size
        # Who goes on mostly finds what was read ahead; for others asking is cheaper than failing.
        reads_on = offset and v.read_window
        if not (reads_on or vol.xn.cached(piece.block + first)):
            self._fill_ahead(v, piece, first, end)
        try:
            result = call(vol.who, piece.block, at, size)
        except NotCached:
            self._fill_ahead(v, piece, first, end)
            result = call(vol.who, piece.block, at, size)
        vol.cache.touch_run(piece.block + first, end - first)
        return result

    def _fill_ahead(self, v: Vnode, piece: Piece, first: int, end: int) -> None:
        """Have blocks [first, end) of an extent cached, and what is to be read ahead if there is
        room."""
        try:
            self._fill(piece, first, min(end + v.read_window, piece.end - piece.first))
        except NoFrames:
            self._fill(piece, first, end)

    def _fill(self, piece: Piece, first: int, end: int) -> None:
        """Have blocks [first, end) of an extent cached."""
        vol = self._vol
        vol.ensure(piece.owner)
        if piece.end <= READ_AHEAD_MIN:  # a small file: what comes next is another one
            if vol.groups is not None and vol.groups.data(piece.owner, piece.block + first):
                return
            vol.ahead.lone(piece.block + first)
        vol.readin(piece.owner, piece.slot, piece.block + first, end - first)

    # -- writing

    def write(self, who: Caller, v: Vnode, offset: int, data: bytes | memoryview, mode: int) -> int:
        """Write all of it, or a prefix if space runs out; how much. `mode` is the inode's new mode.

        Raises: EFBIG, ENOSPC with nothing written.
        """
        size = len(data)
        if offset + size > MAX_SIZE:
            raise FsError(errno.EFBIG)
        if not size:
            return 0
        written = v.mtime
        if mode != v.mode:
            self._clear_set_id(who, v, mode)
        if v.flags & f.I_INLINE:
            if offset + size <= f.INLINE_MAX:
                self._write_inline(who, v, offset, data)
                return size
            if v.size:
                self._leave_inline(who, v)
        if offset + size > v.size:
            self._grow(v, offset)
        piece = v.last
        if piece.kind == f.P_DATA and piece.first << SHIFT <= offset <= (piece.end << SHIFT) - size:
            self._overwrite(v, piece, offset, data)
        else:
            size = self._write_pieces(who, v, offset, data)
        if v.mtime == written or v.size < offset + size:  # the change that took blocks set neither
            v.mtime = v.ctime = self._vol.now()
            v.size = max(v.size, offset + size)
            self._vol.later(v)
        return size

    def _clear_set_id(self, who: Caller, v: Vnode, mode: int) -> None:
        batch = Batch(self._vol, who)
        batch.set(v, mode=mode)
        batch.commit()

    def _write_inline(self, who: Caller, v: Vnode, offset: int, data: bytes | memoryview) -> None:
        now = self._vol.now()
        batch = Batch(self._vol, who)
        batch.set(v, size=max(v.size, offset + len(data)), mtime=now, ctime=now)
        batch.edit(v.ino, f.INLINE_AT + offset, bytes(data))
        batch.commit()

    def _leave_inline(self, who: Caller, v: Vnode) -> None:
        """Move inline bytes to a block of their own."""
        old = self._read_inline(v, 0, v.size) if v.size else b""
        start = self._vol.find_free(self._place.data(v, 0), 1)[0] if old else 0
        batch = Batch(self._vol, who)
        batch.set(v, flags=v.flags & ~f.I_INLINE)
        v.last = NOTHING
        if not old:
            batch.commit()
            return
        batch.set(v, blocks=v.blocks + 1)
        batch.edit(v.ino, f.INLINE_AT, bytes(len(old)))
        batch.alloc.append((self._vol.type[f.P_DATA], start, 1))
        batch.fill(start, old)
        self._map.put(batch, v, self._map.root(v), 0, 1, f.P_DATA, start)
        batch.commit()
        self._vol.cache.wrote(start, 1)

    def _write_pieces(self, who: Caller, v: Vnode, offset: int, data: bytes | memoryview) -> int:
        """Write into whatever lies there, taking blocks for holes; a prefix if space runs out."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            at = offset + done
            fb, last = at >> SHIFT, offset + len(view) - 1 >> SHIFT
            piece = self._map.find(v, fb)
            if piece.kind != f.P_DATA:
                count = min(last + 1, piece.end) - fb
                try:
                    piece = self._take(who, v, piece, fb, min(count, CLAIM), offset + len(view))
                except FsError as error:
                    if error.errno != errno.ENOSPC or not done:
                        raise
                    return done
            n = min(len(view) - done, (piece.end << SHIFT) - at, CLAIM * BLOCK)
            self._overwrite(v, piece, at, view[done : done + n])
            done += n
        return done

    def _take(self, who: Caller, v: Vnode, piece: Piece, fb: int, count: int, end: int) -> Piece:
        """Give [fb, fb + count), a hole or reserved, blocks that can be written; the file will end
        at byte `end` or where these blocks do. Gives the piece that now lies at `fb`."""
        leaf = self._map.reserve(who, v, fb)
        batch = Batch(self._vol, who)
        if piece.kind == f.P_UNWRITTEN:
            start, n = piece.block + fb - piece.first, count
            for kind, block, m in self._map.cut(batch, v, leaf, fb, fb + n):
                batch.free.append((self._vol.type[kind], block, m))
        else:
            start, n = self._vol.find_free(self._goal(v, leaf, fb), count)
            batch.set(v, blocks=v.blocks + n)
        batch.alloc.append((self._vol.type[f.P_DATA], start, n))
        self._map.put(batch, v, leaf, fb, n, f.P_DATA, start)
        now = self._vol.now()
        size = max(v.size, min(end, fb + n << SHIFT))
        batch.set(v, size=size, mtime=now, ctime=now, flags=v.flags & ~f.I_INLINE)
        batch.commit()
        return self._map.find(v, fb)

    def _goal(self, v: Vnode, leaf: object, fb: int) -> int:
        """A hint for the block of `fb`: after the data before it."""
        before = self._map.find(v, fb - 1) if fb else None
        if before is None or before.kind == HOLE:
            return self._place.data(v, 0)
        return self._place.data(v, before.block + fb - 1 - before.first)

    def _overwrite(
        self,
        v: Vnode,
        piece: Piece,
        offset: int,
        data: bytes | memoryview,
    ) -> None:
        """Write into blocks that the file has."""
        vol, block = self._vol, piece.block
        at = offset - (piece.first << SHIFT)
        lo, hi = at >> SHIFT, (at + len(data) - 1 >> SHIFT) + 1
        try:
            vol.xn.write_raw(vol.who, block, at, data)
        except NotCached:
            self._bind(piece, lo, hi, at, at + len(data))
            vol.xn.write_raw(vol.who, block, at, data)
        except NoFrames:  # the blocks share the frames of those that they were copied from
            vol.cache.make_room(hi - lo)
            self._bind(piece, lo, hi, at, at + len(data))
            vol.xn.write_raw(vol.who, block, at, data)
        vol.cache.wrote(block + lo, hi - lo)
        v.wrote(block + lo, block + hi, vol.epoch)

    def _bind(self, piece: Piece, lo: int, hi: int, start: int, end: int) -> None:
        """Have blocks [lo, hi) of an extent bound; read the ends if they are written in part."""
        vol = self._vol
        vol.ensure(piece.owner)
        if start % BLOCK:
            self._fill(piece, lo, lo + 1)
        if end % BLOCK:
            self._fill(piece, hi - 1, hi)
        vol.bind(piece.owner, piece.slot, piece.block + lo, hi - lo)

    def _grow(self, v: Vnode, upto: int) -> None:
        """The file will end past its present end, and nothing is written before `upto`: clear what
        its last block has there (D2), and note the block (D3)."""
        end = min(upto, -(-v.size // BLOCK) * BLOCK)
        if v.size % BLOCK == 0 or v.flags & f.I_INLINE:
            return
        piece = self._map.find(v, v.size >> SHIFT)
        if piece.kind == f.P_DATA:
            if v.size < end:
                self._overwrite(v, piece, v.size, bytes(end - v.size))
            v.tail = piece.block + (v.size >> SHIFT) - piece.first

    # -- cutting

    def truncate(self, who: Caller, v: Vnode, size: int, mode: int) -> None:
        """Give the file this size. Raises: EFBIG."""
        if size > MAX_SIZE:
            raise FsError(errno.EFBIG)
        if v.flags & f.I_INLINE and size > f.INLINE_MAX:
            self._leave_inline(who, v)
        now = self._vol.now()
        if size < v.size and not v.flags & f.I_INLINE:
            self.remove(who, v, -(-size // BLOCK), f.MAX_FILE_BLOCKS, shrink_to=size)
        elif size > v.size and not v.flags & f.I_INLINE:
            self._grow(v, size)
        batch = Batch(self._vol, who)
        if v.flags & f.I_INLINE and size < v.size:
            batch.edit(v.ino, f.INLINE_AT + size, bytes(v.size - size))
        batch.set(v, size=size, mtime=now, ctime=now, mode=mode)
        if size == 0 and not v.blocks and v.mode >> 12 == 8:
            batch.set(v, flags=v.flags | f.I_INLINE)
        batch.commit()

    def remove(
        self, who: Caller, v: Vnode, lo: int, hi: int, *, shrink_to: int | None = None
    ) -> None:
        """Make a hole of file blocks [lo, hi), from the end, one block of slots at a time; with
        `shrink_to` the size follows (D1)."""
        vol = self._vol
        if shrink_to is None and hi < f.MAX_FILE_BLOCKS:
            piece = self._map.find(v, lo)
            if piece.kind != HOLE and piece.first < lo and piece.end > hi:
                self._map.reserve(who, v, lo, 1)
        while True:
            path = self._map.used_leaf(v, lo, hi)
            if path is None:
                return
            leaf = path[-1][0]
            lowest = next((max(e[0], lo) for e in leaf.entries if e[0] + e[1] > lo), hi)
            batch = Batch(vol, who)
            gone = self._map.cut(batch, v, leaf, lo, hi)
            lost = sum(n for _kind, _block, n in gone) + self._map.prune(batch, v, path)
            batch.free += [(vol.type[kind], block, n) for kind, block, n in gone]
            batch.set(v, blocks=max(v.blocks - lost, 0))
            if shrink_to is not None:
                batch.set(v, size=min(v.size, max(shrink_to, lowest << SHIFT)))
            batch.commit()

    def punch(self, who: Caller, v: Vnode, offset: int, length: int) -> None:
        """Make a hole; the size stays."""
        end = min(offset + length, v.size) if v.flags & f.I_INLINE else offset + length
        self._zero_edges(who, v, offset, end)
        if not v.flags & f.I_INLINE:
            lo, hi = -(-offset // BLOCK), end // BLOCK
            if end >= v.size:
                hi = -(-end // BLOCK)
            if lo < hi:
                self.remove(who, v, lo, min(hi, f.MAX_FILE_BLOCKS))
        self._touch(who, v)

    def _zero_edges(self, who: Caller, v: Vnode, offset: int, end: int) -> None:
        """Clear the parts of blocks at both ends of [offset, end), as far as there is something."""
        if v.flags & f.I_INLINE:
            if offset < end:
                batch = Batch(self._vol, who)
                batch.edit(v.ino, f.INLINE_AT + offset, bytes(end - offset))
                batch.commit()
            return
        end = min(end, v.size)
        inner = -(-offset // BLOCK) * BLOCK
        tail = end // BLOCK * BLOCK
        for lo, hi in ((offset, min(inner, end)), (max(tail, inner), end)):
            if lo < hi:
                piece = self._map.find(v, lo >> SHIFT)
                if piece.kind == f.P_DATA:
                    self._overwrite(v, piece, lo, bytes(hi - lo))

    def _touch(self, who: Caller, v: Vnode, size: int | None = None) -> None:
        now = self._vol.now()
        batch = Batch(self._vol, who)
        batch.set(v, mtime=now, ctime=now, size=v.size if size is None else size)
        batch.commit()

    # -- reserving

    def allocate(self, who: Caller, v: Vnode, offset: int, length: int, *, keep_size: bool) -> None:
        """Reserve blocks for [offset, offset + length). Raises: ENOSPC, EFBIG."""
        end = offset + length
        if end > MAX_SIZE:
            raise FsError(errno.EFBIG)
        if v.flags & f.I_INLINE and end > f.INLINE_MAX:
            self._leave_inline(who, v)
        grown = v.size if keep_size else max(v.size, end)
        if not v.flags & f.I_INLINE:
            if grown > v.size:
                self._grow(v, grown)
            self._reserve(who, v, offset >> SHIFT, -(-end // BLOCK))
        self._touch(who, v, grown)

    def _reserve(self, who: Caller, v: Vnode, fb: int, end: int) -> None:
        vol = self._vol
        while fb < end:
            piece = self._map.find(v, fb)
            if piece.kind != HOLE:
                fb = piece.end
                continue
            leaf = self._map.reserve(who, v, fb, 1)
            wanted = min(piece.end, end) - fb
            start, n = vol.find_free(self._goal(v, leaf, fb), wanted)
            batch = Batch(vol, who)
            batch.alloc.append((vol.type[f.P_UNWRITTEN], start, n))
            self._map.put(batch, v, leaf, fb, n, f.P_UNWRITTEN, start)
            batch.set(v, blocks=v.blocks + n)
            batch.commit()
            fb += n

    def zero_range(
        self, who: Caller, v: Vnode, offset: int, length: int, *, keep_size: bool
    ) -> None:
        """[offset, offset + length) reads as zeros and is reserved. Raises: ENOSPC, EFBIG."""
        end = offset + length
        if end > MAX_SIZE:
            raise FsError(errno.EFBIG)
        self.punch(who, v, offset, length)
        self.allocate(who, v, offset, length, keep_size=keep_size)

    # -- seeking

    def seek(self, v: Vnode, offset: int, *, hole: bool) -> int:
        """The next hole or data at or after `offset`. Raises: ENXIO."""
        if not 0 <= offset < v.size:
            raise FsError(errno.ENXIO)
        if v.flags & f.I_INLINE:
            return v.size if hole else offset
        fb, end = offset >> SHIFT, -(-v.size // BLOCK)
        while fb < end:
            piece = self._map.find(v, fb)
            if (piece.kind != f.P_DATA) == hole:
                return max(offset, fb << SHIFT)
            fb = piece.end
        if hole:
            return v.size
        raise FsError(errno.ENXIO)
