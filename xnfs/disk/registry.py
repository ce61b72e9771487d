"""The registry: which page frame holds which block, and in what state.

Frames come from `xnfs.memory`; the registry says what lies in them. It is shared by all libFSes and
exposed read-only. It prefers no page: which ones to drop is the libFS's choice (`Xn.evict`); what
may be dropped is decided here. Blocks of data with the same bytes may share a frame, until one of
them is written.

Data comes in runs: one record stands for all blocks of one, and what differs from block to block is
in sets, which take and lose a run at once. So nothing here is done for each block of data by itself
but where frames are shared. Metadata, which is looked at block by block, has a record for each.

Dirty blocks are in one of two sets, because they are written by different rules (DESIGN section 5):

- `plain`: data, and metadata that no durable pointer names ("fresh"): in place, in any order, at
  any time;
- `attached`: metadata that a durable pointer may name: in place only through a transaction's log.

Source: Kaashoek et al. 1997, section 4.3 (buffer cache registry).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from itertools import groupby
from typing import cast

from xnfs.disk.blocktype import ZERO, BlockType
from xnfs.disk.records import BLOCK
from xnfs.errors import NotCached
from xnfs.memory.frames import FramePool
from xnfs.runs import Run, runs


class Page:
    """What cached blocks of one run of plain data have in common. Block b lies in frame b + shift.

    Which blocks it stands for is not kept here: those that `Registry.pages` leads here from.
    """

    __slots__ = ("parent", "root", "shift", "type")
    meta = False

    def __init__(self, kind: BlockType, shift: int, parent: int, root: str) -> None:
        self.type = kind
        self.shift = shift
        self.parent = parent  # whoever bound it last; information only
        self.root = root


class MetaPage(Page):
    """One cached block of metadata, with its pointer changes that are not durable yet.

    `fresh`: no durable pointer to this block exists. `added`: blocks whose first owner this became.
    `shared`: further owners, block -> how many. `filled`: blocks of an unreadable type that turned
    into data here. `removed`: runs of data dropped while they may be durably owned. `dropped`: the
    same, single blocks that are counted one by one.
    """

    __slots__ = ("added", "block", "dropped", "filled", "fresh", "removed", "shared", "view")
    meta = True

    def __init__(
        self, block: int, kind: BlockType, frame: int, view: memoryview, parent: int, root: str
    ) -> None:
        super().__init__(kind, frame - block, parent, root)
        self.block = block
        self.view = view
        self.fresh = False
        self.added: set[int] = set()
        self.filled: set[int] = set()
        self.shared: dict[int, int] = {}
        self.removed: list[tuple[int, int]] = []
        self.dropped: list[int] = []

    def take_pending(self, other: MetaPage) -> None:
        """The object has moved here: so have its pointer changes."""
        self.added, self.filled, self.shared = other.added, other.filled, other.shared
        self.removed, self.dropped = other.removed, other.dropped

    @property
    def pending(self) -> bool:
        """True if a pointer change in this block is not durable yet."""
        return bool(self.added or self.removed or self.dropped or self.shared or self.filled)


class Registry:
    """Blocks in frames. Not locked: the system-call layer is."""

    def __init__(self, frames: FramePool) -> None:
        self.pages: dict[int, Page] = {}
        #: those of `pages` that are metadata
        self.metadata: dict[int, MetaPage] = {}
        self.plain: set[int] = set()
        self.attached: set[int] = set()
        #: cached blocks whose content is zeros, though their frames are not cleared yet
        self.blank: set[int] = set()
        #: bound to be overwritten: nobody may see what their frames hold until then
        self.unfilled: set[int] = set()
        #: block -> how often it is pinned
        self.pins: dict[int, int] = {}
        #: block -> the capability that has locked it
        self.locks: dict[int, bytes] = {}
        self._frames = frames
        #: frame -> its holders beyond the first: blocks that it holds, and loans
        self._sharers: Counter[int] = Counter()

    # -- looking

    def get(self, block: int) -> Page | None:
        """The record of a block, if cached."""
        return self.pages.get(block)

    def of_run(self, start: int, count: int) -> set[Page]:
        """The records of consecutive blocks. Raises NotCached if one of them has none."""
        run = range(start, start + count)
        # Runs may be as long as a caller likes: those with a gap are not walked to their end.
        found = set(map(self.pages.get, run)) if count <= len(self.pages) else {None}
        if None in found:
            gap = next(block for block in run if block not in self.pages)
            raise NotCached(f"block {gap} is not cached")
        return cast(set[Page], found)

    def absent(self, start: int, count: int) -> list[Run]:
        """Which of these blocks are not cached, in runs."""
        run = range(start, start + count)
        if self.pages.keys().isdisjoint(run):
            return [(start, count)]
        return runs(set(run).difference(self.pages), count)

    def unread(self, start: int, count: int) -> list[Run]:
        """Which of these blocks have no bytes yet: those not cached, or bound and not filled."""
        run = range(start, start + count)
        if not self.unfilled or self.unfilled.isdisjoint(run):
            return self.absent(start, count)
        missing = set(run).difference(self.pages)
        return runs(missing | self.unfilled.intersection(run), count)

    def view(self, block: int) -> memoryview:
        """The frame of a cached block."""
        page = self.pages[block]
        return page.view if isinstance(page, MetaPage) else self._frames.view(block + page.shift)

    def views(self, start: int, count: int) -> list[memoryview]:
        """The frames of a run of cached blocks, as few views as the frames are contiguous. Raises
        NotCached.
        """
        if count == 1 and start in self.pages:
            return [self.view(start)]
        view = self._frames.view_run
        found = self.of_run(start, count)
        if len(found) == 1:
            (page,) = found
            return [view(start + page.shift, count)]
        shifts = [self.pages[block].shift for block in range(start, start + count)]
        out = []
        for shift, alike in groupby(shifts):
            n = len(list(alike))
            out.append(view(start + shift, n))
            start += n
        return out

    # -- pages come and go

    def add_run(self, start: int, count: int, kind: BlockType, parent: int, root: str) -> None:
        """Give frames to `count` blocks from `start`, contents as the frames had them.

        They are the root's: one that has a quota can't take those of others. Raises NoFrames with
        no effect. The caller fills or zeroes them before anyone sees them.
        """
        frames = self._frames.alloc(root, count)  # ascending
        if kind.stamp is not None:
            views = self._frames.views(frames)
            for block, (frame, view) in enumerate(zip(frames, views, strict=True), start):
                page = MetaPage(block, kind, frame, view, parent, root)
                self.pages[block] = self.metadata[block] = page
            return
        together = frames[-1] - frames[0] == count - 1
        for first, n in [(frames[0], count)] if together else runs(frames, count):
            same = Page(kind, first - start, parent, root)
            self.pages.update(dict.fromkeys(range(start, start + n), same))
            start += n

    def add_blank(self, start: int, count: int, kind: BlockType, parent: int, root: str) -> None:
        """Pages of zeros, dirty and fresh. Data frames are cleared when somebody looks; see
        `clear`.
        """
        self.add_run(start, count, kind, parent, root)
        run = range(start, start + count)
        self.plain.update(run)
        if kind.stamp is None:
            self.blank.update(run)
            return
        for block in run:
            page = self.metadata[block]
            page.view[:] = ZERO
            page.fresh = True

    def alias(
        self, start: int, source: int, count: int, kind: BlockType, parent: int, root: str
    ) -> None:
        """Data for `count` blocks from `start` in the frames of others: dirty and fresh, with their
        bytes. They cost no frames until one of the two is written (`own`). Raises NotCached.
        """
        self.clear(source, count)
        run = range(start, start + count)
        of_source = map(self.pages.get, range(source, source + count))
        for page, alike in groupby(of_source):
            if page is None:
                raise NotCached(f"block {source} is not cached")
            n, first = len(list(alike)), source + page.shift
            same = Page(kind, first - start, parent, root)
            self.pages.update(dict.fromkeys(range(start, start + n), same))
            self._sharers.update(range(first, first + n))
            start, source = start + n, source + n
        self.plain.update(run)

    def own(self, start: int, count: int) -> None:
        """Frames of their own, with the same bytes, for those blocks of a run of data that share
        one: they are about to be written. Each is its root's. Raises NoFrames with no effect.
        """
        if not self._sharers:
            return
        blocks: dict[str, list[int]] = {}
        for block in range(start, start + count):
            page = self.pages[block]
            if block + page.shift in self._sharers:
                blocks.setdefault(page.root, []).append(block)
        new: list[tuple[int, int]] = []
        try:
            for root, each in blocks.items():
                new += zip(each, self._frames.alloc(root, len(each)), strict=True)
        except BaseException:
            self._frames.free([frame for _block, frame in new])
            raise
        alike: dict[tuple[Page, int], Page] = {}
        for block, frame in new:
            old, shift = self.pages[block], frame - block
            self._frames.view(frame)[:] = self.view(block)
            self._frames.free(self._leave([block + old.shift]))
            page = alike.setdefault((old, shift), Page(old.type, shift, old.parent, old.root))
            self.pages[block] = page

    def hold(self, frames: Iterable[int]) -> None:
        """Each frame has one holder more, who is no block: a loan (`lending.py`)."""
        self._sharers.update(frames)

    def let_go(self, frames: Collection[int]) -> int:
        """Undo `hold`; how many frames that nothing holds any more came free."""
        free = self._leave(frames)
        self._frames.free(free)
        return len(free)

    def _leave(self, frames: Collection[int]) -> Collection[int]:
        """One holder less of each of these frames; which of them have none any more."""
        sharers = self._sharers
        if not sharers or sharers.keys().isdisjoint(frames):
            return frames
        out = []
        for frame in frames:
            more = sharers.pop(frame, 0)
            if more > 1:
                sharers[frame] = more - 1
            elif not more:
                out.append(frame)
        return out

    def clear(self, start: int, count: int) -> None:
        """Clear the frames of blank blocks, before they are read or written out."""
        if self.blank:
            for block in self.blank.intersection(range(start, start + count)):
                self.view(block)[:] = ZERO
                self.blank.discard(block)

    def put(self, start: int, count: int, offset: int, data: bytes | memoryview) -> None:
        """Copy bytes into the frames of a run of data, from `offset` in the first on. They end in
        the last; what blank blocks have beside them becomes zero. Raises NotCached.
        """
        past = count * BLOCK - offset - len(data)
        if self.blank:
            whole = range(start + (offset > 0), start + count - (past > 0))
            self.blank.difference_update(whole)
            self.clear(start, count)
        source, at = memoryview(data), -offset
        for view in self.views(start, count):
            lo, hi = max(at, 0), min(at + len(view), len(data))
            view[lo - at : hi - at] = source[lo:hi]
            at += len(view)

    def drop(self, blocks: Iterable[int]) -> int:
        """Forget blocks, whatever their state, and give their frames back; how many of these came
        free.
        """
        gone = self.pages.keys() & blocks
        if not gone:
            return 0
        records = map(self.pages.pop, gone)
        frames = [block + page.shift for block, page in zip(gone, records, strict=True)]
        for states in (self.plain, self.attached, self.blank, self.unfilled):
            if not states.isdisjoint(gone):
                states.difference_update(gone)
        for table in (self.metadata, self.pins, self.locks):
            for block in table.keys() & gone:
                del table[block]
        left = self._leave(frames)
        self._frames.free(left)
        return len(left)

    # -- states

    def cross(self, block: int, root: str) -> None:
        """The block belongs to another root now, and so does its frame."""
        page = self.pages[block]
        if isinstance(page, MetaPage):
            page.root = root
        else:  # the others of its run stay where they are
            self.pages[block] = Page(page.type, page.shift, page.parent, root)
        self._frames.hand_over([block + page.shift], root)

    def take_over(self, old: int, new: int) -> None:
        """An object has moved from one cached block to another: so have its pins and its lock."""
        if old in self.pins:
            self.pins[new] = self.pins[old]
        if old in self.locks:
            self.locks[new] = self.locks[old]

    def mark_dirty(self, page: MetaPage) -> None:
        """The frame is newer than the disk."""
        (self.plain if page.fresh else self.attached).add(page.block)

    def is_dirty(self, block: int) -> bool:
        """True if the frame is newer than the disk."""
        return block in self.plain or block in self.attached
