"""Two roots on one image, and the kernel between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.disk.xn_kit import (
    DATA,
    NODE,
    NUMBER,
    RAW,
    SPECS,
    Kit,
    extent,
    image,
    slot,
)
from xnfs import (
    ALLOC,
    BLOCK,
    READ,
    WRITE,
    Caller,
    CapabilityError,
    FramePool,
    NotFree,
    Refused,
    TypeSpec,
    UnknownType,
    Xn,
)


@pytest.fixture
def kit() -> Kit:
    return Kit()


class Two:
    """Two roots of one image, and two callers who do not trust each other."""

    def __init__(self) -> None:
        self.a = Kit(image(roots=("alice", "bob")), root="alice")
        self.xn = self.a.xn
        self.alice = self.a.me
        info = self.xn.mount_root(self.a.admin, "bob")
        self.bob, self.bobs = Caller(info.cap), info.block
        self.node = self.a.node(self.a.root, 0)
        self.data = self.a.data(self.node, 0, b"alice's secret")
        self.a.sync()

    def start(self) -> int:
        return self.a.find()


@pytest.fixture
def two() -> Two:
    return Two()


def test_roots_bob_cannot_name_alices_blocks(two: Two) -> None:
    xn, bob, a = two.xn, two.bob, two.a
    free = two.start()
    calls: list[Callable[[], object]] = [
        lambda: xn.read(bob, two.data, 0, 1),
        lambda: xn.map(bob, two.data),
        lambda: xn.write_raw(bob, two.data, 0, b"x"),
        lambda: xn.write_raw(bob, two.node, RAW[0], b"x"),
        lambda: xn.readin(bob, two.node, 0, two.data, 1),
        lambda: xn.bind(bob, two.node, 0, two.data, 1),
        lambda: xn.update(bob, two.node, [(RAW[0], b"x")]),
        lambda: xn.alloc(bob, two.node, [slot(5, DATA, free)], [extent(DATA, free)]),
        lambda: xn.free(bob, two.node, [slot(0)], [extent(DATA, two.data)]),
        lambda: xn.move(bob, two.node, [slot(0)], two.bobs, [slot(0, DATA, two.data)]),
        lambda: xn.swap(bob, two.node, [slot(0)], two.bobs, [slot(0, DATA, two.data)]),
        lambda: xn.relocate(bob, a.root, [slot(0, NODE, free)], two.node, free),
        lambda: xn.relocate(bob, two.bobs, [slot(0, NODE, free)], two.node, free),
        lambda: xn.hold(bob, two.node),
        lambda: xn.drop(bob, two.node),
        lambda: xn.alloc_held(bob, two.node, extent(NODE, free), init=()),
        lambda: xn.depend(bob, two.bobs, two.node),
        lambda: xn.depend(bob, two.node, two.bobs),
        lambda: xn.pin(bob, two.data),
        lambda: xn.lock(bob, two.data),
        lambda: xn.unpin(bob, two.data),
        lambda: xn.unlock(bob, two.data),
        lambda: xn.access(bob, two.node, 4),
        lambda: xn.access(bob, two.bobs, 4, witness=two.node),
        lambda: xn.update(bob, two.bobs, [(RAW[0], b"x")], witness=two.node),
        lambda: xn.mount_root(bob, "alice"),
        lambda: xn.remove_root(bob, "alice"),
        lambda: xn.remove_root(bob, "bob"),
        lambda: xn.install_root(bob, "carol", NUMBER[NODE]),
        lambda: xn.install_type(bob, replace(SPECS[0], name="t.new")),
        lambda: xn.narrow(bob, "alice", READ),
        lambda: xn.revoke(bob, two.alice.cap),
    ]
    before = xn.read(two.alice, two.node, 0, BLOCK)
    for call in calls:
        with pytest.raises(CapabilityError):
            call()
    edits, claim = [(two.bobs, [slot(0, DATA, two.data)])], [extent(DATA, two.data)]
    with pytest.raises(NotFree):
        xn.change(bob, edits, alloc=claim)
    with pytest.raises(Refused):
        xn.change(bob, edits, share=claim)
    with pytest.raises(Refused):
        xn.change(bob, edits, free=claim)
    assert xn.evict(bob, range(128)) <= 1  # his own root
    assert xn.cached(two.data)
    assert xn.read(two.alice, two.node, 0, BLOCK) == before
    assert xn.refs(two.data) == 1


def test_roots_sharing_another_roots_block(two: Two) -> None:
    """Bob would own Alice's blocks, and read them once she has evicted them."""
    for kind, block in ((DATA, two.data), (NODE, two.node)):
        diff = [slot(0, kind, block)]
        with pytest.raises(Refused, match="another root"):
            two.xn.change(two.bob, [(two.bobs, diff)], share=[extent(kind, block)])


def test_roots_reading_gives_no_right_to_write_by_mounting_again(two: Two) -> None:
    xn = two.xn
    reader = Caller(xn.narrow(two.alice, "alice", READ))
    again = Caller(xn.mount_root(reader, "alice").cap)
    with pytest.raises(CapabilityError):
        xn.update(again, two.node, [(RAW[0], b"x")])
    assert xn.read(again, two.data, 0, 5) == b"alice"
    xn.revoke(two.alice, reader.cap)
    with pytest.raises(CapabilityError):
        xn.read(again, two.data, 0, 5)


