"""`copies`: new blocks of data that begin with the bytes of others, in the same frames."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.disk.xn_kit import DATA, HIDDEN, NODE, Kit, extent, fill, image, slot
from xnfs import BLOCK, Caller, CapabilityError, NoFrames, NotCached, Refused
from xnfs.disk.registry import Registry

Patch = pytest.MonkeyPatch


def copy(kit: Kit, index: int, source: int, count: int = 1, *, parent: int | None = None) -> int:
    """New blocks below `parent` (the root) with the bytes of `source`; the first of them."""
    start = kit.find(count)
    owner = kit.root if parent is None else parent
    kit.xn.change(
        kit.me,
        [(owner, [slot(index, DATA, start, count)])],
        alloc=[extent(DATA, start, count)],
        copies=[(start, source, count)],
    )
    return start


def text(kit: Kit, block: int, count: int = 1) -> bytes:
    return kit.xn.read(kit.me, block, 0, count * BLOCK)


def on_disk(kit: Kit, block: int) -> bytes:
    raw = bytearray(BLOCK)
    kit.device.read(block, [memoryview(raw)])
    return bytes(raw)


def test_copies_have_the_bytes_and_no_frames() -> None:
    kit = Kit()
    source = kit.data(kit.root, 0, b"copied", 5)
    free = kit.pool.free_frames
    target = copy(kit, 1, source, 5)
    assert text(kit, target, 5) == fill(b"copied") * 5
    assert kit.pool.free_frames == free
    kit = kit.reopen()
    kit.xn.readin(kit.me, kit.root, 1, target, 5)
    assert text(kit, target, 5) == fill(b"copied") * 5


def writes_stay_apart() -> None:
    kit = Kit()
    source = kit.data(kit.root, 0, b"old", 2)
    one, two = copy(kit, 1, source, 2), copy(kit, 2, source, 2)
    kit.xn.write_raw(kit.me, source, 10, b"source")
    kit.xn.write_raw(kit.me, one + 1, 0, fill(b"one"))
    kit.xn.write_raw(kit.me, two, BLOCK - 2, b"twos")
    old = fill(b"old")
    want = {
        source: old[:10] + b"source" + old[16:] + old,
        one: old + fill(b"one"),
        two: old[:-2] + b"twos" + old[2:],
    }
    assert {block: text(kit, block, 2) for block in want} == want
    kit.sync()
    assert {block: on_disk(kit, block) + on_disk(kit, block + 1) for block in want} == want


def test_copies_are_written_apart() -> None:
    writes_stay_apart()


def test_copies_frames_end_with_their_last_block() -> None:
    kit = Kit()
    source = kit.data(kit.root, 0, b"text")
    kit.sync()
    free = kit.pool.free_frames
    target = copy(kit, 1, source)
    assert kit.xn.evict(kit.me, [source]) == 0  # its frame holds the other block
    assert not kit.xn.cached(source)
    assert text(kit, target) == fill(b"text")
    kit.free(kit.root, 1)
    assert kit.pool.free_frames == free + 1


def test_copies_of_a_source_that_goes_in_the_same_change() -> None:
    kit = Kit()
    source = kit.data(kit.root, 0, b"moved")
    kit.sync()
    target = kit.find()
    kit.xn.change(
        kit.me,
        [(kit.root, [slot(0), slot(1, DATA, target)])],
        alloc=[extent(DATA, target)],
        free=[extent(DATA, source)],
        copies=[(target, source, 1)],
    )
    assert text(kit, target) == fill(b"moved")
    kit.sync()
    assert on_disk(kit, target) == fill(b"moved")


def blank_sources_are_zero() -> None:
    """A block that was allocated and never written: its frame still holds another's bytes."""
    kit = Kit()
    target = copy(kit, 1, kit.add(kit.root, 0, DATA))
    assert text(kit, target) == bytes(BLOCK)
    kit.sync()
    assert on_disk(kit, target) == bytes(BLOCK)


