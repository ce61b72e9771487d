"""A pager of an application's own: an address space larger than its frames.

    pager = Pager(me, Lru(), swap, limit=16)
    yield from pager.start()

When a page is touched that has no frame and the limit is reached, the policy names a victim; it is
written to the swap file only if it was modified since it was last there, and if the application has
not said that it is garbage (`discard`). When the kernel asks for frames back, the pager chooses
which, saves them, and lives with a lower limit. When the kernel has taken frames by force, it finds
out from the repossession vector which, and goes on with what the swap file has of them; `lost` are
the pages of which it had nothing.

A frame can be taken at any moment, also between two requests of the pager's own, so whatever has
waited looks at the exposed table (`_mine`) before it uses a frame. Between a look and the request
that follows nothing can happen.
"""

from __future__ import annotations

from libos.policies import Policy
from libos.space import FrameGoneError, Space
from libos.swap import Swap
from libos.tables import ABSENT, PageTable
from xnfs import FRAME, Boot, CapabilityError, NoFrames, Program, Refused, calls


class Pager(Space):
    """An address space with a limit on its frames."""

    def __init__(
        self,
        me: Boot,
        policy: Policy,
        swap: Swap,
        limit: int,
        table: PageTable | None = None,
        style: int = calls.COOPERATIVE,
    ) -> None:
        """`limit`: frames for pages; one more is for the save area. `style`: of revocation."""
        super().__init__(me, table)
        self._policy = policy
        self._swap = swap
        self._limit = limit
        self._style = style
        self._resident: dict[int, int] = {}  # page -> frame
        self._pages: dict[int, int] = {}  # frame -> page
        self._garbage: set[int] = set()
        self.lost: list[int] = []
        self.evictions = 0

    @property
    def limit(self) -> int:
        """Frames that it allows itself at most."""
        return self._limit

    @property
    def resident(self) -> dict[int, int]:
        """Pages in memory, and their frames."""
        return dict(self._resident)

    def start(self) -> Program:
        """Handle exceptions and revocations from now on."""
        yield from super().start()
        yield (calls.REVOCATION, self._style)
        if self._style == calls.COOPERATIVE:
            yield (calls.HANDLER, calls.REVOKED, self.revoked)
        if self._style != calls.TRANSPARENT:
            yield (calls.HANDLER, calls.REPOSSESSED, self.repossessed)

    def discard(self, page: int) -> None:
        """What the page holds will not be read again: it need not be written out."""
        self._garbage.add(page)

    # --- misses -----------------------------------------------------------------------------

    def exception(self, cause: int, address: int, place: int) -> Program:
        """As `Space`, when it is not the frame itself that has gone without a word."""
        page = address >> 12
        if page in self._resident and not self._mine(self._resident[page]):
            self._gone(page)
        return (yield from super().exception(cause, address, place))

    def missing(self, page: int) -> Program:
        """A frame with the page's bytes: from the swap file, or zeros. Returns it."""
        while True:
            frame = yield from self._room()
            if self._swap.has(page):
                data = yield from self._swap.into(page)
            else:
                data = bytes(FRAME)
            try:
                yield from self.fill(frame, data)
            except (FrameGoneError, Refused, CapabilityError):
                continue
            if self._mine(frame):
                yield (calls.CLEAR_BITS, frame, calls.MODIFIED | calls.REFERENCED, self.token)
                break
        self._garbage.discard(page)
        self._resident[page] = frame
        self._pages[frame] = page
        self._policy.added(page)
        self.table.set(page, frame)
        return frame

    def bind(self, page: int, frame: int) -> Program:
        """As `Space`, unless the frame has gone: then the access misses again."""
        if self._mine(frame):
            yield from super().bind(page, frame)
        else:
            self._gone(page)

    def _room(self) -> Program:
        """A frame that no page has, new or the victim's. Raises NoFrames: there is none."""
        while True:
            if len(self._resident) < self._limit:
                try:
                    frame = yield (calls.FRAME_ALLOC, self.account, calls.ANY, self.token)
                except NoFrames:  # fewer than we were told: some were taken without a word
                    self._sweep()
                    if not self._resident:
                        raise
                    self._limit = len(self._resident)
                else:
                    if frame in self._pages:  # taken, and got again, before we were told
                        self._gone(self._pages[frame])
                    return frame
            frame = yield from self._evict()
            if frame != ABSENT:
                return frame

    def _evict(self) -> Program:
        """Give up the policy's choice, saved. Returns its frame, or ABSENT: that is not ours
        now.
        """
        if self._policy.wants_bits:
            yield from self._look()
        page = self._policy.victim()
        frame = self._resident[page]
        if not self._mine(frame):
            self._gone(page)
            return ABSENT
        changed = self.me.tables.bits[frame] & calls.MODIFIED
        self._forget(page)
        self.evictions += 1
        yield (calls.UNBIND, page)
        if page in self._garbage:
            self._swap.forget(page)
        elif changed:
            try:
                data = yield from self.look(frame, self.token)
            except (FrameGoneError, Refused, CapabilityError):
                self._note(page)
                return ABSENT
            yield from self._swap.out(page, data)
        return frame if self._mine(frame) else ABSENT

    def _look(self) -> Program:
        """Tell the policy what was referenced, and have it noticed anew."""
        bits = self.me.tables.bits
        touched = [p for p, frame in self._resident.items() if bits[frame] & calls.REFERENCED]
        for page in touched:
            frame = self._resident.get(page, ABSENT)
            if frame != ABSENT and self._mine(frame):
                yield (calls.CLEAR_BITS, frame, calls.REFERENCED, self.token)
        self._policy.touched(touched)

    # --- revocation -------------------------------------------------------------------------

    def revoked(self, frames: int, deadline: int) -> Program:
        """The kernel asks: give up what the policy says, saved, and have a lower limit."""
        for _ in range(min(frames, len(self._resident))):
            if not self._resident:
                break
            self._limit = max(1, self._limit - 1)
            frame = yield from self._evict()
            if frame != ABSENT:
                yield (calls.FRAME_FREE, frame, self.token)

    def repossessed(self) -> Program:
        """The kernel has taken: see what is left, and have a lower limit from now on."""
        taken = yield (calls.VECTOR,)
        self._limit = max(1, self._limit - len(taken))
        self._sweep()

    def _mine(self, frame: int) -> bool:
        return self.me.tables.frame_owner(frame) == self.account

    def _sweep(self) -> None:
        """See in the exposed table which frames are ours no longer."""
        for page in [p for p, frame in self._resident.items() if not self._mine(frame)]:
            self._gone(page)

    def _gone(self, page: int) -> None:
        """The page's frame is another's. What the swap file has is what is left."""
        if page in self._resident:
            self._forget(page)
            self._note(page)

    def _note(self, page: int) -> None:
        if not self._swap.has(page):
            self.lost.append(page)

    def _forget(self, page: int) -> None:
        del self._pages[self._resident.pop(page)]
        self._policy.removed(page)
        self.table.remove(page)
