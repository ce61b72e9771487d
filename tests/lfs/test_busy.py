"""A mount that is never idle: checkpoints are made, and the cleaner works, beside the requests."""

from __future__ import annotations

import random

import pytest

from libfs.lfs.checkpoint import EVERY, SEGMENTS
from libfs.lfs.cleaner import STEP, Cleaner
from tests.lfs.support import ROOT, Disk
from xnfs import BLOCK

SECOND = 1_000_000_000


def test_busy_checkpoints_come_with_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    vol = disk.fs.volume
    ino, number, start = disk.file(b"f"), vol.checkpoint.number, vol.now()
    for turn in range(100):
        monkeypatch.setattr(vol, "now", lambda turn=turn: start + turn * SECOND)
        disk.fs.write(ROOT, ino, 0, b"%d" % turn, kill_suid=False)
        disk.fs.sync([ino])
    assert vol.checkpoint.number - number == 100 * SECOND // EVERY
    disk.cut()
    assert disk.read(b"f") == b"99"


@pytest.mark.parametrize("syncs", [False, True])
def test_busy_checkpoints_come_with_segments(syncs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still; with syncs, and without any."""
    disk = Disk()
    vol = disk.fs.volume
    now = vol.now()
    monkeypatch.setattr(vol, "now", lambda: now)
    ino, number, serial = disk.file(b"f"), vol.checkpoint.number, vol.log.serial
    every = SEGMENTS if syncs else 2 * SEGMENTS
    while vol.log.serial - serial < 3 * every + 1:
        disk.fs.write(ROOT, ino, 0, b"x" * 1100 * BLOCK, kill_suid=False)
        if syncs:
            disk.fs.sync([ino])
    assert vol.checkpoint.number - number >= 3
    at_once = 1100 // vol.segments.size + 2  # requests come between flushes
    assert vol.log.serial - vol.checkpoint.serial < every + at_once
    disk.cut()
    assert disk.check()[0].clean


def test_busy_the_cleaner_works_before_there_is_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """A little at a time, with every other request."""
    disk = Disk(blocks=2048)
    cleaner, rng = disk.fs.volume.cleaner, random.Random(1)
    files = [disk.file(b"%d" % i, b"x" * 8 * BLOCK) for i in range(110)]
    disk.fs.sync(None)

    def never(self: Cleaner, blocks: int) -> None:
        raise AssertionError("there was no room")

    monkeypatch.setattr(Cleaner, "make_room", never)
    most = STEP + disk.fs.volume.segments.size
    for turn in range(2500):
        before = cleaner.moved
        at = rng.randrange(8) * BLOCK
        disk.fs.write(ROOT, rng.choice(files), at, b"%04d" % turn * 1024, kill_suid=False)
        assert cleaner.moved - before <= most
        if turn % 8 == 0:
            disk.fs.sync(None)
    assert cleaner.cleaned > 50
    disk.cut()
    assert disk.check()[0].clean
