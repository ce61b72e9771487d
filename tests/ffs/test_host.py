"""What the host does to an image: its disk fills up, its device fails."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from libfs.ffs import Ffs
from libfs.posix.interface import FsError
from tests.ffs.support import FILE, ROOT, UUID
from xnfs import DeviceError, FramePool, MemoryDevice, Xn, format_image
from xnfs.disk.device import Buffers
from xnfs.disk.stacked import CountingDevice, StackedDevice


class Failing(StackedDevice):
    """Writes fail with `errno` while it is set."""

    errno = 0

    def write(self, start: int, views: Buffers) -> None:
        """See BlockDevice."""
        if self.errno:
            raise DeviceError(self.errno, "the test says no")
        self.below.write(start, views)


def _mounted() -> tuple[Failing, MemoryDevice, Xn, Ffs]:
    disk = MemoryDevice(4096)
    format_image(disk, uuid=UUID, label="host")
    device = Failing(disk)
    xn = Xn(device, frames=FramePool(1024))
    Ffs.mkfs(xn, xn.admin, "home")
    return device, disk, xn, Ffs.mount(xn, xn.admin, "home")


def test_host_disk_full_is_said_and_passes() -> None:
    device, disk, xn, fs = _mounted()
    ino = fs.create(ROOT, fs.root, b"f", FILE)
    fs.write(ROOT, ino, 0, b"a" * 50_000, kill_suid=False)
    device.errno = errno.ENOSPC
    with pytest.raises(FsError) as caught:
        fs.sync([ino])
    assert caught.value.errno == errno.ENOSPC
    device.errno = 0
    fs.sync([ino])
    assert not fs.readonly
    again = Xn(disk.fork(), frames=FramePool(1024))
    found = Ffs.mount(again, again.admin, "home")
    there = found.lookup(found.root, b"f")
    assert there is not None
    assert found.read(there, 0, 60_000) == b"a" * 50_000
    fs.close()
    xn.close()


def test_host_device_error_stops_writes_and_is_never_forgotten() -> None:
    device, _disk, _xn, fs = _mounted()
    ino = fs.create(ROOT, fs.root, b"f", FILE)
    fs.write(ROOT, ino, 0, b"a" * 50_000, kill_suid=False)
    device.errno = errno.EIO
    with pytest.raises(FsError) as caught:
        fs.sync([ino])
    assert caught.value.errno == errno.EIO
    device.errno = 0
    with pytest.raises(FsError):
        fs.sync([ino])
    with pytest.raises(FsError) as caught:
        fs.create(ROOT, fs.root, b"g", FILE)
    assert caught.value.errno == errno.EROFS
    assert fs.read(ino, 0, 10) == b"a" * 10


def _flushes(work: Callable[[], object], device: CountingDevice) -> int:
    before = device.counts.flushes
    work()
    return device.counts.flushes - before


def test_host_flushes_for_a_sync() -> None:
    disk = MemoryDevice(4096)
    format_image(disk, uuid=UUID, label="host")
    device = CountingDevice(disk)
    xn = Xn(device, frames=FramePool(1024))
    Ffs.mkfs(xn, xn.admin, "home")
    fs = Ffs.mount(xn, xn.admin, "home")
    ino = fs.create(ROOT, fs.root, b"f", FILE)
    fs.write(ROOT, ino, 0, b"a" * 50_000, kill_suid=False)
    assert _flushes(lambda: fs.sync([ino]), device) == 1
    # An overwrite changes times only, which fdatasync does not promise.
    fs.write(ROOT, ino, 4096, b"b" * 4096, kill_suid=False)
    assert _flushes(lambda: fs.sync([ino], data_only=True), device) == 1
    fs.write(ROOT, ino, 4096, b"c" * 4096, kill_suid=False)
    assert _flushes(lambda: fs.sync([ino]), device) == 1
    # An append changes the size, which it does promise.
    fs.write(ROOT, ino, 50_000, b"d" * 100, kill_suid=False)
    assert _flushes(lambda: fs.sync([ino], data_only=True), device) == 1
    # And again: the last block is still vouched for by the transaction before.
    fs.write(ROOT, ino, 50_100, b"e" * 100, kill_suid=False)
    assert _flushes(lambda: fs.sync([ino]), device) == 1
    assert _flushes(lambda: fs.sync([ino]), device) == 0
    again = Xn(disk.fork(), frames=FramePool(1024))
    found = Ffs.mount(again, again.admin, "home")
    there = found.lookup(found.root, b"f")
    assert there is not None
    assert found.read(there, 4090, 10) == b"a" * 6 + b"c" * 4
    assert found.read(there, 49_999, 200) == b"a" + b"d" * 100 + b"e" * 99
    for i in range(1000):
        fs.create(ROOT, fs.root, b"many%d" % i, FILE)
    assert _flushes(lambda: fs.sync(None), device) <= 4
