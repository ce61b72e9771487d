"""A pager of an application's own: an address space larger than its frames.

    pager = Pager(me, Lru(), swap, limit=16)
    yield from pager.start()

When a page is touched that has no frame and the limit is reached, the policy names a victim; it is
written to the swap file only if it was modified since it was last there, and if the application has
not said that it is garbage (`discard`). When the kernel asks for frames back, the pager chooses
which, saves them, and lives with a lower limit. When the kernel has taken frames by force, it finds
out from the repossession vector which, and goes on with what the swap file has of them; `lost` are
the pages of which it had nothing.
"""

from __future__ import annotations

from libos.policies import Policy
from libos.space import WINDOW, Space
from libos.swap import Swap
from libos.tables import ABSENT, PageTable
from xnfs import FRAME, READ, WRITE, Boot, CapabilityError, NoFrames, Program, Refused, calls

#: Times in a row that an exception is tried again because a frame was taken meanwhile.
_PATIENCE = 8


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
        self._garbage: set[int] = set()
        self._beaten = 0  # times in a row that a frame went while it was being used
        self._windows = [WINDOW - 1 - i for i in range(calls.KINDS)]  # an upcall may interrupt us
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
        frame = self._resident.get(page, ABSENT)
        if frame != ABSENT and self.me.tables.frame_owner(frame) != self.account:
            self._gone(page)
        try:
            answer = yield from super().exception(cause, address, place)
        except (Refused, CapabilityError):
            # A frame was taken while we were about to use it. Once more, but not for ever.
            self._beaten += 1
            if self._beaten > _PATIENCE:
                raise
            return calls.RETRY
        self._beaten = 0
        return answer

    def missing(self, page: int) -> Program:
        """A frame with the page's bytes: from the swap file, or zeros. Returns it."""
        if len(self._resident) >= self._limit:
            self._sweep()
        used = len(self._resident) >= self._limit
        if not used:
            try:
                frame = yield (calls.FRAME_ALLOC, self.account, calls.ANY, self.token)
            except NoFrames:  # fewer than we were told: some were taken without a word
                self._sweep()
                if not self._resident:
                    raise
                used = True
        if used:
            self._limit = min(self._limit, len(self._resident))
            frame = yield from self._evict()
        if self._swap.has(page):
            data = yield from self._swap.into(page)
            yield from self._fill(frame, data)
        elif used:
            yield from self._fill(frame, bytes(FRAME))
        yield (calls.CLEAR_BITS, frame, calls.MODIFIED | calls.REFERENCED, self.token)
        self._garbage.discard(page)
        self._resident[page] = frame
        self._policy.added(page)
        self.table.set(page, frame)
        return frame

    def _evict(self) -> Program:
        """Give up the policy's choice. Returns its frame, which is still ours."""
        if self._policy.wants_bits:
            yield from self._look()
        page = self._policy.victim()
        frame = self._resident.pop(page)
        self._policy.removed(page)
        self.table.remove(page)
        self.evictions += 1
        yield (calls.UNBIND, page)
        changed = self.me.tables.bits[frame] & calls.MODIFIED
        if page in self._garbage:
            self._swap.forget(page)
        elif changed:
            window = self._windows.pop()
            yield (calls.BIND, window, frame, READ, self.token)
            data = yield (calls.READ_BYTES, window << 12, FRAME)
            yield (calls.UNBIND, window)
            self._windows.append(window)
            yield from self._swap.out(page, data)
        return frame

    def _look(self) -> Program:
        """Tell the policy what was referenced, and have it noticed anew."""
        bits = self.me.tables.bits
        touched = [p for p, frame in self._resident.items() if bits[frame] & calls.REFERENCED]
        for page in touched:
            frame = self._resident[page]
            yield (calls.CLEAR_BITS, frame, calls.REFERENCED, self.token)
        self._policy.touched(touched)

    def _fill(self, frame: int, data: bytes) -> Program:
        window = self._windows.pop()
        yield (calls.BIND, window, frame, READ | WRITE, self.token)
        yield (calls.WRITE_BYTES, window << 12, data)
        yield (calls.UNBIND, window)
        self._windows.append(window)

    # --- revocation -------------------------------------------------------------------------

    def revoked(self, frames: int, deadline: int) -> Program:
        """The kernel asks: give up the policy's choice, saved, and have a lower limit from now
        on.
        """
        for _ in range(min(frames, len(self._resident))):
            self._limit = max(1, self._limit - 1)
            frame = yield from self._evict()
            yield (calls.FRAME_FREE, frame, self.token)

    def repossessed(self) -> Program:
        """The kernel has taken: see which, and have a lower limit from now on."""
        taken = set((yield (calls.VECTOR,)))
        for page in [p for p, frame in self._resident.items() if frame in taken]:
            self._limit = max(1, self._limit - 1)
            self._gone(page)

    def _sweep(self) -> None:
        """See in the exposed table which frames are ours no longer."""
        owner = self.me.tables.frame_owner
        for page in [p for p, frame in self._resident.items() if owner(frame) != self.account]:
            self._gone(page)

    def _gone(self, page: int) -> None:
        """The page's frame is another's. What the swap file has is what is left."""
        if page in self._resident:
            del self._resident[page]
            self._policy.removed(page)
            self.table.remove(page)
            if not self._swap.has(page):
                self.lost.append(page)
