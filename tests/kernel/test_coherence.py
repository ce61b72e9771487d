"""What a path-based transport can't do: one inode, one cache, exact sizes, and calls with flags."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import Disk, as_user

pytestmark = pytest.mark.fuse

_NOREPLACE, _EXCHANGE, _WHITEOUT = 1, 2, 4
_KEEP_SIZE, _PUNCH, _COLLAPSE, _ZERO = 1, 2, 8, 16
_libc = ctypes.CDLL(None, use_errno=True)


def _renameat2(old: Path, new: Path, flags: int) -> int:
    """0 or the errno."""
    failed = _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags)
    return ctypes.get_errno() if failed else 0


def _fallocate(fd: int, mode: int, offset: int, length: int) -> int:
    """0 or the errno."""
    _libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    return ctypes.get_errno() if _libc.fallocate(fd, mode, offset, length) else 0


def test_hard_links_share_one_cache(mnt: Path) -> None:
    (mnt / "a").write_bytes(b"first")
    os.link(mnt / "a", mnt / "b")
    with (
        open(mnt / "a", "rb", buffering=0) as reader,
        open(mnt / "b", "r+b", buffering=0) as writer,
    ):
        assert reader.read() == b"first"
        writer.write(b"SECOND")
        assert os.pread(reader.fileno(), 100, 0) == b"SECOND"
        assert os.fstat(reader.fileno()).st_size == 6
        with mmap.mmap(reader.fileno(), 6, prot=mmap.PROT_READ) as view:
            writer.seek(0)
            writer.write(b"third!")
            assert view[:] == b"third!"
    assert (mnt / "a").stat() == (mnt / "b").stat()
    (mnt / "a").chmod(0o600)
    assert (mnt / "b").stat().st_mode & 0o777 == 0o600
    (mnt / "a").unlink()
    assert (mnt / "b").stat().st_nlink == 1
    assert (mnt / "b").read_bytes() == b"third!"


def test_mapped_writes_are_seen_and_kept(disk: Disk) -> None:
    path = disk.mnt / "m"
    path.write_bytes(bytes(20000))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[10000:10005] = b"hello"
        assert os.pread(file.fileno(), 5, 10000) == b"hello"
        os.pwrite(file.fileno(), b"J", 10000)
        assert view[10000:10005] == b"Jello"
        view.flush()
    disk.remount()
    assert path.read_bytes()[10000:10005] == b"Jello"


def test_lseek_finds_data_and_holes(disk: Disk) -> None:
    path = disk.mnt / "sparse"
    with open(path, "w+b", buffering=0) as file:
        fd = file.fileno()
        os.pwrite(fd, b"x" * 4096, 1 << 20)
        os.pwrite(fd, b"y", 5 << 20)
        os.fsync(fd)
        for _ in range(2):
            assert os.lseek(fd, 0, os.SEEK_DATA) == 1 << 20
            assert os.lseek(fd, 1 << 20, os.SEEK_HOLE) == (1 << 20) + 4096
            assert os.lseek(fd, 2 << 20, os.SEEK_DATA) == 5 << 20
            with pytest.raises(OSError) as caught:
                os.lseek(fd, 6 << 20, os.SEEK_DATA)
            assert caught.value.errno == errno.ENXIO
        # Not yet written back: the kernel's cache counts too.
        os.pwrite(fd, b"z", 3 << 20)
        assert os.lseek(fd, 2 << 20, os.SEEK_DATA) == 3 << 20
        os.pwrite(fd, b"w" * 4096, (1 << 20) + 4096)
        assert os.lseek(fd, 1 << 20, os.SEEK_HOLE) == (1 << 20) + 8192
        os.pwrite(fd, b"v", 9 << 20)
        assert os.lseek(fd, 6 << 20, os.SEEK_DATA) == 9 << 20
        os.pwrite(fd, b"u", 10 << 20)
        assert os.lseek(fd, 10 << 20, os.SEEK_HOLE) == (10 << 20) + 1
        subprocess.run(["cp", "--sparse=auto", path, disk.mnt / "copy"], check=True)
    assert (disk.mnt / "copy").read_bytes() == path.read_bytes()
    assert (disk.mnt / "copy").stat().st_blocks == path.stat().st_blocks


def test_renameat2_flags(mnt: Path) -> None:
    (mnt / "a").write_text("a")
    (mnt / "b").write_text("b")
    assert _renameat2(mnt / "a", mnt / "b", _NOREPLACE) == errno.EEXIST
    assert _renameat2(mnt / "a", mnt / "b", _EXCHANGE) == 0
    assert ((mnt / "a").read_text(), (mnt / "b").read_text()) == ("b", "a")
    assert _renameat2(mnt / "a", mnt / "new", _NOREPLACE) == 0
    assert _renameat2(mnt / "a", mnt / "b", _EXCHANGE) == errno.ENOENT
    assert _renameat2(mnt / "b", mnt / "c", _WHITEOUT) == errno.EINVAL
    (mnt / "d/e").mkdir(parents=True)
    assert _renameat2(mnt / "d", mnt / "new", _EXCHANGE) == 0
    assert (mnt / "d").read_text() == "b"
    assert os.listdir(mnt / "new") == ["e"]
    assert _renameat2(mnt / "new", mnt / "new/e", _EXCHANGE) == errno.EINVAL


def test_fallocate_to_the_byte(disk: Disk) -> None:
    path = disk.mnt / "f"
    with open(path, "w+b", buffering=0) as file:
        fd = file.fileno()
        file.write(b"x" * 10000)
        assert _fallocate(fd, 0, 0, 10001) == 0
        assert os.fstat(fd).st_size == 10001
        assert _fallocate(fd, _KEEP_SIZE, 0, 1 << 20) == 0
        assert os.fstat(fd).st_size == 10001
        assert os.fstat(fd).st_blocks >= 2048
        assert _fallocate(fd, _PUNCH | _KEEP_SIZE, 1000, 5000) == 0
        assert _fallocate(fd, _ZERO, 9000, 2001) == 0
        assert os.fstat(fd).st_size == 11001
        assert _fallocate(fd, _PUNCH, 0, 10) == errno.EOPNOTSUPP
        assert _fallocate(fd, _COLLAPSE, 0, 4096) == errno.EOPNOTSUPP
        expected = b"x" * 1000 + bytes(5000) + b"x" * 3000 + bytes(2001)
        assert os.pread(fd, 20000, 0) == expected
    disk.remount()
    assert path.read_bytes() == expected
    disk.umount()
    disk.fsck()


def test_tmpfile_named_and_not(disk: Disk) -> None:
    fd = os.open(disk.mnt, os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(fd, b"no name yet")
    assert os.fstat(fd).st_nlink == 0
    assert os.listdir(disk.mnt) == []
    _link_open(fd, disk.mnt / "named")
    os.write(fd, b"!")
    os.close(fd)
    assert (disk.mnt / "named").read_bytes() == b"no name yet!"
    fd = os.open(disk.mnt, os.O_TMPFILE | os.O_WRONLY | os.O_EXCL, 0o640)
    os.write(fd, b"x" * 100000)
    with pytest.raises(FileNotFoundError):
        _link_open(fd, disk.mnt / "never")
    before = os.statvfs(disk.mnt).f_bfree
    os.close(fd)
    assert _soon(lambda: os.statvfs(disk.mnt).f_bfree > before)
    disk.umount()
    disk.fsck()


def test_truncation_on_open_and_append(mnt: Path) -> None:
    """Opening is not announced to the server, and both still mean what they say."""
    path = mnt / "f"
    path.write_bytes(b"x" * 100000)
    with open(path, "ab", buffering=0) as one, open(path, "ab", buffering=0) as two:
        one.write(b"1")
        two.write(b"2")
        one.write(b"3")
    assert path.read_bytes()[-4:] == b"x123"
    with open(path, "rb") as reader:
        open(path, "wb").close()
        assert reader.read() == b""
    assert path.stat().st_size == 0
    fd = os.open(mnt / "w", os.O_CREAT | os.O_WRONLY, 0o444)
    os.write(fd, b"a mode that forbids what this descriptor may")
    os.ftruncate(fd, 6)
    os.close(fd)
    assert (mnt / "w").read_bytes() == b"a mode"


def test_partial_writes_keep_their_neighbours(disk: Disk) -> None:
    path = disk.mnt / "f"
    path.write_bytes(b"a" * 10000)
    disk.remount()
    fd = os.open(path, os.O_WRONLY)  # the kernel must read what this descriptor may not
    os.pwrite(fd, b"B", 5000)
    os.close(fd)
    disk.remount()
    assert path.read_bytes() == b"a" * 5000 + b"B" + b"a" * 4999


def test_times_do_not_move_when_caches_are_dropped(disk: Disk) -> None:
    path = disk.mnt / "f"
    path.write_bytes(b"x")
    with open(path, "r+b", buffering=0) as file:
        file.write(b"y")
    before = path.stat()
    disk.remount()
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)


def test_times_written_by_a_stranger(disk: Disk) -> None:
    """Who closes the file brings its times, and need not be its owner."""
    path = disk.mnt / "f"
    path.write_bytes(b"x")
    path.chmod(0o666)
    os.utime(path, (1, 1))
    assert as_user("echo y >> f", disk.mnt, 4321, (4321,)).returncode == 0
    assert path.stat().st_mtime > 1
    moved = path.stat().st_mtime_ns
    disk.remount()
    assert path.stat().st_mtime_ns == moved


def test_sync_option_makes_writes_durable(disk: Disk) -> None:
    disk.remount("sync")
    fd = os.open(disk.mnt / "f", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"durable on return")
    disk.kill()
    _close(fd)
    disk.mount()
    assert (disk.mnt / "f").read_bytes() == b"durable on return"


def test_osync_makes_writes_durable(disk: Disk) -> None:
    fd = os.open(disk.mnt / "f", os.O_CREAT | os.O_WRONLY | os.O_SYNC)
    os.write(fd, b"durable on return")
    disk.kill()
    _close(fd)
    disk.mount()
    assert (disk.mnt / "f").read_bytes() == b"durable on return"


def test_full_disk_is_noticed_by_who_never_closes(disk: Disk) -> None:
    fd = os.open(disk.mnt / "fill", os.O_CREAT | os.O_WRONLY)

    def fill() -> None:
        for _ in range(1000):
            os.write(fd, b"x" * (1 << 20))

    with pytest.raises(OSError) as caught:
        fill()
    assert caught.value.errno == errno.ENOSPC
    os.ftruncate(fd, 0)
    with pytest.raises(OSError):  # what was lost is said once more
        os.close(fd)
    (disk.mnt / "after").write_bytes(b"y" * (1 << 20))
    assert (disk.mnt / "after").stat().st_size == 1 << 20


def test_directory_is_listed_while_it_changes(mnt: Path) -> None:
    stay = {f"stay{n}" for n in range(500)}
    for name in stay:
        (mnt / name).touch()
    for n in range(200):
        (mnt / f"go{n}").touch()
    seen = []
    with os.scandir(mnt) as entries:
        for index, entry in enumerate(entries):
            seen.append(entry.name)
            if index < 200:
                (mnt / f"go{index}").unlink()
                (mnt / f"new{index}").touch()
    assert len(seen) == len(set(seen))
    assert stay <= set(seen)
    assert {e.name for e in os.scandir(mnt)} == stay | {f"new{n}" for n in range(200)}


def test_stress_300_processes(disk: Disk) -> None:
    script = """
