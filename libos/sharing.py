"""Who runs next: the policies of schedulers. An application may bring its own.

A policy sees who has joined with which two numbers, who could run when it must choose, and how many
cycles the chosen one used. It never sees the kernel; `libos.scheduler` does.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol


class Sharing(Protocol):
    """What a scheduler asks."""

    def join(self, id: int, first: int, second: int, now: int) -> bool:
        """A client wants to be scheduled; False: it can't be. The numbers mean what the policy
        says."""

    def leave(self, id: int) -> None:
        """A client is gone."""

    def pick(self, ready: Sequence[int], now: int) -> int:
        """One of those that could run, or 0: nobody, for now."""

    def ran(self, id: int, cycles: int, preempted: bool, now: int) -> None:
        """What it used, and whether it could go on."""


class RoundRobin:
    """In turn."""

    def __init__(self) -> None:
        self._queue: deque[int] = deque()

    def join(self, id: int, first: int, second: int, now: int) -> bool:
        """Last in the queue; the numbers mean nothing."""
        self._queue.append(id)
        return True

    def leave(self, id: int) -> None:
        """Out of the queue."""
        self._queue.remove(id)

    def pick(self, ready: Sequence[int], now: int) -> int:
        """The first in the queue that could run; it goes to the end."""
        can = set(ready)
        for _ in range(len(self._queue)):
            id = self._queue[0]
            self._queue.rotate(-1)
            if id in can:
                return id
        return 0

    def ran(self, id: int, cycles: int, preempted: bool, now: int) -> None:
        """Nothing that matters here."""


class Stride:
    """Shares in proportion to tickets (the first number), exact but for one slice.

    After Waldspurger and Weihl 1995: each client has a pass that grows by its stride (the inverse
    of its tickets) for what it used; the lowest goes next. Who has slept starts at the time of the
    others, so that sleep earns nothing.
    """

    ONE: Final = 1 << 20

    def __init__(self) -> None:
        self._stride: dict[int, int] = {}
        self._pass: dict[int, int] = {}
        self._time = 0  # pass of whoever was picked last

    def join(self, id: int, first: int, second: int, now: int) -> bool:
        """At the time of the others; it needs tickets."""
        if first < 1:
            return False
        self._stride[id] = self.ONE // first
        self._pass[id] = self._time
        return True

    def leave(self, id: int) -> None:
        """Its tickets go."""
        del self._stride[id], self._pass[id]

    def pick(self, ready: Sequence[int], now: int) -> int:
        """The lowest pass; of equals, who joined first."""
        can = [id for id in self._pass if id in ready]
        if not can:
            return 0
        for id in can:  # whoever is behind the lowest of the last time was not there
            self._pass[id] = max(self._pass[id], self._time)
        id = min(can, key=self._pass.__getitem__)
        self._time = self._pass[id]
        return id

    def ran(self, id: int, cycles: int, preempted: bool, now: int) -> None:
        """Its pass grows."""
        self._pass[id] += self._stride[id] * cycles


class Lottery:
    """Shares in proportion to tickets (the first number), on average.

    After Waldspurger and Weihl 1994.
    """

    def __init__(self, seed: int = 0) -> None:
        self._tickets: dict[int, int] = {}
        self._random = random.Random(seed)

    def join(self, id: int, first: int, second: int, now: int) -> bool:
        """It needs tickets."""
        self._tickets[id] = first
        return first > 0

    def leave(self, id: int) -> None:
        """Its tickets go."""
        del self._tickets[id]

    def pick(self, ready: Sequence[int], now: int) -> int:
        """Draw a ticket of those that could run."""
        can = [id for id in self._tickets if id in ready]
        weights = [self._tickets[id] for id in can]
        return self._random.choices(can, weights)[0] if can else 0

    def ran(self, id: int, cycles: int, preempted: bool, now: int) -> None:
        """Nothing that matters here."""


class Feedback:
    """Multi-level feedback: who uses whole slices sinks, who sleeps before their end stays.

    A client at level n gets up to 2**n slices in a row, so what computes is disturbed less and
    less. Every `boost` cycles all come back to the top, so that nobody starves.
    """

    def __init__(self, levels: int = 6, boost: int = 12_500_000) -> None:
        self._levels: list[deque[int]] = [deque() for _ in range(levels)]
        self._level: dict[int, int] = {}
        self._row: dict[int, int] = {}  # slices used in a row
        self._boost = boost
        self._next = boost

    def join(self, id: int, first: int, second: int, now: int) -> bool:
        """At the top; the numbers mean nothing."""
        self._level[id] = self._row[id] = 0
        self._levels[0].append(id)
        return True

    def leave(self, id: int) -> None:
        """Out of its queue."""
        self._levels[self._level.pop(id)].remove(id)
        del self._row[id]

    def level(self, id: int) -> int:
        """Where a client is; 0 is the top."""
        return self._level[id]

    def pick(self, ready: Sequence[int], now: int) -> int:
        """The first of the highest level that has one that could run."""
        if now >= self._next:
            self._next = now + self._boost
            for id in [id for level in self._levels[1:] for id in level]:
                self._move(id, 0)
        can = set(ready)
        for level in self._levels:
            for id in level:
                if id in can:
                    return id
        return 0

    def ran(self, id: int, cycles: int, preempted: bool, now: int) -> None:
        """Down, up to the top again, or on in its row."""
        level = self._level[id]
        if not preempted:
            self._row[id] = 0
            self._move(id, level)
        else:
            self._row[id] += 1
            if self._row[id] >= 1 << level:
                self._move(id, min(level + 1, len(self._levels) - 1))

    def _move(self, id: int, level: int) -> None:
        self._levels[self._level[id]].remove(id)
        self._level[id] = level
        self._row[id] = 0
        self._levels[level].append(id)


class EarliestDeadline:
    """Earliest deadline first, over reserved time.

    A client asks for `first` cycles in every `second` cycles. It is taken if all that is promised
    fits into `share` of the time (Liu and Layland 1973: then every deadline is met), and gets no
    more than its own before the next period, so nobody can make another late.
    """

    def __init__(self, share: float = 1.0) -> None:
        self._share = share
        self._wants: dict[int, tuple[int, int]] = {}
        self._left: dict[int, int] = {}
        self._ends: dict[int, int] = {}  # of the current period

    def join(self, id: int, first: int, second: int, now: int) -> bool:
        """If it fits."""
        if not 0 < first <= second:
            return False
        if self.load() + first / second > self._share + 1e-9:
            return False
        self._wants[id] = first, second
        self._left[id] = first
        self._ends[id] = now + second
        return True

    def load(self) -> float:
        """What is promised, as a part of the time."""
        return sum(cycles / period for cycles, period in self._wants.values())

    def leave(self, id: int) -> None:
        """Its time is free."""
        del self._wants[id], self._left[id], self._ends[id]

    def pick(self, ready: Sequence[int], now: int) -> int:
        """The earliest deadline of those that have time left in their period."""
        for id, (cycles, period) in self._wants.items():
            if now >= self._ends[id]:
                self._ends[id] += (now - self._ends[id]) // period * period + period
                self._left[id] = cycles
        can = [id for id in ready if self._left[id] > 0]
        return min(can, key=self._ends.__getitem__) if can else 0

    def ran(self, id: int, cycles: int, preempted: bool, now: int) -> None:
        """Off its time of this period."""
        self._left[id] -= cycles