def test_copies_of_a_blank_block_are_zero() -> None:
    blank_sources_are_zero()


def test_copies_into_blocks_that_were_unreadable() -> None:
    kit = Kit()
    source = kit.data(kit.root, 0, b"text")
    run = kit.add(kit.root, 1, HIDDEN, 2)
    kit.xn.change(
        kit.me,
        [(kit.root, [slot(1, DATA, run, 2)])],
        alloc=[extent(DATA, run, 2)],
        free=[extent(HIDDEN, run, 2)],
        copies=[(run + 1, source, 1)],
    )
    assert text(kit, run, 2) == bytes(BLOCK) + fill(b"text")


def test_copies_need_a_frame_when_written() -> None:
    kit = Kit(frames=8)
    source = kit.data(kit.root, 0, b"text")
    target = copy(kit, 1, source)
    taken = kit.pool.alloc("test", kit.pool.free_frames)
    with pytest.raises(NoFrames):
        kit.xn.write_raw(kit.me, target, 0, b"x")
    assert text(kit, target) == text(kit, source) == fill(b"text")
    kit.pool.free(taken[:1])
    kit.xn.write_raw(kit.me, target, 0, b"x")
    assert text(kit, target) == b"x" + fill(b"text")[1:]
    assert text(kit, source) == fill(b"text")


def test_copies_what_is_refused() -> None:
    """Nothing has changed then."""
    kit = Kit(image(roots=("main", "other")))
    other = kit.xn.mount_root(kit.admin, "other")
    secret = kit.find()
    him = Caller(other.cap)
    kit.xn.alloc(him, other.block, [slot(0, DATA, secret)], [extent(DATA, secret)])
    source = kit.data(kit.root, 0, b"text", 2)
    node = kit.node(kit.root, 1)
    hidden = kit.add(kit.root, 2, HIDDEN)
    kit.sync()
    kit.xn.evict(kit.me, [source + 1])
    target = kit.find(2)
    new = [extent(DATA, target, 2)]
    edits = [(kit.root, [slot(3, DATA, target, 2)])]
    before = kit.slots(kit.root), kit.pool.free_frames, kit.xn.free_blocks()

    def refused(error: type[Exception], *copies: tuple[int, int, int]) -> None:
        with pytest.raises(error):
            kit.xn.change(kit.me, edits, alloc=new, copies=copies)
        assert (kit.slots(kit.root), kit.pool.free_frames, kit.xn.free_blocks()) == before

    refused(CapabilityError, (target, secret, 1))
    refused(Refused, (target, node, 1))
    refused(NotCached, (target, hidden, 1))
    refused(NotCached, (target, source, 2))
    refused(NotCached, (target, target, 1))
    refused(Refused, (source, source, 1))
    refused(Refused, (target + 2, source, 1))
    refused(Refused, (target, source, 1), (target, source, 1))
    refused(Refused, (target, source, 2**60))
    kit.xn.bind(kit.me, kit.root, 0, source, 2)
    before = kit.slots(kit.root), kit.pool.free_frames, kit.xn.free_blocks()
    refused(NotCached, (target + 1, source + 1, 1))
    with pytest.raises(Refused):
        kit.xn.change(
            kit.me, edits, alloc=new, inits={target: [(0, b"x")]}, copies=[(target, source, 1)]
        )
    below = kit.find()
    with pytest.raises(Refused):  # a new node can't begin with bytes that nobody has checked
        kit.xn.change(
            kit.me,
            [(kit.root, [slot(3, NODE, below)])],
            alloc=[extent(NODE, below)],
            copies=[(below, source, 1)],
        )
    # Who may read there may copy from there.
    both = Caller(kit.xn.admin)
    kit.xn.change(both, edits, alloc=new, copies=[(target, secret, 1)])
    assert text(kit, target) == bytes(BLOCK)


