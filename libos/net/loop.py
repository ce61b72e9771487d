"""Runs a host in real time: frames of an interface, timers, and an application, in turns.

The one file of `libos/net` that waits and looks at a clock.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Final, Protocol

from libos.net.base import earliest
from libos.net.host import Host

#: Frames taken in one turn: more would let the application and the timers wait.
_BURST: Final = 256
_LONGEST_WAIT: Final = 100_000_000  # nanoseconds: so often `until` is asked

Service = Callable[[int], None]


class Port(Protocol):
    """What a loop needs of an interface: see `xnfs.net.Interface`."""

    def send(self, frame: bytes) -> bool:
        """Hand over one frame."""

    def receive(self) -> bytes | None:
        """The next frame that has arrived."""


class Loop:
    """Turns of one host on one interface."""

    def __init__(
        self,
        host: Host,
        port: Port,
        fd: int,
        service: Service = lambda _now: None,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        next_arrival: Callable[[], int | None] = lambda: None,
    ) -> None:
        """`fd` is readable when the interface has frames; `service` is the application's turn.

        An interface that holds frames back says by `next_arrival` when the next is due.
        """
        self.host = host
        self._port, self._service, self._clock = port, service, clock
        self._next_arrival = next_arrival
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def run(self, until: Callable[[], bool]) -> None:
        """Take turns until `until` says so; it is asked ten times a second at least."""
        while not until():
            self._wait()
            self.turn()

    def turn(self) -> None:
        """Take in what has come, let the application have its turn, send what follows."""
        host, port, now = self.host, self._port, self._clock()
        for _ in range(_BURST):
            frame = port.receive()
            if frame is None:
                break
            host.input(frame, now)
        self._service(now)
        host.advance(now)
        for frame in host.take():
            port.send(frame)

    def _wait(self) -> None:
        now = self._clock()
        due = earliest(self.host.deadline(), self._next_arrival(), now + _LONGEST_WAIT)
        wait = 0 if due is None else max(0, due - now)
        self._poll.poll(-(-wait // 1_000_000))
