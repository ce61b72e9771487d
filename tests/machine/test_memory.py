"""Memory: translations in three levels, bindings under capabilities, frames with one owner."""

from __future__ import annotations

from typing import Any

import pytest

from libos.space import Space
from libos.tables import Hashed
from tests.machine.kit import RW, accepted, child, endings, frame_at, handle, run, until
from xnfs import (
    ALLOC,
    GRANT,
    READ,
    Boot,
    CapabilityError,
    NoFrames,
    NoSpace,
    NotFree,
    Program,
    Refused,
    XnError,
    calls,
)


def first_words(pages: int) -> Program:
    """The first word of each page."""
    words = []
    for page in range(pages):
        words.append((yield (calls.LOAD, page << 12)))
    return words


def passes(pages: int, rounds: int) -> dict[str, int]:
    """Counters of a program that loads from each page, round after round."""

    def body(me: Boot, notes: list[Any]) -> Program:
        yield from Space(me, Hashed()).start()
        for _ in range(rounds):
            for page in range(pages):
                yield (calls.LOAD, page << 12)

    machine, _ = run(body, frames=pages + 1)
    return machine.counters()


def test_memory_64_pages_stay_in_the_tlb() -> None:
    counts = passes(64, 5)
    assert (counts["tlb_misses"], counts["stlb_hits"], counts["tlb_exceptions"]) == (64, 0, 64)


def test_memory_more_pages_stay_in_the_software_tlb() -> None:
    counts = passes(512, 5)
    assert counts["tlb_exceptions"] == 512
    assert 1600 < counts["stlb_hits"] <= 2048  # a random TLB of 64 hits about one time in eight


def test_memory_more_than_the_software_tlb_is_the_applications() -> None:
    counts = passes(4096, 2)
    assert counts["tlb_exceptions"] == 4096
    counts = passes(5000, 2)
    assert counts["tlb_exceptions"] == 5000 + 2 * (5000 - 4096)  # those that share a place


def test_memory_tags_run_out() -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        yield from frame_at(me, 0)
        for _ in range(3):
            yield (calls.YIELD, 0)
            yield (calls.LOAD, 0)

    few, _ = run(*[body] * 60)
    many, _ = run(*[body] * 70, slots=128)
    assert few.counters()["tag_flushes"] == 0
    assert few.counters()["tlb_misses"] == 0
    assert many.counters()["tag_flushes"] > 0
    assert many.counters()["stlb_hits"] == many.counters()["tlb_misses"] > 70


def test_memory_pinned_pages_are_refilled_by_the_kernel() -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        frame = yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
        yield (calls.PIN, 7, frame, RW, me.token)
        yield (calls.STORE, 7 << 12, 5)
        other = yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
        for page in range(4096 + 7, 4096 + 8):  # the same place in the software TLB
            yield (calls.BIND, page, other, RW, me.token)
        notes.append((yield (calls.LOAD, 7 << 12)))  # no handler: it would end here
        for page in range(8, 8 + 7):
            yield (calls.PIN, page, frame, READ, me.token)
        with pytest.raises(NoSpace):
            yield (calls.PIN, 99, frame, READ, me.token)
        yield (calls.UNBIND, 7)
        yield (calls.LOAD, 7 << 12)

    machine, (notes,) = run(body)
    assert notes == [5]
    assert machine.counters()["refills"] == 1
    assert endings(machine) == ["exception 1 at 0x7000 and no handler"]


def test_memory_bits_say_what_was_used() -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        frame = yield from frame_at(me, 0)
        yield (calls.CLEAR_BITS, frame, 3, me.token)
        notes.append(me.tables.bits[frame])
        yield (calls.LOAD, 0)
        notes.append(me.tables.bits[frame])
        yield (calls.STORE, 0, 1)
        notes.append(me.tables.bits[frame])
        yield (calls.CLEAR_BITS, frame, calls.MODIFIED, me.token)
        yield (calls.STORE, 0, 1)
        notes.append(me.tables.bits[frame])
        yield (calls.CLEAR_BITS, frame, 3, me.token)
        yield (calls.READ_BYTES, 0, 8)
        notes.append(me.tables.bits[frame])
        with pytest.raises(TypeError):
            me.tables.bits[frame] = 0

    _, (notes,) = run(body)
    assert notes == [0, 1, 3, 3, 1]


def test_memory_frames_by_number() -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        yield (calls.FRAME_ALLOC, me.id, 17, me.token)
        with pytest.raises(NotFree):
            yield (calls.FRAME_ALLOC, me.id, 17, me.token)
        notes.append(me.tables.frame_owner(17) == me.id)
        yield (calls.FRAME_FREE, 17, me.token)
        notes.append(me.tables.frame_owner(17))
        for frame in (-2, 32, 1 << 70):
            with pytest.raises(Refused):
                yield (calls.FRAME_ALLOC, me.id, frame, me.token)
        for _ in range(32):
            yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)
        with pytest.raises(NoFrames):
            yield (calls.FRAME_ALLOC, me.id, calls.ANY, me.token)

    _, (notes,) = run(body, frames=32)
    assert notes == [True, 0]


