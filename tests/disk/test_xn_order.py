"""`depend(before, after)`: no power cut shows `after` without `before`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.disk.xn_crash import block_of, recover
from tests.disk.xn_kit import DATA, RAW, Kit, extent, image, slot
from xnfs import CycleError, MemoryDevice, Refused
from xnfs.disk.order import MAX_EDGES
from xnfs.disk.recording import RecordingDevice


class Recorded(Kit):
    """With two nodes, each with data, all durable."""

    def __init__(self, log_blocks: int = 16) -> None:
        self.disk = RecordingDevice(image(log_blocks=log_blocks))
        super().__init__(self.disk)
        self.nodes = [self.node(self.root, i) for i in range(2)]
        self.datas = [self.data(node, 0, b"old") for node in self.nodes]
        self.sync()
        self.start = len(self.disk.events)
        self.text = b"new"

    def touch(self, block: int) -> None:
        """Make a block dirty."""
        meta = block in (*self.nodes, self.root)
        self.xn.write_raw(self.me, block, RAW[0] if meta else 0, self.text)

    def is_new(self, disk: MemoryDevice, block: int) -> bool:
        """Has it what `touch` wrote?"""
        meta = block in (*self.nodes, self.root)
        at = RAW[0] if meta else 0
        return block_of(disk, block)[at : at + 3] == self.text

    def in_order(self, before: int, after: int) -> bool:
        """True if after every cut, recovered, `after` is new only if `before` is."""
        shown = [(self.is_new(d, before), self.is_new(d, after)) for d in self.disks()]
        assert (True, True) in shown
        assert (False, False) in shown
        return (False, True) not in shown

    def disks(self) -> Iterator[MemoryDevice]:
        """What cuts from `start` on leave: none, all, one, or all but one of the pending writes."""
        for cut in range(self.start, len(self.disk.events) + 1):
            pending = {e.id for e in self.disk.pending(cut)}
            keeps = [set(), pending, *({e} for e in pending), *(pending - {e} for e in pending)]
            for keep in keeps:
                disk = self.disk.image_at(cut, keep)
                recover(disk)
                yield disk


def pairs(kit: Recorded) -> list[tuple[int, int]]:
    (n, m), (d, e) = kit.nodes, kit.datas
    return [(d, e), (e, d), (d, n), (d, m), (n, d), (m, d), (n, m), (m, n)]


@pytest.mark.parametrize("which", range(8))
@pytest.mark.parametrize("how", ["all", "after", "both", "reverse"])
def test_order_is_kept_by_sync(which: int, how: str) -> None:
    kit = Recorded()
    before, after = pairs(kit)[which]
    kit.touch(after)
    kit.touch(before)
    kit.xn.depend(kit.me, before, after)
    kit.sync({"all": None, "after": [after], "both": [before, after]}.get(how, [after, before]))
    metadata = before in kit.nodes and after in kit.nodes
    # Two blocks of metadata may also go in one transaction, which is atomic.
    assert kit.in_order(before, after) or (metadata and how != "after")
    assert kit.xn.dirty_count() == (0, 0)


def test_order_data_and_metadata_share_a_flush() -> None:
    """The data is in place before the flush, and the transaction says so."""
    kit = Recorded()
    kit.touch(kit.nodes[1])
    kit.sync()  # now the data is no longer listed
    kit.start = len(kit.disk.events)
    kit.touch(kit.datas[0])
    kit.touch(kit.nodes[0])
    kit.xn.depend(kit.me, kit.datas[0], kit.nodes[0])
    kit.sync([kit.nodes[0]])
    assert sum(e.is_flush for e in kit.disk.events[kit.start :]) == 1
    assert kit.in_order(kit.datas[0], kit.nodes[0])


@pytest.mark.parametrize("which", [0, 1, 4, 5])
def test_order_is_kept_by_writeback(which: int) -> None:
    kit = Recorded()
    before, after = pairs(kit)[which]
    kit.touch(before)
    kit.touch(after)
    kit.xn.depend(kit.me, before, after)
    kit.xn.writeback(kit.me, [after, before])
    kit.sync()
    assert kit.in_order(before, after)


def test_order_written_back_is_not_durable() -> None:
    kit = Recorded()
    before, after = kit.datas
    kit.touch(before)
    kit.xn.depend(kit.me, before, after)
    kit.xn.writeback(kit.me, [before])
    kit.touch(after)
    kit.xn.writeback(kit.me, [after])
    kit.sync()
    assert kit.in_order(before, after)


def test_order_ends_when_before_is_durable() -> None:
    kit = Recorded()
    before, after = kit.datas
    kit.touch(before)
    kit.xn.depend(kit.me, before, after)
    kit.sync()
    kit.xn.depend(kit.me, after, before)  # no cycle: the first order is history
    kit.text = b"two"
    kit.touch(after)
    kit.touch(before)
    kit.start = len(kit.disk.events)
    kit.sync()
    assert kit.in_order(after, before)


def test_order_cycles_are_refused() -> None:
    kit = Recorded()
    (n, m), (d, e) = kit.nodes, kit.datas
    with pytest.raises(CycleError):
        kit.xn.depend(kit.me, d, d)
    for block in (n, m, d, e):
        kit.touch(block)
    for a, b in ((n, m), (m, d), (d, e)):
        kit.xn.depend(kit.me, a, b)
    for a, b in ((e, n), (d, n), (e, m), (m, n)):
        with pytest.raises(CycleError):
            kit.xn.depend(kit.me, a, b)
    kit.sync()
    assert kit.in_order(m, d)
    assert kit.in_order(d, e)


def test_order_against_ownership_stops_nobody() -> None:
    """The parent before its new child can't be: but syncs, of others too, must go on."""
    kit = Recorded()
    child = kit.node(kit.nodes[0], 1)
    data = kit.data(child, 0, b"x")
    kit.touch(kit.nodes[0])
    kit.xn.depend(kit.me, kit.nodes[0], child)
    kit.xn.depend(kit.me, child, data)
    kit.sync()
    assert kit.xn.dirty_count() == (0, 0)
    after = Kit(kit.disk.image_at(len(kit.disk.events)))
    after.load(after.root)
    assert after.xn.read(after.me, data, 0, 1) == b"x"


