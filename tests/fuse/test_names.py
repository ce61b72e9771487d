"""Names, links, and files without a name, as the host kernel sees them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support import Disk


def test_names_are_bytes(disk: Disk) -> None:
    names = [b"\xff\xfe", b"caf\xc3\xa9", b"new\nline", b"\x01", b" ", b"-rf"]
    root = os.fsencode(disk.mnt)
    for name in names:
        Path(os.fsdecode(os.path.join(root, name))).write_bytes(name)
    disk.remount()
    assert sorted(os.listdir(root)) == sorted(names)
    for name in names:
        assert Path(os.fsdecode(os.path.join(root, name))).read_bytes() == name


def test_names_of_255_and_256_bytes(mnt: Path) -> None:
    (mnt / ("n" * 255)).write_text("x")
    assert (mnt / ("n" * 255)).read_text() == "x"
    for attempt in (
        lambda: (mnt / ("n" * 256)).write_text("x"),
        (mnt / ("n" * 256)).stat,
        (mnt / ("n" * 256)).mkdir,
        lambda: (mnt / ("n" * 255)).rename(mnt / ("m" * 256)),
        lambda: os.symlink("x", mnt / ("n" * 256)),
    ):
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno == errno.ENAMETOOLONG


def test_names_long_symlink(mnt: Path) -> None:
    os.symlink("t" * 4000, mnt / "link")
    assert os.readlink(mnt / "link") == "t" * 4000


def test_links_share_inode_and_attributes(mnt: Path) -> None:
    one, two = mnt / "one", mnt / "two"
    one.write_text("first")
    assert one.stat().st_nlink == 1
    os.link(one, two)
    assert os.path.samefile(one, two)
    assert one.stat().st_nlink == two.stat().st_nlink == 2
    two.chmod(0o600)
    assert stat.S_IMODE(one.stat().st_mode) == 0o600
    two.write_text("longer than before")
    assert one.stat().st_size == 18
    assert one.read_text() == "longer than before"
    two.unlink()
    assert one.stat().st_nlink == 1


def test_links_share_bytes_between_open_files(mnt: Path) -> None:
    """Each name has a page cache of its own in the kernel."""
    one, two = mnt / "one", mnt / "two"
    one.write_text("aaaa")
    os.link(one, two)
    with open(one, "r+b", buffering=0) as first, open(two, "r+b", buffering=0) as second:
        assert second.read(4) == b"aaaa"
        first.write(b"bbbb")
        assert os.pread(second.fileno(), 4, 0) == b"bbbb"
        os.truncate(two, 2)
        assert os.pread(first.fileno(), 4, 0) == b"bb"


def test_links_found_on_disk_share_bytes(disk: Disk) -> None:
    """The same, when the server has not seen the link being made."""
    one, two = disk.mnt / "one", disk.mnt / "two"
    one.write_text("aaaa")
    os.link(one, two)
    disk.remount()
    assert two.read_text() == "aaaa"
    with open(one, "r+b", buffering=0) as first, open(two, "rb", buffering=0) as second:
        assert second.read(4) == b"aaaa"
        first.write(b"bbbb")
        assert os.pread(second.fileno(), 4, 0) == b"bbbb"


def test_unlinked_file_stays_usable(disk: Disk) -> None:
    path = disk.mnt / "gone"
    with open(path, "w+b", buffering=0) as file:
        file.write(b"before")
        path.unlink()
        assert os.listdir(disk.mnt) == []
        assert os.fstat(file.fileno()).st_nlink == 0
        file.write(b" after")
        assert os.fstat(file.fileno()).st_size == 12
        os.fchmod(file.fileno(), 0o640)
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o640
        os.ftruncate(file.fileno(), 6)
        assert os.pread(file.fileno(), 100, 0) == b"before"
    disk.umount()
    disk.fsck()


def test_unlinked_file_leaves_nothing_after_a_crash(disk: Disk) -> None:
    fd = os.open(disk.mnt / "gone", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"x" * 100000)
    os.fsync(fd)
    (disk.mnt / "gone").unlink()
    subprocess.run(["sync", disk.mnt], check=True)
    disk.kill()
    with contextlib.suppress(OSError):  # closing asks the server, or does not
        os.close(fd)
    disk.mount()
    assert os.listdir(disk.mnt) == []
    disk.umount()
    disk.fsck()


def test_unlinked_file_does_not_hold_its_directory(mnt: Path) -> None:
    (mnt / "d").mkdir()
    with open(mnt / "d/f", "w+b", buffering=0) as file:
        (mnt / "d/f").unlink()
        (mnt / "d").rmdir()
        file.write(b"still here")
        assert os.pread(file.fileno(), 100, 0) == b"still here"


def test_unlinked_name_can_be_used_again(mnt: Path) -> None:
    path = mnt / "f"
    path.write_text("old")
    with open(path) as old:
        path.unlink()
        path.write_text("new")
        assert old.read() == "old"
        assert path.read_text() == "new"


def test_rename_over_open_file(mnt: Path) -> None:
    (mnt / "target").write_text("old")
    (mnt / "source").write_text("new")
    with open(mnt / "target") as file:
        (mnt / "source").rename(mnt / "target")
        assert file.read() == "old"
        assert os.fstat(file.fileno()).st_nlink == 0
    assert (mnt / "target").read_text() == "new"
    assert os.listdir(mnt) == ["target"]


def test_rename_that_fails_keeps_the_open_target(mnt: Path) -> None:
    (mnt / "target").write_text("old")
    (mnt / "d").mkdir()
    with open(mnt / "target"):
        with pytest.raises(NotADirectoryError):
            (mnt / "d").rename(mnt / "target")
        assert (mnt / "target").read_text() == "old"


def test_rename_of_a_directory_moves_what_is_below(mnt: Path) -> None:
    (mnt / "a/b/c").mkdir(parents=True)
    (mnt / "a/b/c/f").write_text("x")
    assert (mnt / "a/b/c/f").read_text() == "x"
    (mnt / "a/b").rename(mnt / "z")
    assert (mnt / "z/c/f").read_text() == "x"
    assert not (mnt / "a/b").exists()
    (mnt / "a/b").mkdir()
    assert os.listdir(mnt / "a/b") == []


def test_directory_of_thousands(disk: Disk) -> None:
    names = [f"file{n:05}" for n in range(3000)]
    (disk.mnt / "d").mkdir()
    for name in names:
        (disk.mnt / "d" / name).touch()
    assert sorted(os.listdir(disk.mnt / "d")) == names
    disk.remount()
    assert sorted(os.listdir(disk.mnt / "d")) == names
    for name in names[::2]:
        (disk.mnt / "d" / name).unlink()
    assert sorted(os.listdir(disk.mnt / "d")) == names[1::2]


def test_special_files(disk: Disk) -> None:
    os.mkfifo(disk.mnt / "fifo")
    os.mknod(disk.mnt / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(disk.mnt / "socket", stat.S_IFSOCK | 0o600)
    disk.remount()
    assert stat.S_ISFIFO((disk.mnt / "fifo").stat().st_mode)
    assert (disk.mnt / "null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISSOCK((disk.mnt / "socket").stat().st_mode)
