"""Several file systems in one image: made, listed, removed, named; without a mount."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from xnfs_tools import cli, fsck, mkfs
from xnfs_tools.command import Failed, split_image
from xnfs_tools.foreign import load_format
from xnfs_tools.session import SUPERUSER, choose_root, mount_root, open_kernel

from libfs.formats import FORMATS, Format
from libfs.posix import FsError, Posix
from xnfs import Caller, CapabilityError, Xn

_MAINS = {"mkfs.xnfs": mkfs.main, "fsck.xnfs": fsck.main, "xnfs": cli.main}


@pytest.fixture
def good(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command in this process, which must succeed quietly; its output."""

    def run(name: str, *words: str | Path) -> str:
        assert _MAINS[name]([*map(str, words)]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return run


@pytest.fixture
def bad(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run a command in this process; its status, and what it complained of."""

    def run(name: str, *words: str | Path) -> tuple[int, str]:
        status = _MAINS[name]([*map(str, words)])
        return status, capsys.readouterr().err

    return run


@pytest.mark.parametrize("kind", list(FORMATS))
def test_roots_made_filled_listed_and_removed(
    image: Path, tmp_path: Path, kind: str, good: Callable[..., str]
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_bytes(os.urandom(500_000))
    before = good("xnfs", "roots", image).splitlines()
    told = good("mkfs.xnfs", "-t", kind, "--add", "home", "-d", tree, image)
    assert "home" in told
    header, home, main, free = good("xnfs", "roots", image).splitlines()
    assert header.split() == ["NAME", "TYPE", "BLOCKS", "SIZE", "OWNER", "UUID"]
    assert home.split()[:2] == ["home", kind]
    assert int(home.split()[2]) >= 500_000 // 4096 + 3
    assert f"{os.getuid()}:{os.getgid()}" in home
    assert main == before[1]
    assert int(before[2].split()[5]) - int(free.split()[5]) >= int(home.split()[2])
    assert good("xnfs", "cat", f"{image}:main", "/hello") == "hello\n"
    assert good("fsck.xnfs", "-f", "-n", image)
    good("xnfs", "rmroot", "-F", f"{image}:home")
    assert good("xnfs", "roots", image).splitlines() == before
    assert good("fsck.xnfs", "-f", "-n", image)


def test_roots_that_can_not_be_made(
    image: Path, tmp_path: Path, good: Callable[..., str], bad: Callable[..., tuple[int, str]]
) -> None:
    for words, says in (
        (("--add", "main", image), "there is a file system named 'main' already"),
        (("--add", "a:b", image), "can't be the name"),
        (("--add", "a/b", image), "can't be the name"),
        (("--add", "", image), "can't be the name"),
        (("--add", "a\nb", image), "can't be the name"),
        (("--add", "n" * 65, image), "too long"),
        (("--add", "home", "-L", "label", image), "--add takes what the image has"),
        (("--add", "home", image, "1g"), "--add takes what the image has"),
        (("--add", "home", tmp_path / "none"), "No such file"),
        (("--add", "home", "-d", tmp_path / "none", image), "not a directory"),
        (("--add", "home", "-t", "nosuch", image), "there is no kind 'nosuch'"),
        (("--add", "home", "-t", "nosuch:Class", image), "no file system 'nosuch:Class'"),
    ):
        status, said = bad("mkfs.xnfs", *words)
        assert status == 1
        assert says in said
    assert good("xnfs", "roots", image).count("\n") == 3
    assert "would add" in good("mkfs.xnfs", "-n", "--add", "home", image)
    assert "home" not in good("xnfs", "roots", image)


def test_roots_one_that_can_not_be_filled_is_removed(
    tmp_path: Path, good: Callable[..., str], bad: Callable[..., tuple[int, str]]
) -> None:
    image, tree = tmp_path / "small.xnfs", tmp_path / "tree"
    tree.mkdir()
    (tree / "big").write_bytes(os.urandom(4 << 20))
    good("mkfs.xnfs", image, "2m")
    before = good("xnfs", "roots", image)
    status, said = bad("mkfs.xnfs", "--add", "home", "-d", tree, image)
    assert status == 1
    assert "No space left" in said
    after = good("xnfs", "roots", image)
    assert after.splitlines()[:2] == before.splitlines()[:2]
    assert "home" not in after


def test_roots_are_removed_only_if_it_is_meant(
    image: Path, good: Callable[..., str], bad: Callable[..., tuple[int, str]]
) -> None:
    good("mkfs.xnfs", "--add", "home", image)
    for status, says, *words in (
        (1, "will be lost", f"{image}:home"),
        (2, "which one?", "-F", image),
        (1, "there: home, main", "-F", f"{image}:away"),
    ):
        failed, said = bad("xnfs", "rmroot", *words)
        assert failed == status
        assert says in said
    assert good("xnfs", "roots", image).count("\n") == 4


def test_roots_the_catalogue_is_full(
    tmp_path: Path, good: Callable[..., str], bad: Callable[..., tuple[int, str]]
) -> None:
    image = tmp_path / "small.xnfs"
    good("mkfs.xnfs", image, "4m")
    with open_kernel(str(image), readonly=False) as xn:
        for number in range(30):
            FORMATS["ffs"].mkfs(xn, xn.admin, f"r{number}")
    status, said = bad("mkfs.xnfs", "--add", "more", image)
    assert (status, "catalogue is full" in said) == (1, True)


def test_roots_an_image_in_use(image: Path, bad: Callable[..., tuple[int, str]]) -> None:
    with open_kernel(str(image), readonly=False):
        for name, *words in (
            ("mkfs.xnfs", "--add", "home"),
            ("xnfs", "roots"),
        ):
            status, said = bad(name, *words, image)
            assert status == 1
            assert len(said.splitlines()) == 1


def test_roots_how_they_are_named(image: Path, tmp_path: Path) -> None:
    assert split_image("a.img") == ("a.img", None)
    assert split_image("a.img:home") == ("a.img", "home")
    assert split_image("/x:y/a.img") == ("/x:y/a.img", None)
    odd = tmp_path / "odd:name"
    odd.write_bytes(b"")
    assert split_image(str(odd)) == (str(odd), None)
    assert split_image(f"{odd}:home") == (str(odd), "home")


def test_roots_of_a_type_that_nobody_knows(
    image: Path, good: Callable[..., str], bad: Callable[..., tuple[int, str]]
) -> None:
    good("mkfs.xnfs", "-t", "examples.notefs:NoteFs", "--add", "notes", image)
    status, said = bad("xnfs", "ls", f"{image}:notes")
    assert (status, "of type notefs.node" in said) == (1, True)
    assert "notefs.node" in good("xnfs", "roots", image)
    good("fsck.xnfs", "-f", "-n", image)
    good("xnfs", "rmroot", "-F", f"{image}:notes")


class Spy:
    """A kind of file system that wants to know what it is given."""

    def __init__(self, given: list[bytes]) -> None:
        self._given = given

    def mount(self, xn: Xn, cap: bytes, name: str, *, readonly: bool) -> NoReturn:
        assert xn.mount_root(Caller(cap), name).name == name
        self._given.append(cap)
        raise FsError(errno.EIO)


@pytest.mark.parametrize("kind", list(FORMATS))
def test_roots_who_holds_one_reaches_nothing_of_another(
    image: Path, kind: str, good: Callable[..., str]
) -> None:
    tree = image.parent / "tree"
    tree.mkdir()
    (tree / "secret").write_bytes(b"x" * 50_000)
    good("mkfs.xnfs", "-t", kind, "--add", "home", "-d", tree, image)
    with open_kernel(str(image), readonly=False) as xn:
        main = xn.mount_root(Caller(xn.admin), "main")
        who = Caller(main.cap)
        home = Posix(mount_root(xn, str(image), choose_root(xn, "", "home"), readonly=False))
        attr = home.lookup(SUPERUSER, home.root, b"secret")
        fh = home.open(SUPERUSER, attr.ino, os.O_RDWR)
        assert home.read(fh, 0, 50_000) == b"x" * 50_000
        theirs = [b for b, page in xn._registry.pages.items() if page.root == "home"]
        assert len(theirs) > 12
        for block in theirs:
            calls: list[Callable[[], object]] = [
                lambda block=block: xn.read(who, block, 0, 1),  # type: ignore[misc]
                lambda block=block: xn.write_raw(who, block, 0, b"y"),  # type: ignore[misc]
                lambda block=block: xn.update(who, block, [(2048, b"y")]),  # type: ignore[misc]
                lambda block=block: xn.readin(who, block, 0, block, 1),  # type: ignore[misc]
            ]
            for call in calls:
                with pytest.raises(CapabilityError):
                    call()
        assert xn.evict(who, theirs) == 0
        with pytest.raises(CapabilityError):
            xn.mount_root(who, "home")
        given: list[bytes] = []
        spy = Format("spy", "", lambda *_: None, Spy(given).mount)
        with pytest.raises(Failed):
            mount_root(xn, "", choose_root(xn, "", "main"), readonly=False, kind=spy)
        with pytest.raises(CapabilityError):  # nor is any file system given more
            xn.mount_root(Caller(given[0]), "home")
        home.release(fh)
        home.close()


def test_roots_share_the_frames_fairly(image: Path) -> None:
    """One that reads and writes more than the cache holds leaves the others their part."""
    assert mkfs.main(["--add", "home", str(image)]) == 0
    with open_kernel(str(image), readonly=False, cache=1 << 20, roots=("main", "home")) as xn:
        fs = mount_root(xn, str(image), choose_root(xn, str(image), "main"), readonly=False)
        posix = Posix(fs)
        attr, fh = posix.create(SUPERUSER, posix.root, b"big", 0o600, os.O_RDWR)
        for at in range(0, 11 << 20, 1 << 20):
            posix.write(fh, at, bytes(1 << 20))
        pool = xn._registry._frames
        assert pool.used("main") <= pool.count // 2
        assert pool.available("home") >= pool.count // 2 - 16
        assert attr.size == 0
        posix.close()


def test_formats_that_are_none() -> None:
    for spec in ("nosuch:Class", "json:nosuch", "json:JSONDecoder", "json", ""):
        with pytest.raises(Failed, match="no file system"):
            load_format(spec, here=False)
