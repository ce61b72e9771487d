"""Changes of metadata: right use, and which error for each wrong use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.disk.xn_kit import (
    DATA,
    HIDDEN,
    NODE,
    NUMBER,
    RAW,
    Kit,
    extent,
    slot,
)
from xnfs import (
    BLOCK,
    NoFrames,
    NotEmpty,
    NotFree,
    Refused,
    XnError,
)


@pytest.fixture
def kit() -> Kit:
    return Kit()


def test_changes_alloc_and_free(kit: Kit) -> None:
    free = kit.xn.free_blocks()
    node = kit.add(kit.root, 0, NODE, init=[(RAW[0], b"hello")])
    assert kit.xn.read(kit.me, node, RAW[0], 5) == b"hello"
    run = kit.data(node, 3, b"x", 4)
    assert kit.xn.free_blocks() == free - 5
    assert [kit.xn.refs(b) for b in (node, run, run + 3, run + 4)] == [1, 1, 1, 0]
    kit.free(node, 3)
    kit.free(kit.root, 0)
    assert kit.xn.free_blocks() == free  # nothing of it was durable
    assert not kit.xn.cached(node)
    assert not kit.xn.cached(run)


def wrong_allocs(kit: Kit) -> Iterator[Callable[[], None]]:
    xn, me, root = kit.xn, kit.me, kit.root
    s = kit.find(8)
    lo, hi = xn.data_area
    used = kit.data(root, 50, b"x", 3)
    s = kit.find(8)
    one = [slot(0, DATA, s)]
    yield lambda: xn.alloc(me, root, one, [])
    yield lambda: xn.alloc(me, root, one, [extent(DATA, s, 2)])
    yield lambda: xn.alloc(me, root, one, [extent(DATA, s + 1)])
    yield lambda: xn.alloc(me, root, one, [extent(NODE, s)])
    yield lambda: xn.alloc(me, root, one, [extent(DATA, s, 0)])
    yield lambda: xn.alloc(me, root, one, [extent(DATA, s), extent(DATA, s)])
    yield lambda: xn.alloc(me, root, [slot(0, DATA, s), slot(1, DATA, s)], [extent(DATA, s)] * 2)
    yield lambda: xn.alloc(
        me, root, [slot(0, DATA, s, 4), slot(1, DATA, s + 2, 4)],
        [extent(DATA, s, 4), extent(DATA, s + 2, 4)],
    )  # fmt: skip
    yield lambda: xn.alloc(
        me, root, [slot(0, DATA, s), slot(1, NODE, s)], [extent(DATA, s), extent(NODE, s)]
    )
    yield lambda: xn.alloc(me, root, [slot(0, DATA, used)], [extent(DATA, used)])
    yield lambda: xn.alloc(me, root, [slot(0, DATA, used + 2, 2)], [extent(DATA, used + 2, 2)])
    yield lambda: xn.alloc(me, root, one, [(99, s, 1)])
    yield lambda: xn.alloc(me, root, one, [(-1, s, 1)])
    yield lambda: xn.alloc(me, s, one, [extent(DATA, s)])
    yield lambda: xn.alloc(me, used, one, [extent(DATA, s)])
    for bad in (0, 1, lo - 1, hi, hi + 1, 127, 128, 2**40, 2**63, 2**64 - 1):
        diff = [slot(0, DATA, bad)]
        yield lambda diff=diff, bad=bad: xn.alloc(me, root, diff, [extent(DATA, bad)])  # type: ignore[misc]
        yield lambda diff=diff: xn.alloc(me, root, diff, [])  # type: ignore[misc]
    for n in (2**32 - 1, hi - s + 1):
        diff = [slot(0, DATA, s, n)]
        yield lambda diff=diff, n=n: xn.alloc(me, root, diff, [extent(DATA, s, n)])  # type: ignore[misc]
    for claim in ((16, -1, 1), (16, s, -1), (16, s, 2**70), (16, 2**70, 1), (2**70, s, 1)):
        yield lambda claim=claim: xn.alloc(me, root, one, [claim])  # type: ignore[misc]
    claims: list[Any] = [
        [(16, s)], [(16, s, 1, 1)], [5], 5, [("a", s, 1)], [(16, s, 1.0)], [(16, None, 1)],
    ]  # fmt: skip
    for junk in claims:
        yield lambda junk=junk: xn.alloc(me, root, one, junk)  # type: ignore[misc]
    diffs: list[Any] = [
        [(-1, b"x")], [(4096, b"x")], [(4095, b"xy")], [(64, b"")], [(2**70, b"x")],
        [(-(2**70), b"x")], [(0, bytes(4096))], [(64,)], [(64, "x")], [(64, 5)], [64], 64,
        [("64", b"x")], [(64.0, b"x")], [(64, [1, 2])], [(64, b"x", 1)], None,
    ]  # fmt: skip
    for junk in diffs:
        yield lambda junk=junk: xn.update(me, root, junk)  # type: ignore[misc]
    for first in ([(4095, b"xy")], [(-1, b"x")], [(2**70, b"x")]):
        yield lambda first=first: xn.alloc(me, root, one, [extent(DATA, s)], init=first)  # type: ignore[misc]
    yield lambda: xn.alloc(me, root, one, [], init=[(RAW[0], b"x")])
    yield lambda: xn.change(me, [(root, one)], alloc=[extent(DATA, s)], inits={s + 1: ()})
    yield lambda: xn.change(me, [(root, one)], alloc=[extent(DATA, s)], inits={-1: ()})
    yield lambda: xn.change(me, [])
    yield lambda: xn.change(me, [(root, one), (root, one)], alloc=[extent(DATA, s)])
    yield lambda: xn.update(me, root, [(16, b"x")], witness=s)
    yield lambda: xn.update(me, root, [(16, b"x")], witness=used)
    yield lambda: xn.update(me, root, [(16, b"x")], witness=-1)
    yield lambda: xn.change(me, [(root, [(16, b"x")])], witnesses={root: 2**70})
    yield lambda: xn.change(me, [(root, one)], share=[extent(DATA, s)])
    yield lambda: xn.change(me, [(root, [slot(0, DATA, used)])], share=[extent(NODE, used)])
    yield lambda: xn.change(me, [(root, [slot(0, DATA, used)])], share=[extent(DATA, used, 2)])
    yield lambda: xn.change(me, [(root, [slot(0, DATA, s, 2**31)])], share=[extent(DATA, s, 2**31)])
    yield lambda: xn.free(me, root, [slot(50)], [])
    yield lambda: xn.free(me, root, [slot(50)], [extent(DATA, used, 2)])
    yield lambda: xn.free(me, root, [slot(50)], [extent(DATA, used, 4)])
    yield lambda: xn.free(me, root, [slot(50)], [extent(NODE, used, 3)])
    yield lambda: xn.free(me, root, [slot(50, DATA, used, 2)], [extent(DATA, used)])
    yield lambda: xn.free(me, root, [slot(51)], [extent(DATA, used, 3)])
    yield lambda: xn.move(me, root, [slot(50)], root, [slot(51, DATA, used, 3)])


def test_changes_wrong_changes_change_nothing(kit: Kit) -> None:
    calls = list(wrong_allocs(kit))
    kit.sync()
    state = kit.xn.read(kit.me, kit.root, 0, BLOCK)
    stats = kit.xn.stats()
    for index, call in enumerate(calls):
        try:
            call()
        except XnError:
            assert kit.xn.read(kit.me, kit.root, 0, BLOCK) == state, index
        else:
            pytest.fail(f"wrong change {index} was accepted")
    after = kit.xn.stats()
    assert {**after, "calls": 0} == {**stats, "calls": 0}
    assert kit.frames_used() == stats["pages"]
    assert len(calls) > 80


def test_changes_first_bytes_go_on_in_the_blocks_behind(kit: Kit) -> None:
    start = kit.find()
    claim, edit = [extent(DATA, start, 4)], (kit.root, [slot(0, DATA, start, 4)])
    data = bytes(range(1, 255)) * 40
    for bad in ({start: [(4000, bytes(4 * BLOCK))]}, {start + 2: [(-1, b"x")]}):
        with pytest.raises(Refused):
            kit.xn.change(kit.me, [edit], alloc=claim, inits=bad)
    kit.xn.change(kit.me, [edit], alloc=claim, inits={start: [(4000, data), (0, b"y")]})
    want = (b"y".ljust(4000, b"\0") + data).ljust(4 * BLOCK, b"\0")
    assert kit.xn.read(kit.me, start, 0, 4 * BLOCK) == want
    kit.sync()
    kit = kit.reopen()
    kit.load(kit.root)
    kit.xn.readin(kit.me, kit.root, 0, start, 4)
    assert kit.xn.read(kit.me, start, 0, 4 * BLOCK) == want


def test_changes_data_is_born_with_its_first_bytes(kit: Kit) -> None:
    start = kit.find()
    first = {start: [(1, b"one")], start + 1: [(4095, b"x"), (0, b"y")]}
    claim = [extent(DATA, start, 3)]
    kit.xn.change(kit.me, [(kit.root, [slot(0, DATA, start, 3)])], alloc=claim, inits=first)
    kit.sync()
    kit = kit.reopen()
    kit.load(kit.root)
    kit.xn.readin(kit.me, kit.root, 0, start, 3)
    want = (b"\0one".ljust(BLOCK, b"\0"), b"y".ljust(4095, b"\0") + b"x", bytes(BLOCK))
    assert kit.xn.read(kit.me, start, 0, 3 * BLOCK) == b"".join(want)


def test_changes_move_swap_relocate(kit: Kit) -> None:
    a, b = kit.node(kit.root, 0), kit.node(kit.root, 1)
    x, y = kit.data(a, 0, b"x"), kit.data(b, 0, b"y")
    free = kit.xn.free_blocks()
    kit.xn.move(kit.me, a, [slot(0)], b, [slot(1, DATA, x)])
    assert (kit.slots(a), kit.slots(b)) == ({}, {0: (DATA, y, 1), 1: (DATA, x, 1)})
    kit.xn.move(kit.me, b, [slot(1)], a, [slot(0, DATA, x)])
    kit.xn.swap(kit.me, a, [slot(0, DATA, y)], b, [slot(0, DATA, x)])
    assert (kit.slots(a), kit.slots(b)) == ({0: (DATA, y, 1)}, {0: (DATA, x, 1)})
    kit.sync()
    new = kit.find()
    kit.xn.relocate(kit.me, kit.root, [slot(0, NODE, new)], a, new)
    assert kit.slots(new) == {0: (DATA, y, 1)}
    assert not kit.xn.cached(a)
    assert kit.xn.free_blocks() == free - 1
    kit.sync()
    assert kit.xn.free_blocks() == free


def test_changes_wrong_relocations(kit: Kit) -> None:
    a, b = kit.node(kit.root, 0), kit.node(kit.root, 1)
    new = kit.find()
    kit.share(kit.root, 2, NODE, b)
    kit.xn.hold(kit.me, a)
    calls = [
        (a, slot(0, NODE, new), new),  # held
        (b, slot(1, NODE, new), new),  # two owners
        (a, slot(0, NODE, b), b),
        (a, slot(0, NODE, new), new + 1),
        (a, slot(0), new),
        (a, slot(5, NODE, new), new),
        (a, slot(0, DATA, new), new),
        (a, slot(0, NODE, 0), 0),
        (a, slot(0, NODE, 127), 127),
        (new, slot(0, NODE, new), new),
    ]
    for old, diff, target in calls:
        with pytest.raises(XnError):
            kit.xn.relocate(kit.me, kit.root, [diff], old, target)
    for bad in (-1, 2**70, None, "x"):
        with pytest.raises(XnError):
            kit.xn.relocate(kit.me, kit.root, [slot(0, NODE, new)], a, bad)  # type: ignore[arg-type]
    assert kit.slots(kit.root) == {0: (NODE, a, 1), 1: (NODE, b, 1), 2: (NODE, b, 1)}


def test_changes_share_and_free_one_by_one(kit: Kit) -> None:
    a, b = kit.node(kit.root, 0), kit.node(kit.root, 1)
    x = kit.node(a, 0)
    kit.data(x, 0, b"x")
    kit.share(b, 0, NODE, x)
    kit.share(b, 1, NODE, x)
    assert kit.xn.refs(x) == 3
    kit.free(a, 0)
    kit.free(b, 0)
    with pytest.raises(NotEmpty):
        kit.free(b, 1)
    kit = kit.reopen()
    kit.load(kit.root)
    assert kit.xn.refs(x) == 1
    kit.free(x, 0)
    kit.free(b, 1)
    assert kit.xn.refs(x) == 0


def test_changes_retype_whole_and_in_part(kit: Kit) -> None:
    run = kit.add(kit.root, 0, HIDDEN, 6)
    assert kit.xn.stats()["pages"] == 2
    kit.xn.change(
        kit.me,
        [
            (
                kit.root,
                [slot(0, HIDDEN, run, 2), slot(1, DATA, run + 2, 3), slot(2, HIDDEN, run + 5)],
            )
        ],
        free=[extent(HIDDEN, run + 2, 3)],
        alloc=[extent(DATA, run + 2, 3)],
    )
    assert kit.xn.read(kit.me, run + 2, 0, 3 * BLOCK) == bytes(3 * BLOCK)
    with pytest.raises(NotFree):  # data does not become unreadable again
        kit.xn.change(
            kit.me,
            [(kit.root, [slot(1, HIDDEN, run + 2, 3)])],
            free=[extent(DATA, run + 2, 3)],
            alloc=[extent(HIDDEN, run + 2, 3)],
        )


def test_changes_no_frames_changes_nothing() -> None:
    kit = Kit(frames=6)
    start = kit.find(10)
    with pytest.raises(NoFrames):
        kit.xn.alloc(kit.me, kit.root, [slot(0, DATA, start, 10)], [extent(DATA, start, 10)])
    diff = [slot(0, DATA, start, 2), slot(1, NODE, start + 4), slot(2, DATA, start + 6, 4)]
    claim = [extent(DATA, start, 2), extent(NODE, start + 4), extent(DATA, start + 6, 4)]
    with pytest.raises(NoFrames):
        kit.xn.alloc(kit.me, kit.root, diff, claim)
    assert kit.slots(kit.root) == {}
    assert kit.xn.find_free(start, 10) == (start, 10)
    assert kit.frames_used() == kit.xn.stats()["pages"] == 2
    kit.data(kit.root, 0, b"x", 4)


# --- held blocks


def test_changes_hold_and_drop(kit: Kit) -> None:
    free = kit.xn.free_blocks()
    node = kit.node(kit.root, 0)
    data = kit.data(node, 0, b"x")
    with pytest.raises(Refused):
        kit.xn.drop(kit.me, node)
    kit.xn.hold(kit.me, node)
    kit.free(kit.root, 0)
    kit.sync()
    assert kit.xn.refs(node) == 0
    assert kit.xn.evict(kit.me, [node]) == 0
    assert kit.xn.read(kit.me, data, 0, 1) == b"x"
    with pytest.raises(NotEmpty):
        kit.xn.drop(kit.me, node)
    kit.free(node, 0)
    kit.xn.drop(kit.me, node)
    assert not kit.xn.cached(node)
    kit.sync()
    assert kit.xn.free_blocks() == free


def test_changes_drop_frees_exactly_the_data(kit: Kit) -> None:
    free = kit.xn.free_blocks()
    node = kit.node(kit.root, 0)
    one, two = kit.data(node, 0, b"x"), kit.data(node, 1, b"y")
    other = kit.data(kit.root, 1, b"z")
    kit.xn.hold(kit.me, node)
    claims = [extent(DATA, one), extent(DATA, two)]
    with pytest.raises(Refused):
        kit.xn.drop(kit.me, node, free=claims)  # the root still owns it
    kit.free(kit.root, 0)
    for wrong in (
        claims[:1],
        [*claims, extent(DATA, other)],
        [claims[0], extent(DATA, other)],
        [claims[0], claims[0]],
        [extent(HIDDEN, one), claims[1]],
    ):
        with pytest.raises(NotEmpty):
            kit.xn.drop(kit.me, node, free=wrong)
    assert kit.xn.read(kit.me, one, 0, 1) == b"x"
    kit.xn.drop(kit.me, node, free=claims[::-1])
    assert not any(map(kit.xn.cached, (node, one, two)))
    kit.sync()
    assert kit.xn.free_blocks() == free - 1


def test_changes_drop_frees_no_metadata_with_it(kit: Kit) -> None:
    node = kit.node(kit.root, 0)
    child = kit.node(node, 0)
    kit.xn.hold(kit.me, node)
    kit.free(kit.root, 0)
    with pytest.raises(NotEmpty):
        kit.xn.drop(kit.me, node, free=[extent(NODE, child)])
    assert kit.xn.refs(child) == 1


def test_changes_drop_waits_for_the_durable_pointer(kit: Kit) -> None:
    """R1: what a durable inode still names is not free before its name is durably gone."""
    node = kit.node(kit.root, 0)
    data = kit.data(node, 0, b"x")
    kit.sync()
    kit.xn.hold(kit.me, node)
    kit.free(kit.root, 0)
    free = kit.xn.free_blocks()
    kit.xn.drop(kit.me, node, free=[extent(DATA, data)])
    assert kit.xn.free_blocks() == free
    kit.sync()
    assert kit.xn.free_blocks() == free + 2


def test_changes_alloc_held(kit: Kit) -> None:
    free = kit.xn.free_blocks()
    start = kit.find()
    kit.xn.alloc_held(kit.me, kit.root, extent(NODE, start), init=[(RAW[0], b"x")])
    with pytest.raises(NotFree):
        kit.xn.alloc_held(kit.me, kit.root, extent(NODE, start), init=())
    kit.share(kit.root, 0, NODE, start)
    kit.xn.drop(kit.me, start)
    kit = kit.reopen()
    kit.load(kit.root)
    assert kit.xn.read(kit.me, start, RAW[0], 1) == b"x"
    assert kit.xn.free_blocks() == free - 1
    new = kit.find(2)
    for bad, init in (
        (extent(DATA, new), ()),
        (extent(HIDDEN, new), ()),
        (extent(NODE, new, 2), ()),
        (extent(NODE, new, 0), ()),
        (extent(NODE, 5), ()),
        (extent(NODE, 2**70), ()),
        ((99, new, 1), ()),
        ((NUMBER[NODE], new), ()),
        (extent(NODE, new), [slot(0, DATA, new + 1)]),
        (extent(NODE, new), [(0, b"x")]),
    ):
        with pytest.raises(XnError):
            kit.xn.alloc_held(kit.me, kit.root, bad, init=init)  # type: ignore[arg-type]
    assert kit.xn.free_blocks() == free - 1
