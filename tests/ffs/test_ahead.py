"""Reading ahead: what is about to be read block by block is fetched in few pieces, within bounds,
and nothing else changes."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from libfs.ffs import Ffs
from libfs.ffs.ahead import LONE, PIECE, WINDOW, WINDOWS, ReadAhead
from libfs.posix import Posix
from libfs.posix.interface import Attr, Dirent, Ino
from tests.ffs.support import DIR, FILE, ROOT, Disk, write
from xnfs.disk.device import BlockDevice, Buffers, Views, span
from xnfs.disk.stacked import Fault, FaultingDevice, StackedDevice

COUNT = 1000


class Watched(StackedDevice):
    """Knows which blocks were read by themselves, not having been fetched with others before."""

    def __init__(self, below: BlockDevice) -> None:
        super().__init__(below)
        self.fetched: set[int] = set()
        self.lone: list[int] = []
        self.longest = self.flushes = self.writes = 0

    def read(self, start: int, views: Views) -> None:
        """See BlockDevice."""
        count = span(self, start, views)
        self.longest = max(self.longest, count)
        if count > 1:
            self.fetched.update(range(start, start + count))
        elif start not in self.fetched:
            self.lone.append(start)
        super().read(start, views)

    def will_need(self, start: int, count: int) -> None:
        """See Foresight."""
        assert 0 <= start < start + count <= self.blocks
        self.longest = max(self.longest, count)
        self.fetched.update(range(start, start + count))

    def write(self, start: int, views: Buffers) -> None:
        """See BlockDevice."""
        self.writes += 1
        super().write(start, views)

    def flush(self) -> None:
        """See BlockDevice."""
        self.flushes += 1
        super().flush()


def _disk(frames: int = 4096, size: int = 0) -> tuple[Disk, dict[bytes, Ino]]:
    """A closed image with a directory of many files."""
    disk = Disk(8192, frames)
    fs = disk.fs
    d = fs.create(ROOT, fs.root, b"d", DIR)
    inos = {}
    for i in range(COUNT):
        name = b"file-%d" % i
        inos[name] = fs.create(ROOT, d, name, FILE)
        if size:
            write(fs, inos[name], 0, bytes(size))
    disk.close()
    return disk, inos


def _watch(disk: Disk) -> tuple[Ffs, Watched, Ino]:
    """Mount; the directory."""
    seen = Watched(disk.device)
    disk.device = seen  # type: ignore[assignment]
    fs = disk.mount()
    d = fs.lookup(fs.root, b"d")
    assert d is not None
    seen.lone.clear()
    seen.flushes = seen.writes = 0
    return fs, seen, d


def _list(fs: Ffs, d: Ino, count: int = 200) -> list[tuple[Dirent, Attr | None]]:
    """Everything with attributes, in requests of `count` entries."""
    posix = Posix(fs)
    fh = posix.opendir(ROOT, d)
    found: list[tuple[Dirent, Attr | None]] = []
    while True:
        cookie = found[-1][0].next if found else 0
        entries, attrs = posix.readdirplus(fh, cookie, count, lambda: True)
        assert len(entries) == len(attrs)
        if not entries:
            return found[2:]
        found += zip(entries, attrs, strict=True)


def test_listing_fetches_in_few_pieces() -> None:
    disk, inos = _disk()
    fs, seen, d = _watch(disk)
    found = _list(fs, d)
    assert {e.name: e.ino for e, _ in found} == inos
    assert all(a is not None and a.ino == e.ino and a.nlink == 1 for e, a in found)
    assert len(seen.lone) < COUNT // 20  # leaves, and what lies far from all others
    assert seen.longest <= PIECE
    assert (seen.flushes, seen.writes) == (0, 0)
    seen.lone.clear()
    assert [a for _, a in _list(fs, d)] == [a for _, a in found]
    assert not seen.lone
    disk.close()


def test_listing_binds_the_inodes_of_a_leaf_together(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, inos = _disk()
    fs, _seen, d = _watch(disk)
    calls = {"readin": 0, "readin_all": 0}
    for name in calls:
        before = getattr(disk.xn, name)

        def counted(*args: object, name: str = name, before: Callable[..., None] = before) -> None:
            calls[name] += 1
            before(*args)

        monkeypatch.setattr(disk.xn, name, counted)
    found = _list(fs, d)
    assert {e.name: a.ino for e, a in found if a} == inos
    leaves = fs.volume.vnode(d).blocks
    assert calls["readin"] <= leaves + 2
    assert calls["readin_all"] <= 2 * leaves + 6  # a request may end within a leaf
    disk.close()


def test_listing_names_reads_no_inodes() -> None:
    disk, _inos = _disk()
    fs, seen, d = _watch(disk)
    posix = Posix(fs)
    entries, attrs = posix.readdirplus(posix.opendir(ROOT, d), 0, COUNT + 2, lambda: False)
    assert len(entries) == COUNT + 2
    assert not any(attrs)
    assert not fs.volume.vnodes.keys() & {e.ino for e in entries[2:]}
    assert len(seen.lone) < 40
    disk.close()


def test_wanted_is_asked_only_for_what_is_not_in_memory() -> None:
    disk, inos = _disk()
    fs, _seen, d = _watch(disk)
    posix = Posix(fs)
    fh = posix.opendir(ROOT, d)
    known = posix.lookup(ROOT, d, b"file-7")
    entries, attrs = posix.readdirplus(fh, 0, COUNT + 2, lambda: False)
    assert [a for a in attrs if a] == [known]
    assert entries[attrs.index(known)].ino == inos[b"file-7"]
    _list(fs, d)
    _entries, attrs = posix.readdirplus(fh, 0, COUNT + 2, lambda: pytest.fail("asked"))
    assert all(attrs[2:])
    disk.close()


@pytest.mark.parametrize("size", [0, 4096])
def test_files_visited_in_random_order(size: int) -> None:
    disk, inos = _disk(size=size)
    fs, seen, d = _watch(disk)
    names = list(inos)
    random.Random(4).shuffle(names)
    for name in names:
        assert fs.lookup(d, name) == inos[name]
        assert fs.getattr(inos[name]).size == size
        assert fs.read(inos[name], 0, 8192) == bytes(size)
    windows = (1 + (size > 0)) * COUNT // WINDOW + 8
    assert len(seen.lone) <= LONE * windows
    assert len(seen.fetched) <= WINDOW * windows + PIECE
    assert (seen.flushes, seen.writes) == (0, 0)
    disk.close()


def test_far_blocks_are_not_fetched_together() -> None:
    disk = Disk()
    seen = Watched(disk.device)
    disk.remount()
    disk.close()
    disk.device = seen  # type: ignore[assignment]
    fs = disk.mount()
    seen.fetched.clear()
    lo = fs.volume.xn.data_area[0] + 500
    fs.volume.ahead.many([lo, lo + 300, lo + 600])
    assert not seen.fetched
    fs.volume.ahead.many([lo + 900, lo + 902, lo + 930])
    assert seen.fetched == set(range(lo + 900, lo + 903))
    disk.close()


def test_what_is_remembered_is_bounded() -> None:
    disk = Disk()
    vol = disk.fs.volume
    ahead = ReadAhead(_Nothing(1 << 40), vol.who)  # type: ignore[arg-type]
    for i in range(5 * WINDOWS):
        ahead.many([3 * i * WINDOW, 3 * i * WINDOW + 2])
        ahead.lone((3 * i + 1) * WINDOW)
    assert len(ahead._fetched) <= WINDOWS + 1
    assert len(ahead._lone) <= WINDOWS
    disk.close()


class _Nothing:
    """A kernel with nothing in memory and a disk that is always quick."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks

    def cached(self, _block: int) -> bool:
        """No."""
        return False

    def prefetch(self, _who: object, start: int, count: int, *, wait: bool) -> None:
        """In the image, and not too much; nobody is to wait for it."""
        assert not wait
        assert 0 <= start < start + count <= self.blocks
        assert count <= PIECE


