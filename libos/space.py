"""An address space that an application manages itself: memory that appears when it is touched.

    space = Space(me)
    yield from space.start()
    yield (calls.STORE, 0x1000, 7)      # a frame is allocated and bound on the way

`table` is any mapping of pages to frames (`libos.tables` has four).
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from xnfs import READ, WRITE, Boot, Program, calls

#: Where the save area lies in the first frame of the space.
_AREA = 0


class Space:
    """Pages of one environment."""

    def __init__(self, me: Boot, table: MutableMapping[int, int] | None = None) -> None:
        self.me = me
        self.table: MutableMapping[int, int] = {} if table is None else table

    def start(self) -> Program:
        """Take a frame for the save area, and handle exceptions from now on."""
        me = self.me
        frame = yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
        yield (calls.SAVE_AREA, frame, _AREA, me.token)
        yield (calls.HANDLER, calls.EXCEPTION, self.exception)

    def exception(self, cause: int, address: int, place: int) -> Program:
        """A page that is not bound: find its frame, or give it one, and try again."""
        if cause not in (calls.TLB_LOAD, calls.TLB_STORE):
            return (calls.UNWIND, MemoryError(f"cause {cause} at {address:#x}"))
        page = address >> 12
        me = self.me
        frame: Any = self.table.get(page)
        if frame is None:
            frame = yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
            self.table[page] = frame
        yield (calls.BIND, page, frame, READ | WRITE, me.token)
        return calls.RETRY
