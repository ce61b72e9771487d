"""mkfs.xnfs: sizes, labels, what it refuses to overwrite, and copying a tree in."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import uuid
from pathlib import Path
from typing import cast

import pytest
from xnfs_tools.session import open_image

from libfs.ffs import Ffs
from tests.support import BIN, command, good


def test_mkfs_makes_a_sparse_file(tmp_path: Path) -> None:
    path = tmp_path / "d"
    ident = str(uuid.uuid4())
    out = good("mkfs.xnfs", "-L", "größer", "-U", ident, path, "1t")
    assert ident in out
    assert path.stat().st_size == 1 << 40
    assert path.stat().st_blocks * 512 < 64 << 20
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    dump = good("dumpfs.xnfs", path)
    assert "größer" in dump
    assert ident in dump


@pytest.mark.parametrize(
    "size", ["16777216", "16384k", "16m", "16M", "16MiB", "16777217"], ids=lambda s: s
)
def test_mkfs_sizes(tmp_path: Path, size: str) -> None:
    good("mkfs.xnfs", tmp_path / "d", size)
    assert (tmp_path / "d").stat().st_size == 16 << 20


@pytest.mark.parametrize("size", ["", "x", "-1", "1.5g", "1z", "0x10"])
def test_mkfs_bad_size(tmp_path: Path, size: str) -> None:
    done = command("mkfs.xnfs", tmp_path / "d", "--", size)
    assert done.returncode == 1
    assert "not a size" in done.stderr
    assert not (tmp_path / "d").exists()


def test_mkfs_too_small(tmp_path: Path) -> None:
    done = command("mkfs.xnfs", tmp_path / "d", "8k")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "d").exists()


def test_mkfs_needs_a_size_for_a_new_file(tmp_path: Path) -> None:
    done = command("mkfs.xnfs", tmp_path / "d")
    assert done.returncode == 1
    assert "give a size" in done.stderr


def test_mkfs_dry_run(tmp_path: Path, image: Path) -> None:
    before = image.read_bytes()
    assert "would make" in good("mkfs.xnfs", "-n", tmp_path / "new", "16m")
    assert not (tmp_path / "new").exists()
    good("mkfs.xnfs", "-n", image)
    assert image.read_bytes() == before


def test_mkfs_bad_label_and_uuid(tmp_path: Path) -> None:
    for option in (("-L", "x" * 65), ("-U", "nonsense"), ("-t", "ext4")):
        done = command("mkfs.xnfs", *option, tmp_path / "d", "16m")
        assert done.returncode == 1, option
        assert not (tmp_path / "d").exists()


def _foreign(path: Path) -> None:
    path.write_bytes(bytes(1080) + b"\x53\xef" + bytes((8 << 20) - 1082))


def test_mkfs_does_not_overwrite_without_a_word(tmp_path: Path, image: Path) -> None:
    ext, data = tmp_path / "ext", tmp_path / "data"
    _foreign(ext)
    data.write_bytes(bytes(100_000) + b"x" + bytes(8 << 20))
    for path, words in (
        (image, "contains an xnfs file system labelled 'pristine'"),
        (ext, "contains an ext2, ext3 or ext4 file system"),
        (data, "contains data"),
    ):
        before = path.read_bytes()
        done = command("mkfs.xnfs", path)
        assert done.returncode == 1
        assert words in done.stderr
        assert "-F" in done.stderr
        assert path.read_bytes() == before
        good("mkfs.xnfs", "-F", path)
        assert good("xnfs", "ls", path) == ""


def test_mkfs_over_zeros_does_not_ask(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(bytes(8 << 20))
    good("mkfs.xnfs", tmp_path / "d")


def test_mkfs_asks_on_a_terminal(image: Path) -> None:
    before = image.read_bytes()
    for answer, status in (("n", 1), ("y", 0)):
        main, side = os.openpty()
        with subprocess.Popen(
            [BIN / "mkfs.xnfs", image],
            stdin=side,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as asked:
            os.write(main, f"{answer}\n".encode())
            asked.communicate(timeout=60)
            assert asked.returncode == status
        os.close(main)
        os.close(side)
        assert (image.read_bytes() == before) == (answer == "n")


def test_mkfs_changes_the_size_of_a_file(image: Path) -> None:
    good("mkfs.xnfs", "-F", image, "32m")
    assert image.stat().st_size == 32 << 20


def test_mkfs_in_use(image: Path) -> None:
    with open(image, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        done = command("mkfs.xnfs", "-F", image)
    assert done.returncode == 1
    assert "in use" in done.stderr


def test_mkfs_not_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/null")):
        done = command("mkfs.xnfs", "-F", path, "16m")
        assert done.returncode == 1
        assert "neither a regular file nor a block device" in done.stderr


def test_mkfs_no_such_directory(tmp_path: Path) -> None:
    done = command("mkfs.xnfs", tmp_path / "no/d", "16m")
    assert done.returncode == 1
    assert "No such file or directory" in done.stderr


def test_mkfs_tree_keeps_everything(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "f").write_text("x")
    (tree / "f").chmod(0o4711)
    os.link(tree / "f", tree / "d/hard")
    os.symlink("t" * 300, tree / "soft")
    os.mkfifo(tree / "fifo")
    with open(tree / "sparse", "wb") as file:
        file.seek(1 << 30)
        file.write(b"end")
        file.truncate((1 << 30) + 100)
    os.setxattr(tree / "f", "user.k", b"v")
    os.utime(tree / "f", ns=(1_000_000_001, 2_000_000_002))
    os.utime(tree / "d", ns=(3, 4))
    good("mkfs.xnfs", "-d", tree, tmp_path / "d.xnfs", "16m")
    out = good("debugfs.xnfs", "-R", "stat /f", tmp_path / "d.xnfs")
    assert "-rws--x--x   2" in out
    assert ".000000001" in out
    assert ".000000002" in out
    assert "user.k = v" in out
    assert ".000000004" in good("debugfs.xnfs", "-R", "stat d", tmp_path / "d.xnfs")
    listing = good("xnfs", "ls", tmp_path / "d.xnfs")
    assert f"-> {'t' * 300}" in listing
    assert f"{(1 << 30) + 100} " in listing
    assert command("fsck.xnfs", "-fn", tmp_path / "d.xnfs").returncode == 0


def test_mkfs_tree_that_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/big").write_bytes(os.urandom(8 << 20))
    done = command("mkfs.xnfs", "-d", tmp_path / "tree", tmp_path / "d.xnfs", "8m")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert not (tmp_path / "d.xnfs").exists()


def test_mkfs_on_a_full_host_disk(tmp_path: Path) -> None:
    mnt = tmp_path / "small"
    mnt.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", mnt], check=True)
    try:
        done = command("mkfs.xnfs", mnt / "d", "64m")
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert list(mnt.iterdir()) == []
    finally:
        subprocess.run(["umount", mnt], check=True)


def test_mkfs_feature_is_kept(tmp_path: Path) -> None:
    """Small files are read together on a mount that says nothing of it."""
    good("mkfs.xnfs", "-O", "cffs", tmp_path / "d", "16m")
    good("mkfs.xnfs", tmp_path / "e", "16m")
    for name, there in (("d", True), ("e", False)):
        with open_image(str(tmp_path / name), readonly=True) as session:
            assert (cast(Ffs, session.posix._core.fs).volume.groups is not None) == there
    with open_image(str(tmp_path / "d"), readonly=True, words={"grouping": False}) as session:
        assert cast(Ffs, session.posix._core.fs).volume.groups is None
    assert command("mkfs.xnfs", "-O", "other", tmp_path / "f", "16m").returncode == 1
