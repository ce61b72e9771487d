"""chmod, chown, set-id bits, sticky and set-group-id directories, access."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from libfs.posix import Posix, User
from tests.conformance.support import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    ROOT,
    exists,
    make_dir,
    make_file,
    perm,
    refuses,
)

# -- access


@pytest.mark.parametrize("mask", range(8))
@pytest.mark.parametrize("bits", range(8))
@pytest.mark.parametrize(
    ("user", "shift"), [(ALICE, 6), (CAROL, 3), (DAVE, 3), (BOB, 0)], ids=["u", "g", "G", "o"]
)
def test_permissions_access(posix: Posix, user: User, shift: int, bits: int, mask: int) -> None:
    """One class decides, even when another grants more."""
    ino = make_file(posix, posix.root, b"f", user=ALICE)
    mode = 0o777 & ~(7 << shift) | bits << shift
    posix.setattr(ALICE, ino, mode=mode)
    if mask & ~bits:
        with refuses(errno.EACCES):
            posix.access(user, ino, mask)
    else:
        posix.access(user, ino, mask)


@pytest.mark.parametrize(
    ("mode", "directory", "ok"),
    [(0o000, False, False), (0o001, False, True), (0o666, False, False), (0o000, True, True)],
)
def test_permissions_access_of_root(posix: Posix, mode: int, directory: bool, ok: bool) -> None:
    make = make_dir if directory else make_file
    ino = make(posix, posix.root, b"x", mode=0o700)
    posix.setattr(ROOT, ino, mode=mode)
    posix.access(ROOT, ino, 6)
    if ok:
        posix.access(ROOT, ino, 7)
    else:
        with refuses(errno.EACCES):
            posix.access(ROOT, ino, 1)


def test_permissions_access_bad_mask(posix: Posix) -> None:
    with refuses(errno.EINVAL):
        posix.access(ROOT, posix.root, 8)
    posix.access(BOB, make_file(posix, posix.root, b"f", mode=0), 0)


# -- chmod


@pytest.mark.parametrize("mode", [0, 0o777, 0o4755, 0o1644, 0o7777])
def test_permissions_chmod(posix: Posix, mode: int) -> None:
    ino = make_file(posix, posix.root, b"f", user=ALICE)
    before = posix.getattr(ROOT, ino)
    attr = posix.setattr(ALICE, ino, mode=mode | stat.S_IFDIR)
    assert attr.mode == stat.S_IFREG | mode
    assert attr.ctime >= before.ctime
    assert (attr.mtime, attr.atime) == (before.mtime, before.atime)


@pytest.mark.parametrize("user", [BOB, CAROL, DAVE])
def test_permissions_chmod_by_others(posix: Posix, user: User) -> None:
    ino = make_file(posix, posix.root, b"f", user=ALICE, mode=0o666)
    with refuses(errno.EPERM):
        posix.setattr(user, ino, mode=0o777)
    assert perm(posix.setattr(ROOT, ino, mode=0o700)) == 0o700


def test_permissions_chmod_sgid_needs_group(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"f", user=ALICE)
    posix.setattr(ROOT, ino, gid=77)
    assert perm(posix.setattr(ALICE, ino, mode=0o2755)) == 0o755
    assert perm(posix.setattr(ROOT, ino, mode=0o2755)) == 0o2755
    member = User(1000, 5, (77,))
    assert perm(posix.setattr(member, ino, mode=0o2711)) == 0o2711
    directory = make_dir(posix, posix.root, b"d", user=ALICE)
    posix.setattr(ROOT, directory, gid=77)
    assert perm(posix.setattr(ALICE, directory, mode=0o2755)) == 0o755


# -- chown


@pytest.mark.parametrize(
    ("user", "uid", "gid", "ok"),
    [
        (ROOT, 5, 6, True),
        (ROOT, 5, None, True),
        (ALICE, 1000, None, True),
        (ALICE, 1000, 1000, True),
        (ALICE, 1001, None, False),
        (ALICE, None, 1001, False),
        (User(1000, 1000, (9, 8)), None, 8, True),
        (User(1000, 1000, (9, 8)), 1000, 9, True),
        (User(1000, 1000, (9, 8)), 1001, 9, False),
        (DAVE, None, 1000, False),
        (DAVE, 1000, None, False),
        (BOB, None, 1001, False),
    ],
)
def test_permissions_chown(
    posix: Posix, user: User, uid: int | None, gid: int | None, ok: bool
) -> None:
    ino = make_file(posix, posix.root, b"f", user=ALICE)
    if not ok:
        with refuses(errno.EPERM):
            posix.setattr(user, ino, uid=uid, gid=gid)
        attr = posix.getattr(ROOT, ino)
        assert (attr.uid, attr.gid) == (1000, 1000)
        return
    attr = posix.setattr(user, ino, uid=uid, gid=gid)
    assert attr.uid == (1000 if uid is None else uid)
    assert attr.gid == (1000 if gid is None else gid)


@pytest.mark.parametrize("user", [ROOT, ALICE])
@pytest.mark.parametrize(
    ("mode", "left"), [(0o6755, 0o755), (0o4644, 0o644), (0o2745, 0o2745), (0o2755, 0o755)]
)
def test_permissions_chown_drops_setid(posix: Posix, user: User, mode: int, left: int) -> None:
    ino = make_file(posix, posix.root, b"f", user=ALICE, mode=mode)
    assert perm(posix.setattr(user, ino, gid=1000)) == left


def test_permissions_chown_keeps_setid_of_directories(posix: Posix) -> None:
    ino = make_dir(posix, posix.root, b"d", user=ALICE, mode=0o6755)
    assert perm(posix.setattr(ALICE, ino, gid=1000)) == 0o6755


def test_permissions_chown_with_chmod(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"f", user=ALICE, mode=0o755)
    assert perm(posix.setattr(ROOT, ino, uid=5, mode=0o4755)) == 0o4755


def test_permissions_large_ids(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"f")
    attr = posix.setattr(ROOT, ino, uid=0xFFFFFFFE, gid=0xFFFFFFFD)
    assert (attr.uid, attr.gid) == (0xFFFFFFFE, 0xFFFFFFFD)
    assert perm(posix.setattr(User(0xFFFFFFFE, 1), ino, mode=0o600)) == 0o600


def test_permissions_refused_change_changes_nothing(posix: Posix) -> None:
    """A call that may do one thing and not the other does neither."""
    ino = make_file(posix, posix.root, b"f", b"bytes", user=ALICE, mode=0o666)
    before = posix.getattr(ROOT, ino)
    with refuses(errno.EPERM):
        posix.setattr(ALICE, ino, mode=0o600, uid=5)
    with refuses(errno.EPERM):
        posix.setattr(BOB, ino, size=0, mode=0o600)
    with refuses(errno.EPERM):
        posix.setattr(BOB, ino, size=0, atime=5)
    assert posix.getattr(ROOT, ino) == before


# -- sticky directories


@pytest.mark.parametrize(
    ("user", "ok"), [(ROOT, True), (ALICE, True), (BOB, True), (CAROL, False), (DAVE, False)]
)
def test_permissions_sticky(posix: Posix, user: User, ok: bool) -> None:
    """The owner of the entry (Alice), the owner of the directory (Bob), uid 0, and nobody else."""
    tmp = make_dir(posix, posix.root, b"tmp", user=BOB, mode=0o1777)
    make_file(posix, tmp, b"f", user=ALICE, mode=0o666)
    make_dir(posix, tmp, b"d", user=ALICE, mode=0o777)
    if ok:
        posix.unlink(user, tmp, b"f")
        posix.rmdir(user, tmp, b"d")
        return
    with refuses(errno.EPERM):
        posix.unlink(user, tmp, b"f")
    with refuses(errno.EPERM):
        posix.rmdir(user, tmp, b"d")
    with refuses(errno.EPERM):
        posix.rename(user, tmp, b"f", posix.root, b"f")
    assert exists(posix, tmp, b"f")


# -- set-group-id directories


@pytest.mark.parametrize("kind", ["file", "dir", "fifo", "symlink", "tmpfile"])
@pytest.mark.parametrize("sgid", [False, True])
def test_permissions_group_of_new_inode(posix: Posix, sgid: bool, kind: str) -> None:
    parent = make_dir(posix, posix.root, b"d", mode=0o777)
    posix.setattr(ROOT, parent, gid=77, mode=0o2777 if sgid else 0o777)
    if kind == "dir":
        attr = posix.mkdir(ALICE, parent, b"x", 0o755)
        assert bool(attr.mode & stat.S_ISGID) is sgid
    elif kind == "symlink":
        attr = posix.symlink(ALICE, parent, b"x", b"t")
    elif kind == "tmpfile":
        attr, fh = posix.tmpfile(ALICE, parent, 0o644, os.O_RDWR)
        posix.release(fh)
    else:
        mode = stat.S_IFREG if kind == "file" else stat.S_IFIFO
        attr = posix.mknod(ALICE, parent, b"x", mode | 0o755)
        assert not attr.mode & stat.S_ISGID
    assert attr.uid == 1000
    assert attr.gid == (77 if sgid else 1000)


@pytest.mark.parametrize(
    ("user", "mode", "left"),
    [
        (ALICE, 0o2755, 0o755),
        (ALICE, 0o2745, 0o2745),
        (User(1000, 1000, (77,)), 0o2755, 0o2755),
        (ROOT, 0o2755, 0o2755),
    ],
)
def test_permissions_sgid_file_in_sgid_directory(
    posix: Posix, user: User, mode: int, left: int
) -> None:
    """Nobody makes a set-group-id program of a group that they are not in."""
    parent = make_dir(posix, posix.root, b"d")
    posix.setattr(ROOT, parent, gid=77, mode=0o2777)
    assert perm(posix.mknod(user, parent, b"x", stat.S_IFREG | mode)) == left
