"""Handlers (ASHs): an application's code that runs in the kernel the moment its packet arrives.

A handler is a program of the sandbox: `handle(pkt, state, now)`. It sees the packet, the first 256
bytes of its area (memory of the application, shared with the kernel) and the time, and answers
with actions, at most 16, which the kernel then does, all or none:

    COPY      to, from, length       packet bytes into the area (message vectoring)
    COPY_SUM  to, from, length, sum  the same, if their Internet sum is `sum` (integrated layers)
    STORE     to, width, value       a number, most significant byte first
    SUM       at, from, length, sum  the Internet checksum of area bytes and a sum before them
    SEND      from, length           area bytes as a packet (message initiation)
    WAKE                             run the owner soon (control initiation)
    KEEP                             put the packet into the ring as well

Without any action the packet goes to the ring, as if there were no handler. Sources: Wallach,
Engler, Kaashoek, *ASHs* (SIGCOMM 1996), sections 2 and 3; Engler et al. 1995, section 6.3.

**No deadlock**: a handler has nothing to wait for; there is no action that waits. **No livelock**:
a run takes no more steps than were proved, actions are few and bounded by the size of a packet,
and each holder has an allowance of steps a second (`Allowance`). When it is used up packets go
to the ring, and when that is full they are dropped, which costs next to nothing: so the arrival of
packets can't take more of the machine than that (Mogul and Ramakrishnan 1996). Two handlers that
answer each other run out of it like anybody else, even where no time passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from xnfs.errors import Refused
from xnfs.net.cube import MAX_FRAME, MIN_FRAME
from xnfs.net.interface import SECOND
from xnfs.sandbox import Buffer, Int, Program, Signature, VerifyError, verify

STATE: Final = 256
MAX_ACTIONS: Final = 16
BUDGET: Final = 2000  # steps of one run
SIGNATURE: Final = Signature(
    "handle",
    (Buffer("pkt", MAX_FRAME, MIN_FRAME), Buffer("state", STATE), Int("now")),
    emits=5,
    max_emits=MAX_ACTIONS,
)
STEPS_PER_SECOND: Final = 5_000_000
_ACTION_STEPS: Final = 20
_BYTES_PER_STEP: Final = 64
_SEND_STEPS: Final = 200


class Action(IntEnum):
    """The first value that a handler emits; four more follow, 0 where there is no argument."""

    COPY = 1
    COPY_SUM = 2
    STORE = 3
    SUM = 4
    SEND = 5
    WAKE = 6
    KEEP = 7


@dataclass(slots=True)
class Allowance:
    """Steps that may be spent: a second's worth at once, and as many a second in the long run."""

    rate: int
    full_at: int = 0  # when all of it will be back

    def spend(self, steps: int, now: int) -> bool:
        """Whether that much was left; if so, it is spent."""
        until = max(self.full_at, now) + steps * SECOND // self.rate
        if until > now + SECOND:
            return False
        self.full_at = until
        return True


@dataclass(slots=True)
class Tally:
    """What became of the packets of one handler."""

    runs: int = 0
    deferred: int = 0  # no allowance was left
    refused: int = 0  # an action was impossible, so none was done
    steps: int = 0  # spent of the allowance


class Handler:
    """A verified handler and its area."""

    def __init__(self, source: str, area: memoryview) -> None:
        """Raises Refused: the line and the reason."""
        try:
            self._program: Program = verify(source, SIGNATURE, budget=BUDGET)
        except VerifyError as error:
            raise Refused(f"handler: {error}") from None
        self._run = self._program.run
        self._area = area
        self.tally = Tally()

    def arrive(
        self,
        frame: bytes,
        now: int,
        allowance: Allowance,
        send: Callable[[bytes], bool],
        wake: Callable[[], None],
    ) -> bool:
        """Run for one packet. True: it is done with; False: it goes to the ring."""
        if not allowance.spend(self._program.steps, now):
            self.tally.deferred += 1
            return False
        self.tally.runs += 1
        self.tally.steps += self._program.steps
        actions = self._run(frame, self._area[:STATE], now)
        if not actions:
            return False
        cost = sum(self._cost(a) for a in actions)
        if not all(self._possible_untrusted(a, frame) for a in actions) or not allowance.spend(
            cost, now
        ):
            self.tally.refused += 1
            return False
        self.tally.steps += cost
        keep = False
        for action in actions:
            keep |= self._do(action, frame, send, wake)
        return not keep

    def _cost(self, action: tuple[int, ...]) -> int:
        op, _, second, third, _ = action
        length = second if op == Action.SEND else 0 if op == Action.STORE else third
        return _ACTION_STEPS + length // _BYTES_PER_STEP + (op == Action.SEND and _SEND_STEPS)

    def _possible_untrusted(self, action: tuple[int, ...], frame: bytes) -> bool:
        """Whether an action stays inside the packet and the area, and its sum is right."""
        op, a, b, c, d = action
        size = len(self._area)
        match op:
            case Action.COPY:
                return a + c <= size and b + c <= len(frame)
            case Action.COPY_SUM:
                return a + c <= size and b + c <= len(frame) and _sum(frame[b : b + c]) == d
            case Action.STORE:
                return b in (1, 2, 4, 8) and a + b <= size and c < 1 << 8 * b
            case Action.SUM:
                return a + 2 <= size and b + c <= size
            case Action.SEND:
                return MIN_FRAME <= b <= MAX_FRAME and a + b <= size
        return op in (Action.WAKE, Action.KEEP)

    def _do(
        self,
        action: tuple[int, ...],
        frame: bytes,
        send: Callable[[bytes], bool],
        wake: Callable[[], None],
    ) -> bool:
        """Do an action that was found possible. True: the packet is to be kept."""
        op, a, b, c, d = action
        area = self._area
        match op:
            case Action.COPY | Action.COPY_SUM:
                area[a : a + c] = frame[b : b + c]
            case Action.STORE:
                area[a : a + b] = c.to_bytes(b, "big")
            case Action.SUM:
                area[a : a + 2] = bytes(2)
                area[a : a + 2] = (0xFFFF - _fold(_sum(area[b : b + c]) + d)).to_bytes(2, "big")
            case Action.SEND:
                send(bytes(area[a : a + b]))
            case Action.WAKE:
                wake()
        return op == Action.KEEP


def _fold(total: int) -> int:
    return total % 0xFFFF or (0xFFFF if total else 0)


def _sum(data: bytes | memoryview) -> int:
    """The one's complement sum of 16-bit words (RFC 1071); an odd last byte is padded."""
    total = int.from_bytes(data, "big")
    return _fold(total << 8 if len(data) & 1 else total)
