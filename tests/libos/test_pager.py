"""Pagers: bytes survive, through XN and FFS; policies differ as they should; nothing is written
that need not be; frames asked back are chosen by whom they belong to.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libos.experiments.rig import ROOT, Rig
from libos.pager import Pager
from libos.policies import Chosen, Clock, Fifo, Lru, Mru, Policy
from tests.machine.conserve import check
from tests.machine.kit import child, endings, until
from xnfs import Boot, Program, Refused, XnError, calls

POLICIES = {"fifo": Fifo, "clock": Clock, "lru": Lru, "mru": Mru}


def paged(rig: Rig, policy: Policy, trace: list[tuple[int, bool]], limit: int) -> Pager:
    """Run a trace of (page, store) over a pager, checking every load. The pager."""
    made: list[Pager] = []
    swap = rig.swap()

    def program(me: Boot) -> Program:
        pager = Pager(me, policy, swap, limit)
        made.append(pager)
        yield from pager.start()
        model: dict[int, int] = {}
        for i, (page, store) in enumerate(trace):
            if store:
                yield (calls.STORE, (page << 12) + 8, i)
                model[page] = i
            else:
                assert (yield (calls.LOAD, (page << 12) + 8)) == model.get(page, 0)
        for page, last in model.items():
            assert (yield (calls.LOAD, (page << 12) + 8)) == last

    rig.machine.boot(program)
    rig.machine.run()
    assert endings(rig.machine) == [""]
    return made[0]


@pytest.mark.parametrize("name", POLICIES)
def test_pager_keeps_every_byte(name: str) -> None:
    rng = random.Random(5)
    trace = [(rng.randrange(40), rng.random() < 0.5) for _ in range(600)]
    rig = Rig()
    pager = paged(rig, POLICIES[name](), trace, 10)
    assert len(pager.resident) == 10
    assert pager.evictions > 100
    assert rig.disk.writes > 0
    assert 0 < rig.cached <= 64
    rig.fs.close()
    rig.xn.close()
    assert rig.machine.frames.free_frames == 256


def cyclic(policy: Policy) -> int:
    """Page-ins of ten scans over 20 pages with 16 frames."""
    trace = [(page, True) for page in range(20)] + [(page, False) for page in range(20)] * 9
    pager = paged(Rig(), policy, trace, 16)
    return pager._swap.read


def test_pager_mru_beats_lru_on_a_cyclic_scan() -> None:
    """The classic: LRU gives up each page just before it is needed."""
    lru, fifo, mru = cyclic(Lru()), cyclic(Fifo()), cyclic(Mru())
    assert lru == fifo >= 9 * 20
    assert mru <= 9 * 6


def test_pager_the_application_may_choose() -> None:
    """It knows that it will need the low pages again, and no other."""
    trace = [(page % 4 if i % 2 else 4 + i, True) for i, page in enumerate(range(100))]

    def choose(pages: Sequence[int]) -> int:
        return max(pages)

    own = paged(Rig(), Chosen(choose), trace, 8)
    lru = paged(Rig(), Fifo(), trace, 8)
    assert own.evictions < lru.evictions


def test_pager_garbage_is_not_written() -> None:
    def writes(discard: bool) -> int:
        rig = Rig()
        swap = rig.swap()

        def program(me: Boot) -> Program:
            pager = Pager(me, Fifo(), swap, 8)
            yield from pager.start()
            for page in range(100):  # a heap that is used once, from one end to the other
                yield (calls.STORE, page << 12, 1)
                if discard:
                    pager.discard(page)

        rig.machine.boot(program)
        rig.machine.run()
        assert endings(rig.machine) == [""]
        return swap.written

    assert writes(discard=True) == 0
    assert writes(discard=False) == 92


def test_pager_clean_pages_are_not_written_again() -> None:
    rig = Rig()
    trace = [(page, True) for page in range(20)] + [(page, False) for page in range(20)] * 5
    pager = paged(rig, Fifo(), trace, 10)
    assert pager._swap.written == 20


def pressed(style: int, policy: Policy, answer: bool = True) -> tuple[list[Any], Any]:
    """A pager with 20 pages is asked for 10 frames by a neighbour."""
    rig = Rig()
    swap = rig.swap()
    notes: list[Any] = []
    made: list[Pager] = []

    def victim(me: Boot) -> Program:
        pager = Pager(me, policy, swap, 20, style=style)
        made.append(pager)
        yield from pager.start()
        if not answer:
            yield (calls.HANDLER, calls.REVOKED, stubborn)
        for page in range(20):
            yield (calls.STORE, page << 12, page + 1)
        yield (calls.SLEEP, 0)
        kept = []
        for page in range(20):
            kept.append((yield (calls.LOAD, page << 12)) == page + 1)
        notes.append(kept)

    def stubborn(frames: int, deadline: int) -> Program:
        notes.append(frames)
        yield 1

    def asker(me: Boot) -> Program:
        id = yield from child(me, victim, 21)
        yield from until(me, id, calls.ASLEEP)
        with pytest.raises(Refused):
            yield (calls.REVOKE_FRAMES, id, 22, 10**8, me.id, me.token)
        before = (yield (calls.QUOTA, me.id, me.token))[0]
        got = yield (calls.REVOKE_FRAMES, id, 10, 10**8, me.id, me.token)
        if got < 10:
            yield (calls.SLEEP, 0)
        notes.append((yield (calls.QUOTA, me.id, me.token))[0] - before)
        yield (calls.WAKE, id, me.token)
        yield from until(me, id, calls.ENDED)

    rig.machine.boot(asker)
    rig.machine.run()
    assert endings(rig.machine) == ["", ""], endings(rig.machine)
    return notes, (made[0], rig.machine)


def test_pager_answers_visible_revocation() -> None:
    notes, (pager, machine) = pressed(calls.COOPERATIVE, Mru())
    assert notes == [10, [True] * 20]
    assert pager.lost == []
    assert machine.counters()["frames_forced"] == 0
    assert machine.counters()["frames_asked"] == 10


def test_pager_that_does_not_answer_is_told_what_was_taken() -> None:
    notes, (pager, machine) = pressed(calls.COOPERATIVE, Fifo(), answer=False)
    assert notes == [10, 10, [False] * 10 + [True] * 10]
    assert sorted(pager.lost) == list(range(10))
    assert machine.counters()["frames_forced"] == 10


@pytest.mark.parametrize("style", [calls.NOTIFY, calls.TRANSPARENT])
def test_pager_frames_taken_without_asking_are_lost(style: int) -> None:
    notes, (pager, machine) = pressed(style, Fifo())
    assert notes[0] == 10
    assert notes[1].count(False) >= 10  # those taken, at least, and the kernel chose them
    assert machine.counters()["frames_forced"] == 10
    assert sorted(pager.lost)[:10] == list(range(10))


def test_pager_swap_is_a_file_like_any_other() -> None:
    rig = Rig()
    paged(rig, Fifo(), [(page, True) for page in range(30)], 5)
    attr = rig.posix.lookup(ROOT, rig.fs.root, b"swap")
    assert attr.size == 4096 * 30


accesses = st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=40, max_size=200)
asks = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 400_000)), max_size=4)


@settings(max_examples=max(10, settings().max_examples // 2))
@given(accesses, asks, st.sampled_from(list(POLICIES)), st.booleans())
def test_pager_keeps_every_byte_while_it_is_asked_for_frames(
    trace: list[tuple[int, bool]], asked: list[tuple[int, int]], name: str, patient: bool
) -> None:
    """Upcalls interrupt it anywhere, in the middle of an exception or of another upcall, too. Given
    time it loses nothing; without, what it loses it knows.
    """
    rig = Rig()
    swap = rig.swap()
    made: list[Pager] = []
    wrong: list[int] = []

    def worker(me: Boot) -> Program:
        pager = Pager(me, POLICIES[name](), swap, 16)
        made.append(pager)
        yield from pager.start()
        model: dict[int, int] = {}
        for i, (page, store) in enumerate(trace):
            yield 3000
            if store:
                yield (calls.STORE, page << 12, i + 1)
                model[page] = i + 1
            elif (yield (calls.LOAD, page << 12)) != model.get(page, 0):
                wrong.append(page)

    def neighbour(me: Boot) -> Program:
        victim, token = me.args
        for frames, wait in asked:
            yield (calls.SLEEP, (yield (calls.CLOCK,)) + wait)
            patience = 10**9 if patient else 1000
            with contextlib.suppress(XnError):
                yield (calls.REVOKE_FRAMES, victim, frames, patience, me.id, token)

    victim = rig.machine.boot(worker, quota=(17, 1, 0))
    rig.machine.boot(neighbour, victim, rig.machine.mint("env"), quota=(0, 1, 0))
    rig.machine.run()
    assert endings(rig.machine) == ["", ""]
    if patient:
        assert (wrong, made[0].lost) == ([], [])
        assert rig.machine.counters()["frames_forced"] == 0
    check(rig.machine, minted=1)
