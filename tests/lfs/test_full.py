"""A full disk: what `statfs` promises can be written, and overwritten for ever; power cuts while the
cleaner is at work lose nothing; deletions work."""

from __future__ import annotations

import errno
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libfs.lfs import format as f
from libfs.lfs.cleaner import POLICIES
from libfs.posix.interface import FsError, Ino
from tests.lfs.support import ROOT, TOP, UUID, Disk
from xnfs import BLOCK, FramePool, MemoryDevice, Xn
from xnfs.disk.device import Buffers
from xnfs.disk.stacked import CountingDevice


def fill(disk: Disk, size: int, *, left: int = 2) -> list[Ino]:
    """Files of this size, until `statfs` says that there is no room for one more. None is refused
    before."""
    files: list[Ino] = []
    need = max(-(-size // BLOCK), 1) + left
    while disk.fs.statfs().bavail >= need:
        files.append(disk.file(b"%d" % len(files), b"x" * size))
        if len(files) % 64 == 0:
            disk.fs.sync(None)
    disk.fs.sync(None)
    return files


def overwrite(disk: Disk, rng: random.Random, files: list[Ino], size: int, each: int) -> None:
    """At random places, with a sync after `each`. Never refused."""
    for i in range(int(2.5 * disk.xn.data_area[1])):
        if size > BLOCK:
            at, count = rng.randrange(size // BLOCK) * BLOCK, BLOCK
        else:
            at, count = 0, size
        data = b"%08d" % i * BLOCK
        disk.fs.write(ROOT, files[rng.randrange(len(files))], at, data[:count], kill_suid=False)
        if i % each == 0:
            disk.fs.sync(None)


@settings(max_examples=6)
@given(
    size=st.sampled_from([60, 1500, 2100, BLOCK, 10_000, 150_000, 1_500_000]),
    policy=st.sampled_from(POLICIES),
    each=st.integers(1, 200),
    seed=st.integers(0, 1 << 30),
)
def test_full_what_is_promised_can_be_overwritten_for_ever(
    size: int, policy: str, each: int, seed: int
) -> None:
    disk = Disk(blocks=800)
    disk.fs.volume.cleaner.policy = policy
    rng = random.Random(seed)
    files = fill(disk, size)
    overwrite(disk, rng, files, size, each)
    for i in range(len(files)):
        disk.fs.unlink(ROOT, TOP, b"%d" % i, keep=False)
    disk.fs.sync(None)
    assert disk.check()[0].clean
    assert len(fill(disk, size)) >= 0.98 * len(files)
