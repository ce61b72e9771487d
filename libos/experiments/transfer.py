"""Calls between environments: protected control transfer against pipes."""

from __future__ import annotations

from collections.abc import Callable

from libos.experiments.result import Result
from libos.experiments.scheduling import computing
from libos.pipe import Pipe, make
from libos.rpc import Client, Server
from xnfs import Boot, Machine, Program, calls

ROUNDS = 100
_PAGE = 1 << 20
Trip = Callable[[int], Program]


def _calls(me: Boot) -> Program:
    """Round trips by plain control transfer. Returns how to make one."""

    def server(me: Boot) -> Program:
        def called(caller: int, r0: int, r1: int, r2: int) -> Program:
            yield 1
            return r0, r1, r2

        yield (calls.HANDLER, calls.CALLED, called)
        yield (calls.SLEEP, 0)

    id = yield (calls.SPAWN, server, (), me.id, me.token)
    yield (calls.YIELD, id)

    def trip(i: int) -> Program:
        yield (calls.CALL, id, i, 0, 0)

    return trip


def _remote(me: Boot) -> Program:
    """By the library for remote procedure calls."""

    def server(me: Boot) -> Program:
        def echo(caller: int, *arguments: int) -> Program:
            yield 1
            return arguments

        yield from Server(me, {1: echo}).start()
        yield (calls.SLEEP, 0)

    id = yield (calls.SPAWN, server, (), me.id, me.token)
    yield (calls.YIELD, id)
    far = Client(me, id, _PAGE)
    yield from far.connect()

    def trip(i: int) -> Program:
        yield from far.call(1, i, 0, 0)

    return trip


def _pipes(me: Boot) -> Program:
    """By a pipe in each direction."""

    def attached(me: Boot, frames: tuple[int, ...], token: bytes) -> Program:
        ends = [Pipe(me, frame, token, _PAGE + i) for i, frame in enumerate(frames)]
        for pipe in ends:
            yield from pipe.attach()
            yield from pipe.count(1, 1)
        return ends

    def server(me: Boot) -> Program:
        there, back = yield from attached(me, *me.args)
        while True:
            yield from back.write((yield from there.read(24)))

    frames = []
    for _ in range(2):
        frames.append((yield from make(me, me.id, me.token)))
    there, back = yield from attached(me, tuple(frames), me.token)
    id = yield (calls.SPAWN, server, (tuple(frames), me.token), me.id, me.token)
    yield (calls.GIVE_QUOTA, me.id, id, 0, 1, 0, me.token)
    yield (calls.SLOT_ALLOC, id, calls.ANY, calls.ANY, me.token)

    def trip(i: int) -> Program:
        yield from there.write(i.to_bytes(24, "little"))
        yield from back.read(24)

    return trip


def _cycles(setup: Callable[[Boot], Program], others: int) -> float:
    """Cycles of a round trip, while others compute."""
    spent: list[int] = []

    def client(me: Boot) -> Program:
        trip: Trip = yield from setup(me)
        start = yield (calls.CLOCK,)
        for i in range(ROUNDS):
            yield from trip(i)
        spent.append((yield (calls.CLOCK,)) - start)

    machine = Machine()
    id = machine.boot(client)
    for _ in range(others):
        machine.boot(computing)
    while not spent:
        machine.run(until=machine.now + 10_000_000)
    assert machine.living(id) is None
    return spent[0] / ROUNDS


def transfer() -> Result:
    """A round trip with 24 bytes each way."""
    ways = (("control transfer", _calls), ("procedure call", _remote), ("pipes", _pipes))
    return Result(
        "What does a round trip between two environments cost? 24 bytes each way, in cycles.",
        ("way", "alone", "4 others compute"),
        tuple((name, _cycles(setup, 0), _cycles(setup, 4)) for name, setup in ways),
        ("alone",),
    )
