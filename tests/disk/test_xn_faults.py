"""A device that fails under the system calls: no lie afterwards, and a legal disk."""

from __future__ import annotations

import errno
import random

import pytest

from tests.disk.xn_crash import Run, examine, record
from tests.disk.xn_kit import DATA, RAW, Kit, extent, fill, image, slot
from xnfs import DeviceError, FramePool, ReadOnly, TypeSpec, Xn
from xnfs.disk.fsck import check_image
from xnfs.disk.fsck_walk import Finding
from xnfs.disk.stacked import Fault, FaultingDevice


def stopped(run: Run) -> None:
    """After a failed write or flush nothing claims success any more."""
    kit = run.actor.kit
    for _ in range(2):
        with pytest.raises(DeviceError):
            kit.xn.sync(kit.me)
        with pytest.raises(DeviceError):
            kit.xn.sync(kit.me, [kit.root])
        with pytest.raises(DeviceError):
            kit.xn.writeback(kit.me, [kit.root])
    with pytest.raises(ReadOnly):
        kit.xn.update(kit.me, kit.root, [(RAW[0], b"x")])
    with pytest.raises(DeviceError):
        kit.xn.close()


def fail_everywhere(seed: int, steps: int, op: str, *, stride: int = 1) -> int:
    """EIO at each write or flush of a workload in turn. Returns how many there were."""
    rng = random.Random(seed)
    at = 0
    while True:
        fault = Fault(op, "eio", after=at)  # type: ignore[arg-type]
        run = record(seed, steps, image(log_blocks=8), partial=True, fault=fault)
        if not fault.struck:
            return at
        stopped(run)
        cut = len(run.disk.events)
        pending = [e.id for e in run.disk.pending(cut)]
        for p in (0.0, 0.5, 1.0):
            examine(run, cut, {e for e in pending if rng.random() < p}, {}, again=False)
        at += stride


@pytest.mark.parametrize("seed", [1, 2])
def test_faults_eio_at_every_flush(seed: int) -> None:
    assert fail_everywhere(seed, 40, "flush") > 1