def calls_for(births: int) -> int:
    """How many functions a change calls that bears so many nodes, each with a block of data."""
    kit = Kit(image(1024), frames=1024)
    edits, alloc, inits, copies = [], [], {}, []
    source = kit.data(kit.root, 90, b"text")
    parents = [kit.node(kit.root, index) for index in range(4)]
    at = kit.find(births * 2)
    for parent in parents:
        diff = []
        for index in range(births // 4):
            node, data = at, at + 1
            diff.append(slot(index, NODE, node))
            alloc += [extent(NODE, node), extent(DATA, data)]
            inits[node] = [slot(0, DATA, data)]
            copies.append((data, source, 1))
            at += 2
        edits.append((parent, diff))
    calls = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        kit.xn.change(kit.me, edits, alloc=alloc, inits=inits, copies=copies)
    finally:
        sys.setprofile(None)
    assert text(kit, at - 1) == fill(b"text")
    assert kit.xn.refs(at - 2) == 1
    return calls


def test_copies_work_grows_with_the_births_not_their_square() -> None:
    assert calls_for(320) < 5 * calls_for(80)


def test_copies_written_in_one_run_are_counted_by_root() -> None:
    """A caller with a capability for two roots writes neighbours of both, which share frames."""
    kit = Kit(image(roots=("alice", "bob")), root="alice")
    info, bobs = kit.xn.mount_root(kit.admin, "bob"), kit.find(2)
    for root, block in ((kit.root, bobs), (info.block, bobs + 1)):
        who = kit.me if root == kit.root else Caller(info.cap)
        source = kit.xn.find_free(bobs + 2, 1)[0]
        edits = [slot(0, DATA, source), slot(1, DATA, block)]
        kit.xn.alloc(who, root, edits[:1], [extent(DATA, source)])
        kit.xn.write_raw(who, source, 0, fill(b"text"))
        kit.xn.change(
            who, [(root, edits[1:])], alloc=[extent(DATA, block)], copies=[(block, source, 1)]
        )
    pool, free = kit.pool, kit.pool.free_frames
    before = {name: pool.used(name) for name in ("alice", "bob")}
    pool.set_quota("bob", before["bob"])
    with pytest.raises(NoFrames):
        kit.xn.write_raw(kit.admin, bobs, 0, fill(b"new") * 2)
    assert {name: pool.used(name) for name in before} == before
    assert pool.free_frames == free
    assert text(kit, bobs) == fill(b"text")
    pool.set_quota("bob", None)
    kit.xn.write_raw(kit.admin, bobs, 0, fill(b"new") * 2)
    assert {name: pool.used(name) - 1 for name in before} == before
    assert text(kit, bobs) == fill(b"new")


def no_frames_of_their_own(patch: Patch) -> None:
    patch.setattr(Registry, "own", lambda *_: None)


def no_count_of_sharers(patch: Patch) -> None:
    patch.setattr(Registry, "_leave", lambda _self, frames: frames)


def blank_frames_are_lent(patch: Patch) -> None:
    alias = Registry.alias

    def uncleared(self: Registry, *rest: Any) -> None:
        clear, self.clear = self.clear, lambda *_: None  # type: ignore[method-assign]
        alias(self, *rest)
        self.clear = clear  # type: ignore[method-assign]

    patch.setattr(Registry, "alias", uncleared)


@pytest.mark.parametrize(
    ("mutant", "story"),
    [
        (no_frames_of_their_own, writes_stay_apart),
        (no_count_of_sharers, test_copies_frames_end_with_their_last_block),
        (blank_frames_are_lent, blank_sources_are_zero),
    ],
)
def test_copies_rules_switched_off_are_seen(
    mutant: Callable[[Patch], None], story: Callable[[], None], monkeypatch: Patch
) -> None:
    mutant(monkeypatch)
    with pytest.raises((AssertionError, Refused)):
        story()
