"""Any arguments at all: a call works or raises an XnError, and the kernel stays whole."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.disk.xn_kit import (
    HIDDEN,
    NUMBER,
    Kit,
    slot,
)
from xnfs import (
    READ,
    WRITE,
    XnError,
)


@pytest.fixture
def kit() -> Kit:
    return Kit()


def test_fuzz_with_any_numbers_raise_nothing_else(kit: Kit) -> None:
    """Random integers, edges and cached blocks in every place: XnError, or it works."""
    rng = random.Random(7)
    node = kit.node(kit.root, 0)
    data = kit.data(node, 0, b"x", 3)
    hidden = kit.add(node, 1, HIDDEN, 2)
    kit.sync()
    edges = [-(2**70), -1, 0, 1, 2, 63, 64, 127, 128, 4095, 4096, 2**31, 2**32, 2**63, 2**64, 2**70]
    mine = [kit.root, node, data, data + 1, hidden, *NUMBER.values()]

    def n() -> int:
        return rng.choice(rng.choice((edges, mine, mine)))

    def diff() -> list[tuple[int, bytes]]:
        pointers = [slot(rng.randrange(100), rng.randrange(4), rng.choice(mine), rng.randrange(3))]
        return rng.choice(([(n(), b"x" * rng.randrange(20))], pointers))

    def claim() -> list[tuple[int, int, int]]:
        return [(n(), n(), rng.choice((n(), 1)))] * rng.randrange(3)

    xn, me = kit.xn, kit.me
    calls: list[Callable[[], object]] = [
        lambda: xn.alloc(me, n(), diff(), claim(), init=diff()),
        lambda: xn.free(me, n(), diff(), claim()),
        lambda: xn.update(me, n(), diff(), witness=n()),
        lambda: xn.move(me, n(), diff(), n(), diff()),
        lambda: xn.relocate(me, n(), diff(), n(), n()),
        lambda: xn.change(
            me, [(n(), diff()), (n(), diff())], alloc=claim(), free=claim(), share=claim(),
            inits={n(): diff()}, witness=n(), witnesses={n(): n()},
        ),
        lambda: xn.hold(me, n()),
        lambda: xn.drop(me, n()),
        lambda: xn.alloc_held(me, n(), (n(), n(), n()), init=diff()),
        lambda: xn.readin(me, n(), n(), n(), n()),
        lambda: xn.readin_all(me, [(n(), n(), n(), n())] * rng.randrange(3)),
        lambda: xn.bind(me, n(), n(), n(), n()),
        lambda: xn.read(me, n(), n(), n()),
        lambda: xn.lend(me, n(), n(), n(), len),
        lambda: xn.borrow(me, n(), n() % 9),
        lambda: xn.map(me, n()),
        lambda: xn.write_raw(me, n(), n(), b"x" * rng.randrange(9000)),
        lambda: xn.access(me, n(), n(), witness=n()),
        lambda: xn.prefetch(me, n(), n() % 5),
        lambda: xn.sync(me, [n(), n()]),
        lambda: xn.writeback(me, [n(), n()]),
        lambda: xn.evict(me, [n(), n()]),
        lambda: xn.depend(me, n(), n()),
        lambda: xn.pin(me, n()),
        lambda: xn.unpin(me, n()),
        lambda: xn.lock(me, n()),
        lambda: xn.unlock(me, n()),
        lambda: xn.find_free(n(), n()),
        lambda: xn.group_free(n()),
        lambda: xn.refs(n()),
        lambda: xn.collect(me, n() % 10),
        lambda: xn.install_root(kit.admin, rng.choice("abc"), n(), hint=n()),
        lambda: xn.narrow(me, rng.choice(["main", "x"]), rng.choice((READ, WRITE, n()))),
    ]  # fmt: skip
    worked = 0
    for _ in range(6000):
        try:
            rng.choice(calls)()
            worked += 1
        except XnError:
            pass
        xn._lending.settle()
        assert kit.frames_used() == len(xn._registry.pages)
        assert not xn.damaged
    assert worked > 500


def test_fuzz_collection_of_nothing(kit: Kit) -> None:
    status = kit.xn.collect(kit.me, 0)
    assert not status.done
    assert kit.xn.collect(kit.me, 2**70).done
