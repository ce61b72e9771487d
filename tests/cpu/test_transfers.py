"""Protected control transfer: registers, donated time, errors, and nobody else's time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from xnfs import Boot, Costs, InUse, Machine, NoSuchEnvironment, Program, Refused, calls

Q = Costs().quantum
ForHandler = Callable[..., Program]


def server_with(handler: ForHandler, kind: int = calls.CALLED) -> Callable[[Boot], Program]:
    """A program that answers calls and has no work of its own."""

    def server(me: Boot) -> Program:
        yield (calls.HANDLER, kind, handler)
        while True:
            yield (calls.SLEEP, 0)

    return server


def adder(caller: int, r0: int, r1: int, r2: int) -> Program:
    yield 10
    return r0 + r1, r2, caller


def settled(
    machine: Machine, program: Callable[[Boot], Program], *args: Any, slots: int = 1
) -> int:
    """Boot a program and let it come to rest."""
    id = machine.boot(program, *args, slots=slots)
    machine.run()
    return id


def test_transfers_carry_registers_and_the_callers_number() -> None:
    def client(me: Boot) -> Program:
        (server,) = me.args
        answer = yield (calls.CALL, server, 1, 2, 3)
        assert answer == (3, 3, me.id)
        answer = yield (calls.CALL, server, 4, 5, 6)
        return answer == (9, 6, me.id)

    machine = Machine()
    server = settled(machine, server_with(adder))
    machine.boot(client, server)
    assert machine.run()
    assert machine.ended[0][1:3] == ("", 0)
    assert machine.living(server) is not None


def test_transfers_give_the_callee_the_callers_time() -> None:
    """A server without a position of its own computes on its callers' slices."""

    def slow(caller: int, r0: int, r1: int, r2: int) -> Program:
        yield r0
        return 0, 0, 0

    def client(me: Boot) -> Program:
        (server,) = me.args
        yield (calls.CALL, server, 20 * Q, 0, 0)
        return (yield (calls.CLOCK,)) // Q

    def spin(me: Boot) -> Program:
        for _ in itertools.repeat(None):
            yield 1000

    machine = Machine()
    server = settled(machine, server_with(slow))
    machine.slices.take(machine.processors[0], 0)
    other = machine.boot(spin)
    id = machine.boot(client, server)
    machine.run(until=60 * Q)
    assert machine.ended[0][0] == id
    assert 39 <= machine.ended[0][2] <= 42  # half of the slices are the spinner's
    assert 19.5 * Q < machine.cycles(server) < 20.5 * Q
    assert machine.cycles(other) > 35 * Q


def test_transfers_nest_over_several_environments() -> None:
    def relay(me: Boot) -> Program:
        (behind,) = me.args

        def forward(caller: int, r0: int, r1: int, r2: int) -> Program:
            answer = yield (calls.CALL, behind, r0 + 1, r1, r2)
            return answer

        yield (calls.HANDLER, calls.CALLED, forward)
        yield (calls.SLEEP, 0)

    def client(me: Boot) -> Program:
        (server,) = me.args
        r0, _, caller = yield (calls.CALL, server, 0, 0, 0)
        return r0 == 10 and caller != me.id

    machine = Machine()
    last = settled(machine, server_with(adder))
    for _ in range(10):
        last = settled(machine, relay, last)
    machine.boot(client, last)
    assert machine.run()
    assert machine.ended[0][1:3] == ("", 0)
    assert machine.transfers.calls == 11


def test_transfers_can_not_go_in_circles() -> None:
    told: list[type] = []

    def back(me: Boot) -> Program:
        def handler(caller: int, r0: int, r1: int, r2: int) -> Program:
            try:
                yield (calls.CALL, caller, 0, 0, 0)
            except InUse as error:
                told.append(type(error))
            return 0, 0, 0

        yield (calls.HANDLER, calls.CALLED, handler)
        yield (calls.SLEEP, 0)

    def client(me: Boot) -> Program:
        (server,) = me.args
        yield (calls.HANDLER, calls.CALLED, adder)
        yield (calls.CALL, server, 0, 0, 0)

    machine = Machine()
    machine.boot(client, settled(machine, back))
    assert machine.run()
    assert told == [InUse]
    assert [why for _, why, *_ in machine.ended] == [""]