def test_memory_a_new_frame_shows_nothing_of_its_last_owner() -> None:
    def first(me: Boot, notes: list[Any]) -> Program:
        yield from frame_at(me, 0)
        yield (calls.STORE, 0, 0x5EC12E7)

    def second(me: Boot, notes: list[Any]) -> Program:
        yield from until(me, 2048, calls.ENDED)
        yield from frame_at(me, 0)
        notes.append((yield (calls.READ_BYTES, 0, 4096)))

    machine, notes = run(first, second, frames=1)
    assert endings(machine) == ["", ""]
    assert notes[1] == [bytes(4096)]


def test_memory_limits_of_readers_and_writers() -> None:
    def reader(me: Boot) -> Program:
        token = yield from accepted(me)
        try:
            yield (calls.BIND, 0, 0, READ, token)
        except NoSpace:
            return 1
        yield (calls.SLEEP, 0)
        return 0

    def body(me: Boot, notes: list[Any]) -> Program:
        frame = yield (calls.FRAME_ALLOC, me.id, 0, me.token)
        yield (calls.BIND, 0, frame, RW, me.token)
        yield (calls.FRAME_LIMIT, frame, 2, 1, me.token)
        with pytest.raises(Refused):
            yield (calls.FRAME_LIMIT, frame, 2, 0, me.token)  # it writes it itself
        token = yield (calls.NARROW, me.token, (f"f{frame}",), READ | GRANT)
        ids = []
        for _ in range(3):
            ids.append((yield from child(me, reader)))
            yield (calls.GRANT, token, ids[-1])
            yield (calls.YIELD, 0)
            yield (calls.YIELD, 0)
        yield from until(me, ids[2], calls.ENDED)
        notes.append(me.tables.status(ids[2]))
        yield (calls.WAKE, ids[0], me.token)
        yield from until(me, ids[0], calls.ENDED)  # makes room
        yield (calls.GRANT, token, (yield from child(me, reader)))
        yield (calls.SLEEP, 10**7)

    _, (notes,) = run(body)
    assert notes == [1]


def test_memory_writers_are_limited_before_they_write() -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        frame = yield (calls.FRAME_ALLOC, me.id, 0, me.token)
        yield (calls.FRAME_LIMIT, frame, 5, 0, me.token)
        with pytest.raises(NoSpace):
            yield (calls.BIND, 0, frame, RW, me.token)
        yield (calls.BIND, 0, frame, READ, me.token)
        with pytest.raises(NoSpace):
            yield (calls.BIND, 0, frame, RW, me.token)
        yield (calls.RELEASE, frame)
        yield (calls.FRAME_LIMIT, frame, 0, 1, me.token)
        yield (calls.BIND, 0, frame, RW, me.token)
        notes.append("done")

    _, (notes,) = run(body)
    assert notes == ["done"]


def test_memory_a_gift_needs_consent_and_breaks_bindings() -> None:
    def taker(me: Boot) -> Program:
        consent = yield (calls.NARROW, me.token, (), ALLOC | GRANT)
        yield (calls.GRANT, consent, 2048)
        yield (calls.SLEEP, 0)
        yield (calls.BIND, 0, 5, READ, me.token)
        return (yield (calls.LOAD, 0))

    def body(me: Boot, notes: list[Any]) -> Program:
        yield (calls.FRAME_ALLOC, me.id, 5, me.token)
        yield (calls.BIND, 0, 5, RW, me.token)
        yield (calls.STORE, 0, 66)
        id = yield (calls.SPAWN, taker, (), me.id, me.token)
        yield (calls.GIVE_QUOTA, me.id, id, 0, 1, 0, me.token)
        yield (calls.SLOT_ALLOC, id, 0, calls.ANY, me.token)
        consent = yield from accepted(me)
        with pytest.raises(NoFrames):
            yield (calls.FRAME_GIVE, 5, me.token, id, consent)
        yield (calls.GIVE_QUOTA, me.id, id, 1, 0, 0, me.token)
        before = yield (calls.QUOTA, me.id, me.token)
        yield (calls.FRAME_GIVE, 5, me.token, id, consent)
        after = yield (calls.QUOTA, me.id, me.token)
        notes += [after[0] - before[0], me.tables.frame_owner(5) == id]
        yield (calls.WAKE, id, me.token)
        yield from until(me, id, calls.ENDED)
        notes.append(me.tables.status(id))
        yield (calls.LOAD, 0)

    machine, (notes,) = run(body)
    assert notes == [1, True, 66]
    assert endings(machine) == ["", "exception 1 at 0x0 and no handler"]


