"""Directories: growing, shrinking, listing meanwhile, and every name in the one leaf where it
can be."""

from __future__ import annotations

import errno
import random
from dataclasses import replace

import pytest

from libfs.common.naming import name_hash
from libfs.ffs import Ffs
from libfs.ffs import format as f
from libfs.posix.interface import Change, FsError, Ino, User
from tests.ffs.support import ALICE, BOB, DIR, FILE, ROOT, Disk


def _name(i: int) -> bytes:
    return b"%d-" % i + b"x" * (i * 7 % 40)


def _found(fs: Ffs, parent: Ino, name: bytes) -> Ino:
    found = fs.lookup(parent, name)
    assert found is not None
    return found


def _directory(fs: Ffs) -> Ino:
    return _found(fs, fs.root, b"d")


def test_directory_grows_and_shrinks() -> None:
    count = 20_000
    disk = Disk(40_000, 30_000)
    fs = disk.fs
    d = fs.create(ROOT, fs.root, b"d", DIR)
    inos = {_name(i): fs.create(ROOT, d, _name(i), FILE) for i in range(count)}
    assert fs.entries(d) == count
    fs = disk.remount()
    d = _directory(fs)
    assert {e.name: e.ino for e in fs.readdir(d, 0)} == inos
    assert all(fs.lookup(d, name) == ino for name, ino in inos.items())
    assert fs.lookup(d, b"not there") is None
    assert disk.check()[0].clean
    fs = disk.mount()
    d = _directory(fs)
    names = list(inos)
    random.Random(3).shuffle(names)
    for name in names[50:]:
        fs.unlink(ROOT, d, name, keep=False)
    assert {e.name for e in fs.readdir(d, 0)} == set(names[:50])
    assert fs.volume.vnode(d).blocks < 120  # empty leaves have gone
    assert disk.check()[0].clean
    fs = disk.mount()
    d = _directory(fs)
    for name in names[:50]:
        fs.unlink(ROOT, d, name, keep=False)
    fs.unlink(ROOT, fs.root, b"d", keep=False)
    fs.sync(None)
    summary, _found = disk.check()
    assert summary.clean
    assert summary.inodes == 0


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 128, 129, 500])
def test_directory_sizes(count: int) -> None:
    disk = Disk()
    fs = disk.fs
    d = fs.create(ROOT, fs.root, b"d", DIR)
    for i in range(count):
        fs.create(ROOT, d, _name(i), FILE)
    fs = disk.remount()
    d = _directory(fs)
    assert {e.name for e in fs.readdir(d, 0)} == {_name(i) for i in range(count)}
    assert fs.entries(d) == count
    assert disk.check()[0].clean


def test_directory_longest_names() -> None:
    disk = Disk()
    fs = disk.fs
    d = fs.create(ROOT, fs.root, b"d", DIR)
    names = {b"%03d" % i + bytes([65 + i % 26]) * 252 for i in range(300)}
    for name in names:
        fs.create(ROOT, d, name, FILE)
    assert {e.name for e in fs.readdir(d, 0)} == names
    for name in sorted(names)[10:]:
        fs.unlink(ROOT, d, name, keep=False)
    assert disk.check()[0].clean


def test_directory_churn_reuses_the_heap() -> None:
    """Names come and go in a small directory: it stays in its inode."""
    disk = Disk()
    fs = disk.fs
    d = fs.create(ROOT, fs.root, b"d", DIR)
    for i in range(2000):
        fs.create(ROOT, d, b"temporary-%d" % i, FILE)
        if i >= 5:
            fs.unlink(ROOT, d, b"temporary-%d" % (i - 5), keep=False)
    assert fs.volume.vnode(d).flags == f.I_INLINE
    assert disk.check()[0].clean


def test_directory_deep_indexes() -> None:
    """Names whose hashes share their first bits push leaves below indexes."""
    disk = Disk()
    fs = disk.fs
    d = fs.create(ROOT, fs.root, b"d", DIR)
    key = fs.volume.vnode(d).hash_key
    names = [n for i in range(150_000) if name_hash(key, n := b"%d" % i) >> 56 == 3]
    for name in names:
        fs.create(ROOT, d, name, FILE)
    assert len(names) > 300
    root = fs._dirs.table(fs.volume.vnode(d))
    assert any(root.kind(slot) == f.P_INDEX for slot in root.used())
    assert {e.name for e in fs.readdir(d, 0)} == set(names)
    assert disk.check()[0].clean
    fs = disk.mount()
    d = _directory(fs)
    for name in names:
        fs.unlink(ROOT, d, name, keep=False)
    fs.unlink(ROOT, fs.root, b"d", keep=False)
    assert disk.check()[0].clean


def test_directory_listing_while_it_changes() -> None:
    """What is there throughout is given exactly once (also over splits and a change of form)."""
    disk = Disk()
    fs = disk.fs
    d = fs.create(ROOT, fs.root, b"d", DIR)
    for i in range(60):
        fs.create(ROOT, d, b"stay-%d" % i, FILE)
    seen = []
    cookie = 0
    rng = random.Random(1)
    for turn in range(1000):
        entry = next(fs.readdir(d, cookie), None)
        if entry is None:
            break
        assert cookie < entry.next < 2**63 - 2
        cookie = entry.next
        if entry.name.startswith(b"stay"):
            seen.append(entry.name)
        for k in range(8 if turn < 60 else 0):
            fs.create(ROOT, d, b"noise-%d-%d" % (turn, k), FILE)
        if 0 < turn < 60 and rng.random() < 0.5:
            fs.unlink(ROOT, d, b"noise-%d-0" % (turn - 1), keep=False)
    assert sorted(seen) == sorted(b"stay-%d" % i for i in range(60))


