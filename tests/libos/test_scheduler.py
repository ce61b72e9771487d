"""Schedulers as applications: shares, deadlines, levels, nesting, and clients that come and go."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from libos.scheduler import JOIN, LEAVE, MAX_CLIENTS, Scheduler, ask
from libos.sharing import EarliestDeadline, Feedback, Lottery, RoundRobin, Sharing, Stride
from xnfs import Boot, Costs, Machine, Program, calls

Q = Costs().quantum


def spin(me: Boot) -> Program:
    for _ in itertools.repeat(None):
        yield 5000


def sleepy(me: Boot) -> Program:
    """Sleeps most of the time, and notes how long it waited for the processor."""
    late: list[int] = me.args[0]
    for i in itertools.count(1):
        due = i * 7 * Q
        yield (calls.SLEEP, due)
        late.append((yield (calls.CLOCK,)) - due)
        yield Q // 20


def owner(sharing: Sharing, *clients: tuple[Any, ...]) -> Callable[[Boot], Program]:
    """A scheduler with clients (program, first, second, arguments); notes their ids in args[0]."""

    def program(me: Boot) -> Program:
        scheduler = Scheduler(me, sharing)
        yield from scheduler.start()
        for entry, first, second, *args in clients:
            id = yield (calls.SPAWN, entry, tuple(args), me.id, me.token)
            some = 0 if entry is spin else 8
            yield (calls.GIVE_QUOTA, me.id, id, some, 0, some, me.token)
            assert scheduler.join(id, first, second)
            me.args[0].append(id)
        yield from scheduler.run()

    return program


def run(
    sharing: Sharing, *clients: tuple[Any, ...], quanta: int, others: int = 0
) -> tuple[Machine, list[int]]:
    machine = Machine()
    ids: list[int] = []
    machine.boot(owner(sharing, *clients), ids)
    for _ in range(others):
        machine.boot(spin)
    machine.run(until=quanta * Q)
    return machine, ids


def shares(machine: Machine, ids: list[int]) -> list[float]:
    used = [machine.cycles(id) for id in ids]
    return [each / sum(used) for each in used]


def test_scheduler_stride_shares_by_tickets_at_every_moment() -> None:
    """3:2:1, within one slice, whenever one looks (Waldspurger and Weihl 1995)."""
    machine = Machine()
    ids: list[int] = []
    machine.boot(owner(Stride(), (spin, 3, 0), (spin, 2, 0), (spin, 1, 0)), ids)
    machine.boot(spin)
    for quanta in range(60, 600, 60):
        machine.run(until=quanta * Q)
        used = [machine.cycles(id) for id in ids]
        total = sum(used)
        for cycles, tickets in zip(used, (3, 2, 1), strict=True):
            assert abs(cycles - total * tickets / 6) < 1.2 * Q
    assert total > 265 * Q  # of half the machine; the scheduler itself takes little


def test_scheduler_stride_sleep_earns_nothing() -> None:
    """Who has slept for long does not catch up on what it did not use."""

    def late(me: Boot) -> Program:
        yield (calls.SLEEP, 200 * Q)
        yield from spin(me)

    machine, ids = run(Stride(), (spin, 1, 0), (late, 1, 0), quanta=400)
    assert abs(machine.cycles(ids[0]) - 300 * Q) < 5 * Q


def test_scheduler_lottery_shares_on_average() -> None:
    machine, ids = run(Lottery(seed=3), (spin, 3, 0), (spin, 1, 0), quanta=2000)
    assert 0.71 < shares(machine, ids)[0] < 0.79


def test_scheduler_round_robin_is_even() -> None:
    machine, ids = run(RoundRobin(), (spin, 1, 0), (spin, 1, 0), (spin, 1, 0), quanta=300)
    assert all(abs(share - 1 / 3) < 0.01 for share in shares(machine, ids))


def test_scheduler_feedback_serves_who_sleeps_first() -> None:
    """The interactive client waits less under feedback than in turn, and keeps its level."""
    late: dict[str, list[int]] = {"feedback": [], "round robin": []}
    feedback = Feedback()
    _, ids = run(feedback, *[(spin, 1, 0)] * 4, (sleepy, 1, 0, late["feedback"]), quanta=400)
    run(RoundRobin(), *[(spin, 1, 0)] * 4, (sleepy, 1, 0, late["round robin"]), quanta=400)
    middle = {name: sorted(times)[len(times) // 2] / Q for name, times in late.items()}
    assert middle["feedback"] < 1.1 < middle["round robin"]
    assert feedback.level(ids[-1]) == 0


def periodic(me: Boot) -> Program:
    """Wants `work` cycles in each period, and notes the deadlines that it missed."""
    work, period, missed = me.args
    start = yield (calls.CLOCK,)
    for i in itertools.count():
        yield work
        now = yield (calls.CLOCK,)
        missed.append(now > start + (i + 1) * period)
        yield (calls.SLEEP, start + (i + 1) * period)


@pytest.mark.parametrize(("sharing", "meets"), [(EarliestDeadline, True), (RoundRobin, False)])
def test_scheduler_earliest_deadline_meets_what_it_admits(
    sharing: Callable[[], Sharing], meets: bool
) -> None:
    missed: list[bool] = []
    work = (periodic, 5 * Q, 12 * Q, 5 * Q - 1000, 12 * Q, missed)
    ignored: list[bool] = []
    heavy = [(periodic, 10 * Q, 40 * Q, 10 * Q - 1000, 40 * Q, ignored) for _ in range(2)]
    run(sharing(), *heavy, work, quanta=600)
    assert len(missed) > 40
    assert (sum(missed) == 0) is meets


def test_scheduler_earliest_deadline_refuses_what_does_not_fit() -> None:
    sharing = EarliestDeadline(share=0.5)
    assert sharing.join(1, 25, 100, 0)
    assert not sharing.join(2, 26, 100, 0)
    assert sharing.join(3, 25, 100, 0)
    assert not sharing.join(4, 0, 100, 0)
    sharing.leave(1)
    assert sharing.join(5, 20, 100, 0)


def test_schedulers_nest() -> None:
    """Half of one scheduler's time goes to a scheduler, which shares it 3:1."""
    inner: list[int] = []
    outer: list[int] = []

    def child(me: Boot) -> Program:
        yield from owner(Stride(), (spin, 3, 0), (spin, 1, 0))(me)

    machine = Machine()
    machine.boot(owner(Stride(), (spin, 1, 0), (child, 1, 0, inner)), outer)
    machine.run(until=800 * Q)
    used = [machine.cycles(id) / (800 * Q) for id in (outer[0], *inner)]
    assert used[0] == pytest.approx(0.5, abs=0.03)
    assert used[1] == pytest.approx(0.375, abs=0.03)
    assert used[2] == pytest.approx(0.125, abs=0.03)


