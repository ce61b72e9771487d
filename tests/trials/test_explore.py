"""Not looking twice changes no verdict, is counted, and is watched; recovery is cut, too."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xnfs_trials.crash import explore as exploring
from xnfs_trials.crash import states as stating
from xnfs_trials.crash.choices import FULL, QUICK
from xnfs_trials.crash.explore import Stats, explore
from xnfs_trials.crash.ffstrial import FfsTrial
from xnfs_trials.crash.memo import Known, Memo
from xnfs_trials.crash.model import Cut
from xnfs_trials.crash.prune import Bounded, Impure, ReadTree, View
from xnfs_trials.crash.rawdisk import RawDisk
from xnfs_trials.crash.recovery import Recovery
from xnfs_trials.crash.states import NEVER, Cutter, Event, Flush, State, Write
from xnfs_trials.crash.workload import Op

from tests.crash.toytrial import ToyTrial
from xnfs.disk import xn
from xnfs.disk.device import BlockDevice, MemoryDevice

SEVERAL: tuple[Op, ...] = (
    ("create", 0, 1, 0),
    ("write", 0, 0, 3),
    ("fsync", 1, 0, 0),
    ("link", 0, 5, 0),
    ("fsync", 0, 0, 0),
    ("rename", 0, 0, 0),
    ("unlink", 0, 0, 0),
    ("sync", 0, 0, 0),
)
MIDDLE = replace(QUICK, exhaustive=8, torn=None, near=2)


class Shared(FfsTrial):
    """A trial that shares its verdicts with others of the same size."""

    def __init__(self, ops: tuple[Op, ...]) -> None:
        super().__init__(ops, blocks=128, frames=128, log_blocks=16)
        self.ops = ops
        self.family: Hashable = "ffs", 128

    def oracle(self, cut: Cut) -> Hashable:
        asks = [at for at in self.asks if at <= cut.event]
        return self.ops[: cut.version], max(asks, default=0)


@cache
def trial(ops: tuple[Op, ...] = SEVERAL) -> Shared:
    return Shared(ops)


@cache
def toy() -> ToyTrial:
    return ToyTrial(3, 30)


def unflushed(events: list[Event]) -> list[Event]:
    """What the same writes are on a disk whose flushes never end."""
    return [replace(e, overlap=NEVER) if isinstance(e, Flush) else e for e in events]


# -- the tree of reads

images = st.dictionaries(st.integers(0, 5), st.integers(0, 2), max_size=6)


def wander(image: Mapping[int, int], reads: dict[int, None]) -> tuple[int, ...]:
    """Reads on as the blocks say, and returns what it has read: a verdict that nothing else can
    give."""
    at, out = 0, []
    for _ in range(4):
        reads[at] = None
        value = image.get(at, 0)
        out.append(value)
        if value == 2:
            break
        at = (at * 2 + 1 + value) % 6
    return tuple(out)


@given(st.lists(images, max_size=40))
def test_prune_tree_gives_the_verdict_or_none(disks: list[dict[int, int]]) -> None:
    tree: ReadTree[tuple[int, ...]] = ReadTree()
    known = set()
    for disk in disks:
        reads: dict[int, None] = {}
        verdict = wander(disk, reads)
        found = tree.find(disk)
        read = tuple((b, disk.get(b, 0)) for b in reads)
        assert found == (verdict if read in known else None)
        if found is None:
            tree.add(tuple(reads), disk, verdict)
            known.add(read)


def test_prune_tree_sees_an_impure_inspection() -> None:
    tree: ReadTree[str] = ReadTree()
    tree.add((1, 2), {1: 7, 2: 7}, "a")
    tree.add((1, 3), {1: 8, 3: 7}, "b")
    with pytest.raises(Impure):
        tree.add((1, 3), {1: 7, 3: 9}, "c")
    with pytest.raises(Impure):
        tree.add((2, 1), {1: 9, 2: 9}, "c")
    with pytest.raises(Impure):
        tree.add((1, 2), {1: 7, 2: 7}, "a")


def test_prune_view_notes_what_is_read() -> None:
    below = {1: b"one", 2: b"two", 3: b"three"}
    view = View(below)
    twin = view.copy()
    twin[2] = b"new"
    assert (view.get(1), twin.get(2), twin.get(9, b"")) == (b"one", b"new", b"")
    assert view.reads == (1, 9)
    assert view[2] == b"two"
    view.detach()
    below[1] = b"later"
    assert view[1] == b"one"
    assert twin.get(9) is None
    with pytest.raises(Impure):
        view.get(3)
    whole = View(below)
    assert dict(whole) == below
    assert whole.reads is None


@given(st.lists(st.integers(0, 30), max_size=200))
def test_prune_bounded_memory(keys: list[int]) -> None:
    memory: Bounded[int, int] = Bounded(10)
    for key in keys:
        assert memory.get(key) in (None, -key - 1)
        memory.put(key, -key - 1)
        assert memory.get(key) == -key - 1
        assert len(memory._young) + len(memory._old) <= 10


# -- the loop


def verdicts(subject: Any, plan: Any) -> Iterator[tuple[State, list[str]]]:
    """Every state, each looked at for itself."""
    cutter = Cutter(subject.base, subject.events, random.Random(1), plan)
    for state in cutter.states(subject.asks):
        disk = RawDisk(dict(state.image), subject.blocks)
        disk.recover()
        yield state, subject.inspect(disk)[0]


@pytest.mark.parametrize("make", [trial, toy])
@pytest.mark.parametrize("broken", [False, True])
def test_explore_prunes_nothing_that_differs(make: Any, broken: bool) -> None:
    """With and without pruning the same states are broken."""
    subject = make()
    events = subject.events
    if broken:
        subject.events = unflushed(events)
    try:
        plan = replace(QUICK, torn=0)
        slow = {(s.event, s.choice) for s, wrong in verdicts(subject, plan) if wrong}
        stats = explore(subject, 1, plan=plan, mount_every=1 << 30, stop_at=1 << 30)
        fast = {f.event for f in stats.failures if not f.wrong[0].startswith("audit")}
        assert bool(slow) == broken
        assert not [f for f in stats.failures if f.wrong[0].startswith("audit")]
        # Of states that look the same the first one tells.
        assert (min(e for e, _ in slow) in fast) if broken else not stats.failures
        assert stats.pruned
        assert stats.generated == stats.pruned + stats.checked
    finally:
        subject.events = events


def test_explore_counts_add_up() -> None:
    stats = explore(trial(), 1, plan=replace(FULL, depth=1), mount_every=1 << 30)
    assert not stats.failures, stats.failures[0]
    assert stats.generated == stats.pruned + stats.checked
    assert stats.pruned > 3 * stats.checked
    assert 0.005 * stats.pruned < stats.audited < 0.02 * stats.pruned
    assert not stats.left_out
    some = explore(trial(), 1, plan=replace(MIDDLE, states=100), mount_every=1 << 30)
    assert some.left_out
    assert some.generated <= 100
    total = Stats()
    total.add(stats)
    total.add(some)
    assert total.checked == stats.checked + some.checked


def test_explore_audit_sees_wrong_pruning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts handed to disks that they don't belong to; a key that misses what differs."""
    monkeypatch.setattr(exploring, "AUDIT", 1.0)
    few = replace(QUICK, exhaustive=4)
    assert not explore(trial(), 1, plan=few, mount_every=1 << 30).failures
    with monkeypatch.context() as patch:
        real = Known.alike

        def careless(self: Known, state: State) -> Any:
            return real(self, state) or self.keys.get(next(iter(self.keys._young), 0))

        patch.setattr(Known, "alike", careless)
        failure = explore(trial(), 1, plan=few, mount_every=1 << 30).failures[0]
        assert failure.wrong[0].startswith("audit: pruned, but ")
    with monkeypatch.context() as patch:
        put = Cutter._put

        def blind(self: Cutter, block: int, data: bytes, value: int) -> None:
            put(self, block, data, self.digest.get(block, 0) if block % 2 else value)

        patch.setattr(Cutter, "_put", blind)
        failure = explore(trial(), 1, plan=few, mount_every=1 << 30).failures[0]
        assert "the key of the image is not that of its bytes" in failure.wrong[0]


