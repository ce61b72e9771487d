"""Newest versions: a block that is whole but older than the kernel knows is never believed."""

from __future__ import annotations

import errno
import struct

import pytest

from tests.disk.tables_kit import DISK, G, load, sync
from tests.disk.xn_kit import DATA, NODE, RAW, Kit, extent, image, slot
from xnfs import BLOCK, Caller, CorruptionError, DeviceError, FramePool, MemoryDevice, Xn
from xnfs.disk import numbers
from xnfs.disk.device import BlockDevice
from xnfs.disk.fsck import check_image
from xnfs.disk.fsck_walk import Finding
from xnfs.disk.layout import Seed
from xnfs.disk.stacked import Fault, FaultingDevice
from xnfs.disk.superblock import read_superblock_untrusted
from xnfs.disk.tables import Tables
from xnfs.disk.versions import MOST_PENDING

#: transactions that write over the log
LATER = 4


def get(disk: BlockDevice, block: int) -> bytes:
    raw = bytearray(BLOCK)
    disk.read(block, [memoryview(raw)])
    return bytes(raw)


def stamp(disk: BlockDevice, block: int) -> int:
    seq: int = struct.unpack_from("<Q", get(disk, block), 8)[0]
    return seq


def touch(kit: Kit, block: int, times: int = 1) -> None:
    """New versions of a block, each durable."""
    for turn in range(times):
        kit.xn.update(kit.me, block, [(RAW[0], b"%08d" % turn)])
        kit.sync()


def tables(disk: BlockDevice) -> Tables:
    """As they are in place, without the log."""
    sb = read_superblock_untrusted(disk)
    return Tables.load(disk, sb.geometry, Seed(sb.uuid))


def read_all(disk: BlockDevice) -> None:
    """Bind everything, and ask for the counts."""
    kit = Kit(disk)
    kit.load(kit.root)
    for _kind, block, _count in kit.slots(kit.root).values():
        kit.xn.refs(block)


def collect_all(xn: Xn) -> None:
    while not xn.collect(Caller(xn.admin)).done:
        pass


def findings(disk: MemoryDevice, *, repair: bool) -> list[Finding]:
    found: list[Finding] = []
    check_image(disk, repair=repair, report=found.append)
    return found


# -- they are kept