def test_scheduler_clients_join_and_leave_by_calls() -> None:
    """Opting in is the client's choice; its own positions stay its own."""

    def client(me: Boot) -> Program:
        scheduler, seen = me.args
        assert (yield from ask(me, scheduler, JOIN, 5))
        assert not (yield from ask(me, scheduler, JOIN, 5))
        start = me.tables.cycles(me.id)
        yield 40 * Q
        seen.append((yield (calls.CLOCK,)))
        assert (yield from ask(me, scheduler, LEAVE))
        assert not (yield from ask(me, scheduler, LEAVE))
        yield 20 * Q
        seen.append((yield (calls.CLOCK,)))
        return start

    machine = Machine()
    seen: list[int] = []
    ids: list[int] = []
    scheduler = machine.boot(owner(Stride(), (spin, 1, 0)), ids, slots=3)
    machine.run(until=8 * Q)
    client_id = machine.boot(client, scheduler, seen)
    machine.run(until=400 * Q)
    assert [id for id, why, *_ in machine.ended if not why] == [client_id]
    with_both, alone = seen[0] - 8 * Q, seen[1] - seen[0]
    assert 44 * Q < with_both < 52 * Q  # one slice of four is its own, 5/6 of three are given
    assert 72 * Q < alone < 88 * Q


def test_scheduler_sleeps_while_nobody_can_run() -> None:
    """No time passes for a scheduler whose clients sleep."""

    def sleeper(me: Boot) -> Program:
        yield (calls.SLEEP, 1000 * Q)
        return 1

    machine = Machine()
    ids: list[int] = []
    scheduler = machine.boot(owner(RoundRobin(), (sleeper, 1, 0), (sleeper, 1, 0)), ids)
    machine.run(until=990 * Q)
    assert machine.cycles(scheduler) < Q
    assert machine.run()
    assert [status for _, _, status, *_ in machine.ended] == [1, 1, 0]


def test_scheduler_takes_as_many_clients_as_it_can_watch() -> None:
    def program(me: Boot) -> Program:
        scheduler = Scheduler(me, RoundRobin())
        yield from scheduler.start()
        taken = [scheduler.join(1000 + i) for i in range(MAX_CLIENTS + 1)]
        return sum(taken)

    machine = Machine()
    machine.boot(program)
    assert machine.run()
    assert machine.ended[0][1:3] == ("", MAX_CLIENTS)