def test_explore_shares_between_workloads() -> None:
    memo = Memo()
    alone = explore(trial(SEVERAL[:-1]), 1, plan=MIDDLE, mount_every=1 << 30)
    explore(trial(), 1, plan=MIDDLE, mount_every=1 << 30, memo=memo)
    after = explore(trial(SEVERAL[:-1]), 1, plan=MIDDLE, mount_every=1 << 30, memo=memo)
    assert after.generated == alone.generated
    assert after.checked < alone.checked / 10
    assert after.promises < alone.promises / 3
    assert not after.failures


def test_explore_memory_is_bounded() -> None:
    """Little is remembered: more is looked at, and nothing else is found."""
    memo = Memo(most=10)
    stats = explore(trial(), 1, plan=replace(MIDDLE, states=400), mount_every=1 << 30, memo=memo)
    free = explore(trial(), 1, plan=replace(MIDDLE, states=400), mount_every=1 << 30)
    assert not stats.failures
    assert stats.generated == free.generated
    assert stats.checked > free.checked
    (known,) = memo.families.values()
    assert known._tree.size <= 11
    assert len({id(v) for part in (known.keys._young, known.keys._old) for v in part.values()}) < 30


def test_explore_shared_verdicts_still_fail() -> None:
    """A finding is told to each workload that shows it."""
    memo = Memo()
    for _ in range(2):
        subject = Shared(SEVERAL)
        subject.events = unflushed(subject.events)
        stats = explore(subject, 1, mount_every=1 << 30, memo=memo)
        assert stats.failures