@pytest.mark.parametrize("log_blocks", [4, 16])
def test_order_against_ownership_in_a_full_log(log_blocks: int) -> None:
    kit = Recorded(log_blocks)
    for i in range(2, 12):
        child = kit.node(kit.nodes[i % 2], i)
        kit.xn.depend(kit.me, kit.nodes[i % 2], child)
        kit.xn.depend(kit.me, kit.root, kit.nodes[i % 2])
        kit.touch(kit.root)
    kit.sync()
    assert kit.xn.dirty_count() == (0, 0)


def test_order_long_chains() -> None:
    """As deep as the number of edges allows, and no deeper."""
    kit = Kit(RecordingDevice(image(2048, log_blocks=16)), frames=1500)
    run = kit.data(kit.root, 0, b"old", 1400)
    kit.sync()
    kit.xn.write_raw(kit.me, run, 0, b"new" * 1000 * 1400)
    for i in range(MAX_EDGES):
        kit.xn.depend(kit.me, run + i, run + i + 1)
    with pytest.raises(Refused):
        kit.xn.depend(kit.me, run + 1390, run + 1391)
    kit.sync([run + 40])
    kit.xn.free(kit.me, kit.root, [slot(0)], [extent(DATA, run, 1400)])
    kit.sync()
    assert kit.xn.dirty_count() == (0, 0)


def declare(kit: Recorded, before: int, after: int) -> Callable[[], None]:
    return lambda: kit.xn.depend(kit.me, before, after)


def test_order_needs_cached_blocks() -> None:
    kit = Recorded()
    kit.xn.evict(kit.me, [kit.datas[0]])
    for call in (declare(kit, *kit.datas), declare(kit, *kit.datas[::-1])):
        with pytest.raises(Exception, match="not cached"):
            call()
