"""rename: every pair of kinds, flags, loops, permissions."""

from __future__ import annotations

import errno
import stat

import pytest

from libfs.posix import RENAME_EXCHANGE, RENAME_NOREPLACE, Ino, Posix
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
    refuses,
)

KINDS = ["file", "fifo", "symlink", "dir", "full-dir"]


def _make(posix: Posix, parent: Ino, name: bytes, kind: str) -> Ino:
    if kind == "file":
        return make_file(posix, parent, name, name)
    if kind == "fifo":
        return posix.mknod(ROOT, parent, name, stat.S_IFIFO | 0o644).ino
    if kind == "symlink":
        return posix.symlink(ROOT, parent, name, b"t").ino
    ino = make_dir(posix, parent, name)
    if kind == "full-dir":
        make_file(posix, ino, b"inside")
    return ino


def _expected(source: str, target: str) -> int:
    """The errno of a plain rename of one kind over another, or 0."""
    if "dir" in source:
        if "dir" not in target:
            return errno.ENOTDIR
        return errno.ENOTEMPTY if target == "full-dir" else 0
    return errno.EISDIR if "dir" in target else 0


@pytest.mark.parametrize("across", [False, True], ids=["same", "across"])
@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_rename_over(posix: Posix, source: str, target: str, across: bool) -> None:
    src = make_dir(posix, posix.root, b"src")
    dst = make_dir(posix, posix.root, b"dst") if across else src
    ino, old = _make(posix, src, b"a", source), _make(posix, dst, b"b", target)
    code = _expected(source, target)
    if code:
        with refuses(code):
            posix.rename(ROOT, src, b"a", dst, b"b")
        assert posix.lookup(ROOT, src, b"a").ino == ino
        assert posix.lookup(ROOT, dst, b"b").ino == old
        return
    posix.rename(ROOT, src, b"a", dst, b"b")
    assert not exists(posix, src, b"a")
    assert posix.lookup(ROOT, dst, b"b").ino == ino
    with refuses(errno.ESTALE):
        posix.getattr(ROOT, old)
    for directory in {src, dst}:
        subdirs = sum(
            stat.S_ISDIR(posix.lookup(ROOT, directory, name).mode)
            for name in names_in(posix, directory)
        )
        assert posix.getattr(ROOT, directory).nlink == 2 + subdirs


@pytest.mark.parametrize("across", [False, True], ids=["same", "across"])
@pytest.mark.parametrize("kind", KINDS)
def test_rename_to_free_name(posix: Posix, kind: str, across: bool) -> None:
    src = make_dir(posix, posix.root, b"src")
    dst = make_dir(posix, posix.root, b"dst") if across else src
    ino = _make(posix, src, b"a", kind)
    posix.rename(ROOT, src, b"a", dst, b"b" * 255, RENAME_NOREPLACE)
    assert names_in(posix, dst) == [b"b" * 255]
    attr = posix.lookup(ROOT, dst, b"b" * 255)
    assert attr.ino == ino
    if stat.S_ISDIR(attr.mode):
        assert posix.lookup(ROOT, ino, b"..").ino == dst


@pytest.mark.parametrize("across", [False, True], ids=["same", "across"])
@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_rename_exchange(posix: Posix, source: str, target: str, across: bool) -> None:
    src = make_dir(posix, posix.root, b"src")
    dst = make_dir(posix, posix.root, b"dst") if across else src
    one, two = _make(posix, src, b"a", source), _make(posix, dst, b"b", target)
    posix.rename(ROOT, src, b"a", dst, b"b", RENAME_EXCHANGE)
    assert posix.lookup(ROOT, src, b"a").ino == two
    assert posix.lookup(ROOT, dst, b"b").ino == one
    for ino, home in ((one, dst), (two, src)):
        if stat.S_ISDIR(posix.getattr(ROOT, ino).mode):
            assert posix.lookup(ROOT, ino, b"..").ino == home
    links = [posix.getattr(ROOT, ino).nlink - 2 for ino in {src, dst}]
    assert sum(links) == ("dir" in source) + ("dir" in target)


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (RENAME_NOREPLACE, errno.EEXIST),
        (RENAME_NOREPLACE | RENAME_EXCHANGE, errno.EINVAL),
        (4, errno.EINVAL),
        (8, errno.EINVAL),
    ],
)
def test_rename_flags(posix: Posix, flags: int, code: int) -> None:
    make_file(posix, posix.root, b"a")
    make_file(posix, posix.root, b"b")
    with refuses(code):
        posix.rename(ROOT, posix.root, b"a", posix.root, b"b", flags)


