"""Reading directories: dots, cookies, and order under change."""

from __future__ import annotations

import errno
import os
import random
import stat
from collections import Counter

import pytest

from libfs.posix import Dirent, Fh, Posix
from tests.conformance.support import BOB, ROOT, make_dir, make_file, names_in, refuses


def _drain(posix: Posix, fh: Fh, count: int = 100) -> list[Dirent]:
    found: list[Dirent] = []
    cookie = 0
    while some := posix.readdir(fh, cookie, count):
        assert len(some) <= count
        found += some
        cookie = some[-1].next
    return found


def test_directories_empty(posix: Posix) -> None:
    ino = make_dir(posix, posix.root, b"d")
    fh = posix.opendir(ROOT, ino)
    dot, dotdot = posix.readdir(fh)
    assert (dot.name, dot.ino, dot.d_type) == (b".", ino, stat.S_IFDIR >> 12)
    assert (dotdot.name, dotdot.ino, dotdot.d_type) == (b"..", posix.root, stat.S_IFDIR >> 12)
    assert posix.readdir(fh, dotdot.next) == []
    posix.releasedir(fh)


def test_directories_dotdot_of_root(posix: Posix) -> None:
    fh = posix.opendir(ROOT, posix.root)
    assert [entry.ino for entry in posix.readdir(fh)] == [posix.root, posix.root]
    posix.releasedir(fh)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 1000])
def test_directories_pieces(posix: Posix, count: int) -> None:
    ino = make_dir(posix, posix.root, b"d")
    names = [b"%d" % number for number in range(20)]
    for name in names:
        make_file(posix, ino, name)
    fh = posix.opendir(ROOT, ino)
    found = _drain(posix, fh, count)
    assert [entry.name for entry in found[:2]] == [b".", b".."]
    assert sorted(entry.name for entry in found[2:]) == sorted(names)
    cookies = [entry.next for entry in found]
    assert len(set(cookies)) == len(cookies)
    for at, entry in enumerate(found[:-1]):
        assert posix.readdir(fh, entry.next, 1)[0].name == found[at + 1].name
    posix.releasedir(fh)


def test_directories_with_attributes(posix: Posix) -> None:
    ino = make_dir(posix, posix.root, b"d")
    for number in range(120):
        make_file(posix, ino, b"%d" % number)
    make_dir(posix, ino, b"sub")
    fh = posix.opendir(ROOT, ino)
    cookie, seen = 0, 0
    while True:
        entries, attrs = posix.readdirplus(fh, cookie, 40, lambda: True)
        assert entries == posix.readdir(fh, cookie, 40)
        assert len(attrs) == len(entries)
        for entry, attr in zip(entries, attrs, strict=True):
            if entry.name in (b".", b".."):
                assert attr is None
            else:
                assert attr == posix.lookup(ROOT, ino, entry.name)
        if not entries:
            break
        cookie, seen = entries[-1].next, seen + len(entries)
    assert seen == 123
    posix.releasedir(fh)


def test_directories_types_and_inodes(posix: Posix) -> None:
    kinds = [stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK]
    for kind in kinds:
        posix.mknod(ROOT, posix.root, b"%o" % kind, kind | 0o644)
    make_dir(posix, posix.root, b"d")
    posix.symlink(ROOT, posix.root, b"l", b"t")
    fh = posix.opendir(ROOT, posix.root)
    found = _drain(posix, fh)[2:]
    assert len(found) == len(kinds) + 2
    for entry in found:
        attr = posix.lookup(ROOT, posix.root, entry.name)
        assert entry.ino == attr.ino
        assert entry.d_type == stat.S_IFMT(attr.mode) >> 12
    posix.releasedir(fh)


def test_directories_rights(posix: Posix) -> None:
    shut = make_dir(posix, posix.root, b"shut", mode=0o711)
    with refuses(errno.EACCES):
        posix.opendir(BOB, shut)
    listable = make_dir(posix, posix.root, b"open", mode=0o744)
    fh = posix.opendir(BOB, listable)
    assert len(posix.readdir(fh)) == 2
    posix.releasedir(fh)


