"""Owners, modes, permissions, times, space and extended attributes, as other users see them."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import NOBODY, Disk, as_user


def test_owner_is_the_caller(mnt: Path) -> None:
    (mnt / "open").mkdir()
    (mnt / "open").chmod(0o777)
    assert as_user("touch f; mkdir d; ln -s x l; mkfifo p", mnt / "open").returncode == 0
    for name in "fdlp":
        info = (mnt / "open" / name).lstat()
        assert (info.st_uid, info.st_gid) == (NOBODY, NOBODY)


def test_umask_is_the_callers(mnt: Path) -> None:
    (mnt / "open").mkdir()
    (mnt / "open").chmod(0o777)
    assert as_user("umask 027; touch f; mkdir d", mnt / "open").returncode == 0
    assert stat.S_IMODE((mnt / "open/f").stat().st_mode) == 0o640
    assert stat.S_IMODE((mnt / "open/d").stat().st_mode) == 0o750


def test_permissions_of_files(mnt: Path) -> None:
    mnt.chmod(0o755)
    (mnt / "secret").write_text("x")
    (mnt / "secret").chmod(0o600)
    (mnt / "public").write_text("y")
    assert as_user("cat public", mnt).stdout == "y"
    for script in ("cat secret", "echo z > public", "rm public", "touch new", "chmod 777 public"):
        assert as_user(script, mnt).returncode != 0, script


def test_permissions_of_directories_are_not_cached_away(mnt: Path) -> None:
    """Root walks the path first, so that the kernel knows all names on it."""
    mnt.chmod(0o755)
    (mnt / "closed/inner").mkdir(parents=True)
    (mnt / "closed/inner/f").write_text("x")
    (mnt / "closed").chmod(0o700)
    assert (mnt / "closed/inner/f").read_text() == "x"
    for script in ("cat closed/inner/f", "stat closed/inner/f", "ls closed"):
        assert as_user(script, mnt).returncode != 0, script
    (mnt / "closed").chmod(0o711)
    assert as_user("cat closed/inner/f", mnt).stdout == "x"
    (mnt / "closed").chmod(0o700)
    assert as_user("cat closed/inner/f", mnt).returncode != 0


def test_permissions_by_supplementary_group(mnt: Path) -> None:
    mnt.chmod(0o755)
    (mnt / "f").write_text("x")
    os.chown(mnt / "f", 0, 4321)
    (mnt / "f").chmod(0o640)
    assert as_user("cat f", mnt).returncode != 0
    assert as_user("cat f", mnt, groups=(NOBODY, 4321)).stdout == "x"


def test_permissions_by_acl(disk: Disk) -> None:
    disk.mnt.chmod(0o755)
    (disk.mnt / "f").write_text("x")
    (disk.mnt / "f").chmod(0o600)
    subprocess.run(["setfacl", "-m", f"u:{NOBODY}:r", disk.mnt / "f"], check=True)
    assert as_user("cat f", disk.mnt).stdout == "x"
    assert as_user("echo y > f", disk.mnt).returncode != 0
    disk.remount("allow_other")
    assert as_user("cat f", disk.mnt).stdout == "x"
    shown = subprocess.run(
        ["getfacl", "-n", "-c", disk.mnt / "f"], capture_output=True, text=True, check=True
    )
    assert f"user:{NOBODY}:r--" in shown.stdout


def test_default_acl_takes_the_place_of_the_umask(mnt: Path) -> None:
    (mnt / "d").mkdir()
    subprocess.run(["setfacl", "-d", "-m", "u::rwx,g::rwx,o::---", mnt / "d"], check=True)
    old = os.umask(0o077)
    try:
        (mnt / "d/f").touch()
    finally:
        os.umask(old)
    assert stat.S_IMODE((mnt / "d/f").stat().st_mode) == 0o660


def test_sticky_directory(mnt: Path) -> None:
    (mnt / "tmp").mkdir()
    (mnt / "tmp").chmod(0o1777)
    (mnt / "tmp/root").touch()
    (mnt / "tmp/busy").touch()
    with open(mnt / "tmp/busy"):
        for script in ("rm -f root", "rm -f busy", "mv root other", "touch x; mv x busy"):
            assert as_user(script, mnt / "tmp").returncode != 0, script
    assert (mnt / "tmp/busy").exists()
    assert as_user("touch mine; mv mine yours; rm yours", mnt / "tmp").returncode == 0


def test_set_id_is_dropped_by_a_strangers_write(mnt: Path) -> None:
    mnt.chmod(0o755)
    (mnt / "f").write_text("x")
    (mnt / "f").chmod(0o6777)
    done = as_user("echo y >> f", mnt)
    assert done.returncode == 0, done
    assert stat.S_IMODE((mnt / "f").stat().st_mode) == 0o777
    assert (mnt / "f").read_text() == "xy\n"


def test_set_gid_directory(mnt: Path) -> None:
    (mnt / "d").mkdir()
    os.chown(mnt / "d", 0, 4321)
    (mnt / "d").chmod(0o2777)
    assert as_user("touch f; mkdir s", mnt / "d").returncode == 0
    assert (mnt / "d/f").stat().st_gid == 4321
    assert (mnt / "d/s").stat().st_mode & stat.S_ISGID


def test_times_one_at_a_time(mnt: Path) -> None:
    path = mnt / "f"
    path.touch()
    os.utime(path, ns=(1_000_000_001, 2_000_000_002))
    subprocess.run(["touch", "-a", "-d", "@5.5", path], check=True)
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (5_500_000_000, 2_000_000_002)
    subprocess.run(["touch", "-m", "-d", "@7.25", path], check=True)
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (5_500_000_000, 7_250_000_000)
    before = time.time_ns()
    subprocess.run(["touch", "-a", path], check=True)
    assert path.stat().st_atime_ns >= before - 50_000_000
    assert path.stat().st_mtime_ns == 7_250_000_000


def test_times_before_1970(disk: Disk) -> None:
    (disk.mnt / "f").touch()
    os.utime(disk.mnt / "f", ns=(-1, -(10**18)))
    disk.remount()
    info = (disk.mnt / "f").stat()
    assert (info.st_atime_ns, info.st_mtime_ns) == (-1, -(10**18))


def test_times_of_reads(disk: Disk) -> None:
    for option, moves in (("noatime", False), ("relatime", True), ("strictatime", True)):
        disk.remount(option)
        path = disk.mnt / option
        path.write_text("x")
        os.utime(path, ns=(10**9, 2 * 10**9))
        with open(path, "rb") as file:
            if option != "strictatime":
                # Of a read that the page cache answers the server does not hear.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert file.read() == b"x"
        assert (path.stat().st_atime_ns != 10**9) == moves, option


def test_extended_attributes(disk: Disk) -> None:
    path = disk.mnt / "f"
    path.touch()
    os.setxattr(path, "user.a", b"1")
    os.setxattr(path, "user.big", b"x" * 2000)
    os.setxattr(path, "trusted.t", b"\0\xff")
    with pytest.raises(FileExistsError):
        os.setxattr(path, "user.a", b"2", os.XATTR_CREATE)
    with pytest.raises(OSError, match="No data"):
        os.setxattr(path, "user.none", b"2", os.XATTR_REPLACE)
    disk.remount()
    assert sorted(os.listxattr(path)) == ["trusted.t", "user.a", "user.big"]
    assert os.getxattr(path, "user.big") == b"x" * 2000
    os.removexattr(path, "user.a")
    with pytest.raises(OSError) as caught:
        os.getxattr(path, "user.a")
    assert caught.value.errno == errno.ENODATA


def test_file_capabilities_are_seen_after_they_were_missing(mnt: Path) -> None:
    """The server remembers that a file has none, because the kernel asks before every write."""
    path = mnt / "f"
    path.write_text("x")
    value = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(path, "security.capability", value)
    assert os.getxattr(path, "security.capability") == value


def test_space_is_counted(disk: Disk) -> None:
    before = os.statvfs(disk.mnt)
    assert before.f_namemax == 255
    (disk.mnt / "big").write_bytes(b"x" * (4 << 20))
    used = before.f_bfree - os.statvfs(disk.mnt).f_bfree
    assert 1024 <= used <= 1100
    assert (disk.mnt / "big").stat().st_blocks * 512 >= 4 << 20


def test_space_runs_out_and_comes_back(disk: Disk) -> None:
    (disk.mnt / "small").write_text("kept")
    with pytest.raises(OSError) as caught:
        shutil.copyfile("/dev/zero", disk.mnt / "fill")
    assert caught.value.errno == errno.ENOSPC
    (disk.mnt / "fill").unlink()
    (disk.mnt / "again").write_bytes(b"y" * (8 << 20))
    disk.remount()
    assert (disk.mnt / "small").read_text() == "kept"
    assert (disk.mnt / "again").stat().st_size == 8 << 20
    disk.umount()
    disk.fsck()


def test_holes_and_fallocate(disk: Disk) -> None:
    path = disk.mnt / "sparse"
    with open(path, "wb", buffering=0) as file:
        os.pwrite(file.fileno(), b"end", 1 << 30)
        assert os.fstat(file.fileno()).st_blocks < 1000
        os.posix_fallocate(file.fileno(), 0, 1 << 20)
        assert os.fstat(file.fileno()).st_blocks >= 2048
    subprocess.run(["fallocate", "-p", "-o", "0", "-l", "1MiB", path], check=True)
    assert path.stat().st_blocks < 1000
    subprocess.run(["fallocate", "-n", "-o", "2GiB", "-l", "1MiB", path], check=True)
    assert path.stat().st_size == (1 << 30) + 3
    disk.remount()
    with open(path, "rb") as again:
        assert again.read(4096) == bytes(4096)
        again.seek(1 << 30)
        assert again.read() == b"end"
