"""Positions taken back: asked for, given up by choice, or taken."""

from __future__ import annotations

import pytest

from xnfs import Boot, Costs, Machine, Program, Refused, XnError, calls

Q = Costs().quantum


def positions(machine: Machine, id: int) -> list[int]:
    """Which the exposed table says it has, on the first processor."""
    return [i for i in range(machine.tables.slots) if machine.tables.slot_owner(0, i) == id]


def holder(me: Boot) -> Program:
    """Has six positions and answers as told."""
    answer, style, seen = me.args

    def asked(slots: int, deadline: int) -> Program:
        seen.append(("asked", slots))
        if answer == "gives":
            for position in (1, 3, 5)[:slots]:
                yield (calls.SLOT_FREE, 0, position, me.token)

    def taken() -> Program:
        seen.append(("taken",))
        yield 1

    yield (calls.HANDLER, calls.SLOTS_REVOKED, asked)
    yield (calls.HANDLER, calls.REPOSSESSED, taken)
    yield (calls.REVOCATION, style)
    while True:
        yield (calls.SLEEP, 0)


def creditor(me: Boot) -> Program:
    """Asks, waits, and allocates what it has got."""
    debtor, token, count = me.args
    at_once = yield (calls.REVOKE_SLOTS, debtor, count, 10 * Q, me.id, token)
    if at_once < count:
        yield (calls.SLEEP, 0)
    for _ in range(count):
        yield (calls.SLOT_ALLOC, me.id, 0, calls.ANY, me.token)
    now = yield (calls.CLOCK,)
    yield (calls.SLEEP, 100 * Q)
    return now // Q


@pytest.mark.parametrize(
    ("answer", "style", "told", "left", "late"),
    [
        ("gives", calls.COOPERATIVE, [("asked", 3)], [0, 2, 4], False),
        ("keeps", calls.COOPERATIVE, [("asked", 3), ("taken",)], [0, 1, 2], True),
        ("gives", calls.NOTIFY, [("taken",)], [0, 1, 2], False),
        ("gives", calls.TRANSPARENT, [], [0, 1, 2], False),
    ],
)
def test_reclaim_styles(
    answer: str, style: int, told: list[tuple[object, ...]], left: list[int], late: bool
) -> None:
    machine = Machine(slots=10)
    seen: list[tuple[object, ...]] = []
    debtor = machine.boot(holder, answer, style, seen, slots=6)
    machine.run()
    machine.environment(debtor).slots = 0
    other = machine.boot(creditor, debtor, machine.environment(debtor).token, 3, slots=1)
    machine.environment(other).slots = 0
    machine.run(until=50 * Q)
    assert seen == told
    assert positions(machine, debtor) == left
    assert len(positions(machine, other)) == 4
    assert machine.run()
    assert (machine.ended[-1][2] >= 10) is late


def test_reclaim_unused_quota_goes_at_once_and_nothing_is_made() -> None:
    machine = Machine(slots=10)
    debtor = machine.boot(holder, "keeps", calls.TRANSPARENT, [], slots=2)
    machine.run()
    machine.environment(debtor).slots = 5
    other = machine.boot(creditor, debtor, machine.environment(debtor).token, 3, slots=1)
    machine.environment(other).slots = 0
    machine.run(until=20 * Q)
    assert positions(machine, debtor) == [0, 1]
    assert machine.environment(debtor).slots == 2
    assert machine.environment(other).slots == 0


def test_reclaim_wants_the_right_and_a_possible_number() -> None:
    def program(me: Boot) -> Program:
        (other,) = me.args
        for request in (
            (other, 1, Q, me.id, me.token),  # no capability
            (me.id, 1, Q, me.id, me.token),  # from itself
            (other, 1, Q, me.id, b"forged"),
            (4711, 1, Q, me.id, me.token),
        ):
            with pytest.raises(XnError):
                yield (calls.REVOKE_SLOTS, *request)
        token = machine.environment(other).token
        for slots, patience in ((0, Q), (100, Q), (-1, Q), (1, 0), (1, -1)):
            with pytest.raises(Refused):
                yield (calls.REVOKE_SLOTS, other, slots, patience, me.id, token)
        return 1

    machine = Machine(slots=10)
    other = machine.boot(holder, "keeps", calls.COOPERATIVE, [], slots=2)
    machine.run()
    machine.boot(program, other)
    machine.run()
    assert machine.ended[0][1:3] == ("", 1)
    assert positions(machine, other) == [0, 1]
