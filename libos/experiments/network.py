"""A round trip against the number of processes: the figure of Engler et al. 1995, section 6.3.

Run: the machine, its slices, the wire, the packet filter, the ring, the handler, the processes. A
model: what the kernel's and the owner's work costs, for the monolithic kernel in particular, which
is not there; its two ways differ from the others in who does the work, and when.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

from libos.experiments.result import Cell, Result
from libos.experiments.scheduling import SLICE, computing
from libos.net.base import ip, mac
from libos.net.endpoint import EndpointPort, bind_host
from libos.net.handlers import ECHO, prepare_echo
from libos.net.host import Address, Host
from xnfs import Boot, Costs, Machine, Program, calls
from xnfs.net import Conditions, Network, VirtualClock, Wire

HANDLER, SOON, WOKEN = "handler", "next free slot", "woken"
REPLY, SOCKETS = "kernel's reply", "kernel's sockets"
_COSTS: Final = Costs()
_TICK: Final = 1_000_000_000 // _COSTS.hz  # nanoseconds in a cycle
_HERE: Final = Address(mac("02:00:00:00:00:01"), ip("10.0.0.1"))
_THERE: Final = Address(mac("02:00:00:00:00:02"), ip("10.0.0.2"))
_LATENCY: Final = 100_000  # nanoseconds, each way
_TIMES: Final = 40

# A model, in cycles, for a packet of 98 bytes. What the kernel does when one arrives: an interrupt,
# a look for its owner, and then the handler, or a copy into the ring, or all protocols. What the
# owner does: the protocols, and a crossing to send; with sockets two crossings and two copies.
_COPY: Final = 25 * _COSTS.word
_ARRIVAL: Final = _COSTS.crossing + 20
_PROTOCOLS: Final = 2000
_OWNER: Final = {
    SOON: _PROTOCOLS + _COSTS.crossing,
    WOKEN: _PROTOCOLS + _COSTS.crossing,
    SOCKETS: 2 * (_COSTS.crossing + _COPY),
}


def _kernel(way: str, ping: bytes) -> int:
    """What the kernel does when a ping arrives."""
    if way == HANDLER:
        return _ARRIVAL + _charged(ping) * _COSTS.step
    return _ARRIVAL + (_PROTOCOLS if way in (REPLY, SOCKETS) else _COPY)


def _charged(ping: bytes) -> int:
    """The steps that the kernel charges the handler's owner for one ping."""
    machine, clock = Machine(), VirtualClock()
    wire = Wire(clock, Conditions())
    net = Network(machine.capabilities, machine.frames, clock, machine.slices.wake_by_id)
    net.attach("eth", wire.b)
    bound = _listen(HANDLER, net, machine.mint("net", "eth"), None).bound
    wire.a.send(ping)
    net.service()
    return net.statistics(bound.capability, bound.endpoint).steps


def _listen(way: str, net: Network, token: bytes, wakes: int | None) -> EndpointPort:
    """An endpoint for all that is sent to us, with the handler if it is to answer."""
    port = bind_host(net, token, "eth", _HERE, 3, wakes=wakes)
    if way == HANDLER:
        bound = port.bound
        area = net.install_handler(bound.capability, bound.endpoint, ECHO, 1)
        prepare_echo(area, _HERE.mac, _HERE.ip)
    return port


def _replies(port: EndpointPort, host: Host) -> Iterator[bytes]:
    """What a host answers to all that has come."""
    while (frame := port.receive()) is not None:
        host.input(frame, 0)
        host.advance(0)
        yield from host.take()


def _server(me: Boot) -> Program:
    """Answers pings: a process that has to be scheduled, or the handler that it installs."""
    way, net, token = me.args
    port = _listen(way, net, token, me.id)
    host = Host(_HERE, seed=1)
    yield (calls.SOON, int(way == SOON))
    for _ in itertools.repeat(None):
        for reply in _replies(port, host):
            yield _OWNER.get(way, _PROTOCOLS)
            port.send(reply)
        yield (calls.SLEEP, 0)


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

    wire = Wire(clock, Conditions(latency=_LATENCY), seed=others)
    net = Network(machine.capabilities, machine.frames, clock, machine.slices.wake_by_id)
    net.attach("eth", wire.b)
    token = machine.mint("net", "eth")
    inside = None
    if way == REPLY:
        inside = _listen(way, net, token, None), Host(_HERE, seed=1)
    else:
        _boot(machine, 0, _server, way, net, token)
    for i in range(others):
        _boot(machine, 4 * (i + 1), computing)
    question, ping = _pings()
    cost = _kernel(way, ping)

    def sent(time: int, frame: bytes) -> None:
        wire.a.send(frame)
        machine.at(time + _LATENCY // _TICK, interrupt)

    def interrupt(time: int, _: None) -> None:
        # The processor does this instead of what it was at; the effects come when it is done.
        machine.processors[0].now = max(machine.processors[0].now, time) + cost
        machine.at(time + cost, served)

    def served(_time: int, _: None) -> None:
        net.service()
        if inside is not None:
            port, host = inside
            for reply in _replies(port, host):
                port.send(reply)

    machine.at(SLICE * (others + 2), sent, question)
    rng = random.Random(others)
    gap = (2 * others + 12) * SLICE
    times = [gap * (i + 2) + rng.randrange(gap // 2) for i in range(_TIMES)]
    for time in times:
        machine.at(time, sent, ping)
    machine.run(until=times[-1] + gap)
    back = []
    while (arrival := wire.next_arrival()) is not None:
        reply = wire.a.receive()
        if reply is not None and reply[12:14] == ping[12:14]:  # not the answer to the question
            back.append(arrival // _TICK)
    trips = sorted(there - time for there, time in zip(back, times, strict=True))
    return _COSTS.seconds(trips[_TIMES // 2]) * 1000


def _boot(machine: Machine, position: int, program: Callable[..., Program], *args: Any) -> None:
    """A program with one position, by number: free ones lie between."""
    id = machine.boot(program, *args, slots=0)
    env = machine.environment(id)
    machine.slices.slot_alloc(machine.processors[0], env, id, 0, position, env.token)


def handlers() -> Result:
    """The figure of 1995: a round trip against the number of runnable processes."""
    ways = (HANDLER, REPLY, SOON, WOKEN, SOCKETS)
    rows = []
    for others in (0, 1, 2, 4, 8, 16, 32):
        row: tuple[Cell, ...] = (others, *(_round_trip(way, others) for way in ways))
        rows.append(row)
    return Result(
        "How long is a round trip, while others compute? Medians, in milliseconds.",
        ("others", *ways),
        tuple(rows),
        ways,
    )
