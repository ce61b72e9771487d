"""Loans: bytes of cached data that a reader may look at for as long as he keeps them.

Who hands bytes to a network needs them until the peer has acknowledged them: a page of the registry
is its own retransmission buffer (Kaashoek et al. 1997, section 7.3: file cache and retransmission
pool are one). A loan is a second mapping of the page's frame. It counts as one more block that the
frame holds, so what the registry does for shared frames is all that is needed: whoever writes the
page gets another frame, and a frame whose page is evicted, freed or handed to another root is given
to nobody before the loan has ended.

A loan ends when the last view of its bytes is gone, slices included: there is no call to give it
back, so none that could come too early. The kernel hears of it at any moment and in any thread;
frames come free when it next looks (`settle`).

Guarantees: the bytes of a loan never change, and nobody else's ever appear in them. Bounded: a root
has at most a quarter of the frames that it may have on loan, each counted as often as it was lent.
Metadata is not lent: it is changed in place.
"""

from __future__ import annotations

import ctypes
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Final
from weakref import ref

from xnfs.disk.records import BLOCK
from xnfs.disk.registry import Registry
from xnfs.errors import NoFrames
from xnfs.memory.frames import FramePool

#: The part of its frames that a root may have on loan.
_PART: Final = 4


class Lending:
    """All loans of one image. Not locked: the system-call layer is, but for what `ended` hears."""

    def __init__(self, registry: Registry, frames: FramePool) -> None:
        self._registry = registry
        self._frames = frames
        #: by the identity of the reference, which hears of the end: frames, and whose they were
        self._loans: dict[int, tuple[ref[Any], list[tuple[int, str]]]] = {}
        self._lent: Counter[str] = Counter()
        self._ended: deque[ref[Any]] = deque()

    def lend(self, first: int, count: int, views: Sequence[memoryview]) -> list[memoryview]:
        """Loans of consecutive cached blocks of data, which are what `views` show, in order. Raises
        NoFrames with no effect: too much of a root is on loan.
        """
        self.settle()
        pages, frames = self._registry.pages, self._frames
        held = [(b + pages[b].shift, pages[b].root) for b in range(first, first + count)]
        wanted = Counter(root for _frame, root in held)
        for root, n in wanted.items():
            if self._lent[root] + n > (frames.available(root) + frames.used(root)) // _PART:
                raise NoFrames(f"{self._lent[root]} frames of root {root} are on loan")
        self._lent.update(wanted)
        self._registry.hold(frame for frame, _root in held)
        shown, at = [], 0
        for view in views:
            raw = (ctypes.c_ubyte * len(view)).from_buffer(view)
            shown.append(memoryview(raw).cast("B").toreadonly())
            loan, n = ref(raw, self._ended.append), len(view) // BLOCK
            self._loans[id(loan)] = loan, held[at : at + n]
            at += n
        return shown

    def settle(self) -> int:
        """Take back what nobody looks at any more; how many frames came free."""
        free = 0
        while self._ended:
            _loan, gone = self._loans.pop(id(self._ended.popleft()))
            self._lent.subtract(root for _frame, root in gone)
            free += self._registry.let_go([frame for frame, _root in gone])
        return free