@pytest.mark.parametrize("times", [0, 1, 2, 7, MOST_PENDING + 3])
def test_versions_are_known_after_a_crash(times: int) -> None:
    """Of every block that a durable pointer names, the very version that is there."""
    disk = image()
    kit = Kit(disk)
    nodes = [kit.node(kit.root, i) for i in range(6)]
    for i, node in enumerate(nodes):
        kit.data(node, 0, b"x")
        kit.sync([node])
        touch(kit, nodes[i // 2], times)
    kit.sync()
    del kit
    xn = Kit(disk).xn
    for block in (*nodes, xn._geometry.roots_start, xn._geometry.map_start):
        newest = xn._tables.versions.newest(block)
        is_map = block == xn._geometry.map_start
        found = struct.unpack_from("<I", get(disk, block), 504)[0] >> 8
        assert newest == (found if is_map else stamp(disk, block))


def test_versions_are_in_the_tables_after_unmount() -> None:
    disk = image()
    kit = Kit(disk)
    node = kit.node(kit.root, 0)
    kit.xn.close()
    assert tables(disk).versions.newest(node) == stamp(disk, node) > 0
    assert tables(disk).versions.pending == {}


def test_versions_move_to_the_tables_when_there_are_many() -> None:
    kit = Kit(image(256))
    most = 0
    for i in range(16):
        node = kit.node(kit.root, i)
        for j in range(4):
            kit.node(node, j)
        kit.sync()
        most = max(most, len(kit.xn._tables.versions.pending))
    assert MOST_PENDING - 8 < most <= MOST_PENDING + 8


def test_versions_unfinished_attempts_count_for_nothing() -> None:
    """A transaction that the host has no room for; then another one, and a crash."""
    disk = image()
    device = FaultingDevice(disk)
    kit = Kit(device)
    one, two = (kit.node(kit.root, i) for i in range(2))
    kit.sync()
    kit.xn.update(kit.me, one, [(RAW[0], b"x")])
    log = kit.xn._committer._log
    half = log._base(kit.xn._committer.seq + 1)
    device.plant(Fault("write", "eio", block=half, errno=errno.ENOSPC))
    with pytest.raises(DeviceError):
        kit.sync([one])
    kit.xn.update(kit.me, two, [(RAW[0], b"y")])
    kit.sync([two])
    again = Kit(disk)
    again.load(again.root)  # a version of `one` that never was would be missed here
    assert again.xn.read(again.me, two, RAW[0], 1) == b"y"


def test_versions_need_room_before_the_commit_point() -> None:
    """The host has no room for a hole in the tables: nothing is lost, the same sync may succeed."""
    disk = image()
    device = FaultingDevice(disk)
    kit = Kit(device)
    g = kit.xn._geometry
    node = kit.node(kit.root, 0)
    kit.xn.change(kit.me, [(kit.root, [slot(1, NODE, node)])], share=[extent(NODE, node)])
    device.plant(Fault("write", "eio", block=g.refs_start, errno=errno.ENOSPC))
    with pytest.raises(DeviceError) as refused:
        kit.sync()
    assert refused.value.errno == errno.ENOSPC
    kit.sync()
    assert Kit(disk).xn.refs(node) == 2


# -- they are compared


def lost(block_of: str) -> tuple[MemoryDevice, int]:
    """An image in which the last write of one block was lost, and the log written over since."""
    disk = image()
    kit = Kit(disk)
    node = kit.node(kit.root, 0)
    kit.xn.change(kit.me, [(kit.root, [slot(5, NODE, node)])], share=[extent(NODE, node)])
    touch(kit, kit.root)
    g = kit.xn._geometry
    victim = {"node": node, "map": g.map_start, "counts": g.refs_start, "roots": g.roots_start}
    block = victim[block_of]
    before = get(disk, block)
    if block_of == "roots":
        kit.xn.install_root(kit.admin, "more", extent(NODE, 0)[0])
    kit.xn.change(kit.me, [(kit.root, [slot(6, NODE, node)])], share=[extent(NODE, node)])
    kit.data(node, 1, b"x")
    kit.sync()
    assert get(disk, block) != before
    touch(kit, kit.root, LATER)
    disk.write(block, [before])
    return disk, block


@pytest.mark.parametrize("what", ["node", "map", "counts", "roots"])
def test_versions_lost_writes_are_seen(what: str) -> None:
    disk, block = lost(what)
    with pytest.raises(CorruptionError, match=f"block {block}: .*version .*or later"):
        read_all(disk)


def test_versions_are_compared_by_the_collector() -> None:
    """An older version names blocks that are free, and not those that are in use."""
    disk, block = lost("node")
    xn = Xn(disk, frames=FramePool(64), clock=lambda: 1)
    with pytest.raises(CorruptionError, match=f"block {block}: version"):
        collect_all(xn)
    assert xn.damaged


def test_versions_newer_than_known_are_believed() -> None:
    """Losing what is known of versions, in the log or in the tables, loses nothing else."""
    disk = image()
    kit = Kit(disk)
    node = kit.node(kit.root, 0)
    touch(kit, node, 3)
    g = kit.xn._geometry
    for block in range(g.log_start, g.log_start + g.log_blocks):
        disk.write(block, [bytes(BLOCK)])
    again = Kit(disk)
    again.load(again.root)
    assert again.xn._tables.versions.newest(node) < stamp(disk, node)
    touch(again, node)
    assert again.xn._tables.versions.newest(node) == stamp(disk, node)


def test_versions_are_compared_modulo_their_size() -> None:
    disk = image()
    kit = Kit(disk)
    kit.xn._committer.seq = (1 << 32) - 2
    node = kit.node(kit.root, 0)
    touch(kit, node, 5)
    assert stamp(disk, node) > 1 << 32
    kit.xn.close()
    again = Kit(disk)
    again.load(again.root)
    disk.write(node, [get(disk, node)])
    again.xn._tables.versions.set(node, stamp(disk, node) + 1)
    with pytest.raises(CorruptionError):
        again.xn._tables.versions.check(node, stamp(disk, node))


def test_versions_of_a_read_that_is_stale() -> None:
    disk = image()
    device = FaultingDevice(disk, Fault("read", "stale", sticky=True))
    kit = Kit(device)
    node = kit.node(kit.root, 0)
    touch(kit, node, 2)
    kit.xn.evict(kit.me, [node])
    device.faults[0].block = node
    with pytest.raises(CorruptionError, match=f"block {node}: version"):
        kit.load(kit.root)


# -- memory


def test_versions_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of numbers that the disk has are forgotten; those that it has not are kept."""
    monkeypatch.setattr(numbers, "MAX_KEPT", 8)
    disk = DISK.fork()
    made = load(disk)
    spread = range(G.data_start, G.data_end, 504)
    for block in spread:
        made.set_total(block, 3)
        made.versions.set(block, block)
    sync(made, disk)
    made.placed()
    again = load(disk)
    for block in spread:
        assert (again.total(block), again.versions.newest(block)) == (3, block)
        again.raise_one(block)
        assert len(again._numbers._blocks) <= 8 + len(again.dirty_blocks())
    assert [again.total(block) for block in spread] == [4] * len(spread)


# -- fsck


def test_versions_fsck_keeps_an_older_block() -> None:
    disk, block = lost("node")
    assert [f.code for f in findings(disk, repair=False)] == ["stale"]
    assert {f.code for f in findings(disk, repair=True)} == {"stale"}
    assert findings(disk, repair=True) == []
    kit = Kit(disk)
    kit.load(kit.root)
    assert kit.xn.refs(block) == 3


def test_versions_fsck_gives_no_block_to_an_older_version_and_another() -> None:
    """Blocks that an older version names and that are another's by now stay with the other."""
    disk = image()
    kit = Kit(disk)
    one, two = (kit.node(kit.root, i) for i in range(2))
    data = kit.data(one, 0, b"secret")
    kit.sync()
    old = get(disk, one)
    kit.free(one, 0)
    kit.sync()
    assert kit.data(two, 3, b"other") == data
    kit.sync()
    touch(kit, kit.root, LATER)
    disk.write(one, [old])
    assert {f.code for f in findings(disk, repair=True)} == {"stale", "stale-claim"}
    assert findings(disk, repair=True) == []
    kit = Kit(disk)
    kit.load(kit.root)
    assert kit.slots(one) == {}
    assert kit.slots(two) == {3: (DATA, data, 1)}


@pytest.mark.parametrize("what", ["map", "counts"])
def test_versions_fsck_makes_an_older_table_anew(what: str) -> None:
    disk, block = lost(what)
    code = {"map": "map-sector", "counts": "refs-sector"}[what]
    found = findings(disk, repair=True)
    assert {(f.code, f.block) for f in found} == {(code, block)}
    assert findings(disk, repair=True) == []
    kit = Kit(disk)
    kit.load(kit.root)
    assert kit.xn.refs(kit.slots(kit.root)[0][1]) == 3


def test_versions_fsck_makes_damaged_versions_anew() -> None:
    disk = image()
    kit = Kit(disk)
    node = kit.node(kit.root, 0)
    kit.xn.close()
    home = tables(disk)._numbers.home(numbers.VERSION, node)
    raw = bytearray(get(disk, home))
    raw[7] ^= 1
    disk.write(home, [bytes(raw)])
    with pytest.raises(CorruptionError, match=f"block {home}: sector 0: checksum"):
        Kit(disk)
    assert {(f.code, f.block) for f in findings(disk, repair=True)} == {("versions-sector", home)}
    assert findings(disk, repair=True) == []
    assert tables(disk).versions.newest(node) == stamp(disk, node)