def test_roots_writing_gives_no_right_to_take_blocks(two: Two) -> None:
    xn, start = two.xn, two.start()
    writer = Caller(xn.narrow(two.alice, "alice", READ | WRITE))
    xn.update(writer, two.node, [(RAW[0], b"x")])
    with pytest.raises(CapabilityError):
        xn.alloc(writer, two.node, [slot(1, DATA, start)], [extent(DATA, start)])
    with pytest.raises(CapabilityError):
        xn.alloc_held(writer, two.node, extent(NODE, start), init=())
    with pytest.raises(CapabilityError):
        xn.relocate(writer, two.a.root, [slot(0, NODE, start)], two.node, start)
    assert ALLOC


def test_roots_a_capability_ends_with_its_root(two: Two) -> None:
    """Somebody else may call a root by the same name later."""
    xn = two.xn
    xn.remove_root(two.a.admin, "alice")
    info = xn.install_root(two.a.admin, "alice", NUMBER[NODE])
    with pytest.raises(CapabilityError):
        xn.update(two.alice, info.block, [(RAW[0], b"x")])
    xn.update(Caller(info.cap), info.block, [(RAW[0], b"x")])


def test_roots_forged_and_stale_capabilities(two: Two) -> None:
    xn = two.xn
    narrow = xn.narrow(two.alice, "alice", READ)
    xn.revoke(two.alice, narrow)
    for cap in (b"", bytes(32), two.alice.cap[:-1] + b"\0", narrow):
        with pytest.raises(CapabilityError):
            xn.read(Caller(cap), two.data, 0, 1)
        with pytest.raises(CapabilityError):
            xn.evict(Caller(cap), [two.data])
    start = two.start()
    xn.alloc(two.alice, two.node, [slot(1, NODE, start)], [extent(NODE, start)])
    with pytest.raises(CapabilityError):
        xn.evict(Caller(narrow), [two.node])  # which would stay in any case: it waits for a commit


@pytest.mark.parametrize("admin", [True, False])
def test_roots_the_kernels_own_pages_cannot_be_named(kit: Kit, admin: bool) -> None:
    xn, who = kit.xn, kit.admin if admin else kit.me
    catalogue = xn.data_area[0] - 1
    assert xn.cached(catalogue)
    free = kit.find()
    calls: list[Callable[[], object]] = [
        lambda: xn.read(who, catalogue, 0, BLOCK),
        lambda: xn.map(who, catalogue),
        lambda: xn.update(who, catalogue, [(16, b"x")]),
        lambda: xn.write_raw(who, catalogue, 16, b"x"),
        lambda: xn.alloc(who, catalogue, [(128, bytes(128))], [extent(NODE, free)]),
        lambda: xn.readin(who, catalogue, 0, kit.root, 1),
        lambda: xn.hold(who, catalogue),
        lambda: xn.pin(who, catalogue),
        lambda: xn.unpin(who, catalogue),
        lambda: xn.lock(who, catalogue),
        lambda: xn.depend(who, catalogue, kit.root),
        lambda: xn.relocate(who, catalogue, [], kit.root, free),
    ]
    for call in calls:
        with pytest.raises(CapabilityError):
            call()
    assert xn.evict(who, [catalogue]) == 0


def test_roots_number_of_a_type_that_was_lost_is_not_used_again(kit: Kit) -> None:
    """A record wiped by a failing disk looks as if it had never been written. Another type under
    the number of a root's would take that root's blocks for its own.
    """
    last = kit.xn._geometry.types_start + NUMBER[NODE] - 16
    kit.xn.close()
    kit.device.write(last, [bytes(BLOCK)])
    xn = Xn(kit.device, frames=FramePool(64))
    admin = Caller(xn.admin)
    assert [root.type for root in xn.roots()] == [NUMBER[NODE]]
    assert xn.install_type(admin, replace(SPECS[2], name="t.other")) == NUMBER[NODE] + 1
    with pytest.raises(UnknownType):
        xn.mount_root(admin, "main")
    xn.close()
    xn = Xn(kit.device, frames=FramePool(64))  # the gap in the catalogue stays one
    assert xn.type_number("t.other") == NUMBER[NODE] + 1
    assert xn.install_type(Caller(xn.admin), TypeSpec("t.more")) == NUMBER[NODE] + 2


def test_roots_number_of_the_last_type_is_not_used_again(kit: Kit) -> None:
    """A record that no root tells of: blocks of the lost type would be taken for the new one's."""
    lost = kit.xn.install_type(Caller(kit.xn.admin), TypeSpec("t.last"))
    at = kit.xn._geometry.types_start + lost - 16
    kit.xn.close()
    kit.device.write(at, [bytes(BLOCK)])
    xn = Xn(kit.device, frames=FramePool(64))
    assert xn.type_number("t.last") is None
    assert xn.install_type(Caller(xn.admin), TypeSpec("t.other")) == lost + 1
