"""A full disk: what `statfs` promises can be written, and overwritten for ever; a power cut while
the cleaner is at work loses nothing, whichever checkpoint is used; deletions work."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libfs.lfs.cleaner import POLICIES
from libfs.posix.interface import Ino
from tests.lfs.support import ROOT, TOP, Disk
from xnfs import BLOCK, MemoryDevice
from xnfs.disk.device import Buffers


def fill(disk: Disk, size: int) -> list[Ino]:
    """Files of this size, until `statfs` says that there is no room for one more. None is refused
    before."""
    files: list[Ino] = []
    while disk.fs.statfs().bavail > -(-size // BLOCK):
        files.append(disk.file(b"%d" % len(files), b"x" * size))
        if len(files) % 64 == 0:
            disk.fs.sync(None)
    disk.fs.sync(None)
    return files


def overwrite(disk: Disk, seed: int, files: list[Ino], size: int, times: int, each: int) -> None:
    """So many blocks at random places, with a sync after `each`. None is refused."""
    rng = random.Random(seed)
    for i in range(times):
        at = rng.randrange(size // BLOCK) * BLOCK if size > BLOCK else 0
        data = b"%08d" % i * (BLOCK // 8)
        disk.fs.write(ROOT, rng.choice(files), at, data[:size], kill_suid=False)
        if i % each == 0:
            disk.fs.sync(None)


def _promise(blocks: int, size: int, policy: str, each: int, seed: int) -> None:
    disk = Disk(blocks=blocks)
    disk.fs.volume.cleaner.policy = policy
    files = fill(disk, size)
    overwrite(disk, seed, files, size, 2 * blocks, each)
    for i in range(len(files)):
        disk.fs.unlink(ROOT, TOP, b"%d" % i, keep=False)
    disk.fs.sync(None)
    assert disk.check()[0].clean
    # Where leaves of names split depends on a random key: a percent or so of a full disk.
    assert len(fill(disk, size)) >= 0.97 * len(files)


@pytest.mark.parametrize("size", [1500, BLOCK])
def test_full_what_is_promised_can_be_overwritten(size: int) -> None:
    _promise(400, size, POLICIES[0], 16, 1)


@pytest.mark.slow
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    blocks=st.sampled_from([400, 800, 2000]),
    size=st.sampled_from([60, 1500, 2100, BLOCK, 10_000, 150_000, 1_000_000]),
    policy=st.sampled_from(POLICIES),
    each=st.integers(1, 200),
    seed=st.integers(0, 1 << 30),
)
def test_full_what_is_promised_can_be_overwritten_for_ever(
    blocks: int, size: int, policy: str, each: int, seed: int
) -> None:
    _promise(blocks, size, policy, each, seed)


#: Versions of the files: what was synced, and what was written.
Known: TypeAlias = tuple[dict[Ino, int], dict[Ino, int]]


class _Cuts:
    """States of a device after some of its writes, in order, with what was known then."""

    def __init__(self, disk: Disk, rng: random.Random, one_in: int, known: Callable[[], Known]):
        self.taken: list[tuple[MemoryDevice, Known]] = []
        below = disk.counts.write

        def write(start: int, views: Buffers) -> None:
            below(start, views)
            if rng.randrange(one_in) == 0:
                self.taken.append((disk.device.fork(), known()))

        disk.counts.write = write  # type: ignore[method-assign]


@pytest.mark.parametrize("spoilt", ["none", "newer", "older"])
def test_full_a_cut_while_the_cleaner_works_loses_nothing(spoilt: str) -> None:
    """Each file has its last synced version or a later one, whichever region is read."""
    disk = Disk(blocks=400)
    rng = random.Random(spoilt)
    files = fill(disk, BLOCK)
    written, synced = dict.fromkeys(files, 0), dict.fromkeys(files, 0)
    cuts = _Cuts(disk, rng, 60, lambda: (dict(synced), dict(written)))
    for i in range(1, 600):
        ino = rng.choice(files[: len(files) // 10] if i % 3 else files)
        written[ino] = i
        disk.fs.write(ROOT, ino, 0, b"%08d" % i * (BLOCK // 8), kill_suid=False)
        if i % 7 == 0:
            disk.fs.sync(None)
            synced.update(written)
    assert disk.fs.volume.cleaner.cleaned > 50
    assert len(cuts.taken) > 8
    for device, (before, after) in cuts.taken:
        disk.device = device
        disk.cut()
        checkpoint = disk.fs.volume.checkpoint
        if spoilt != "none":
            part = (checkpoint.number + (spoilt == "older")) % 2
            disk.spoil(checkpoint.regions[part])
            disk.cut()
        for ino in files:
            got = disk.fs.read(ino, 0, 8)
            assert before[ino] <= (0 if got == b"x" * 8 else int(got)) <= after[ino]
        # The usage, too, is what it was.
        assert {each.code for each in disk.check()[1]} <= {"region"}
