"""Wakeup predicates: what they see, when they are looked at, what they can't do."""

from __future__ import annotations

import itertools

import pytest

from xnfs import READ, WRITE, Boot, Costs, Machine, Program, Refused, XnError, calls

Q = Costs().quantum
WORD = "def ready(kernel, a, b, c, d, args):\n    return u64(a, 0) == args[0]\n"
CLOCK = "def ready(kernel, a, b, c, d, args):\n    return u64(kernel, 0) >= args[0]\n"


def spin(me: Boot) -> Program:
    for _ in itertools.repeat(None):
        yield 1000


def frame_of(me: Boot) -> Program:
    frame = yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
    yield (calls.BIND, 0, frame, READ | WRITE, me.token)
    return frame


def source(length: int) -> str:
    """A predicate that says whether args has at least so many integers, safely."""
    return f"def ready(kernel, a, b, c, d, args):\n    return len(args) >= {length}\n"


GUARDED_WORD = """\
def ready(kernel, a, b, c, d, args):
    if len(args) < 1:
        return 0
    return u64(a, 0) == args[0]
"""
GUARDED_CLOCK = """\
def ready(kernel, a, b, c, d, args):
    if len(args) < 1:
        return 0
    return u64(kernel, 0) >= args[0]
"""
EITHER = """\
def ready(kernel, a, b, c, d, args):
    if len(args) < 2:
        return 0
    return u64(a, 0) == args[0] or u64(kernel, 0) >= args[1]
"""


@pytest.mark.parametrize("processors", [1, 2])
def test_predicates_wake_for_a_word_that_another_stores(processors: int) -> None:
    """The waiting one runs at its first turn after the word has changed, and not before."""
    seen: list[tuple[str, int]] = []

    def waiter(me: Boot) -> Program:
        frame, token = me.args
        number = yield (calls.PREDICATE, GUARDED_WORD, (frame,), token)
        found = yield (calls.WAIT, number, (7,), 0)
        seen.append((f"woken {found}", (yield (calls.CLOCK,))))

    def storer(me: Boot) -> Program:
        frame = yield from frame_of(me)
        id = yield (calls.SPAWN, waiter, (frame, me.token), me.id, me.token)
        yield (calls.GIVE_QUOTA, me.id, id, 0, 1, 0, me.token)
        yield (calls.SLOT_ALLOC, id, processors - 1, calls.ANY, me.token)
        for value in range(1, 8):
            yield 3 * Q
            yield (calls.STORE, 0, value)
        seen.append(("stored", (yield (calls.CLOCK,))))
        yield 3 * Q
        return me.tables.state(id)

    machine = Machine(processors=processors)
    machine.boot(storer)
    assert machine.run()
    assert [what for what, _ in seen] == ["stored", "woken True"]
    assert seen[1][1] - seen[0][1] < 1.1 * Q
    assert machine.counters()["predicate_looks"] > 10


def test_predicates_see_the_clock_while_everybody_sleeps() -> None:
    def waiter(me: Boot) -> Program:
        number = yield (calls.PREDICATE, GUARDED_CLOCK, (), me.token)
        found = yield (calls.WAIT, number, (100 * Q,), 0)
        assert found
        return (yield (calls.CLOCK,))

    machine = Machine()
    machine.boot(waiter)
    assert machine.run()
    assert 100 * Q <= machine.ended[0][2] < 101.1 * Q


def test_predicates_combine_conditions() -> None:
    """Packet or timeout, say: whichever comes first."""

    def waiter(me: Boot) -> Program:
        frame = yield from frame_of(me)
        number = yield (calls.PREDICATE, EITHER, (frame,), me.token)
        yield (calls.WAIT, number, (1, 5 * Q), 0)
        by_time = yield (calls.CLOCK,)
        yield (calls.STORE, 0, 1)
        yield (calls.WAIT, number, (1, 50 * Q), 0)
        return ((yield (calls.CLOCK,)) - by_time) < Q and by_time >= 5 * Q

    machine = Machine()
    machine.boot(waiter)
    machine.boot(spin)
    machine.run(until=60 * Q)
    assert machine.ended[0][1:3] == ("", 0)


def test_predicates_that_nothing_can_fulfil_leave_the_machine_idle() -> None:
    def waiter(me: Boot) -> Program:
        frame = yield from frame_of(me)
        number = yield (calls.PREDICATE, GUARDED_WORD, (frame,), me.token)
        yield (calls.WAIT, number, (9,), 0)

    machine = Machine()
    machine.boot(waiter)
    assert machine.run()
    assert not machine.ended
    assert machine.now < Q


