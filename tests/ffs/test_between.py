"""A file goes from one FFS to another on the same image."""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Callable
from itertools import combinations

import pytest

from libfs.ffs import Ffs, check
from libfs.posix.interface import FsError, Ino, New
from tests.ffs.support import DIR, FILE, ROOT, UUID
from xnfs import BLOCK, Caller, CapabilityError, FramePool, MemoryDevice, Xn, format_image
from xnfs.disk.device import BlockDevice
from xnfs.disk.fsck import check_image
from xnfs.disk.recording import RecordingDevice


class Two:
    """An image with the file systems `one` and `two`, mounted."""

    def __init__(self, device: BlockDevice | None = None, frames: int = 2048) -> None:
        fresh = device is None
        self.device: BlockDevice = MemoryDevice(4096) if device is None else device
        if fresh:
            format_image(self.device, uuid=UUID, label="two")
        pool = FramePool(frames)
        for name in ("one", "two"):
            pool.set_quota(name, frames // 2)
        self.xn = Xn(self.device, frames=pool)
        self.admin = Caller(self.xn.admin)
        if fresh:
            for name in ("one", "two"):
                Ffs.mkfs(self.xn, self.xn.admin, name)
        self.one = Ffs.mount(self.xn, self.xn.admin, "one")
        self.two = Ffs.mount(self.xn, self.xn.admin, "two")

    def send(self, name: bytes, new_name: bytes | None = None) -> None:
        """From the root of one to the root of two."""
        self.one.send(self.admin, self.one.root, name, self.two, self.two.root, new_name or name)

    def close(self) -> None:
        self.one.close()
        self.two.close()
        self.xn.close()

    def again(self) -> Two:
        """Through the disk."""
        self.close()
        return Two(self.device)


@pytest.fixture
def both() -> Two:
    return Two()


def put(fs: Ffs, name: bytes, data: bytes = b"", new: New = FILE) -> Ino:
    ino = fs.create(ROOT, fs.root, name, new)
    if data:
        fs.write(ROOT, ino, 0, data, kill_suid=False)
    return ino


def clean(device: BlockDevice) -> None:
    """Neither the kernel's check nor that of FFS finds anything."""
    found: list[object] = []
    check_image(device, repair=False, report=found.append)
    xn = Xn(device, frames=FramePool(1024), readonly=True)
    for name in ("one", "two"):
        check(xn, xn.admin, name, repair=False, report=found.append)
    assert found == []


def scattered(fs: Ffs, name: bytes) -> Ino:
    """A file whose map has nodes."""
    ino = fs.create(ROOT, fs.root, name, FILE)
    for block in range(0, 600, 2):
        fs.write(ROOT, ino, block * BLOCK, b"%05d" % block, kill_suid=False)
    fs.allocate(ROOT, ino, 700 * BLOCK, 40 * BLOCK, keep_size=False)
    return ino


def test_between_every_kind_of_file(both: Two) -> None:
    one, two = both.one, both.two
    made: list[tuple[bytes, Callable[[Ffs, Ino], object]]] = []

    def add(name: bytes, seen: Callable[[Ffs, Ino], object]) -> None:
        made.append((name, seen))

    inline = put(one, b"inline", b"a few bytes")
    add(b"inline", lambda fs, ino: fs.read(ino, 0, 100))
    put(one, b"large", os.urandom(1_000_000))
    add(b"large", lambda fs, ino: fs.read(ino, 0, 2_000_000))
    scattered(one, b"scattered")
    add(b"scattered", lambda fs, ino: fs.read(ino, 0, 4_000_000))
    for size in (10, 4000):
        target = b"t" * size
        new = New(stat.S_IFLNK | 0o777, 0, 0, target=target)
        one.create(ROOT, one.root, b"link%d" % size, new)
        add(b"link%d" % size, lambda fs, ino: fs.readlink(ino))
    one.create(ROOT, one.root, b"fifo", New(stat.S_IFIFO | 0o600, 1000, 1000))
    add(b"fifo", lambda fs, ino: fs.getattr(ino).mode)
    one.setxattr(ROOT, inline, b"user.small", b"1", 0)
    big = put(one, b"attributes")
    one.setxattr(ROOT, big, b"user.large", b"v" * 3000, 0)
    add(b"attributes", lambda fs, ino: fs.getxattr(ino, b"user.large"))
    one.sync(None)
    for name, seen in made:
        ino = one.lookup(one.root, name)
        assert ino is not None
        before, content = one.getattr(ino), seen(one, ino)
        both.send(name)
        assert one.lookup(one.root, name) is None
        assert two.lookup(two.root, name) == ino
        after = two.getattr(ino)
        assert (after.size, after.mode, after.uid, after.nlink, after.blocks, after.mtime) == (
            *(before.size, before.mode, before.uid, before.nlink, before.blocks, before.mtime),
        )
        assert seen(two, ino) == content
        with pytest.raises(FsError):
            one.getattr(ino)
        with pytest.raises(CapabilityError):
            both.xn.read(one.volume.who, ino, 0, 1)
    contents = {name: seen(two, two.lookup(two.root, name) or Ino(0)) for name, seen in made}
    again = both.again()
    for name, seen in made:
        ino = again.two.lookup(again.two.root, name)
        assert ino is not None
        assert seen(again.two, ino) == contents[name]
        assert again.one.lookup(again.one.root, name) is None
    again.close()
    clean(both.device)


def test_between_the_new_owner_may_do_all(both: Two) -> None:
    one, two = both.one, both.two
    both.close()
    free = Two(both.device).xn.free_blocks()
    both = Two(both.device)
    one, two = both.one, both.two
    ino = scattered(one, b"f")
    both.send(b"f", b"g")
    two.write(ROOT, ino, 3 * BLOCK, b"more", kill_suid=False)
    two.truncate(ROOT, ino, 200 * BLOCK, kill_suid=False)
    two.link(ROOT, ino, two.root, b"h")
    two.unlink(ROOT, two.root, b"g", keep=False)
    two.sync(None)
    put(one, b"f", b"another of that name")
    two.unlink(ROOT, two.root, b"h", keep=False)
    one.unlink(ROOT, one.root, b"f", keep=False)
    one.sync(None)
    two.sync(None)
    assert both.xn.free_blocks() == free
    both.close()
    clean(both.device)


def test_between_what_is_not_durable_yet_goes_along(both: Two) -> None:
    """Bytes, size and times that wait in memory on this side are there on the other."""
    one, two = both.one, both.two
    ino = put(one, b"f", b"first" * 8000)
    one.sync(None)
    one.write(ROOT, ino, 0, b"x" * 30_000, kill_suid=False)  # over bytes that are durable
    one.write(ROOT, ino, 40_000, b"y" * 10_000, kill_suid=False)
    mtime = one.getattr(ino).mtime
    both.send(b"f")
    two.sync([ino])
    image = both.device
    assert isinstance(image, MemoryDevice)
    after = Two(image.fork())
    assert after.two.read(after.two.lookup(after.two.root, b"f") or Ino(0), 0, 9) == b"x" * 9
    assert after.two.read(ino, 49_990, 99) == b"y" * 10
    assert after.two.getattr(ino).size == 50_000
    assert after.two.getattr(ino).mtime == mtime


def test_between_refused(both: Two) -> None:
    one, two = both.one, both.two
    one.create(ROOT, one.root, b"dir", DIR)
    hard = put(one, b"hard")
    one.link(ROOT, hard, one.root, b"second")
    put(one, b"there", b"one")
    put(two, b"there", b"two")
    held = put(one, b"held", b"data")
    both.xn.hold(one.volume.who, held)
    for name, number in (
        (b"dir", errno.EISDIR),
        (b"hard", errno.EMLINK),
        (b"there", errno.EEXIST),
        (b"nothing", errno.ENOENT),
        (b"held", errno.EBUSY),
    ):
        with pytest.raises(FsError) as caught:
            both.send(name)
        assert caught.value.errno == number
    with pytest.raises(FsError) as caught:
        one.send(one.volume.who, one.root, b"there", two, two.root, b"new")  # holds only one
    assert caught.value.errno == errno.EIO
    other = Two()
    with pytest.raises(FsError) as caught:
        one.send(both.admin, one.root, b"there", other.two, other.two.root, b"new")
    assert caught.value.errno == errno.EXDEV
    both.xn.drop(one.volume.who, held)
    names = {entry.name for entry in one.readdir(one.root, 0)}
    assert names == {b"dir", b"hard", b"second", b"there", b"held"}
    both.send(b"held")
    both.close()
    clean(both.device)


def test_between_large_directories_with_little_memory() -> None:
    both = Two(frames=256)
    for number in range(300):
        put(both.one, b"%04d" % number, b"%d" % number)
    for number in range(300):
        both.send(b"%04d" % number, b"n%04d" % number)
    assert list(both.one.readdir(both.one.root, 0)) == []
    after = both.again()
    for number in range(300):
        ino = after.two.lookup(after.two.root, b"n%04d" % number)
        assert ino is not None
        assert after.two.read(ino, 0, 9) == b"%d" % number
    after.close()
    clean(both.device)


def test_between_at_every_cut() -> None:
    """One of the two has the file, whole, whatever reached the disk."""
    first = Two()
    ino = scattered(first.one, b"f")
    first.one.setxattr(ROOT, ino, b"user.large", b"v" * 3000, 0)
    put(first.two, b"other", b"not to be touched")
    first.close()
    device = RecordingDevice(first.device)
    both = Two(device)
    start = len(device.events)
    both.send(b"f")
    both.two.sync([ino])
    seen = set()
    rng = random.Random(1)
    for cut in range(start, len(device.events) + 1):
        pending = [event.id for event in device.pending(cut)]
        subsets = [s for n in range(len(pending) + 1) for s in combinations(pending, n)]
        for subset in subsets if len(subsets) <= 12 else rng.sample(subsets, 12):
            seen.add(_after(device.image_at(cut, subset), ino))
    assert seen == {"one", "two"}


def _after(disk: MemoryDevice, ino: Ino) -> str:
    both = Two(disk)
    (owner,) = (
        name
        for name, fs in (("one", both.one), ("two", both.two))
        if fs.lookup(fs.root, b"f") is not None
    )
    fs = both.one if owner == "one" else both.two
    for block in range(0, 600, 2):
        assert fs.read(ino, block * BLOCK, 5) == b"%05d" % block
    assert fs.getxattr(ino, b"user.large") == b"v" * 3000
    other = both.two.lookup(both.two.root, b"other")
    assert other is not None
    assert both.two.read(other, 0, 99) == b"not to be touched"
    both.close()
    clean(disk)
    return owner
