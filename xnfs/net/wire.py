"""A simulated wire: frames that take time, get lost, overtake each other, or come twice.

`Wire` has two ends, each an `Interface`. `Impaired` puts the same between a real interface and its
user, as `tc netem` does in Linux. What happens to a frame depends on the seed, the frames before
it and the clock, on nothing else: under a virtual clock every run is the same.

A direction delivers frames in the order of their arrival times. Its queue is bounded, so a sender
that is faster than the wire loses frames at the tail, as at any router.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from xnfs.net.interface import (
    DEFAULT_MTU,
    ETHERNET_HEADER,
    SECOND,
    Clock,
    Interface,
    fits,
)

_IPV4: Final = b"\x08\x00"


@dataclass(frozen=True, slots=True)
class Conditions:
    """How one direction treats frames. Probabilities are of each frame, in 0..1."""

    latency: int = 0  # nanoseconds from the last bit sent to the frame delivered
    jitter: int = 0  # up to so much more, evenly spread
    bandwidth: int = 0  # bits per second; 0: no limit
    queue: int = 1000  # frames on the way, at most; one more is dropped
    loss: float = 0.0
    duplication: float = 0.0
    #: One bit behind the Ethernet header is turned, as in a router's memory. Other frames than
    #: IPv4 are spared: ARP has no checksum, since what is damaged on an Ethernet does not arrive.
    corruption: float = 0.0
    reordering: float = 0.0  # the frame is held back by `late`
    late: int = 1_000_000


@dataclass(slots=True)
class Tally:
    """What one direction did so far, in frames."""

    sent: int = 0
    delivered: int = 0
    lost: int = 0
    overflowed: int = 0
    duplicated: int = 0
    corrupted: int = 0
    reordered: int = 0


class VirtualClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, now: int = 0) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance_to(self, time: int) -> None:
        """Set the time, which never goes back."""
        self.now = max(self.now, time)


class Direction:
    """One way of a wire."""

    def __init__(self, clock: Clock, conditions: Conditions, rng: random.Random) -> None:
        self.conditions = conditions
        self.tally = Tally()
        self._clock = clock
        self._rng = rng
        self._sender_free = 0  # when the last bit of the frame before will have been sent
        self._flying: list[tuple[int, int, bytes]] = []  # a heap: arrival, number, frame

    def push(self, frame: bytes) -> bool:
        """Put a frame on the way. False: the queue is full, and the frame dropped."""
        how, chance, tally = self.conditions, self._rng.random, self.tally
        if len(self._flying) >= how.queue:
            tally.overflowed += 1
            return False
        tally.sent += 1
        start = max(self._clock(), self._sender_free)
        spent = len(frame) * 8 * SECOND // how.bandwidth if how.bandwidth else 0
        self._sender_free = start + spent
        if chance() < how.loss:
            tally.lost += 1
            return True
        if chance() < how.corruption and frame[12:14] == _IPV4 and len(frame) > ETHERNET_HEADER:
            tally.corrupted += 1
            frame = _turn_bit(frame, self._rng.randrange(ETHERNET_HEADER * 8, len(frame) * 8))
        arrival = self._sender_free + how.latency
        if how.jitter:
            arrival += self._rng.randrange(how.jitter + 1)
        if chance() < how.reordering:
            tally.reordered += 1
            arrival += how.late
        heapq.heappush(self._flying, (arrival, tally.sent * 2, frame))
        if chance() < how.duplication:
            tally.duplicated += 1
            heapq.heappush(self._flying, (arrival, tally.sent * 2 + 1, frame))
        return True

    def pop(self) -> bytes | None:
        """The next frame whose time has come."""
        if not self._flying or self._flying[0][0] > self._clock():
            return None
        self.tally.delivered += 1
        return heapq.heappop(self._flying)[2]

    def next_arrival(self) -> int | None:
        """When the next frame arrives; None if nothing is on the way."""
        return self._flying[0][0] if self._flying else None


def _turn_bit(frame: bytes, bit: int) -> bytes:
    changed = bytearray(frame)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


class End:
    """An `Interface` that sends into one direction and receives from another."""

    def __init__(self, out: Direction, into: Direction, mtu: int) -> None:
        self._out, self._in, self._mtu = out, into, mtu

    @property
    def mtu(self) -> int:
        """See Interface."""
        return self._mtu

    def send(self, frame: bytes) -> bool:
        """See Interface."""
        return fits(frame, self._mtu) and self._out.push(bytes(frame))

    def receive(self) -> bytes | None:
        """See Interface."""
        return self._in.pop()


class Wire:
    """A cable between two ends, `a` and `b`."""

    def __init__(
        self,
        clock: Clock,
        there: Conditions,
        back: Conditions | None = None,
        *,
        seed: int = 0,
        mtu: int = DEFAULT_MTU,
    ) -> None:
        """`there` is from `a` to `b`; `back`, unless given, is the same."""
        self.there = Direction(clock, there, random.Random(f"{seed} there"))
        self.back = Direction(clock, back or there, random.Random(f"{seed} back"))
        self.a = End(self.there, self.back, mtu)
        self.b = End(self.back, self.there, mtu)

    def next_arrival(self) -> int | None:
        """When the next frame arrives at either end; None if nothing is on the way."""
        return earliest((self.there.next_arrival(), self.back.next_arrival()))


class Impaired:
    """An `Interface` over another one, with a bad wire in between."""

    def __init__(
        self,
        below: Interface,
        clock: Clock,
        out: Conditions,
        into: Conditions | None = None,
        *,
        seed: int = 0,
    ) -> None:
        self._below = below
        self.out = Direction(clock, out, random.Random(f"{seed} out"))
        self.into = Direction(clock, into or out, random.Random(f"{seed} into"))

    @property
    def mtu(self) -> int:
        """See Interface."""
        return self._below.mtu

    def send(self, frame: bytes) -> bool:
        """See Interface."""
        taken = self.out.push(bytes(frame))
        self.step()
        return taken

    def receive(self) -> bytes | None:
        """See Interface."""
        self.step()
        return self.into.pop()

    def step(self) -> None:
        """Take in what has come from below, and hand down what is due."""
        while (frame := self._below.receive()) is not None:
            self.into.push(frame)
        while (frame := self.out.pop()) is not None:
            self._below.send(frame)

    def next_arrival(self) -> int | None:
        """When something is due, either way: by then call `step` or `receive`."""
        return earliest((self.out.next_arrival(), self.into.next_arrival()))


def earliest(times: Iterable[int | None]) -> int | None:
    """The first of some times, those that are None left out."""
    known = [time for time in times if time is not None]
    return min(known) if known else None