def test_predicates_wait_ends_at_its_time_or_when_woken() -> None:
    def waiter(me: Boot) -> Program:
        frame = yield from frame_of(me)
        number = yield (calls.PREDICATE, GUARDED_WORD, (frame,), me.token)
        found = yield (calls.WAIT, number, (9,), 10 * Q)
        assert not found
        assert (yield (calls.CLOCK,)) >= 10 * Q
        found = yield (calls.WAIT, number, (9,), 0)
        assert not found
        return (yield (calls.CLOCK,))

    def waker(me: Boot) -> Program:
        yield (calls.SLEEP, 20 * Q)
        (id,) = me.args
        yield (calls.WAKE, id, machine.environment(id).token)

    machine = Machine()
    machine.boot(waker, machine.boot(waiter))
    assert machine.run()
    assert 20 * Q <= machine.ended[1][2] < 21 * Q


def test_predicates_end_with_the_frames_that_they_see() -> None:
    """A frame that is freed takes the predicate along; a wait for it ends with an error."""
    told: list[str] = []

    def waiter(me: Boot) -> Program:
        frame, token = me.args
        number = yield (calls.PREDICATE, GUARDED_WORD, (frame,), token)
        try:
            yield (calls.WAIT, number, (7,), 0)
        except XnError as error:
            told.append(str(error))
        with pytest.raises(Refused):
            yield (calls.WAIT, number, (7,), 0)

    def owner(me: Boot) -> Program:
        frame = yield from frame_of(me)
        id = yield (calls.SPAWN, waiter, (frame, me.token), me.id, me.token)
        yield (calls.GIVE_QUOTA, me.id, id, 0, 1, 0, me.token)
        yield (calls.SLOT_ALLOC, id, 0, calls.ANY, me.token)
        yield (calls.SLEEP, 5 * Q)
        yield (calls.FRAME_FREE, frame, me.token)

    machine = Machine()
    machine.boot(owner)
    assert machine.run()
    assert [why for _, why, *_ in machine.ended] == ["", ""]
    assert told == ["frame 0 of the predicate was lost"]


@pytest.mark.parametrize(
    "text",
    [
        WORD,  # args may be empty
        CLOCK,
        "def ready(kernel, a, b, c, d, args):\n    return u64(a, 4090)\n",
        "def ready(kernel, a, b, c, d, args):\n    return 2\n",
        "def ready(kernel):\n    return 1\n",
        "def ready(kernel, a, b, c, d, args):\n"
        "    n = 0\n    for i in range(3000):\n        n = i\n    return 0\n",
        "",
    ],
)
def test_predicates_that_do_not_verify_are_refused(text: str) -> None:
    def program(me: Boot) -> Program:
        try:
            yield (calls.PREDICATE, text, (), me.token)
        except XnError:
            return 1

    machine = Machine()
    machine.boot(program)
    assert machine.run()
    assert machine.ended[0][1:3] == ("", 1)


def test_predicates_see_no_frame_without_a_capability() -> None:
    def program(me: Boot) -> Program:
        for frames in ((me.args[0],), (4711,), (0,) * 5, ("0",)):
            with pytest.raises(XnError):
                yield (calls.PREDICATE, source(0), frames, me.token)
        return 1

    def owner(me: Boot) -> Program:
        yield from frame_of(me)
        yield (calls.SLEEP, 0)

    machine = Machine()
    machine.boot(owner)
    machine.run()
    machine.boot(program, 0)
    assert machine.run()
    assert machine.ended[0][1:3] == ("", 1)


def test_predicates_cost_their_owner_time() -> None:
    """Looking is paid by who waits, by the worst case that the verifier proved."""

    def waiter(me: Boot) -> Program:
        frame = yield from frame_of(me)
        number = yield (calls.PREDICATE, GUARDED_WORD, (frame,), me.token)
        yield (calls.WAIT, number, (9,), 0)

    machine = Machine()
    id = machine.boot(waiter)
    machine.boot(spin)
    machine.run(until=3 * Q)
    before, looks = machine.cycles(id), machine.predicates.looks
    machine.run(until=100 * Q)
    more = machine.predicates.looks - looks
    assert more > 90
    assert (machine.cycles(id) - before) % more == 0
    assert machine.cycles(id) > before
