"""`xnfs cp` on a mounted image: the server does it, and what the host kernel has cached is told."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from xnfs_tools import cp as xnfs_cp

from libfs.kernel import controls
from libfs.posix.copying import How
from tests.support import BIN, NOBODY, Disk, good, shell

pytestmark = pytest.mark.fuse


def cp(disk: Disk, source: str, target: str, *options: str) -> int:
    """The command, without the time that it takes to start."""
    return xnfs_cp.main([*options, f"{disk.image}:{source}", f"{disk.image}:{target}"])


def tree(disk: Disk, many: int = 40) -> Path:
    """A directory of the mount with some files in it."""
    top = disk.mnt / "src"
    for name in ("a", "b/c"):
        (top / name).mkdir(parents=True)
        for number in range(many):
            (top / name / f"f{number}").write_bytes(b"%d" % number * number * 50)
    (top / "link").symlink_to("a/f1")
    return top


def same(disk: Disk, one: str, other: str) -> None:
    shell(f"diff -r --no-dereference {disk.mnt / one} {disk.mnt / other}")


def cp_as_nobody(disk: Disk, source: str, target: str) -> str:
    """Copy as another user, with a umask of 077; what was said."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # he may not even read the interpreter, so it has to be running already
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os.umask(0o077)
        os.dup2(writer, 2)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        status = xnfs_cp.main(["-r", f"{disk.image}:{source}", f"{disk.image}:{target}"])
        sys.stderr.flush()
        os._exit(status)
    os.close(writer)
    with open(reader) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == (1 if said else 0)
    return said


def test_copy_is_seen_at_once(disk: Disk) -> None:
    """The host kernel remembers that a name is not there, and what a directory lists."""
    tree(disk)
    (disk.mnt / "into").mkdir()
    for target in ("copy", "into/copy"):
        above = (disk.mnt / target).parent
        assert not (disk.mnt / target).exists()
        before = above.stat()
        assert "copy" not in os.listdir(above)
        assert "copy" not in os.listdir(above)
        assert cp(disk, "src", target, "-r") == 0
        assert "copy" in os.listdir(above)
        same(disk, "src", target)
        after = above.stat()
        assert after.st_mtime_ns > before.st_mtime_ns
        assert after.st_nlink == before.st_nlink + 1
        assert not [name for name in os.listdir(above) if name.startswith(".xnfs")]
    good("xnfs", "cp", "-r", f"{disk.image}:src/a", f"{disk.image}:into")
    same(disk, "src/a", "into/a")
    disk.remount()
    same(disk, "src", "copy")
    disk.umount()
    disk.fsck()


def test_copy_has_what_the_host_has_not_written_back(disk: Disk) -> None:
    path = disk.mnt / "f"
    with open(path, "wb", buffering=0) as file:
        for round in range(3):
            file.write(os.urandom(1_500_000))
            assert cp(disk, "f", f"copy-{round}", "-a") == 0
            copy = disk.mnt / f"copy-{round}"
            assert copy.read_bytes() == path.read_bytes()
            assert copy.stat().st_mtime_ns == path.stat().st_mtime_ns
        # Without the program's syncfs(2), which promises nothing: the server asks for the bytes.
        file.write(b"more" * 100_000)
        fd = os.open(disk.mnt, os.O_RDONLY)
        fcntl.ioctl(fd, controls.COPY, bytearray(controls.CopyRequest(How(), b"f", b"g").pack()))
        os.close(fd)
        assert (disk.mnt / "g").read_bytes() == path.read_bytes()


def test_copy_over_a_file_that_is_open(disk: Disk) -> None:
    (disk.mnt / "new").write_bytes(b"new" * 5000)
    (disk.mnt / "old").write_bytes(b"old" * 5000)
    with open(disk.mnt / "old", "rb") as old:
        assert old.read(3) == b"old"
        assert cp(disk, "new", "old") == 0
        assert (disk.mnt / "old").read_bytes() == b"new" * 5000
        assert old.read() == (b"old" * 5000)[3:]
        assert os.fstat(old.fileno()).st_nlink == 0