@pytest.mark.parametrize("how", ["revoked", "freed", "ended"])
def test_memory_a_binding_ends_with_what_it_was_made_under(how: str) -> None:
    """In the TLB, in the software TLB, in the bootstrapping segment and as a save area."""

    def owner(me: Boot) -> Program:
        frame = yield (calls.FRAME_ALLOC, me.id, 3, me.token)
        token = yield (calls.NARROW, me.token, (f"f{frame}",), RW | GRANT)
        yield (calls.GRANT, token, 2048)
        yield (calls.SLEEP, 0)
        if how == "revoked":
            yield (calls.REVOKE, token)
        elif how == "freed":
            yield (calls.FRAME_FREE, frame, me.token)
        else:
            return
        yield (calls.SLEEP, 0)

    def body(me: Boot, notes: list[Any]) -> Program:
        id = yield from child(me, owner, 1)
        token = yield from accepted(me)
        yield (calls.BIND, 1, 3, RW, token)
        yield (calls.PIN, 2, 3, RW, token)

        def handler(cause: int, address: int, place: int) -> Program:
            notes.append(address)
            yield 1
            return (calls.SKIP, None)

        yield (calls.HANDLER, calls.EXCEPTION, handler)
        yield (calls.SAVE_AREA, 3, 0, token)
        yield (calls.LOAD, 1 << 12)
        yield (calls.LOAD, 2 << 12)
        yield (calls.WAKE, id, me.token)
        yield from until(me, id, calls.ENDED if how == "ended" else calls.ASLEEP)
        yield (calls.YIELD, 0)
        with pytest.raises(XnError):
            yield (calls.BIND, 1, 3, READ, token)
        area = yield from handle(me, handler)
        notes.append(area != 3)
        yield (calls.LOAD, 1 << 12)
        yield (calls.LOAD, 2 << 12)

    _, (notes,) = run(body)
    assert notes == [True, 0x1000, 0x2000]


def test_memory_the_save_area_goes_with_its_frame() -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        def handler(cause: int, address: int, place: int) -> Program:
            yield 1
            return (calls.SKIP, 1)

        frame = yield from handle(me, handler)
        notes.append((yield (calls.LOAD, 0)))
        yield (calls.RELEASE, frame)
        yield (calls.LOAD, 0)

    machine, (notes,) = run(body)
    assert notes == [1]
    assert endings(machine) == ["exception 1 at 0x0 and no handler"]


def test_memory_foreign_frames_are_refused() -> None:
    def owner(me: Boot, notes: list[Any]) -> Program:
        yield (calls.FRAME_ALLOC, me.id, 3, me.token)
        yield (calls.SLEEP, 0)

    def body(me: Boot, notes: list[Any]) -> Program:
        yield (calls.YIELD, 0)
        for request in (
            (calls.BIND, 0, 3, READ, me.token),
            (calls.PIN, 0, 3, READ, me.token),
            (calls.SAVE_AREA, 3, 0, me.token),
            (calls.FRAME_FREE, 3, me.token),
            (calls.FRAME_LIMIT, 3, 0, 0, me.token),
            (calls.CLEAR_BITS, 3, 3, me.token),
            (calls.FRAME_GIVE, 3, me.token, me.id, me.token),
            (calls.FRAME_ALLOC, 2048, calls.ANY, me.token),
            (calls.BIND, 0, 3, READ, b"forged"),
        ):
            with pytest.raises(CapabilityError):
                yield request
            notes.append(request[0])

    machine, notes = run(owner, body)
    assert len(notes[1]) == 9
    assert machine.tables.frame_owner(3) == 2048


def test_memory_copy_on_write() -> None:
    def body(me: Boot, notes: list[Any]) -> Program:
        space = Space(me)
        yield from space.start()
        for page in range(4):
            yield (calls.STORE, page << 12, 10 + page)

        def copy(its: Boot) -> Program:
            mine = Space(its)
            yield from mine.start()
            token = yield from accepted(its)
            mine.adopt(given.items(), token)
            notes.append((yield from first_words(4)))
            yield (calls.STORE, 0, 99)
            notes.append((yield (calls.LOAD, 0)))
            notes.append(mine.copies)
            yield (calls.SLEEP, 0)
            notes.append((yield from first_words(4)))

        given: dict[int, int] = {}
        id = yield from child(me, copy, 8)
        pages, _ = yield from space.share(id)
        given.update(pages)
        yield from until(me, id, calls.ASLEEP)
        notes.append((yield from first_words(4)))
        yield (calls.STORE, 1 << 12, 77)  # after which the parent has its own page 1
        yield (calls.WAKE, id, me.token)
        yield from until(me, id, calls.ENDED)
        notes.append((yield from first_words(4)))

    _, (notes,) = run(body)
    assert notes == [
        [10, 11, 12, 13],
        99,
        1,
        [10, 11, 12, 13],
        [99, 11, 12, 13],
        [10, 77, 12, 13],
    ]