def test_last_window_ends_with_the_image() -> None:
    disk = Disk()
    ahead = ReadAhead(_Nothing(100), disk.fs.volume.who)  # type: ignore[arg-type]
    for block in (97, 98, 99, 96):
        ahead.lone(block)
    ahead.many([99, 97])
    disk.close()


def test_listing_in_a_small_cache() -> None:
    disk, inos = _disk()
    disk.frames = 256
    fs, seen, d = _watch(disk)
    for _turn in range(2):
        found = _list(fs, d, 1002)
        assert {e.name: a.ino for e, a in found if a} == inos
    assert seen.longest <= PIECE
    disk.close()


def test_damaged_inode_does_not_hide_the_others() -> None:
    disk, inos = _disk()
    bad = inos[b"file-500"]
    disk.device.write(bad, [b"\xff" * 4096])
    fs, _seen, d = _watch(disk)
    found = _list(fs, d)
    assert {e.name: e.ino for e, _ in found} == inos
    assert [e.ino for e, a in found if a is None] == [bad]
    assert fs.readonly
    disk.close()


def test_unreadable_neighbour_does_not_matter() -> None:
    disk, inos = _disk()
    bad = inos[b"file-500"]
    disk.device = FaultingDevice(  # type: ignore[assignment]
        disk.device, Fault("read", "eio", block=bad, sticky=True)
    )
    fs, _seen, d = _watch(disk)
    found = _list(fs, d)
    assert [e.ino for e, a in found if a is None] == [bad]
    assert not fs.readonly
    disk.close()