import os, sys
n = sys.argv[1]
os.mkdir(n)
for k in range(4):
    with open(f"{n}/{k}", "wb") as f:
        f.write(n.encode() * 1000)
    os.rename(f"{n}/{k}", f"{n}/r{k}")
    with open("shared", "ab", buffering=0) as f:
        f.write(b"%-8s" % n.encode())
os.link(f"{n}/r0", f"link{n}")
os.unlink(f"{n}/r1")
assert open(f"{n}/r2", "rb").read() == n.encode() * 1000
assert sorted(os.listdir(n)) == ["r0", "r2", "r3"]
"""
    running = [
        subprocess.Popen([sys.executable, "-S", "-c", script, str(n)], cwd=disk.mnt)
        for n in range(300)
    ]
    assert [process.wait(240) for process in running] == [0] * 300
    shared = (disk.mnt / "shared").read_bytes()
    words = sorted(shared[at : at + 8].strip() for at in range(0, len(shared), 8))
    assert words == sorted(str(n).encode() for n in range(300) for _ in range(4))
    disk.remount()
    for n in range(300):
        assert (disk.mnt / f"link{n}").read_bytes() == str(n).encode() * 1000
    disk.umount()
    disk.fsck()


def _link_open(fd: int, name: Path) -> None:
    """linkat(2); os.link uses link(2), which does not follow, unless a directory is given."""
    here = os.open(".", os.O_PATH)
    try:
        os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=here, follow_symlinks=True)
    finally:
        os.close(here)


def _close(fd: int) -> None:
    """Close a file whose file system is gone."""
    with contextlib.suppress(OSError):
        os.close(fd)


def _soon(true: object) -> bool:
    assert callable(true)
    for _ in range(200):
        if true():
            return True
        time.sleep(0.01)
    return False
