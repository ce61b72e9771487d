"""Real time: the clock of a machine that meets the outside (FUSE, TAP, sockets).

The machine's clock follows the host's: events wait until it has reached them, and whatever comes
from outside is handed in by other threads with `post` and carried out between two turns of the
machine. Such a run is not the same every time; everything else is as under the virtual clock.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xnfs.machine import Machine

NEVER = 1 << 63


class Wall:
    """The host's monotonic clock in cycles, and what was handed in. For one machine."""

    def __init__(self) -> None:
        self._hz = 1
        self._start = 0
        self._posted: deque[tuple[Callable[[int, Any], None], Any]] = deque()
        self._wake = threading.Condition()
        self._stopped = False

    def begin(self, hz: int) -> None:
        """The machine's clock stands at 0 now."""
        self._hz = hz
        self._start = time.monotonic_ns()

    def now(self) -> int:
        """Cycles of real time since then."""
        return (time.monotonic_ns() - self._start) * self._hz // 1_000_000_000

    def post(self, action: Callable[[int, Any], None], what: Any = None) -> None:
        """Have `action(time, what)` carried out by the machine's thread. From any thread."""
        with self._wake:
            self._posted.append((action, what))
            self._wake.notify()

    def stop(self) -> None:
        """No more waiting: `run` returns when nothing is left to do. From any thread."""
        with self._wake:
            self._stopped = True
            self._wake.notify()

    def take(self, machine: Machine) -> None:
        """Carry out what was posted. Clocks that are behind the host's catch up; one that is ahead,
        because computing was charged more than the host took, is not held back.
        """
        now = self.now()
        machine.now = max(machine.now, now)
        for cpu in machine.processors:
            if not cpu.idle:
                cpu.now = max(cpu.now, now)
        while self._posted:
            action, what = self._posted.popleft()
            action(machine.now, what)
            machine.slices.stir(machine.now)

    def wait(self, until: int) -> bool:
        """Nothing to do before that time: wait. True if something was posted meanwhile."""
        with self._wake:
            while not self._posted:
                left = until - self.now()
                if left <= 0 or (self._stopped and until == NEVER):
                    return False
                self._wake.wait(None if until == NEVER else left / self._hz)
            return True
