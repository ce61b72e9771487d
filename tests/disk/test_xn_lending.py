"""Loans: a reader keeps bytes of the cache, and sees these and no others, whatever happens."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.disk.test_xn_crossing import Two
from tests.disk.xn_kit import DATA, Kit, extent, fill, image, slot
from xnfs import BLOCK, READ, Caller, CapabilityError, NoFrames, NotCached, Refused
from xnfs.disk.lending import Lending
from xnfs.disk.registry import Registry


@pytest.fixture
def kit() -> Kit:
    return Kit()


def test_loan_is_what_was_there(kit: Kit) -> None:
    run = kit.data(kit.root, 0, b"mine", 3)
    views = kit.xn.borrow(kit.me, run, 3)
    assert b"".join(views) == fill(b"mine") * 3
    assert all(view.readonly for view in views)
    kit.xn.write_raw(kit.me, run + 1, 100, b"new")
    assert b"".join(views) == fill(b"mine") * 3
    assert kit.xn.read(kit.me, run + 1, 100, 3) == b"new"
    assert b"".join(kit.xn.borrow(kit.me, run + 1, 1))[100:103] == b"new"
    kit.sync()
    again = kit.reopen()
    again.load(again.root)
    assert again.xn.read(again.me, run + 1, 96, 8) == fill(b"mine")[96:100] + b"new" + b"e"


def test_loan_outlives_eviction_and_death_of_its_block() -> None:
    """Somebody else gets the block, and all other frames: never this one."""
    kit = Kit(frames=64)
    run = kit.data(kit.root, 0, b"mine")
    (evicted,) = kit.xn.borrow(kit.me, run, 1)
    kit.sync()
    before = kit.pool.free_frames
    assert kit.xn.evict(kit.me, [run]) == 0
    assert kit.pool.free_frames == before
    kit.load(kit.root)
    (freed,) = kit.xn.borrow(kit.me, run, 1)
    kit.free(kit.root, 0)
    kit.sync()
    other = kit.data(kit.root, 1, b"other", 40)
    with pytest.raises(NoFrames):
        kit.data(kit.root, 2, b"other", kit.pool.free_frames + 1)
    assert kit.xn.refs(other)
    assert bytes(evicted) == bytes(freed) == fill(b"mine")


def test_loan_ends_with_its_last_view(kit: Kit) -> None:
    run = kit.data(kit.root, 0, b"mine")
    kit.sync()
    (view,) = kit.xn.borrow(kit.me, run, 1)
    kit.xn.evict(kit.me, [run])
    used = kit.frames_used()
    part = view[100:104]
    del view
    assert kit.xn.evict(kit.me, []) == 0
    assert bytes(part) == fill(b"mine")[100:104]
    assert kit.frames_used() == used
    del part
    assert kit.xn.evict(kit.me, []) == 1
    assert kit.frames_used() == used - 1


def test_loans_are_bounded_for_each_root() -> None:
    """Who takes all that he can get keeps nobody else from anything."""
    two = Two()
    xn, pool = two.xn, two.a.pool
    pool.set_quota("alice", 64)
    data = two.a.data(two.a.root, 1, b"alice", 4)
    greedy = [xn.borrow(two.alice, data, 4) for _ in range(4)]
    with pytest.raises(NoFrames, match="on loan"):
        xn.borrow(two.alice, data, 1)
    assert sum(len(view) for views in greedy for view in views) == 16 * BLOCK
    with pytest.raises(NoFrames, match="on loan"):
        xn.borrow(xn_narrowed(two), data, 1)  # another capability for the same root
    xn.write_raw(two.alice, data, 0, b"on goes")  # the work does
    start, _n = xn.find_free(0, 1)
    xn.alloc(two.bob, two.bobs, [slot(0, DATA, start)], [extent(DATA, start)])
    assert xn.borrow(two.bob, start, 1) == [bytes(BLOCK)]
    del greedy
    assert xn.borrow(two.alice, data, 4)


def xn_narrowed(two: Two) -> Caller:
    return Caller(two.xn.narrow(two.alice, "alice", READ))


def test_loan_needs_the_right_and_data(kit: Kit) -> None:
    run = kit.data(kit.root, 0, b"mine", 2)
    with pytest.raises(CapabilityError):
        kit.xn.borrow(Caller(b"forged"), run, 2)
    with pytest.raises(Refused, match="metadata"):
        kit.xn.borrow(kit.me, kit.root, 1)
    with pytest.raises(NotCached):
        kit.xn.borrow(kit.me, run, 3)
    assert kit.xn.borrow(kit.me, run, 0) == kit.xn.borrow(kit.me, run, -5) == []
    kit.sync()
    kit.xn.evict(kit.me, [run, run + 1])
    kit.xn.bind(kit.me, kit.root, 0, run, 2)
    with pytest.raises(NotCached):
        kit.xn.borrow(kit.me, run, 1)  # bound, but not filled: the frame has another's bytes


def test_loan_of_new_data_is_zero(kit: Kit) -> None:
    run = kit.add(kit.root, 0, DATA, 3)
    assert b"".join(kit.xn.borrow(kit.me, run, 3)) == bytes(3 * BLOCK)


def test_loan_of_what_goes_to_another_root() -> None:
    two = Two()
    (view, *_rest) = two.xn.borrow(two.alice, two.data, 1)
    two.cross()
    two.xn.write_raw(two.bob, two.data, 0, b"Bob's secret")
    assert bytes(view) == fill(b"the letter")
    with pytest.raises(CapabilityError):
        two.xn.borrow(two.alice, two.data, 1)


def adversary(seed: int) -> None:
    """Alice borrows, writes, frees and evicts at random; Bob writes secrets. What Alice holds stays
    as it was, and no frame is lost or given twice."""
    rng = random.Random(seed)
    kit = Kit(image(256, roots=("main", "bob")), frames=60)
    info = kit.xn.mount_root(kit.admin, "bob")
    bob = Kit.__new__(Kit)
    bob.__dict__.update(kit.__dict__, root=info.block, me=Caller(info.cap))
    held: list[tuple[memoryview, bytes]] = []

    def data_of(who: Kit) -> int:
        slots = who.slots(who.root)
        return rng.choice(list(slots)) if slots else -1

    def act() -> None:
        who = rng.choice((kit, bob))
        text = b"%s%d" % (b"SECRET" if who is bob else b"alice", rng.randrange(1000))
        what, index = rng.randrange(6), data_of(who)
        if what == 0 or index < 0:
            free = [i for i in range(20) if i not in who.slots(who.root)]
            if free:
                who.data(who.root, rng.choice(free), text)
            return
        block = who.slots(who.root)[index][1]
        who.xn.readin(who.me, who.root, index, block, 1)
        if what == 1:
            who.xn.write_raw(who.me, block, 0, fill(text))
        elif what == 2:
            who.free(who.root, index)
        elif what == 3:
            who.sync()
            who.xn.evict(who.me, [block])
        elif what == 4 and who is kit:
            for view in kit.xn.borrow(kit.me, block, 1):
                held.append((view[10:50], bytes(view[10:50])))
        elif held:
            held.pop(rng.randrange(len(held)))

    for _ in range(800):
        try:
            act()
        except NoFrames:
            kit.sync()
            kit.xn.evict(kit.admin, list(kit.xn._registry.pages))
        assert all(bytes(view) == before for view, before in held)
        assert not any(b"SECRET" in before for _view, before in held)
    held.clear()
    kit.xn.evict(kit.me, [])
    assert kit.frames_used() == len(kit.xn._registry.pages)
    assert not kit.xn._registry._sharers


@pytest.mark.parametrize("seed", range(3))
def test_loans_of_an_adversary(seed: int) -> None:
    adversary(seed)


_LEND = Lending.lend


def unbounded(self: Lending, first: int, count: int, views: list[memoryview]) -> list[memoryview]:
    self._lent.clear()
    return _LEND(self, first, count, views)


@pytest.mark.parametrize(
    ("where", "rule", "instead", "test"),
    [
        (Registry, "hold", lambda _self, _frames: None, lambda: adversary(0)),
        (Registry, "own", lambda _self, _first, _count: None, lambda: adversary(0)),
        (Lending, "lend", unbounded, test_loans_are_bounded_for_each_root),
    ],
    ids=["a frame on loan is given to the next", "written in place", "not bounded"],
)
def test_loans_rules_switched_off_are_seen(
    where: type,
    rule: str,
    instead: Callable[..., object],
    test: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(where, rule, instead)
    with pytest.raises((AssertionError, Refused, pytest.fail.Exception)):
        test()
