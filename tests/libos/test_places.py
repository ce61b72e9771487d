"""Where positions lie: runs for throughput, equal distances for deadlines."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from libos.places import run, spread, take
from xnfs import Boot, Costs, Exposed, Machine, Program, calls

Q = Costs().quantum
Choose = Callable[[Exposed, int, int], list[int]]


def spin(me: Boot) -> Program:
    for _ in itertools.repeat(None):
        yield 1000


def chooser(me: Boot) -> Program:
    """Takes four positions as it likes, gives its first one back, and computes."""
    choose, seen = me.args
    (first,) = [p for p in range(me.tables.slots) if me.tables.slot_owner(0, p) == me.id]
    positions = choose(me.tables, 0, 4)
    seen.append(positions)
    assert (yield from take(me, me.id, 0, positions))
    yield (calls.SLOT_FREE, 0, first, me.token)
    yield from spin(me)


def switches(choose: Choose) -> tuple[list[int], int]:
    """Among four that compute: the positions, and switches in 80 slices."""
    machine = Machine(slots=32)
    for _ in range(4):
        machine.boot(spin)
    seen: list[list[int]] = []
    machine.boot(chooser, choose, seen)
    machine.run(until=10 * Q)
    before = machine.counters()["switches"]
    machine.run(until=90 * Q)
    return seen[0], machine.counters()["switches"] - before


def test_places_a_run_is_one_switch() -> None:
    positions, few = switches(run)
    assert positions == [5, 6, 7, 8]
    assert 45 <= few <= 55  # five switches for eight slices

    positions, many = switches(spread)
    assert positions == [5, 8, 16, 24]
    assert few <= many <= 82


def test_places_spread_bounds_the_time_between_slices() -> None:
    """Who has a quarter of the vector at equal distances is served at equal intervals."""

    def worst(choose: Choose) -> int:
        machine = Machine(slots=8)
        gaps: list[int] = []

        def program(me: Boot) -> Program:
            (first,) = [p for p in range(8) if me.tables.slot_owner(0, p) == me.id]
            yield from take(me, me.id, 0, choose(me.tables, 0, 2))
            yield (calls.SLOT_FREE, 0, first, me.token)
            yield (calls.SLEEP, 5 * Q)
            last = yield (calls.CLOCK,)
            for _ in range(100):
                yield (calls.YIELD, 0)
                now = yield (calls.CLOCK,)
                gaps.append(now - last)
                last = now

        machine.boot(program)
        machine.run(until=Q // 2)
        for _ in range(5):
            machine.boot(spin)
        machine.run(until=200 * Q)
        return max(gaps) // Q

    assert worst(spread) < worst(run)


def test_places_all_or_none() -> None:
    def program(me: Boot) -> Program:
        assert not (yield from take(me, me.id, 0, [5, 6, 1]))  # 1 is another's
        assert not (yield from take(me, me.id, 0, []))
        return sum(me.tables.slot_owner(0, p) == me.id for p in range(8))

    machine = Machine(slots=8)
    machine.boot(program)
    machine.boot(spin)
    machine.run(until=3 * Q)
    assert machine.ended[0][1:3] == ("", 1)


def test_places_when_there_is_no_room() -> None:
    machine = Machine(slots=4)
    for _ in range(3):
        machine.boot(spin)
    assert run(machine.tables, 0, 2) == spread(machine.tables, 0, 2) == []
    assert run(machine.tables, 0, 1) == spread(machine.tables, 0, 1) == [3]


def test_places_a_run_has_no_gaps() -> None:
    """What is taken in the middle divides it."""
    machine = Machine(slots=8)
    id = machine.boot(spin, slots=8)
    for position in (0, 1, 3, 4, 5, 7):
        machine.slices.take(machine.processors[0], position)
    assert {p for p in range(8) if machine.tables.slot_owner(0, p) == id} == {2, 6}
    assert run(machine.tables, 0, 3) == [3, 4, 5]
    assert run(machine.tables, 0, 4) == []