def test_directory_works_in_a_small_cache() -> None:
    """Fewer frames than blocks: leaves and inodes are evicted and read again."""
    disk = Disk(8192, 700)
    fs = disk.fs
    d = fs.create(ROOT, fs.root, b"d", DIR)
    for i in range(3000):
        fs.create(ROOT, d, _name(i), FILE)
    for i in range(0, 3000, 3):
        ino = fs.lookup(d, _name(i))
        assert ino is not None
        assert fs.getattr(ino).nlink == 1
        fs.unlink(ROOT, d, _name(i), keep=False)
    assert fs.entries(d) == 2000
    assert disk.check()[0].clean


def test_directory_links_keep_their_way_home() -> None:
    """An inode known by one name stays usable when that one goes and another is left."""
    disk = Disk(8192, 700)
    fs = disk.fs
    a = fs.create(ROOT, fs.root, b"a", DIR)
    ino = fs.create(ROOT, a, b"one", FILE)
    fs.link(ROOT, ino, fs.root, b"two")
    fs.unlink(ROOT, a, b"one", keep=False)
    for i in range(1500):
        fs.create(ROOT, a, b"%d" % i, FILE)
    assert fs.getattr(ino).nlink == 1
    fs = disk.remount()
    assert fs.lookup(fs.root, b"two") == ino
    fs.unlink(ROOT, fs.root, b"two", keep=False)
    assert disk.check()[0].clean


def test_directory_link_max() -> None:
    disk = Disk()
    fs = disk.fs
    ino = fs.create(ROOT, fs.root, b"a", FILE)
    fs.volume.vnode(ino).nlink = fs.link_max
    with pytest.raises(FsError) as caught:
        fs.link(ROOT, ino, fs.root, b"b")
    assert caught.value.errno == errno.EMLINK


def test_directory_removed_takes_no_names() -> None:
    disk = Disk()
    fs = disk.fs
    d = fs.create(ROOT, fs.root, b"d", DIR)
    fs.unlink(ROOT, fs.root, b"d", keep=True)
    assert fs.getattr(d).nlink == 0
    with pytest.raises(FsError) as caught:
        fs.create(ROOT, d, b"x", FILE)
    assert caught.value.errno == errno.ENOENT
    fs.forget(d)
    assert disk.check()[0].clean


@pytest.mark.parametrize("size", [0, 100, 50_000, 3_000_000])
def test_directory_kept_file_is_freed_by_forget(size: int) -> None:
    disk = Disk()
    fs = disk.fs
    fs.sync(None)
    free = fs.statfs().bfree
    ino = fs.create(ROOT, fs.root, b"f", FILE)
    fs.write(ROOT, ino, 0, b"z" * size, kill_suid=False)
    fs.unlink(ROOT, fs.root, b"f", keep=True)
    assert fs.lookup(fs.root, b"f") is None
    assert fs.read(ino, 0, size) == b"z" * size
    fs.forget(ino)
    fs.sync(None)
    assert fs.statfs().bfree == free
    assert disk.check()[0].clean


@pytest.mark.parametrize("count", [5, 500])
def test_directory_entries_can_be_used_when_they_were_listed(count: int) -> None:
    """A number from a listing needs no lookup, after a mount and in a cache that lost the inode."""
    disk = Disk()
    d = disk.fs.create(ROOT, disk.fs.root, b"d", DIR)
    for i in range(count):
        disk.fs.create(ROOT, d, _name(i), FILE)
    fs = disk.remount()
    (entry,) = fs.readdir(fs.root, 0)
    listed = list(fs.readdir(entry.ino, 0))
    assert len(listed) == count
    for e in listed:
        assert fs.getattr(e.ino).ino == e.ino
        assert fs.lookup(d, e.name) == e.ino


@pytest.mark.parametrize("user", [ROOT, ALICE, BOB])
@pytest.mark.parametrize("act", ["rename", "link", "exchange", "unlink"])
def test_names_of_a_file_whose_times_wait(user: User, act: str) -> None:
    """Its times and size, which are still in memory only, go with the name's change or before it,
    whoever makes it."""
    disk = Disk()
    fs, top = (
        disk.fs,
        disk.fs.create(ROOT, disk.fs.root, b"top", replace(DIR, mode=DIR.mode | 0o777)),
    )
    mine = replace(FILE, uid=ALICE.uid, gid=ALICE.gid)
    ino = fs.create(ALICE, top, b"f", mine)
    other = fs.create(ALICE, top, b"other", mine)
    assert fs.write(ALICE, ino, 0, b"x" * 5000, kill_suid=False) == 5000
    fs.sync(None)
    assert fs.write(ALICE, ino, 5000, b"y" * 10, kill_suid=False) == 10
    # Not as recent as an acl wants a stranger's times to be.
    fs.setattr(ROOT, ino, Change(mtime=5, ctime=7))
    assert fs.volume.vnode(ino).dirty
    if act == "rename":
        fs.rename(user, top, b"f", top, b"g", keep=False)
    elif act == "link":
        fs.link(user, ino, top, b"g")
    elif act == "exchange":
        fs.exchange(user, top, b"f", top, b"other")
        assert fs.lookup(top, b"f") == other
    else:
        fs.link(ROOT, ino, top, b"g")
        fs.setattr(ROOT, ino, Change(mtime=5, ctime=7))
        fs.unlink(user, top, b"f", keep=False)
    fs.sync(None)
    again = disk.remount()
    found = again.lookup(_found(again, again.root, b"top"), b"other" if act == "exchange" else b"g")
    assert found == ino
    attr = again.getattr(ino)
    assert (attr.size, attr.mtime) == (5010, 5)
    assert again.read(ino, 4990, 99) == b"x" * 10 + b"y" * 10