def test_directories_bad_arguments(posix: Posix) -> None:
    fh = posix.opendir(ROOT, posix.root)
    with refuses(errno.EINVAL):
        posix.readdir(fh, -1)
    with refuses(errno.EINVAL):
        posix.readdir(fh, 0, -1)
    posix.fsyncdir(fh)
    file = posix.open(ROOT, make_file(posix, posix.root, b"f"), os.O_RDONLY)
    for call in (posix.readdir, posix.fsyncdir):
        with refuses(errno.ENOTDIR):
            call(file)
    posix.release(file)
    posix.releasedir(fh)


@pytest.mark.parametrize("count", [1, 3, 50])
def test_directories_removed_while_reading(posix: Posix, count: int) -> None:
    """`rm -r`: read some, remove them, go on."""
    ino = make_dir(posix, posix.root, b"d")
    for number in range(200):
        make_file(posix, ino, b"%d" % number)
    fh = posix.opendir(ROOT, ino)
    cookie, removed = 0, 0
    while some := posix.readdir(fh, cookie, count):
        cookie = some[-1].next
        for entry in some:
            if entry.name not in (b".", b".."):
                posix.unlink(ROOT, ino, entry.name)
                removed += 1
    assert removed == 200
    posix.releasedir(fh)
    posix.rmdir(ROOT, posix.root, b"d")


@pytest.mark.parametrize("seed", [1, 2])
def test_directories_5000_entries_under_change(posix: Posix, seed: int) -> None:
    """What exists throughout is given exactly once, whatever comes and goes meanwhile."""
    rng = random.Random(seed)
    ino = make_dir(posix, posix.root, b"d")
    stable = {b"stable-%d" % number for number in range(5000 - 300)}
    passing = [b"passing-%d" % number for number in range(300)]
    for name in rng.sample(sorted(stable) + passing, 5000):
        posix.mknod(ROOT, ino, name, stat.S_IFREG | 0o644)
    fh = posix.opendir(ROOT, ino)
    seen: list[bytes] = []
    cookie, made = 0, 0
    while some := posix.readdir(fh, cookie, rng.randrange(1, 200)):
        seen += [entry.name for entry in some]
        cookie = some[-1].next
        # What is made at the end is read next: a writer as fast as the reader is never caught up
        # with, so this one stops.
        for _ in range(6 if made < 300 else 0):
            made += 1
            at = rng.randrange(len(passing))
            posix.unlink(ROOT, ino, passing[at])
            passing[at] = b"new-%d" % made
            posix.mknod(ROOT, ino, passing[at], stat.S_IFREG | 0o644)
            at = rng.randrange(len(passing))
            posix.rename(ROOT, ino, passing[at], ino, b"moved-%d" % made)
            passing[at] = b"moved-%d" % made
    posix.releasedir(fh)
    times = Counter(seen)
    assert [name for name in stable if times[name] != 1] == []
    assert set(names_in(posix, ino)) ^ (stable | set(passing)) == set()


def test_directories_replaced_name_is_seen_once(posix: Posix) -> None:
    """A name that a rename replaces existed throughout."""
    ino = make_dir(posix, posix.root, b"d")
    for number in range(100):
        make_file(posix, ino, b"%d" % number)
    fh = posix.opendir(ROOT, ino)
    seen: list[bytes] = []
    cookie, step = 0, 0
    while some := posix.readdir(fh, cookie, 10):
        seen += [entry.name for entry in some]
        cookie = some[-1].next
        make_file(posix, posix.root, b"t%d" % step)
        posix.rename(ROOT, posix.root, b"t%d" % step, ino, some[-1].name) if step else None
        step += 1
    assert sorted(seen[2:]) == sorted(b"%d" % number for number in range(100))
    posix.releasedir(fh)


def test_directories_names_of_255_odd_bytes(posix: Posix) -> None:
    rng = random.Random(3)
    letters = [byte for byte in range(1, 256) if byte != ord("/")]
    names = {bytes(rng.choice(letters) for _ in range(255)) for _ in range(300)}
    ino = make_dir(posix, posix.root, b"d")
    for name in names:
        posix.mknod(ROOT, ino, name, stat.S_IFREG | 0o644)
    assert set(names_in(posix, ino)) == names
    for name in names:
        posix.unlink(ROOT, ino, name)
    posix.rmdir(ROOT, posix.root, b"d")
