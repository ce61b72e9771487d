"""`xnfs mv`: files of one file system of an image become files of another."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from xnfs_tools import cli, fsck, mkfs, mv
from xnfs_tools.command import split_place
from xnfs_tools.session import SUPERUSER, Session, open_image

from libfs.formats import FORMATS
from libfs.posix import FsError


@pytest.fixture
def two(image: Path) -> Iterator[str]:
    """An image with a second file system; at the end nothing is wrong with it."""
    assert mkfs.main(["--add", "home", str(image)]) == 0
    yield str(image)
    assert fsck.main(["-f", "-n", str(image)]) == 0


def _read(image: str, path: str) -> bytes | None:
    with open_image(image, readonly=True) as session:
        return _content(session, path)


def _content(session: Session, path: str) -> bytes | None:
    parent, name = session.parent(path)
    try:
        attr = session.posix.lookup(SUPERUSER, parent, name)
    except FsError:
        return None
    if stat.S_ISLNK(attr.mode):
        return session.posix.readlink(SUPERUSER, attr.ino)
    fh = session.posix.open(SUPERUSER, attr.ino, os.O_RDONLY)
    return session.posix.read(fh, 0, attr.size)


def _inode(image: str, path: str) -> tuple[int, int, int]:
    with open_image(image, readonly=True) as session:
        attr = session.resolve(path)
        return attr.ino, attr.mode, attr.mtime


def test_mv_moves_the_inode_itself(two: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = _inode(two, "/d/big")
    content = _read(two, "/d/big")
    assert mv.move(f"{two}:main/d/big", f"{two}:home/") == 0
    assert _inode(f"{two}:home", "/big") == before
    assert _read(f"{two}:home", "/big") == content
    assert _read(two, "/d/big") is None
    assert cli.main(["mv", f"{two}:home/big", f"{two}:main/d/again"]) == 0
    assert _inode(two, "/d/again") == before
    assert cli.main(["mv", f"{two}:main/link", f"{two}:home/LINK"]) == 0
    assert _read(f"{two}:home", "/LINK") == b"hello"
    assert capsys.readouterr().err == ""


def test_mv_a_directory_and_what_is_in_it(two: str, capsys: pytest.CaptureFixture[str]) -> None:
    with open_image(two, readonly=False) as session:
        posix, root = session.posix, session.posix.root
        above = root
        for name in (b"a", b"b", b"c"):
            above = posix.mkdir(SUPERUSER, above, name, 0o750).ino
            for number in range(5):
                attr, fh = posix.create(SUPERUSER, above, b"f%d" % number, 0o640, os.O_RDWR)
                posix.write(fh, 0, name * 5000)
                posix.setattr(SUPERUSER, attr.ino, uid=7, gid=8)
                posix.release(fh)
        posix.setxattr(SUPERUSER, above, b"user.x", b"value")
        posix.setattr(SUPERUSER, above, uid=5, mtime=5, mode=0o2750)
    assert mv.move(f"{two}:main/a", f"{two}:home/A") == 0
    with open_image(f"{two}:home", readonly=True) as session:
        for path, name in (("/A", b"a"), ("/A/b", b"b"), ("/A/b/c", b"c")):
            for number in range(5):
                assert _content(session, f"{path}/f{number}") == name * 5000
                assert session.resolve(f"{path}/f{number}").uid == 7
        attr = session.resolve("/A/b/c")
        assert (attr.mode & 0o7777, attr.uid, attr.mtime) == (0o2750, 5, 5)
        assert session.posix.getxattr(SUPERUSER, attr.ino, b"user.x") == b"value"
    assert cli.main(["ls", two, "/a"]) == 1
    assert "copied" not in capsys.readouterr().err


def test_mv_replaces_what_is_there(two: str) -> None:
    assert mv.move(f"{two}:main/d/big", f"{two}:home/f") == 0
    assert mv.move(f"{two}:main/link", f"{two}:home/f") == 0
    assert _read(f"{two}:home", "/f") == b"hello"
    with open_image(f"{two}:home", readonly=True) as session:
        assert len(session.posix.readdir(session.posix.opendir(SUPERUSER, session.posix.root))) == 3


def test_mv_copies_with_a_word(
    two: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mv.move(f"{two}:main/hello", f"{two}:home/hello") == 0
    assert "'hello' is copied, not moved: it has other names" in capsys.readouterr().err
    assert _read(f"{two}:home", "/hello") == _read(two, "/hard") == b"hello\n"
    assert _read(two, "/hello") is None
    before = _inode(two, "/d/big")
    # What LFS, or a stranger's file system, is to FFS: without `send` everything is copied.
    ffs = FORMATS["ffs"]
    monkeypatch.setitem(FORMATS, "ffs", replace(ffs, send=None))
    content = _read(two, "/d/big")
    assert mv.move(f"{two}:main/d/big", f"{two}:home/big") == 0
    assert "hands no files over" in capsys.readouterr().err
    after = _inode(f"{two}:home", "/big")
    assert after[0] != before[0]
    assert after[1:] == before[1:]
    assert _read(f"{two}:home", "/big") == content
    assert _read(two, "/d/big") is None


def test_mv_refuses(two: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.xnfs"
    assert mkfs.main([str(other), "4m"]) == 0
    for source, target, status, says in (
        (f"{two}:main/hello", f"{other}:main/", 1, "two images"),
        (f"{two}:main/nothing", f"{two}:home/", 1, "No such file"),
        (f"{two}:main/hello", f"{two}:home/no/such", 1, "No such file"),
        (f"{two}:main/hello", f"{two}:away/", 1, "no file system named 'away'"),
        (f"{two}:main/", f"{two}:home/x", 1, "not a name"),
        (two, f"{two}:home/x", 2, "IMAGE:ROOT/PATH"),
        ("no.img:main/x", "no.img:home/x", 1, "No such file"),
    ):
        assert cli.main(["mv", source, target]) == status
        assert says in capsys.readouterr().err
    assert _read(two, "/hello") == b"hello\n"


def test_mv_how_places_are_named(tmp_path: Path) -> None:
    image = tmp_path / "odd:name"
    image.write_bytes(b"")
    assert split_place(f"{image}:home/a:b/c") == (str(image), "home", "/a:b/c")
    assert split_place("new.img:home/a/b") == ("new.img", "home", "/a/b")
    assert split_place(f"{image}:home/") == (str(image), "home", "/")
