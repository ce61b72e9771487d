"""Opening: rights and flags, files without names, removed directories, lookups that hold."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

import pytest

from libfs.posix import Fh, FileSystem, Options, Posix
from tests.conformance.support import (
    ALICE,
    BOB,
    CREATE,
    DAVE,
    ROOT,
    content,
    exists,
    make_dir,
    make_file,
    perm,
    refuses,
)

RIGHTS = {os.O_RDONLY: 4, os.O_WRONLY: 2, os.O_RDWR: 6}


@pytest.mark.parametrize("flags", RIGHTS)
@pytest.mark.parametrize("bits", range(8))
@pytest.mark.parametrize("role", ["owner", "group", "other"])
def test_open_rights(posix: Posix, role: str, bits: int, flags: int) -> None:
    shift = {"owner": 6, "group": 3, "other": 0}[role]
    ino = make_file(posix, posix.root, b"f", mode=bits << shift)
    posix.setattr(ROOT, ino, uid=1000, gid=1000)
    user = {"owner": ALICE, "group": DAVE, "other": BOB}[role]
    if RIGHTS[flags] & ~bits:
        with refuses(errno.EACCES):
            posix.open(user, ino, flags)
    else:
        posix.release(posix.open(user, ino, flags))
    posix.release(posix.open(ROOT, ino, flags))


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_open_of_symlink(posix: Posix, flags: int) -> None:
    ino = posix.symlink(ROOT, posix.root, b"l", b"t").ino
    with refuses(errno.ELOOP):
        posix.open(ROOT, ino, flags | os.O_NOFOLLOW)


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_TRUNC, os.O_CREAT])
def test_open_of_directory_to_write(posix: Posix, flags: int) -> None:
    with refuses(errno.EISDIR):
        posix.open(ROOT, make_dir(posix, posix.root, b"d"), flags)


def test_open_of_directory_to_read(posix: Posix) -> None:
    fh = posix.open(ROOT, posix.root, os.O_RDONLY | os.O_DIRECTORY)
    with refuses(errno.EISDIR):
        posix.read(fh, 0, 1)
    with refuses(errno.EBADF):
        posix.write(fh, 0, b"x")
    posix.release(fh)


def test_open_directory_flag_on_file(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"f")
    with refuses(errno.ENOTDIR):
        posix.open(ROOT, ino, os.O_DIRECTORY)
    with refuses(errno.ENOTDIR):
        posix.opendir(ROOT, ino)


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR])
def test_open_of_special(posix: Posix, kind: int) -> None:
    with refuses(errno.ENXIO):
        posix.open(ROOT, posix.mknod(ROOT, posix.root, b"x", kind | 0o666).ino, os.O_RDWR)


def test_open_with_access_mode_3(posix: Posix) -> None:
    with refuses(errno.EINVAL):
        posix.open(ROOT, make_file(posix, posix.root, b"f"), 3)


def test_open_trunc(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"f", b"bytes")
    posix.setattr(ROOT, ino, mtime=5)
    posix.release(posix.open(ROOT, ino, os.O_WRONLY | os.O_TRUNC))
    attr = posix.getattr(ROOT, ino)
    assert attr.size == 0
    assert attr.mtime > 5


def test_open_trunc_needs_write(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"f", b"bytes", mode=0o644)
    with refuses(errno.EACCES):
        posix.open(BOB, ino, os.O_RDONLY | os.O_TRUNC)
    assert content(posix, ino) == b"bytes"


def test_open_noatime_is_for_owners(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"f", user=ALICE, mode=0o666)
    for user in (ALICE, ROOT):
        posix.release(posix.open(user, ino, os.O_RDONLY | os.O_NOATIME))
    with refuses(errno.EPERM):
        posix.open(BOB, ino, os.O_RDONLY | os.O_NOATIME)


def test_open_keeps_rights_after_chmod(posix: Posix) -> None:
    attr, fh = posix.create(ALICE, posix.root, b"f", 0o600, CREATE)
    posix.setattr(ALICE, attr.ino, mode=0)
    posix.write(fh, 0, b"x")
    assert posix.read(fh, 0, 9) == b"x"
    posix.release(fh)


def test_open_create_ignores_new_mode(posix: Posix) -> None:
    attr, fh = posix.create(ALICE, posix.root, b"f", 0, CREATE)
    assert perm(attr) == 0
    assert posix.write(fh, 0, b"x") == 1
    posix.release(fh)
    with refuses(errno.EACCES):
        posix.create(ALICE, posix.root, b"f", 0, CREATE)


def test_open_create_opens_existing(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"f", b"bytes", mode=0o640)
    attr, fh = posix.create(ROOT, posix.root, b"f", 0o777, CREATE)
    assert (attr.ino, perm(attr), attr.size) == (ino, 0o640, 5)
    posix.release(fh)
    attr, fh = posix.create(ROOT, posix.root, b"f", 0o777, CREATE | os.O_TRUNC)
    assert attr.size == 0
    posix.release(fh)


def test_open_create_in_shut_directory(posix: Posix) -> None:
    ino = make_dir(posix, posix.root, b"d", mode=0o755)
    make_file(posix, ino, b"f", mode=0o666)
    _, fh = posix.create(BOB, ino, b"f", 0o777, CREATE)
    posix.release(fh)
    with refuses(errno.EACCES):
        posix.create(BOB, ino, b"g", 0o777, CREATE)
    with refuses(errno.EEXIST):
        posix.create(BOB, ino, b"f", 0o777, CREATE | os.O_EXCL)


def test_open_create_on_other_kinds(posix: Posix) -> None:
    make_dir(posix, posix.root, b"d")
    posix.symlink(ROOT, posix.root, b"l", b"t")
    for name in (b"d", b".", b".."):
        with refuses(errno.EISDIR):
            posix.create(ROOT, posix.root, name, 0o644, os.O_CREAT)
    with refuses(errno.ELOOP):
        posix.create(ROOT, posix.root, b"l", 0o644, CREATE)
    with refuses(errno.EEXIST):
        posix.create(ROOT, posix.root, b"l", 0o644, CREATE | os.O_EXCL)


@pytest.mark.parametrize("flags", [os.O_DIRECTORY | os.O_CREAT, 3 | os.O_CREAT])
def test_open_create_bad_flags(posix: Posix, flags: int) -> None:
    with refuses(errno.EINVAL):
        posix.create(ROOT, posix.root, b"f", 0o644, flags)
    assert not exists(posix, posix.root, b"f")


def test_open_bad_handle(posix: Posix) -> None:
    fh = posix.opendir(ROOT, posix.root)
    posix.releasedir(fh)
    for call in (posix.release, posix.fsync, posix.fsyncdir, posix.readdir):
        with refuses(errno.EBADF):
            call(fh)
    with refuses(errno.EBADF):
        posix.read(Fh(0), 0, 1)


# -- files without a name


def test_open_file_outlives_its_name(posix: Posix) -> None:
    attr, fh = posix.create(ALICE, posix.root, b"f", 0o644, CREATE)
    posix.write(fh, 0, b"bytes")
    second = posix.open(ALICE, attr.ino, os.O_RDONLY)
    posix.unlink(ALICE, posix.root, b"f")
    assert posix.getattr(ALICE, attr.ino).nlink == 0
    make_file(posix, posix.root, b"f", b"other")
    posix.release(fh)
    assert posix.read(second, 0, 99) == b"bytes"
    third = posix.open(ALICE, attr.ino, os.O_RDWR)  # as through /proc/self/fd
    posix.release(second)
    assert posix.write(third, 5, b"!") == 1
    posix.fsync(third)
    posix.release(third)
    with refuses(errno.ESTALE):
        posix.getattr(ALICE, attr.ino)


def test_open_file_with_another_name_is_no_orphan(posix: Posix) -> None:
    attr, fh = posix.create(ROOT, posix.root, b"a", 0o644, CREATE)
    posix.link(ROOT, attr.ino, posix.root, b"b")
    posix.unlink(ROOT, posix.root, b"a")
    posix.release(fh)
    assert posix.lookup(ROOT, posix.root, b"b").nlink == 1


def test_open_lookups_hold_an_inode(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"f", b"bytes")
    posix.remember(ino)
    posix.remember(ino)
    posix.unlink(ROOT, posix.root, b"f")
    posix.forget(ino)
    assert content(posix, ino) == b"bytes"
    posix.forget(ino)
    with refuses(errno.ESTALE):
        posix.getattr(ROOT, ino)


def test_open_handle_and_lookup_hold_together(posix: Posix) -> None:
    attr, fh = posix.create(ROOT, posix.root, b"f", 0o644, CREATE)
    posix.remember(attr.ino)
    posix.unlink(ROOT, posix.root, b"f")
    posix.forget(attr.ino, 1)
    assert posix.getattr(ROOT, attr.ino).nlink == 0
    posix.release(fh)
    with refuses(errno.ESTALE):
        posix.getattr(ROOT, attr.ino)


def test_open_forget_of_named_inode_keeps_it(posix: Posix) -> None:
    ino = make_file(posix, posix.root, b"f")
    posix.remember(ino)
    posix.forget(ino, 1)
    posix.forget(ino, 1)
    assert posix.getattr(ROOT, ino).nlink == 1


def test_open_removed_directory_is_empty_for_ever(posix: Posix) -> None:
    ino = make_dir(posix, posix.root, b"d")
    fh = posix.opendir(ROOT, ino)
    posix.rmdir(ROOT, posix.root, b"d")
    assert posix.readdir(fh) == []
    assert posix.getattr(ROOT, ino).nlink == 0
    assert posix.lookup(ROOT, ino, b".").ino == ino
    for name in (b"x", b".."):
        with refuses(errno.ENOENT):
            posix.lookup(ROOT, ino, name)
    with refuses(errno.ENOENT):
        posix.tmpfile(ROOT, ino, 0o600, os.O_RDWR)
    make_dir(posix, posix.root, b"d")
    posix.releasedir(fh)
    with refuses(errno.ESTALE):
        posix.getattr(ROOT, ino)


def test_open_directory_replaced_by_rename(posix: Posix) -> None:
    old = make_dir(posix, posix.root, b"old")
    make_dir(posix, posix.root, b"new")
    fh = posix.opendir(ROOT, old)
    posix.rename(ROOT, posix.root, b"new", posix.root, b"old")
    assert posix.readdir(fh) == []
    posix.releasedir(fh)
    with refuses(errno.ESTALE):
        posix.getattr(ROOT, old)


# -- O_TMPFILE


def test_open_tmpfile(posix: Posix) -> None:
    attr, fh = posix.tmpfile(ALICE, posix.root, 0o666, os.O_RDWR | os.O_TMPFILE, 0o022)
    assert stat.S_ISREG(attr.mode)
    assert (perm(attr), attr.nlink, attr.uid, attr.gid) == (0o644, 0, 1000, 1000)
    posix.write(fh, 0, b"bytes")
    assert posix.read(fh, 0, 9) == b"bytes"
    posix.release(fh)
    with refuses(errno.ESTALE):
        posix.getattr(ALICE, attr.ino)


def test_open_tmpfile_gets_a_name(posix: Posix) -> None:
    attr, fh = posix.tmpfile(ALICE, posix.root, 0o644, os.O_RDWR)
    posix.write(fh, 0, b"bytes")
    assert posix.link(ALICE, attr.ino, posix.root, b"f").nlink == 1
    posix.release(fh)
    assert content(posix, attr.ino) == b"bytes"
    posix.unlink(ALICE, posix.root, b"f")
    with refuses(errno.ESTALE):
        posix.getattr(ALICE, attr.ino)


def test_open_tmpfile_named_and_unlinked_again(posix: Posix) -> None:
    attr, fh = posix.tmpfile(ALICE, posix.root, 0o644, os.O_RDWR)
    posix.link(ALICE, attr.ino, posix.root, b"f")
    posix.unlink(ALICE, posix.root, b"f")
    with refuses(errno.ENOENT):
        posix.link(ALICE, attr.ino, posix.root, b"f")
    posix.release(fh)
    with refuses(errno.ESTALE):
        posix.getattr(ALICE, attr.ino)


def test_open_tmpfile_excl_gets_none(posix: Posix) -> None:
    attr, fh = posix.tmpfile(ALICE, posix.root, 0o644, os.O_RDWR | os.O_EXCL)
    with refuses(errno.ENOENT):
        posix.link(ALICE, attr.ino, posix.root, b"f")
    posix.release(fh)


def test_open_tmpfile_refused(posix: Posix) -> None:
    shut = make_dir(posix, posix.root, b"d", mode=0o755)
    with refuses(errno.EACCES):
        posix.tmpfile(BOB, shut, 0o600, os.O_RDWR)
    with refuses(errno.EINVAL):
        posix.tmpfile(BOB, posix.root, 0o600, os.O_RDONLY)
    with refuses(errno.ENOTDIR):
        posix.tmpfile(ROOT, make_file(posix, posix.root, b"f"), 0o600, os.O_RDWR)


# -- read-only


def test_open_readonly_mount(posix: Posix, fs: FileSystem) -> None:
    ino = make_file(posix, posix.root, b"f", b"bytes", mode=0o666)
    empty = make_dir(posix, posix.root, b"d")
    layer = Posix(fs, options=Options(readonly=True))
    root = layer.root
    fh = layer.open(BOB, ino, os.O_RDONLY)
    assert layer.read(fh, 0, 9) == b"bytes"
    layer.fsync(fh)
    layer.sync()
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_TRUNC):
        with refuses(errno.EROFS):
            layer.open(BOB, ino, flags)
    calls: list[Callable[[], object]] = [
        lambda: layer.create(ROOT, root, b"x", 0o644, CREATE),
        lambda: layer.mkdir(ROOT, root, b"x", 0o755),
        lambda: layer.mknod(ROOT, root, b"x", stat.S_IFIFO),
        lambda: layer.symlink(ROOT, root, b"x", b"t"),
        lambda: layer.link(ROOT, ino, root, b"x"),
        lambda: layer.tmpfile(ROOT, root, 0o600, os.O_RDWR),
        lambda: layer.unlink(ROOT, root, b"f"),
        lambda: layer.rmdir(ROOT, root, b"d"),
        lambda: layer.rename(ROOT, root, b"f", root, b"g"),
        lambda: layer.setattr(ROOT, ino, mode=0),
        lambda: layer.setattr(ROOT, ino, size=0),
        lambda: layer.setxattr(ROOT, ino, b"user.x", b""),
        lambda: layer.removexattr(ROOT, ino, b"user.x"),
        lambda: layer.access(ROOT, ino, 2),
        lambda: layer.access(ROOT, empty, 2),
    ]
    for call in calls:
        with refuses(errno.EROFS):
            call()
    with refuses(errno.EEXIST):
        layer.mkdir(ROOT, root, b"f", 0o755)
    layer.release(fh)
