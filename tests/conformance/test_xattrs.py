"""Extended attributes: namespaces, rights, limits."""

from __future__ import annotations

import errno
import stat
from contextlib import nullcontext, suppress

import pytest

from libfs.posix import FsError, Ino, Posix, User
from libfs.posix.interface import XATTR_CREATE, XATTR_REPLACE
from tests.conformance.support import ALICE, BOB, ROOT, make_dir, make_file, refuses

SPACES = [b"user.", b"trusted.", b"security."]


@pytest.fixture
def ino(posix: Posix) -> Ino:
    """Alice's file, which all may read."""
    return make_file(posix, posix.root, b"f", user=ALICE)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("value", [b"", b"x", b"\0\xff" * 500], ids=["empty", "1", "1000"])
def test_xattrs_round(posix: Posix, ino: Ino, space: bytes, value: bytes) -> None:
    name = space + b"a"
    with refuses(errno.ENODATA):
        posix.getxattr(ROOT, ino, name)
    posix.setxattr(ROOT, ino, name, value)
    assert posix.getxattr(ROOT, ino, name) == value
    assert posix.listxattr(ROOT, ino) == [name]
    posix.setxattr(ROOT, ino, name, b"other")
    assert posix.getxattr(ROOT, ino, name) == b"other"
    posix.removexattr(ROOT, ino, name)
    with refuses(errno.ENODATA):
        posix.removexattr(ROOT, ino, name)
    assert posix.listxattr(ROOT, ino) == []


def test_xattrs_flags(posix: Posix, ino: Ino) -> None:
    with refuses(errno.ENODATA):
        posix.setxattr(ALICE, ino, b"user.a", b"1", XATTR_REPLACE)
    posix.setxattr(ALICE, ino, b"user.a", b"1", XATTR_CREATE)
    with refuses(errno.EEXIST):
        posix.setxattr(ALICE, ino, b"user.a", b"2", XATTR_CREATE)
    posix.setxattr(ALICE, ino, b"user.a", b"3", XATTR_REPLACE)
    for flags in (3, 4):
        with refuses(errno.EINVAL):
            posix.setxattr(ALICE, ino, b"user.a", b"4", flags)
    assert posix.getxattr(ALICE, ino, b"user.a") == b"3"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (b"", errno.ERANGE),
        (b"user." + b"x" * 251, errno.ERANGE),
        (b"user.", errno.EINVAL),
        (b"trusted.", errno.EINVAL),
        (b"plain", errno.EOPNOTSUPP),
        (b"os2.x", errno.EOPNOTSUPP),
        (b"system.other", errno.EOPNOTSUPP),
        (b"userx", errno.EOPNOTSUPP),
    ],
)
def test_xattrs_bad_names(posix: Posix, ino: Ino, name: bytes, code: int) -> None:
    for call in (
        lambda: posix.getxattr(ROOT, ino, name),
        lambda: posix.setxattr(ROOT, ino, name, b""),
        lambda: posix.removexattr(ROOT, ino, name),
    ):
        with refuses(code):
            call()


def test_xattrs_longest_name(posix: Posix, ino: Ino) -> None:
    name = b"user." + b"\xff" * 250
    posix.setxattr(ALICE, ino, name, b"x")
    assert posix.listxattr(ALICE, ino) == [name]


def test_xattrs_sizes(posix: Posix, ino: Ino) -> None:
    """More than Linux's limit is E2BIG; up to that, it fits or is ENOSPC and changes nothing."""
    with refuses(errno.E2BIG):
        posix.setxattr(ALICE, ino, b"user.a", bytes(65537))
    posix.setxattr(ALICE, ino, b"user.a", b"old")
    for size in (100, 1000, 3000, 4000, 10_000, 65_536):
        before = posix.getxattr(ALICE, ino, b"user.a")
        with suppress(FsError) if size > 1000 else nullcontext():
            posix.setxattr(ALICE, ino, b"user.a", bytes(size))
            before = bytes(size)
        assert posix.getxattr(ALICE, ino, b"user.a") == before
        if before != bytes(size):
            with refuses(errno.ENOSPC):
                posix.setxattr(ALICE, ino, b"user.a", bytes(size))


