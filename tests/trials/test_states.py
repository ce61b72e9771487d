"""The states that a cut may leave: all of them, none but them, and no other count than is said."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xnfs_trials.crash import choices
from xnfs_trials.crash.choices import FULL, QUICK, Choice, Cutpoint, Plan
from xnfs_trials.crash.device import ModelDevice
from xnfs_trials.crash.rawdisk import RawDisk
from xnfs_trials.crash.states import (
    BLOCK,
    METADATA,
    NEVER,
    SECTOR,
    ZERO,
    Cutter,
    Event,
    Flush,
    State,
    Write,
    image_digests,
    image_key,
)

from tests.disk.xn_kit import Kit, fill, image
from xnfs.disk.device import MemoryDevice
from xnfs.disk.stacked import Fault, FaultingDevice, StackedDevice

Image = tuple[tuple[int, bytes], ...]
WHOLE_ONLY = Plan(torn=0)


@cache
def block(value: int) -> bytes:
    """Eight different sectors; the same object each time, as when copies are written."""
    return b"".join(bytes([value, i]) * (SECTOR // 2) for i in range(8))


def frozen(disk: dict[int, bytes]) -> Image:
    return tuple(sorted((b, data) for b, data in disk.items() if data != ZERO))


def legal(base: dict[int, bytes], events: Sequence[Event], cut: int, ended: int) -> Iterator[Image]:
    """By definition, and slowly: each subset of what no completed flush covers, in order.

    `ended`: flushes that ended when so many events had been submitted have ended."""
    done = [i + 1 + event.overlap for i, event in enumerate(events)]
    flushes = [i for i in range(cut) if isinstance(events[i], Flush) and done[i] <= ended]
    writes = [i for i in range(cut) if isinstance(events[i], Write)]
    durable = [i for i in writes if any(done[i] <= f for f in flushes)]
    pending = [i for i in writes if i not in durable]
    for count in range(len(pending) + 1):
        for kept in combinations(pending, count):
            disk = dict(base)
            # What is durable lies below what may have come late.
            for i in (*durable, *kept):
                event = events[i]
                assert isinstance(event, Write)
                disk[event.block] = event.data
            yield frozen(disk)


#: (block, value, overlap); block -1 is a flush
specs = st.lists(
    st.tuples(st.integers(-1, 3), st.integers(1, 250), st.sampled_from([0, 0, 0, 1, 2, NEVER])),
    max_size=8,
)


def events(run: list[tuple[int, int, int]]) -> list[Event]:
    return [Flush(overlap=o) if b < 0 else Write(b, block(v), overlap=o) for b, v, o in run]


def made(base: dict[int, bytes], run: Sequence[Event], plan: Plan) -> dict[Image, int]:
    """The images that the cutter makes, and after how many events each is first legal."""
    out: dict[Image, int] = {}
    for state in Cutter(base, run, random.Random(1), plan).states():
        assert state.key == image_key(state.image)
        assert image_digests(state.image) == {b: d for b, d in state.digest.items() if d}
        out.setdefault(frozen(state.image), state.event)
    return out


def check_against_definition(run: Sequence[Event]) -> None:
    base = {0: block(251), 9: block(252)}
    got = made(base, run, WHOLE_ONLY)
    allowed: set[Image] = set()
    for cut in range(len(run) + 1):
        # A flush that ends at this cut may have ended or not.
        now = set(legal(base, run, cut, cut)) | set(legal(base, run, cut, cut - 1))
        allowed |= now
        missing = now - {image for image, event in got.items() if event <= cut}
        assert not missing, f"{len(missing)} states after {cut} events are not made"
    assert got.keys() <= allowed


@given(run=specs)
def test_states_are_those_of_the_definition(run: list[tuple[int, int, int]]) -> None:
    check_against_definition(events(run))
    made({1: block(3)}, events(run), QUICK)  # keys and digests are right, torn or not


def test_states_keys_of_torn_copies() -> None:
    run = [Write(b, block(1), flags=METADATA) for b in (1, 2)]
    assert len(made({}, run, FULL)) == 4 + 2 * 2 * 254


def test_states_a_cutter_that_forgets_one_subset_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[Event] = [Write(b, block(b)) for b in range(1, 5)]
    real = choices.pick

    def forgetful(*args: object) -> Iterator[Choice]:
        return (c for c in real(*args) if c.mask != 0b1010)  # type: ignore[arg-type]

    check_against_definition(run)
    monkeypatch.setattr("xnfs_trials.crash.states.pick", forgetful)
    with pytest.raises(AssertionError, match="1 states after"):
        check_against_definition(run)


def test_states_a_flush_that_covers_too_much_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[Event] = [Write(1, block(1), overlap=1), Flush(), Write(2, block(2))]
    check_against_definition(run)
    assert len(made({}, run, WHOLE_ONLY)) == 4
    monkeypatch.setattr(Write, "overlap", 0)
    assert len(made({}, run, WHOLE_ONLY)) == 3


def test_states_every_subset_of_fourteen() -> None:
    run: list[Event] = [Write(b, block(b)) for b in range(14)]
    states = Cutter({}, run, random.Random(1), WHOLE_ONLY).states()
    assert len({state.key for state in states}) == 1 << 14


def test_states_neighbours_differ_in_one_write() -> None:
    cut = Cutpoint(6, 6, tuple(range(6)), (), newest=True)
    masks = [c.mask for c in choices.pick(cut, WHOLE_ONLY, 1 << 5, random.Random(1))]
    assert len(set(masks)) == 32
    assert all((a ^ b).bit_count() == 1 for a, b in pairwise(masks))


def test_states_above_fourteen() -> None:
    n, plan = 20, replace(FULL, torn=0)
    cut = Cutpoint(n, n, tuple(range(n)), (), newest=False)
    count = choices.number_of(cut, plan)
    masks = [c.mask for c in choices.pick(cut, plan, count, random.Random(1))]
    assert len(masks) == count == 2 * (1 + n + n * (n - 1) // 2) + 4096
    every = {sum(1 << i for i in few) for k in range(3) for few in combinations(range(n), k)}
    assert {m for m in masks if m.bit_count() <= 2} == every
    full = (1 << n) - 1
    assert {m ^ full for m in masks if m.bit_count() >= n - 2} == every
    # All prefixes: each is the whole of what was pending at an earlier cut.
    run: list[Event] = [Write(b, block(b)) for b in range(n)]
    kept = {s.kept for s in Cutter({}, run, random.Random(1), plan).states()}
    assert {tuple(range(k)) for k in range(n + 1)} <= kept


def torn_sets(states: Iterator[State], old: int, new: int) -> set[tuple[bool, ...]]:
    """Which sets of sectors of block 1 are seen to be new."""
    out = set()
    for state in states:
        data = state.image.get(1, ZERO)
        sectors = [data[at : at + SECTOR] for at in range(0, BLOCK, SECTOR)]
        pieces = [block(v)[i * SECTOR :][:SECTOR] for v in (old, new) for i in range(8)]
        assert all(s in (pieces[i], pieces[8 + i]) for i, s in enumerate(sectors))
        out.add(tuple(s == pieces[8 + i] for i, s in enumerate(sectors)))
    return out


@pytest.mark.parametrize("flags", [0, METADATA])
def test_states_torn_blocks(flags: int) -> None:
    base = {1: block(1)}
    run: list[Event] = [Write(1, block(2), flags=flags), Write(2, block(3), flags=flags)]
    found = torn_sets(Cutter(base, run, random.Random(1), FULL).states(), 1, 2)
    prefixes = {tuple(i < k for i in range(8)) for k in range(9)}
    assert prefixes <= found
    assert len(found) == (256 if flags else 9)
    # The first write may tear while the second one is there.
    states = Cutter(base, run, random.Random(1), FULL).states()
    both = (s for s in states if s.image.get(2) == block(3))
    assert len(torn_sets(both, 1, 2)) == len(found)


def test_states_limit_says_what_it_left_out() -> None:
    run: list[Event] = [Write(b, block(b)) for b in range(12)]
    run += [Flush(), *(Write(b, block(b + 100)) for b in range(3))]
    every = list(Cutter({}, run, random.Random(1), FULL).states())
    cutter = Cutter({}, run, random.Random(1), replace(FULL, states=200))
    some = [(s.event, s.key) for s in cutter.states()]
    assert len(some) <= 200
    assert cutter.left_out == len(every) - len(some)
    assert {event for event, _ in some} == set(range(len(run) + 1))  # no cut without a state
    again = Cutter({}, run, random.Random(1), replace(FULL, states=200))
    assert some == [(s.event, s.key) for s in again.states()]


def test_states_after_a_sync_all_are_asked_again() -> None:
    run: list[Event] = [Write(1, block(1)), Write(2, block(2)), Write(3, block(3))]
    states = list(Cutter({}, run, random.Random(1), WHOLE_ONLY).states([2]))
    assert [s.event for s in states] == [0, 1, *[2] * 2, *[2] * 4, *[3] * 4]


# -- against what XN says


class _Busy(StackedDevice):
    """Somebody writes while the device flushes."""

    def __init__(self, below: ModelDevice) -> None:
        super().__init__(below)
        self.during: list[tuple[int, bytes]] = []

    def flush(self) -> None:
        device = self.below
        assert isinstance(device, ModelDevice)
        real = device.below

        class Once(StackedDevice):
            def flush(inner) -> None:
                while self.during:
                    number, data = self.during.pop()
                    device.write(number, [data])
                super().flush()

        device.below = Once(real)
        super().flush()
        device.below = real


def test_states_write_during_a_flush_is_not_covered() -> None:
    model = ModelDevice(MemoryDevice(8))
    busy = _Busy(model)
    busy.write(1, [block(1)])
    busy.during = [(2, block(2))]
    busy.flush()
    kinds = [(type(e).__name__, e.overlap) for e in model.events]
    assert kinds == [("Write", 0), ("Flush", 1), ("Write", 0)]
    states = Cutter({}, model.events, random.Random(1), WHOLE_ONLY).states()
    last = {(s.acked, frozen(s.image)) for s in states if s.event == 3}
    one, two = (1, block(1)), (2, block(2))
    assert last == {(2, (two,)), (2, (one, two)), (3, (one,))}


def claims_hold(flushes: bool) -> bool:
    """Each time a sync returns, XN says that all is durable: then every state that is legal from
    there on recovers to what XN showed in memory."""
    disk = ModelDevice(image(log_blocks=8))
    base = dict(disk.below._contents)  # type: ignore[attr-defined]
    below = disk if flushes else FaultingDevice(disk, Fault("flush", "lost", sticky=True))
    kit = Kit(below)
    claims: list[tuple[int, dict[int, bytes]]] = []
    for i in range(4):
        node = kit.node(kit.root, i)
        kit.data(node, 0, b"%d" % i, 2)
        if i == 2:
            kit.move(kit.root, 0, node, 5)
        kit.sync()
        assert kit.xn.dirty_count() == (0, 0)
        held = {b: bytes(kit.xn._registry.view(b)) for b in kit.xn._registry.pages}
        claims.append((len(disk.events), held))
    cutter = Cutter(base, disk.events, random.Random(1), replace(QUICK, torn=0))
    for state in cutter.states([at for at, _ in claims]):
        for at, held in claims:
            if state.acked == at:
                raw = RawDisk(state.image, kit.xn.blocks)
                raw.recover()
                if any(raw.block(b) != data for b, data in held.items()):
                    return False
    return True


def test_states_agree_with_what_xn_calls_durable() -> None:
    assert claims_hold(flushes=True)
    assert not claims_hold(flushes=False)


@pytest.mark.parametrize("declared", [True, False])
def test_states_agree_with_the_order_that_xn_keeps(declared: bool) -> None:
    """`depend(a, b)`: on no disk that a cut leaves is b new and a old; without it, on some."""
    disk = ModelDevice(image(log_blocks=8))
    kit = Kit(disk)
    a, b = (kit.data(kit.node(kit.root, i), 0, b"old") for i in range(2))
    kit.sync()
    base, start = dict(disk.below._contents), len(disk.events)  # type: ignore[attr-defined]
    for number in (a, b):
        kit.xn.write_raw(kit.me, number, 0, fill(b"new"))
    if declared:
        kit.xn.depend(kit.me, a, b)
    kit.sync([b])
    kit.sync()
    seen = set()
    for state in Cutter(base, disk.events[start:], random.Random(1), WHOLE_ONLY).states():
        raw = RawDisk(state.image, kit.xn.blocks)
        raw.recover()
        seen.add((raw.block(a) == fill(b"new"), raw.block(b) == fill(b"new")))
    assert ((False, True) in seen) == (not declared)
    assert (True, True) in seen
