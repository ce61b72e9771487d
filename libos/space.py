"""An address space that an application manages itself.

    space = Space(me)
    yield from space.start()
    yield (calls.STORE, 0x1000, 7)      # a frame is allocated and bound on the way

Every miss that the kernel can't answer comes to `exception`, which looks in a page table of the
application's choice (`libos.tables`) and asks the kernel for a binding. Pages can be shared
copy-on-write with a child: `share` in the parent, `adopt` in the child.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from libos.tables import ABSENT, Hierarchical, PageTable
from xnfs import FRAME, GRANT, READ, WRITE, Boot, Program, XnError, calls

#: Pages through which a space looks into frames that have no other page: one for each exception or
#: upcall that may be inside of another.
WINDOWS: Final = tuple((1 << 36) - 1 - i for i in range(32))


class FrameGoneError(Exception):
    """Raised in the space's own code: the frame that it was using is another's now."""


class SegmentationFault(Exception):
    """Raised in the program where it touched what it may not."""


class Space:
    """Pages of one environment."""

    def __init__(
        self,
        me: Boot,
        table: PageTable | None = None,
        account: int = 0,
        token: bytes = b"",
    ) -> None:
        """`account`, `token`: whose frames are taken; the environment's own by default. On an
        account of the whole library operating system they outlive the environment.
        """
        self.me = me
        self.table: PageTable = Hierarchical() if table is None else table
        self.account = account or me.id
        self.token = token or me.token
        self.foreign: dict[int, bytes] = {}  # pages in frames of another, and the token for them
        self.shared: set[int] = set()  # pages to be copied before they are written
        self._windows = list(WINDOWS)
        self._open: dict[int, tuple[int, int, bytes]] = {}  # window -> frame, rights, token
        self.faults = 0
        self.copies = 0

    def start(self) -> Program:
        """Take a frame for the save area, and handle exceptions from now on."""
        frame = yield (calls.FRAME_ALLOC, self.account, calls.ANY, self.token)
        yield (calls.SAVE_AREA, frame, 0, self.token)
        yield (calls.HANDLER, calls.EXCEPTION, self.exception)

    # --- exceptions -------------------------------------------------------------------------

    def exception(self, cause: int, address: int, place: int) -> Program:
        """Bind the page that was missed, whatever that takes, and try again."""
        page = address >> 12
        if page in self._open:  # the translation has been pushed out, or broken
            frame, rights, token = self._open[page]
            try:
                yield (calls.BIND, page, frame, rights, token)
            except XnError as error:
                return (calls.UNWIND, FrameGoneError(str(error)))
            return calls.RETRY
        self.faults += 1
        if cause in (calls.TLB_LOAD, calls.TLB_STORE):
            frame, looks = self.table.find(page)
            yield looks
            if frame == ABSENT:
                frame = yield from self.missing(page)
            if cause == calls.TLB_STORE and page in self.shared:
                frame = yield from self.copy(page, frame)
            yield from self.bind(page, frame)
            return calls.RETRY
        if cause == calls.PROTECTION and page in self.shared:
            frame, looks = self.table.find(page)
            yield looks
            frame = yield from self.copy(page, frame)
            yield from self.bind(page, frame)
            return calls.RETRY
        return (calls.UNWIND, SegmentationFault(f"cause {cause} at {address:#x}"))

    def missing(self, page: int) -> Program:
        """A frame for a page that has none: here, a new one. Returns it."""
        frame = yield (calls.FRAME_ALLOC, self.account, calls.ANY, self.token)
        self.table.set(page, frame)
        return frame

    def bind(self, page: int, frame: int) -> Program:
        """Ask the kernel for the translation."""
        rights = READ if page in self.shared else READ | WRITE
        yield (calls.BIND, page, frame, rights, self.foreign.get(page, self.token))

    # --- copy on write ----------------------------------------------------------------------

    def share(self, child: int) -> Program:
        """Let a child read all frames of the account, and copy a page before it is written from now
        on. Returns what `adopt` needs: the pages and their frames, and the token.
        """
        token = yield (calls.NARROW, self.token, (), READ | GRANT)
        token = yield (calls.GRANT, token, child)
        pages: dict[int, int] = {}
        for page in self.table.pages():
            pages[page], looks = self.table.find(page)
            self.shared.add(page)
            yield looks
            yield (calls.UNBIND, page)
        return pages, token

    def adopt(self, pages: Iterable[tuple[int, int]], token: bytes) -> None:
        """Take over another's pages as `share` gave them."""
        for page, frame in pages:
            self.table.set(page, frame)
            self.shared.add(page)
            self.foreign[page] = token

    def copy(self, page: int, frame: int) -> Program:
        """A frame of our own with the same bytes, for a page that was shared. Returns it."""
        self.copies += 1
        own = yield (calls.FRAME_ALLOC, self.account, calls.ANY, self.token)
        data = yield from self.look(frame, self.foreign.get(page, self.token))
        yield from self.fill(own, data)
        self.shared.discard(page)
        self.foreign.pop(page, None)
        self.table.set(page, own)
        return own

    # --- frames without a page --------------------------------------------------------------

    def look(self, frame: int, token: bytes) -> Program:
        """The bytes of a frame. Raises FrameGoneError, or what binding it raises."""
        window = yield from self._window(frame, READ, token)
        try:
            return (yield (calls.READ_BYTES, window << 12, FRAME))
        finally:
            self._shut(window)

    def fill(self, frame: int, data: bytes) -> Program:
        """Put bytes into a frame of the account's. Raises as `look`."""
        window = yield from self._window(frame, READ | WRITE, self.token)
        try:
            yield (calls.WRITE_BYTES, window << 12, data)
        finally:
            self._shut(window)

    def _window(self, frame: int, rights: int, token: bytes) -> Program:
        window = self._windows.pop()
        self._open[window] = frame, rights, token
        try:
            yield (calls.BIND, window, frame, rights, token)
        except XnError:
            self._shut(window)
            raise
        return window

    def _shut(self, window: int) -> None:
        """The translation stays until the window is used again, which does no harm."""
        del self._open[window]
        self._windows.append(window)
