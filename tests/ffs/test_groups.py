"""C-FFS: the small files of a directory are read as one; and it changes nothing but requests."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from libfs.ffs import F_GROUPING, Ffs
from tests.conformance.support import content
from tests.ffs.copying_kit import Lab
from tests.ffs.support import ROOT
from xnfs import MemoryDevice
from xnfs.disk.stacked import CountingDevice, IoCounts

FILES, DIRECTORIES = 30, 4


def made(size: int) -> MemoryDevice:
    """A disk with small files, made and closed."""
    lab = Lab(flags=F_GROUPING)
    for number in range(DIRECTORIES):
        lab.directory(f"d{number}")
        for each in range(FILES):
            lab.file(f"d{number}/{each}", bytes([each + 1]) * size)
    lab.close()
    assert isinstance(lab.device, MemoryDevice)
    return lab.device


def requests(
    device: MemoryDevice, work: Callable[[Lab], None], *, grouping: bool | None = None
) -> IoCounts:
    """What `work` on a cold mount asks of the device, its sync included."""
    counting = CountingDevice(device)
    lab = Lab(counting)
    if grouping is not None:
        lab.fs = Ffs.mount(lab.xn, lab.xn.admin, "home", grouping=grouping)
        lab.posix = type(lab.posix)(lab.fs)
    before = replace(counting.counts)
    work(lab)
    lab.posix.sync()
    after = counting.counts
    lab.close()
    return IoCounts(
        after.reads - before.reads, after.writes - before.writes, after.flushes - before.flushes
    )


def names() -> list[str]:
    found = [f"d{number}/{each}" for number in range(DIRECTORIES) for each in range(FILES)]
    random.Random(2).shuffle(found)
    return found


def read_all(size: int) -> Callable[[Lab], None]:
    def work(lab: Lab) -> None:
        for name in names():
            each = int(name.partition("/")[2])
            assert content(lab.posix, lab.at(name)) == bytes([each + 1]) * size

    return work


def remove_all(lab: Lab) -> None:
    for name in names():
        head, _, last = name.partition("/")
        lab.posix.unlink(ROOT, lab.at(head), last.encode())


@pytest.mark.parametrize("size", [1024, 4096, 16384])
def test_groups_read_small_files_with_a_quarter_of_the_requests(size: int) -> None:
    device = made(size)
    plain = requests(device.fork(), read_all(size), grouping=False)
    grouped = requests(device.fork(), read_all(size))
    assert grouped.reads * 4 <= plain.reads
    assert requests(device.fork(), read_all(size), grouping=True) == grouped
    plain = requests(device.fork(), remove_all, grouping=False)
    grouped = requests(device.fork(), remove_all)
    assert grouped.reads * 4 <= plain.reads
    assert grouped.writes <= plain.writes


def test_groups_take_no_frames_that_are_not_there() -> None:
    """With too few frames for a group each file is read by itself."""
    device = made(16384)
    for frames in (256, 300):
        lab = Lab(device.fork(), frames=frames)
        taken = lab.xn._registry._frames
        hog = taken.alloc("test", taken.free_frames - 40)
        read_all(16384)(lab)
        taken.free(hog)
        lab.close()


def test_groups_leave_what_is_large_or_of_another_kind() -> None:
    lab = Lab(flags=F_GROUPING)
    lab.directory("d")
    lab.file("d/large", b"l" * 200_000)
    lab.file("d/one", b"1" * 4096)
    lab.file("d/two", b"2" * 4096)
    lab.posix.symlink(ROOT, lab.at("d"), b"link", b"t" * 3000)
    lab.directory("d/sub")
    lab.file("d/sub/f", b"f")
    lab.remount()
    assert lab.posix.readlink(ROOT, lab.at("d/link")) == b"t" * 3000
    assert content(lab.posix, lab.at("d/one")) == b"1" * 4096
    large = lab.fs.volume.vnode(lab.at("d/large"))
    assert not lab.xn.cached(lab.fs._map.root(large).entries[0][3])
    assert content(lab.posix, lab.at("d/large")) == b"l" * 200_000
    assert content(lab.posix, lab.at("d/sub/f")) == b"f"
    assert lab.findings() == []