def test_xattrs_many(posix: Posix, ino: Ino) -> None:
    values = {b"user.%d" % number: b"v" * number for number in range(20)}
    for name, value in values.items():
        posix.setxattr(ALICE, ino, name, value)
    for name in list(values)[::2]:
        posix.removexattr(ALICE, ino, name)
        del values[name]
    names = posix.listxattr(ALICE, ino)
    assert {name: posix.getxattr(ALICE, ino, name) for name in names} == values


def test_xattrs_move_ctime(posix: Posix, ino: Ino) -> None:
    before = posix.setattr(ALICE, ino, mtime=5)
    posix.setxattr(ALICE, ino, b"user.a", b"1")
    middle = posix.getattr(ALICE, ino)
    posix.removexattr(ALICE, ino, b"user.a")
    after = posix.getattr(ALICE, ino)
    assert before.ctime <= middle.ctime <= after.ctime
    assert before.mtime == middle.mtime == after.mtime


# -- rights


@pytest.mark.parametrize("mode", [0o600, 0o604, 0o602, 0o606])
def test_xattrs_user_follows_permissions(posix: Posix, ino: Ino, mode: int) -> None:
    posix.setxattr(ALICE, ino, b"user.a", b"1")
    posix.setattr(ALICE, ino, mode=mode)
    if mode & 4:
        assert posix.getxattr(BOB, ino, b"user.a") == b"1"
    else:
        with refuses(errno.EACCES):
            posix.getxattr(BOB, ino, b"user.a")
    if mode & 2:
        posix.setxattr(BOB, ino, b"user.a", b"2")
        posix.removexattr(BOB, ino, b"user.a")
    else:
        with refuses(errno.EACCES):
            posix.setxattr(BOB, ino, b"user.a", b"2")
        with refuses(errno.EACCES):
            posix.removexattr(BOB, ino, b"user.a")


@pytest.mark.parametrize("kind", ["symlink", "fifo", "socket", "device"])
@pytest.mark.parametrize("user", [ROOT, ALICE])
def test_xattrs_user_only_on_files_and_directories(posix: Posix, kind: str, user: User) -> None:
    if kind == "symlink":
        ino = posix.symlink(ALICE, posix.root, b"x", b"t").ino
    else:
        mode = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "device": stat.S_IFCHR}[kind]
        ino = posix.mknod(ROOT, posix.root, b"x", mode | 0o666).ino
    with refuses(errno.EPERM):
        posix.setxattr(user, ino, b"user.a", b"")
    with refuses(errno.EPERM):
        posix.removexattr(user, ino, b"user.a")
    with refuses(errno.ENODATA):
        posix.getxattr(user, ino, b"user.a")
    posix.setxattr(ROOT, ino, b"trusted.a", b"")


def test_xattrs_user_on_sticky_directory(posix: Posix) -> None:
    ino = make_dir(posix, posix.root, b"d", user=ALICE, mode=0o1777)
    with refuses(errno.EPERM):
        posix.setxattr(BOB, ino, b"user.a", b"1")
    posix.setxattr(ALICE, ino, b"user.a", b"1")
    assert posix.getxattr(BOB, ino, b"user.a") == b"1"
    with refuses(errno.EPERM):
        posix.removexattr(BOB, ino, b"user.a")


def test_xattrs_trusted_is_hidden(posix: Posix, ino: Ino) -> None:
    posix.setxattr(ROOT, ino, b"trusted.a", b"1")
    posix.setxattr(ROOT, ino, b"security.a", b"1")
    assert sorted(posix.listxattr(ROOT, ino)) == [b"security.a", b"trusted.a"]
    assert posix.listxattr(ALICE, ino) == [b"security.a"]
    with refuses(errno.ENODATA):
        posix.getxattr(ALICE, ino, b"trusted.a")
    for name in (b"trusted.a", b"trusted.b", b"security.a"):
        with refuses(errno.EPERM):
            posix.setxattr(ALICE, ino, name, b"2")
        with refuses(errno.EPERM):
            posix.removexattr(ALICE, ino, name)
    assert posix.getxattr(BOB, ino, b"security.a") == b"1"


def test_xattrs_survive_rename_and_link(posix: Posix, ino: Ino) -> None:
    posix.setxattr(ALICE, ino, b"user.a", b"1")
    posix.link(ALICE, ino, posix.root, b"g")
    posix.rename(ALICE, posix.root, b"f", posix.root, b"h")
    posix.unlink(ALICE, posix.root, b"g")
    assert posix.getxattr(ALICE, ino, b"user.a") == b"1"
