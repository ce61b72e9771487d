"""Leaks, loops and held blocks: what the collector frees, and what it must not."""

from __future__ import annotations

import pytest

from tests.disk.xn_kit import (
    DATA,
    HIDDEN,
    NODE,
    Kit,
    extent,
    image,
    slot,
)
from xnfs import (
    NotCached,
    Refused,
)
from xnfs.disk.stacked import Fault, FaultingDevice
from xnfs.errors import DeviceError


@pytest.fixture
def kit() -> Kit:
    return Kit()


def collect(kit: Kit) -> int:
    while True:
        status = kit.xn.collect(kit.admin, 4)
        if status.done:
            return status.freed


def loop(kit: Kit) -> tuple[int, int]:
    """A node that only itself owns, and its data."""
    node = kit.node(kit.root, 0)
    data = kit.data(node, 0, b"data of the loop")
    kit.sync()
    kit.move(kit.root, 0, node, 1)
    return node, data


def test_collect_a_collected_loop_is_forgotten_with_its_pages() -> None:
    """Else its old owner could still name its blocks when they are somebody else's."""
    kit = Kit(image(roots=("alice", "bob")), root="alice")
    node, data = loop(kit)
    assert collect(kit) == 2
    assert not kit.xn.cached(node)
    assert not kit.xn.cached(data)
    assert kit.frames_used() == kit.xn.stats()["pages"]
    kit.sync()
    assert collect(kit) == 0
    with pytest.raises(NotCached):
        kit.xn.readin(kit.me, node, 0, data, 1)


def test_collect_a_fresh_loop_is_collected(kit: Kit) -> None:
    free = kit.xn.free_blocks()
    node = kit.node(kit.root, 0)
    kit.data(node, 0, b"x")
    kit.move(kit.root, 0, node, 1)
    kit.sync()
    assert collect(kit) == 2
    assert kit.xn.free_blocks() == free
    kit = kit.reopen()
    assert collect(kit) == 0


def test_collect_relocating_a_block_that_owns_itself(kit: Kit) -> None:
    """Its new copy would still point at the old address, which is free."""
    node, _data = loop(kit)
    new = kit.find()
    with pytest.raises(Refused):
        kit.xn.relocate(kit.me, node, [slot(1, NODE, new)], node, new)


def test_collect_two_owners_free_each_other(kit: Kit) -> None:
    free = kit.xn.free_blocks()
    a = kit.node(kit.root, 0)
    b = kit.node(a, 0)
    c = kit.data(b, 7, b"x")
    kit.sync()
    kit.move(kit.root, 0, b, 1)
    kit.xn.change(
        kit.me,
        [(a, [slot(0)]), (b, [slot(1), slot(7)])],
        free=[extent(NODE, a), extent(NODE, b), extent(DATA, c)],
    )
    assert kit.xn.free_blocks() < free
    kit.sync()
    assert kit.xn.free_blocks() == free


def test_collect_a_subtree_freed_at_once_frees_all_of_it(kit: Kit) -> None:
    free = kit.xn.free_blocks()
    a = kit.node(kit.root, 0)
    b = kit.node(a, 0)
    data = kit.data(b, 0, b"x")
    kit.sync()
    kit.xn.change(
        kit.me,
        [(kit.root, [slot(0)]), (a, [slot(0)]), (b, [slot(0)])],
        free=[extent(NODE, a), extent(NODE, b), extent(DATA, data)],
    )
    assert kit.xn.free_blocks() == free - 3
    kit.sync()
    assert kit.xn.free_blocks() == free


# --- while the system goes on


def test_collect_collection_goes_on_after_a_read_error_without_the_block() -> None:
    """What lies below a node that could not be read is not garbage."""
    device = FaultingDevice(image())
    kit = Kit(device)
    node = kit.node(kit.root, 0)
    data = kit.data(node, 0, b"precious")
    kit.sync()
    kit.xn.evict(kit.me, [node, data])
    device.plant(Fault("read", "eio", block=node))
    with pytest.raises(DeviceError):
        collect(kit)
    assert collect(kit) == 0
    kit.load(kit.root)
    assert kit.xn.read(kit.me, data, 0, 8) == b"precious"


def test_collect_collection_sees_a_block_that_became_data_meanwhile(kit: Kit) -> None:
    """Data must never be taken for pointers, nor stop the system as damage."""
    nodes = [kit.node(kit.root, i) for i in range(6)]
    kit.sync()
    kit.xn.collect(kit.admin, 1)
    for i in range(6):
        kit.free(kit.root, i)
    kit.sync()
    for i, node in enumerate(nodes):
        kit.xn.alloc(kit.me, kit.root, [slot(i, DATA, node)], [extent(DATA, node)])
        kit.xn.write_raw(kit.me, node, 0, slot(0, NODE, 5)[1] * 256)
    kit.sync()
    kit.xn.evict(kit.me, nodes[:3])
    assert collect(kit) == 0
    assert not kit.xn.damaged


def test_collect_collection_with_a_shared_run_that_moves(kit: Kit) -> None:
    """R5: a pointer that moved while the collector walked still counts."""
    a, b = kit.node(kit.root, 0), kit.node(kit.root, 1)
    run = kit.data(b, 0, b"x", 3)
    kit.share(a, 1, DATA, run + 1)
    kit.sync()
    for steps in range(1, 4):
        kit.xn.collect(kit.admin, steps)
        for src, dst in ((b, a), (a, b)):
            kit.move(src, 0, dst, 0)
            assert collect(kit) == 0
            assert kit.xn.refs(run + 1) == 2