def test_copy_by_a_user(disk: Disk) -> None:
    """His rights, his files."""
    tree(disk, 3)
    secret = disk.mnt / "src/a/secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    home = disk.mnt / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    assert cp_as_nobody(disk, "src", "home/copy") == "xnfs cp: src/a/secret: Permission denied\n"
    assert os.listdir(home) == []
    assert cp_as_nobody(disk, "src/b", "copy") == "xnfs cp: src/b to copy: Permission denied\n"
    assert cp_as_nobody(disk, "src/b", "home/copy") == ""
    info = (home / "copy/c/f2").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (NOBODY, NOBODY, 0o600)


def test_copy_while_others_work_in_the_same_directory(disk: Disk) -> None:
    """Requests that hold a directory wait for answers; so may what the kernel is told of it."""
    tree(disk, 100)
    ended = threading.Event()
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            while not ended.is_set():
                path = disk.mnt / f"w{number}"
                path.mkdir()
                (path / "f").write_bytes(b"x" * 10_000)
                os.listdir(disk.mnt)
                (path / "f").unlink()
                path.rmdir()
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    try:
        for number in range(5):
            assert cp(disk, "src", f"copy-{number}", "-r") == 0
    finally:
        ended.set()
        for worker in workers:
            worker.join(30)
    assert not failed
    assert not any(worker.is_alive() for worker in workers)
    same(disk, "src", "copy-4")


@pytest.mark.slow
def test_copy_ended_with_the_mount(disk: Disk) -> None:
    """SIGTERM while it copies: what is there afterwards is whole, or not there."""
    for number in range(30):
        (disk.mnt / f"all/{number}").mkdir(parents=True)
        for each in range(40):
            (disk.mnt / f"all/{number}/{each}").write_bytes(b"x" * 300)
    place = f"{disk.image}:"
    words: list[str | Path] = [BIN / "xnfs", "cp", "-r", f"{place}all", f"{place}copy"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as copying:
        while not any(name.startswith(".xnfs-cp") for name in os.listdir(disk.mnt)):
            if copying.poll() is not None:
                break
            time.sleep(0.005)
        os.kill(disk.server(), signal.SIGTERM)
        _, said = copying.communicate(timeout=60)
    disk.wait_dead()
    disk.fsck()
    disk.mount()
    assert [name for name in os.listdir(disk.mnt) if name.startswith(".xnfs-cp")] == []
    if copying.returncode:
        assert "xnfs cp: " in said
        assert not (disk.mnt / "copy").exists()
    else:
        same(disk, "all", "copy")


@pytest.mark.slow
def test_copy_on_a_full_disk(disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(9):
        (disk.mnt / f"f{number}").write_bytes(os.urandom(5 << 20))
    assert cp(disk, "f1", "g1") == 0
    (disk.mnt / "d").mkdir()
    for number in range(9):
        (disk.mnt / f"f{number}").rename(disk.mnt / f"d/{number}")
    assert cp(disk, "d", "e", "-r") == 1
    said = capsys.readouterr().err
    assert said.endswith(": No space left on device\n")
    assert len(said.splitlines()) == 1
    assert sorted(os.listdir(disk.mnt)) == ["d", "g1"]


def test_copy_not_through_fusepy(unmounted: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    unmounted.transport = "fusepy"
    unmounted.mount()
    (unmounted.mnt / "f").write_bytes(b"x")
    assert cp(unmounted, "f", "g") == 1
    assert "transport=kernel" in capsys.readouterr().err


def test_copy_requests_that_are_none(disk: Disk) -> None:
    fd = os.open(disk.mnt, os.O_RDONLY)
    whole = controls.CopyRequest(How(), b"a", b"b").pack()
    for command_, raw, number in (
        (controls.COPY + 1, whole, errno.ENOTTY),
        (controls.COPY - (1 << 16), whole[:-1], errno.ENOTTY),
        (controls.COPY, b"\xff" * controls.SIZE, errno.EINVAL),
        (controls.COPY, whole[:4] + b"\xff" * 4 + whole[8:], errno.EINVAL),
        (controls.COPY, whole[:16] + b"\0b" + whole[18:], errno.EINVAL),
    ):
        with pytest.raises(OSError) as caught:
            fcntl.ioctl(fd, command_, bytearray(raw))
        assert caught.value.errno == number
    os.close(fd)
