"""An object goes from one root to another: for whom, when, and what a power cut leaves."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import combinations

import pytest

from tests.disk.xn_crash import block_of
from tests.disk.xn_kit import DATA, HIDDEN, NODE, Kit, extent, image, slot, slots_of
from xnfs import ALLOC, BLOCK, READ, WRITE, Caller, CapabilityError, NoFrames, NotCached, Refused
from xnfs.disk.device import BlockDevice, MemoryDevice
from xnfs.disk.fsck import check_image
from xnfs.disk.fsck_walk import Finding
from xnfs.disk.recording import RecordingDevice


class Two:
    """Alice's root has a node with a node and data below it; Bob's is empty; the admin has both."""

    def __init__(self) -> None:
        self.disk = RecordingDevice(image(roots=("alice", "bob")))
        self.a = Kit(self.disk, root="alice")
        self.xn, self.alice, self.admin = self.a.xn, self.a.me, self.a.admin
        info = self.xn.mount_root(self.admin, "bob")
        self.bob, self.bobs = Caller(info.cap), info.block
        self.top = self.a.node(self.a.root, 0)
        self.inner = self.a.node(self.top, 0)
        self.data = self.a.data(self.inner, 0, b"the letter", 2)
        self.hidden = self.a.add(self.inner, 1, HIDDEN, 3)
        self.a.sync()

    def cross(self, who: Caller | None = None) -> None:
        """The node goes to Bob."""
        pointer = slot(0, NODE, self.top)
        self.xn.move(who or self.admin, self.a.root, [slot(0)], self.bobs, [pointer])


@pytest.fixture
def two() -> Two:
    return Two()


def test_crossing_changes_who_may_name_it(two: Two) -> None:
    frames = two.a.pool.used("alice")
    two.cross()
    xn = two.xn
    assert two.a.pool.used("bob") == 4
    assert two.a.pool.used("alice") == frames - 4
    for block in (two.top, two.inner, two.data, two.data + 1):
        with pytest.raises(CapabilityError):
            xn.read(two.alice, block, 0, 1)
        assert xn.read(two.bob, block, 0, BLOCK)
    with pytest.raises(CapabilityError):
        xn.write_raw(two.alice, two.data, 0, b"x")
    xn.write_raw(two.bob, two.data, 0, b"THE")
    xn.free(two.bob, two.inner, [slot(1)], [extent(HIDDEN, two.hidden, 3)])
    xn.sync(two.admin)
    assert xn.evict(two.bob, [two.data + 1, two.data, two.inner, two.top]) == 4
    xn.readin(two.bob, two.bobs, 0, two.top, 1)
    xn.readin(two.bob, two.top, 0, two.inner, 1)
    xn.readin(two.bob, two.inner, 0, two.data, 2)
    assert xn.read(two.bob, two.data, 0, 10) == b"THE letter"
    with pytest.raises(CapabilityError):
        xn.readin(two.alice, two.top, 0, two.inner, 1)
    xn.close()
    assert _findings(two.disk.below) == []


def test_crossing_needs_both_roots(two: Two) -> None:
    for who in (two.alice, two.bob):
        with pytest.raises(CapabilityError):
            two.cross(who)
    poor = two.xn.mount_root(Caller(two.admin.cap), "bob").cap
    with pytest.raises(CapabilityError):
        two.cross(Caller(poor))
    # Rights over everything, but not to enlarge anything.
    writer = two.xn._caps.narrow(two.admin.cap, ("disk",), READ | WRITE)
    with pytest.raises(CapabilityError):
        two.cross(Caller(writer))
    two.cross(Caller(two.xn._caps.narrow(two.admin.cap, ("disk",), READ | WRITE | ALLOC)))


def test_crossing_refuses_what_others_own_or_hold(two: Two) -> None:
    xn = two.xn
    prepare: list[tuple[Callable[[], object], Callable[[], object]]] = [
        (
            lambda: two.a.share(two.a.root, 5, NODE, two.inner),
            lambda: two.a.free(two.a.root, 5),
        ),
        (
            lambda: two.a.share(two.a.root, 5, DATA, two.data),
            lambda: two.a.free(two.a.root, 5),
        ),
        (lambda: xn.hold(two.alice, two.inner), lambda: xn.drop(two.alice, two.inner)),
        (lambda: xn.lock(two.alice, two.data), lambda: xn.unlock(two.alice, two.data)),
    ]
    for before, after in prepare:
        before()
        with pytest.raises(Refused):
            two.cross()
        after()
        with pytest.raises(CapabilityError):
            xn.read(two.bob, two.top, 0, 1)
        xn.sync(two.admin)
    two.cross()


def test_crossing_needs_to_see_all_of_it(two: Two) -> None:
    two.xn.evict(two.alice, [two.inner])
    with pytest.raises(NotCached):
        two.cross()
    two.xn.readin(two.alice, two.top, 0, two.inner, 1)
    two.xn.evict(two.alice, [two.data, two.data + 1])  # data need not be there
    two.cross()
    two.xn.readin(two.bob, two.inner, 0, two.data, 2)
    assert two.xn.read(two.bob, two.data, 0, 10) == b"the letter"


def test_crossing_is_all_that_a_change_of_two_roots_does(two: Two) -> None:
    free = two.a.find()
    edits = [(two.a.root, [slot(0)]), (two.bobs, [slot(0, NODE, two.top), slot(1, DATA, free)])]
    with pytest.raises(Refused, match="several roots"):
        two.xn.change(two.admin, edits, alloc=[extent(DATA, free)])
    with pytest.raises(Refused, match="several roots"):
        two.xn.change(
            two.admin, [(two.a.root, []), (two.bobs, [slot(0, NODE, two.top)])],
            share=[extent(NODE, two.top)],
        )  # fmt: skip
    with pytest.raises(Refused, match="several roots"):
        two.xn.change(
            two.admin, [(two.top, [slot(0)]), (two.bobs, [])], free=[extent(NODE, two.inner)]
        )


def test_crossing_survives_every_cut(two: Two) -> None:
    """Whatever reached the disk: one of the two has it, whole, and fsck finds no fault."""
    two.xn.sync(two.admin)
    start = len(two.disk.events)
    two.cross()
    two.xn.sync(two.admin)
    seen = set()
    for cut in range(start, len(two.disk.events) + 1):
        pending = [event.id for event in two.disk.pending(cut)]
        subsets = [s for n in range(len(pending) + 1) for s in combinations(pending, n)]
        if len(subsets) > 64:
            subsets = random.Random(cut).sample(subsets, 64)
        for subset in subsets:
            seen.add(_owner_after(two, two.disk.image_at(cut, subset)))
    assert seen == {"alice", "bob"}


def _owner_after(two: Two, disk: MemoryDevice) -> str:
    kit = Kit(disk, root="alice")
    bobs = kit.xn.mount_root(kit.admin, "bob").block
    owners = [
        name
        for name, block in (("alice", kit.root), ("bob", bobs))
        if slots_of(kit.xn.read(kit.admin, block, 0, BLOCK)).get(0) == (NODE, two.top, 1)
    ]
    (owner,) = owners
    kit.xn.close()
    assert _findings(disk) == []
    assert block_of(disk, two.data).startswith(b"the letter")
    return owner


def _findings(disk: BlockDevice) -> list[Finding]:
    found: list[Finding] = []
    check_image(disk, repair=False, report=found.append)
    return found


def test_frames_are_counted_by_root() -> None:
    kit = Kit(image(roots=("alice", "bob")), root="alice")
    assert kit.pool.used("alice") == 0  # the root's own block was read by the kernel
    kit.node(kit.root, 0)
    assert kit.pool.used("alice") == 1
    kit.pool.set_quota("alice", 2)
    kit.node(kit.root, 1)
    with pytest.raises(NoFrames):
        kit.node(kit.root, 2)
    info = kit.xn.mount_root(kit.admin, "bob")
    kit.xn.alloc(
        Caller(info.cap), info.block, [slot(0, NODE, kit.find())], [extent(NODE, kit.find())]
    )