def test_collect_collection_keeps_what_is_held_meanwhile(kit: Kit) -> None:
    """The walk has not come to the block yet, and then no owner leads there any more."""
    nodes = [kit.node(kit.root, i) for i in range(3)]
    deep = [kit.node(node, 0) for node in nodes]
    texts = [kit.data(node, 0, b"open") for node in deep]
    kit.sync()
    kit.xn.collect(kit.admin, 1)
    for node, child in zip(nodes, deep, strict=True):
        kit.xn.hold(kit.me, child)
        kit.xn.free(kit.me, node, [slot(0)], [extent(NODE, child)])
    assert collect(kit) == 0
    for child, text in zip(deep, texts, strict=True):
        assert kit.xn.read(kit.me, text, 0, 4) == b"open"
        kit.free(child, 0)
        kit.xn.drop(kit.me, child)
    kit.sync()
    assert collect(kit) == 0


def test_collect_unreadable_and_data_at_once(kit: Kit) -> None:
    """R2: a block is not durable under two types, whatever is synced first."""
    device = kit.device
    a, b = kit.node(kit.root, 0), kit.node(kit.root, 1)
    run = kit.add(a, 0, HIDDEN)
    kit.sync()
    claim = {"alloc": [extent(DATA, run)], "free": [extent(HIDDEN, run)]}
    kit.xn.change(kit.me, [(a, [slot(0, DATA, run)])], alloc=claim["alloc"], free=claim["free"])
    kit.share(b, 0, DATA, run)
    kit.sync([b])
    kit = Kit(device)
    kit.load(kit.root)
    assert kit.slots(a) == {0: (DATA, run, 1)}
    assert kit.slots(b) == {0: (DATA, run, 1)}


def test_collect_removing_a_root_with_held_blocks() -> None:
    kit = Kit(image(roots=("main", "other")))
    held = kit.find()
    kit.xn.alloc_held(kit.me, kit.root, extent(NODE, held), init=())
    kit.data(held, 0, b"x")
    kit.xn.remove_root(kit.admin, "main")
    assert kit.xn.leaky
    assert collect(kit) == 3
    assert not kit.xn.damaged
    assert kit.xn.stats()["held"] == 0
    kit.xn.close()


def test_collect_a_pointer_to_a_root_beside_the_catalogues(kit: Kit) -> None:
    """The catalogue owns the root as any block owns what it names. Counted too low, the root's
    block would be free, and somebody else's, as soon as the other pointer goes.
    """
    kit.share(kit.root, 0, NODE, kit.root)
    kit.sync()
    assert collect(kit) == 0
    assert kit.xn.refs(kit.root) == 2
    kit.free(kit.root, 0)
    kit.sync()
    assert kit.xn.refs(kit.root) == 1
    assert kit.find() != kit.root
    assert not kit.reopen().xn.damaged


def test_collect_a_held_block_loses_its_owner_to_the_collector(kit: Kit) -> None:
    """From then on the temporary root alone owns it, and letting go of it frees it."""
    free = kit.xn.free_blocks()
    node = kit.node(kit.root, 0)
    held = kit.node(node, 0)
    kit.sync()
    kit.move(kit.root, 0, node, 1)
    kit.xn.hold(kit.me, held)
    assert collect(kit) == 1
    assert kit.xn.refs(held) == 0
    kit.xn.drop(kit.me, held)
    kit.sync()
    assert kit.xn.free_blocks() == free
    assert collect(kit) == 0


@pytest.mark.parametrize("steps", range(1, 5))
def test_collect_a_held_block_keeps_the_owners_that_are_left(kit: Kit, steps: int) -> None:
    """One owner in a loop, one that the roots reach; held before or while the collector walks."""
    node, other = kit.node(kit.root, 0), kit.node(kit.root, 2)
    held = kit.node(node, 0)
    kit.share(other, 0, NODE, held)
    kit.sync()
    kit.move(kit.root, 0, node, 1)
    if steps > 2:
        kit.xn.hold(kit.me, held)
    kit.xn.collect(kit.admin, steps % 2 + 1)
    kit.xn.hold(kit.me, held)
    collect(kit)
    collect(kit)
    assert kit.xn.refs(held) == 1
    kit.xn.drop(kit.me, held)
    kit.free(other, 0)
    assert kit.xn.refs(held) == 0
    kit.sync()
    assert kit.find() == node


def test_collect_a_held_block_of_a_loop_that_stays_is_still_owned(kit: Kit) -> None:
    """A loop that somebody touched while the collector walked is left for the next time, and what
    it names has an owner until then.
    """
    node = kit.node(kit.root, 0)
    held = kit.node(node, 0)
    kit.sync()
    kit.xn.hold(kit.me, held)
    kit.move(kit.root, 0, node, 1)
    kit.xn.collect(kit.admin, 1)
    kit.share(node, 2, NODE, node)  # the collector sees a pointer to it
    assert collect(kit) == 0
    assert kit.xn.refs(held) == 1


def test_collect_an_object_that_moves_to_a_number_already_passed(kit: Kit) -> None:
    """The number was marked in its last life; the object's children still have to be."""
    old = kit.node(kit.root, 0)
    data = kit.data(old, 0, b"child")
    new = kit.data(kit.root, 1, b"in its last life")
    kit.sync()
    assert not kit.xn.collect(kit.admin, 1).done  # the root is passed, `old` is not
    kit.free(kit.root, 1)
    kit.sync()
    kit.xn.relocate(kit.me, kit.root, [slot(0, NODE, new)], old, new)
    kit.sync()
    assert collect(kit) == 0
    assert kit.xn.refs(data) == 1
    kit = kit.reopen()
    kit.load(kit.root)
    kit.load(new)
    assert kit.xn.read(kit.me, data, 0, 5) == b"child"
