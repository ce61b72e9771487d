"""Page frames: the memory that applications cache blocks in (Engler et al. 1995, section 5).

One anonymous mapping, cut into frames of 4096 bytes. A frame has one owner, and an owner a quota.
Which frame to give up when the quota is reached is the owner's decision, not taken here; what a
frame holds is the registry's to know. Frames come with the bytes of their last owner: who hands a
frame on must clear or overwrite it before anybody may look.

Relies on: one caller at a time; the owner named in a call having been authenticated, by `check` if
one is given. Guarantees: no frame has two owners; a frame is freed once; a refused call changes
nothing. Frames for one call are neighbours whenever a long enough gap is near, so that a run of
blocks is one piece of memory.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable
from typing import Final

from xnfs.errors import NoFrames, NotFree, Refused
from xnfs.runs import Run, runs

FRAME: Final = 4096
_FREE: Final = b"\0"
#: Frames looked at for a gap, beyond the number asked for: bounds the cost of one `alloc`.
_WINDOW: Final = 4096


class FramePool:
    """A fixed number of page frames."""

    def __init__(self, count: int, check: Callable[[Hashable], None] | None = None) -> None:
        """Reserve address space for `count` frames; memory is taken when a frame is first touched.

        `check` is called with the owner before frames are given to it, and raises to refuse.
        """
        if count <= 0:
            raise Refused(f"a pool of {count} frames")
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._memory = memoryview(mmap.mmap(-1, count * FRAME, flags=flags))
        self._check = check
        self._views: list[memoryview | None] = [None] * count
        self._taken = bytearray(count)  # 1 = has an owner
        self._owners: list[Hashable] = [None] * count
        self._used: dict[Hashable, int] = {}
        self._quota: dict[Hashable, int] = {}
        self._next = 0  # where the search for free frames goes on
        self.count = count
        self.free_frames = count

    # --- accounting -------------------------------------------------------------------------

    def set_quota(self, owner: Hashable, frames: int | None) -> None:
        """Limit an owner; None = no limit. A quota below what is used takes nothing away."""
        if frames is None:
            self._quota.pop(owner, None)
        else:
            self._quota[owner] = frames

    def used(self, owner: Hashable) -> int:
        """Frames that the owner has."""
        return self._used.get(owner, 0)

    def available(self, owner: Hashable) -> int:
        """Frames that the owner could get now."""
        quota = self._quota.get(owner)
        if quota is None:
            return self.free_frames
        return max(0, min(self.free_frames, quota - self.used(owner)))

    def owner(self, frame: int) -> Hashable:
        """Who has the frame; None if it is free."""
        if not 0 <= frame < self.count:
            raise Refused(f"there is no frame {frame}")
        return self._owners[frame]

    # --- frames -----------------------------------------------------------------------------

    def alloc(self, owner: Hashable, n: int = 1) -> list[int]:
        """Take `n` frames, in ascending order, neighbours if possible. All or none: NoFrames.

        Their contents are whatever they were.
        """
        if n <= 0 or owner is None:
            raise Refused(f"{n} frames for {owner!r}")
        if self._check is not None:
            self._check(owner)
        if n > self.available(owner):
            raise NoFrames(f"{n} frames wanted, {self.available(owner)} available")
        first = self._gap(n)
        if first < 0:
            frames = self._scattered(n)
            for frame in frames:
                self._taken[frame] = 1
                self._owners[frame] = owner
        else:
            frames = list(range(first, first + n))
            self._taken[first : first + n] = b"\1" * n
            self._owners[first : first + n] = [owner] * n
        self._used[owner] = self.used(owner) + n
        self.free_frames -= n
        return frames

    def take(self, owner: Hashable, frame: int) -> None:
        """Take one frame by its number. Raises Refused, NoFrames (quota), NotFree."""
        if owner is None or not 0 <= frame < self.count:
            raise Refused(f"frame {frame} for {owner!r}")
        if self._check is not None:
            self._check(owner)
        if self._taken[frame]:
            raise NotFree(f"frame {frame} has an owner")
        if not self.available(owner):
            raise NoFrames("the quota is used up")
        self._taken[frame] = 1
        self._owners[frame] = owner
        self._used[owner] = self.used(owner) + 1
        self.free_frames -= 1

    def _gap(self, n: int) -> int:
        """Start of `n` free neighbours near where the last search ended, or -1."""
        gap = bytes(n)
        for start in (self._next, 0):
            first = self._taken.find(gap, start, min(start + n + _WINDOW, self.count))
            if first >= 0:
                self._next = first + n
                return first
        return -1

    def _scattered(self, n: int) -> list[int]:
        """Any `n` free frames, in ascending order; there are as many."""
        frames: list[int] = []
        at = self._next
        while len(frames) < n:
            at = self._taken.find(_FREE, at)
            if at < 0:
                at = 0
                continue
            frames.append(at)
            at += 1
        self._next = at
        return sorted(frames)

    def free(self, frames: Collection[int], owner: Hashable = None) -> None:
        """Give frames back; all or none. With an owner, they must be that owner's.

        Raises Refused: a frame is free already, named twice, not of this pool, or another's.
        """
        taken, owners, pieces = self._taken, self._owners, runs(frames)
        end = 0
        for first, n in pieces:
            if first < end:
                raise Refused("a frame is named twice")
            end = first + n
            if first < 0 or first + n > self.count or taken.find(_FREE, first, first + n) >= 0:
                raise Refused(f"frame {self._not_taken(first, n)} has no owner")
            if owner is not None and owners[first : first + n] != [owner] * n:
                raise Refused(f"one of the frames {first}..{first + n - 1} is another owner's")
        if not self.free_frames and pieces:
            # The pool was full, so the only gaps are here.
            self._next = pieces[0][0]
        self._forget(pieces)
        for first, n in pieces:
            taken[first : first + n] = bytes(n)
            owners[first : first + n] = [None] * n
        self.free_frames += len(frames)

    def _not_taken(self, first: int, n: int) -> int:
        """The first of these that is free, or no frame of this pool."""
        run = range(first, first + n)
        return next(f for f in run if not 0 <= f < self.count or not self._taken[f])

    def hand_over(self, frames: Collection[int], owner: Hashable) -> None:
        """Frames in use get another owner, whatever its quota: what they hold is his already."""
        if any(self.owner(frame) is None for frame in frames) or owner is None:
            raise Refused("a frame has no owner")
        self._forget(runs(frames))
        for frame in frames:
            self._owners[frame] = owner
        self._used[owner] = self.used(owner) + len(frames)

    def _forget(self, pieces: Iterable[Run]) -> None:
        """They count no longer for their owners."""
        for first, n in pieces:
            for who, many in Counter(self._owners[first : first + n]).items():
                self._used[who] -= many
                if not self._used[who]:
                    del self._used[who]

    # --- memory -----------------------------------------------------------------------------

    def view(self, frame: int) -> memoryview:
        """The 4096 bytes of a frame, writable. Raises Refused if nobody has it."""
        if frame < 0 or frame >= self.count or not self._taken[frame]:
            raise Refused(f"frame {frame} has no owner")
        view = self._views[frame]
        if view is None:
            view = self._views[frame] = self._memory[frame * FRAME : (frame + 1) * FRAME]
        return view

    def words(self) -> memoryview:
        """All frames as 64-bit words of the host's byte order: for the machine, which translates
        addresses and so knows whose frame it is in.
        """
        return self._memory.cast("Q")

    def taken(self) -> memoryview:
        """For each frame 1 if it has an owner: a view that changes with it, read-only."""
        return memoryview(self._taken).toreadonly()

    def views(self, frames: Iterable[int]) -> list[memoryview]:
        """`view` of each."""
        taken, views, count = self._taken, self._views, self.count
        return [
            views[frame] or self.view(frame)
            if 0 <= frame < count and taken[frame]
            else self.view(frame)
            for frame in frames
        ]

    def view_run(self, first: int, n: int) -> memoryview:
        """The bytes of `n` neighbours as one piece. Raises Refused if one of them has no owner."""
        if first < 0 or n <= 0 or first + n > self.count:
            raise Refused(f"there are no frames {first}..{first + n - 1}")
        if self._taken.find(_FREE, first, first + n) >= 0:
            raise Refused(f"one of the frames {first}..{first + n - 1} has no owner")
        return self._memory[first * FRAME : (first + n) * FRAME]
