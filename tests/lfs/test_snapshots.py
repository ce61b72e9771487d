"""Snapshots: they cost a block, stay what they were, and hinder nobody but the cleaner."""

from __future__ import annotations

import errno
import random

import pytest

from libfs.lfs import Lfs
from libfs.posix.interface import FsError
from tests.conformance.support import refuses
from tests.lfs.support import FILE, ROOT, TOP, Disk, entries, read


def _tree(fs: Lfs) -> dict[bytes, bytes | None]:
    return {entry.name: read(fs, entry.name) for entry in entries(fs)}


def _snapshot(disk: Disk, name: str) -> Lfs:
    return Lfs.mount(disk.xn, disk.xn.admin, "home", snapshot=name)


@pytest.mark.parametrize("files", [1, 300])
def test_snapshot_costs_the_same_whatever_there_is(files: int) -> None:
    disk = Disk()
    for i in range(files):
        disk.file(b"%d" % i, b"x" * 9000)
    disk.remount()
    log = disk.fs.volume.log
    before, writes = (log.serial, log.next), disk.counts.counts.blocks_written
    disk.fs.volume.snapshots.create("now")
    assert log.serial == before[0]
    assert log.next == before[1] + 1
    assert disk.counts.counts.blocks_written - writes < 20


def test_snapshot_stays_while_all_else_changes() -> None:
    disk = Disk(blocks=8192)
    rng, saved = random.Random(4), dict[str, dict[bytes, bytes | None]]()
    for turn in range(8):
        for _ in range(40):
            name = b"f%d" % rng.randrange(30)
            found = disk.fs.lookup(TOP, name)
            if found is not None and rng.random() < 0.3:
                disk.fs.unlink(ROOT, TOP, name, keep=False)
                continue
            data = rng.randbytes(rng.choice([50, 5000, 40_000]))
            disk.fs.write(ROOT, found or disk.file(name), 0, data, kill_suid=False)
        if turn % 2 == 0:
            disk.fs.volume.snapshots.create(f"s{turn}")
            saved[f"s{turn}"] = _tree(disk.fs)
        if turn == 5:
            disk.fs.volume.snapshots.delete("s2")
            del saved["s2"]
        disk.fs.volume.cleaner.clean_some(1000)
        disk.fs.volume.cleaner.settle()
        live = _tree(disk.fs)
        if turn % 3 == 2:
            disk.fs.sync(None)
            disk.cut()
        assert _tree(disk.fs) == live
        for which, tree in saved.items():
            assert _tree(_snapshot(disk, which)) == tree
    assert disk.fs.volume.cleaner.pinned
    disk.close()
    assert disk.check()[0].clean


def test_snapshot_deleted_gives_its_room_back() -> None:
    disk = Disk(blocks=1024)
    for i in range(20):
        disk.file(b"%d" % i, b"x" * 60_000)
    disk.fs.volume.snapshots.create("full")
    for i in range(20):
        disk.fs.unlink(ROOT, TOP, b"%d" % i, keep=False)
    with refuses(errno.ENOSPC):
        for i in range(50):
            disk.file(b"new %d" % i, b"y" * 60_000)
    disk.fs.volume.snapshots.delete("full")
    for i in range(8):
        disk.file(b"then %d" % i, b"z" * 60_000)
    disk.fs.sync(None)
    disk.cut()
    assert disk.read(b"then 7") == b"z" * 60_000
    assert disk.check()[0].clean


def test_snapshot_rollback() -> None:
    disk = Disk()
    disk.file(b"kept", b"k" * 10_000)
    disk.fs.volume.snapshots.create("then")
    ino = disk.fs.lookup(TOP, b"kept")
    assert ino is not None
    disk.fs.write(ROOT, ino, 0, b"changed", kill_suid=False)
    disk.file(b"later", b"l" * 10_000)
    disk.fs.volume.snapshots.create("between")
    disk.fs.volume.snapshots.rollback("then")
    assert _tree(disk.fs) == {b"kept": b"k" * 10_000}
    disk.file(b"after", b"a" * 10_000)
    disk.fs.sync(None)
    disk.cut()
    assert disk.names() == {b"kept", b"after"}
    assert _tree(_snapshot(disk, "between")).keys() == {b"kept", b"later"}
    assert disk.check()[0].clean


def test_snapshot_rolling_forward_counts_what_both_have_once() -> None:
    disk = Disk()
    ino = disk.file(b"f", b"f" * 300_000)
    disk.fs.volume.snapshots.create("s")
    live = disk.fs.volume.segments.live
    disk.fs.write(ROOT, ino, 0, b"changed", kill_suid=False)
    disk.fs.sync(None)
    disk.cut()
    assert disk.fs.volume.recovered
    assert live < disk.fs.volume.segments.live < live + 30_000
    assert disk.check()[0].clean


def test_snapshot_errors() -> None:
    disk = Disk()
    snapshots = disk.fs.volume.snapshots
    snapshots.create("a")
    for name, code in (("a", errno.EEXIST), ("", errno.EINVAL), ("x/y", errno.EINVAL)):
        with refuses(code):
            snapshots.create(name)
    for call in (snapshots.delete, snapshots.rollback, lambda name: _snapshot(disk, name)):
        with refuses(errno.ENOENT):
            call("none")
    frozen = _snapshot(disk, "a")
    with refuses(errno.EROFS):
        frozen.create(ROOT, TOP, b"f", FILE)
    with refuses(errno.EROFS):
        frozen.volume.snapshots.delete("a")


def test_snapshot_survives_the_loss_of_either_region() -> None:
    disk = Disk()
    disk.file(b"f", b"f" * 10_000)
    disk.fs.volume.snapshots.create("s")
    disk.fs.unlink(ROOT, TOP, b"f", keep=False)
    disk.fs.sync(None)
    whole, regions = disk.device, disk.fs.volume.checkpoint.regions
    for region in regions:
        disk.device = whole.fork()
        disk.spoil(region)
        disk.cut()
        assert disk.names() == set()
        assert _tree(_snapshot(disk, "s")) == {b"f": b"f" * 10_000}


def test_snapshot_too_many() -> None:
    disk = Disk()
    for i in range(128):
        disk.fs.volume.snapshots.create(f"{i}")
    with pytest.raises(FsError) as caught:
        disk.fs.volume.snapshots.create("one more")
    assert caught.value.errno == errno.ENOSPC
    assert len(disk.remount().volume.snapshots.all) == 128
