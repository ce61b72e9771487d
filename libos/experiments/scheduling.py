"""Schedulers that are applications: shares, feedback, gangs, and many side by side."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from libos.experiments.result import Cell, Result
from libos.gang import conduct
from libos.scheduler import Scheduler
from libos.sharing import Feedback, Lottery, RoundRobin, Sharing, Stride
from xnfs import READ, WRITE, Boot, Costs, Machine, Program, calls

SLICE = Costs().quantum


def computing(me: Boot) -> Program:
    """Computes for ever."""
    for _ in itertools.repeat(None):
        yield 5000


def scheduled(sharing: Sharing, *clients: tuple[Any, ...]) -> Callable[[Boot], Program]:
    """A scheduler with clients (program, tickets, arguments ...); their ids go to `args[0]`."""

    def program(me: Boot) -> Program:
        scheduler = Scheduler(me, sharing)
        yield from scheduler.start()
        for entry, tickets, *args in clients:
            id = yield (calls.SPAWN, entry, tuple(args), me.id, me.token)
            scheduler.join(id, tickets)
            me.args[0].append(id)
        yield from scheduler.run()

    return program


def shares() -> Result:
    """3:2:1 over time, under stride and lottery scheduling."""
    machines = []
    for sharing in (Stride(), Lottery(seed=1)):
        machine, ids = Machine(), list[int]()
        three = (computing, 3), (computing, 2), (computing, 1)
        machine.boot(scheduled(sharing, *three), ids)
        machines.append((machine, ids))
    rows = []
    for slices in (6, 12, 24, 48, 96, 192, 384):
        row: list[Cell] = [slices]
        for machine, ids in machines:
            machine.run(until=slices * SLICE)
            row += [machine.cycles(id) / SLICE for id in ids]
        rows.append(tuple(row))
    names = tuple(f"{policy} {n}" for policy in ("stride", "lottery") for n in (3, 2, 1))
    return Result(
        "Can a process share its slices 3:2:1? Slices used by each client, as time passes.",
        ("slices", *names),
        tuple(rows),
        names,
    )


def _interactive(me: Boot) -> Program:
    """Waits for a key, computes for a moment, and notes how late the answer was."""
    period, late = me.args
    for i in itertools.count(1):
        yield (calls.SLEEP, i * period)
        yield SLICE // 20
        late.append((yield (calls.CLOCK,)) - i * period)


def feedback() -> Result:
    """Interactive and batch jobs under one scheduler process."""
    rows = []
    total = 1500 * SLICE
    policies: tuple[tuple[str, Sharing], ...] = (
        ("feedback", Feedback()),
        ("round robin", RoundRobin()),
    )
    for name, sharing in policies:
        late: list[int] = []
        ids: list[int] = []
        machine = Machine()
        keys = [(_interactive, 1, 23 * SLICE + i * 1717, late) for i in range(4)]
        machine.boot(scheduled(sharing, *keys, *[(computing, 1)] * 6), ids)
        machine.run(until=total)
        late.sort()
        batch = 100 * sum(machine.cycles(id) for id in ids[4:]) / total
        middle, tail = late[len(late) // 2], late[len(late) * 95 // 100]
        rows.append((name, middle / SLICE, tail / SLICE, batch))
    return Result(
        "Does a scheduler on top of slices tell interactive jobs from batch jobs? 4 and 6 of them.",
        ("policy", "median answer, slices", "95 %", "batch gets %"),
        tuple(rows),
        ("median answer, slices", "95 %"),
    )


def _member(me: Boot) -> Program:
    """One of a gang: computes, then spins at a barrier in shared memory."""
    frame, token, size, passed = me.args
    yield (calls.PIN, 1, frame, READ | WRITE, token)
    word = 1 << 12
    for turn in itertools.count(1):
        yield 6000
        yield (calls.STORE, word, (yield (calls.LOAD, word)) + 1)
        while (yield (calls.LOAD, word)) < turn * size:
            yield 400
        passed[0] += 1


def _barriers(together: bool, slices: int) -> float:
    """Barriers that two gangs of two pass on two processors, for each slice."""
    machine = Machine(processors=2)
    passed = [0]

    def parent(me: Boot) -> Program:
        gangs = []
        for gang in range(2):
            frame = yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
            members = []
            for processor in range(2):
                args = (frame, me.token, 2, passed)
                member = yield (calls.SPAWN, _member, args, me.id, me.token)
                if not together:  # a slot of its own; the other processor goes round otherwise
                    yield (calls.GIVE_QUOTA, me.id, member, 0, 1, 0, me.token)
                    position = 10 + (gang + processor) % 2
                    yield (calls.SLOT_ALLOC, member, processor, position, me.token)
                members.append(member)
            gangs.append(members)
        if together:
            yield from conduct(me, gangs, SLICE)
        yield (calls.SLEEP, 0)

    machine.boot(parent)
    machine.run(until=slices * SLICE)
    return passed[0] / 2 / slices


def gang() -> Result:
    """Gangs against independent slots."""
    return Result(
        "Must threads that meet at barriers run together? Two programs of two, two processors.",
        ("schedule", "barriers a slice"),
        (
            ("gang", _barriers(together=True, slices=60)),
            ("independent", _barriers(together=False, slices=60)),
        ),
        ("barriers a slice",),
    )


def tenants() -> Result:
    """Many library operating systems, each with its own idea of scheduling."""
    machine = Machine()
    groups: dict[str, list[int]] = {}
    kinds: tuple[tuple[str, Sharing], ...] = (
        ("stride 3:1", Stride()),
        ("lottery 3:1", Lottery(seed=2)),
        ("feedback", Feedback()),
        ("round robin", RoundRobin()),
    )
    for name, sharing in kinds:
        groups[name] = []
        machine.boot(scheduled(sharing, (computing, 3), (computing, 1)), groups[name])
    alone = machine.boot(computing)
    total = 1000 * SLICE
    machine.run(until=total)
    rows: list[tuple[Cell, ...]] = []
    for name, ids in groups.items():
        first, second = (100 * machine.cycles(id) / total for id in ids)
        rows.append((name, first + second, first, second))
    rows.append(("none", 100 * machine.cycles(alone) / total, "", ""))
    return Result(
        "Does what a tenant does with its slot change what the others get? Five of them.",
        ("scheduler inside", "% of the processor", "first client", "second client"),
        tuple(rows),
        ("% of the processor",),
    )
