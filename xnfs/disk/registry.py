"""The registry: which page frame holds which block, and in what state.

Frames come from `xnfs.memory`; the registry says what lies in them. It is shared by all libFSes and
exposed read-only. It prefers no page: which ones to drop is the libFS's choice (`Xn.evict`); what
may be dropped is decided here. Blocks of data with the same bytes may share a frame, until one of
them is written.

Dirty blocks are in one of two sets, because they are written by different rules (DESIGN section 5):

- `plain`: data, and metadata that no durable pointer names ("fresh"): in place, in any order, at
  any time;
- `attached`: metadata that a durable pointer may name: in place only through a transaction's log.

Source: Kaashoek et al. 1997, section 4.3 (buffer cache registry).
"""

from __future__ import annotations

from collections.abc import Iterable

from xnfs.disk.blocktype import ZERO, BlockType
from xnfs.errors import NotCached
from xnfs.memory.frames import FramePool


class Page:
    """One cached block of plain data. `valid` is False between `bind` and the first fill."""

    __slots__ = ("block", "frame", "lock", "parent", "pins", "root", "type", "valid", "view")
    meta = False

    def __init__(
        self, block: int, kind: BlockType, frame: int, view: memoryview, parent: int, root: str
    ) -> None:
        self.block = block
        self.type = kind
        self.frame = frame
        self.view = view
        self.parent = parent  # whoever bound it last; information only
        self.root = root
        self.pins = 0
        self.lock: bytes | None = None
        self.valid = True


