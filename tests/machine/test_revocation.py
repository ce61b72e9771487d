"""Visible revocation, the abort protocol, the repossession vector."""

from __future__ import annotations

from typing import Any

import pytest

from libos.experiments.rig import Rig
from tests.machine.kit import RW, accepted, child, endings, frame_at, run, until
from xnfs import (
    ADMIN,
    ALLOC,
    GRANT,
    READ,
    WRITE,
    Boot,
    CapabilityError,
    Machine,
    NotFree,
    Program,
    Refused,
    calls,
)

PATIENCE = 10**6


def owner_of(pages: int) -> Any:
    """A program that takes frames, names no handler, and sleeps."""

    def program(me: Boot) -> Program:
        for page in range(pages):
            yield from frame_at(me, page)
            yield (calls.STORE, page << 12, page)
        yield (calls.SLEEP, 0)
        return len((yield (calls.VECTOR,)))

    return program


def test_revocation_unused_quota_goes_first() -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        id = yield from child(me, owner_of(4), 10)
        yield from until(me, id, calls.ASLEEP)
        notes.append((yield (calls.REVOKE_FRAMES, id, 6, PATIENCE, me.id, me.token)))
        notes.append(sum(me.tables.frame_owner(frame) == id for frame in range(64)))
        notes.append((yield (calls.QUOTA, id, me.token))[0])

    _, (notes,) = run(body, frames=64)
    assert notes == [6, 4, 0]


def test_revocation_takes_by_force_the_oldest_and_nothing_vital() -> None:
    def victim(me: Boot) -> Program:
        frames = []
        for page in range(6):
            frames.append((yield from frame_at(me, page)))
        yield (calls.SAVE_AREA, frames[0], 0, me.token)
        yield (calls.PIN, 1, frames[1], RW, me.token)
        yield (calls.SLEEP, 0)
        vector = yield (calls.VECTOR,)
        assert vector == tuple(frames[2:4])
        assert (yield (calls.VECTOR,)) == ()
        yield (calls.LOAD, 1 << 12)
        yield (calls.LOAD, 5 << 12)
        return 8

    def body(me: Boot, notes: list[Any]) -> Program:
        id = yield from child(me, victim, 6)
        yield from until(me, id, calls.ASLEEP)
        with pytest.raises(Refused):
            yield (calls.REVOKE_FRAMES, id, 5, PATIENCE, me.id, me.token)
        notes.append((yield (calls.REVOKE_FRAMES, id, 2, PATIENCE, me.id, me.token)))
        yield (calls.WAKE, id, me.token)
        yield from until(me, id, calls.ENDED)
        notes.append(me.tables.status(id))

    machine, (notes,) = run(body)
    assert notes == [2, 8], endings(machine)


def test_revocation_waits_for_an_answer_no_longer_than_it_said() -> None:
    def victim(me: Boot) -> Program:
        asked: list[int] = []

        def revoked(frames: int, deadline: int) -> Program:
            now = yield (calls.CLOCK,)
            asked.append(deadline - now)
            yield (calls.FRAME_FREE, frames_[3], me.token)  # one of the three, its own choice
            yield (calls.SLEEP, deadline + 10**6)

        def repossessed() -> Program:
            asked.extend((yield (calls.VECTOR,)))

        frames_ = []
        for page in range(5):
            frames_.append((yield from frame_at(me, page)))
        yield (calls.HANDLER, calls.REVOKED, revoked)
        yield (calls.HANDLER, calls.REPOSSESSED, repossessed)
        yield (calls.SLEEP, 0)
        assert 0 < asked[0] <= PATIENCE
        assert asked[1:] == frames_[:2]
        return 4

    def body(me: Boot, notes: list[Any]) -> Program:
        id = yield from child(me, victim, 5)
        yield from until(me, id, calls.ASLEEP)
        before = yield (calls.CLOCK,)
        notes.append((yield (calls.REVOKE_FRAMES, id, 3, PATIENCE, me.id, me.token)))
        with pytest.raises(Refused):
            yield (calls.REVOKE_FRAMES, id, 1, PATIENCE, me.id, me.token)  # one at a time
        yield (calls.SLEEP, 0)
        notes.append(PATIENCE <= (yield (calls.CLOCK,)) - before < PATIENCE + 10**6)
        yield (calls.SLEEP, 10**8)
        yield (calls.WAKE, id, me.token)
        yield from until(me, id, calls.ENDED)
        notes.append(me.tables.status(id))

    machine, (notes,) = run(body)
    assert notes == [0, True, 4], endings(machine)
    assert machine.counters()["frames_forced"] == 2


