"""Names: lookup, creation of each kind, links, removal, and which errno wins."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

import pytest

from libfs.posix import FileSystem, FsError, Ino, Posix, User
from tests.conformance.support import (
    ALICE,
    BAD_NAMES,
    BOB,
    CREATE,
    ROOT,
    content,
    exists,
    make_dir,
    make_file,
    names_in,
    perm,
    refuses,
)

Maker = Callable[[Posix, User, Ino, bytes], object]


def _link(posix: Posix, user: User, parent: Ino, name: bytes) -> object:
    try:
        ino = posix.lookup(ROOT, posix.root, b"original").ino
    except FsError:
        ino = make_file(posix, posix.root, b"original")
    return posix.link(user, ino, parent, name)


MAKERS: dict[str, Maker] = {
    "create": lambda p, u, d, n: p.release(p.create(u, d, n, 0o644, CREATE | os.O_EXCL)[1]),
    "mknod": lambda p, u, d, n: p.mknod(u, d, n, stat.S_IFREG | 0o644),
    "mkfifo": lambda p, u, d, n: p.mknod(u, d, n, stat.S_IFIFO | 0o644),
    "mkdir": lambda p, u, d, n: p.mkdir(u, d, n, 0o755),
    "symlink": lambda p, u, d, n: p.symlink(u, d, n, b"target"),
    "link": _link,
}
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))


@makers
@pytest.mark.parametrize(("name", "code"), BAD_NAMES)
def test_names_make_bad_name(posix: Posix, make: Maker, name: bytes, code: int) -> None:
    with refuses(code):
        make(posix, ROOT, posix.root, name)


@makers
@pytest.mark.parametrize("name", [b".", b".."])
def test_names_make_dot(posix: Posix, make: Maker, name: bytes) -> None:
    with refuses(errno.EEXIST):
        make(posix, ROOT, posix.root, name)


@makers
def test_names_make_existing(posix: Posix, make: Maker) -> None:
    for kind, other in MAKERS.items():
        other(posix, ROOT, posix.root, kind.encode())
        with refuses(errno.EEXIST):
            make(posix, ROOT, posix.root, kind.encode())


@makers
def test_names_make_in_file(posix: Posix, make: Maker) -> None:
    ino = make_file(posix, posix.root, b"f", mode=0o777)
    for user in (ROOT, BOB):
        with refuses(errno.ENOTDIR):
            make(posix, user, ino, b"x")


@makers
def test_names_make_without_write(posix: Posix, make: Maker) -> None:
    ino = make_dir(posix, posix.root, b"d", mode=0o755)
    with refuses(errno.EACCES):
        make(posix, BOB, ino, b"x")
    assert names_in(posix, ino) == []


@makers
def test_names_make_without_search(posix: Posix, make: Maker) -> None:
    ino = make_dir(posix, posix.root, b"d", mode=0o666)
    make(posix, ROOT, ino, b"there")
    for name in (b"x", b"there"):
        with refuses(errno.EACCES):
            make(posix, BOB, ino, name)


@makers
def test_names_make_existing_wins_over_write(posix: Posix, make: Maker) -> None:
    ino = make_dir(posix, posix.root, b"d", mode=0o755)
    make(posix, ROOT, ino, b"there")
    with refuses(errno.EEXIST):
        make(posix, BOB, ino, b"there")


@makers
def test_names_make_in_removed_directory(posix: Posix, make: Maker) -> None:
    ino = make_dir(posix, posix.root, b"d", mode=0o777)
    fh = posix.opendir(ROOT, ino)
    posix.rmdir(ROOT, posix.root, b"d")
    for user in (ROOT, ALICE):
        with refuses(errno.ENOENT):
            make(posix, user, ino, b"x")
    posix.releasedir(fh)


@makers
@pytest.mark.parametrize(
    "name",
    [b"x" * 255, bytes(range(128, 256)) + b"\xff" * 127, b"...", b" ", b"-", b"\n", b"\xc3\x28"],
)
def test_names_make_odd_name(posix: Posix, make: Maker, name: bytes) -> None:
    make(posix, ALICE, posix.root, name)
    assert posix.lookup(ROOT, posix.root, name).nlink >= 1
    assert name in names_in(posix, posix.root)


@makers
def test_names_make_moves_directory_times(posix: Posix, make: Maker) -> None:
    ino = make_dir(posix, posix.root, b"d", mode=0o777)
    before = posix.setattr(ROOT, ino, atime=5, mtime=5)
    make(posix, ROOT, ino, b"x")
    after = posix.getattr(ROOT, ino)
    assert after.mtime > before.mtime
    assert after.ctime >= before.ctime
    assert after.atime == before.atime


def test_names_new_file_attributes(posix: Posix, fs: FileSystem) -> None:
    before = fs.now()
    attr, fh = posix.create(ALICE, posix.root, b"f", 0o666, CREATE, 0o027)
    assert stat.S_IFMT(attr.mode) == stat.S_IFREG
    assert perm(attr) == 0o640
    assert (attr.uid, attr.gid, attr.nlink, attr.size) == (1000, 1000, 1, 0)
    assert before <= attr.mtime <= fs.now()
    assert attr.atime == attr.mtime == attr.ctime == attr.crtime
    posix.release(fh)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("kind", ["file", "fifo", "dir"])
def test_names_umask(posix: Posix, umask: int, kind: str) -> None:
    if kind == "dir":
        attr = posix.mkdir(ALICE, posix.root, b"x", 0o777, umask)
    else:
        mode = stat.S_IFREG if kind == "file" else stat.S_IFIFO
        attr = posix.mknod(ALICE, posix.root, b"x", mode | 0o777, 0, umask)
    assert perm(attr) == 0o777 & ~umask


@pytest.mark.parametrize(
    "kind", [stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK]
)
def test_names_mknod_kinds(posix: Posix, kind: int) -> None:
    attr = posix.mknod(ROOT, posix.root, b"x", kind | 0o600, 0x0801)
    assert stat.S_IFMT(attr.mode) == kind
    assert attr.rdev == (0x0801 if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0)
    posix.unlink(ROOT, posix.root, b"x")
    assert not exists(posix, posix.root, b"x")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (stat.S_IFCHR, errno.EPERM),
        (stat.S_IFBLK, errno.EPERM),
        (stat.S_IFDIR, errno.EPERM),
        (stat.S_IFLNK, errno.EINVAL),
        (0o030000, errno.EINVAL),
    ],
)
def test_names_mknod_refused(posix: Posix, kind: int, code: int) -> None:
    with refuses(code):
        posix.mknod(ALICE, posix.root, b"x", kind | 0o600, 0x0801)
    assert not exists(posix, posix.root, b"x")


def test_names_mknod_without_type_makes_file(posix: Posix) -> None:
    assert stat.S_ISREG(posix.mknod(ALICE, posix.root, b"x", 0o600).mode)


def test_names_mkdir_links(posix: Posix) -> None:
    before = posix.getattr(ROOT, posix.root).nlink
    attr = posix.mkdir(ROOT, posix.root, b"d", 0o755)
    assert attr.nlink == 2
    assert posix.getattr(ROOT, posix.root).nlink == before + 1
    posix.rmdir(ROOT, posix.root, b"d")
    assert posix.getattr(ROOT, posix.root).nlink == before


def test_names_mkdir_ignores_setid(posix: Posix) -> None:
    assert perm(posix.mkdir(ROOT, posix.root, b"d", 0o7755)) == 0o1755


@pytest.mark.parametrize("size", [1, 59, 60, 1000, 4000, 4095])
def test_names_symlink_target(posix: Posix, size: int) -> None:
    target = (b"\xff/x" * 2000)[:size]
    attr = posix.symlink(ALICE, posix.root, b"l", target)
    assert stat.S_ISLNK(attr.mode)
    assert perm(attr) == 0o777
    assert attr.size == size
    assert posix.readlink(BOB, attr.ino) == target


@pytest.mark.parametrize(
    ("target", "code"),
    [(b"", errno.ENOENT), (b"x" * 4096, errno.ENAMETOOLONG), (b"a\0", errno.EINVAL)],
    ids=["empty", "long", "nul"],
)
def test_names_symlink_bad_target(posix: Posix, target: bytes, code: int) -> None:
    with refuses(code):
        posix.symlink(ALICE, posix.root, b"l", target)


def test_names_readlink_of_file(posix: Posix) -> None:
    with refuses(errno.EINVAL):
        posix.readlink(ROOT, make_file(posix, posix.root, b"f"))


@pytest.mark.parametrize(("name", "code"), BAD_NAMES)
def test_names_lookup_bad_name(posix: Posix, name: bytes, code: int) -> None:
    with refuses(code):
        posix.lookup(ROOT, posix.root, name)


def test_names_lookup_absent(posix: Posix) -> None:
    with refuses(errno.ENOENT):
        posix.lookup(ROOT, posix.root, b"x")


def test_names_lookup_in_file(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"f", mode=0o755)
    for name in (b"x", b".", b".."):
        for user in (ROOT, BOB):
            with refuses(errno.ENOTDIR):
                posix.lookup(user, ino, name)


def test_names_lookup_dots(posix: Posix) -> None:
    one = make_dir(posix, posix.root, b"1")
    two = make_dir(posix, one, b"2")
    assert posix.lookup(ROOT, two, b".").ino == two
    assert posix.lookup(ROOT, two, b"..").ino == one
    assert posix.lookup(ROOT, one, b"..").ino == posix.root
    assert posix.lookup(ROOT, posix.root, b"..").ino == posix.root


@pytest.mark.parametrize(("mode", "ok"), [(0o711, True), (0o744, False), (0o701, True)])
def test_names_lookup_needs_search(posix: Posix, mode: int, ok: bool) -> None:
    ino = make_dir(posix, posix.root, b"d", mode=mode)
    make_file(posix, ino, b"f")
    for name in (b"f", b"..", b"."):
        if ok:
            posix.lookup(BOB, ino, name)
        else:
            with refuses(errno.EACCES):
                posix.lookup(BOB, ino, name)


def test_names_link(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"a", b"bytes")
    posix.setattr(ROOT, ino, mtime=5)
    attr = posix.link(BOB, ino, posix.root, b"b")
    assert (attr.ino, attr.nlink, attr.mtime) == (ino, 2, 5)
    posix.unlink(ROOT, posix.root, b"a")
    assert posix.getattr(ROOT, ino).nlink == 1
    assert content(posix, ino) == b"bytes"


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR])
def test_names_link_of_special(posix: Posix, kind: int) -> None:
    ino = posix.mknod(ROOT, posix.root, b"a", kind | 0o600).ino
    assert posix.link(ROOT, ino, posix.root, b"b").nlink == 2


def test_names_link_of_symlink(posix: Posix) -> None:
    ino = posix.symlink(ROOT, posix.root, b"a", b"t").ino
    assert posix.link(ROOT, ino, posix.root, b"b").nlink == 2
    assert posix.readlink(ROOT, posix.lookup(ROOT, posix.root, b"b").ino) == b"t"


def test_names_link_of_directory(posix: Posix) -> None:
    ino = make_dir(posix, posix.root, b"d")
    with refuses(errno.EPERM):
        posix.link(ROOT, ino, posix.root, b"e")


def test_names_link_of_unlinked(posix: Posix) -> None:
    attr, fh = posix.create(ROOT, posix.root, b"a", 0o644, CREATE)
    posix.unlink(ROOT, posix.root, b"a")
    with refuses(errno.ENOENT):
        posix.link(ROOT, attr.ino, posix.root, b"b")
    posix.release(fh)


def test_names_unlink_absent(posix: Posix) -> None:
    with refuses(errno.ENOENT):
        posix.unlink(ROOT, posix.root, b"x")


@pytest.mark.parametrize(("name", "code"), BAD_NAMES)
def test_names_remove_bad_name(posix: Posix, name: bytes, code: int) -> None:
    with refuses(code):
        posix.unlink(ROOT, posix.root, name)
    with refuses(code):
        posix.rmdir(ROOT, posix.root, name)


def test_names_unlink_directory(posix: Posix) -> None:
    make_dir(posix, posix.root, b"d")
    for name in (b"d", b".", b".."):
        with refuses(errno.EISDIR):
            posix.unlink(ROOT, posix.root, name)


def test_names_rmdir_of_file(posix: Posix) -> None:
    make_file(posix, posix.root, b"f")
    posix.symlink(ROOT, posix.root, b"l", b".")
    for name in (b"f", b"l"):
        with refuses(errno.ENOTDIR):
            posix.rmdir(ROOT, posix.root, name)


def test_names_rmdir_not_empty(posix: Posix) -> None:
    ino = make_dir(posix, posix.root, b"d")
    make_file(posix, ino, b"f")
    with refuses(errno.ENOTEMPTY):
        posix.rmdir(ROOT, posix.root, b"d")
    posix.unlink(ROOT, ino, b"f")
    posix.rmdir(ROOT, posix.root, b"d")
    assert not exists(posix, posix.root, b"d")


def test_names_rmdir_dots(posix: Posix) -> None:
    ino = make_dir(posix, posix.root, b"d")
    with refuses(errno.EINVAL):
        posix.rmdir(ROOT, ino, b".")
    with refuses(errno.ENOTEMPTY):
        posix.rmdir(ROOT, ino, b"..")


def test_names_remove_without_write(posix: Posix) -> None:
    ino = make_dir(posix, posix.root, b"d", mode=0o755)
    make_file(posix, ino, b"f", mode=0o666)
    make_dir(posix, ino, b"e", mode=0o777)
    with refuses(errno.EACCES):
        posix.unlink(BOB, ino, b"f")
    with refuses(errno.EACCES):
        posix.rmdir(BOB, ino, b"e")
    with refuses(errno.ENOENT):
        posix.unlink(BOB, ino, b"x")


def test_names_unlink_moves_ctime(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"a")
    posix.link(ROOT, ino, posix.root, b"b")
    posix.setattr(ROOT, posix.root, mtime=5)
    before = posix.getattr(ROOT, ino).ctime
    posix.unlink(ROOT, posix.root, b"a")
    assert posix.getattr(ROOT, ino).ctime >= before
    assert posix.getattr(ROOT, posix.root).mtime > 5


def test_names_inode_of_removed_file_is_stale(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"f")
    posix.unlink(ROOT, posix.root, b"f")
    with refuses(errno.ESTALE):
        posix.getattr(ROOT, ino)
