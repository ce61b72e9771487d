"""After a crash: roll-forward, the two checkpoint regions, and what lies to them."""

from __future__ import annotations

import random

import pytest

from libfs.lfs import format as f
from libfs.lfs.checkpoint import make_durable
from libfs.posix.interface import FsError
from tests.lfs.support import DIR, ROOT, TOP, Disk, entries
from xnfs import BadImage, CorruptionError, NoSpace, XnError


@pytest.fixture
def disk() -> Disk:
    return Disk()


def _work(disk: Disk, rng: random.Random, want: dict[bytes, bytes]) -> None:
    """A few changes, made durable."""
    for _ in range(12):
        name = b"f%d" % rng.randrange(12)
        if name in want and rng.random() < 0.3:
            disk.fs.unlink(ROOT, TOP, name, keep=False)
            del want[name]
            continue
        ino = disk.fs.lookup(TOP, name) or disk.file(name)
        old = want.get(name, b"")
        at = rng.randrange(len(old) + 1)
        data = bytes([rng.randrange(256)]) * rng.choice([10, 3000, 20_000])
        disk.fs.write(ROOT, ino, at, data, kill_suid=False)
        want[name] = old[:at] + data + old[at + len(data) :]
    disk.fs.sync(None)


def _tree(disk: Disk) -> dict[bytes, bytes | None]:
    return {entry.name: disk.read(entry.name) for entry in entries(disk.fs)}


def test_recovery_rolls_forward_to_the_last_sync(disk: Disk) -> None:
    rng, want = random.Random(1), dict[bytes, bytes]()
    for turn in range(12):
        _work(disk, rng, want)
        disk.file(b"lost %d" % turn, b"never synced")
        disk.cut()
        assert _tree(disk) == want
        assert disk.fs.volume.recovered or turn == 0
        if turn % 4 == 3:
            disk.remount()  # a checkpoint
    assert disk.check()[0].clean


def test_recovery_of_everything_in_a_directory_tree(disk: Disk) -> None:
    top = disk.fs.create(ROOT, TOP, b"d", DIR)
    for i in range(400):
        disk.fs.create(ROOT, top, b"some name, long enough for several leaves %d" % i, DIR)
    disk.fs.setxattr(ROOT, top, b"user.long", b"v" * 2000, 0)
    disk.fs.sync(None)
    disk.fs.rename(ROOT, TOP, b"d", TOP, b"e", keep=False)
    disk.fs.unlink(ROOT, top, b"some name, long enough for several leaves 7", keep=False)
    disk.fs.sync(None)
    disk.cut()
    found = disk.fs.lookup(TOP, b"e")
    assert found == top
    assert len(disk.names(top)) == 399
    assert disk.fs.getattr(top).nlink == 401
    assert disk.fs.getxattr(top, b"user.long") == b"v" * 2000
    assert disk.check()[0].clean


def test_recovery_what_was_open_and_unlinked_is_gone(disk: Disk) -> None:
    ino = disk.file(b"f", b"x" * 50_000)
    disk.fs.sync(None)
    disk.fs.unlink(ROOT, TOP, b"f", keep=True)
    disk.fs.write(ROOT, ino, 0, b"y" * 9000, kill_suid=False)
    disk.fs.sync(None)
    assert disk.fs.read(ino, 0, 3) == b"yyy"
    disk.cut()
    assert disk.names() == set()
    with pytest.raises(FsError):
        disk.fs.getattr(ino)
    assert disk.check()[0].clean


@pytest.mark.parametrize("age", ["newer", "older"])
def test_recovery_with_one_region_loses_nothing(disk: Disk, age: str) -> None:
    """Whatever was synced is there, with either region spoilt, at any time between checkpoints."""
    rng, want = random.Random(2), dict[bytes, bytes]()
    for turn in range(9):
        _work(disk, rng, want)
        if turn % 3 == 1:
            disk.fs.volume.cleaner.clean_some(200)
            make_durable(disk.fs.volume, checkpoint=True)
        regions, number = disk.fs.volume.checkpoint.regions, disk.fs.volume.checkpoint.number
        whole = disk.device.fork()
        disk.spoil(regions[number % 2 if age == "newer" else 1 - number % 2])
        disk.cut()
        assert _tree(disk) == want, turn
        disk.close()
        assert disk.check()[0].clean
        disk.device = whole
        disk.cut()


