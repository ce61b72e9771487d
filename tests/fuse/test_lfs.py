"""LFS by way of the commands: mounted, killed, mounted again, checked, its snapshots. (The whole
folder runs over it, too, but slowly.)"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from xnfs_tools import fsck, snapshot

from libfs.kernel.controls import ADMIN, ADMIN_SIZE
from tests.support import Disk, as_user, command, good, shell


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


def test_lfs_snapshots_by_command(lfs: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(lfs.image)
    lfs.mount()
    (lfs.mnt / "f").write_text("first")
    lfs.umount()
    assert snapshot.main(["create", image, "monday"]) == 0
    lfs.mount()
    (lfs.mnt / "f").write_text("second")
    (lfs.mnt / "g").touch()
    lfs.umount()
    assert good("xnfs", "snapshot", "list", image).split()[2:] == ["monday"]
    good("xnfs", "snapshot", "mount", image, "monday", lfs.mnt)
    assert os.listdir(lfs.mnt) == ["f"]
    assert (lfs.mnt / "f").read_text() == "first"
    with pytest.raises(OSError, match="Read-only"):
        (lfs.mnt / "f").write_text("third")
    lfs.umount()
    assert good("xnfs", "cat", image, "f") == "second"
    assert snapshot.main(["rollback", image, "monday"]) == 0
    assert good("xnfs", "cat", image, "f") == "first"
    assert snapshot.main(["delete", image, "monday"]) == 0
    assert snapshot.main(["delete", image, "monday"]) == 1
    assert capsys.readouterr().err == f"xnfs snapshot: {image}: no snapshot 'monday'\n"
    assert fsck.main(["-fn", image]) == 0


def test_lfs_snapshots_while_it_is_mounted(
    lfs: Disk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was written before is in it, though nobody synced; it can be looked at beside."""
    beside = tmp_path / "beside"
    beside.mkdir()
    lfs.mount()
    image = str(lfs.image)
    data = os.urandom(300_000)
    with open(lfs.mnt / "f", "wb") as file:
        file.write(data)
        file.flush()
        good("xnfs", "snapshot", "create", image, "a")
        file.write(b"more")
    (lfs.mnt / "f").unlink()
    assert snapshot.main(["create", f"{image}:main", "b"]) == 0
    assert snapshot.main(["mount", image, "a", str(beside)]) == 0
    try:
        assert (beside / "f").read_bytes() == data
        (lfs.mnt / "g").write_text("live")
        with pytest.raises(OSError, match="Read-only"):
            (beside / "g").touch()
        for arguments, says in (
            (["create", image, "a"], "there is a snapshot 'a'"),
            (["create", image, "a\nb"], "Invalid argument"),
            (["create", f"{image}:home", "c"], "file system 'home' is not mounted"),
            (["delete", image, "a"], f"mounted on {beside}"),
            (["delete", image, "none"], "no snapshot 'none'"),
            (["rollback", image, "b"], "unmount it first"),
            (["mount", image, "none", str(beside)], "no snapshot 'none'"),
            (["mount", image, "b", str(lfs.mnt / "g")], "Not a directory"),
        ):
            capsys.readouterr()
            assert snapshot.main(arguments) == 1
            error = capsys.readouterr().err
            assert (says in error, error.count("\n")) == (True, 1)
    finally:
        good("umount.xnfs", beside)
    assert snapshot.main(["delete", image, "a"]) == 0
    lfs.kill()
    lfs.mount()
    assert snapshot.main(["list", image]) == 0
    assert capsys.readouterr().out.split()[2:] == ["b"]
    lfs.umount()
    assert fsck.main(["-fn", image]) == 0


def test_lfs_snapshots_need_the_kernel_transport(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lfs = Disk(tmp_path, "fusepy", "lfs")
    try:
        lfs.mkfs()
        lfs.mount()
        assert snapshot.main(["create", str(lfs.image), "a"]) == 1
        assert "it can with -o transport=kernel" in capsys.readouterr().err
    finally:
        lfs.clean_up()


def test_lfs_snapshots_of_a_mount_are_not_for_everybody(lfs: Disk) -> None:
    lfs.mount("allow_other")
    lfs.mnt.chmod(0o777)
    ioctl = f"fcntl.ioctl(os.open('.', os.O_RDONLY), {ADMIN}, bytearray({ADMIN_SIZE}))"
    done = as_user(f'/usr/bin/env python3 -c "import fcntl, os; {ioctl}"', lfs.mnt)
    assert "Operation not permitted" in done.stderr


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
