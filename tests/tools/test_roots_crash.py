"""Power cuts on an image whose two file systems are busy at the same time: each keeps its promise,
whatever the other was doing. (That an idle one is not touched at all is oracle O6 of `xnfs crash`.)
"""

from __future__ import annotations

import os
import random

import pytest
from xnfs_tools.session import SUPERUSER, choose_root, mount_root

from libfs.formats import FORMATS
from libfs.posix import FsError, Posix
from xnfs import FramePool, MemoryDevice, Xn, format_image
from xnfs.disk.device import BlockDevice
from xnfs.disk.fsck import check_image
from xnfs.disk.recording import RecordingDevice

ROOTS = ("main", "home")
FILES = 4
JOURNAL = b"journal"


class Opened:
    """Both file systems of an image."""

    def __init__(self, device: BlockDevice) -> None:
        self.xn = Xn(device, frames=FramePool(1024))
        self.posix = {
            name: Posix(
                mount_root(self.xn, "image", choose_root(self.xn, "image", name), readonly=False)
            )
            for name in ROOTS
        }

    def close(self) -> None:
        for posix in self.posix.values():
            posix.close()
        self.xn.close()


def content(root: str, number: int, version: int) -> bytes:
    """Of some length, so that some lie inline and some in blocks."""
    return b"%s %d %d|" % (root.encode(), number, version) * (1 + 97 * (version % 4) ** 2)


def replace(posix: Posix, root: str, number: int, version: int) -> None:
    """As programs do it: a new file, synced, takes the place of the old one. That is durable with
    the next sync of any file of the same file system.
    """
    top, name = posix.root, b"f%d" % number
    _attr, fh = posix.create(SUPERUSER, top, b"new" + name, 0o600, os.O_RDWR)
    data = content(root, number, version)
    assert posix.write(fh, 0, data) == len(data)
    posix.fsync(fh)
    posix.release(fh)
    posix.rename(SUPERUSER, top, b"new" + name, top, name)
    fh = posix.open(SUPERUSER, posix.lookup(SUPERUSER, top, JOURNAL).ino, os.O_RDWR)
    posix.write(fh, 0, data[:20])
    posix.fsync(fh)
    posix.release(fh)


def read(posix: Posix, number: int) -> bytes:
    try:
        attr = posix.lookup(SUPERUSER, posix.root, b"f%d" % number)
    except FsError:
        return b""
    fh = posix.open(SUPERUSER, attr.ino, os.O_RDONLY)
    try:
        return posix.read(fh, 0, attr.size)
    finally:
        posix.release(fh)


@pytest.mark.parametrize("kind", list(FORMATS))
def test_two_roots_at_every_cut(kind: str) -> None:
    base = MemoryDevice(4096)
    format_image(base, uuid=bytes(range(16)), label="two")
    xn = Xn(base, frames=FramePool(1024))
    for name, each in (("main", "ffs"), ("home", kind)):
        FORMATS[each].mkfs(xn, xn.admin, name)
    xn.close()
    device = RecordingDevice(base)
    both, rng = Opened(device), random.Random(5)
    for posix in both.posix.values():
        posix.mknod(SUPERUSER, posix.root, JOURNAL, 0o100600)
        posix.sync()
    #: (root, file) -> versions with the number of events before each began, and after it was synced
    told: dict[tuple[str, int], list[tuple[int, int]]] = {
        (root, number): [(0, 0)] for root in ROOTS for number in range(FILES)
    }
    for _step in range(36):
        root, number = rng.choice(ROOTS), rng.randrange(FILES)
        versions = told[root, number]
        begun = len(device.events)
        replace(both.posix[root], root, number, len(versions))
        versions.append((begun, len(device.events)))
        idle = rng.choice(ROOTS)  # what is not synced rides along, or does not
        both.posix[idle].mknod(SUPERUSER, both.posix[idle].root, b"x%d" % _step, 0o100600)
    for cut in rng.sample(range(len(device.events) + 1), 30):
        pending = [event.id for event in device.pending(cut)]
        for keep in ([], pending, [one for one in pending if rng.random() < 0.5]):
            _judge(device.image_at(cut, keep), cut, told)


def _judge(
    disk: MemoryDevice, cut: int, told: dict[tuple[str, int], list[tuple[int, int]]]
) -> None:
    both = Opened(disk)
    for (root, number), versions in told.items():
        synced = max(v for v, (_begun, end) in enumerate(versions) if end <= cut)
        newest = max(v for v, (begun, _end) in enumerate(versions) if begun <= cut)
        allowed = [content(root, number, v) if v else b"" for v in range(synced, newest + 1)]
        assert read(both.posix[root], number) in allowed
    both.close()
    found: list[object] = []
    check_image(disk, repair=False, report=found.append)
    assert found == []
