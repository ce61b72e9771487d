"""A round trip against the number of processes: handlers, woken processes, a kernel's sockets."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any, Final

from libos.experiments.result import Cell, Result
from libos.experiments.scheduling import SLICE, computing
from libos.net.base import ip, mac
from libos.net.endpoint import bind_host
from libos.net.handlers import ECHO, prepare_echo
from libos.net.host import Address, Host
from xnfs import Boot, Costs, Machine, Program, calls
from xnfs.net import Network

HANDLER, SOON, WOKEN, SOCKETS = "handler", "next free slot", "woken", "kernel's sockets"
_COSTS: Final = Costs()
_TICK: Final = 1_000_000_000 // _COSTS.hz  # nanoseconds in a cycle
_HERE: Final = Address(mac("02:00:00:00:00:01"), ip("10.0.0.1"))
_THERE: Final = Address(mac("02:00:00:00:00:02"), ip("10.0.0.2"))
_WIRE: Final = 2 * _COSTS.cycles(100e-6)  # there and back
_TIMES: Final = 40

# A model, in cycles, for a packet of 98 bytes. What the kernel does when one arrives: an interrupt,
# a look for its owner, and the handler's 94 steps, or a copy into the ring, or all protocols. What
# the owner does: the protocols, and a crossing to send; with sockets two crossings and two copies.
_COPY: Final = 25 * _COSTS.word
_ARRIVAL: Final = _COSTS.crossing + 20
_PROTOCOLS: Final = 2000
_KERNEL: Final = {
    HANDLER: _ARRIVAL + 94 * _COSTS.step + 2 * _COPY,
    SOON: _ARRIVAL + _COPY,
    WOKEN: _ARRIVAL + _COPY,
    SOCKETS: _ARRIVAL + _PROTOCOLS,
}
_OWNER: Final = {
    SOON: _PROTOCOLS + _COSTS.crossing,
    WOKEN: _PROTOCOLS + _COSTS.crossing,
    SOCKETS: 2 * (_COSTS.crossing + _COPY),
}


class _Card:
    """An interface whose packets come when the experiment says so; it notes when others leave."""

    mtu = 1500

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self.arrived: list[bytes] = []
        self.left: list[int] = []

    def send(self, frame: bytes) -> bool:
        """See Interface."""
        if frame[12:14] == b"\x08\x00":
            self.left.append(self._clock())
        return True

    def receive(self) -> bytes | None:
        """See Interface."""
        return self.arrived.pop() if self.arrived else None


def _server(me: Boot) -> Program:
    """Answers pings, in one of four ways."""
    way, net, token = me.args
    port = bind_host(net, token, "eth", _HERE, 3, wakes=me.id)
    if way == HANDLER:
        bound = port.bound
        prepare_echo(
            net.install_handler(bound.capability, bound.endpoint, ECHO, 1), _HERE.mac, _HERE.ip
        )
    host = Host(_HERE, seed=1)
    yield (calls.SOON, int(way == SOON))
    for _ in itertools.repeat(None):
        frame = port.receive()
        if frame is None:
            yield (calls.SLEEP, 0)
            continue
        host.input(frame, 0)
        host.advance(0)
        for reply in host.take():
            yield _OWNER.get(way, _PROTOCOLS)
            port.send(reply)


def _pings() -> tuple[bytes, bytes]:
    """What the outside sends: a question for our Ethernet address, which tells its own; a ping."""
    outside, here = Host(_THERE, seed=2), Host(_HERE, seed=3)
    outside.ping(_HERE.ip, 1, 1, bytes(56))
    (question,) = outside.take()
    here.input(question, 0)
    (answer,) = here.take()
    outside.input(answer, 0)
    (ping,) = outside.take()
    return question, ping


def _round_trip(way: str, others: int) -> float:
    """Median of a round trip, in milliseconds."""
    machine = Machine(slots=4 * (others + 1), seed=others)

    def clock() -> int:
        return machine.time * _TICK

    card = _Card(clock)
    net = Network(machine.capabilities, machine.frames, clock, machine.slices.wake_by_id)
    net.attach("eth", card)
    _boot(machine, 0, _server, way, net, machine.mint("net", "eth"))
    for i in range(others):
        _boot(machine, 4 * (i + 1), computing)

    def interrupt(time: int, frame: bytes) -> None:
        # The processor does this instead of what it was at; the effects come when it is done.
        machine.processors[0].now = max(machine.processors[0].now, time) + _KERNEL[way]
        machine.at(time + _KERNEL[way], served, frame)

    def served(_time: int, frame: bytes) -> None:
        card.arrived.append(frame)
        net.service()

    question, ping = _pings()
    machine.at(SLICE * (others + 2), interrupt, question)
    rng = random.Random(others)
    gap = (2 * others + 12) * SLICE
    times = [gap * (i + 2) + rng.randrange(gap // 2) for i in range(_TIMES)]
    for time in times:
        machine.at(time, interrupt, ping)
    machine.run(until=times[-1] + gap)
    trips = sorted(left // _TICK - time for left, time in zip(card.left, times, strict=True))
    return _COSTS.seconds(trips[_TIMES // 2] + _WIRE) * 1000


def _boot(machine: Machine, position: int, program: Callable[..., Program], *args: Any) -> None:
    """A program with one position, by number: free ones lie between."""
    id = machine.boot(program, *args, slots=0)
    env = machine.environment(id)
    machine.slices.slot_alloc(machine.processors[0], env, id, 0, position, env.token)


def handlers() -> Result:
    """The figure of 1995: a round trip against the number of runnable processes."""
    ways = (HANDLER, SOON, WOKEN, SOCKETS)
    rows = []
    for others in (0, 1, 2, 4, 8, 16):
        row: tuple[Cell, ...] = (others, *(_round_trip(way, others) for way in ways))
        rows.append(row)
    return Result(
        "How long is a round trip, while others compute? Medians, in milliseconds.",
        ("others", *ways),
        tuple(rows),
        ways,
    )
