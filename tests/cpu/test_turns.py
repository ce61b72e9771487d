"""Turns: directed yield, prologue and epilogue, overtime and what it costs, the next free slot."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from xnfs import Boot, Costs, Machine, Program, Refused, calls

Q = Costs().quantum


def spin(me: Boot) -> Program:
    """Computes for ever."""
    for _ in itertools.repeat(None):
        yield 1000


def test_turns_directed_yield_gives_the_rest_of_the_slice() -> None:
    """A program without positions runs on what another gives it, and on nothing else."""

    def giver(me: Boot) -> Program:
        poor = yield (calls.SPAWN, spin, (), me.id, me.token)
        for _ in range(10):
            yield Q // 4
            yield (calls.YIELD, poor)
        return me.tables.cycles(poor)

    machine = Machine()
    machine.boot(giver)
    machine.run()
    assert 10 * Q * 0.70 < machine.ended[0][2] < 10 * Q * 0.76


def test_turns_nobody_yields_to_who_sleeps() -> None:
    def sleeper(me: Boot) -> Program:
        yield (calls.SLEEP, 0)

    def giver(me: Boot) -> Program:
        (other,) = me.args
        yield (calls.SLEEP, Q)
        with pytest.raises(Refused):
            yield (calls.YIELD, other)

    machine = Machine()
    machine.boot(giver, machine.boot(sleeper))
    assert machine.run()
    assert [why for _, why, *_ in machine.ended] == [""]


def test_turns_prologue_and_epilogue_enclose_each_slice() -> None:
    seen: list[str] = []

    def prologue(end: int) -> Program:
        seen.append("begin")
        yield 1

    def epilogue(last: int) -> Program:
        seen.append("end")
        yield (calls.YIELD, 0)

    def program(me: Boot) -> Program:
        yield (calls.HANDLER, calls.PROLOGUE, prologue)
        yield (calls.HANDLER, calls.EPILOGUE, epilogue)
        yield 5 * Q

    machine = Machine()
    machine.boot(program)
    machine.boot(spin)
    machine.run(until=30 * Q)
    assert seen == ["end", "begin"] * 5


def critical(me: Boot) -> Program:
    """Is told of the end of its slice, and goes on for `over` cycles before it gives way."""
    (over,) = me.args
    told = False

    def epilogue(last: int) -> Program:
        nonlocal told
        told = True
        yield 1

    yield (calls.HANDLER, calls.EPILOGUE, epilogue)
    for _ in itertools.repeat(None):
        yield 100
        if told:
            yield over
            told = False
            yield (calls.YIELD, 0)


@pytest.mark.parametrize("over", [Q // 2, Q, 5 * Q // 2])
def test_turns_overtime_is_paid_back(over: int) -> None:
    """A program that stays in critical sections beyond its slices gets no more than another."""
    machine = Machine()
    greedy, plain = machine.boot(critical, over), machine.boot(spin)
    machine.run(until=600 * Q)
    assert 0.96 < machine.cycles(greedy) / machine.cycles(plain) < 1.04
    assert machine.counters()["forfeited"] > 0 or over < Q


def test_turns_who_keeps_the_processor_is_ended() -> None:
    machine = Machine()
    id = machine.boot(critical, 100 * Q)
    other = machine.boot(spin)
    machine.run(until=20 * Q)
    assert [end[:3] for end in machine.ended] == [(id, "kept the processor", 0)]
    assert machine.cycles(other) > 12 * Q  # it lost Costs.excess, at most, to the other


def test_turns_overtime_can_not_be_given_away() -> None:
    """Whoever is in overtime and yields to a friend gets it nothing."""

    def program(me: Boot) -> Program:
        (friend,) = me.args

        def epilogue(last: int) -> Program:
            yield (calls.YIELD, friend)

        yield (calls.HANDLER, calls.EPILOGUE, epilogue)
        yield 1000 * Q

    machine = Machine()
    friend = machine.boot(spin, slots=0)
    machine.boot(program, friend)
    other = machine.boot(spin)
    machine.run(until=100 * Q)
    assert machine.cycles(friend) == 0
    assert 0.48 < machine.cycles(other) / (100 * Q) < 0.52


def latencies(me: Boot) -> Program:
    """Sleeps and measures how late it gets the processor."""
    soon, late = me.args
    yield (calls.SOON, soon)
    for i in range(1, 40):
        due = i * 17 * Q + i * 1237
        yield (calls.SLEEP, due)
        late.append((yield (calls.CLOCK,)) - due)
        yield Q // 10


def boot_at(machine: Machine, position: int, program: Callable[[Boot], Program], *args: Any) -> int:
    """A program with one position, by number."""
    id = machine.boot(program, *args, slots=0)
    env = machine.environment(id)
    machine.slices.slot_alloc(machine.processors[0], env, id, 0, position, env.token)
    return id


def crowd(soon: int) -> tuple[float, list[float]]:
    """Median latency of an interactive program among eight that compute, and their shares.
    Everybody leaves three positions free behind his own.
    """
    machine = Machine(slots=36)
    spinners = [boot_at(machine, 4 * i, spin) for i in range(8)]
    late: list[int] = []
    boot_at(machine, 32, latencies, soon, late)
    machine.run(until=700 * Q)
    return sorted(late)[len(late) // 2] / Q, [machine.cycles(s) / Q for s in spinners]


def test_turns_next_free_slot_cuts_latency_and_costs_nobody_his_share() -> None:
    (usual, shares), (soon, after) = crowd(0), crowd(1)
    assert usual > 3
    assert soon < 1.1
    assert max(abs(a - b) for a, b in zip(shares, after, strict=True)) < 3


def test_turns_next_free_slot_gives_no_more_than_a_share() -> None:
    """One that sleeps for a moment only, to come next each time, pays for every early turn."""

    def greedy(me: Boot) -> Program:
        yield (calls.SOON, 1)
        for _ in itertools.repeat(None):
            yield Q - 5000
            now = yield (calls.CLOCK,)
            yield (calls.SLEEP, now + 100)

    machine = Machine(slots=32)
    others = [machine.boot(spin) for _ in range(3)]
    id = machine.boot(greedy)
    machine.run(until=400 * Q)
    assert machine.cycles(id) < 1.05 * machine.cycles(others[0])