def test_recovery_without_a_region_is_a_clear_error_and_fsck_mends_it(disk: Disk) -> None:
    rng, want = random.Random(3), dict[bytes, bytes]()
    for _ in range(4):
        _work(disk, rng, want)
    disk.remount()
    _work(disk, rng, want)
    for region in disk.fs.volume.checkpoint.regions:
        disk.spoil(region)
    with pytest.raises(CorruptionError, match="checkpoint"):
        disk.cut()
    summary, found = disk.check(repair=True)
    assert [finding.code for finding in found][:1] == ["log"]
    assert not summary.unrepaired
    disk.mount()
    assert _tree(disk) == want
    assert disk.check()[0].clean


def test_recovery_a_cleaned_segment_waits_for_two_checkpoints(disk: Disk) -> None:
    for i in range(40):
        disk.file(b"%d" % i, b"x" * 60_000)
    disk.fs.sync(None)
    for i in range(0, 40, 2):
        disk.fs.unlink(ROOT, TOP, b"%d" % i, keep=False)
    vol = disk.fs.volume
    make_durable(vol, checkpoint=True)
    assert vol.cleaner.clean_some(100)
    waiting = dict(vol.cleaner.clean)
    make_durable(vol, checkpoint=True)
    assert waiting.keys() <= vol.segments.usage.keys()
    make_durable(vol, checkpoint=True)
    assert not waiting.keys() & vol.segments.usage.keys()


@pytest.mark.parametrize(
    ("what", "at", "value"),
    [
        ("serial number", f.SUMMARY_AT, f.POINTER.pack(12345)),
        ("segment", f.SUMMARY_AT + 8, f.SUMMARY_NEXT.pack(999)),
        ("slot", f.SLOTS_AT, f.POINTER.pack(f.pointer(77, 1000))),
        ("kind", None, f.P_INODES),
        ("rest", f.REST_AT, f.POINTER.pack(f.pointer(f.P_UNWRITTEN, 900, 4))),
    ],
)
def test_recovery_a_summary_that_lies(
    disk: Disk, what: str, at: int | None, value: bytes | int
) -> None:
    """Right checksums, wrong words: the mount says which, and nobody loops or crashes."""
    disk.file(b"f", b"x" * 30_000)
    disk.fs.sync(None)
    vol = disk.fs.volume
    summary = vol.log.summary
    slot = next(s[0] for s in vol.segments.slots_untrusted(vol.log.segment)[1] if s[1] == f.P_DATA)

    def lie(raw: bytearray) -> None:
        if at is not None:
            assert isinstance(value, bytes)
            raw[at : at + len(value)] = value
        else:
            where = f.SLOTS_AT + slot * f.SLOT_SIZE
            assert isinstance(value, int)
            raw[where + 7] = value  # inodes, where there is data

    disk.close()
    disk.device = disk.device.fork()
    _forget_checkpoint(disk)
    disk.patch(summary, lie, stamped=True)
    with pytest.raises(XnError) as caught:
        disk.cut()
    assert isinstance(caught.value, CorruptionError), what


def _forget_checkpoint(disk: Disk) -> None:
    """The image as a crash before the last checkpoint would have left it."""
    for region in disk.fs.volume.checkpoint.regions:
        if f.CHECKPOINT.unpack_from(disk.raw(region), f.CHECKPOINT_AT)[0] > 2:
            disk.spoil(region)


def test_recovery_a_chain_of_summaries_in_a_circle(disk: Disk) -> None:
    for i in range(20):
        disk.file(b"%d" % i, b"x" * 60_000)
    disk.fs.sync(None)
    log = disk.fs.volume.log
    assert log.serial > 3
    here = f.SUMMARY_NEXT.pack(log.segment + 1)

    def turn(raw: bytearray) -> None:
        raw[f.SUMMARY_NEXT_AT : f.SUMMARY_NEXT_AT + 4] = here

    disk.device = disk.device.fork()
    disk.patch(log.summary, turn, stamped=True)
    with pytest.raises(CorruptionError, match="serial"):
        disk.cut()


def test_recovery_over_garbage_in_the_log(disk: Disk) -> None:
    """A block of records that was spoilt after the crash: named, not believed."""
    disk.file(b"f", b"x" * 30_000)
    disk.fs.sync(None)
    at = disk.fs.volume.imap.get(2)
    disk.device = disk.device.fork()
    disk.spoil(at & f.AT_MASK)
    with pytest.raises(CorruptionError, match="checksum"):
        disk.cut()
    summary, _found = disk.check(repair=True)
    assert not summary.unrepaired
    disk.mount()
    assert disk.names() <= {b"f"}


def test_recovery_too_small_an_image() -> None:
    with pytest.raises((NoSpace, BadImage)):
        Disk(blocks=128)
