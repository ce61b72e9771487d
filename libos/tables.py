"""Page tables: four ways to find a page's frame, from which an application picks one.

On a machine where the kernel knows no page tables the structure is the application's choice (Engler
et al. 1995, section 5.2). Each answers `find` with the frame and the number of words that it had to
look at, which is what the application is charged; `words` is the memory that it takes. Which is
best depends on how the address space is used: see `docs/` and the experiment.
"""

from __future__ import annotations

from typing import Final, Protocol

ABSENT: Final = -1


class PageTable(Protocol):
    """Pages to frames."""

    def find(self, page: int) -> tuple[int, int]:
        """(frame or ABSENT, words looked at)."""

    def set(self, page: int, frame: int) -> None:
        """Enter or replace a translation."""

    def remove(self, page: int) -> None:
        """Take a translation out, if it is there."""

    def pages(self) -> list[int]:
        """All pages that are in, ascending."""

    @property
    def words(self) -> int:
        """Memory taken, in words."""


class Linear:
    """An array indexed by page number: one look, and memory for every page up to the highest."""

    #: A table of more entries than this would not fit the machine.
    LIMIT: Final = 1 << 22

    def __init__(self) -> None:
        self._frames: list[int] = []

    def find(self, page: int) -> tuple[int, int]:
        """One look."""
        return (self._frames[page] if page < len(self._frames) else ABSENT), 1

    def set(self, page: int, frame: int) -> None:
        """Grow as far as the page. Raises MemoryError: too far."""
        if page >= self.LIMIT:
            raise MemoryError(f"a linear table up to page {page}")
        missing = page + 1 - len(self._frames)
        if missing > 0:
            self._frames += [ABSENT] * missing
        self._frames[page] = frame

    def remove(self, page: int) -> None:
        """The memory stays."""
        if page < len(self._frames):
            self._frames[page] = ABSENT

    def pages(self) -> list[int]:
        """Scan."""
        return [page for page, frame in enumerate(self._frames) if frame != ABSENT]

    @property
    def words(self) -> int:
        """A word for each page."""
        return len(self._frames)


class Hierarchical:
    """A radix tree of four levels of 512: four looks, memory for the parts in use."""

    LEVELS: Final = 4
    _BITS: Final = 9

    def __init__(self) -> None:
        # Nodes by (level, prefix); level 0 has the frames.
        self._nodes: dict[tuple[int, int], int] = {}
        self._frames: dict[int, int] = {}

    def find(self, page: int) -> tuple[int, int]:
        """One look for each level, fewer where a branch is missing."""
        for level in range(self.LEVELS - 1, 0, -1):
            if (level, page >> self._BITS * level) not in self._nodes:
                return ABSENT, self.LEVELS - level
        return self._frames.get(page, ABSENT), self.LEVELS

    def set(self, page: int, frame: int) -> None:
        """Make the branches that are missing."""
        if page not in self._frames:
            for level in range(1, self.LEVELS):
                node = level, page >> self._BITS * level
                self._nodes[node] = self._nodes.get(node, 0) + 1
        self._frames[page] = frame

    def remove(self, page: int) -> None:
        """Empty branches go."""
        if self._frames.pop(page, None) is None:
            return
        for level in range(1, self.LEVELS):
            node = level, page >> self._BITS * level
            self._nodes[node] -= 1
            if not self._nodes[node]:
                del self._nodes[node]

    def pages(self) -> list[int]:
        """All leaves."""
        return sorted(self._frames)

    @property
    def words(self) -> int:
        """The root, and a node of 512 words for each branch."""
        return 512 * (1 + len(self._nodes))


class Inverted:
    """One entry for each frame, chained from hash anchors: memory follows the frames, not the
    pages.
    """

    def __init__(self, frames: int) -> None:
        """`frames`: of the machine."""
        self._page = [ABSENT] * frames
        self._next = [ABSENT] * frames
        self._anchors = [ABSENT] * frames

    def find(self, page: int) -> tuple[int, int]:
        """The anchor, then two words for each entry of the chain: page and link."""
        looks = 1
        frame = self._anchors[self._hash(page)]
        while frame != ABSENT:
            looks += 2
            if self._page[frame] == page:
                break
            frame = self._next[frame]
        return frame, looks

    def set(self, page: int, frame: int) -> None:
        """Chain the frame's entry first."""
        self.remove(page)
        if self._page[frame] != ABSENT:
            self.remove(self._page[frame])  # one page for each frame
        anchor = self._hash(page)
        self._page[frame] = page
        self._next[frame] = self._anchors[anchor]
        self._anchors[anchor] = frame

    def remove(self, page: int) -> None:
        """Unchain."""
        anchor = self._hash(page)
        before, frame = ABSENT, self._anchors[anchor]
        while frame != ABSENT and self._page[frame] != page:
            before, frame = frame, self._next[frame]
        if frame == ABSENT:
            return
        if before == ABSENT:
            self._anchors[anchor] = self._next[frame]
        else:
            self._next[before] = self._next[frame]
        self._page[frame] = ABSENT

    def pages(self) -> list[int]:
        """Scan."""
        return sorted(page for page in self._page if page != ABSENT)

    @property
    def words(self) -> int:
        """Page, link and anchor for each frame of the machine."""
        return 3 * len(self._page)

    def _hash(self, page: int) -> int:
        return (page ^ page >> 9 ^ page >> 18) % len(self._anchors)


class Hashed:
    """A hash table with linear probing, never more than half full."""

    _GONE: Final = -2

    def __init__(self) -> None:
        self._keys = [ABSENT] * 16
        self._frames = [ABSENT] * 16
        self._used = 0  # entries and tombstones

    def find(self, page: int) -> tuple[int, int]:
        """A look for each key up to the page's or an empty place, and one for the frame."""
        at, looks = self._place(page)
        if self._keys[at] != page:
            return ABSENT, looks
        return self._frames[at], looks + 1

    def set(self, page: int, frame: int) -> None:
        """Grow when half full."""
        at, _ = self._place(page)
        if self._keys[at] != page:
            if 2 * (self._used + 1) > len(self._keys):
                self._grow()
                at, _ = self._place(page)
            self._used += 1
            self._keys[at] = page
        self._frames[at] = frame

    def remove(self, page: int) -> None:
        """Leave a tombstone."""
        at, _ = self._place(page)
        if self._keys[at] == page:
            self._keys[at] = self._GONE

    def pages(self) -> list[int]:
        """Scan."""
        return sorted(key for key in self._keys if key >= 0)

    @property
    def words(self) -> int:
        """Key and frame for each place."""
        return 2 * len(self._keys)

    def _place(self, page: int) -> tuple[int, int]:
        mask = len(self._keys) - 1
        at = page * 0x9E3779B97F4A7C15 >> 20 & mask
        looks = 1
        while self._keys[at] not in (page, ABSENT):
            at = at + 1 & mask
            looks += 1
        return at, looks

    def _grow(self) -> None:
        live = [(k, f) for k, f in zip(self._keys, self._frames, strict=True) if k >= 0]
        size = len(self._keys)
        while 4 * len(live) >= size:
            size *= 2
        self._keys, self._frames, self._used = [ABSENT] * size, [ABSENT] * size, 0
        for key, frame in live:
            self.set(key, frame)
