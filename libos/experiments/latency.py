"""Interactive latency: slots, predicates, and the next free slot."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any, Final

from libos.experiments.result import Cell, Result
from libos.experiments.scheduling import SLICE, computing
from xnfs import READ, WRITE, Boot, Machine, Program, calls

POLLING, PREDICATE, WOKEN, SOON = "polling", "predicate", "woken", "next free slot"
_WORD: Final = """\
def ready(kernel, a, b, c, d, args):
    if len(args) < 1:
        return 0
    return u64(a, 0) == args[0]
"""


def _boot_at(machine: Machine, position: int, program: Callable[..., Program], *args: Any) -> int:
    """A program with one position, by number."""

    def starting(me: Boot) -> Program:
        return (yield from program(me))

    id = machine.boot(starting, *args, slots=0)
    env = machine.environment(id)
    machine.slices.slot_alloc(machine.processors[0], env, id, 0, position, env.token)
    return id


def _typist(me: Boot) -> Program:
    """Waits until a device has stored the next number in its frame, in one of four ways."""
    way, frames, late = me.args
    frame = yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
    yield (calls.PIN, 1, frame, READ | WRITE, me.token)
    frames.append(frame)
    number = yield (calls.PREDICATE, _WORD, (frame,), me.token)
    yield (calls.SOON, int(way == SOON))
    for i in itertools.count(1):
        if way == PREDICATE:
            yield (calls.WAIT, number, (i,), 0)
        while (yield (calls.LOAD, 1 << 12)) < i:
            yield (calls.YIELD, 0) if way == POLLING else (calls.SLEEP, 0)
        late.append(((yield (calls.CLOCK,)), i))
        yield SLICE // 20


def _median(way: str, others: int) -> float:
    """Median latency, in slices."""
    machine = Machine(slots=4 * (others + 1))
    for i in range(others):
        _boot_at(machine, 4 * i, computing)
    frames: list[int] = []
    late: list[tuple[int, int]] = []
    typist = _boot_at(machine, 4 * others, _typist, way, frames, late)
    machine.run(until=SLICE * (others + 2))
    start = machine.now
    rng = random.Random(others)
    gap = (2 * others + 12) * SLICE
    times = [start + gap * (i + 1) + rng.randrange(gap // 2) for i in range(60)]

    def store(time: int, value: int) -> None:
        """What the device does: the word, by direct access to memory, and an interrupt."""
        machine.frames.view(frames[0])[:8] = value.to_bytes(8, "little")
        if way in (WOKEN, SOON):
            machine.slices.wake(machine.environment(typist), time)

    for i, time in enumerate(times):
        machine.at(time, store, i + 1)
    machine.run(until=times[-1] + gap)
    waits = sorted(when - times[i - 1] for when, i in late)
    return waits[len(waits) // 2] / SLICE


def latency() -> Result:
    """Against the number of runnable processes."""
    ways = (POLLING, PREDICATE, WOKEN, SOON)
    rows = []
    for others in (1, 2, 4, 8, 16, 32):
        row: tuple[Cell, ...] = (others, *(_median(way, others) for way in ways))
        rows.append(row)
    return Result(
        "How late is an interactive process, among others that compute? Medians, in slices.",
        ("others", *ways),
        tuple(rows),
        ways,
        log=True,
    )
