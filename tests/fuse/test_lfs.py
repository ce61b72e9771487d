"""LFS by way of the commands: mounted, killed, mounted again, checked, its snapshots. (The whole
folder runs over it, too, but slowly.)"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Disk, command, good, shell


@pytest.fixture
def lfs(tmp_path: Path) -> Iterator[Disk]:
    """An image with an LFS, not mounted."""
    disk = Disk(tmp_path, "kernel", "lfs")
    try:
        disk.mkfs()
        yield disk
    finally:
        disk.clean_up()


def test_lfs_survives_a_kill(lfs: Disk) -> None:
    source = Path(__file__).parent
    lfs.mount("cleaner=greedy")
    shell(f"cp -r {source} {lfs.mnt}/copy; sync {lfs.mnt}/copy/{Path(__file__).name}")
    lfs.kill()
    lfs.mount()
    shell(f"diff -r -x __pycache__ {source} {lfs.mnt}/copy")
    lfs.umount()
    assert "clean" in good("fsck.xnfs", "-fn", lfs.image)


def test_lfs_snapshots_by_command(lfs: Disk) -> None:
    lfs.mount()
    (lfs.mnt / "f").write_text("first")
    lfs.umount()
    good("xnfs", "snapshot", "create", lfs.image, "monday")
    lfs.mount()
    (lfs.mnt / "f").write_text("second")
    (lfs.mnt / "g").touch()
    lfs.umount()
    assert good("xnfs", "snapshot", "list", lfs.image).split()[2:] == ["monday"]
    good("xnfs", "snapshot", "mount", lfs.image, "monday", lfs.mnt)
    assert os.listdir(lfs.mnt) == ["f"]
    assert (lfs.mnt / "f").read_text() == "first"
    with pytest.raises(OSError, match="Read-only"):
        (lfs.mnt / "f").write_text("third")
    lfs.umount()
    assert good("xnfs", "cat", lfs.image, "f") == "second"
    good("xnfs", "snapshot", "rollback", lfs.image, "monday")
    assert good("xnfs", "cat", lfs.image, "f") == "first"
    good("xnfs", "snapshot", "delete", lfs.image, "monday")
    done = command("xnfs", "snapshot", "delete", lfs.image, "monday")
    assert (done.returncode, done.stderr) == (
        1,
        f"xnfs snapshot: {lfs.image}: no snapshot 'monday'\n",
    )
    assert "clean" in good("fsck.xnfs", "-fn", lfs.image)


def test_lfs_options_that_are_not_there(lfs: Disk) -> None:
    for option in ("cleaner=lazy", "snapshot=none", "cffs"):
        done = command("mount.xnfs", lfs.image, lfs.mnt, "-o", option)
        assert done.returncode == 32
        assert done.stderr.count("\n") == 1
    good("mkfs.xnfs", "-F", lfs.image, "16m")
    done = command("xnfs", "snapshot", "list", lfs.image)
    assert (done.returncode, done.stderr) == (
        1,
        f"xnfs snapshot: {lfs.image}: ffs has no snapshots\n",
    )


def test_lfs_snapshot_beside_the_live_file_system(lfs: Disk, tmp_path: Path) -> None:
    lfs.mount()
    for i in range(20):
        (lfs.mnt / f"{i}").write_bytes(b"%d" % i * 30_000)
    lfs.umount()
    good("xnfs", "snapshot", "create", lfs.image, "then")
    beside = tmp_path / "beside"
    beside.mkdir()
    good("mount.xnfs", f"{lfs.image}:main", lfs.mnt, f"{lfs.image}:main@then", beside)
    try:
        for i in range(0, 20, 2):
            (lfs.mnt / f"{i}").unlink()
            (lfs.mnt / f"new{i}").write_bytes(b"n" * 100_000)
        shell(f"sync {lfs.mnt}/new0")
        assert len(os.listdir(beside)) == 20
        assert all((beside / f"{i}").read_bytes() == b"%d" % i * 30_000 for i in range(20))
        with pytest.raises(OSError, match="Read-only"):
            (beside / "x").touch()
    finally:
        good("umount.xnfs", beside)
        lfs.umount()
    assert "clean" in good("fsck.xnfs", "-fn", lfs.image)
