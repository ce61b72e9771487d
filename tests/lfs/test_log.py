"""The log: everything is written once, a flush counts whole or not at all, an fsync costs one flush
of the device."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from libfs.ffs import Ffs
from libfs.lfs import Lfs
from libfs.lfs import format as f
from libfs.lfs.flushing import flush
from tests.lfs.support import FILE, ROOT, TOP, UUID, Disk, read
from xnfs import (
    AclRefused,
    Caller,
    FileDevice,
    FramePool,
    Refused,
    Xn,
    XnError,
    create_image,
    format_image,
)
from xnfs.disk.device import Buffers


@pytest.fixture
def disk() -> Disk:
    return Disk()


def test_log_one_flush_of_the_device_for_an_fsync(disk: Disk) -> None:
    ino = disk.file(b"f", b"x" * 100_000)
    disk.fs.sync([ino])
    for turn in range(20):
        disk.fs.write(ROOT, ino, turn * 4096, b"y" * 4096, kill_suid=False)
        before = disk.counts.counts.flushes
        disk.fs.sync([ino])
        assert disk.counts.counts.flushes == before + 1
    disk.cut()
    assert disk.read(b"f") == b"y" * 20 * 4096 + b"x" * (100_000 - 20 * 4096)


def test_log_nothing_is_written_twice_but_what_owns(disk: Disk) -> None:
    """The blocks of a log are written once each; summaries, table and regions are the rest."""
    written: dict[int, int] = {}
    below = disk.counts.write

    def write(start: int, views: Buffers) -> None:
        for block in range(start, start + sum(map(len, views)) // f.BLOCK):
            written[block] = written.get(block, 0) + 1
        below(start, views)

    disk.counts.write = write  # type: ignore[method-assign]
    for turn in range(30):
        for name in (b"a", b"b", b"c"):
            if disk.fs.lookup(TOP, name) is None:
                disk.file(name)
            ino = disk.fs.lookup(TOP, name)
            assert ino is not None
            disk.fs.write(ROOT, ino, turn % 5 * 4096, b"%d" % turn * 3000, kill_suid=False)
        disk.fs.sync(None)
    segments = disk.fs.volume.segments
    owning = {usage.summary for usage in segments.usage.values()} | set(segments.tables.values())
    owning |= {disk.fs.volume.super, *disk.fs.volume.checkpoint.regions}
    lo, _hi = disk.xn.data_area
    again = {b for b, times in written.items() if times > 1 and b >= lo and b not in owning}
    assert not again


def test_log_a_flush_without_its_end_never_counts(disk: Disk) -> None:
    """Its blocks are durable, in their slots; only `done` is missing. Nor do they count later, when
    another flush is whole."""
    disk.file(b"old", b"o" * 5000)
    disk.fs.sync(None)
    log = disk.fs.volume.log
    for i in range(4):
        disk.file(b"half %d" % i, b"h" * 300_000)
    push = log.push

    def never_done(*, done: bool = False, more: None = None) -> None:
        push()

    log.push = never_done  # type: ignore[method-assign, assignment]
    disk.fs.sync(None)
    disk.cut()
    assert disk.names() == {b"old"}
    for name in (b"n1", b"n2"):
        disk.file(name, b"n" * 5000)
        disk.fs.sync(None)
        disk.cut()
    assert disk.names() == {b"old", b"n1", b"n2"}
    assert disk.check()[0].clean


def test_log_many_inodes_share_a_block(disk: Disk) -> None:
    for i in range(300):
        disk.file(b"%d" % i)
    before = disk.fs.volume.log.serial * disk.fs.volume.segments.size + disk.fs.volume.log.next
    flush(disk.fs.volume)
    after = disk.fs.volume.log.serial * disk.fs.volume.segments.size + disk.fs.volume.log.next
    assert after - before < 60
    assert len(disk.remount().volume.vnodes) < 10
    assert len(disk.names()) == 300


def test_log_numbers_of_inodes_are_used_again_after_a_mount(disk: Disk) -> None:
    for i in range(1200):
        disk.file(b"%d" % i)
    kept = disk.file(b"kept", b"k" * 10_000)
    for i in range(1200):
        disk.fs.unlink(ROOT, TOP, b"%d" % i, keep=False)
    opened = disk.file(b"open")
    disk.remount()
    assert disk.fs.lookup(TOP, b"kept") == kept
    last = disk.fs.volume.next_ino
    disk.fs.unlink(ROOT, TOP, b"open", keep=True)
    made = {disk.file(b"n%d" % i) for i in range(1195)}
    assert len(made) == 1195
    assert max(made) < last
    assert disk.fs.volume.next_ino == last
    assert not {kept, opened, TOP} & made
    disk.cut()
    disk.remount()
    assert disk.read(b"kept") == b"k" * 10_000
    assert disk.check()[0].clean


def test_log_a_segment_that_others_have_in_part(disk: Disk) -> None:
    """Another root of the image has blocks in between."""
    xn = disk.xn
    Ffs.mkfs(xn, xn.admin, "other")
    other = Ffs.mount(xn, xn.admin, "other")
    for i in range(8):
        ino = disk.file(b"l%d" % i, b"l" * 200_000)
        made = other.create(ROOT, other.root, b"x%d" % i, FILE)
        other.write(ROOT, made, 0, b"o" * 150_000, kill_suid=False)
        disk.fs.sync([ino])
        other.sync(None)
    other.close()
    disk.cut()
    assert all(disk.read(b"l%d" % i) == b"l" * 200_000 for i in range(8))
    assert disk.check()[0].clean


def test_log_the_kernel_lets_only_the_file_system_change_what_owns(disk: Disk) -> None:
    vol = disk.fs.volume
    stranger = Caller(vol.who.cap, 1000, 1000)
    for block, at in ((vol.super, f.SUPER_AT), (vol.log.summary, f.SUMMARY_AT)):
        with pytest.raises(AclRefused):
            disk.xn.change(stranger, [(block, [(at, b"x" * 4)])])


@pytest.mark.parametrize("pointer", [f.pointer(f.P_DATA, 3000), f.pointer(f.P_SUMMARY + 90, 3000)])
def test_log_the_kernel_counts_slots(disk: Disk, pointer: int) -> None:
    """A slot that owns what was not claimed, or that takes what another has."""
    vol = disk.fs.volume
    slot = f.SLOTS_AT + 160 * f.SLOT_SIZE
    packed = f.POINTER.pack(pointer)
    edit = [(vol.log.summary, [(slot, packed)])]
    if pointer >> f.KIND_SHIFT == f.P_DATA:
        with pytest.raises(Refused):
            disk.xn.change(vol.who, edit)
    else:
        disk.xn.change(vol.who, edit)  # of no kind: owns nothing
        with pytest.raises(XnError):
            disk.xn.change(vol.who, edit, alloc=[(vol.type[f.P_DATA], 3000, 1)])


def test_log_more_inodes_than_may_wait(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libfs.lfs.volume.DIRTY_INODES", 50)
    for i in range(300):
        disk.file(b"%d" % i)
    assert len(disk.fs.volume.dirty) <= 53
    disk.fs.sync(None)
    disk.cut()
    assert len(disk.names()) == 300
    assert disk.check()[0].clean


def test_log_a_map_that_does_not_stay_in_memory(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libfs.lfs.tree.KEPT", 4)
    ino = disk.file(b"f")
    for i in range(40):
        disk.fs.write(ROOT, ino, i << 31, b"%04d" % i, kill_suid=False)
    disk.fs.sync(None)
    disk.cut()
    assert all(disk.fs.read(ino, i << 31, 4) == b"%04d" % i for i in range(40))
    assert disk.fs.volume.vnode(ino).tree.depth == 3
    assert disk.check()[0].clean


def test_log_all_of_a_tebibyte_is_used(tmp_path: Path) -> None:
    """An empty LFS is small there, and its last segments are as good as the first."""
    path = str(tmp_path / "image")
    create_image(path, 1 << 40)
    device = FileDevice(path)
    format_image(device, uuid=UUID, label="large")
    xn = Xn(device, frames=FramePool(2048))
    made = os.stat(path).st_blocks
    Lfs.mkfs(xn, xn.admin, "home", uuid=UUID)
    fs = Lfs.mount(xn, xn.admin, "home")
    assert os.stat(path).st_blocks - made < 1 << 11  # of 512 bytes
    assert fs.statfs().bavail > 0.9 * fs.statfs().blocks
    last = xn.data_area[1] // fs.volume.segments.size - 8
    fs.volume.segments._at = last - 1
    ino = fs.create(ROOT, TOP, b"f", FILE)
    fs.write(ROOT, ino, 0, b"f" * (3 << 20), kill_suid=False)
    fs.sync([ino])
    assert fs.volume.log.segment > last
    fs.close()
    xn.close()
    xn = Xn(FileDevice(path), frames=FramePool(2048))
    fs = Lfs.mount(xn, xn.admin, "home")
    assert read(fs, b"f") == b"f" * (3 << 20)
    fs.close()
    xn.close()


def test_log_a_new_table_of_segments_stays_cached_however_few_the_frames() -> None:
    """A table is edited whenever a segment is opened, so nobody reads it in again."""
    disk = Disk(blocks=168 * 200)
    segments = disk.fs.volume.segments
    assert set(segments.tables) == {0}
    # The next segments are the last of one table and the first of another.
    segments._free, segments._room, segments._at = [], 0, f.SLOTS - 2
    names = [b"%d" % i for i in range(3)]
    for name in names:
        disk.file(name, name * 600_000)
        disk.fs.sync(None)
    assert set(segments.tables) == {0, 1}
    xn, who = disk.xn, disk.fs.volume.who
    xn.evict(who, list(segments.tables.values()))
    assert all(xn.cached(block) for block in segments.tables.values())
    disk.remount()
    assert [disk.read(name) for name in names] == [name * 600_000 for name in names]
    assert disk.check()[0].clean