@pytest.mark.parametrize("seed", [1, 2])
def test_faults_eio_at_every_write(seed: int) -> None:
    fail_everywhere(seed, 40, "write", stride=2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
def test_faults_eio_everywhere_long(seed: int) -> None:
    fail_everywhere(seed, 60, "write")
    fail_everywhere(seed, 60, "flush")


@pytest.mark.parametrize("after", range(5))
def test_faults_enospc_is_retried(after: int) -> None:
    """A host disk that is merely full: the same sync succeeds when there is room again."""
    base = image()
    device = FaultingDevice(base)
    kit = Kit(device)
    node = kit.node(kit.root, 0)
    data = kit.data(node, 0, b"x", 3)
    device.plant(Fault("write", "eio", after=after, errno=errno.ENOSPC))
    with pytest.raises(DeviceError) as e:
        kit.sync()
    assert e.value.errno == errno.ENOSPC
    if after >= 3:  # in place: only the log knows what should stand there
        with pytest.raises(DeviceError):
            kit.sync()
        kit = Kit(base)
        assert kit.xn.recovered == "redone"
        assert kit.xn.leaky
        kit.load(kit.root)
        assert kit.xn.read(kit.me, data, 0, 1) == b"x"
        return
    kit.sync()
    kit.xn.close()
    kit = Kit(base)
    kit.load(kit.root)
    assert kit.xn.read(kit.me, data, 0, 1) == b"x"
    assert not kit.xn.leaky


def test_faults_enospc_keeps_the_last_transaction() -> None:
    """A failed attempt takes no number: its half of the log is used again, not the other one."""
    device = FaultingDevice(image())
    kit = Kit(device)
    for i in range(4):
        kit.node(kit.root, i)
        log = kit.xn._committer._log
        before = kit.xn._committer.seq
        device.plant(Fault("write", "eio", block=log._base(before + 1), errno=errno.ENOSPC))
        with pytest.raises(DeviceError):
            kit.sync()
        assert kit.xn._committer.seq == before
        kit.sync()
        assert kit.xn._committer.seq == before + 1


def test_faults_enospc_what_was_written_is_known_when_its_pages_are_gone() -> None:
    """A later transaction may rely on what one wrote that failed and did not rely on it."""
    device = FaultingDevice(image())
    kit = Kit(device)
    node = kit.node(kit.root, 0)
    kit.sync()
    start = kit.data(node, 0, b"x", 3)
    other = kit.node(kit.root, 1)
    committer = kit.xn._committer
    half = committer._log._base(committer.seq + 1)
    device.plant(Fault("write", "eio", block=half, errno=errno.ENOSPC))
    with pytest.raises(DeviceError):
        kit.xn.sync(kit.me, [other, *range(start, start + 3)])
    assert kit.xn.evict(kit.me, range(start, start + 3)) == 3
    kit.xn.sync(kit.me, [node])
    (newest,) = committer._log.newest_untrusted(committer.seq - 1)
    digest = kit.xn._seed.digest
    assert dict(newest.listed) == {b: digest(b, fill(b"x")) for b in range(start, start + 3)}


def test_faults_of_install_type_stop_writes() -> None:
    """A flush covers all that was written before it: also for a sync that comes later."""
    device = FaultingDevice(image())
    kit = Kit(device)
    data = kit.data(kit.root, 0, b"x")
    kit.xn.writeback(kit.me, [data])
    device.plant(Fault("flush", "eio"))
    with pytest.raises(DeviceError):
        kit.xn.install_type(kit.admin, TypeSpec("t.new"))
    with pytest.raises(DeviceError):
        kit.sync()


@pytest.mark.parametrize("op", ["write", "flush"])
@pytest.mark.parametrize("after", [0, 1])
def test_faults_of_the_clean_mark_stop_writes(op: str, after: int) -> None:
    base = image()
    device = FaultingDevice(base)
    kit = Kit(device)
    device.plant(Fault(op, "eio", after=after))  # type: ignore[arg-type]
    with pytest.raises(DeviceError):
        kit.node(kit.root, 0)
    with pytest.raises(ReadOnly):
        kit.node(kit.root, 0)
    with pytest.raises(DeviceError):
        kit.sync()
    assert not Kit(base).slots(kit.root)


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("where", [0, -1])
@pytest.mark.parametrize("kind", ["eio", "short", "flip"])
def test_faults_one_superblock_is_enough(kind: str, where: int, readonly: bool) -> None:
    """The other copy is used, and said to be; and the bad one is written anew."""
    base = image()
    block = where % base.blocks
    device = FaultingDevice(base, Fault("read", kind, block=block, bit=500))  # type: ignore[arg-type]
    xn = Xn(device, frames=FramePool(64), readonly=readonly)
    assert xn.bad_superblocks == (block,)
    assert [root.name for root in xn.roots()] == ["main"]
    xn.close()
    poked = image()
    poked.write(block, [b"\xff" * 4096])
    before = dict(poked._contents)
    Xn(poked, frames=FramePool(64), readonly=readonly).close()
    if readonly:
        assert poked._contents == before
    else:
        assert check_image(poked, repair=False, report=print).clean
        assert Xn(poked, frames=FramePool(64)).bad_superblocks == ()


def test_faults_no_superblock_is_not_enough() -> None:
    base = image()
    device = FaultingDevice(base, Fault("read", "eio", block=0), Fault("read", "eio", block=127))
    with pytest.raises(DeviceError):
        Kit(device)


def test_faults_superblock_that_can_not_be_written_stops_writes() -> None:
    device = FaultingDevice(
        image(), Fault("read", "eio", block=0), Fault("write", "eio", block=0, sticky=True)
    )
    kit = Kit(device)
    assert kit.slots(kit.root) == {}
    with pytest.raises(ReadOnly):
        kit.node(kit.root, 0)


def test_faults_fsck_writes_a_superblock_that_can_not_be_read() -> None:
    base = image()
    found: list[Finding] = []
    device = FaultingDevice(base, Fault("read", "eio", block=0, after=2))
    check_image(device, repair=True, report=found.append)
    assert [(f.code, f.block) for f in found] == [("superblock", 0)]


def test_faults_log_of_a_clean_image_is_not_needed() -> None:
    base = image()
    kit = Kit(base)
    node = kit.node(kit.root, 0)
    kit.xn.close()
    log = kit.xn._geometry.log_start
    device = FaultingDevice(base, *(Fault("read", "eio", block=log + i) for i in range(16)))
    kit = Kit(device)
    kit.load(kit.root)
    kit.node(node, 3)
    kit.sync()
    assert not any(fault.struck for fault in device.faults)
    with pytest.raises(DeviceError):
        Kit(device)  # it is needed now


def test_faults_of_reading_change_nothing() -> None:
    base = image()
    kit = Kit(base)
    node = kit.node(kit.root, 0)
    data = kit.data(node, 0, b"x", 4)
    kit.xn.close()
    device = FaultingDevice(base)
    kit = Kit(device)
    device.plant(Fault("read", "eio", block=node))
    with pytest.raises(DeviceError):
        kit.xn.readin(kit.me, kit.root, 0, node, 1)
    kit.load(kit.root)
    assert kit.xn.read(kit.me, data, 0, 1) == b"x"
    kit.node(kit.root, 5)
    kit.sync()


@pytest.mark.parametrize("kind", ["flip", "misdirected", "stale"])
def test_faults_wrong_metadata_is_seen(kind: str) -> None:
    """Damage is reported, stops writes, and marks the image; no byte of the block is believed."""
    base = image()
    kit = Kit(base)
    nodes = [kit.node(kit.root, i) for i in range(2)]
    kit.xn.close()
    device = FaultingDevice(base)
    kit = Kit(device)
    fault = Fault("read", kind, block=nodes[0], other=nodes[1], bit=9999)  # type: ignore[arg-type]
    if kind == "stale":
        base.write(nodes[0], [bytes(4096)])  # as if its write had been lost
    else:
        device.plant(fault)
    with pytest.raises(Exception, match=f"block {nodes[0]}") as e:
        kit.xn.readin(kit.me, kit.root, 0, nodes[0], 1)
    assert type(e.value).__name__ == "CorruptionError"
    assert kit.xn.damaged
    assert not kit.xn.cached(nodes[0])
    start = kit.find()
    with pytest.raises(ReadOnly):
        kit.xn.alloc(kit.me, kit.root, [slot(5, DATA, start)], [extent(DATA, start)])
    kit.xn.close()
    assert Kit(base).xn.damaged
