"""Other system calls while a sync waits for the device: the lock is released during a flush.

The calls of the others are made from inside `flush`, on the same thread, so that every run is the
same. They come after the flush of the recorded device, so a cut may lose all that they wrote.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from tests.disk.xn_actor import OPS, Actor
from tests.disk.xn_crash import Run, Sync, explore
from tests.disk.xn_kit import DATA, NODE, Kit, extent, fill, image, slot
from xnfs import BLOCK, MemoryDevice, NotFree
from xnfs.disk.recording import RecordingDevice
from xnfs.disk.stacked import StackedDevice

QUIET = tuple(op for op in OPS if op not in ("sync", "collect"))


class OpenDoor(StackedDevice):
    """Lets somebody in at the end of each flush."""

    visit: Callable[[], None] | None = None

    def flush(self) -> None:
        """See BlockDevice."""
        self.below.flush()
        if self.visit is not None:
            self.visit()


class Visitor(Actor):
    """Makes no call that waits for the commit that is under way."""

    def step(self) -> None:
        """One random call."""
        self.op += 1
        getattr(self, "do_" + self.rng.choice(QUIET))()
        self.states.append(self.model.state())


def concurrent_workload(seed: int, steps: int) -> Run:
    """Random calls, and syncs during which the same user makes more of them."""
    disk = RecordingDevice(image(128, log_blocks=64))
    door = OpenDoor(disk)
    kit = Kit(door)
    actor = Visitor(kit, seed, partial=True)
    rng = random.Random(seed)
    run = Run(actor, disk, [], [0] * actor.op + [0])

    def step() -> None:
        actor.step()
        run.ends.append(len(disk.events))

    def visit() -> None:
        for _ in range(rng.randrange(4)):
            if kit.xn.stats()["attached_dirty"] < 20:
                step()

    for _ in range(steps):
        for _ in range(rng.randrange(1, 5)):
            step()
        some = rng.random() < 0.4
        nodes = [b for b in actor.model.nodes if rng.random() < 0.4] if some else None
        sync = Sync(len(disk.events), None, len(actor.states) - 1, nodes)
        run.syncs.append(sync)
        door.visit = visit
        kit.sync(nodes)
        door.visit = None
        sync.end = len(disk.events)
    return run


@pytest.mark.parametrize("seed", range(12))
def test_concurrency_cuts_around_calls_during_a_flush(seed: int) -> None:
    assert explore(concurrent_workload(seed, 14), seed, budget=2, stride=3) > 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_concurrency_cuts_around_calls_during_a_flush_long(seed: int) -> None:
    explore(concurrent_workload(seed, 40), seed, budget=5)


class Gate(StackedDevice):
    """A flush that ends when it is told to."""

    def __init__(self, below: MemoryDevice) -> None:
        super().__init__(below)
        self.closed = False
        self.begun, self.open = threading.Event(), threading.Event()

    def flush(self) -> None:
        """See BlockDevice."""
        if self.closed:
            self.begun.set()
            assert self.open.wait(20)
        self.below.flush()


def test_concurrency_a_sync_does_not_stop_reads_and_changes() -> None:
    gate = Gate(image())
    kit = Kit(gate)
    kit.data(kit.root, 0, b"old")
    gate.closed = True
    syncer = threading.Thread(target=kit.sync)
    syncer.start()
    assert gate.begun.wait(20)
    child = kit.node(kit.root, 1)
    start = kit.data(child, 0, b"new")
    assert kit.xn.read(kit.me, start, 0, BLOCK) == fill(b"new")
    assert syncer.is_alive()
    gate.closed = False
    gate.open.set()
    syncer.join(20)
    assert not syncer.is_alive()
    kit.sync()
    found = kit.reopen()
    found.load(found.root)
    assert found.slots(found.root)[1] == (NODE, child, 1)
    assert found.slots(child)[0] == (DATA, start, 1)


def test_concurrency_syncs_of_many_threads_end() -> None:
    kit = Kit(image(256, log_blocks=16))
    parents = [kit.node(kit.root, i) for i in range(4)]
    failures: list[BaseException] = []
    finding = threading.Lock()  # to find a free block and to take it are two calls

    def work(parent: int) -> None:
        try:
            for turn in range(30):
                with finding:
                    kit.data(parent, turn, b"%d" % parent)
                kit.sync([parent] if turn % 2 else None)
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(p,)) for p in parents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    found = kit.reopen()
    found.load(found.root)
    for parent in parents:
        assert len(found.slots(parent)) == 30


def test_concurrency_the_collector_hears_of_pointers_during_its_own_commit() -> None:
    door = OpenDoor(image())
    kit = Kit(door)
    dead = kit.data(kit.root, 0, b"dead")
    other = kit.data(kit.root, 1, b"other")
    kit.sync()
    assert not kit.xn.collect(kit.admin, 0).done  # what it has to look at is known from here on
    kit.free(kit.root, 0)
    kit.sync()
    kit.xn.write_raw(kit.me, other, 0, b"something to commit")

    visits: list[int] = []

    def visit() -> None:
        door.visit = None
        visits.append(dead)
        claim = [extent(DATA, dead)]
        kit.xn.alloc(kit.me, kit.root, [slot(2, DATA, dead)], claim)

    door.visit = visit
    while not (status := kit.xn.collect(kit.admin, 8)).done:
        pass
    assert visits == [dead]
    assert status.freed == 0
    assert kit.xn.refs(dead) == 1
    with pytest.raises(NotFree):
        kit.xn.alloc(kit.me, kit.root, [slot(3, DATA, dead)], [extent(DATA, dead)])
