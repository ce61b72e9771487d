"""Every call with every wrong operand: a defined error to the caller, and nothing else."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from tests.machine.conserve import check
from tests.machine.hostile import WRONG, Int
from tests.machine.kit import accepted, child, endings, frame_at, run, until
from xnfs import (
    GRANT,
    READ,
    WRITE,
    Boot,
    CapabilityError,
    Machine,
    NoSpace,
    NoSuchEnvironment,
    Program,
    Refused,
    XnError,
    calls,
)
from xnfs.capability import ALL

TABLE = {i: op for i, op in enumerate(Machine(frames=1)._table) if op is not None}
GOOD: dict[type, Any] = {int: 0, bytes: b"", str: "", tuple: (), object: 0}
#: Calls that do not come back, or wait.
LAST = {calls.EXIT, calls.SLEEP}


@pytest.mark.parametrize("number", TABLE)
def test_calls_wrong_operands_are_refused(number: int) -> None:
    kinds = TABLE[number].kinds[1:]
    good = [GOOD[kind] for kind in kinds]
    requests: list[tuple[Any, ...]] = [(number, *good, 0)]
    if good:
        requests.append((number, *good[:-1]))
    for at, kind in enumerate(kinds):
        for wrong in WRONG:
            if type(wrong) is not kind and kind is not object:
                requests.append((number, *good[:at], wrong, *good[at + 1 :]))

    def body(me: Boot, notes: list[Any]) -> Program:
        for request in requests:
            with pytest.raises(Refused):
                yield request
            notes.append(request)

    machine, (notes,) = run(body)
    assert len(notes) == len(requests), endings(machine)
    assert machine.counters()["refused"] == len(requests)
    assert machine.loop.counts[number] == 0
    check(machine)


#: Numbers that fit no operand: before, behind and far outside of everything.
EDGES = (
    -(10**5000),
    10**5000,
    -(1 << 70),
    -1,
    1,
    63,
    64,
    1 << 12,
    1 << 36,
    1 << 63,
    1 << 64,
    1 << 70,
)


@pytest.mark.parametrize("number", [n for n in TABLE if n not in LAST])
def test_calls_with_any_number_have_defined_errors(number: int) -> None:
    kinds = TABLE[number].kinds[1:]
    ints = [at for at, kind in enumerate(kinds) if kind is int]

    def body(me: Boot, notes: list[Any]) -> Program:
        yield (calls.HANDLER, calls.EXCEPTION, skip)
        area = yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
        yield (calls.SAVE_AREA, area, 0, me.token)
        base = [{**GOOD, int: me.id, bytes: me.token}[kind] for kind in kinds]
        for at, edge in itertools.product(ints, EDGES):
            try:
                yield (number, *base[:at], edge, *base[at + 1 :])
            except XnError:
                notes.append(edge)

    def skip(cause: int, address: int, place: int) -> Program:
        yield 1
        return (calls.SKIP, 0)

    machine, _ = run(body, frames=64)
    assert endings(machine) == [""]
    check(machine)


@pytest.mark.parametrize("number", [-1, 0, 15, 127, 128, 10**30, pytest.param(10**5000, id="long")])
def test_calls_unknown_numbers_are_refused(number: int) -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        with pytest.raises(Refused):
            yield (number,)
        notes.append("went on")

    assert run(body)[1] == [["went on"]]


@pytest.mark.parametrize(
    "request_", [None, "x", b"x", 1.5, True, [1], (), ("1",), Int(5), (Int(4), 0)]
)
def test_calls_that_are_none_are_illegal_instructions(request_: Any) -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        yield request_

    assert endings(run(body)[0]) == ["exception 5 at 0x0 and no handler"]


@pytest.mark.parametrize(
    "cycles", [-1, pytest.param(10**5000, id="long"), -(1 << 80), (1 << 62) + 1, 1 << 80]
)
def test_calls_impossible_computing_is_refused(cycles: int) -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        with pytest.raises(Refused):
            yield cycles
        notes.append("went on")

    assert run(body)[1] == [["went on"]]


# --- programs that misbehave --------------------------------------------------------------------


def neighbour(me: Boot, notes: list[Any]) -> Program:
    """Must get its time, whatever the others do."""
    for i in range(50):
        yield 1000
        notes.append(i)


def dies(me: Boot, notes: list[Any]) -> Program:
    yield 1
    raise KeyError("program")


def exits_python(me: Boot, notes: list[Any]) -> Program:
    yield 1
    raise SystemExit(3)


def interrupts(me: Boot, notes: list[Any]) -> Program:
    yield 1
    raise KeyboardInterrupt


def spends(me: Boot, notes: list[Any]) -> Program:
    while True:
        yield 1 << 62


def spends_nothing(me: Boot, notes: list[Any]) -> Program:
    while True:
        yield 0


def faults_for_ever(me: Boot, notes: list[Any]) -> Program:
    def handler(cause: int, address: int, place: int) -> Program:
        yield 1
        return calls.RETRY

    frame = yield from frame_at(me, 0)
    yield (calls.SAVE_AREA, frame, 0, me.token)
    yield (calls.HANDLER, calls.EXCEPTION, handler)
    yield (calls.LOAD, 99 << 12)


def clings(me: Boot, notes: list[Any]) -> Program:
    try:
        yield 1
        raise ValueError
    finally:
        yield 1


@pytest.mark.parametrize(
    "bad", [dies, exits_python, interrupts, spends, spends_nothing, faults_for_ever, clings]
)
def test_calls_programs_that_misbehave_harm_nobody(bad: Any) -> None:
    machine, notes = run(bad, neighbour, limit=500_000)
    assert len(notes[1]) == 50
    assert "" in endings(machine)
    check(machine)


def test_calls_what_is_no_program_is_refused() -> None:
    machine = Machine()
    for entry in (lambda me: 5, lambda me: iter(()), lambda: None, len):
        with pytest.raises(Refused):
            machine.boot(entry)  # type: ignore[arg-type]
    check(machine, (0, 0, 0))


def test_calls_a_program_that_does_not_yield_is_stopped() -> None:
    def runaway(me: Boot, notes: list[Any]) -> Program:
        yield 1
        while True:
            notes[:] = ["running"]

    began = time.process_time()
    machine, notes = run(runaway, neighbour, lines=2000)
    assert time.process_time() - began < 10
    assert endings(machine)[0] == "the program raised RunawayError"
    assert len(notes[1]) == 50


# --- capabilities -------------------------------------------------------------------------------


def test_calls_capabilities_are_hierarchical() -> None:
    def inner(me: Boot) -> Program:
        frame = yield (calls.FRAME_ALLOC, me.id, 9, me.token)
        yield (calls.BIND, 0, frame, 3, me.token)
        yield (calls.STORE, 0, 42)
        yield (calls.SLEEP, 0)

    def outer(me: Boot) -> Program:
        yield from child(me, inner, 1)
        yield (calls.SLEEP, 0)

    def body(me: Boot, notes: list[Any]) -> Program:
        id = yield (calls.SPAWN, outer, (), me.id, me.token)
        yield (calls.GIVE_QUOTA, me.id, id, 1, 2, 1, me.token)
        yield (calls.SLOT_ALLOC, id, calls.ANY, calls.ANY, me.token)
        yield from until(me, id + 1, calls.ASLEEP)
        yield (calls.BIND, 0, 9, READ, me.token)  # its own name is a prefix of the frame's
        notes.append((yield (calls.LOAD, 0)))
        names = yield (calls.NARROW, me.token, (str(id),), ALL)
        yield (calls.END, id + 1, names)
        notes.append(me.tables.state(id + 1))
        with pytest.raises(CapabilityError):
            yield (calls.END, me.id, names)  # but not the other way round
        with pytest.raises(NoSuchEnvironment):
            yield (calls.END, id + 1, names)

    machine, (notes,) = run(body)
    assert notes == [42, calls.ENDED], endings(machine)


def test_calls_capabilities_narrow_grant_accept_revoke() -> None:
    def peer(me: Boot) -> Program:
        token = yield from accepted(me)
        with pytest.raises(CapabilityError):
            yield (calls.NARROW, token, (), READ | WRITE)
        with pytest.raises(CapabilityError):
            yield (calls.GRANT, token, me.id)  # it may not hand it on
        yield (calls.BIND, 0, 0, READ, token)
        yield (calls.SLEEP, 0)
        with pytest.raises(CapabilityError):
            yield (calls.BIND, 0, 0, READ, token)
        return 6

    def body(me: Boot, notes: list[Any]) -> Program:
        yield (calls.FRAME_ALLOC, me.id, 0, me.token)
        id = yield from child(me, peer)
        share = yield (calls.NARROW, me.token, ("f0",), READ | GRANT)
        only = yield (calls.NARROW, share, (), READ)
        with pytest.raises(CapabilityError):
            yield (calls.GRANT, only, id)
        given = yield (calls.GRANT, share, id)
        less = yield (calls.NARROW, given, (), READ)
        assert len({share, only, given, less}) == 4
        with pytest.raises(Refused):
            yield (calls.NARROW, me.token, (5,), READ)
        yield (calls.REVOKE, given)
        late = yield (calls.GRANT, share, id)
        yield (calls.REVOKE, late)
        yield (calls.YIELD, 0)  # neither is accepted: both are dead
        with pytest.raises(CapabilityError):
            yield (calls.REVOKE, late)
        with pytest.raises(Refused):
            yield (calls.REVOKE, me.token)
        notes.append("done")
        yield (calls.END, id, me.token)

    machine, (notes,) = run(body)
    assert notes == ["done"], endings(machine)


def test_calls_capabilities_of_one_are_bounded() -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        made = []
        for _ in range(64):
            made.append((yield (calls.NARROW, me.token, (), READ)))
        with pytest.raises(NoSpace):
            yield (calls.NARROW, me.token, (), READ)
        with pytest.raises(NoSpace):
            yield (calls.GRANT, me.token, me.id)
        yield (calls.REVOKE, made[0])
        notes.append(len((yield (calls.NARROW, me.token, (), READ))))

    assert run(body)[1] == [[32]]


def test_calls_gifts_to_one_are_bounded() -> None:
    def flooder(me: Boot, notes: list[Any]) -> Program:
        sent = 0
        token = yield (calls.NARROW, me.token, (), READ | GRANT)
        try:
            while True:
                yield (calls.GRANT, token, 2050)
                sent += 1
        except NoSpace:
            notes.append(sent)
        yield (calls.SLEEP, 2 * 10**7)

    def victim(me: Boot, notes: list[Any]) -> Program:
        yield (calls.SLEEP, 10**7)
        notes.append(len((yield (calls.ACCEPT,))))

    _, notes = run(flooder, flooder, victim)
    assert notes == [[8], [8], [16]]
