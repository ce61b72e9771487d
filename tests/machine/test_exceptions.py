"""Exceptions: three registers saved, a jump, a way back without the kernel; what goes wrong
ends.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest

from libos.signals import Signals
from tests.machine.kit import RW, child, endings, frame_at, handle, run, until
from xnfs import READ, Boot, Costs, Machine, Program, calls
from xnfs.cpu.exceptions import LEVELS, MAX_NESTED


def test_exception_saves_what_the_hardware_knows() -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        def handler(cause: int, address: int, place: int) -> Program:
            yield (calls.BIND, 9, area, READ, me.token)
            notes.append(struct.unpack("<7Q", (yield (calls.READ_BYTES, 9 << 12, 56))))
            yield (calls.SET_REGISTERS, 0, 0, 0)
            yield (calls.BIND, 3, frame, RW, me.token)
            return calls.RETRY

        area = yield from handle(me, handler)
        frame = yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
        yield (calls.SET_REGISTERS, 11, 22, 33)
        yield (calls.STORE, 0x3008, 5)
        notes.append((yield (calls.REGISTERS,)))
        notes.append((yield (calls.LOAD, 0x3008)))
        notes.append((yield (calls.LOAD, 0x3000)))

    _, (notes,) = run(body)
    # one level in use; cause, address, the sixth request, the registers
    assert notes == [(1, calls.TLB_STORE, 0x3008, 6, 11, 22, 33), (11, 22, 33), 5, 0]


def test_exception_ends_without_the_kernel() -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        def handler(cause: int, address: int, place: int) -> Program:
            yield 1
            return (calls.SKIP, 7)

        yield from handle(me, handler)
        before = yield (calls.CLOCK,)
        for _ in range(100):
            notes.append((yield (calls.LOAD, 0x5000)))
        notes.append((yield (calls.CLOCK,)) - before)

    machine, (notes,) = run(body)
    counts = machine.counters()
    assert notes[:100] == [7] * 100
    assert counts["exceptions"] == counts["resumed"] == 100
    assert counts["crossings"] == 100 + 3  # one for each exception, and three calls at the start
    costs = Costs()
    assert notes[100] == 100 * (costs.access + costs.trap + 1 + costs.resume) + costs.instruction


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        (0x1001, calls.ADDRESS),
        (-8, calls.ADDRESS),
        (1 << 48, calls.ADDRESS),
        (1 << 200, calls.ADDRESS),
        (0x5000, calls.TLB_LOAD),
    ],
)
def test_exception_causes(address: int, cause: int) -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        def handler(cause: int, at: int, place: int) -> Program:
            yield 1
            notes.append((cause, at))
            return (calls.UNWIND, LookupError("none"))

        yield from handle(me, handler)
        yield from frame_at(me, 1)
        try:
            yield (calls.LOAD, address)
        except LookupError:
            notes.append("unwound")

    _, (notes,) = run(body)
    assert notes == [(cause, address), "unwound"]


def test_exception_of_a_store_to_what_is_only_read() -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        def handler(cause: int, at: int, place: int) -> Program:
            notes.append(cause)
            yield (calls.BIND, 1, frame, RW, me.token)
            return calls.RETRY

        yield from handle(me, handler)
        frame = yield from frame_at(me, 1, READ)
        yield (calls.STORE, 0x1000, 4)
        yield (calls.WRITE_BYTES, 0x1008, b"ab")
        notes.append((yield (calls.LOAD, 0x1000)))

    _, (notes,) = run(body)
    assert notes == [calls.PROTECTION, 4]


def test_exception_in_a_handler_nests() -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        frames = {}

        def handler(cause: int, address: int, place: int) -> Program:
            page = address >> 12
            notes.append(page)
            if page < 5:  # the handler misses itself, one page on
                notes.append((yield (calls.LOAD, (page + 1) << 12)))
            frames[page] = yield from frame_at(me, page)
            yield (calls.STORE, page << 12, 100 + page)
            return calls.RETRY

        yield from handle(me, handler)
        notes.append((yield (calls.LOAD, 0x1000)))

    machine, (notes,) = run(body)
    assert notes == [1, 2, 3, 4, 5, 105, 104, 103, 102, 101]
    assert endings(machine) == [""]


def test_exception_nested_too_deep_ends_it() -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        def handler(cause: int, address: int, place: int) -> Program:
            notes.append(address)
            yield (calls.LOAD, address + 4096)

        yield from handle(me, handler)
        yield (calls.LOAD, 0)

    machine, (notes,) = run(body)
    assert len(notes) == LEVELS
    assert endings(machine) == [f"exceptions nested {LEVELS} deep"]


def test_exception_level_is_the_applications_own() -> None:
    """It lies in its memory; spoiling it harms nobody else."""

    def body(me: Boot, notes: list[Any]) -> Program:
        def handler(cause: int, address: int, place: int) -> Program:
            yield (calls.STORE, 9 << 12, 1 << 63)
            return (calls.SKIP, 1)

        area = yield from handle(me, handler)
        yield (calls.BIND, 9, area, RW, me.token)
        notes.append((yield (calls.LOAD, 0)))
        notes.append((yield (calls.LOAD, 0)))

    machine, (notes,) = run(body)
    assert notes == [1]
    assert endings(machine) == [f"exceptions nested {1 << 63} deep"]


def test_exception_without_handler_or_area_ends_only_its_own() -> None:
    def lost(me: Boot, notes: list[Any]) -> Program:
        yield (calls.LOAD, 0)

    def no_area(me: Boot, notes: list[Any]) -> Program:
        yield (calls.HANDLER, calls.EXCEPTION, lambda c, a, p: iter(()))
        yield (calls.LOAD, 8)

    def area_given_up(me: Boot, notes: list[Any]) -> Program:
        frame = yield from handle(me, lambda c, a, p: iter(()))  # type: ignore[arg-type,return-value]
        yield (calls.FRAME_FREE, frame, me.token)
        yield (calls.LOAD, 16)

    def fine(me: Boot, notes: list[Any]) -> Program:
        yield from frame_at(me, 0)
        for i in range(1000):
            yield (calls.STORE, 0, i)
        notes.append((yield (calls.LOAD, 0)))

    machine, notes = run(lost, no_area, area_given_up, fine)
    assert endings(machine) == [
        "exception 1 at 0x0 and no handler",
        "exception 1 at 0x8 and no handler",
        "exception 1 at 0x10 and no handler",
        "",
    ]
    assert notes[3] == [999]


@pytest.mark.parametrize("how", ["raises", "raises at once", "is no generator", "exits"])
def test_exception_handler_that_fails_ends_it(how: str) -> None:
    def raising(cause: int, address: int, place: int) -> Program:
        yield 1
        raise KeyError("handler")

    def at_once(cause: int, address: int, place: int) -> Program:
        raise KeyError("handler")

    def exits(cause: int, address: int, place: int) -> Program:
        yield 1
        raise SystemExit

    handlers: dict[str, Any] = {
        "raises": raising,
        "raises at once": at_once,
        "is no generator": lambda c, a, p: 5,
        "exits": exits,
    }

    def body(me: Boot, notes: list[Any]) -> Program:
        yield from handle(me, handlers[how])
        yield (calls.LOAD, 0)
        notes.append("went on")

    machine, (notes,) = run(body)
    assert notes == []
    assert endings(machine)[0].startswith("a handler")
    assert machine.frames.free_frames == machine.frames.count


def test_upcall_interrupts_a_sleep_that_goes_on() -> None:
    def sleeper(me: Boot) -> Program:
        seen: list[int] = []

        def called(value: int) -> Program:
            seen.append((yield (calls.CLOCK,)))

        yield (calls.HANDLER, calls.CALLED, called)
        yield (calls.SLEEP, 5_000_000)
        now = yield (calls.CLOCK,)
        assert len(seen) == 1
        assert seen[0] < 2_000_000 < 5_000_000 <= now
        yield (calls.SLEEP, 0)
        return 3

    def body(me: Boot, notes: list[Any]) -> Program:
        id = yield from child(me, sleeper)
        yield from until(me, id, calls.ASLEEP)
        machine.exceptions.post(machine.environment(id), calls.CALLED, 7)
        yield (calls.SLEEP, 6_000_000)
        assert me.tables.state(id) == calls.ASLEEP
        machine.exceptions.post(machine.environment(id), calls.CALLED, 7)
        yield (calls.WAKE, id, me.token)  # a real one, while the upcall is on its way
        yield from until(me, id, calls.ENDED)
        notes.append(me.tables.status(id))

    machine = Machine()
    notes: list[Any] = []
    machine.boot(lambda me: body(me, notes))
    machine.run(until=10**9)
    assert notes == [3]


def test_upcalls_wait_when_too_many_are_inside_of_each_other() -> None:
    depths = [0]

    def body(me: Boot) -> Program:
        def called(depth: int) -> Program:
            depths.append(depth)
            machine.exceptions.post(machine.environment(me.id), calls.CALLED, depth + 1)
            yield 100
            yield 100

        yield (calls.HANDLER, calls.CALLED, called)
        machine.exceptions.post(machine.environment(me.id), calls.CALLED, 1)
        yield 100

    machine = Machine()
    id = machine.boot(body)
    machine.run(until=10**5)
    assert depths[: MAX_NESTED + 1] == list(range(MAX_NESTED + 1))
    assert len(machine.environment(id).stack or ()) == MAX_NESTED


def test_exception_path_against_signals() -> None:
    """The exokernel's path against a monolithic one on the same machine, the same handler."""

    def user(cause: int, address: int, place: int = 0) -> Program:
        yield 1
        return (calls.SKIP, 0)

    def exokernel(me: Boot, notes: list[Any]) -> Program:
        yield from handle(me, user)
        yield from measure(notes)

    def monolithic(me: Boot, notes: list[Any]) -> Program:
        frame = yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
        signals = Signals(me, user)
        yield from signals.start(frame)
        yield from measure(notes)
        notes.append((signals.crossings, signals.words))

    def measure(notes: list[Any]) -> Program:
        before = yield (calls.CLOCK,)
        for _ in range(10):
            yield (calls.LOAD, 0x1000)
        notes.append(((yield (calls.CLOCK,)) - before) // 10)

    _, (one,) = run(exokernel)
    _, (other,) = run(monolithic)
    assert one[0] == 26  # 18 in, 6 back, the load, the handler
    assert other[0] > 12 * one[0]
    assert other[1] == (20, 10 * 312)
