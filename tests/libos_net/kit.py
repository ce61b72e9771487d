"""Two hosts on a simulated wire, under a virtual clock."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from libos.net.base import SECOND, earliest, ip, mac
from libos.net.host import Address, Host
from libos.net.tcp.connection import Connection
from libos.net.tcp.state import State
from libos.net.tcp.tuning import Tuning
from xnfs.net import Conditions, VirtualClock, Wire

A: Final = Address(mac("02:00:00:00:00:0a"), ip("10.0.0.1"))
B: Final = Address(mac("02:00:00:00:00:0b"), ip("10.0.0.2"))

#: A path of 100 Mbit/s and 10 ms there and back.
GOOD: Final = Conditions(latency=5_000_000, bandwidth=100_000_000)
BAD: Final = Conditions(
    latency=5_000_000,
    bandwidth=100_000_000,
    loss=0.05,
    reordering=0.1,
    late=3_000_000,
    duplication=0.02,
    corruption=0.01,
)


class Lab:
    """Turns of both hosts; time goes on to whatever happens next."""

    def __init__(
        self, conditions: Conditions = GOOD, seed: int = 0, tuning: Tuning | None = None
    ) -> None:
        self.clock = VirtualClock(SECOND)
        self.wire = Wire(self.clock, conditions, seed=seed)
        self.a = Host(A, seed=seed * 2, tuning=tuning)
        self.b = Host(B, seed=seed * 2 + 1, tuning=tuning)
        self.seen: list[bytes] = []  # all frames that were sent
        self.turns = 0

    def turn(self, act: Callable[[], None] = lambda: None) -> bool:
        """One turn at one moment. False: nothing will ever happen again."""
        sides = ((self.a, self.wire.a), (self.b, self.wire.b))
        now = self.clock()
        for host, end in sides:
            while (frame := end.receive()) is not None:
                host.input(frame, now)
        act()
        for host, end in sides:
            host.advance(now)
            for frame in host.take():
                self.seen.append(frame)
                end.send(frame)
        due = earliest(self.wire.next_arrival(), self.a.deadline(), self.b.deadline())
        if due is None:
            return False
        self.clock.advance_to(due)
        self.turns += 1
        return True

    def run(
        self,
        until: Callable[[], bool],
        act: Callable[[], None] = lambda: None,
        seconds: float = 600,
    ) -> None:
        """Turns until something holds; it must, within so much virtual time."""
        end = self.clock() + int(seconds * SECOND)
        while not until():
            assert self.turn(act) or until(), "nothing will ever happen again"
            assert self.clock() < end, f"not within {seconds} s"

    def pass_time(self, seconds: float) -> None:
        """Turns until so much virtual time has passed."""
        end = self.clock() + int(seconds * SECOND)
        while self.clock() < end and self.turn():
            pass
        self.clock.advance_to(end)
        self.turn()

    def connected(self, port: int = 80) -> tuple[Connection, Connection]:
        """A connection from a to b, and b's end of it."""
        listener = self.b.tcp.listen(port)
        mine = self.a.tcp.connect(B.ip, port, self.clock())
        theirs: list[Connection] = []

        def accept() -> None:
            if (connection := listener.accept()) is not None:
                theirs.append(connection)

        self.run(lambda: bool(theirs) and mine.state is State.ESTABLISHED, accept)
        self.b.tcp.unlisten(listener)
        return mine, theirs[0]


@dataclass
class Transfer:
    """Sends bytes from one end to the other and takes them in there."""

    sender: Connection
    receiver: Connection
    data: bytes
    sent: int = 0
    got: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def step(self) -> None:
        """What an application does in its turn."""
        self.sent += self.sender.write(memoryview(self.data)[self.sent : self.sent + 65536])
        if self.sent == len(self.data):
            self.sender.shut_down()
        piece = self.receiver.read()
        self.got += len(piece)
        self.digest.update(piece)

    @property
    def done(self) -> bool:
        """Whether all has come, and the end of it."""
        return self.receiver.at_end and self.sent == len(self.data)

    @property
    def intact(self) -> bool:
        """Whether what came is what was sent."""
        return self.digest.digest() == hashlib.sha256(self.data).digest()


def both_ways(lab: Lab, size: int, seconds: float = 600) -> tuple[Transfer, Transfer]:
    """Send `size` random bytes each way at once, to the end."""
    mine, theirs = lab.connected()
    rng = random.Random(size)
    there = Transfer(mine, theirs, rng.randbytes(size))
    back = Transfer(theirs, mine, rng.randbytes(size))

    def act() -> None:
        there.step()
        back.step()

    lab.run(lambda: there.done and back.done, act, seconds)
    return there, back