def test_transfers_to_a_busy_server_are_told() -> None:
    """One call at a time: the second caller is refused, and tries again."""
    refused = 0

    def slow(caller: int, r0: int, r1: int, r2: int) -> Program:
        yield (calls.SLEEP, 5 * Q)
        return 1, 0, 0

    def client(me: Boot) -> Program:
        nonlocal refused
        (server,) = me.args
        while True:
            try:
                return (yield (calls.CALL, server, 0, 0, 0))[0]
            except InUse:
                refused += 1
                yield (calls.YIELD, 0)

    machine = Machine()
    server = settled(machine, server_with(slow))
    machine.boot(client, server)
    machine.boot(client, server)
    assert machine.run()
    assert [status for _, _, status, *_ in machine.ended] == [1, 1]
    assert refused > 0


@pytest.mark.parametrize("how", ["exit", "raise", "ended", "no generator", "bad answer", "SKIP"])
def test_transfers_end_with_an_error_when_the_callee_fails(how: str) -> None:
    def handler(caller: int, r0: int, r1: int, r2: int) -> Program:
        yield 1
        if how == "exit":
            yield (calls.EXIT, 3)
        if how == "raise":
            raise ValueError
        if how == "ended":
            yield (calls.SLEEP, 0)
        return (1, 2) if how == "bad answer" else (calls.SKIP, 7) if how == "SKIP" else None

    def client(me: Boot) -> Program:
        (server,) = me.args
        expected = Refused if how in ("bad answer", "SKIP") else NoSuchEnvironment
        with pytest.raises(expected):
            yield (calls.CALL, server, 0, 0, 0)
        yield 100
        return 1

    def killer(me: Boot) -> Program:
        yield (calls.SLEEP, 5 * Q)
        server, token = me.args
        if how == "ended":
            yield (calls.END, server, token)

    machine = Machine()
    entry: Any = handler if how != "no generator" else lambda *registers: 5
    server = settled(machine, server_with(entry))
    token = machine.environment(server).token
    id = machine.boot(client, server)
    machine.boot(killer, server, token)
    assert machine.run()
    assert (id, "", 1) in [end[:3] for end in machine.ended]


def test_transfers_outlive_a_caller_that_is_ended() -> None:
    """The callee finishes what it does, on its own time, and takes the next call."""

    def slow(caller: int, r0: int, r1: int, r2: int) -> Program:
        yield r0
        return r0, 0, 0

    def client(me: Boot) -> Program:
        server, cycles = me.args
        return (yield (calls.CALL, server, cycles, 0, 0))[0]

    def killer(me: Boot) -> Program:
        yield (calls.SLEEP, 5 * Q)
        victim, token = me.args
        yield (calls.END, victim, token)

    machine = Machine()
    server = settled(machine, server_with(slow))
    victim = machine.boot(client, server, 50 * Q)
    machine.boot(killer, victim, machine.environment(victim).token)
    machine.run(until=80 * Q)
    assert (victim, "ended by another", 0) in [end[:3] for end in machine.ended]
    machine.boot(client, server, 77)
    assert machine.run()
    assert machine.ended[-1][1:3] == ("", 77)


def test_transfers_send_enters_later_and_waits_for_nothing() -> None:
    got: list[tuple[int, ...]] = []

    def receive(sender: int, r0: int, r1: int, r2: int) -> Program:
        yield 5
        got.append((sender, r0, r1, r2))

    def client(me: Boot) -> Program:
        (server,) = me.args
        for i in range(5):
            yield (calls.SEND, server, i, 0, 0)
        return 1

    machine = Machine()
    server = settled(machine, server_with(receive, calls.SENT))
    id = machine.boot(client, server)
    assert machine.run()
    assert got == [(id, i, 0, 0) for i in range(5)]
    assert machine.tables.state(server) == calls.ASLEEP


@pytest.mark.parametrize("number", [calls.CALL, calls.SEND])
def test_transfers_refuse_what_can_not_be_entered(number: int) -> None:
    def plain(me: Boot) -> Program:
        yield (calls.SLEEP, 0)

    def client(me: Boot) -> Program:
        (other,) = me.args
        for id, r in ((other, 0), (me.id, 0), (other, -1), (other, 1 << 64)):
            with pytest.raises(Refused):
                yield (number, id, r, 0, 0)
        with pytest.raises(NoSuchEnvironment):
            yield (number, 4711, 0, 0, 0)
        return 1

    machine = Machine()
    other = settled(machine, plain)
    machine.boot(client, other)
    assert machine.run()
    assert machine.ended[0][1:3] == ("", 1)