@pytest.mark.parametrize("flags", [0, RENAME_NOREPLACE, RENAME_EXCHANGE])
def test_rename_absent(posix: Posix, flags: int) -> None:
    with refuses(errno.ENOENT):
        posix.rename(ROOT, posix.root, b"a", posix.root, b"b", flags)


def test_rename_exchange_with_absent(posix: Posix) -> None:
    make_file(posix, posix.root, b"a")
    with refuses(errno.ENOENT):
        posix.rename(ROOT, posix.root, b"a", posix.root, b"b", RENAME_EXCHANGE)


@pytest.mark.parametrize(("name", "code"), BAD_NAMES)
def test_rename_bad_name(posix: Posix, name: bytes, code: int) -> None:
    make_file(posix, posix.root, b"a")
    with refuses(code):
        posix.rename(ROOT, posix.root, b"a", posix.root, name)
    with refuses(code):
        posix.rename(ROOT, posix.root, name, posix.root, b"a")


@pytest.mark.parametrize("name", [b".", b".."])
def test_rename_dots(posix: Posix, name: bytes) -> None:
    ino = make_dir(posix, posix.root, b"d")
    make_dir(posix, ino, b"e")
    with refuses(errno.EBUSY):
        posix.rename(ROOT, ino, name, posix.root, b"x")
    with refuses(errno.EBUSY):
        posix.rename(ROOT, ino, b"e", posix.root, name)


@pytest.mark.parametrize("flags", [0, RENAME_EXCHANGE])
def test_rename_onto_itself(posix: Posix, flags: int) -> None:
    ino = make_file(posix, posix.root, b"a", b"x")
    make_dir(posix, posix.root, b"d")
    for name in (b"a", b"d"):
        posix.rename(ROOT, posix.root, name, posix.root, name, flags)
    assert content(posix, ino) == b"x"
    assert posix.getattr(ROOT, ino).nlink == 1


@pytest.mark.parametrize("flags", [0, RENAME_EXCHANGE])
def test_rename_onto_another_link(posix: Posix, flags: int) -> None:
    ino = make_file(posix, posix.root, b"a")
    posix.link(ROOT, ino, posix.root, b"b")
    posix.rename(ROOT, posix.root, b"a", posix.root, b"b", flags)
    assert sorted(names_in(posix, posix.root)) == [b"a", b"b"]
    assert posix.getattr(ROOT, ino).nlink == 2


@pytest.mark.parametrize("depth", [0, 1, 5])
@pytest.mark.parametrize("flags", [0, RENAME_EXCHANGE])
def test_rename_into_own_subtree(posix: Posix, depth: int, flags: int) -> None:
    top = posix.root
    ino = make_dir(posix, top, b"d")
    below = ino
    for _ in range(depth):
        below = make_dir(posix, below, b"x")
    make_dir(posix, below, b"there")
    with refuses(errno.EINVAL):
        posix.rename(ROOT, top, b"d", below, b"there", flags)
    if not flags:
        with refuses(errno.EINVAL):
            posix.rename(ROOT, top, b"d", below, b"new", flags)


def test_rename_over_ancestor(posix: Posix) -> None:
    top = make_dir(posix, posix.root, b"d")
    below = make_dir(posix, top, b"e")
    make_file(posix, below, b"f")
    make_dir(posix, below, b"g")
    for name in (b"f", b"g"):
        with refuses(errno.ENOTEMPTY):
            posix.rename(ROOT, below, name, posix.root, b"d")
        with refuses(errno.EINVAL):
            posix.rename(ROOT, below, name, posix.root, b"d", RENAME_EXCHANGE)


