"""The cleaner: it makes room, moves what is live and nothing else, and never stands in the way of a
deletion."""

from __future__ import annotations

import errno
import random
from functools import partial

import pytest

from libfs.lfs import format as f
from libfs.lfs.cleaner import POLICIES
from libfs.lfs.flushing import flush
from libfs.lfs.lfs import SYNC_EVERY
from tests.conformance.support import errno_of
from tests.lfs.support import ROOT, TOP, Disk, entries


def _fill(disk: Disk, size: int) -> list[bytes]:
    """Files of this size until there is no room."""
    names: list[bytes] = []

    def one() -> None:
        name = b"%d" % len(names)
        ino = disk.file(name)
        names.append(name)
        disk.fs.write(ROOT, ino, 0, name.ljust(size, b"."), kill_suid=False)

    while not (code := errno_of(one)):
        pass
    assert code == errno.ENOSPC
    return names


@pytest.mark.parametrize("policy", POLICIES)
def test_cleaner_a_full_log_can_be_overwritten_for_ever(policy: str) -> None:
    """Three times the size of the disk, over files that fill most of it."""
    disk = Disk(blocks=1024)
    disk.fs.volume.cleaner.policy = policy
    names = [b"%d" % i for i in range(30)]
    want = dict.fromkeys(names, b"0" * 60_000)
    for name in names:
        disk.file(name, want[name])
    rng = random.Random(policy)
    for turn in range(400):
        name = names[rng.randrange(6 if turn % 4 else 30)]
        at = rng.randrange(50_000)
        ino = disk.fs.lookup(TOP, name)
        assert ino is not None
        disk.fs.write(ROOT, ino, at, b"%08d" % turn * 1000, kill_suid=False)
        want[name] = want[name][:at] + b"%08d" % turn * 1000 + want[name][at + 8000 :]
        if turn % 20 == 0:
            disk.fs.sync([ino])
    assert disk.fs.volume.cleaner.cleaned > 20
    disk.fs.sync(None)
    disk.cut()
    assert {name: disk.read(name) for name in names} == want
    assert disk.check()[0].clean


@pytest.mark.parametrize("size", [pytest.param(100, marks=pytest.mark.slow), 1500, 30_000, 400_000])
def test_cleaner_everything_can_be_deleted_from_a_full_disk(size: int) -> None:
    disk = Disk(blocks=1024 if size > 1500 else 400)
    names = _fill(disk, size)
    assert disk.fs.statfs().bavail < 0.2 * disk.fs.statfs().blocks
    for name in names:
        disk.fs.unlink(ROOT, TOP, name, keep=False)
    disk.fs.sync(None)
    assert not disk.fs.readonly
    again = _fill(disk, size)
    # Where leaves of names split depends on a random key: a percent or so of a full disk.
    assert len(again) >= 0.98 * len(names)
    disk.fs.sync(None)
    disk.cut()
    assert len(entries(disk.fs)) == len(again)
    assert disk.check()[0].clean