def erasing_first(p: pytest.MonkeyPatch) -> None:
    """Recovery gives up the log before what it holds is in place: right, unless it is cut."""
    real: Any = vars(xn)["recover"]

    def recover(device: BlockDevice, *rest: Any) -> Any:
        log: Any = rest[1]
        before = MemoryDevice(device.blocks)
        for number in range(device.blocks):
            page = bytearray(4096)
            device.read(number, [memoryview(page)])
            before.write(number, [bytes(page)])
        aside = before.fork()
        swapped, log._device = log._device, aside
        result: Any = real(aside, *rest)
        log._device = swapped
        changed = [b for b in range(device.blocks) if aside._contents[b] != before._contents[b]]
        if changed:
            for number in range(1, 17):
                device.write(number, [bytes(4096)])
            device.flush()
            for number in changed:
                if number > 16:
                    device.write(number, [aside._contents[number]])
            device.flush()
        return (
            (device, *result[1:]) if isinstance(result, tuple) else replace(result, device=device)
        )

    p.setattr(xn, "recover", recover)


def test_explore_cuts_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = trial()
    plan = replace(QUICK, torn=0, third=0.0)
    erasing_first(monkeypatch)
    assert not explore(subject, 1, plan=plan, mount_every=1 << 30).failures
    failure = explore(subject, 1, plan=replace(plan, depth=2), mount_every=1 << 30).failures[0]
    assert failure.before is not None
    assert failure.before.before is None
    assert failure.before.events == subject.events
    assert all(isinstance(e, Write) and e.block <= 16 for e in failure.events[:16])
    assert "wrong: " in str(failure)


class Promising:
    """A disk whose recovery writes block 101; from the sync on, nobody may see that."""

    def __init__(self) -> None:
        self.base = trial().base
        self.events: list[Event] = [Write(100, b"a" * 4096), Flush(), Write(102, b"c" * 4096)]
        self.marks, self.asks = [0], [2]

    def inspect(self, disk: RawDisk) -> tuple[list[str], object]:
        return [], disk.block(101)[:1]

    def promise(self, shown: object, cut: Cut) -> list[str]:
        return ["seen"] if shown == b"b" and cut.event >= 2 else []

    def mount(
        self, image: dict[int, bytes], recovered: Mapping[int, bytes], shown: object
    ) -> list[str]:
        return []

    def describe(self) -> list[str]:
        return []


def test_explore_asks_again_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk was looked at, and its recovery cut, before the sync returned."""
    after = (Write(101, b"b" * 4096), Flush(), Write(101, b"d" * 4096))

    def recover(image: Mapping[int, bytes], blocks: int) -> Recovery:
        due = image.get(100) == b"a" * 4096 and image.get(101) != b"d" * 4096
        return Recovery(after if due else (), (), {}, (100, 101))

    monkeypatch.setattr(exploring, "recover", recover)
    plan = replace(QUICK, torn=0, depth=2)
    assert not explore(Promising(), 1, plan=replace(plan, depth=1), mount_every=1 << 30).failures
    failure = explore(Promising(), 1, plan=plan, mount_every=1 << 30).failures[0]
    assert (failure.event, failure.wrong) == (2, ["if recovery is cut: seen"])


def test_explore_third_cuts_and_collections() -> None:
    plan = replace(QUICK, depth=2, third=0.0)
    two = explore(trial(), 1, plan=plan, mount_every=1 << 30)
    three = explore(trial(), 1, plan=replace(plan, third=1.0), mount_every=1 << 30)
    collected = explore(trial(), 1, plan=replace(plan, again=20), mount_every=4)
    for stats in (two, three, collected):
        assert not stats.failures, stats.failures[0]
    assert 0 < two.deeper < three.deeper
    assert collected.mounted
    assert two.deeper < collected.deeper


def test_explore_inspection_that_remembers_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it reads depends on what it was asked before."""
    real, turns = FfsTrial.inspect, iter(range(1, 1 << 20))

    def inspect(self: FfsTrial, disk: RawDisk) -> tuple[list[str], object]:
        disk.block(20 + next(turns) // 4)
        return real(self, disk)

    monkeypatch.setattr(FfsTrial, "inspect", inspect)
    failure = explore(trial(), 1, mount_every=1 << 30).failures[0]
    assert failure.wrong[0].startswith("the inspection depends on more than the image: block ")


@pytest.mark.parametrize(
    ("method", "what"), [("inspect", "inspection"), ("promise", "asking"), ("mount", "mount")]
)
def test_explore_look_that_fails_is_a_finding(
    method: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FfsTrial, method, lambda *args: 1 / 0)
    failure = explore(trial(), 1).failures[0]
    assert failure.wrong == [f"{what} failed: ZeroDivisionError: division by zero"]


def test_explore_failure_tells_a_story() -> None:
    subject = Shared(SEVERAL)
    kept = subject.events = unflushed(subject.events)
    failure = explore(subject, 7, workload="several", mount_every=1 << 30).failures[0]
    assert (failure.seed, failure.workload) == (7, "several")
    assert stating.image_key(failure.image)
    pending = {i for i in range(failure.event) if isinstance(kept[i], Write)}
    assert set(failure.lost) <= pending
    assert str(failure).startswith(f"seed 7, several: cut after event {failure.event} ")