def test_revocation_is_for_who_stands_above() -> None:
    def victim(me: Boot, notes: list[Any]) -> Program:
        yield from frame_at(me, 0)
        token = yield (calls.NARROW, me.token, (), READ | WRITE | ALLOC | GRANT)
        yield (calls.GRANT, token, me.id + 1)
        yield (calls.SLEEP, 0)

    def body(me: Boot, notes: list[Any]) -> Program:
        token = yield from accepted(me)
        with pytest.raises(CapabilityError):
            yield (calls.REVOKE_FRAMES, me.id - 1, 1, PATIENCE, me.id, token)
        with pytest.raises(Refused):
            yield (calls.REVOKE_FRAMES, me.id, 1, PATIENCE, me.id, me.token)
        for patience in (0, -1, 1 << 70):
            with pytest.raises(Refused):
                yield (calls.REVOKE_FRAMES, me.id, 1, patience, me.id - 1, me.token)
        with pytest.raises(Refused):
            yield (calls.REVOCATION, 3)
        notes.append("done")

    machine, notes = run(victim, body)
    assert notes[1] == ["done"], endings(machine)


def test_revocation_broker_of_the_host() -> None:
    """A capability over all environments makes a memory server, outside of the kernel."""

    def body(me: Boot) -> Program:
        victim, token = me.args
        yield from until(me, victim, calls.ASLEEP)
        return (yield (calls.REVOKE_FRAMES, victim, 7, PATIENCE, me.id, token))

    machine = Machine(frames=32)
    victim = machine.boot(owner_of(3), quota=(10, 1, 0))
    machine.boot(body, victim, machine.mint("env", rights=ADMIN))
    machine.run()
    assert machine.ended[0][2] == 7


def test_revocation_of_who_ends_wakes_who_asked() -> None:
    def victim(me: Boot) -> Program:
        def revoked(frames: int, deadline: int) -> Program:
            yield (calls.EXIT, 0)

        yield from frame_at(me, 0)
        yield (calls.HANDLER, calls.REVOKED, revoked)
        yield (calls.SLEEP, 0)

    def body(me: Boot, notes: list[Any]) -> Program:
        before = yield (calls.QUOTA, me.id, me.token)
        id = yield from child(me, victim, 1)
        yield from until(me, id, calls.ASLEEP)
        yield (calls.REVOKE_FRAMES, id, 1, 10**12, me.id, me.token)
        yield (calls.SLEEP, 0)
        after = yield (calls.QUOTA, me.id, me.token)
        notes.append(before == after)

    _, (notes,) = run(body)
    assert notes == [True]


def test_frames_of_the_registry_are_nobody_elses() -> None:
    """One memory for the machine and for XN: neither gets at the other's."""
    rig = Rig(frames=64, cache=32)
    notes: list[Any] = []

    def body(me: Boot) -> Program:
        tables = me.tables
        theirs = [frame for frame in range(64) if tables.frame_owner(frame) == 1]
        notes.append(len(theirs))
        for frame in theirs:
            with pytest.raises(NotFree):
                yield (calls.FRAME_ALLOC, me.id, frame, me.token)
            with pytest.raises(Refused):
                yield (calls.BIND, 0, frame, READ, me.token)
            with pytest.raises(Refused):
                yield (calls.FRAME_FREE, frame, me.token)

    rig.machine.boot(body)
    rig.machine.run()
    assert endings(rig.machine) == [""]
    assert notes[0] == rig.cached > 0