def test_cleaner_a_full_disk_can_be_truncated_and_overwritten_in_place() -> None:
    disk = Disk(blocks=1024)
    names = _fill(disk, 100_000)
    for turn, name in enumerate(names * 3):
        ino = disk.fs.lookup(TOP, name)
        assert ino is not None
        write = partial(disk.fs.write, ROOT, ino, turn % 20 * 4096, b"!" * 4096, kill_suid=False)
        if code := errno_of(write):
            assert code == errno.ENOSPC
            disk.fs.truncate(ROOT, ino, disk.fs.getattr(ino).size // 2, kill_suid=False)
    assert not disk.fs.readonly
    disk.fs.sync(None)
    disk.cut()
    assert disk.check()[0].clean


def test_cleaner_moves_what_is_live_and_frees_the_rest() -> None:
    disk = Disk()
    for i in range(60):
        disk.file(b"%d" % i, b"%d" % i * 20_000)
    big = disk.file(b"big")
    for i in range(0, 200, 2):
        disk.fs.write(ROOT, big, i * 4096, b"b" * 4096, kill_suid=False)
    disk.fs.setxattr(ROOT, big, b"user.x", b"v" * 3000, 0)
    disk.fs.sync(None)
    for i in range(60):
        if i % 3:
            disk.fs.unlink(ROOT, TOP, b"%d" % i, keep=False)
    before = disk.xn.free_blocks()
    cleaner = disk.fs.volume.cleaner
    cleaner.clean_some(2000)
    cleaner.settle()
    assert disk.xn.free_blocks() > before + 200
    assert 0 < cleaner.moved < 600
    disk.cut()
    assert all(disk.read(b"%d" % i) == b"%d" % i * 20_000 for i in range(0, 60, 3))
    assert disk.fs.seek(big, 4096, hole=False) == 8192
    assert disk.fs.getxattr(big, b"user.x") == b"v" * 3000
    assert disk.check()[0].clean


def test_cleaner_keeps_what_is_open_without_a_name() -> None:
    disk = Disk()
    ino = disk.file(b"f", b"f" * 100_000)
    disk.fs.sync(None)
    disk.fs.unlink(ROOT, TOP, b"f", keep=True)
    for _ in range(4):
        disk.fs.volume.cleaner.clean_some(4000)
        disk.fs.volume.cleaner.settle()
    assert disk.fs.read(ino, 0, 100_000) == b"f" * 100_000
    disk.fs.forget(ino)
    disk.fs.sync(None)
    assert disk.check()[0].clean


def test_cleaner_puts_old_files_together() -> None:
    """Age sorting: the blocks of one segment are of one age as far as that goes."""
    disk = Disk()
    for i in range(40):
        ino = disk.file(b"%d" % i, b"x" * 20_000)
        disk.fs.volume.vnode(ino).mtime = 1000 if i % 2 else 10**18
    vol = disk.fs.volume
    flush(vol, cleaning=True)
    ages = [
        vol.vnodes[slot[3]].mtime
        for segment in sorted(vol.segments.usage, key=lambda s: vol.segments.usage[s].summary)
        for slot in vol.segments.slots_untrusted(segment)[1]
        if slot[1] == f.P_DATA
    ]
    assert ages == sorted(ages)


def test_cleaner_policies_differ() -> None:
    """Greedy takes the emptiest; cost-benefit an old one that is fuller."""
    disk = Disk()
    vol = disk.fs.volume
    for i in range(40):
        disk.file(b"%d" % i, b"x" * 60_000)
    disk.fs.sync(None)
    size = vol.segments.size * f.BLOCK
    others = [s for s in vol.segments.usage if s != vol.log.segment]
    for segment in others:
        vol.segments.usage[segment].live = size
        vol.segments.usage[segment].blocks = vol.segments.size
    old, young = others[:2]
    now = vol.now()
    vol.segments.usage[old].live, vol.segments.usage[old].youngest = size // 2, 0
    vol.segments.usage[young].live, vol.segments.usage[young].youngest = size // 4, now
    assert vol.cleaner.candidates("greedy") == [young, old]
    assert vol.cleaner.candidates("cost-benefit") == [old, young]


def test_cleaner_works_when_nothing_else_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(blocks=1024)
    names = _fill(disk, 60_000)
    for name in names[::2]:
        disk.fs.unlink(ROOT, TOP, name, keep=False)
    disk.fs.sync(None)
    before, now = disk.xn.free_blocks(), disk.fs.volume.now()
    for turn in range(1, 12):
        monkeypatch.setattr(disk.fs.volume, "now", lambda turn=turn: now + turn * SYNC_EVERY)
        syncing = disk.fs.idle()
        if syncing is not None:
            syncing.wait()
            syncing.done()
    assert disk.xn.free_blocks() > before + 50
    disk.cut()
    assert disk.names() == set(names[1::2])
    assert disk.check()[0].clean
