"""The bytes of files: read, write, truncate, punch, zero, reserve, seek.

A file of up to 2560 bytes lies in its record; a larger one in blocks. What is written waits in
memory, by file block, until a flush puts it at the end of the log. Space cannot be reserved at a
place, since nothing is overwritten: `allocate` sets blocks aside by their number, and the map says
which blocks of the file they are for (`format.RESERVED`).

Invariants: D1 no address lies wholly past the end of the file; D2 the last block is zero past the
end. Both hold at every flush, so growing never shows old bytes.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, TypeAlias, TypeVar

from libfs.common.loans import on_loan
from libfs.lfs import format as f
from libfs.lfs.inode import Vnode
from libfs.lfs.segments import TRIES
from libfs.lfs.volume import DIRTY, Volume
from libfs.posix.interface import FsError, Sink
from xnfs import Caller, NoFrames, NotCached

BLOCK: Final = f.BLOCK
MAX_SIZE: Final = f.MAX_FILE_BLOCKS * BLOCK
#: Blocks read ahead of a sequential reader. A file that has no more than the least is small.
READ_AHEAD_MIN: Final = 16
READ_AHEAD_MAX: Final = 256
#: Blocks of the log that are fetched for the third small file among them; windows remembered.
WINDOW: Final = 64
LONE: Final = 3
WINDOWS: Final = 1024
_ZERO: Final = bytes(BLOCK)

T = TypeVar("T")
#: (block of the file, block of the log, count); 0: a block that waits in memory, or a hole
Run: TypeAlias = tuple[int, int, int]
#: Blocks that a record may grow by.
RECORD: Final = 1.0


class FileData:
    """Bytes of all files of a mount."""

    def __init__(self, vol: Volume) -> None:
        self._vol = vol
        self._lone: dict[int, int] = {}  # window -> fetches of small files in it

    # -- reading

    def read(self, v: Vnode, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`; short at the end of the file."""
        size = min(size, v.size - offset)
        if size <= 0:
            return b""
        pieces = self._pieces(v, offset, size)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def lend(self, v: Vnode, offset: int, size: int, to: Sink) -> None:
        """As `read`, shown to `to`: where it lies, if that is one place of the log."""
        size = min(size, v.size - offset)
        runs = [] if size <= 0 or v.inline else self._runs(v, offset, size)
        if len(runs) != 1 or not runs[0][1]:
            to(self._pieces(v, offset, size) if size > 0 else [])
            return

        def show(who: Caller, block: int, at: int, size: int) -> None:
            self._vol.xn.lend(who, block, at, size, to)

        self._in_log(v, runs[0], offset, size, show)

    def borrow(self, v: Vnode, offset: int, size: int) -> list[memoryview]:
        """As `read`, in pieces that stay as they are: on loan where they lie in the log."""
        size = min(size, v.size - offset)
        if size <= 0:
            return []
        if v.inline:
            return [memoryview(v.content[offset : offset + size])]
        out: list[memoryview] = []
        for run, at, n in self._parts(v, offset, size):
            if run[1]:
                out += self._in_log(v, run, at, n, partial(on_loan, self._vol.xn))
            else:
                out.append(memoryview(self._waits(v, run[0], at, n)))
        return out

    def _pieces(self, v: Vnode, offset: int, size: int) -> list[bytes]:
        """Bytes that the file has, in as many pieces as they are found in."""
        if v.inline:
            return [v.content[offset : offset + size]]
        return [
            self._in_log(v, run, at, n, self._vol.xn.read)
            if run[1]
            else self._waits(v, run[0], at, n)
            for run, at, n in self._parts(v, offset, size)
        ]

    def _parts(self, v: Vnode, offset: int, size: int) -> Iterator[tuple[Run, int, int]]:
        """(run, offset, bytes) of what each run has of a range."""
        for run in self._runs(v, offset, size):
            n = min((run[0] + run[2]) * BLOCK - offset, size)
            yield run, offset, n
            offset += n
            size -= n

    @staticmethod
    def _waits(v: Vnode, i: int, offset: int, size: int) -> bytes:
        """Bytes of a block of the file that waits in memory, or is a hole."""
        return bytes(v.data.get(i, _ZERO)[offset % BLOCK : offset % BLOCK + size])

    def _runs(self, v: Vnode, offset: int, size: int) -> list[Run]:
        """Where the blocks that have these bytes lie."""
        first, end = offset // BLOCK, (offset + size - 1) // BLOCK + 1
        data, runs = v.data, []
        begun, block, after = (
            first,
            0,
            -1,
        )  # of the run so far; the address that would go on with it
        for i, address in enumerate(v.tree.values(first, end), first):
            if address == after and i not in data:
                after += 1
                continue
            if i > begun:
                runs.append((begun, block, i - begun))
            begun, block, after = i, 0, -1
            if address > f.RESERVED and i not in data:
                block, after = address & f.AT_MASK, address + 1
        runs.append((begun, block, end - begun))
        return runs

    def _in_log(
        self, v: Vnode, run: Run, offset: int, size: int, call: Callable[[Caller, int, int, int], T]
    ) -> T:
        """A system call on bytes of a run that may have to be read first: with twice as much behind
        them as the last time, if that was where these begin."""
        vol = self._vol
        i, block, count = run
        if offset == v.read_next or offset == 0:
            v.read_window = min(max(2 * v.read_window, READ_AHEAD_MIN), READ_AHEAD_MAX)
        else:
            v.read_window = 0
        v.read_next = offset + size
        for _turn in range(TRIES):
            try:
                result = call(vol.who, block, offset - i * BLOCK, size)
            except NotCached:
                self._fetch(v, run)
                continue
            vol.cache.touch_run(block, count)
            return result
        raise NoFrames("pages are taken away again and again")

    def _fetch(self, v: Vnode, run: Run) -> None:
        """Have a run cached, and what will be wanted next."""
        fetch = self._vol.fetch
        i, block, count = run
        end, blocks = i + count, -(-v.size // BLOCK)
        ahead = min(v.read_window, blocks - end) * BLOCK
        try:
            if blocks <= READ_AHEAD_MIN:  # a small file: what comes next is another one
                fetch(*self._near(block, count))
            elif not ahead:
                fetch(block, count)
            else:
                for _i, start, n in self._runs(v, i * BLOCK, count * BLOCK + ahead):
                    if start:
                        fetch(start, n)
        except NoFrames:
            fetch(block, count)

    def _near(self, block: int, count: int) -> tuple[int, int]:
        """What to fetch for blocks of a small file: the third time in a window, all of it."""
        window, lone = block // WINDOW, self._lone
        seen = lone.pop(window, 0) + 1
        if seen >= LONE:
            return self._vol.segments.around(block, WINDOW)
        if len(lone) >= WINDOWS:
            lone.clear()
        lone[window] = seen
        return block, count

    # -- writing

    def _cost(self, v: Vnode, offset: int, size: int) -> tuple[float, float]:
        """(blocks that a flush may write more if these bytes change, those of them that are new):
        the inode's, nodes of the map, and data, but for what waits in memory or is promised. What
        takes the place of something is not new, so a full disk can be overwritten."""
        lo, hi = offset // BLOCK, -(-(offset + size) // BLOCK)
        waiting = self._waiting(v, lo, hi)
        data = hi - lo - len(waiting)
        new = data
        for first, values in v.tree.spans(lo, hi):
            promised = values.count(f.RESERVED)
            data -= promised
            new -= len(values) - values.count(0)
            for i in waiting:  # counts once
                if first <= i < first + len(values) and (at := values[i - first]):
                    data += at == f.RESERVED
                    new += 1
        nodes = (v.tree.depth + (hi >= v.tree.limit)) * ((hi - lo) // f.FAN + 2)
        return 1 + v.inline + nodes + data, 0.25 + v.inline + new if new else 0

    @staticmethod
    def _waiting(v: Vnode, lo: int, hi: int) -> list[int]:
        """Blocks of [lo, hi) that wait in memory."""
        if hi - lo < len(v.data):
            return [i for i in range(lo, hi) if i in v.data]
        return [i for i in v.data if lo <= i < hi]

    def write(self, v: Vnode, offset: int, data: bytes | memoryview, mode: int) -> int:
        """Write all of it, or a prefix if space runs out; how much. `mode`: the inode's new mode.

        Raises: EFBIG, ENOSPC with nothing written.
        """
        vol, size = self._vol, len(data)
        if offset + size > MAX_SIZE:
            raise FsError(errno.EFBIG)
        if not size:
            return 0
        end = offset + size
        if v.inline and end <= f.INLINE_MAX:
            vol.want(self._cost(v, 0, 0)[0], RECORD if end > v.size else 0)
            self._write_inline(v, offset, bytes(data))
        else:
            view = memoryview(data)
            end = offset
            # In pieces: a request may be larger than what may wait in memory.
            while end < offset + size:
                piece = view[end - offset :][: DIRTY // 2 * BLOCK]
                try:
                    vol.want(*self._cost(v, end, len(piece)))
                except FsError:
                    if end == offset:
                        raise
                    break
                self._leave_inline(v)
                self._write_blocks(v, end, piece)
                end += len(piece)
                v.size = max(v.size, end)
                vol.waiting()
        v.size = max(v.size, end)
        v.mode = mode
        v.mtime = v.ctime = vol.now()
        vol.changed(v)
        return end - offset

    def _write_inline(self, v: Vnode, offset: int, data: bytes) -> None:
        old = v.content.ljust(offset, b"\0")
        v.content = old[:offset] + data + old[offset + len(data) :]

    def _leave_inline(self, v: Vnode) -> None:
        """From the record to a block."""
        if v.inline:
            content, v.content = v.content, b""
            v.flags &= ~f.I_INLINE
            if content:
                v.data[0] = bytearray(content.ljust(BLOCK, b"\0"))
                v.blocks += 1
                self._vol.dirty_blocks += 1

    def _write_blocks(self, v: Vnode, offset: int, data: memoryview) -> None:
        i, low = divmod(offset, BLOCK)
        if low:
            part = data[: BLOCK - low]
            self._own(v, i)[low : low + len(part)] = part
            data = data[len(part) :]
            i += 1
        whole, rest = divmod(len(data), BLOCK)
        if whole:
            self._put(v, i, [bytes(data[at : at + BLOCK]) for at in range(0, whole * BLOCK, BLOCK)])
        if rest:
            self._own(v, i + whole)[:rest] = data[whole * BLOCK :]
        self._vol.changed(v)

    def _put(self, v: Vnode, i: int, blocks: Sequence[bytes]) -> None:
        """Whole blocks; what was there does not matter."""
        end = i + len(blocks)
        waiting, before = self._waiting(v, i, end), v.tree.values(i, end)
        v.blocks += before.count(0) - sum(not before[at - i] for at in waiting)
        self._vol.dirty_blocks += len(blocks) - len(waiting)
        v.data.update(zip(range(i, end), blocks, strict=True))

    def _own(self, v: Vnode, i: int) -> bytearray:
        """A block of the file in memory, to be changed."""
        block = v.data.get(i)
        if type(block) is not bytearray:
            if block is None:
                at = v.tree.get(i)
                v.blocks += not at
                self._vol.dirty_blocks += 1
                block = self._vol.data(at) if at > f.RESERVED else bytes(BLOCK)
            block = v.data[i] = bytearray(block)
        return block

    # -- cutting

    def truncate(self, v: Vnode, size: int, mode: int) -> None:
        """Give the file this size. Raises: EFBIG, ENOSPC."""
        if size > MAX_SIZE:
            raise FsError(errno.EFBIG)
        self._vol.want(self._cost(v, size, 1)[0], delete=size <= v.size)
        if size <= v.size:
            self._cut(v, size)
        self._resize(v, size)
        v.mode = mode
        self._touch(v)

    def _resize(self, v: Vnode, size: int) -> None:
        if v.inline:
            if size > f.INLINE_MAX:
                self._leave_inline(v)
            else:
                v.content = v.content[:size].ljust(size, b"\0")
        v.size = size
        if not size and not v.inline:
            v.flags |= f.I_INLINE
            v.content = b""

    def _cut(self, v: Vnode, size: int) -> None:
        """Nothing past `size` is left."""
        if v.inline:
            return
        self._drop(v, -(-size // BLOCK), f.MAX_FILE_BLOCKS)
        self._zero(v, size, -(-size // BLOCK) * BLOCK)

    def _zero(self, v: Vnode, start: int, end: int) -> None:
        """Clear a part of one block, if there is something."""
        i, low = divmod(start, BLOCK)
        if start < end and (i in v.data or v.tree.get(i) > f.RESERVED):
            self._own(v, i)[low : low + end - start] = bytes(end - start)

    def _drop(self, v: Vnode, lo: int, hi: int) -> None:
        """Make a hole of blocks [lo, hi)."""
        vol = self._vol
        for i in [i for i in v.data if lo <= i < hi]:
            if not v.tree.get(i):
                v.blocks -= 1
            del v.data[i]
            vol.dirty_blocks -= 1
        for _i, at in v.tree.clear(lo, hi):
            v.blocks -= 1
            if v.nlink or at == f.RESERVED:
                vol.died(at, f.BLOCK)

    def punch(self, v: Vnode, offset: int, length: int) -> None:
        """Make a hole; the size stays."""
        cost = self._cost(v, offset, 1)[0] + self._cost(v, offset + length, 1)[0]
        self._vol.want(cost, delete=True)
        end = min(offset + length, v.size)
        if offset < end and v.inline:
            self._write_inline(v, offset, bytes(end - offset))
        elif offset < end:
            lo, hi = -(-offset // BLOCK), end // BLOCK
            if end == v.size:
                hi = max(lo, -(-end // BLOCK))
            self._zero(v, offset, min(lo * BLOCK, end))
            if lo < hi:
                self._drop(v, lo, hi)
            if max(hi, lo) * BLOCK < end:
                self._zero(v, max(hi, lo) * BLOCK, end)
        self._touch(v)

    def _touch(self, v: Vnode) -> None:
        v.mtime = v.ctime = self._vol.now()
        self._vol.changed(v)

    # -- reserving

    def allocate(self, v: Vnode, offset: int, length: int, *, keep_size: bool) -> None:
        """Set blocks aside for [offset, offset + length), and the size. Raises: ENOSPC, EFBIG."""
        vol, end = self._vol, offset + length
        if end > MAX_SIZE:
            raise FsError(errno.EFBIG)
        vol.want(*self._cost(v, offset, length))
        if end > f.INLINE_MAX:
            self._leave_inline(v)
        if not keep_size and end > v.size:
            self._resize(v, end)
        if not v.inline:
            self._reserve(v, offset // BLOCK, -(-end // BLOCK))
        self._touch(v)

    def _reserve(self, v: Vnode, lo: int, hi: int) -> None:
        there = {i for i, _at in v.tree.items(lo, hi)}.union(v.data)
        for i in range(lo, hi):
            if i not in there:
                v.tree.set(i, f.RESERVED)
                v.blocks += 1
                self._vol.reserved += 1
                self._vol.pending -= 1
                self._vol.growth -= 1

    def zero_range(self, v: Vnode, offset: int, length: int, *, keep_size: bool) -> None:
        """[offset, offset + length) reads as zeros. Raises: ENOSPC, EFBIG."""
        if offset + length > MAX_SIZE:
            raise FsError(errno.EFBIG)
        self.punch(v, offset, length)
        self.allocate(v, offset, length, keep_size=keep_size)

    # -- seeking

    def seek(self, v: Vnode, offset: int, *, hole: bool) -> int:
        """The next hole or data at or after `offset`. Raises: ENXIO."""
        if not 0 <= offset < v.size:
            raise FsError(errno.ENXIO)
        if v.inline:
            return v.size if hole else offset
        first, end = offset // BLOCK, -(-v.size // BLOCK)
        there = {i for i in v.data if first <= i < end}
        there.update(i for i, at in v.tree.items(first, end) if at > f.RESERVED)
        if not hole:
            if not there:
                raise FsError(errno.ENXIO)
            return max(offset, min(there) * BLOCK)
        i = first
        while i in there:
            i += 1
        return min(max(offset, i * BLOCK), v.size)
