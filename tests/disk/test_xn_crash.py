"""Power cuts at every write, without any file system: what DESIGN section 5 promises."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from tests.disk.xn_crash import (
    Broken,
    Judge,
    Run,
    Walker,
    block_of,
    examine,
    explore,
    lives,
    record,
    recover,
)
from tests.disk.xn_kit import DATA, HIDDEN, NODE, RAW, Kit, extent, fill, image, slot
from xnfs import Caller, MemoryDevice
from xnfs.disk.fsck import check_image
from xnfs.disk.recording import RecordingDevice

LOGS = (16, 8, 6, 4)  # blocks of log: 7, 3, 2, 1 images


def workload(seed: int, steps: int = 60) -> Run:
    frames = 14 if seed % 5 == 4 else 256
    base = image(96 + seed % 2 * 32, log_blocks=LOGS[seed % 4])
    return record(seed, steps, base, partial=seed % 3 != 0, frames=frames)


@pytest.mark.parametrize("seed", range(16))
def test_crash_random_workloads(seed: int) -> None:
    assert explore(workload(seed), seed, budget=2, stride=4) > 5


@pytest.mark.parametrize("seed", range(16))
def test_crash_several_lives(seed: int) -> None:
    """What a cut leaves is the beginning of the next life: leaks, counts too high, an old log."""
    lives(seed, 5, 25, image(log_blocks=LOGS[seed % 4]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_crash_random_workloads_long(seed: int) -> None:
    explore(workload(seed, 150), seed, budget=6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_crash_several_lives_long(seed: int) -> None:
    lives(seed, 30, 40, image(log_blocks=LOGS[seed % 4]), budget=4)


# --- stories --------------------------------------------------------------------------------


class Story(Kit):
    """A recorded image; `every_disk` gives all that a cut may leave, after what is durable now."""

    def __init__(self, log_blocks: int = 16) -> None:
        self.disk = RecordingDevice(image(log_blocks=log_blocks))
        super().__init__(self.disk)
        self.start = 0

    def begin(self) -> None:
        """All is durable: cuts come from here on."""
        self.sync()
        self.start = len(self.disk.events)

    def every_disk(self, limit: int = 4) -> list[MemoryDevice]:
        """At each event all subsets of at most `limit` pending writes, else some."""
        rng = random.Random(1)
        out = []
        for cut in range(self.start, len(self.disk.events) + 1):
            pending = [e.id for e in self.disk.pending(cut)]
            if len(pending) <= limit:
                keeps = [set(c) for n in range(limit + 1) for c in combinations(pending, n)]
            else:
                keeps = [{e for e in pending if rng.random() < p} for p in (0, 0.2, 0.5, 0.8, 1)]
            out += [self.disk.image_at(cut, keep) for keep in keeps]
        return out

    def trees(self) -> list[dict[int, dict[int, tuple[int, int, int]]]]:
        """What each of these disks shows after recovery: node -> slots. No leak is left."""
        out = []
        for disk in self.every_disk():
            xn = recover(disk)
            tree = Walker(disk).walk()
            out.append({block: slots for block, (_i, _v, slots) in tree.nodes.items()})
            while not xn.collect(Caller(xn.admin), 99).done:
                pass
            xn.close()
            walker = Walker(disk)
            walker.check_exact(walker.walk())
        return out

    def shape(self) -> dict[int, dict[int, tuple[int, int, int]]]:
        """What is in memory."""
        todo, out = [self.root], {}
        while todo:
            block = todo.pop()
            out[block] = self.slots(block)
            todo += [s for k, s, _n in out[block].values() if k == NODE and s not in out]
        return out


def test_crash_moves_in_a_circle() -> None:
    """mv a/x b/; mv b/y a/: ordered pointer by pointer this would be a cycle."""
    story = Story()
    a, b = story.node(story.root, 0), story.node(story.root, 1)
    story.node(a, 0)
    story.node(b, 0)
    story.begin()
    before = story.shape()
    story.move(a, 0, b, 1)
    story.move(b, 0, a, 1)
    after = story.shape()
    story.sync([a])
    trees = story.trees()
    assert all(tree in (before, after) for tree in trees)
    assert trees[0] == before
    assert trees[-1] == after


def test_crash_move_out_of_a_directory_that_is_freed() -> None:
    story = Story()
    a = story.node(story.root, 0)
    x = story.node(a, 0)
    story.data(x, 0, b"precious")
    story.begin()
    before = story.shape()
    story.move(a, 0, story.root, 1)
    story.free(story.root, 0)
    after = story.shape()
    story.sync([x])
    assert all(tree in (before, after) for tree in story.trees())


def test_crash_freed_blocks_are_not_lent_before_the_commit() -> None:
    """R1: the old tree stays whole until the new one is durable, however often that happens."""
    story = Story()
    story.begin()
    shapes = [story.shape()]
    for i in range(6):
        if i:
            story.free(story.root, i - 1)
        story.data(story.root, i, b"text %d" % i, 6)
        shapes.append(story.shape())
        if i % 2:
            story.sync()
    trees = story.trees()
    assert all(tree in shapes for tree in trees)


def test_crash_a_second_name_and_the_end_of_the_first() -> None:
    """R5: rename as link and unlink, committed apart."""
    story = Story()
    a, b = story.node(story.root, 0), story.node(story.root, 1)
    x = story.node(a, 0)
    story.begin()
    story.share(b, 0, NODE, x)
    story.sync([b])
    story.free(a, 0)
    story.sync([a])
    for tree in story.trees():
        assert x in tree


def test_crash_retype_shows_zeros_or_text() -> None:
    story = Story()
    node = story.node(story.root, 0)
    run = story.add(node, 0, HIDDEN, 4)
    story.begin()
    story.xn.change(
        story.me,
        [(node, [slot(0, HIDDEN, run, 1), slot(1, DATA, run + 1, 2), slot(2, HIDDEN, run + 3)])],
        free=[extent(HIDDEN, run + 1, 2)],
        alloc=[extent(DATA, run + 1, 2)],
    )
    story.xn.write_raw(story.me, run + 1, 0, b"text")
    story.sync([node])
    seen = set()
    for disk in story.every_disk():
        kit = Kit(disk)
        kit.load(kit.root)
        if 1 in kit.slots(node):
            seen.add(kit.xn.read(kit.me, run + 1, 0, 8))
            assert kit.xn.read(kit.me, run + 2, 0, 8) == bytes(8)
    assert seen == {b"text\0\0\0\0"}


def test_crash_relocations_in_a_chain() -> None:
    story = Story()
    node = story.node(story.root, 0)
    child = story.node(node, 0)
    story.begin()
    at = node
    for i in range(5):
        new = story.find()
        story.xn.relocate(story.me, story.root, [slot(0, NODE, new)], at, new)
        at = new
        if i % 2:
            story.sync([at])
    for tree in story.trees():
        top = tree[story.root][0][1]
        assert tree[top] == {0: (NODE, child, 1)}


def test_crash_held_blocks_leave_nothing() -> None:
    story = Story()
    node = story.node(story.root, 0)
    story.data(node, 0, b"x")
    story.begin()
    story.xn.hold(story.me, node)
    story.xn.free(story.me, story.root, [slot(0)], [extent(NODE, node)])
    story.sync()
    story.data(node, 1, b"y")
    story.sync()
    story.share(story.root, 5, NODE, node)
    story.sync()
    story.xn.drop(story.me, node)
    story.sync()
    shapes = [{0: (NODE, node, 1)}, {}, {5: (NODE, node, 1)}]
    for tree in story.trees():
        assert tree[story.root] in shapes
        if 5 in tree[story.root]:
            assert set(tree[node]) == {0, 1}


@pytest.mark.parametrize("log_blocks", LOGS)
def test_crash_a_log_too_small_commits_in_between(log_blocks: int) -> None:
    story = Story(log_blocks)
    nodes = [story.node(story.root, i) for i in range(5)]
    story.begin()
    for node in nodes:
        story.xn.update(story.me, node, [(RAW[0], b"x")])
        story.data(node, 0, b"x")
    story.sync()
    for tree in story.trees():
        assert set(tree) == {story.root, *nodes}


def test_crash_an_undone_transaction_is_never_found_again() -> None:
    """It is whole in the log, but its fresh blocks may be written over from now on."""
    story = Story()
    held = story.node(story.root, 0)
    story.sync()
    story.xn.hold(story.me, held)
    story.xn.free(story.me, story.root, [slot(0)], [extent(NODE, held)])
    story.begin()
    story.xn.update(story.me, held, [(RAW[0], b"x")])
    story.node(story.root, 1)
    story.sync()
    flush = next(e.id for e in story.disk.events[story.start :] if e.is_flush)
    area = story.xn.data_area
    pending = story.disk.pending(flush)
    log = [e.id for e in pending if e.block is not None and e.block < area[0]]
    second = RecordingDevice(story.disk.image_at(flush, log))
    kit = Kit(second)
    assert kit.xn.recovered == "undone"
    assert kit.xn.collect(kit.admin, 99).freed == 1
    kit.xn.alloc(kit.me, kit.root, [slot(2, NODE, held)], [extent(NODE, held)])
    start = len(second.events)
    kit.sync()
    for cut in range(start, len(second.events)):
        for e in second.pending(cut):
            disk = second.image_at(cut, [e.id])
            recover(disk)
            tree = Walker(disk).walk()
            assert tree.nodes[kit.root][2] in ({}, {2: (NODE, held, 1)})


def test_crash_a_damaged_log_brings_nothing_old_back() -> None:
    """The half with the newest transaction is lost: the one before must not be taken for it."""
    story = Story()
    node = story.node(story.root, 0)
    story.begin()
    for i in range(2):
        story.data(node, i, b"text")
        story.sync()
    cut = len(story.disk.events)
    disk = story.disk.image_at(cut, [e.id for e in story.disk.pending(cut)])
    log = story.xn._committer._log
    disk.write(log._base(story.xn._committer.seq), [bytes(4096)])
    before = disk.fork()
    assert recover(disk).recovered == "nothing"
    assert all(block_of(disk, b) == block_of(before, b) for b in range(disk.blocks))
    assert set(Walker(disk).walk().nodes[node][2]) == {0, 1}


def test_crash_a_log_emptied_in_part_brings_no_old_tables_back() -> None:
    """The last transaction of a mount may have tables only, which no stamp tells from others."""
    disk = RecordingDevice(image())
    kit = Kit(disk)
    kit.node(kit.root, 0)
    kit.sync()
    kit.free(kit.root, 0)
    kit.node(kit.root, 1)
    kit.sync()  # with the map: the new node is taken, the old one not yet free
    kit.xn.close()
    cut = len(disk.events)
    emptying = [e.id for e in disk.pending(cut)]
    assert len(emptying) == 2
    for done in ([], emptying[:1], emptying[1:], emptying):
        left = disk.image_at(cut, done)
        before = left.fork()
        assert recover(left).recovered == "nothing"
        assert all(block_of(left, b) == block_of(before, b) for b in range(left.blocks))
        assert check_image(before, repair=False, report=print).clean


def test_crash_tails_overwritten_right_after_their_sync() -> None:
    """The newest transaction lists the block, or has an image of it: no sync of it is lost."""
    story = Story()
    start = story.data(story.root, 0, b"text 0")
    story.sync()
    synced = [(len(story.disk.events), 0)]
    story.start = synced[0][0]
    for turn in range(1, 6):
        story.xn.write_raw(story.me, start, 0, b"text %d" % turn)
        if turn == 3:
            story.xn.update(story.me, story.root, [(RAW[0], b"x")])
        story.xn.writeback(story.me, [start])
        story.sync([start] if turn % 3 else None)
        synced.append((len(story.disk.events), turn))
    for cut in range(story.start, len(story.disk.events) + 1):
        least = max(turn for end, turn in synced if end <= cut)
        pending = [e.id for e in story.disk.pending(cut)]
        for n in range(3):
            for keep in combinations(pending, n):
                for chosen in (set(keep), set(pending) - set(keep)):
                    disk = story.disk.image_at(cut, chosen)
                    recover(disk)
                    turn = int(block_of(disk, start)[5:6])
                    assert least <= turn <= least + 1


def test_crash_what_recovery_left_in_the_log_is_known_to_the_next_life() -> None:
    """The images of the last transaction may be written once more: a sync of new bytes in their
    place goes through the log, also if the transaction is one of the life before the cut."""
    first = Story()
    start = first.data(first.root, 0, b"text 0")
    first.sync()
    first.xn.write_raw(first.me, start, 0, b"text 1")  # listed, so it goes through the log
    first.xn.update(first.me, first.root, [(RAW[0], b"x")])
    first.sync()
    end = len(first.disk.events)
    disk = first.disk.image_at(end, {event.id for event in first.disk.pending(end)})
    second = Kit(disk)
    second.load(second.root)
    second.xn.write_raw(second.me, start, 0, b"text 2")
    second.sync([start])
    assert block_of(disk, start)[:6] == b"text 2"
    recover(disk)
    assert block_of(disk, start)[:6] == b"text 2"


def test_crash_a_copy_is_whole_or_not_there() -> None:
    """R2 for blocks that were never filled, but lie in the frames of others."""
    story = Story()
    source = story.data(story.root, 0, b"source", 3)
    story.begin()
    target = story.find(3)
    story.xn.change(
        story.me,
        [(story.root, [slot(1, DATA, target, 3)])],
        alloc=[extent(DATA, target, 3)],
        copies=[(target, source, 3)],
    )
    story.xn.writeback(story.me, [target + 1])
    story.xn.write_raw(story.me, source, 0, fill(b"later"))
    story.sync()
    story.free(story.root, 0)
    story.sync()
    seen = set()
    for disk in story.every_disk():
        recover(disk)
        slots = Walker(disk).walk().nodes[story.root][2]
        seen.add(1 in slots)
        if 1 in slots:
            assert all(block_of(disk, target + i) == fill(b"source") for i in range(3))
    assert seen == {False, True}


def test_crash_images_in_place_are_evidence_enough() -> None:
    """What the newest transaction lists may be overwritten once its images are durable in place."""
    story = Story()
    old = story.data(story.root, 0, b"old")
    story.sync()
    story.data(story.root, 2, b"as it was")  # the one before could be redone, if it were asked
    story.sync()
    new = story.data(story.root, 1, b"new")
    story.begin()
    for block in (old, new):
        story.xn.write_raw(story.me, block, 0, b"again")
        story.sync([block])
    assert all(recover(disk).recovered != "undone" for disk in story.every_disk())
    for tree in story.trees():
        assert tree[story.root][1] == (DATA, new, 1)


def test_crash_the_same_bytes_again_prove_nothing() -> None:
    """An image that equals what is in place by chance says nothing of the transaction before."""
    story = Story()
    start = story.data(story.root, 0, b"same")
    story.begin()
    story.xn.write_raw(story.me, start, 0, b"same")
    story.sync([start])
    for tree in story.trees():
        assert tree[story.root][0] == (DATA, start, 1)


def test_crash_children_and_parents_by_either_name() -> None:
    """A child without first bytes: syncing it makes its name durable too, and the other way."""
    for which in (0, 1):
        story = Story()
        parent = story.node(story.root, 0)
        story.begin()
        child = story.node(parent, 0)
        story.sync([(parent, child)[which]])
        disk = story.disk.image_at(len(story.disk.events))
        recover(disk)
        assert child in Walker(disk).walk().nodes


def test_crash_the_judge_is_not_asleep() -> None:
    """Each check finds its own kind of lie."""
    run = workload(1)
    cut = len(run.disk.events)
    pending = [e.id for e in run.disk.pending(cut)]
    examine(run, cut, set(pending), {}, again=True)
    disk = run.disk.image_at(cut, pending)
    recover(disk)
    tree = Walker(disk).walk()
    judge = Judge(run, cut)
    judge.check(tree)
    judge.since = judge.latest
    for block, (node, version, slots) in list(tree.nodes.items()):
        tree.nodes[block] = (node, version + 1000, slots)
        with pytest.raises(Broken):
            judge.check(tree)
        tree.nodes[block] = (node, version, {**slots, 99: (DATA, 5, 1)})
        with pytest.raises(Broken):
            judge.check(tree)
        tree.nodes[block] = (node, version, slots)
