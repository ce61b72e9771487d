"""utimens and its rights, relatime and its relatives."""

from __future__ import annotations

import errno
import os

import pytest

from libfs.posix import NOW, Atime, FileSystem, Options, Posix
from tests.conformance.support import ALICE, BOB, ROOT, make_dir, make_file, refuses

DAY = 24 * 3600 * 1_000_000_000


@pytest.mark.parametrize("when", [0, 1, 999_999_999, 1 << 31, 1_700_000_000_123_456_789, 1 << 62])
def test_times_set(posix: Posix, when: int) -> None:
    ino = make_file(posix, posix.root, b"f", user=ALICE)
    attr = posix.setattr(ALICE, ino, atime=when, mtime=when + 1)
    assert (attr.atime, attr.mtime) == (when, when + 1)
    attr = posix.setattr(ALICE, ino, atime=7)
    assert (attr.atime, attr.mtime) == (7, when + 1)
    attr = posix.setattr(ALICE, ino, mtime=8)
    assert (attr.atime, attr.mtime) == (7, 8)


def test_times_now(posix: Posix, fs: FileSystem) -> None:
    ino = make_file(posix, posix.root, b"f", user=ALICE)
    posix.setattr(ALICE, ino, atime=5, mtime=5)
    before = fs.now()
    attr = posix.setattr(ALICE, ino, atime=NOW, mtime=NOW)
    assert before <= attr.atime == attr.mtime == attr.ctime <= fs.now()


def test_times_nothing_asked_changes_nothing(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"f", user=ALICE)
    before = posix.getattr(BOB, ino)
    assert posix.setattr(BOB, ino) == before


@pytest.mark.parametrize(
    ("atime", "mtime", "mode", "code"),
    [
        (NOW, NOW, 0o666, 0),
        (NOW, NOW, 0o644, errno.EACCES),
        (NOW, None, 0o666, errno.EPERM),
        (None, NOW, 0o666, errno.EPERM),
        (5, 5, 0o666, errno.EPERM),
        (5, NOW, 0o666, errno.EPERM),
        (None, 5, 0o666, errno.EPERM),
    ],
)
def test_times_rights_of_others(
    posix: Posix, atime: int | None, mtime: int | None, mode: int, code: int
) -> None:
    ino = make_file(posix, posix.root, b"f", user=ALICE, mode=mode)
    if code:
        with refuses(code):
            posix.setattr(BOB, ino, atime=atime, mtime=mtime)
    else:
        posix.setattr(BOB, ino, atime=atime, mtime=mtime)
    posix.setattr(ALICE, ino, atime=atime, mtime=mtime)


@pytest.mark.parametrize("policy", Atime)
@pytest.mark.parametrize("age", ["read-since", "changed-since", "yesterday"])
def test_times_of_read(fs: FileSystem, policy: Atime, age: str) -> None:
    layer = Posix(fs, options=Options(atime=policy))
    ino = make_file(layer, layer.root, b"f", b"bytes")
    now = fs.now()
    # A change of times sets ctime to now, so "read since" is a time after that.
    atime = {"read-since": now + DAY, "changed-since": now - 1000, "yesterday": now - 2 * DAY}[age]
    layer.setattr(ROOT, ino, atime=atime, mtime=5)
    fh = layer.open(ROOT, ino, os.O_RDONLY)
    layer.read(fh, 0, 0)
    assert layer.getattr(ROOT, ino).atime == atime
    layer.read(fh, 0, 1)
    moved = layer.getattr(ROOT, ino).atime != atime
    assert moved is (
        policy is Atime.STRICTATIME or (policy is Atime.RELATIME and age != "read-since")
    )
    assert layer.getattr(ROOT, ino).mtime == 5
    layer.release(fh)


def test_times_second_read_moves_nothing(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"f", b"bytes")
    fh = posix.open(BOB, ino, os.O_RDONLY)
    posix.read(fh, 0, 1)
    first = posix.getattr(ROOT, ino).atime
    posix.read(fh, 0, 1)
    assert posix.getattr(ROOT, ino).atime == first


def test_times_noatime_handle(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"f", b"bytes")
    posix.setattr(ROOT, ino, atime=5)
    fh = posix.open(ROOT, ino, os.O_RDONLY | os.O_NOATIME)
    posix.read(fh, 0, 1)
    assert posix.getattr(ROOT, ino).atime == 5
    posix.release(fh)


def test_times_of_directory_and_symlink(posix: Posix) -> None:
    """Their access times move as well, for readers who own nothing."""
    ino = make_dir(posix, posix.root, b"d")
    posix.setattr(ROOT, ino, atime=5)
    fh = posix.opendir(BOB, ino)
    posix.readdir(fh)
    posix.releasedir(fh)
    assert posix.getattr(ROOT, ino).atime > 5
    link = posix.symlink(ROOT, posix.root, b"l", b"t").ino
    posix.setattr(ROOT, link, atime=5)
    posix.readlink(BOB, link)
    assert posix.getattr(ROOT, link).atime > 5


def test_times_readonly_mount_moves_nothing(posix: Posix, fs: FileSystem) -> None:
    ino = make_file(posix, posix.root, b"f", b"bytes")
    posix.setattr(ROOT, ino, atime=5)
    layer = Posix(fs, options=Options(readonly=True, atime=Atime.STRICTATIME))
    fh = layer.open(ROOT, ino, os.O_RDONLY)
    layer.read(fh, 0, 1)
    layer.release(fh)
    assert layer.getattr(ROOT, ino).atime == 5