class MetaPage(Page):
    """One cached block of metadata, with its pointer changes that are not durable yet.

    `fresh`: no durable pointer to this block exists. `added`: blocks whose first owner this became.
    `shared`: further owners, block -> how many. `filled`: blocks of an unreadable type that turned
    into data here. `removed`: runs of data dropped while they may be durably owned. `dropped`: the
    same, single blocks that are counted one by one.
    """

    __slots__ = ("added", "dropped", "filled", "fresh", "removed", "shared")
    meta = True

    def __init__(
        self, block: int, kind: BlockType, frame: int, view: memoryview, parent: int, root: str
    ) -> None:
        super().__init__(block, kind, frame, view, parent, root)
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
        self.plain: set[int] = set()
        self.attached: set[int] = set()
        #: cached blocks whose content is zeros, though their frames are not cleared yet
        self.blank: set[int] = set()
        self._frames = frames
        #: frame -> its holders beyond the first: blocks that it holds, and loans
        self._sharers: dict[int, int] = {}

    def get(self, block: int) -> Page | None:
        """The page of a block, if cached."""
        return self.pages.get(block)

    def run(self, start: int, count: int) -> list[Page]:
        """The pages of consecutive blocks. Raises NotCached if one of them has none."""
        pages = self.pages
        try:
            return [pages[block] for block in range(start, start + count)]
        except KeyError as e:
            raise NotCached(f"block {e.args[0]} is not cached") from None

    def add_run(
        self, start: int, count: int, kind: BlockType, parent: int, root: str
    ) -> list[Page]:
        """Give frames to `count` blocks from `start`, contents as the frames had them.

        They are the root's: one that has a quota can't take those of others. Raises NoFrames with
        no effect. The caller fills or zeroes them before anyone sees them.
        """
        frames = self._frames.alloc(root, count)
        make = Page if kind.stamp is None else MetaPage
        views = self._frames.views(frames)
        new = [
            make(block, kind, frame, view, parent, root)
            for block, frame, view in zip(range(start, start + count), frames, views, strict=True)
        ]
        self.pages.update(zip(range(start, start + count), new, strict=True))
        return new

    def add_blank(self, start: int, count: int, kind: BlockType, parent: int, root: str) -> None:
        """Pages of zeros, dirty and fresh. Data frames are cleared when somebody looks; see
        `clear`.
        """
        for page in self.add_run(start, count, kind, parent, root):
            if isinstance(page, MetaPage):
                page.view[:] = ZERO
                page.fresh = True
        run = range(start, start + count)
        if kind.stamp is None:
            self.blank.update(run)
        self.plain.update(run)

    def alias(self, block: int, source: Page, kind: BlockType, parent: int, root: str) -> None:
        """A page of data for `block` in the frame of another: dirty and fresh, with its bytes. It
        costs no frame until one of the two is written (`own`).
        """
        if self.blank:
            self.clear(source.block, 1)
        frame, sharers = source.frame, self._sharers
        self.pages[block] = Page(block, kind, frame, source.view, parent, root)
        sharers[frame] = sharers.get(frame, 0) + 1
        self.plain.add(block)

    def own(self, run: Iterable[Page]) -> None:
        """Frames of their own, with the same bytes, for those pages that share one: they are about
        to be written. Each is its root's. Raises NoFrames with no effect.
        """
        if not self._sharers:
            return
        pages: dict[str, list[Page]] = {}
        for page in run:
            if page.frame in self._sharers:
                pages.setdefault(page.root, []).append(page)
        new: list[tuple[Page, int]] = []
        try:
            for root, each in pages.items():
                new += zip(each, self._frames.alloc(root, len(each)), strict=True)
        except BaseException:
            self._frames.free([frame for _page, frame in new])
            raise
        for page, frame in new:
            view = self._frames.view(frame)
            view[:] = page.view
            if self._leave(page.frame):
                self._frames.free([page.frame])
            page.frame, page.view = frame, view

    def hold(self, frames: Iterable[int]) -> None:
        """Each frame has one holder more, who is no page: a loan (`lending.py`)."""
        for frame in frames:
            self._sharers[frame] = self._sharers.get(frame, 0) + 1

    def let_go(self, frames: Iterable[int]) -> int:
        """Undo `hold`; how many frames that nothing holds any more came free."""
        free = [frame for frame in frames if self._leave(frame)]
        self._frames.free(free)
        return len(free)

    def _leave(self, frame: int) -> bool:
        """One holder less of the frame; whether that was the last."""
        if not self._sharers:
            return True
        more = self._sharers.pop(frame, 0)
        if more > 1:
            self._sharers[frame] = more - 1
        return not more

    def clear(self, start: int, count: int) -> None:
        """Clear the frames of blank blocks, before they are read or written out."""
        if self.blank:
            for block in self.blank.intersection(range(start, start + count)):
                self.pages[block].view[:] = ZERO
                self.blank.discard(block)

    def drop(self, blocks: Iterable[int]) -> int:
        """Forget pages, whatever their state, and give their frames back; how many."""
        pop, frames, gone = self.pages.pop, [], []
        for block in blocks:
            page = pop(block, None)
            if page is not None:
                if self._leave(page.frame):
                    frames.append(page.frame)
                gone.append(block)
        for state in (self.plain, self.attached, self.blank):
            if state:
                state.difference_update(gone)
        if frames:
            self._frames.free(frames)
        return len(frames)

    def cross(self, block: int, root: str) -> None:
        """The block belongs to another root now, and so does its frame."""
        page = self.pages[block]
        page.root = root
        self._frames.hand_over([page.frame], root)

    def mark_dirty(self, page: Page) -> None:
        """The frame is newer than the disk."""
        if page.meta and not page.fresh:  # type: ignore[attr-defined]
            self.attached.add(page.block)
        else:
            self.plain.add(page.block)

    def is_dirty(self, block: int) -> bool:
        """True if the frame is newer than the disk."""
        return block in self.plain or block in self.attached

    def views(self, start: int, count: int) -> list[memoryview]:
        """The frames of a run of cached blocks, as few views as the frames are contiguous."""
        if count == 1:
            return [self.run(start, 1)[0].view]
        view, frames = self._frames.view_run, [page.frame for page in self.run(start, count)]
        first = last = frames[0]
        if frames[-1] == first + count - 1 and frames == list(range(first, first + count)):
            return [view(first, count)]
        out: list[memoryview] = []
        for frame in frames[1:]:
            if frame != last + 1:
                out.append(view(first, last - first + 1))
                first = frame
            last = frame
        out.append(view(first, last - first + 1))
        return out


def runs(blocks: Iterable[int], limit: int = 4096) -> list[tuple[int, int]]:
    """Group block numbers into (start, count), ascending, none longer than `limit`."""
    out: list[tuple[int, int]] = []
    start = last = -2
    for block in sorted(blocks):
        if block == last + 1 and block - start < limit:
            last = block
            continue
        if last >= 0:
            out.append((start, last - start + 1))
        start = last = block
    if last >= 0:
        out.append((start, last - start + 1))
    return out