def test_rename_into_cousin_is_no_loop(posix: Posix) -> None:
    """`mv a/x b/; mv b/y a/`: legal, and the pointers on disk cross."""
    a, b = make_dir(posix, posix.root, b"a"), make_dir(posix, posix.root, b"b")
    x, y = make_dir(posix, a, b"x"), make_dir(posix, b, b"y")
    posix.rename(ROOT, a, b"x", b, b"x")
    posix.rename(ROOT, b, b"y", a, b"y")
    assert posix.lookup(ROOT, x, b"..").ino == b
    assert posix.lookup(ROOT, y, b"..").ino == a


@pytest.mark.parametrize("which", ["source", "target"])
@pytest.mark.parametrize("flags", [0, RENAME_EXCHANGE])
def test_rename_without_write(posix: Posix, which: str, flags: int) -> None:
    free = make_dir(posix, posix.root, b"free", mode=0o777)
    shut = make_dir(posix, posix.root, b"shut", mode=0o755)
    src, dst = (shut, free) if which == "source" else (free, shut)
    make_file(posix, src, b"a")
    make_file(posix, dst, b"b")
    with refuses(errno.EACCES):
        posix.rename(BOB, src, b"a", dst, b"b", flags)
    if not flags:
        with refuses(errno.EACCES):
            posix.rename(BOB, src, b"a", dst, b"new", flags)


def test_rename_of_directory_writes_its_dotdot(posix: Posix) -> None:
    src = make_dir(posix, posix.root, b"src", mode=0o777)
    dst = make_dir(posix, posix.root, b"dst", mode=0o777)
    make_dir(posix, src, b"d", mode=0o755)
    with refuses(errno.EACCES):
        posix.rename(BOB, src, b"d", dst, b"d")
    posix.rename(BOB, src, b"d", src, b"e")


@pytest.mark.parametrize("flags", [0, RENAME_EXCHANGE])
def test_rename_sticky(posix: Posix, flags: int) -> None:
    tmp = make_dir(posix, posix.root, b"tmp", mode=0o1777)
    make_file(posix, tmp, b"alice", user=ALICE)
    make_file(posix, tmp, b"bob", user=BOB)
    for names in ((b"alice", b"bob"), (b"bob", b"alice")):
        with refuses(errno.EPERM):
            posix.rename(BOB, tmp, names[0], tmp, names[1], flags)
    posix.rename(BOB, tmp, b"bob", tmp, b"bobby")


def test_rename_into_removed_directory(posix: Posix) -> None:
    make_file(posix, posix.root, b"a")
    ino = make_dir(posix, posix.root, b"d")
    fh = posix.opendir(ROOT, ino)
    posix.rmdir(ROOT, posix.root, b"d")
    with refuses(errno.ENOENT):
        posix.rename(ROOT, posix.root, b"a", ino, b"a")
    posix.releasedir(fh)


def test_rename_over_open_file(posix: Posix) -> None:
    attr, fh = posix.create(ROOT, posix.root, b"old", 0o644, CREATE)
    posix.write(fh, 0, b"old bytes")
    make_file(posix, posix.root, b"new", b"new bytes")
    posix.rename(ROOT, posix.root, b"new", posix.root, b"old")
    assert posix.read(fh, 0, 99) == b"old bytes"
    assert posix.getattr(ROOT, attr.ino).nlink == 0
    assert content(posix, posix.lookup(ROOT, posix.root, b"old").ino) == b"new bytes"
    posix.release(fh)
    with refuses(errno.ESTALE):
        posix.getattr(ROOT, attr.ino)


def test_rename_moves_times(posix: Posix) -> None:
    src, dst = make_dir(posix, posix.root, b"src"), make_dir(posix, posix.root, b"dst")
    ino = make_file(posix, src, b"a")
    for each in (src, dst, ino):
        posix.setattr(ROOT, each, mtime=5)
    before = posix.getattr(ROOT, ino)
    posix.rename(ROOT, src, b"a", dst, b"a")
    assert posix.getattr(ROOT, src).mtime > 5
    assert posix.getattr(ROOT, dst).mtime > 5
    after = posix.getattr(ROOT, ino)
    assert after.mtime == 5
    assert after.ctime >= before.ctime
